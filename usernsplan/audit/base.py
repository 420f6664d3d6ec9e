"""The input of the audit (Facts), the decorator of a rule (``rule``), and all rules (RULES). Pure.

A rule is a function from Facts to what it sees. Its docstring is its story: the first line is the
title, and ``check --explain`` prints the rest.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.claims.index import Claims
from usernsplan.claims.meant import is_meant
from usernsplan.claims.sources import claims_of
from usernsplan.errors import InvalidFileError
from usernsplan.formats import daemon_json
from usernsplan.formats.accounts import Group, User
from usernsplan.formats.subid import Grant
from usernsplan.ids import IdSet
from usernsplan.layout import DAEMON_JSON
from usernsplan.mapping import KINDS
from usernsplan.model import ROOT, Finding, Overlap
from usernsplan.planner.grants import Grants
from usernsplan.planner.repair import make_repair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from usernsplan.claims.index import Claim
    from usernsplan.formats.accounts import Accounts
    from usernsplan.formats.daemon_json import DaemonConfig
    from usernsplan.ids import IdRange
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation, HostState, Intent, Namespace, Plan, Severity

# The usual UID_MIN of login.defs(5), and the user nobody: the one id above it without a login.
_FIRST_PERSON, _NOBODY = 1000, 65534


class Unread(NamedTuple):
    """A file that could not be read: its name in the layout, the reason, and the remedy."""

    path: str
    fact: str
    hint: str


class Lock(NamedTuple):
    """A lock file. ``pid`` is None if it holds none; ``alive`` is None if it was not checked."""

    path: str
    pid: int | None
    alive: bool | None


class Attributes(NamedTuple):
    """The result of lstat(2) on subuid or subgid."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int


class FilesCarrying(NamedTuple):
    """How many file names carry ids of a quarantined range, and one of them ("" for none)."""

    name: str
    reserved_range: IdRange
    entries: int
    example: str


class Misfits(NamedTuple):
    """The files of a recorded volume whose owner its container's map lacks: how many, and examples.

    ``ids`` are the most common of these owners, as text.
    """

    path: str
    name: str
    entries: int
    ids: tuple[str, ...]
    examples: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Facts:
    """Everything that a rule may depend on.

    ``namespaces`` are the user namespaces that run on this machine. ``image`` has the accounts of
    --passwd. ``scanned`` is what --scan found of quarantined ranges, None without it.
    ``intent`` is that of an interrupted run. ``elsewhere`` are owners that a directory service
    knows but does not list. ``misfits`` is what --volumes found.

    It has no slots, because cached_property keeps what several rules need.
    """

    state: HostState
    namespaces: tuple[Namespace, ...] = ()
    locks: tuple[Lock, ...] = ()
    unread: tuple[Unread, ...] = ()
    attributes: tuple[Attributes, ...] = ()
    image: Accounts | None = None
    scanned: tuple[FilesCarrying, ...] | None = None
    intent: Intent | None = None
    elsewhere: frozenset[str] = frozenset()
    misfits: tuple[Misfits, ...] = ()

    def place(self, path: str, number: int = 0) -> str:
        """path:line, with the path below this root."""
        return self.state.layout.path(path) + (f":{number}" if number else "")

    def place_of(self, claim: Claim) -> str:
        """path:line of the claim, below this root; "" for a claim that no file has."""
        return self.place(claim.path, claim.number) if claim.path else ""

    def overlaps(self, claims: Iterable[Claim]) -> tuple[Overlap, ...]:
        """Claims as the other parties of a finding's overlap."""
        return tuple(Overlap(self.place_of(claim), claim.holder, *claim[:2]) for claim in claims)

    @cached_property
    def claims(self) -> Claims:
        """The index of all claims on this host."""
        return claims_of(self.state)

    @cached_property
    def users(self) -> dict[str, User]:
        """Accounts by name, the first of each as getpwnam(3) finds it."""
        return {user.name: user for user in reversed(self.state.accounts.users)}

    @cached_property
    def owners(self) -> dict[str, Allocation]:
        """Allocations by owner. Root is left out: it may have several, and lines of others."""
        return {a.owner: a for a in self.state.ledger.allocations if a.owner != ROOT}

    @cached_property
    def grants(self) -> Grants:
        """The lines that our allocations should have in both files, and those that they have."""
        return Grants(self.state)

    @cached_property
    def repair(self) -> Plan:
        """The plan of ``check --fix``."""
        return make_repair(self.state)

    @cached_property
    def granted(self) -> dict[Kind, tuple[Claim, ...]]:
        """By kind, every range that a line grants, lowest first."""
        lines = sorted(
            (claim for claim in self.claims if claim.source == "subid"),
            key=lambda claim: (*claim[:2], claim.number),
        )
        return {kind: tuple(claim for claim in lines if claim.kind == kind) for kind in KINDS}

    @cached_property
    def people(self) -> Claims:
        """Accounts by their uids and groups by their gids, lowest first, each name once."""
        named = [c for c in self.claims if isinstance(c.value, User if c.kind == "uid" else Group)]
        return Claims(sorted({(c.start, c.kind, c.holder): c for c in named}.values()))

    def grants_of(self, owner: str, kind: Kind) -> list[Grant]:
        """The lines of an owner that every reader reads alike, in file order; no empty ones."""
        claims = self.by_owner[kind].get(owner, ())
        return [claim.value for claim in claims if isinstance(claim.value, Grant)]

    @cached_property
    def by_owner(self) -> dict[Kind, dict[str, list[Claim]]]:
        """By kind and owner, the ranges that their lines grant, in file order."""
        found: dict[Kind, dict[str, list[Claim]]] = {kind: {} for kind in KINDS}
        for kind in KINDS:
            for claim in sorted(self.granted[kind], key=lambda claim: claim.number):
                found[kind].setdefault(claim.holder, []).append(claim)
        return found

    @cached_property
    def reserved_ranges(self) -> Claims:
        """The range that the ledger reserves for each allocation."""
        return self.claims.where(_is_reserved_range)

    @cached_property
    def taken(self) -> Claims:
        """The ids with an owner: granted by lines, or reserved in the ledger.

        Claims that share the host's own ids on purpose are left out.
        """
        return self.claims.where(
            lambda claim: (
                _is_reserved_range(claim) or (claim.source == "subid" and not claim.is_intended)
            )
        )

    @cached_property
    def given(self) -> dict[Kind, tuple[Claim, ...]]:
        """By kind, the ranges that lines grant, and what the ledger reserves beyond these lines.

        The ledger reserves more for a block of 'single-uid', or if a line was lost. Lines in which
        root shares the host's own ids on purpose are left out.
        """
        found: dict[Kind, tuple[Claim, ...]] = {}
        for kind in KINDS:
            ours = IdSet.clipped(c[:2] for c in self.granted[kind] if c.allocation)
            kept = (
                claim._replace(start=part.start, stop=part.stop)
                for claim in sorted(self.reserved_ranges, key=lambda claim: claim[:2])
                if claim.kind == kind
                for part in IdSet(ours.within(claim.id_range)).gaps(claim.id_range)
            )
            found[kind] = (*(c for c in self.granted[kind] if not is_meant(c)), *kept)
        return found

    def person(self, owner: str) -> User | None:
        """The account of an owner that can log in, a person or a service, else None."""
        user = self.users.get(owner)
        return user if user and user.uid >= _FIRST_PERSON and user.uid != _NOBODY else None

    def is_nobody(self, owner: str) -> bool:
        """Tell whether no account is known that has this name or number."""
        return owner not in self.users and owner not in self.elsewhere

    @cached_property
    def daemon(self) -> DaemonConfig | None:
        """Docker's configuration; None if there is none or it cannot be read."""
        try:
            raw = self.state.daemon_json
            return None if raw is None else daemon_json.parse(raw, self.place(DAEMON_JSON))
        except InvalidFileError:
            return None

    @property
    def remap(self) -> str | None:
        """The value of userns-remap in Docker's configuration; None if it has none."""
        return self.daemon.get(daemon_json.REMAP) if self.daemon else None


def _is_reserved_range(claim: Claim) -> bool:
    """Tell whether this is the reserved range of an allocation, not another part of its map."""
    return claim.source in {"allocation", "filler"} and claim.value is None


class Seen(NamedTuple):
    """One result of a rule; the fields are those of Finding."""

    place: str
    message: str
    hint: str = ""
    table: tuple[tuple[str, ...], ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    overlaps_left_out: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Its story says why it matters, how it comes about, an example, and what to do."""

    code: str
    severity: Severity
    title: str
    story: str
    look: Callable[[Facts], Iterator[Seen]]

    def findings(self, facts: Facts) -> Iterator[Finding]:
        """What the rule finds on a host."""
        return (Finding(self.code, self.severity, **seen._asdict()) for seen in self.look(facts))


# By code. The modules of this package fill it when they are imported.
RULES: dict[str, Rule] = {}


def rule(
    code: str, severity: Severity
) -> Callable[[Callable[[Facts], Iterator[Seen]]], Callable[[Facts], Iterator[Seen]]]:
    """Register a function as the rule of this code."""

    def register(look: Callable[[Facts], Iterator[Seen]]) -> Callable[[Facts], Iterator[Seen]]:
        title, _, story = inspect.cleandoc(look.__doc__ or "").partition("\n\n")
        RULES[code] = Rule(code, severity, title.removesuffix("."), story, look)
        return look

    return register


def listed(words: Iterable[str], most: int = 3, *, count: int = 0) -> str:
    """The first words, and how many more there are, of ``count`` if it is larger."""
    several = list(words)
    more = max(count, len(several)) - most
    return ", ".join(several[:most]) + (f" and {more} more" if more > 0 else "")
