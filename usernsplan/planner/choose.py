"""Choose the ids of each new allocation: the requested ones, its former ones, or the first that fit.

Pure. It only reads the lines of subuid and subgid and grants nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.claims.pool import pool_of
from usernsplan.claims.sources import claims_of
from usernsplan.errors import InvalidValueError, RefusedError, UsernsplanError, concerning
from usernsplan.ids import IdRange, IdSet
from usernsplan.model import Allocation
from usernsplan.planner import returning
from usernsplan.planner.grants import Grants
from usernsplan.planner.resolve import not_done
from usernsplan.planner.taken import holders, is_taken, take

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from usernsplan.claims.index import Claims
    from usernsplan.model import Finding, HostState, Quarantined
    from usernsplan.planner.resolve import Resolved, Wanted
    from usernsplan.strategies import Need

_LEAVE = "leave the start out, and usernsplan finds a free range"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The ``new`` allocations with their ids, and the ranges that come ``back`` from quarantine.

    Both are by name. ``pools`` are the possible ones, new or not, and ``left_out`` says why the
    others are impossible. ``notes`` are about former ranges.
    """

    pools: tuple[Wanted, ...]
    new: dict[str, Allocation]
    back: dict[str, Quarantined]
    notes: tuple[Finding, ...]
    left_out: tuple[Finding, ...]


def choose(state: HostState, resolved: Resolved, lines: Grants) -> Chosen:
    """Choose ids for everything that the request wants. ``lines`` are those of the host.

    If the request does not name an engine, its pool is left out where it is impossible. Raises
    PoolExhaustedError if there is no room, and RefusedError or InvalidValueError for a requested
    first id that is impossible.
    """
    now = _Situation(state, lines, claims_of(state).where(is_taken))
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

    notes = [*returning.regained(state, back)]
    notes += returning.missed(state, (a for name, a in new.items() if name not in back))
    return Chosen(tuple(pools), new, back, tuple(notes), tuple(left_out))


class _Situation(NamedTuple):
    """The situation before the choice: the host, its lines, and the claims on ids that are taken."""

    state: HostState
    lines: Grants
    taken: Claims


def _new(
    now: _Situation, wanted: Iterable[Wanted], before: Collection[Allocation]
) -> tuple[dict[str, Allocation], dict[str, Quarantined]]:
    """The new allocations, and their ranges that come back. ``before`` have their ids already."""
    wanted = [one for one in wanted if one.known is None]
    former = returning.of(now.state, wanted)

    # Requested first ids come first: otherwise another allocation could take these ids.
    placed = []
    for one in wanted:
        if one.start is not None:
            with concerning(one.name, "start"):
                placed.append((one, _made(one, one.start)))
    back = {
        one.name: was
        for one, made in placed
        for was in former.get(one.name, ())
        if was.reserved_range == made.reserved_range
    }
    _check_starts(now, placed, back, before)

    there = (*before, *(made for _, made in placed))
    held = IdSet(a.reserved_range for a in there if a.reserved_range)
    back |= _again(now, [one for one in wanted if one.start is None], former, held)
    bases = {name: was.reserved_range.start for name, was in back.items()}
    bases |= {one.name: one.start for one in wanted if one.start is not None}
    bases |= _first_fit(now, [one for one in wanted if one.name not in bases], held)

    new = {}
    for one in wanted:
        with concerning(one.name):
            made = _made(one, bases.get(one.name))
        new[one.name] = returning.since_then(made, back.get(one.name))
    return new, back


def _made(one: Wanted, base: int | None) -> Allocation:
    need = one.strategy.need
    # The range comes first: its error explains what is wrong with a requested base.
    held = IdRange(base, need.count) if base is not None and need else None
    mapping = one.strategy.mapping(base)
    return Allocation(
        one.name, one.owner, one.strategy.name, mapping, held, extra_owners=one.extra_owners
    )


def _again(
    now: _Situation,
    wanted: Iterable[Wanted],
    former: dict[str, tuple[Quarantined, ...]],
    held: IdSet,
) -> dict[str, Quarantined]:
    """The former ranges that come back: for each name the latest that is still free.

    A running user namespace does not count: it may be the container itself.
    """
    ranges = [
        (one, was)
        for one in wanted
        for was in former.get(one.name, ())
        if _is_in(was.reserved_range, one.pool)
    ]
    if not ranges:
        return {}
    made = [_made(one, was.reserved_range.start) for one, was in ranges]
    others = now.lines.without(now.taken, *made)
    taken = _not_running(returning.without(others, (was for _, was in ranges))).ids | held
    found: dict[str, Quarantined] = {}
    for one, was in ranges:
        ids = was.reserved_range
        if one.name not in found and not taken.meets(ids.start, ids.stop):
            found[one.name] = was
            taken |= IdSet((ids,))
    return found


def _is_in(held: IdRange, pool: IdRange | None) -> bool:
    return pool is None or (held.start in pool and held.last in pool)


def _first_fit(now: _Situation, wanted: Iterable[Wanted], held: IdSet) -> dict[str, int]:
    """The first id of each name that takes a range from a pool. ``held`` ids are taken, too."""
    groups: dict[Need, list[Wanted]] = {}
    for one in wanted:
        if one.strategy.need:
            groups.setdefault(one.strategy.need, []).append(one)
    found = dict[str, int]()
    for need, group in groups.items():
        with concerning(option="pool"):
            pool = pool_of(now.state, group[0].strategy, group[0].pool)
            bases = take(pool, now.taken.ids | held, need, len(group))
        found |= zip((one.name for one in group), bases, strict=True)
        held |= IdSet(IdRange(base, need.count) for base in bases)
    return found


def _check_starts(
    now: _Situation,
    placed: Sequence[tuple[Wanted, Allocation]],
    back: dict[str, Quarantined],
    before: Iterable[Allocation],
) -> None:
    """Raise an error for a requested first id that is impossible."""
    if not placed:
        return
    for one, made in placed:
        with concerning(one.name, "start"):
            _check_start(now, one, made, is_back=one.name in back)
    asked = {made.name: made for _, made in placed}
    for (held, name), (following, other) in pairwise(_held([*before, *asked.values()])):
        if held.overlaps(following):
            with concerning(other, "start"):
                raise RefusedError(
                    f"{held} of '{name}' and {following} of '{other}' overlap", hint=_LEAVE
                )

    # Almost always all ids are free. To find the holder costs more, so it is done only on conflict.
    adopted = {name for name, made in asked.items() if now.lines.has_exactly(made)}
    claims = returning.without(now.taken, back.values())
    taken = now.lines.without(claims, *(asked[name] for name in adopted)).ids
    for held, name in _held(asked.values()):
        if taken.meets(held.start, held.stop):
            others = now.lines.without(claims, asked[name])
            if name in adopted or name in back:
                others = _not_running(others)
            for whose, overlap in holders(held, others, now.state.layout):
                with concerning(name, "start"):
                    raise RefusedError(f"{held} is not free: {overlap} is {whose}", hint=_LEAVE)


def _not_running(claims: Claims) -> Claims:
    """The claims without those of running user namespaces."""
    return claims.where(lambda claim: claim.source != "namespace")


def _check_start(now: _Situation, one: Wanted, made: Allocation, *, is_back: bool) -> None:
    """Raise an error if the range is impossible, no matter who has these ids."""
    need = one.strategy.need
    if made.reserved_range is None or need is None:
        raise InvalidValueError("this allocation takes no range of its own")
    now.lines.refuse_other_lines(made)

    # Existing lines are adopted wherever they are, and containers may be running in them. A former
    # range was valid when it was given out.
    if now.lines.has_exactly(made) or is_back:
        return

    pool = pool_of(now.state, one.strategy, one.pool)
    if made.reserved_range.start % need.align:
        raise InvalidValueError(f"{made.reserved_range.start} is not a multiple of {need.align}")
    if not _is_in(made.reserved_range, pool):
        hint = "name a larger pool"
        raise InvalidValueError(f"{made.reserved_range} is outside the pool {pool}", hint=hint)


def _held(allocations: Iterable[Allocation]) -> list[tuple[IdRange, str]]:
    """Their reserved ranges and names, in the order of the ids."""
    return sorted((a.reserved_range, a.name) for a in allocations if a.reserved_range)
