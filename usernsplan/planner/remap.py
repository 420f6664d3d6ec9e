"""remap: an allocation gets another map, and its volumes move with it. Pure.

The order is the guarantee. The lines and the ledger change at once, as with any plan; from then on
the ledger has the new map, and for each volume the map whose ids its files still have
(``Volume.former``). Then each volume moves, and what is left is moved by the next run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.claims.pool import pool_of
from usernsplan.claims.sources import claims_of
from usernsplan.claims.uses import may_run, without_own
from usernsplan.engines import ENGINES, engine_of_pool
from usernsplan.engines.mounts import given, unmoved
from usernsplan.errors import (
    InvalidValueError,
    RefusedError,
    UnknownNameError,
    concerning,
    did_you_mean,
)
from usernsplan.escape import file_line, shell, shown_path
from usernsplan.formats import passes as texts
from usernsplan.holdings import granted, has_lines, holdings, own_ids
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import SUBUID
from usernsplan.mapping import KINDS
from usernsplan.model import (
    DEFAULT_OWNER,
    LXC,
    OWN_PREFIX,
    POOL_OWNERS,
    ROOT,
    LedgerChange,
    Plan,
    Quarantined,
    Unlisted,
)
from usernsplan.planner import advice, daemon, mounts, outer, slices
from usernsplan.planner.directory import with_holders, with_owners
from usernsplan.planner.grants import Grants, needed_of_root
from usernsplan.planner.passes import Passes, refuse_own_id
from usernsplan.planner.publish import accounts_gone, can_be, changes, publish
from usernsplan.planner.standing import PREFIXES
from usernsplan.planner.stories import advise
from usernsplan.planner.taken import holders, is_taken, take
from usernsplan.strategies import SLOT, PerContainer, Shared, SingleUid
from usernsplan.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from usernsplan.claims.index import Claim, Claims
    from usernsplan.layout import Layout
    from usernsplan.mapping import IdMap, Kind, Pass
    from usernsplan.model import (
        Allocation,
        Event,
        Finding,
        HostState,
        LedgerState,
        RemapRequest,
        Volume,
        VolumeMount,
    )
    from usernsplan.planner.publish import Publishing
    from usernsplan.strategies import Strategy

# How many times a range is chosen, if a directory service has accounts in the chosen one.
_ATTEMPTS = 16
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Remap:
    """A complete remap: the ``plan``, and the volumes that move after it, each with its former map.

    ``former`` is the allocation as it is now; None if the plan changes nothing. ``mounts`` are those
    that stand, or return at boot, and get the new map, as they are to be.
    """

    plan: Plan
    moves: tuple[Volume, ...] = ()
    former: Allocation | None = None
    mounts: tuple[VolumeMount, ...] = ()

    @property
    def pending(self) -> bool:
        """Tell whether anything would change."""
        return self.plan.changed or bool(self.moves or self.mounts)


def make_remap(
    state: HostState, request: RemapRequest, events: Callable[[], Sequence[Event]]
) -> Remap:
    """Decide one ``remap``. ``events`` gives those of the ledger, which only --undo needs.

    If an earlier one was interrupted, the same options, or none, go on with it. Raises
    UnknownNameError, InvalidValueError, RefusedError and PoolExhaustedError; then nothing changes.
    """
    old = _known(state, request.name)
    left = waiting(state.ledger, old.name)
    is_begun = bool(left or mounts.unlike(state, old.name))
    if request.undo:
        formers, was_undone = _formers(events(), old.name)
        if is_begun and was_undone:
            return _going_on(state, old, left)
        if not formers:
            raise RefusedError(
                f"no remap of '{old.name}' is left to undo",
                hint=f"{state.layout.inline('history')} shows what was done",
            )
        _refuse_what_stays(state, old)
        new = _returned(state, old, formers[-1])
        _refuse_pool(state, old, new)
    elif request.is_bare:
        return _going_on(state, old, left) if is_begun else Remap(Plan("remap", allocations=(old,)))
    else:
        _refuse_what_stays(state, old)
        new = _wanted(state, old, request, is_begun=is_begun)
        if _is_same(old, new):
            return (
                _going_on(state, old, left)
                if is_begun
                else Remap(Plan("remap", allocations=(old,)))
            )
        refuse_unfinished(state, (old.name,))
    return _changed(state, old, new, is_undo=request.undo, with_lines=request.with_lines)


def waiting(ledger: LedgerState, name: str) -> tuple[Volume, ...]:
    """The volumes of a container whose files have the ids of its map before a remap.

    Outer ones come first: with them, those inside are moved.
    """
    return tuple(v for v in unmoved(ledger).values() if v.name == name)


def unfinished(state: HostState, allocations: Iterable[Allocation]) -> Iterator[Finding]:
    """A finding for each allocation whose remap is not finished."""
    for one in allocations if unmoved(state.ledger) else ():
        if left := waiting(state.ledger, one.name):
            finish = state.layout.inline(f"remap {shell(one.name)}")
            message = _not_finished(one.name, left)
            yield advise("USN173", message, f"finish it: {finish}")


def refuse_unfinished(state: HostState, names: Iterable[str]) -> None:
    """Raise RefusedError if a remap of one of these is not finished."""
    for name in names:
        if left := waiting(state.ledger, name):
            finish = state.layout.inline(f"remap {shell(name)}")
            raise RefusedError(
                _not_finished(name, left),
                hint=f"run {finish} first; or undo it: "
                f"{state.layout.inline(f'remap {shell(name)} --undo')}",
            )


def _not_finished(name: str, left: Sequence[Volume]) -> str:
    return (
        f"a remap of '{name}' is not finished: the files of {_named(left)} still have the ids of the "
        "map before it"
    )


def command_for(
    layout: Layout, old: Allocation, strategy: Strategy, start: int | None
) -> str | None:
    """The command that gives an allocation the map of a strategy; None if remap cannot."""
    if not _can_be_remapped(old):
        return None
    words, shape, at = [old.name], _strategy(old), _base_of(old)
    if isinstance(strategy, PerContainer) and not isinstance(shape, SingleUid):
        is_elsewhere = start not in {None, at}
        if engine_of_pool(old) and (not shape or strategy.size <= shape.size or is_elsewhere):
            # A pool only grows.
            return None
        words += ["--size", str(strategy.size)] if not shape or strategy.size != shape.size else []
        if strategy.passes != old.passes:
            passes = texts.written(strategy.passes)
            words += [word for text in passes for word in ("--pass", text)] or ["--no-pass"]
    elif strategy != shape:
        return None
    words += ["--start", str(start)] if start not in {None, at} else []
    if not words[1:]:
        return None
    return layout.command(f"remap {shell(*words)}{' --with-lines' if _adopted(old) else ''}")


def _known(state: HostState, name: str) -> Allocation:
    known = {a.name: a for a in state.ledger.allocations}
    if name not in known:
        raise UnknownNameError(
            f"nothing is allocated under the name '{name}'; nothing was changed",
            hint=did_you_mean(name, known, UnknownNameError.hint),
        )
    return known[name]


def _going_on(state: HostState, old: Allocation, left: tuple[Volume, ...]) -> Remap:
    """What is left of an interrupted remap: the lines and the ledger are right already."""
    late = mounts.unlike(state, old.name)
    found = [
        *([f"the files of {_named(left)} still have the ids of the map before it"] if left else []),
        *([f"{_shown(state, late)} still {_show(late)} the map before it"] if late else []),
    ]
    interrupted = advise(
        "USN173",
        f"a remap of '{old.name}' was interrupted: {'; '.join(found)}",
        "they are moved now" if left else "they get the new one now",
    )
    return Remap(
        Plan("remap", allocations=(old,), findings=(interrupted,), next_steps=_steps(state, old)),
        left,
        mounts=late,
    )


def _can_be_remapped(old: Allocation) -> bool:
    # Any other map of a container was adopted, and one that a size describes can follow it.
    return _strategy(old) is not None or (
        old.strategy == PerContainer.name and engine_of_pool(old) is None
    )


def _adopted(old: Allocation) -> bool:
    """Tell whether the owner's own lines existed before: they are somebody else's."""
    return any(line.startswith(f"{old.owner}:") for _, line in old.found)


def _strategy(old: Allocation) -> PerContainer | SingleUid | None:
    """The strategy that made an allocation, wherever it is; None if none did."""
    held = old.reserved_range
    if old.strategy == PerContainer.name:
        if held is None:
            return slices.shape_of(old) if old.within else None
        made = PerContainer(held.count, passes=old.passes)
        return made if made.mapping(held.start) == old.mapping else None
    if old.strategy == SingleUid.name and held is not None:
        one = SingleUid(held.count, old.mapping.uids[0].container)
        return one if one.mapping(held.start) == old.mapping else None
    return None


def _base_of(old: Allocation) -> int | None:
    """The first host id of an allocation: of uids and of gids. None if it has no such id."""
    if old.reserved_range:
        return old.reserved_range.start
    at = slices.begins(old)
    return at[0] if at and at[0] == at[1] else None


def _refuse_what_stays(state: HostState, old: Allocation) -> None:
    """Raise RefusedError for an allocation that no size, passes and first id describe."""
    if _can_be_remapped(old):
        return
    layout = state.layout
    if engine := engine_of_pool(old):
        why = f"it is the pool of {engine}, whose lines are not one range"
        hint = _pool_again(state, old)
    elif old.strategy == Shared.name:
        why = "its map has the ids of the host, which are not its own, and so no range to change"
        move = layout.inline(f"fix-volume PATH --container NEW --from {shell(old.name)}")
        gone = layout.inline(f"release {shell(old.name)}")
        hint = (
            "allocate another name with the --dockerroot or --max that it shall have: "
            f"{layout.command('allocate NEW --dockerroot N')}; then move its volumes with {move}, "
            f"and run {gone}"
        )
    else:
        why = "its map is not one that a strategy makes"
        hint = (
            "allocate another name, and move the volumes: "
            f"{layout.command('allocate NEW')}, then "
            f"{layout.command(f'fix-volume PATH --container NEW --from {shell(old.name)}')}"
        )
    raise RefusedError(f"'{old.name}' cannot be remapped: {why}", hint=hint)


def _refuse_pool(state: HostState, old: Allocation, new: Allocation) -> None:
    """Raise RefusedError for a pool that would do anything but grow where it is.

    Its engine gave containers ids, also those that do not run, and only the engine knows which.
    """
    if (engine := engine_of_pool(old)) and not extends(old, new):
        raise RefusedError(
            f"'{old.name}' is the pool of {engine}, whose containers keep their ids also while they "
            f"do not run, so it can only grow where it is; it would get {_ranges_of(new)}",
            hint=_pool_again(state, old),
        )


def _pool_again(state: HostState, old: Allocation) -> str:
    engine = engine_of_pool(old) or ""
    pool = ENGINES[engine].pool
    option = f" {pool.option} N" if pool else ""
    again = state.layout.inline(f"allocate --engine {engine}{option}")
    release = state.layout.inline(f"release {shell(old.name)}")
    return f"remove the containers that have ids of it, run {release}, and then {again}"


def _ranges_of(a: Allocation) -> str:
    return ", ".join(map(str, slices.quarantined(a)))


def _wanted(
    state: HostState, old: Allocation, request: RemapRequest, *, is_begun: bool
) -> Allocation:
    """The allocation as the request wants it. ``is_begun``: it may be the one that was interrupted."""
    strategy = _wanted_strategy(state, old, request)
    if old.within and request.pool is not None:
        raise InvalidValueError(
            f"a slice is taken from the lines of {old.within}, not from a pool",
            hint="leave it out",
            option="pool",
        )
    at = slices.begins(old) if old.within else None
    base = _base_of(old)
    if request.start in {None, base} and _strategy(old) is not None:
        made = (
            slices.with_shape(old, strategy, *at)
            if at and isinstance(strategy, PerContainer) and slices.is_possible(strategy, *at)
            else None
            if base is None
            else _made(old, strategy, base)
        )
        in_pool = request.pool is None or (made and IdSet((request.pool,)).holds(_range(made)))
        if made and in_pool and (_is_same(old, made) or is_begun):
            return made
    if old.within and isinstance(strategy, PerContainer):
        made = slices.remapped(
            state, lambda one: _claims(state, old, one), old, strategy, request.start
        )
        outer.refuse_absent(state, made)
        return made
    made = _placed(state, old, strategy, request)
    _refuse_pool(state, old, made)
    return made


def _wanted_strategy(
    state: HostState, old: Allocation, request: RemapRequest
) -> PerContainer | SingleUid:
    """The strategy of the new map: as it is, with what the request changes."""
    strategy = _strategy(old)
    if isinstance(strategy, SingleUid):
        if request.size is not None or request.passes is not None:
            raise InvalidValueError(
                f"not an option of the strategy {strategy.name}: '{old.name}' is one id of its own",
                hint="leave it out",
                option="size" if request.size is not None else "pass",
            )
        return strategy
    size = request.size
    if size is None and strategy is None:
        every = max(e.container + e.count for kind in KINDS for e in old.mapping[kind])
        raise InvalidValueError(
            f"the map of '{old.name}' is not one range, so nothing says how large the new one is",
            hint=f"name its size: --size {every} has all of its ids",
            option="size",
        )
    with concerning(old.name, "size"):
        now = strategy.size if strategy else 0
        strategy = PerContainer(now if size is None else size, passes=old.passes)
    engine = engine_of_pool(old)
    if engine and request.passes:
        raise InvalidValueError(
            f"the pool of {engine} is for many containers, and ids pass through to one",
            hint="leave it out",
            option="pass",
        )
    if engine:
        each = state.kubelet.ids_per_pod if engine == "kubernetes" else SLOT
        if strategy.size % each:
            raise InvalidValueError(
                f"{engine} gives each of its containers {each} ids, and {strategy.size} is not a "
                "multiple of it",
                hint=f"use {-(-strategy.size // each) * each}",
                option="size",
            )
    if request.passes is not None:
        with concerning(old.name, "pass"):
            passes = _passes(state, request.passes, permitted=request.pass_privileged)
            strategy = replace(strategy, passes=passes)
            if passes != old.passes and has_lines(old):
                refuse_own_id(state, old.name, old.owner, strategy)
    return strategy


def _placed(
    state: HostState, old: Allocation, strategy: PerContainer | SingleUid, request: RemapRequest
) -> Allocation:
    """The allocation with its range: the requested one, its present one, or the first that fits."""
    base = _base_of(old)
    for _ in range(_ATTEMPTS):
        made = _made(old, strategy, _base(state, old, strategy, request))
        outer.refuse_absent(state, made)
        seen = with_holders(state, (made,)) if _range(made).start != base else state
        if seen is state:
            return made
        state = seen
    raise RefusedError(
        f"accounts of {state.passwd_source.directory} have ids in each of {_ATTEMPTS} ranges that no "
        "file claims",
        hint="look up its id range, and name a pool outside it: --pool FIRST-LAST",
    )


def _base(
    state: HostState, old: Allocation, strategy: PerContainer | SingleUid, request: RemapRequest
) -> int:
    base, need = _base_of(old), strategy.need
    with concerning(old.name, "pool"):
        pool = pool_of(state, strategy, request.pool)
    here = None
    if base is not None:
        with concerning(old.name, "size"):
            here = IdRange(base, need.count)
        if not (pool.holds(here) or (request.pool is None and _may_stay(state, old, pool, here))):
            here = None
    if request.start is not None:
        with concerning(old.name, "start"):
            wanted = IdRange(request.start, need.count)
            if request.start != base and request.start % need.align:
                raise InvalidValueError(f"{request.start} is not a multiple of {need.align}")
            if wanted != here and not pool.holds(wanted) and not _own(old).holds(wanted):
                raise InvalidValueError(
                    f"{wanted} is outside the pool {pool}", hint="name a larger pool"
                )
            _refuse_taken(state, old, _made(old, strategy, request.start))
        return request.start

    # In place if the ids behind it are free: then nothing moves.
    if here and not _others(state, old, _made(old, strategy, here.start)).meets(
        here.start, here.stop
    ):
        return here.start
    taken = _others(state, old, None) | _own(old)
    with concerning(old.name, "pool"):
        [found] = take(pool, taken, need, 1)
    return found


def _may_stay(state: HostState, old: Allocation, pool: IdSet, here: IdRange) -> bool:
    """Tell whether a range may be where it is now, although the pool does not hold it.

    What began outside the pool was adopted, or made with another one: it may grow there, unless
    useradd computes that these ids are those of another uid.
    """
    if _own(old).holds(here):
        return True
    computed = claims_of(state).where(lambda claim: claim.source == "useradd")
    exists = state.exists[0] & state.exists[1]
    began = IdRange(here.start, 1)
    return (
        not pool.holds(began)
        and exists.holds(here)
        and not computed.ids.meets(here.start, here.stop)
    )


def _own(a: Allocation) -> IdSet:
    """The ids that an allocation has for itself, as uids or as gids."""
    return IdSet.union(own_ids(a, kind) for kind in KINDS)


def _others(
    state: HostState, old: Allocation, new: Allocation | None, kind: Kind | None = None
) -> IdSet:
    """The ids that somebody else has. ``new`` is the allocation as it is to be, if it is known.

    What this allocation lost at the same place is its own: files there have its container ids.
    """
    claims = _claims(state, old, new)
    claims = _of_kind(claims, kind) if kind else claims
    # Whether the container runs is another question; its neighbours may be joined to it. And a
    # program that has its ids already has them for it, by whatever name.
    used = claims.where(lambda claim: may_run(claim) or isinstance(claim.value, Unlisted)).ids
    firm = claims.where(lambda claim: not (may_run(claim) or isinstance(claim.value, Unlisted)))
    return firm.ids | (used - _own(old))


def _of_kind(claims: Claims, kind: Kind) -> Claims:
    return claims.where(lambda claim: claim.kind == kind)


def _claims(state: HostState, old: Allocation, new: Allocation | None) -> Claims:
    """The claims of others that make ids unavailable for an allocation with another map."""
    claims = without_own(claims_of(state).where(is_taken), state.ledger, (old,))
    # Slices stand on its lines; what is to become of them is asked later.
    standing, mine = slices.in_lines_of(state, old), _own(old)
    owners = {old.owner, *old.extra_owners} if has_lines(old) else set()

    def is_others(claim: Claim) -> bool:
        one = claim.value
        if isinstance(one, Quarantined):
            was_slice = one.was is not None and one.was.within in owners
            return not (_is_lost(one, old, new) or (was_slice and mine.holds(one.reserved_range)))
        return claim.allocation is not old and claim.allocation not in standing

    return claims.where(is_others)


def _is_lost(one: Quarantined, old: Allocation, new: Allocation | None) -> bool:
    """Tell whether a new map gets back ids that were its own, with the same container ids."""
    was = one.was
    if new is None or was is None or one.name != old.name:
        return False
    at = slices.begins(was)
    is_alike = was.mapping == new.mapping or (at is not None and at == slices.begins(new))
    return is_alike and any(one.reserved_range.overlaps(ids) for ids in slices.quarantined(new))


def _refuse_taken(state: HostState, old: Allocation, new: Allocation) -> None:
    """Raise RefusedError if somebody else has ids that the new map is to have."""
    if new.within:
        slices.refuse_taken(state, _claims(state, old, new), new)
        return
    for kind in KINDS:
        taken = _others(state, old, new, kind)
        claims = _of_kind(_claims(state, old, new), kind)
        for wanted in own_ids(new, kind):
            if not taken.meets(wanted.start, wanted.stop):
                continue
            whose, overlap = next(
                (
                    found
                    for found in holders(wanted, claims, state.layout)
                    if taken & IdSet((found[1],))
                ),
                ("somebody else's", wanted),
            )
            raise RefusedError(
                f"{wanted} is not free: {overlap} is {whose}",
                hint="leave the start out, and usernsplan finds a free range",
            )


def _passes(state: HostState, asked: tuple[str, ...], *, permitted: bool) -> tuple[Pass, ...]:
    """The passes that these texts ask for."""
    found = Passes(state)
    passes = found.of(asked)
    found.refuse(passes, permitted=permitted)
    return passes


def _returned(state: HostState, old: Allocation, former: Allocation) -> Allocation:
    """The allocation with the map that it had before. Raises RefusedError if its ids are taken."""
    new = replace(
        old,
        mapping=former.mapping,
        reserved_range=former.reserved_range,
        passes=former.passes,
        strategy=former.strategy,
        split_owners=former.split_owners,
        # What was adopted is again what stood there before.
        found=former.found,
    )
    _refuse_taken(state, old, new)
    outer.refuse_absent(state, new)
    return new


def _formers(events: Iterable[Event], name: str) -> tuple[list[Allocation], bool]:
    """The allocations before each remap that stands, oldest first; and whether the last was an undo.

    A remap notes the former allocation and then the new one; an undo, only that it returns to.
    """
    formers: dict[str, list[Allocation]] = {}
    undone: dict[str, bool] = {}
    for event in events:
        for was, now in event.change.rename:
            formers[now], undone[now] = formers.pop(was, []), undone.pop(was, False)
        for gone in (*event.change.remove, *(a.name for a in event.change.add)):
            formers.pop(gone, None)
        for one in {a.name for a in event.change.update}:
            mine = [a for a in event.change.update if a.name == one]
            stack = formers.setdefault(one, [])
            if len(mine) > 1:
                stack.append(mine[0])
                undone[one] = False
            elif stack and _is_same(stack[-1], mine[0]):
                stack.pop()
                undone[one] = True
    return formers.get(name, []), undone.get(name, False)


def _changed(
    state: HostState, old: Allocation, new: Allocation, *, is_undo: bool, with_lines: bool
) -> Remap:
    """The plan: lines, records, Docker, the ledger, and the volumes that move."""
    state = with_owners(state, (old.owner,))
    moves = not extends(old, new)
    if moves:
        _refuse_running(state, old)

    _refuse_slices(state, old, new)
    _refuse_crossing(old, new)
    lines = Grants(state)
    others = [a for a in state.ledger.allocations if a is not old]
    new = _with_found(state, old, new, lines, is_undo=is_undo, with_lines=with_lines)
    lines.exchange(old, new, needed_of_root(others), with_found=with_lines)
    published = _published(state, old, new)
    [new] = published.allocations
    docker = _docker(state, old, new)

    had, has = IdSet(slices.quarantined(old)), IdSet(slices.quarantined(new))
    gone = had - has
    back = [q.reserved_range for q in state.ledger.quarantined if _is_lost(q, old, new)]
    # What does not come back of a range that was larger stays quarantined.
    rest = [ids for whole in back for ids in IdSet((whole,)) - has]
    volumes = tuple(_former(state, old, new)) if moves else ()
    noted = _remounted(state, old, new)
    # Those that only have a unit come first: the others tell whether a remap is finished.
    there = [m for m in noted if mounts.stands(state, m)]
    standing = (*(m for m in noted if m.lasting and m not in there), *there)
    change = LedgerChange(
        update=(new,) if is_undo else (old, new),
        quarantine=tuple((old.name, ids) for ids in (*gone, *rest)),
        unkeep=tuple((old.name, ids) for ids in back),
        volumes=volumes,
        mounts=noted,
    )
    return Remap(
        Plan(
            "remap",
            allocations=(new,),
            changes=lines.changes(),
            ledger=change,
            findings=(
                *advice.findings(state, (new,)),
                *lines.findings,
                *docker.findings,
                *published.findings,
                *(slices.told(state, _claims(state, old, new), new) if new.within else ()),
                *_told(state, standing),
            ),
            next_steps=(*docker.next_steps, *_steps(state, new, old)),
            account_commands=published.commands,
            unfinished=docker.unfinished,
            consequences=(
                *_consequences(state, old, gone, volumes, moves=moves),
                *docker.consequences,
            ),
            records=changes(state.userdb, (old,), (new,)),
            accounts_gone=accounts_gone(state, (old,), (new,)),
        ),
        tuple(v for v in volumes if v.former is not None),
        old,
        standing,
    )


def _remounted(state: HostState, old: Allocation, new: Allocation) -> tuple[VolumeMount, ...]:
    """The mounts of a container, as the ledger is to note them: each with the new map.

    Raises RefusedError for one that cannot get it.
    """
    found = []
    for one in state.ledger.mounts:
        if one.name != old.name:
            continue
        place = shown_path(state.layout.path(one.at))
        undo = mounts.undoing(one, state.layout)
        now = mounts.remapped(one, new)
        if now is None:
            raise RefusedError(
                f"the mount at {place} shows its files as those of {one.user}, whom the new map lacks;"
                " nothing was changed",
                hint=f"take it away, and mount the volume for another user: {undo}",
            )
        if why := mounts.why_unclear(state, one):
            raise RefusedError(
                f"the mount at {place} cannot get the new map: {why}; nothing was changed",
                hint=f"unmount what is there now, or take it away: {undo}",
            )
        found.append(now)
    return tuple(found)


def _told(state: HostState, standing: Sequence[VolumeMount]) -> Iterator[Finding]:
    if standing:
        yield advise(
            "USN181",
            f"{_shown(state, standing)} {_show(standing)} the new map afterwards",
            "a process that has a copy of its own keeps the old one until it ends",
        )


def _shown(state: HostState, standing: Sequence[VolumeMount]) -> str:
    few = ", ".join(shown_path(state.layout.path(m.at)) for m in standing[:_SHOWN])
    more = f" and {len(standing) - _SHOWN} more" if standing[_SHOWN:] else ""
    return f"the mounts at {few}{more}" if standing[1:] else f"the mount at {few}"


def _show(mounts: Sequence[VolumeMount]) -> str:
    return "show" if mounts[1:] else "shows"


def _former(state: HostState, old: Allocation, new: Allocation) -> Iterator[Volume]:
    """The volumes as the ledger notes them: each with the map whose ids its files have.

    One that an interrupted remap has not moved yet may have those of the new map already.
    """
    for one in given(state.ledger).values():
        if one.name == old.name:
            has = one.former or old.mapping
            yield replace(one, former=None if has == new.mapping else has)


def extends(old: Allocation, new: Allocation) -> bool:
    """Tell whether the new map has all that the old one has: then no id moves, and a container may run."""
    return all(_is_part(old.mapping[kind], new.mapping[kind]) for kind in KINDS)


def _is_part(old: IdMap, new: IdMap) -> bool:
    return all(
        any(
            o.host - o.container == n.host - n.container
            and n.container <= o.container
            and o.container + o.count <= n.container + n.count
            for n in new
        )
        for o in old
    )


def _refuse_slices(state: HostState, old: Allocation, new: Allocation) -> None:
    """Raise RefusedError if slices stand on lines that would go away."""
    standing = [
        one.name
        for one in slices.in_lines_of(state, old)
        if any(own_ids(one, kind) - IdSet(granted(new, kind, one.within)) for kind in KINDS)
    ]
    if standing:
        few = ", ".join(standing[:_SHOWN])
        more = f" and {len(standing) - _SHOWN} more" if standing[_SHOWN:] else ""
        first = state.layout.inline(f"release {shell(*standing)}")
        raise RefusedError(
            f"the lines of '{old.name}' carry slices, which its new lines would not grant: "
            f"{few}{more}; nothing was changed",
            hint=f"keep their ids in its range, or release them first: {first}",
        )


def _refuse_crossing(old: Allocation, new: Allocation) -> None:
    """Raise RefusedError if ids that are kept as one kind would be lost as the other one."""
    for ids in slices.crossing(old, new):
        raise RefusedError(
            f"{ids} of '{old.name}' would change its kind: uids and gids begin apart, and what it "
            "loses could not be quarantined; nothing was changed",
            hint="choose another start, with which the new ids are none of those that it has",
        )


def _with_found(  # noqa: PLR0913 - the old and the new, and what is permitted
    state: HostState,
    old: Allocation,
    new: Allocation,
    lines: Grants,
    *,
    is_undo: bool,
    with_lines: bool,
) -> Allocation:
    """The allocation with those of its lines that existed before: they are not ours if they stay.

    Raises RefusedError if such a line of its owner would go away, unless ``with_lines``.
    """
    after = {line for one in holdings(new) for line in one.noted()}
    goes = [
        (path, line)
        for path, line in sorted(old.found, key=lambda one: one[0] != SUBUID)
        if (path, line) not in after and line.startswith(f"{old.owner}:")
    ]
    if goes and not with_lines:
        path, line = goes[0]
        more = f" and {len(goes) - 1} more" if goes[1:] else ""
        raise RefusedError(
            f"{state.layout.path(path)}: '{file_line(line.encode())}'{more} stood there before "
            f"'{old.name}' was adopted, and a remap would replace it; nothing was changed",
            hint="use --with-lines to replace such lines, too",
        )
    if goes and not is_undo:
        new = lines.in_pieces(new)
        after = {line for one in holdings(new) for line in one.noted()}
    kept = {line for line in old.found if line in after or not with_lines}
    return replace(new, found=tuple(sorted(kept | {*new.found} if is_undo else kept)))


def _refuse_running(state: HostState, old: Allocation) -> None:
    """Raise RefusedError while somebody uses the ids: what it writes would have those of the old map."""
    # Its own mounts get the new map.
    used = without_own(claims_of(state).where(may_run), state.ledger, (old,))
    for ids in IdSet.union(own_ids(old, kind) for kind in KINDS):
        for whose, overlap in holders(ids, used, state.layout):
            shown = state.layout.inline("inspect --all")
            login = _login(state, old)
            migrate = (
                f"; 'podman system migrate', as {login}, also ends the namespace that {login}'s "
                "Podman keeps"
                if login
                else ""
            )
            raise RefusedError(
                f"{overlap} of '{old.name}' is {whose}, and what it writes would have the ids of the "
                "old map; nothing was changed",
                hint=f"stop or unmount it first: {shown} shows what runs{migrate}",
            )


def _published(state: HostState, old: Allocation, new: Allocation) -> Publishing:
    """Where the new range is published: as the old one was."""
    if old.published == "passwd" and old.reserved_range != new.reserved_range:
        none = state.layout.inline(f"allocate {shell(old.name)} --publish none")
        raise RefusedError(
            f"'{old.name}' is published as a system account, which has an id of its range",
            hint=f"run {none} first; publish it again after the remap",
        )
    is_first = (
        old.published == "none"
        and not can_be(old)
        and not (old.unpublished or old.found or old.reserved_range is None)
    )
    return publish(
        state, (new,), {new.name: None if is_first else old.published}, (), from_file=True
    )


def _docker(state: HostState, old: Allocation, new: Allocation) -> daemon.Pointed:
    """What the new map means for Docker, if its remap has this owner."""
    if not has_lines(old) or daemon.remapped_to(state) != old.owner:
        return daemon.Pointed()
    found = daemon.point_at(state, new, replace_remap=False)
    return replace(found, changes=(), commands=(), next_steps=(daemon.RESTART,))


def _consequences(
    state: HostState, old: Allocation, gone: IdSet, volumes: Sequence[Volume], *, moves: bool
) -> Iterator[Finding]:
    """What the user has to agree to: nothing if the map only gets more ids."""
    if not moves:
        return
    moving = [v for v in volumes if v.former is not None]
    what = f"with it move {_named(moving)}" if moving else "no recorded volume moves"
    stay = "stays" if len([*gone]) == 1 else "stay"
    kept = f"; {gone} {stay} quarantined for '{old.name}'" if gone else ""
    find = " ".join(f"{ids.start}-{ids.last}" for ids in gone)
    yield advise(
        "USN172",
        f"'{old.name}' gets another map, and must not run with the old one any more: {what}{kept}",
        "files elsewhere keep the old ids"
        + (f"; {state.layout.inline(f'find-owned {find} /')} lists them" if gone else ""),
    )


def _steps(state: HostState, new: Allocation, old: Allocation | None = None) -> tuple[str, ...]:
    """What the user does next: the engine reads the new map. ``old`` is what it was."""
    command = state.layout.command
    render = command(f"render --list {shell(new.name)}")
    found = [f"{render}  # render it again for its engine, and start it with the new map"]
    if old and (places := sorted(set(_configured(state, old)))):
        found = [_again(state, new, engine, path) for engine, path in places]
    if engine_of_pool(new) == "kubernetes":
        found.append("systemctl restart kubelet  # it reads its lines when it starts")
    login = _login(state, new) if old and has_lines(new) else ""
    if login and (not state.engines or {"podman", "quadlet"} & state.engines):
        found.append(
            f"podman system migrate  # as {shell(login)}, if it uses Podman: it reads the lines "
            "again, and stops its containers"
        )
    return tuple(found)


def _login(state: HostState, a: Allocation) -> str:
    """The owner of the lines, if it is an account that may run Podman itself; "" otherwise."""
    is_ours = a.owner.startswith(OWN_PREFIX)
    others = {ROOT, DEFAULT_OWNER, *POOL_OWNERS}
    return "" if is_ours or a.owner in others or not state.accounts.user(a.owner) else a.owner


def _configured(state: HostState, old: Allocation) -> Iterator[tuple[str, str]]:
    """The engines that have the map of an allocation in a file, which stays as it is, each with that."""
    for one in state.unlisted:
        is_written = one.program in PREFIXES and one.path and one.number and one.inside is not None
        span = IdSet.clipped([(one.start, one.stop)])
        if is_written and span and not span - own_ids(old, one.kind):
            yield {LXC: "lxc"}.get(one.program, "--list"), one.path
    for unit in state.quadlets:
        if old.name in {unit.name, f"{unit.account}-{unit.name}"}:
            yield "quadlet --rootless" if unit.account else "quadlet", unit.path


def _again(state: HostState, new: Allocation, engine: str, path: str) -> str:
    """The step for one file that has the old map."""
    render = state.layout.command(f"render {engine} {shell(new.name)}")
    place = shown_path(state.layout.path(path))
    return f"{render}  # {place} still has the old map: replace it by this"


def _made(old: Allocation, strategy: PerContainer | SingleUid, base: int) -> Allocation:
    with concerning(old.name, "start"):
        held = IdRange(base, strategy.need.count)
    passes = strategy.passes if isinstance(strategy, PerContainer) else ()
    with concerning(old.name, "pass"):
        mapping = strategy.mapping(base)
    return replace(old, mapping=mapping, reserved_range=held, passes=passes)


def _is_same(one: Allocation, other: Allocation) -> bool:
    return (one.mapping, one.reserved_range, one.passes) == (
        other.mapping,
        other.reserved_range,
        other.passes,
    )


def _range(a: Allocation) -> IdRange:
    if a.reserved_range is None:
        raise _no_range(a)
    return a.reserved_range


def _no_range(a: Allocation) -> InvalidValueError:
    return InvalidValueError(f"'{a.name}' takes no range of its own")


def _named(volumes: Sequence[Volume]) -> str:
    few = ", ".join(shown_path(v.path) for v in volumes[:_SHOWN])
    return few + (f" and {len(volumes) - _SHOWN} more" if volumes[_SHOWN:] else "")
