"""The id space of a host as one value: the holders of ids, conflicts, and what is left. Pure.

HostState -> Space. A ``Segment`` is one claim on a range of ids: as uids, as gids, or as both.
Segments may overlap. Two segments are in conflict if they share ids of the same kind and their
origins are a pair of ``_CLASHES``:

- a range that one party may use as its own (an allocation, its filler, a line) and that of another;
- such a range and an account or a group in it, a range reserved by convention, or a reservation;
- a quarantined range and a party that got some of its ids since then: an allocation, a line, an
  account, a group.

The following are intended, so they are not conflicts:

- segments of one owner: two of its lines, a line over an allocation granted to it (such as root's
  lines over LXC's allocations), an allocation and its filler. The lines of an allocation are not
  segments of their own.
- a shared or identity map: it maps the host's ids on purpose.
- lines of root and of the account of LXD or Incus, to which their packages grant one range.
- a line of root about the host's own ids (claims.meant), or over ids reserved by convention: root
  has these anyway.
- accounts and groups in a range reserved for them by convention, and in a reservation, which may be
  for them.
- running namespaces: a line grants what they map, or root decides. They are segments only if no
  allocation has their ids.
- areas from which others take free ranges: the pool, and the area of useradd.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Literal

from usernsplan.claims.index import Claims, Source, sweep
from usernsplan.claims.meant import DAEMONS_OF_ROOT, is_meant_by_root
from usernsplan.claims.pool import pool_of
from usernsplan.claims.sources import claims_of
from usernsplan.claims.useradd import Useradd, useradd
from usernsplan.errors import UsernsplanError
from usernsplan.escape import shell
from usernsplan.formats.accounts import Group, User
from usernsplan.formats.subid import Odd
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.layout import GROUP, LOGIN_DEFS, PASSWD
from usernsplan.mapping import KINDS, Kind
from usernsplan.model import ROOT, Quarantined, Reservation
from usernsplan.planner.taken import is_taken
from usernsplan.reserved import Reserved
from usernsplan.strategies import PerContainer, Shared, SingleUid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.claims.index import Claim
    from usernsplan.model import Allocation, HostState
    from usernsplan.strategies import Strategy

# Where a segment comes from: the source of a claim, or the kind of an area.
Origin = Source | Literal["useradd", "pool", "free"]
# The kinds of ids that a segment claims: uids, gids, or both.
Kinds = tuple[Kind, ...]

# The first _MOST conflicts are all listed, then at most _NAMED of each segment: thousands of lines
# over each other make millions of pairs.
_MOST, _NAMED = 100_000, 20

# Areas, not claims: whatever takes ids from them first looks for free ones.
BACKGROUND: frozenset[Origin] = frozenset({"reserved", "useradd", "pool", "free"})
_OWN: tuple[Origin, ...] = ("allocation", "filler")
_CLASHES: dict[Origin, frozenset[Origin]] = {
    **dict.fromkeys(
        _OWN,
        frozenset({*_OWN, "subid", "account", "group", "quarantine", "reservation", "reserved"}),
    ),
    "subid": frozenset(
        {*_OWN, "subid", "account", "group", "quarantine", "reservation", "reserved"}
    ),
    "quarantine": frozenset({*_OWN, "subid", "account", "group"}),
    "reservation": frozenset({*_OWN, "subid"}),
    "reserved": frozenset({*_OWN, "subid"}),
    "account": frozenset({*_OWN, "subid", "quarantine"}),
    "group": frozenset({*_OWN, "subid", "quarantine"}),
}


@dataclass(frozen=True, slots=True)
class Segment:
    """Equal claims as one: the ids, their kinds, the origin, the holder (``label``), and details.

    ``owners`` are the owners of an allocation or a line; empty for other origins.
    """

    ids: IdRange
    kinds: Kinds
    origin: Origin
    label: str
    details: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """Ids of the same kinds that two segments claim.

    ``first`` and ``second`` are positions in ``Space.segments``.
    """

    ids: IdRange
    kinds: Kinds
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """The figures of a pool, in ids.

    ``more`` ranges of ``count`` ids at multiples of ``align`` can be allocated. release --forget
    would free ``quarantined`` ids, and then ``more_after_forget`` ranges would fit. ``shared``: any
    number of containers share one map, so ranges are given out only once they are released.
    """

    strategy: str
    pool: IdRange
    free: IdSet
    count: int
    align: int
    more: int
    quarantined: int
    more_after_forget: int
    shared: bool = False

    @property
    def used(self) -> int:
        """The number of ids of the pool that are not free, including quarantined ones."""
        return self.pool.count - self.free.total()


@dataclass(frozen=True, slots=True)
class Space:
    """All segments by first id, the longest first; all conflicts by id; and the figures.

    ``is_complete`` is False if some conflicts are not listed; even then every id in conflict is in
    one. ``capacity`` is None if login.defs leaves no pool, and ``useradd`` is None if login.defs
    cannot be read; ``problem`` is the reason.
    """

    segments: tuple[Segment, ...]
    conflicts: tuple[Conflict, ...]
    capacity: Capacity | None
    useradd: Useradd | None
    problem: str = ""
    is_complete: bool = True

    def in_conflict(self) -> dict[int, list[Conflict]]:
        """The conflicts of each segment that has one, by its position."""
        found: dict[int, list[Conflict]] = {}
        for conflict in self.conflicts:
            for number in (conflict.first, conflict.second):
                found.setdefault(number, []).append(conflict)
        return found


def space(state: HostState, strategy: Strategy | None = None, pool: IdRange | None = None) -> Space:
    """The id space of a host. Its capacity is for ``strategy`` (default: ``usual``) in ``pool``."""
    claims = claims_of(state)
    figures, problem = None, ""
    try:
        figures = _capacity(state, claims, strategy, pool)
    except UsernsplanError as error:
        problem = str(error)

    found = (*_segments(state, claims), *_areas(state, figures))
    segments = sorted(found, key=lambda s: (s.ids.start, -s.ids.count, s.origin, s.label))
    clashing, is_complete = conflicts(segments)
    return Space(tuple(segments), clashing, figures, useradd(state), problem, is_complete)


def usual(state: HostState, size: int | None = None) -> Strategy:
    """The strategy for the next container: single-uid if the host has it, else per-container.

    ``size`` None: 65536 ids, or for single-uid the size of the host's last block.
    """
    last = next(
        (a for a in reversed(state.ledger.allocations) if a.strategy == SingleUid.name), None
    )
    if last is None:
        return PerContainer() if size is None else PerContainer(size)
    block = size or (last.reserved_range.count if last.reserved_range else None)
    return SingleUid() if block is None else SingleUid(block)


def capacity(
    state: HostState, strategy: Strategy | None = None, pool: IdRange | None = None
) -> Capacity:
    """The capacity of the pool. Raises what ``pool_of`` raises if login.defs leaves none."""
    return _capacity(state, claims_of(state), strategy, pool)


def _capacity(
    state: HostState, claims: Claims, strategy: Strategy | None, pool: IdRange | None
) -> Capacity:
    chosen = strategy or usual(state)
    need = chosen.need
    if need is None:
        raise UsernsplanError(f"the strategy {chosen.name} takes nothing from a pool")
    within = pool_of(state, chosen, pool)
    taken = claims.where(is_taken)
    unforgotten = taken.free(within)
    rest = taken.where(lambda claim: claim.source != "quarantine").free(within)
    kept = IdSet(q.reserved_range for q in state.ledger.quarantined)
    return Capacity(
        strategy=chosen.name,
        pool=within,
        free=unforgotten,
        count=need.count,
        align=need.align,
        more=unforgotten.how_many(need.count, need.align),
        quarantined=(kept & rest).total(),
        more_after_forget=rest.how_many(need.count, need.align),
        shared=any(a.strategy == Shared.name for a in state.ledger.allocations),
    )


def conflicts(segments: Sequence[Segment]) -> tuple[tuple[Conflict, ...], bool]:
    """The conflicts by the rules at the top, and whether the list is complete.

    ``segments`` must be in the order of their first ids. Each pair is listed once, at the later
    segment. After _MOST pairs only those that reach farthest are listed; these cover every id in
    conflict.
    """
    met = sweep(segments, lambda s: (s.ids.start, s.ids.stop), lambda s: s.origin)
    found: list[Conflict] = []
    is_complete = True
    for number, new, _, active in met:
        parties = _CLASHES.get(new.origin, frozenset()) & active.keys()
        clashing = (
            (-reach, other)
            for reach, other in merge(*(active[party] for party in parties))
            if clash(segments[other], new)
        )
        room = max(_MOST - len(found), _NAMED)
        for reach, other in islice(clashing, room):
            kinds = tuple(kind for kind in new.kinds if kind in segments[other].kinds)
            ids = IdRange(new.ids.start, min(new.ids.stop, reach) - new.ids.start)
            found.append(Conflict(ids, kinds, other, number))
        is_complete = is_complete and next(clashing, None) is None
    return tuple(found), is_complete


def clash(one: Segment, other: Segment) -> bool:
    """Tell whether two segments that share ids are in conflict."""
    if other.origin not in _CLASHES.get(one.origin, ()) or not set(one.kinds) & set(other.kinds):
        return False
    if one.origin in _OWN and other.origin in _OWN:
        return one.label != other.label
    return not set(one.owners) & set(other.owners) and not (
        _is_meant(one, other) or _is_meant(other, one)
    )


def _is_meant(line: Segment, over: Segment) -> bool:
    if line.origin != "subid":
        return False
    by_root = line.label == ROOT and over.origin == "reserved"
    return by_root or is_meant_by_root(line.label, line.ids.start, line.ids.count)


def _segments(state: HostState, claims: Claims) -> Iterator[Segment]:
    """The claims as segments. Equal claims on uids and on gids are one segment."""
    accounts = {(c.holder, c.start) for c in claims if c.source == "account"}
    roots = {c[:3] for c in claims if c.source == "subid" and c.holder == ROOT}
    found: dict[tuple[int, int, Origin, str, object], list[Claim]] = {}
    for claim in claims:
        # An allocation stands for its lines, and an id that cannot exist has no holder.
        is_ours = claim.source == "subid" and claim.allocation
        if claim.source != "namespace" and not is_ours and claim.start < ID_LIMIT:
            origin, label, more = _shown_as(claim, accounts, roots)
            found.setdefault((*claim[:2], origin, label, more), []).append(claim)

    for (_, _, origin, label, _), several in found.items():
        yield _segment(state, origin, label, several, roots)
    yield from _running(claims)


def _shown_as(
    claim: Claim, accounts: set[tuple[str, int]], roots: set[tuple[int, int, Kind]]
) -> tuple[Origin, str, object]:
    """The origin and label of a claim, and what else distinguishes it from others."""
    if isinstance(claim.value, User) and claim.kind == "gid":
        return "group", str(claim.start), None
    if (claim.holder, claim.start) in accounts and isinstance(claim.value, Group):
        return "account", claim.holder, None
    if claim.source == "subid":
        return "subid", claim.holder, (_problem(claim), _is_of_root(claim, roots))
    return "shared" if claim.source == "dockerroot" else claim.source, claim.holder, None


def _problem(line: Claim) -> str:
    return line.value.problem if isinstance(line.value, Odd) else ""


def _is_of_root(line: Claim, roots: set[tuple[int, int, Kind]]) -> bool:
    """Tell whether a line belongs to a daemon that root runs, and root has the same line."""
    return line.holder in DAEMONS_OF_ROOT and line[:3] in roots


def _segment(
    state: HostState,
    origin: Origin,
    label: str,
    several: list[Claim],
    roots: set[tuple[int, int, Kind]],
) -> Segment:
    first, path = several[0], state.layout.path
    kinds = tuple(kind for kind in KINDS if any(claim.kind == kind for claim in several))
    owners: tuple[str, ...] = ()
    match first.value:
        case _ if first.allocation and origin != "subid":
            owners = (first.allocation.owner, *first.allocation.extra_owners)
            details = _of_allocation(first.allocation, origin, state.namespaces)
        case _ if origin == "subid":
            owners = (label, ROOT) if _is_of_root(first, roots) else (label,)
            places = ", ".join(f"{path(claim.path)}:{claim.number}" for claim in several)
            details = (places, *filter(None, [_problem(first)]))
        case _ if origin == "account":
            details = (path(PASSWD) + (f", and the group of {path(GROUP)}" if kinds[1:] else ""),)
        case User():
            names = ", ".join(sorted(claim.holder for claim in several))
            details = (f"{path(PASSWD)}: the group of {names}, without a name",)
        case Group():
            details = (path(GROUP),)
        case Quarantined(since=since):
            forget = state.layout.inline(f"release --forget {shell(label)}")
            details = (f"released {since}".rstrip(), f"{forget} frees it")
        case Reservation(since=since):
            details = (f"since {since}",) if since else ()
        case Reserved(source=source):
            details = (source,)
        case _:
            details = ()
    return Segment(first.id_range, kinds, origin, label, details, owners)


def _of_allocation(a: Allocation, origin: Origin, running: IdSet) -> tuple[str, ...]:
    details = [f"strategy {a.strategy}", f"owner {', '.join((a.owner, *a.extra_owners))}"]
    details += [f"since {a.since}"] if a.since else []
    if a.reserved_range is not None and a.reserved_range.start in running:
        details.append("a user namespace runs in it")
    if origin == "shared":
        details.insert(0, "maps these ids of the host on purpose")
    if origin == "filler":
        details.insert(0, "unused ids that fill the gap in Docker's map")
    one, *others = a.mapping.uids
    held = a.reserved_range if origin == "allocation" and not others else None
    if held and one.count < held.count:
        details.insert(0, f"container id {one.container} is host id {one.host}")
    return tuple(details)


def _running(claims: Claims) -> Iterator[Segment]:
    """The ids that running namespaces map and no allocation has. Adjacent ones are joined."""
    running = claims.where(lambda claim: claim.source == "namespace").ids
    ours = claims.where(lambda claim: claim.allocation and claim.source != "subid").ids
    what = ("no allocation has these ids", "'usernsplan inspect --all' lists the namespaces")
    for ids in running - ours:
        yield Segment(ids, KINDS, "namespace", "one or more running user namespaces", what)


def _areas(state: HostState, figures: Capacity | None) -> Iterator[Segment]:
    if figures:
        what = ("allocate takes ranges from it",)
        yield Segment(figures.pool, KINDS, "pool", "the pool", what)
    given = useradd(state)
    uids, gids = given.areas if given else (None, None)
    areas: list[tuple[Kinds, IdRange | None]] = [(KINDS, uids)]
    if uids != gids:
        areas = [(("uid",), uids), (("gid",), gids)]
    for kinds, area in areas:
        if area:
            key = f"SUB_{kinds[0].upper()}"
            place = (f"{state.layout.path(LOGIN_DEFS)}: {key}_MIN to _MAX",)
            yield Segment(area, kinds, "useradd", "where useradd looks for ranges", place)
