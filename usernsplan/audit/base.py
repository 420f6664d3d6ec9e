"""The input of the audit (Facts), the decorator of a rule (``rule``), and all rules (RULES). Pure.

A rule is a function from Facts to what it sees. Its docstring is its story: the first line is the
title, and ``check --explain`` prints the rest.
"""

from __future__ import annotations

from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING

from usernsplan.claims.index import NUMBER, Claims, crowded
from usernsplan.claims.meant import is_meant
from usernsplan.claims.sources import claims_of
from usernsplan.claims.useradd import useradd
from usernsplan.errors import InvalidFileError
from usernsplan.formats import daemon_json
from usernsplan.formats.accounts import Group, User
from usernsplan.formats.subid import Grant
from usernsplan.holdings import sees_records
from usernsplan.ids import IdSet
from usernsplan.layout import DAEMON_JSON
from usernsplan.mapping import KINDS
from usernsplan.model import DEFAULT_OWNER, ROOT, Finding, Overlap, Unlisted
from usernsplan.planner.changes import passed_before
from usernsplan.planner.daemon import remapped_to
from usernsplan.planner.grants import Grants
from usernsplan.planner.publish import records_of
from usernsplan.planner.repair import make_repair
from usernsplan.values import NamedTuple, dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from collections.abc import Mapping as Dict

    from usernsplan.claims.index import Claim
    from usernsplan.claims.useradd import Useradd
    from usernsplan.fleetwide import FleetSeen
    from usernsplan.formats.accounts import Accounts
    from usernsplan.formats.daemon_json import DaemonConfig
    from usernsplan.formats.proc_status import Status
    from usernsplan.formats.subid import Line
    from usernsplan.holdings import Holding
    from usernsplan.ids import IdRange
    from usernsplan.mapping import Kind
    from usernsplan.model import (
        Allocation,
        HistoryEntry,
        HostState,
        Intent,
        Namespace,
        Plan,
        Severity,
    )

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
    ``intent`` is that of an interrupted run. ``misfits`` is what --volumes found. The accounts of
    the state have every owner that a directory service knows. ``homes`` are those of accounts
    whose containers could not be looked at. ``unseen`` are notes about what only root may read.
    ``history`` is that of the ledger where it has passes: it knows the names that ids had.
    ``strays`` are the points of idmapped mounts in our folders that the ledger does not have.
    ``fleet`` is what check --fleet looks at, instead of all else.
    ``statuses`` are the states of the first processes of the namespaces, by their numbers.
    ``filters`` are the filters of system calls that we wrote, by their paths, and ``machine`` is the
    architecture, as uname(2) has it.

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
    misfits: tuple[Misfits, ...] = ()
    homes: tuple[Unread, ...] = ()
    unseen: tuple[str, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    strays: tuple[str, ...] = ()
    statuses: Dict[int, Status] = field(default_factory=dict)
    filters: Dict[str, bytes] = field(default_factory=dict)
    fleet: FleetSeen | None = None
    machine: str = "x86_64"

    def place(self, path: str, number: int = 0) -> str:
        """path:line, with the path below this root."""
        return f"{self._top}{path}:{number}" if number else f"{self._top}{path}"

    @cached_property
    def _top(self) -> str:
        """What a path below this root begins with."""
        return self.state.layout.path("")

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
    def _lines(self) -> tuple[Claim, ...]:
        """The claims of lines, in file order, those of uids first."""
        return tuple(claim for claim in self.claims if claim.source == "subid")

    @cached_property
    def besides_lines(self) -> Claims:
        """All other claims. Most rules look for one of these, and there may be 100,000 lines."""
        return Claims(claim for claim in self.claims if claim.source != "subid")

    @cached_property
    def users(self) -> dict[str, User]:
        """Accounts by name, the first of each as getpwnam(3) finds it."""
        return {user.name: user for user in reversed(self.state.accounts.users)}

    @cached_property
    def owners(self) -> dict[str, Allocation]:
        """Allocations by owner, but for slices: the lines of their owners are not theirs.

        Root is left out: it may have several, and lines of others.
        """
        allocations = self.state.ledger.allocations
        return {a.owner: a for a in allocations if a.owner != ROOT and not a.within}

    @cached_property
    def grants(self) -> Grants:
        """The lines that our allocations should have in both files, and those that they have."""
        return Grants(self.state)

    @cached_property
    def useradd(self) -> Useradd | None:
        """What useradd can still give; None if login.defs cannot be read."""
        return useradd(self.state)

    @cached_property
    def drifted(self) -> tuple[tuple[Allocation, Holding, list[Line]], ...]:
        """The lines of allocations that differ from what was granted.

        None during an interrupted run: the run has to be finished first.
        """
        if self.state.ledger.interrupted:
            return ()
        return tuple(
            (a, one, have)
            for a in self.state.ledger.allocations
            for one, have in self.grants.of(a)
            if self.grants.differs(a, one, have)
        )

    @cached_property
    def repair(self) -> Plan:
        """The plan of ``check --fix``."""
        return make_repair(self.state)

    @cached_property
    def granted(self) -> dict[Kind, tuple[Claim, ...]]:
        """By kind, every range that a line grants, lowest first."""
        lines = sorted(self._lines, key=itemgetter(0, 1, NUMBER))
        return {kind: tuple(claim for claim in lines if claim.kind == kind) for kind in KINDS}

    @cached_property
    def crowded(self) -> dict[Kind, list[Claim]]:
        """By kind, those of ``granted`` that share ids with another line: nearly always none."""
        return {kind: crowded(self.granted[kind]) for kind in KINDS}

    @cached_property
    def of_programs(self) -> tuple[Claim, ...]:
        """The ids that programs have without a line, and those that useradd computes."""
        return tuple(claim for claim in self.besides_lines if isinstance(claim.value, Unlisted))

    @cached_property
    def people(self) -> Claims:
        """Accounts by their uids and groups by their gids, lowest first, each name once."""
        named = [
            claim
            for claim in self.besides_lines
            if isinstance(claim.value, User if claim.kind == "uid" else Group)
        ]
        return Claims(sorted({(c.start, c.kind, c.holder): c for c in named}.values()))

    def grants_of(self, owner: str, kind: Kind) -> list[Grant]:
        """The lines of an owner that every reader reads alike, in file order; no empty ones."""
        claims = self.by_owner[kind].get(owner, ())
        return [claim.value for claim in claims if isinstance(claim.value, Grant)]

    @cached_property
    def by_owner(self) -> dict[Kind, dict[str, list[Claim]]]:
        """By kind and owner, the ranges that their lines grant, in file order."""
        found: dict[Kind, dict[str, list[Claim]]] = {kind: {} for kind in KINDS}
        for claim in self._lines:
            found[claim.kind].setdefault(claim.holder, []).append(claim)
        return found

    @cached_property
    def first_lines(self) -> dict[str, Claim]:
        """Every owner, with the first of its lines, in the order of subuid, then of subgid."""
        found: dict[str, Claim] = {}
        for kind in KINDS:
            for owner, spans in self.by_owner[kind].items():
                found.setdefault(owner, spans[0])
        return found

    @cached_property
    def reserved_ranges(self) -> Claims:
        """The range that the ledger reserves for each allocation, and what its map has besides.

        Ids that pass through belong to the host, and are none of these.
        """
        return self.besides_lines.where(_is_own)

    @cached_property
    def passes(self) -> tuple[Claim, ...]:
        """The host ids that pass through, of each kind, in the order of their allocations."""
        return tuple(claim for claim in self.besides_lines if claim.source == "pass")

    @cached_property
    def passed(self) -> dict[tuple[str, Kind, int], str]:
        """The account or the group that a single id was when it was passed to a container.

        By the container's name, the kind and the host id.
        """
        return passed_before(self.history)

    @cached_property
    def taken(self) -> Claims:
        """The ids with an owner: granted by lines, or reserved in the ledger.

        Claims that share the host's own ids on purpose are left out.
        """
        return self.claims.where(
            lambda claim: _is_own(claim) or (claim.source == "subid" and not claim.is_intended)
        )

    @cached_property
    def given(self) -> dict[Kind, tuple[Claim, ...]]:
        """By kind, the ranges that lines grant, and what the ledger reserves beyond these lines.

        The ledger reserves more for a block of 'single-uid', in the holes of a map, or if a line
        was lost. A slice is in its owner's lines. Lines in which root shares the host's own ids on
        purpose are left out.
        """
        found: dict[Kind, tuple[Claim, ...]] = {}
        for kind in KINDS:
            ours = IdSet.clipped(c[:2] for c in self.granted[kind] if c.allocation)
            theirs = {
                owner: IdSet.clipped(c[:2] for c in self.by_owner[kind].get(owner, ()))
                for owner in {a.within for a in self.state.ledger.allocations if a.within}
            }
            kept = (
                claim._replace(start=part.start, stop=part.stop)
                for claim in sorted(self.reserved_ranges, key=lambda claim: claim[:2])
                if claim.kind == kind
                for lines in [theirs.get(_within(claim), ours)]
                if not lines.holds(claim.id_range)
                for part in IdSet(lines.within(claim.id_range)).gaps(claim.id_range)
            )
            found[kind] = (*(c for c in self.granted[kind] if not is_meant(c)), *kept)
        return found

    def person(self, owner: str) -> User | None:
        """The account of an owner that can log in, a person or a service, else None."""
        user = self.users.get(owner)
        return user if user and user.uid >= _FIRST_PERSON and user.uid != _NOBODY else None

    def rootless(self, owner: str) -> User | None:
        """The account of an owner that can run rootless engines, else None.

        Docker remaps to an account without mapping the account itself, so its remap user, which is
        for that alone, is none.
        """
        return None if owner in self._of_docker else self.person(owner)

    @cached_property
    def _of_docker(self) -> frozenset[str | None]:
        return frozenset({DEFAULT_OWNER, remapped_to(self.state)})

    def is_nobody(self, owner: str) -> bool:
        """Tell whether certainly no account has this name or number."""
        return owner not in self.users and not self.state.accounts.unknown

    def has_account(self, owner: str) -> bool:
        """Tell whether getpwnam(3) finds an owner, or getpwuid(3) if it is a number.

        shadow from 4.20 on skips the lines of other owners. It reads a number as strtoul(3) does.
        """
        bare = owner.lstrip(" ").removeprefix("+")
        uid = str(int(bare)) if bare.isascii() and bare.isdigit() else owner
        return uid in self._uids or owner in self._published or not self.is_nobody(owner)

    @cached_property
    def _published(self) -> frozenset[str]:
        """The names that only publish a range, as far as getpwnam(3) sees them."""
        records = self.state.ledger.allocations if sees_records(self.state) else ()
        accounts = {user.name for user in self.state.accounts.published}
        return frozenset(accounts | {record.name for record in records_of(records)})

    @cached_property
    def _uids(self) -> frozenset[str]:
        return frozenset(str(user.uid) for user in self.state.accounts.users)

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


def _is_own(claim: Claim) -> bool:
    """Tell whether an allocation has these ids for itself: see holdings.own_ids."""
    return claim.source in {"allocation", "filler"}


def _within(claim: Claim) -> str:
    return claim.allocation.within if claim.allocation else ""


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
        for seen in self.look(facts):
            yield Finding(
                self.code,
                self.severity,
                seen.message,
                seen.hint,
                seen.place,
                seen.table,
                seen.overlaps,
                seen.overlaps_left_out,
            )


# By code. The modules of this package fill it when they are imported.
RULES: dict[str, Rule] = {}


def rule(
    code: str, severity: Severity
) -> Callable[[Callable[[Facts], Iterator[Seen]]], Callable[[Facts], Iterator[Seen]]]:
    """Register a function as the rule of this code."""

    def register(look: Callable[[Facts], Iterator[Seen]]) -> Callable[[Facts], Iterator[Seen]]:
        # Each is a function of a module: its docstring is indented once.
        text = (look.__doc__ or "").replace("\n    ", "\n").strip()
        title, _, story = text.partition("\n\n")
        RULES[code] = Rule(code, severity, title.removesuffix("."), story, look)
        return look

    return register


def listed(words: Iterable[str], most: int = 3, *, count: int = 0) -> str:
    """The first words, and how many more there are, of ``count`` if it is larger."""
    several = list(words)
    more = max(count, len(several)) - most
    return ", ".join(several[:most]) + (f" and {more} more" if more > 0 else "")
