"""The id space of a host as one value: the holders of ids, conflicts, and what is left. Pure.

HostState -> Space. A ``Segment`` is one claim on a range of ids: as uids, as gids, or as both.
Segments may overlap. Two segments are in conflict if they share ids of the same kind and their
origins are a pair of ``_CLASHES``:

- a range that one party may use as its own (an allocation, its filler, a line) and that of another;
- such a range and an account or a group in it, a range reserved by convention, a reservation, or
  ids that do not exist here;
- a quarantined range and a party that got some of its ids since then: an allocation, a line, an
  account, a group.
- host ids that pass through to a container, and another container that has them as its own; also a
  line that grants such ids, above those of accounts, to somebody else.

The following are intended, so they are not conflicts:

- segments of one owner: two of its lines, a line over an allocation granted to it (such as root's
  lines over LXC's allocations), an allocation and its filler. The lines of an allocation are not
  segments of their own.
- a shared or identity map: it maps the host's ids on purpose. So does a pass, also of an id that
  another container shows too.
- a slice and what its owner has: the allocation or the lines of which it is a part.
- lines of root and of the account of LXD or Incus, to which their packages grant one range.
- a line of root about the host's own ids (claims.meant), or over ids reserved by convention: root
  has these anyway.
- accounts and groups in a range reserved for them by convention, and in a reservation, which may be
  for them.
- ids that a program has without a line, and uses for the containers of the other party
  (claims.uses); and ids kept for snapd, where it is not installed.
- running namespaces: a line grants what they map, or root decides. They are segments only if no
  allocation has their ids.
- areas from which others take free ranges: the pool, and the area of useradd.
"""

from __future__ import annotations

from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Literal

from usernsplan.claims.index import Claims, Source, sweep
from usernsplan.claims.meant import DAEMONS_OF_ROOT, is_meant_by_root
from usernsplan.claims.pool import pool_of, whole_pool
from usernsplan.claims.sources import OF_CONTAINERS, claims_of
from usernsplan.claims.useradd import Useradd, useradd
from usernsplan.claims.uses import parties, strangers, volumes_of, without_mounts
from usernsplan.errors import PoolExhaustedError, UsernsplanError
from usernsplan.escape import shell, utf8
from usernsplan.formats import passes
from usernsplan.formats.accounts import Group, User
from usernsplan.formats.subid import Odd
from usernsplan.ids import EVERY_ID, ID_LIMIT, IdRange, IdSet
from usernsplan.layout import GROUP, LOGIN_DEFS, PASSWD
from usernsplan.mapping import KINDS, Extent, Kind
from usernsplan.model import ROOT, Quarantined, Reservation, Unlisted
from usernsplan.planner import outer
from usernsplan.planner.taken import is_taken
from usernsplan.reserved import FOR_SNAPD, Reserved
from usernsplan.strategies import PerContainer, Shared, SingleUid
from usernsplan.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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
# An allocation may pass hundreds of ids.
_FEW = 8

# Areas, not claims: whatever takes ids from them first looks for free ones.
BACKGROUND: frozenset[Origin] = frozenset({"reserved", "absent", "useradd", "pool", "free"})
_OWN: tuple[Origin, ...] = ("allocation", "filler")
# What a pass may clash with: the host's own accounts are what it is for.
_OF_PASS: frozenset[Origin] = frozenset({*_OWN, "subid"})
# These have the name of their allocation, even if another account owns its lines.
_BY_NAME: tuple[Origin, ...] = (*_OWN, "pass")
# The claims that neither a line nor the ledger shows.
_OF_OTHERS: frozenset[Source] = frozenset({"unlisted", "useradd", "absent"})
# What a range of one party may clash with.
_OF_ONE: frozenset[Origin] = frozenset(
    {
        *_OWN,
        "subid",
        "account",
        "group",
        "quarantine",
        "reservation",
        "reserved",
        "unlisted",
        "absent",
        "pass",
    }
)
_CLASHES: dict[Origin, frozenset[Origin]] = {
    **dict.fromkeys((*_OWN, "subid"), _OF_ONE),
    "pass": _OF_PASS,
    "unlisted": frozenset({*_OWN, "subid"}),
    "quarantine": frozenset({*_OWN, "subid", "account", "group"}),
    "reservation": frozenset({*_OWN, "subid"}),
    "reserved": frozenset({*_OWN, "subid"}),
    "absent": frozenset({*_OWN, "subid"}),
    "account": frozenset({*_OWN, "subid", "quarantine"}),
    "group": frozenset({*_OWN, "subid", "quarantine"}),
}


@dataclass(frozen=True, slots=True)
class Segment:
    """Equal claims as one: the ids, their kinds, the origin, the holder (``label``), and details.

    ``owners`` are the owners of an allocation or a line. Of ids that a program has without a line,
    they are the owners for whose containers it uses them. They are empty for other origins.
    ``within`` is the owner of whose lines an allocation is a slice; "" for others.
    """

    ids: IdRange
    kinds: Kinds
    origin: Origin
    label: str
    details: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    within: str = ""


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
    ``exists`` are the ids that this container has; None if this host is not a container.
    ``is_complete`` is False if something of other programs could not be read: no id is free then
    for certain, and the figures of free ids are upper bounds.
    """

    strategy: str
    pool: IdSet
    free: IdSet
    count: int
    align: int
    more: int
    quarantined: int
    more_after_forget: int
    shared: bool = False
    exists: IdSet | None = None
    is_complete: bool = True

    @property
    def used(self) -> int:
        """The number of ids of the pool that are not free, including quarantined ones."""
        return self.pool.total() - self.free.total()


@dataclass(frozen=True, slots=True)
class Part:
    """Ids of a pool that somebody has, or that do not exist, although no line and no ledger says so.

    ``source`` is that of the claims. ``places`` are the files or folders that say so, with the line
    if there is one.
    """

    source: Source
    holder: str
    places: tuple[str, ...]
    ids: IdSet


@dataclass(frozen=True, slots=True)
class Space:
    """All segments by first id, the longest first; all conflicts by id; and the figures.

    ``is_complete`` is False if some conflicts are not listed; even then every id in conflict is in
    one. ``capacity`` is None if login.defs leaves no pool, and ``useradd`` is None if login.defs
    cannot be read; ``problem`` is the reason. ``parts`` are what others have of the pool, and
    ``unseen`` notes about what could not be read of them. ``is_of_fleet``: it is that of several
    hosts, and no useradd gives out ids there.
    """

    segments: tuple[Segment, ...]
    conflicts: tuple[Conflict, ...]
    capacity: Capacity | None
    useradd: Useradd | None
    problem: str = ""
    is_complete: bool = True
    parts: tuple[Part, ...] = ()
    unseen: tuple[str, ...] = ()
    is_of_fleet: bool = False

    def in_conflict(self) -> dict[int, list[Conflict]]:
        """The conflicts of each segment that has one, by its position."""
        found: dict[int, list[Conflict]] = {}
        for conflict in self.conflicts:
            for number in (conflict.first, conflict.second):
                found.setdefault(number, []).append(conflict)
        return found


def space(state: HostState, strategy: Strategy | None = None, pool: IdRange | None = None) -> Space:
    """The id space of a host. Its capacity is for ``strategy`` (default: ``usual``) in ``pool``."""
    claims = without_mounts(claims_of(state), state.ledger)
    figures, problem = None, ""
    try:
        figures = _capacity(state, claims, strategy, pool)
    except UsernsplanError as error:
        problem = str(error)

    found = (*_segments(state, claims), *_areas(state, figures))
    segments = sorted(found, key=lambda s: (s.ids.start, -s.ids.count, s.origin, s.label))
    clashing, is_complete = conflicts(segments)
    return Space(
        tuple(segments),
        clashing,
        figures,
        useradd(state),
        problem,
        is_complete,
        unseen=_unseen(state),
    )


def _unseen(state: HostState) -> tuple[str, ...]:
    return tuple(one.note for one in state.unseen)


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


def pool_space(
    state: HostState, strategy: Strategy | None = None, pool: IdRange | None = None
) -> Space:
    """The space without segments: the figures of the pool, and what others have of it.

    Raises what ``capacity`` raises.
    """
    claims, chosen = claims_of(state), strategy or usual(state)
    figures = _capacity(state, claims, chosen, pool)
    parts = tuple(_parts(state, claims, whole_pool(state, chosen, pool)))
    return Space((), (), figures, useradd(state), parts=parts, unseen=_unseen(state))


def _parts(state: HostState, claims: Claims, pool: IdSet) -> Iterator[Part]:
    """What others have of a pool, by first id; what they have as uids and as gids is one part."""
    found: dict[tuple[Source, str], list[Claim]] = {}
    for claim in claims:
        if claim.source in _OF_OTHERS and pool.meets(claim.start, claim.stop):
            found.setdefault((claim.source, claim.holder), []).append(claim)

    parts = []
    for (source, holder), several in found.items():
        ids = IdSet.clipped(claim[:2] for claim in several) & pool
        parts.append(Part(source, holder, _places(state, several), ids))
    yield from sorted(parts, key=lambda part: (next(iter(part.ids)).start, part.holder))


def _places(state: HostState, several: Iterable[Claim]) -> tuple[str, ...]:
    """path:line of each claim that has a place, each once."""
    # /proc is this machine's, also for another root.
    path = state.layout.path
    named = (
        (utf8(c.path if c.source == "absent" else path(c.path)) + f":{c.number}" * (c.number > 0))
        for c in several
        if c.path
    )
    return tuple(dict.fromkeys(named))


def _capacity(
    state: HostState, claims: Claims, strategy: Strategy | None, pool: IdRange | None
) -> Capacity:
    chosen = strategy or usual(state)
    need = chosen.need
    if need is None:
        raise UsernsplanError(f"the strategy {chosen.name} takes nothing from a pool")
    within = pool_of(state, chosen, pool)
    lacks = outer.absent(state)
    if not within:
        whole = whole_pool(state, chosen, pool)
        raise PoolExhaustedError(
            f"nothing of the pool {whole} exists here: {outer.fact(state)}",
            hint=outer.remedy(state, IdSet(islice(whole.fits(need.count, need.align), 1)) or whole),
        )
    taken = claims.where(is_taken)
    unforgotten = within - taken.ids
    rest = within - taken.where(lambda claim: claim.source != "quarantine").ids
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
        exists=EVERY_ID - lacks if lacks else None,
        is_complete=not state.unseen,
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
    if one.origin in _BY_NAME and other.origin in _BY_NAME:
        return one.label != other.label and not (
            _is_slice_of(one, other) or _is_slice_of(other, one)
        )
    if "pass" in {one.origin, other.origin}:
        line = other if one.origin == "pass" else one
        if line.ids.start < OF_CONTAINERS:
            return False
    return not set(one.owners) & set(other.owners) and not (
        _is_meant(one, other) or _is_meant(other, one)
    )


def _is_slice_of(one: Segment, whole: Segment) -> bool:
    is_whole = whole.origin in _OWN and whole.within == ""
    return is_whole and one.within != "" and one.within in whole.owners


def _is_meant(line: Segment, over: Segment) -> bool:
    # Where snapd is installed, it has a segment of its own.
    if over.origin == "reserved" and over.label == FOR_SNAPD.whose:
        return True
    if line.origin != "subid":
        return False
    by_root = line.label == ROOT and over.origin == "reserved"
    return by_root or is_meant_by_root(line.label, line.ids.start, line.ids.count)


def _segments(state: HostState, claims: Claims) -> Iterator[Segment]:
    """The claims as segments. Equal claims on uids and on gids are one segment."""
    accounts = {(c.holder, c.start) for c in claims if c.source == "account"}
    roots = {c[:3] for c in claims if c.source == "subid" and c.holder == ROOT}
    volumes = volumes_of(state.ledger)
    found: dict[tuple[int, int, Origin, str, object], list[Claim]] = {}
    for claim in claims:
        # An allocation stands for its lines, and an id that cannot exist has no holder.
        is_ours = claim.source == "subid" and claim.allocation
        is_shown_else = claim.source in {"namespace", "useradd"}
        if not is_shown_else and not is_ours and claim.start < ID_LIMIT:
            origin, label, more = _shown_as(claim, accounts, roots)
            found.setdefault((*claim[:2], origin, label, more), []).append(claim)

    others = parties(claims)
    for (_, _, origin, label, _), several in found.items():
        made = _segment(state, origin, label, several, roots)
        is_used = origin == "unlisted"
        yield replace(made, owners=_used_for(others, several, volumes)) if is_used else made
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
    if claim.source == "pass":
        # The container ids may differ, as uids and as gids.
        return "pass", claim.holder, claim.value
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
        case _ if (a := first.allocation) and origin != "subid":
            return _of_allocation(state, a, origin, first, kinds)
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
        case Unlisted():
            details = _places(state, several)
        case _:
            details = (first.path,) if origin == "absent" else ()
    return Segment(first.id_range, kinds, origin, label, details, owners)


def _used_for(others: Claims, several: list[Claim], volumes: Mapping[str, str]) -> tuple[str, ...]:
    """The owners of ids for whose containers a program uses these ids."""
    over, strange = set[str](), set[str]()
    for one in (claim.value for claim in several if isinstance(claim.value, Unlisted)):
        over.update(claim.owner for claim in others.over(one.start, one.stop, one.kind))
        strange.update(claim.owner for claim in strangers(one, others, volumes))
    return tuple(sorted(over - strange))


def _of_allocation(
    state: HostState, a: Allocation, origin: Origin, claim: Claim, kinds: Kinds
) -> Segment:
    extent = claim.value
    owners = (a.owner, *a.extra_owners, *filter(None, [a.within]))
    details = (
        (f"host ids that '{a.name}' shows on purpose, as {extent.container_range}",)
        if origin == "pass" and isinstance(extent, Extent)
        else tuple(_details(a, origin, state.namespaces))
    )
    return Segment(claim.id_range, kinds, origin, a.name, details, owners, a.within)


def _details(a: Allocation, origin: Origin, running: IdSet) -> list[str]:
    details = [f"strategy {a.strategy}", f"owner {', '.join((a.owner, *a.extra_owners))}"]
    details += [f"a slice of the lines of {a.within}"] if a.within else []
    details += [f"passes through {_passed(a)}"] if a.passes else []
    details += [f"since {a.since}"] if a.since else []
    if a.reserved_range is not None and a.reserved_range.start in running:
        details.append("a user namespace runs in it")
    if origin == "shared":
        details.insert(0, "maps these ids of the host on purpose")
    if origin == "filler":
        details.insert(0, "unused ids that fill the gap in Docker's map")
    one, *others = a.mapping.uids
    held = a.reserved_range if origin == "allocation" and not (others or a.passes) else None
    if held and one.count < held.count:
        details.insert(0, f"container id {one.container} is host id {one.host}")
    return details


def _passed(a: Allocation) -> str:
    shown = [f"{p.kind} {passes.words(p.extent)}" for p in a.passes]
    more = f" and {len(shown) - _FEW} more" if shown[_FEW:] else ""
    return f"{', '.join(shown[:_FEW])}{more}"


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
        for part in figures.pool:
            yield Segment(part, KINDS, "pool", "the pool", what)
    given = useradd(state)
    uids, gids = given.areas if given else (None, None)
    areas: list[tuple[Kinds, IdRange | None]] = [(KINDS, uids)]
    if uids != gids or (given and len(set(map(bool, given.computed))) > 1):
        areas = [(("uid",), uids), (("gid",), gids)]
    for kinds, area in areas:
        if area:
            key, path = f"SUB_{kinds[0].upper()}", state.layout.path(LOGIN_DEFS)
            label, place = "where useradd looks for ranges", f"{path}: {key}_MIN to _MAX"
            if number := given and given.computed[KINDS.index(kinds[0])]:
                label = "where useradd computes the range of each uid"
                place = f"{path}:{number}: {key}_DETERMINISTIC"
            yield Segment(area, kinds, "useradd", label, (place,))
