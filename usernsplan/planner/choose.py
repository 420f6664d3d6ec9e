"""Choose the ids of each new allocation: the requested ones, its former ones, or the first that fit.

Pure. It only reads the lines of subuid and subgid and grants nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress
from functools import cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING

from usernsplan.claims.pool import pool_of, whole_pool
from usernsplan.claims.sources import claims_of
from usernsplan.claims.uses import may_run, may_stay, without_own
from usernsplan.errors import (
    InvalidValueError,
    PoolExhaustedError,
    RefusedError,
    UsernsplanError,
    concerning,
)
from usernsplan.holdings import has_lines
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.model import Allocation
from usernsplan.planner import outer, returning, slices
from usernsplan.planner.directory import with_holders
from usernsplan.planner.grants import Grants
from usernsplan.planner.resolve import not_done
from usernsplan.planner.taken import holders, is_taken, take
from usernsplan.strategies import SLOT
from usernsplan.values import NamedTuple, dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from usernsplan.claims.index import Claims
    from usernsplan.mapping import Mapping
    from usernsplan.model import Finding, HostState, Quarantined
    from usernsplan.planner.resolve import Resolved, Wanted
    from usernsplan.strategies import Need

# How many times ids are chosen, if a directory service has accounts in the chosen ranges.
_ATTEMPTS = 16
_LEAVE = "leave the start out, and usernsplan finds a free range"
_OF_FLEET = (
    "other hosts of the fleet have these ids under this name: free them here, or use another name, or "
    "--local for ids that only this host has under it"
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The ``new`` allocations with their ids, and the ranges that come ``back`` from quarantine.

    Both are by name. ``pools`` are the possible ones, new or not, and ``left_out`` says why the
    others are impossible. ``notes`` are about former ranges. ``unkeep`` are the ranges that come
    back from quarantine to slices, by name.
    """

    pools: tuple[Wanted, ...]
    new: dict[str, Allocation]
    back: dict[str, Quarantined]
    notes: tuple[Finding, ...]
    left_out: tuple[Finding, ...]
    unkeep: tuple[tuple[str, IdRange], ...] = ()


def choose(state: HostState, resolved: Resolved, lines: Grants) -> Chosen:
    """Choose ids for everything that the request wants. ``lines`` are those of the host.

    If the request does not name an engine, its pool is left out where it is impossible. Raises
    PoolExhaustedError if there is no room, and RefusedError or InvalidValueError for a requested
    first id that is impossible.
    """
    for _ in range(_ATTEMPTS):
        chosen = _chosen(state, resolved, lines)
        seen = with_holders(state, chosen.new.values())
        if seen is state:
            return chosen
        # The directory has accounts in these ranges: choose others.
        state = seen
    service = state.passwd_source.directory
    with concerning(option="pool"):
        raise RefusedError(
            f"accounts of {service} have ids in each of {_ATTEMPTS} ranges that no file claims",
            hint="look up its id range, and name a pool outside it: --pool FIRST-LAST",
            in_file="look up its id range, and name a pool outside it",
        )


def _chosen(state: HostState, resolved: Resolved, lines: Grants) -> Chosen:
    now = _Situation(state, lines, claims_of(state, is_taken))
    new, back = _new(now, resolved.containers, ())

    pools: list[Wanted] = []
    left_out: list[Finding] = []
    for one in resolved.pools:
        try:
            with concerning(option="engines"):
                more, again = _new(now, (one,), new.values())
                if one.known and not resolved.are_named:
                    # Whether its lines can be restored shows only in an attempt.
                    Grants(state).restore(one.known)
                for made in more.values():
                    lines.refuse_other_lines(made)
        except UsernsplanError as error:
            if resolved.are_named:
                raise
            left_out.append(not_done(one.name, error))
            continue
        new, back = new | more, back | again
        pools.append(one)

    cut = slices.place(state, now.taken, resolved.containers, new.values())
    new |= cut.new
    notes = [*cut.notes]
    if back:
        others = without_own(now.taken, state.ledger, (new[name] for name in back))
        notes += returning.regained(others, back)
    returned = {*back, *(name for name, _ in cut.unkeep)}
    notes += returning.missed(state, (a for name, a in new.items() if name not in returned))
    return Chosen(tuple(pools), new, back, tuple(notes), tuple(left_out), cut.unkeep)


class _Situation(NamedTuple):
    """The situation before the choice: the host, its lines, and the claims on ids that are taken."""

    state: HostState
    lines: Grants
    taken: Claims


def _new(
    now: _Situation, wanted: Iterable[Wanted], before: Collection[Allocation]
) -> tuple[dict[str, Allocation], dict[str, Quarantined]]:
    """The new allocations, and their ranges that come back. ``before`` have their ids already."""
    wanted = [one for one in wanted if one.known is None and not one.within]
    former = returning.of(now.state, wanted)

    shown = IdSet(ids for one in wanted for ids in _shown(one))
    # Requested first ids come first: otherwise another allocation could take these ids.
    placed = []
    for one in wanted:
        if one.start is not None:
            with concerning(one.name, "start"):
                placed.append((one, _made(now, one, one.start)))
    back = {
        one.name: was
        for one, made in placed
        for was in former.get(one.name, ())
        if was.reserved_range == made.reserved_range
    }
    _check_starts(now, placed, back, before, shown)

    there = (*before, *(made for _, made in placed))
    held = IdSet(a.reserved_range for a in there if a.reserved_range) | shown
    back |= _again(now, [one for one in wanted if one.start is None], former, held)
    bases = {name: was.reserved_range.start for name, was in back.items()}
    bases |= {one.name: one.start for one in wanted if one.start is not None}
    bases |= _first_fit(now, [one for one in wanted if one.name not in bases], held)

    new = {}
    for one in wanted:
        with concerning(one.name):
            made = _made(now, one, bases.get(one.name))
            # A shared map takes ids that no pool gives out.
            outer.refuse_absent(now.state, made)
        new[one.name] = returning.since_then(made, back.get(one.name))
    return new, back


def _made(now: _Situation, one: Wanted, base: int | None) -> Allocation:
    need = one.strategy.need
    # The range comes first: its error explains what is wrong with a requested base.
    held = IdRange(base, need.count) if base is not None and need else None
    mapping = _mapping(one, base, held)
    made = Allocation(
        one.name,
        one.owner,
        one.strategy.name,
        mapping,
        held,
        extra_owners=one.extra_owners,
        in_files=one.in_files,
        passes=one.passes,
        local=one.local,
    )
    return now.lines.in_pieces(made)


def _mapping(one: Wanted, base: int | None, held: IdRange | None) -> Mapping:
    """The map. Raises an error if passes make it one that the kernel refuses."""
    for overlap in IdSet(_shown(one)).within(held) if held else ():
        raise RefusedError(f"{held} has {overlap}, which passes through", hint=_LEAVE)
    try:
        return one.strategy.mapping(base)
    except InvalidValueError as error:
        if one.passes and not error.option:
            error.option = "pass"
            error.hint = "pass fewer ids: those that follow each other on both sides are one extent"
        raise


def _shown(one: Wanted) -> Iterator[IdRange]:
    """The host ids that pass through: no range may have them."""
    return (p.extent.host_range for p in one.passes)


def _again(
    now: _Situation,
    wanted: Iterable[Wanted],
    former: dict[str, tuple[Quarantined, ...]],
    held: IdSet,
) -> dict[str, Quarantined]:
    """The former ranges that come back: for each name the latest that nobody else was given.

    Raises RefusedError if a running user namespace or a mount has ids of it.
    """
    ranges = [
        (one, was)
        for one in wanted
        for was in former.get(one.name, ())
        if _is_in(was.reserved_range, one.pool) and _is_aligned(was.reserved_range, one)
    ]
    if not ranges:
        return {}
    made = [_made(now, one, was.reserved_range.start) for one, was in ranges]
    others = without_own(now.lines.without(now.taken, *made), now.state.ledger, made)
    others = returning.without(others, (was for _, was in ranges))
    taken, running = _of_strangers(others).ids | held, others.where(may_run).ids
    found: dict[str, Quarantined] = {}
    # In order, so that only its neighbours can overlap a range: there may be thousands.
    given: list[IdRange] = []
    for one, was in ranges:
        ids = was.reserved_range
        at = bisect_left(given, ids)
        is_given = any(ids.overlaps(other) for other in given[max(at - 1, 0) : at + 1])
        if one.name not in found and not is_given and not taken.meets(ids.start, ids.stop):
            if running.meets(ids.start, ids.stop):
                raise returning.in_use(now.state, was, others)
            found[one.name] = was
            given.insert(at, ids)
    return found


def _is_in(held: IdRange, pool: IdRange | None) -> bool:
    return pool is None or IdSet((pool,)).holds(held)


def _is_aligned(held: IdRange, one: Wanted) -> bool:
    """Tell whether a former range still suits an engine whose containers are larger than usual."""
    need = one.strategy.need
    return need is None or need.align <= SLOT or held.start % need.align == 0


def _first_fit(now: _Situation, wanted: Iterable[Wanted], held: IdSet) -> dict[str, int]:
    """The first id of each name that takes a range from a pool. ``held`` ids are taken, too."""
    groups: dict[Need, list[Wanted]] = {}
    for one in wanted:
        if one.strategy.need:
            groups.setdefault(one.strategy.need, []).append(one)
    found = dict[str, int]()
    for need, group in groups.items():
        with concerning(option="pool"):
            bases = _taken(now, group, need, held)
        found |= zip((one.name for one in group), bases, strict=True)
        held |= IdSet(IdRange(base, need.count) for base in bases)
    return found


def _taken(now: _Situation, group: Sequence[Wanted], need: Need, held: IdSet) -> list[int]:
    """The bases of a group that needs the same. Raises PoolExhaustedError, with the reason."""
    of_pool = (now.state, group[0].strategy, group[0].pool)
    try:
        return _near(now, pool_of(*of_pool), now.taken.ids | held, need, len(group))
    except PoolExhaustedError as error:
        others = now.taken.where(lambda claim: claim.source != "absent").ids | held
        # This raises the error of a full pool, unless the pool has room where every id exists.
        bases = take(whole_pool(*of_pool), others, need, len(group))
        raise outer.no_room(now.state, bases, need) from error


def _near(now: _Situation, pool: IdSet, taken: IdSet, need: Need, wanted: int) -> list[int]:
    """The bases; in a fleet, each host begins to look at a place of its own.

    Otherwise all hosts that allocate at the same time would want the same ids, and all but one fail.
    """
    fleet = now.state.ledger.fleet
    begin = first_of_host(pool, fleet.number) if fleet else 0
    if begin:
        with suppress(PoolExhaustedError):
            return take(pool & IdSet((IdRange(begin, ID_LIMIT - begin),)), taken, need, wanted)
    return take(pool, taken, need, wanted)


def first_of_host(pool: IdSet, number: int) -> int:
    """Where in a pool the host of this number, from 1 on, begins to look; 0 for an empty pool.

    The first begins at the start, the second in the middle, the next two at the quarters, and so on.
    """
    spans = list(pool)
    if not spans:
        return 0
    part, step, rest = 0.0, 0.5, number - 1
    while rest:
        part, step, rest = part + step * (rest & 1), step / 2, rest >> 1
    start, stop = spans[0].start, spans[-1].stop
    return start + int((stop - start) * part) // SLOT * SLOT


def _check_starts(
    now: _Situation,
    placed: Sequence[tuple[Wanted, Allocation]],
    back: dict[str, Quarantined],
    before: Iterable[Allocation],
    shown: IdSet,
) -> None:
    """Raise an error for a requested first id that is impossible. ``shown`` ids pass through."""
    if not placed:
        return
    # The pool depends on every line of the host, and a plan file may name many starts.
    pool = cache(partial(pool_of, now.state))
    for one, made in placed:
        with concerning(one.name, "start"):
            _check_start(now, pool, one, made, is_back=one.name in back)
            for overlap in shown.within(made.reserved_range) if made.reserved_range else ():
                raise RefusedError(
                    f"{made.reserved_range} has {overlap}, which passes through to another name",
                    hint=_LEAVE,
                )
    asked = {made.name: made for _, made in placed}
    of_fleet = {made.name for one, made in placed if one.is_of_fleet}
    for (held, name), (following, other) in pairwise(_held([*before, *asked.values()])):
        if held.overlaps(following):
            with concerning(other, "start"):
                raise RefusedError(
                    f"{held} of '{name}' and {following} of '{other}' overlap", hint=_LEAVE
                )

    # Almost always all ids are free. To find the holder costs more, so it is done only on conflict.
    adopted = {name for name, made in asked.items() if _is_adopted(now, made)}
    claims = returning.without(now.taken, back.values())
    claims = without_own(claims, now.state.ledger, asked.values())
    taken = now.lines.without(claims, *(asked[name] for name in adopted)).ids
    for held, name in _held(asked.values()):
        if taken.meets(held.start, held.stop):
            others = now.lines.without(claims, asked[name])
            if name in adopted or name in back:
                others = _of_strangers(others)
            for whose, overlap in holders(held, others, now.state.layout):
                with concerning(name, "start"):
                    raise RefusedError(
                        f"{held} is not free: {overlap} is {whose}",
                        hint=_OF_FLEET if name in of_fleet else _LEAVE,
                    )


def _of_strangers(claims: Claims) -> Claims:
    """The claims that keep somebody from a range that was given out before."""
    return claims.where(lambda claim: not may_stay(claim))


def _is_adopted(now: _Situation, made: Allocation) -> bool:
    """Tell whether the lines of a new allocation exist already. Without lines it adopts nothing."""
    return has_lines(made) and now.lines.has_exactly(made)


def _check_start(
    now: _Situation,
    pool_of_one: Callable[..., IdSet],
    one: Wanted,
    made: Allocation,
    *,
    is_back: bool,
) -> None:
    """Raise an error if the range is impossible, no matter who has these ids."""
    need = one.strategy.need
    if made.reserved_range is None or need is None:
        raise InvalidValueError("this allocation takes no range of its own")
    outer.refuse_absent(now.state, made)
    now.lines.refuse_other_lines(made)

    # Existing lines are adopted wherever they are, and containers may be running in them. A former
    # range was valid when it was given out. The range of a name of the fleet is what it is.
    if _is_adopted(now, made) or is_back or one.is_of_fleet:
        return

    pool = pool_of_one(one.strategy, one.pool)
    if made.reserved_range.start % need.align:
        raise InvalidValueError(f"{made.reserved_range.start} is not a multiple of {need.align}")
    if not pool.holds(made.reserved_range):
        hint = "name a larger pool"
        raise InvalidValueError(f"{made.reserved_range} is outside the pool {pool}", hint=hint)


def _held(allocations: Iterable[Allocation]) -> list[tuple[IdRange, str]]:
    """Their reserved ranges and names, in the order of the ids."""
    return sorted((a.reserved_range, a.name) for a in allocations if a.reserved_range)
