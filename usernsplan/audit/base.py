"""What the audit looks at (Facts), how a rule is written down (``rule``), and the list of all rules (RULES). Pure.

A rule is one function: Facts in, what it sees out. Its docstring is its story: the first line is the title, the rest
is what ``check --explain`` prints.
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

# UID_MIN of login.defs(5) as everybody has it, and the one number above it that is nobody's login.
_FIRST_PERSON, _NOBODY = 1000, 65534


class Unread(NamedTuple):
    """A file that could not be read as it should: its name in the layout, why not, and the remedy."""

    path: str
    fact: str
    hint: str


class Lock(NamedTuple):
    """A lock file that lies there: ``pid`` None where it holds none, ``alive`` None where nobody looked."""

    path: str
    pid: int | None
    alive: bool | None


class Attributes(NamedTuple):
    """What lstat(2) says of subuid or subgid."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int


class FilesCarrying(NamedTuple):
    """What files carry of a released range: how many names of files, and one of them ("" for none)."""

    name: str
    reserved_range: IdRange
    entries: int
    example: str


class Misfits(NamedTuple):
    """The files of a recorded volume whose owner has no place in its container's map: how many, and the first.

    ``ids`` are the commonest of these owners, in words.
    """

    path: str
    name: str
    entries: int
    ids: tuple[str, ...]
    examples: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Facts:
    """Everything that a rule may depend on. Without slots: what several rules need is worked out once, and kept.

    ``namespaces`` run on this machine; ``image`` are the accounts of --passwd; ``scanned`` is what --scan found of the
    released ranges, None where nothing was scanned; ``intent`` is that of a run that did not finish;
    ``elsewhere`` are owners whom a directory service knows, though it does not list them; ``misfits`` is what
    --volumes found.
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
        """path:line as it is typed for this root."""
        return self.state.layout.path(path) + (f":{number}" if number else "")

    def place_of(self, claim: Claim) -> str:
        """Where a claim is written down, as it is typed for this root; "" where it is not."""
        return self.place(claim.path, claim.number) if claim.path else ""

    def overlaps(self, claims: Iterable[Claim]) -> tuple[Overlap, ...]:
        """Claims as those whom a finding names beside the range that it is about."""
        return tuple(Overlap(self.place_of(claim), claim.holder, *claim[:2]) for claim in claims)

    @cached_property
    def claims(self) -> Claims:
        """Who has which ids."""
        return claims_of(self.state)

    @cached_property
    def users(self) -> dict[str, User]:
        """Accounts by name, the first of each as getpwnam(3) finds it."""
        return {user.name: user for user in reversed(self.state.accounts.users)}

    @cached_property
    def owners(self) -> dict[str, Allocation]:
        """The allocation of each owner who has one; root, who may have many and others' too, is left out."""
        return {a.owner: a for a in self.state.ledger.allocations if a.owner != ROOT}

    @cached_property
    def grants(self) -> Grants:
        """What our allocations are to have in both files, and what they have."""
        return Grants(self.state)

    @cached_property
    def repair(self) -> Plan:
        """What ``check --fix`` would put back."""
        return make_repair(self.state)

    @cached_property
    def granted(self) -> dict[Kind, tuple[Claim, ...]]:
        """By kind, everything that lines give to somebody, lowest first."""
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
        """The lines of an owner that every reader takes alike, in file order; empty ones are none."""
        claims = self.by_owner[kind].get(owner, ())
        return [claim.value for claim in claims if isinstance(claim.value, Grant)]

    @cached_property
    def by_owner(self) -> dict[Kind, dict[str, list[Claim]]]:
        """By kind and owner, what their lines give, in file order."""
        found: dict[Kind, dict[str, list[Claim]]] = {kind: {} for kind in KINDS}
        for kind in KINDS:
            for claim in sorted(self.granted[kind], key=lambda claim: claim.number):
                found[kind].setdefault(claim.holder, []).append(claim)
        return found

    @cached_property
    def reserved_ranges(self) -> Claims:
        """What each allocation keeps others from, as the ledger has it."""
        return self.claims.where(_is_reserved_range)

    @cached_property
    def taken(self) -> Claims:
        """What belongs to somebody: lines, and what the ledger reserves besides.

        What is intended to lie over the host's own ids is left out.
        """
        return self.claims.where(
            lambda claim: (
                _is_reserved_range(claim) or (claim.source == "subid" and not claim.is_intended)
            )
        )

    @cached_property
    def given(self) -> dict[Kind, tuple[Claim, ...]]:
        """By kind, what lines give, and what the ledger reserves besides: a block, a lost line.

        What root means by lines about the host's own ids is left out.
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
        """The ordinary account of an owner: somebody, or a service, that can log in; None for any other."""
        user = self.users.get(owner)
        return user if user and user.uid >= _FIRST_PERSON and user.uid != _NOBODY else None

    def is_nobody(self, owner: str) -> bool:
        """Tell whether no account has this name or number, as far as can be seen from here."""
        return owner not in self.users and owner not in self.elsewhere

    @cached_property
    def daemon(self) -> DaemonConfig | None:
        """Docker's configuration; None where there is none, or none that can be read."""
        try:
            raw = self.state.daemon_json
            return None if raw is None else daemon_json.parse(raw, self.place(DAEMON_JSON))
        except InvalidFileError:
            return None


def _is_reserved_range(claim: Claim) -> bool:
    """Tell whether it is the range of an allocation, and not what its map has besides."""
    return claim.source in {"allocation", "filler"} and claim.value is None


class Seen(NamedTuple):
    """What a rule sees: where, what, and the remedy. See Finding for the others."""

    place: str
    message: str
    hint: str = ""
    table: tuple[tuple[str, ...], ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    overlaps_left_out: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the audit: its story is what it is about, how it comes about, an example, and the remedy."""

    code: str
    severity: Severity
    title: str
    story: str
    findings: Callable[[Facts], Iterator[Finding]]


# By code. Filled by the modules of this package as they are imported.
RULES: dict[str, Rule] = {}


def rule(
    code: str, severity: Severity
) -> Callable[[Callable[[Facts], Iterator[Seen]]], Callable[[Facts], Iterator[Seen]]]:
    """Note a function as the rule of this code."""

    def noted(look: Callable[[Facts], Iterator[Seen]]) -> Callable[[Facts], Iterator[Seen]]:
        def findings(facts: Facts) -> Iterator[Finding]:
            for seen in look(facts):
                place, message, hint, *_ = seen
                yield Finding(
                    code,
                    severity,
                    message,
                    hint,
                    place,
                    table=seen.table,
                    overlaps=seen.overlaps,
                    overlaps_left_out=seen.overlaps_left_out,
                )

        title, _, story = inspect.cleandoc(look.__doc__ or "").partition("\n\n")
        RULES[code] = Rule(code, severity, title.removesuffix("."), story, findings)
        return look

    return noted


def listed(words: Iterable[str], most: int = 3, *, count: int = 0) -> str:
    """Some of the words, and how many more there are: of ``count``, or of these."""
    several = list(words)
    more = max(count, len(several)) - most
    return ", ".join(several[:most]) + (f" and {more} more" if more > 0 else "")
