"""The host's id space as one value, to be drawn and counted: who has which ids, what clashes, what is left. Pure.

HostState -> Space. A ``Segment`` is one claim on a range of ids, as uids, as gids, or as both; segments may lie over
each other. Two of them are in conflict where they share ids of the same sort and their kinds are a pair of
``_CLASHES``:

- a range that one party may use as its own (an allocation, its filler, a line of somebody's) against another party's;
- such a range against an account or a group in it, against what is reserved by convention, and against a reservation;
- a range in quarantine against whoever got ids of it meanwhile: an allocation, a line, an account, a group.

No conflict, because it is meant to be so:

- what belongs to one owner: two lines of his, a line of his that lies over an allocation granted to him (so root's
  lines over LXC's allocations), an allocation and its filler; the lines that carry an allocation are told as it;
- a shared or identity map: it maps people's ids deliberately;
- lines of root and of LXD's or Incus's account, to which their packages grant one range;
- a line of root's about the host's own ids (planner.meant), or over what is reserved by convention: root has them;
- accounts and groups in what is reserved for them by convention, and in a reservation, whose reason they may be;
- running namespaces: what they map is given by a line, or by root at will; they are shown where no allocation has them;
- areas that anybody takes ranges from after looking: the pool, and where useradd looks.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from usernsplan.claims.meant import DAEMONS_OF_ROOT, is_meant_by_root
from usernsplan.claims.useradd import Useradd, useradd
from usernsplan.errors import UsernsplanError
from usernsplan.escape import shell
from usernsplan.formats.subid import Grant
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.layout import GROUP, LOGIN_DEFS, PASSWD, SUBGID, SUBUID
from usernsplan.model import ROOT
from usernsplan.planner.taken import claims, free, pool_of
from usernsplan.reserved import TABLE
from usernsplan.strategies import PerContainer, Shared, SingleUid, in_subid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.formats.subid import SubidFile
    from usernsplan.model import Allocation, HostState
    from usernsplan.strategies import Strategy

Kind = Literal[
    "allocation",
    "filler",
    "shared",
    "subid",
    "account",
    "group",
    "namespace",
    "quarantine",
    "reservation",
    "reserved",
    "useradd",
    "pool",
    "free",
]
_T = TypeVar("_T")
# As what the ids of a segment are claimed: as both, or as one of the two.
Sort = Literal["both", "uid", "gid"]

# Whoever clashes with more others at once is told of so many.
_NAMED = 20

# Areas, not claims: whoever takes from them looks first.
BACKGROUND: frozenset[Kind] = frozenset({"reserved", "useradd", "pool", "free"})
_OWN: tuple[Kind, ...] = ("allocation", "filler")
_CLASHES: dict[Kind, frozenset[Kind]] = {
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
    """One claim: which ids, as what, of which kind, whose (``label``), and what else there is to say.

    ``owners`` are those to whom the ids are granted (an allocation's, a line's), none for other kinds.
    """

    ids: IdRange
    sort: Sort
    kind: Kind
    label: str
    details: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """Ids that two segments claim as the same sort; the segments as positions in ``Space.segments``."""

    ids: IdRange
    sort: Sort
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """The figures of a pool, in ids; ``more`` ranges of ``count`` ids at multiples of ``align`` can be allocated.

    ``quarantined`` ids would come back with release --forget, and then ``more_after_forget`` ranges fit.
    ``shared``: containers of the host have one map together, any number of them; ranges are given once these are
    released.
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
        """How many ids of the pool somebody has, what is kept back included."""
        return self.pool.count - self.free.total()


@dataclass(frozen=True, slots=True)
class Space:
    """Everything that is claimed, by first id and longest first; conflicts by id; and the figures.

    ``capacity`` is None where login.defs leaves no pool, and ``useradd`` where it cannot be read: ``problem`` says why.
    """

    segments: tuple[Segment, ...]
    conflicts: tuple[Conflict, ...]
    capacity: Capacity | None
    useradd: Useradd | None
    problem: str = ""

    def in_conflict(self) -> dict[int, list[Conflict]]:
        """The conflicts of each segment that has one, by its position."""
        found: dict[int, list[Conflict]] = {}
        for conflict in self.conflicts:
            for number in (conflict.first, conflict.second):
                found.setdefault(number, []).append(conflict)
        return found


def space(state: HostState, strategy: Strategy | None = None, pool: IdRange | None = None) -> Space:
    """The id space of a host; what can still be had is told for ``strategy`` (see ``usual``) from ``pool``."""
    figures, problem = None, ""
    try:
        figures = capacity(state, strategy, pool)
    except UsernsplanError as error:
        problem = str(error)
    segments = tuple(
        sorted(
            _segments(state, figures), key=lambda s: (s.ids.start, -s.ids.count, s.kind, s.label)
        )
    )
    return Space(segments, tuple(conflicts(segments)), figures, useradd(state), problem)


def usual(state: HostState, size: int | None = None) -> Strategy:
    """What the next container would be given: by the host's own strategy, where one takes ranges; else per-container.

    ``size`` None: 65536 ids; for single-uid, blocks of the size that the host's last one has.
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
    """What is left of the pool. Raises what ``pool_of`` raises where login.defs leaves none."""
    chosen = strategy or usual(state)
    need = chosen.need
    if need is None:
        raise UsernsplanError(f"the strategy {chosen.name} takes nothing from a pool")
    within = pool_of(state, chosen, pool)
    kept = IdSet(q.reserved_range for q in state.ledger.quarantined)
    unforgotten, rest = (
        free(within, claims(state, state.subuid, state.subgid)),
        _without_quarantine(state, within),
    )
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


def _without_quarantine(state: HostState, pool: IdRange) -> IdSet:
    forgotten = replace(state, ledger=replace(state.ledger, quarantined=()))
    return free(pool, claims(forgotten, state.subuid, state.subgid))


def conflicts(segments: Sequence[Segment]) -> Iterator[Conflict]:
    """Where two segments clash, by the rules at the top; ``segments`` are in the order of their first ids.

    Of those that a segment clashes with where it begins, the ``_NAMED`` that reach farthest are told. That is all the
    ids in conflict, and a file in which thousands of lines lie over each other does not make millions of pairs.
    """
    active: list[
        tuple[int, int]
    ] = []  # (-stop, position), so that what reaches farthest comes first
    for number, new in enumerate(segments):
        if new.kind not in _CLASHES:
            continue
        start, stop = new.ids.start, new.ids.stop
        while active and -active[-1][0] <= start:
            active.pop()
        clashing = ((-reach, n) for reach, n in active if clash(segments[n], new))
        for reach, other in islice(clashing, _NAMED):
            sort = new.sort if segments[other].sort == "both" else segments[other].sort
            yield Conflict(IdRange(start, min(stop, reach) - start), sort, other, number)
        insort(active, (-stop, number))


def clash(one: Segment, other: Segment) -> bool:
    """Tell whether two segments that share ids do so against each other."""
    if other.kind not in _CLASHES.get(one.kind, ()) or {one.sort, other.sort} == {"uid", "gid"}:
        return False
    if one.kind in _OWN and other.kind in _OWN:
        return one.label != other.label
    return not set(one.owners) & set(other.owners) and not (
        _is_meant(one, other) or _is_meant(other, one)
    )


def _is_meant(line: Segment, over: Segment) -> bool:
    if line.kind != "subid":
        return False
    by_root = line.label == ROOT and over.kind == "reserved"
    return by_root or is_meant_by_root(line.label, line.ids.start, line.ids.count)


def _segments(state: HostState, figures: Capacity | None) -> Iterator[Segment]:
    for allocation in state.ledger.allocations:
        yield from _of_allocation(allocation, state.namespaces)
    yield from _lines_of_others(state)
    yield from _accounts(state)
    for q in state.ledger.quarantined:
        forget = state.layout.inline(f"release --forget {shell(q.name)}")
        yield Segment(
            q.reserved_range,
            "both",
            "quarantine",
            q.name,
            (f"released {q.since}".rstrip(), f"{forget} gives it back"),
        )
    for r in state.ledger.reservations:
        yield Segment(r.ids, "both", "reservation", r.why, (f"since {r.since}",) if r.since else ())
    for entry in TABLE:
        yield Segment(entry.ids, "both", "reserved", entry.whose, (entry.source,))
    ours = IdSet(
        ids
        for a in state.ledger.allocations
        for ids in (*_host_ranges(a), *([a.reserved_range] if a.reserved_range else []))
    )
    for ids in state.namespaces - ours:
        # The set has joined those that lie side by side.
        what = ("no allocation has these ids", "'usernsplan inspect --all' tells them apart")
        yield Segment(ids, "both", "namespace", "one or more running user namespaces", what)
    yield from _areas(state, figures)


def _of_allocation(a: Allocation, running: IdSet) -> Iterator[Segment]:
    owners = (a.owner, *a.extra_owners)
    details = [f"strategy {a.strategy}", f"owner {', '.join(owners)}"]
    details += [f"since {a.since}"] if a.since else []
    if a.reserved_range is not None and a.reserved_range.start in running:
        details.append("a user namespace runs in it")
    if a.strategy != Shared.name:
        ids = a.mapping.uids
        if a.reserved_range and len(ids) == 1 and ids[0].count < a.reserved_range.count:
            details.insert(0, f"container id {ids[0].container} is host id {ids[0].host}")
        for held in (a.reserved_range,) if a.reserved_range else _host_ranges(a):
            yield Segment(held, "both", "allocation", a.name, tuple(details), owners)
        return
    if a.reserved_range:
        what = ("ids of nobody's, which fill the gap in Docker's map", *details)
        yield Segment(a.reserved_range, "both", "filler", a.name, what, owners)
    uids, gids = (
        set(ids.host_ranges()) - {a.reserved_range} for ids in (a.mapping.uids, a.mapping.gids)
    )
    for sort, ranges in _by_sort(uids, gids):
        for one in ranges:
            yield Segment(
                one,
                sort,
                "shared",
                a.name,
                ("maps these ids of the host deliberately", *details),
                owners,
            )


def _host_ranges(a: Allocation) -> tuple[IdRange, ...]:
    return (*a.mapping.uids.host_ranges(), *a.mapping.gids.host_ranges())


class _Said(NamedTuple):
    """A range that a line gives to an owner, and what is odd about the line; ``of_root``: root has the same one."""

    owner: str
    ids: IdRange
    problem: str
    of_root: bool = False


def _lines_of_others(state: HostState) -> Iterator[Segment]:
    """What the lines grant that do not carry an allocation; the same in both files is told once."""
    names = {str(user.uid): user.name for user in reversed(state.accounts.users)}
    granted = {
        (path, names.get(owner, owner), ids)
        for a in state.ledger.allocations
        if in_subid(a.strategy, a.mapping)
        for owner in (a.owner, *a.extra_owners)
        for path, side in ((SUBUID, a.mapping.uids), (SUBGID, a.mapping.gids))
        for ids in side.host_ranges()
    }
    found: dict[str, dict[_Said, list[str]]] = {}
    for path, file in ((SUBUID, state.subuid), (SUBGID, state.subgid)):
        found[path] = {}
        lines = list(_said(file, names))
        roots = {said.ids for said, _ in lines if said.owner == ROOT}
        for one, number in lines:
            said = one._replace(of_root=one.owner in DAEMONS_OF_ROOT and one.ids in roots)
            if (path, said.owner, said.ids) not in granted:
                found[path].setdefault(said, []).append(f"{state.layout.path(path)}:{number}")
    for sort, several in _by_sort(found[SUBUID].keys(), found[SUBGID].keys()):
        for said in several:
            places = (*found[SUBUID].get(said, ()), *found[SUBGID].get(said, ()))
            details = (", ".join(places), *([said.problem] if said.problem else []))
            owners = (said.owner, ROOT) if said.of_root else (said.owner,)
            yield Segment(said.ids, sort, "subid", said.owner, details, owners)


def _said(file: SubidFile, names: dict[str, str]) -> Iterator[tuple[_Said, int]]:
    spans: tuple[tuple[int, int], ...]
    for line in file.lines:
        if isinstance(line, Grant):
            owner, problem, spans = line.owner, "", ((line.start, line.stop),)
        else:
            owner, problem, spans = line.owners[-1] if line.owners else "", line.problem, line.spans
        for start, stop in spans:
            # What no id can be is cut off, as in SubidFile.claimed.
            if start < min(stop, ID_LIMIT):
                yield (
                    _Said(
                        names.get(owner, owner),
                        IdRange(start, min(stop, ID_LIMIT) - start),
                        problem,
                    ),
                    line.number,
                )


def _accounts(state: HostState) -> Iterator[Segment]:
    """Accounts and groups; a group that has the name and number of an account is told with it."""
    users = {(user.name, user.uid) for user in state.accounts.users if user.uid < ID_LIMIT}
    groups = {(group.name, group.gid) for group in state.accounts.groups if group.gid < ID_LIMIT}
    passwd, group = state.layout.path(PASSWD), state.layout.path(GROUP)
    for name, number in users:
        both = (name, number) in groups
        details = (f"{passwd}, and the group of {group}",) if both else (passwd,)
        yield Segment(IdRange(number, 1), "both" if both else "uid", "account", name, details)
    for name, number in groups - users:
        yield Segment(IdRange(number, 1), "gid", "group", name, (group,))
    known = {number for _, number in groups}
    for gid in {user.gid for user in state.accounts.users if user.gid < ID_LIMIT} - known:
        of = ", ".join(sorted(user.name for user in state.accounts.users if user.gid == gid))
        yield Segment(
            IdRange(gid, 1),
            "gid",
            "group",
            str(gid),
            (f"{passwd}: the group of {of}, without a name",),
        )


def _areas(state: HostState, figures: Capacity | None) -> Iterator[Segment]:
    if figures:
        yield Segment(
            figures.pool, "both", "pool", "the pool", ("where allocate takes ranges from",)
        )
    given = useradd(state)
    areas = [{area} if area else set() for area in given.areas] if given else [set(), set()]
    for sort, several in _by_sort(*areas):
        for area in several:
            words = f"{state.layout.path(LOGIN_DEFS)}: {'SUB_GID' if sort == 'gid' else 'SUB_UID'}_MIN to _MAX"
            yield Segment(area, sort, "useradd", "where useradd looks for ranges", (words,))


def _by_sort(uids: Iterable[_T], gids: Iterable[_T]) -> Iterator[tuple[Sort, list[_T]]]:
    """What is the same for both, and what is not."""
    of_uids, of_gids = dict.fromkeys(uids), dict.fromkeys(gids)
    yield "both", [one for one in of_uids if one in of_gids]
    yield "uid", [one for one in of_uids if one not in of_gids]
    yield "gid", [one for one in of_gids if one not in of_uids]
