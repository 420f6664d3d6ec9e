"""A plan file and a host -> what is to be done. Pure.

Nothing that stands is renumbered: a file that wants another range for a name that has one is refused. What the file
does not name stays, and goes only with ``prune``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from usernsplan.claims.sources import claims_of
from usernsplan.engines import engine_of_pool
from usernsplan.engines.mounts import standing
from usernsplan.errors import InvalidFileError, RefusedError, UsernsplanError, about
from usernsplan.formats import daemon_json
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.model import (
    AllocateRequest,
    Change,
    ContainerOptions,
    Finding,
    LedgerChange,
    Plan,
    PoolOptions,
    ReleaseRequest,
    Reservation,
    Volume,
)
from usernsplan.planner.allocate import make_plan
from usernsplan.planner.recovery import as_changed
from usernsplan.planner.release import make_release
from usernsplan.planner.runs import findings as findings_of_runs
from usernsplan.planner.stories import advise
from usernsplan.planner.taken import holders, is_of_others
from usernsplan.planner.volumes import doubts, not_noted
from usernsplan.strategies import named, with_defaults

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.formats.spec import Spec
    from usernsplan.ids import IdRange
    from usernsplan.model import Allocation, HostState
    from usernsplan.strategies import PerContainer, Shared, SingleUid


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line of what a plan file changes on a host: something comes, changes or goes."""

    sign: Literal["+", "~", "-"]
    kind: Literal["container", "pool", "account", "docker", "reservation", "volume"]
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """What a plan file comes to on a host: carried out one after the other, ``allocate`` and ``prune``, then volumes.

    ``volumes`` are those that are not yet as the file wants them, ``kept`` is what the host has and the file has not.
    """

    allocate: Plan
    prune: Plan
    volumes: tuple[Volume, ...]
    steps: tuple[DiffLine, ...]
    kept: tuple[str, ...]

    @property
    def pending(self) -> bool:
        """Tell whether anything is to be done."""
        return self.allocate.changed or self.prune.changed or bool(self.volumes)


def make_desired(
    state: HostState, spec: Spec, *, prune: bool = False, replace_remap: bool = False
) -> PlanDiff:
    """Decide what makes the host what the file says. ``replace_remap``: Docker may be remapped to another user.

    Raises what make_plan raises, with the line of the container that it is about, and RefusedError where a range that
    is to be reserved has been given out.
    """
    # Whoever writes down whom Docker is to be remapped to means that it hides what it has elsewhere.
    request = replace(request_of(spec), replace_remap=replace_remap or bool(spec.daemon))
    reserve = _to_reserve(state, spec)
    reserved = as_changed(state, {}, LedgerChange(reserve=reserve))
    with _placed(spec):
        plan = make_plan(reserved, request)
    plan = replace(
        plan,
        kind="apply",
        ledger=replace(plan.ledger, reserve=reserve),
        findings=(
            *plan.findings,
            *_reserved_over(state, reserve),
            *findings_of_runs(state.runs, state.layout),
        ),
    )
    gone, unreserve = _not_named(state, spec)
    release = Plan("apply")
    if prune:
        after = as_changed(state, {c.path: c.after for c in plan.changes}, plan.ledger)
        with _released(spec):
            release = (
                make_release(after, ReleaseRequest(tuple(a.name for a in gone)))
                if gone
                else release
            )
        release = replace(
            release, kind="apply", ledger=replace(release.ledger, unreserve=unreserve)
        )
    volumes = _to_fix(_with_former(state, plan), spec, {a.name: a for a in plan.allocations})
    kept = () if prune else (*(a.name for a in gone), *(f"reservation {ids}" for ids in unreserve))
    steps = (*_steps(state, plan), *_steps(state, release), *_volume_steps(state, volumes))
    return PlanDiff(plan, release, volumes, steps, kept)


def request_of(spec: Spec) -> AllocateRequest:
    """The words of the ``allocate`` that a file stands for. Raises InvalidFileError for options of another strategy."""
    with _placed(spec):
        strategy = _strategy(spec, {})
    each = {}
    for one in spec.containers:
        with _placed(spec), about(one.name):
            each[one.name] = ContainerOptions(
                _strategy(spec, one.options), one.owner, one.start, one.engines
            )
    if spec.daemon and spec.daemon not in each:
        place, line = spec.place, spec.lines["daemon"]
        raise InvalidFileError(
            f"{place}:{line}", f"daemon: '{spec.daemon}' is none of the containers of this file"
        )
    return AllocateRequest(
        names=tuple(each),
        strategy=strategy,
        pool=spec.pool,
        daemon=spec.daemon or None,
        daemon_config=spec.daemon is not False,
        engines=spec.engines,
        pools={
            engine: PoolOptions(dict(spec.pools).get(engine), dict(spec.pool_starts).get(engine))
            for engine in dict((*spec.pools, *spec.pool_starts))
        },
        each=each,
        from_file=True,
    )


def _strategy(spec: Spec, own: dict[str, int]) -> PerContainer | SingleUid | Shared:
    """The file's strategy for a container with these options of its own."""
    said = {**spec.options, **own}
    return named(spec.strategy, with_defaults(spec.strategy, said, spec.defaults))


def merged_changes(desired: PlanDiff) -> tuple[Change, ...]:
    """What becomes of each file in the end: one change, though two steps change it."""
    found: dict[str, Change] = {}
    for change in (*desired.allocate.changes, *desired.prune.changes):
        found[change.path] = replace(found.get(change.path, change), after=change.after)
    return tuple(change for change in found.values() if change.before != change.after)


def fingerprint(desired: PlanDiff) -> str:
    """What is to be done, as a short text: two decisions that have the same do the same."""
    come, gone = desired.allocate, desired.prune
    done = (
        come.allocations,
        come.account_commands,
        come.changes,
        come.ledger,
        gone.changes,
        gone.ledger,
        desired.volumes,
    )
    return hashlib.sha256(repr(done).encode("utf-8", "surrogateescape")).hexdigest()


@contextmanager
def _placed(spec: Spec) -> Iterator[None]:
    """Let an error say which line and key of the file it is about."""
    try:
        yield
    except UsernsplanError as error:
        one = next((one for one in spec.containers if one.name == error.about), None)
        lines, line, at = (one.lines, one.line, one.at) if one else (spec.lines, 0, "")
        key = error.option if error.option in lines else ""
        path = ".".join(filter(None, (at, key)))
        if not key and error.option in spec.places:
            error.where = spec.places[error.option]
        elif path:
            error.where = f"{spec.place}:{lines.get(key, line)}: {path}"
        error.hint = error.in_file or error.hint
        raise


@contextmanager
def _released(spec: Spec) -> Iterator[None]:
    """Where something that is to go cannot, say by which words it can."""
    try:
        yield
    except RefusedError as error:
        error.hint = f"'usernsplan release NAME --unset-remap' does it on its own; or name it in {spec.place}"
        raise


def _to_reserve(state: HostState, spec: Spec) -> tuple[Reservation, ...]:
    """The reservations that are yet to be made. Raises RefusedError for ids that somebody got from us."""
    have = {r.ids: r.why for r in state.ledger.reservations}
    new = [one for one in spec.reservations if have.get(one.ids) != one.why]
    for one in new:
        for allocation in state.ledger.allocations:
            if allocation.reserved_range and allocation.reserved_range.overlaps(one.ids):
                raise RefusedError(
                    f"{spec.place}:{one.line}: {one.at}.ids: {one.ids} overlaps {allocation.reserved_range}, which "
                    f"'{allocation.name}' has",
                    hint=f"reserve what is left of it, or release '{allocation.name}' first",
                )
    return tuple(Reservation(one.ids, one.why) for one in new)


def _reserved_over(state: HostState, reserve: Iterable[Reservation]) -> Iterator[Finding]:
    """What is to be kept for somebody outside, and somebody here has."""
    others = claims_of(state).where(is_of_others)
    for one in reserve:
        for whose, overlap in holders(one.ids, others, state.layout):
            message = f"{overlap}, which is to be reserved for '{one.why}', is {whose}"
            yield advise(
                "USN127",
                message,
                "what is given already stays given: only new ranges keep out",
            )


def _not_named(state: HostState, spec: Spec) -> tuple[tuple[Allocation, ...], tuple[IdRange, ...]]:
    """What the host has and the file does not name; an engine's pool only where the file names engines."""
    names = {one.name for one in spec.containers}
    gone = []
    for allocation in state.ledger.allocations:
        engine = engine_of_pool(allocation)
        named_pool = engine is not None and (spec.engines is None or engine in spec.engines)
        if not named_pool and allocation.name not in names:
            gone.append(allocation)
    reserved = {one.ids for one in spec.reservations}
    return tuple(gone), tuple(r.ids for r in state.ledger.reservations if r.ids not in reserved)


def _with_former(state: HostState, plan: Plan) -> HostState:
    """The host with the allocations that have their former range and map again: their volumes stand as they are."""
    back = tuple(a for a in plan.ledger.add if a.event)
    return (
        as_changed(state, {}, LedgerChange(add=back, unkeep=plan.ledger.unkeep)) if back else state
    )


def _to_fix(state: HostState, spec: Spec, allocations: dict[str, Allocation]) -> tuple[Volume, ...]:
    """The volumes that the ledger does not know as the file wants them, or that do not look as it knows them.

    Raises InvalidFileError for one of two containers, and for a user that its container does not have.
    """
    wanted = [(one, volume) for one in spec.containers for volume in one.volumes]
    _refuse_nested(state, spec)
    for path, times in Counter(volume.path for _, volume in wanted).items():
        if times > 1:
            lines = [volume.line for _, volume in wanted if volume.path == path]
            fact = f"the volume {path} stands here a second time: line {lines[0]}"
            raise InvalidFileError(f"{spec.place}:{lines[1]}", fact)
    for one, volume in wanted:
        mapping = allocations[one.name].mapping
        uid, _, gid = volume.user.partition(":")
        if volume.user and None in {mapping.uids.to_host(int(uid)), mapping.gids.to_host(int(gid))}:
            where = f"{spec.place}:{volume.line}"
            raise InvalidFileError(
                where, f"{volume.path}: '{one.name}' has no user {volume.user}: its map lacks it"
            )
    # One that is noted for a container that is yet to be made was another's of that name.
    volumes = (Volume(v.path, one.name, v.mode, user=v.user) for one, v in wanted)
    return not_noted(state.ledger, volumes, doubts(state.ledger, state.volumes, state.layout))


def _refuse_nested(state: HostState, spec: Spec) -> None:
    """Raise InvalidFileError for a volume in another one: whoever is fixed last takes the inner one's files.

    Of those that only the ledger has, a container's own are no trouble: the file names the outer one instead.
    """
    known = {path: (v.name, 0) for path, v in standing(state.ledger).items()}
    known |= {
        volume.path: (one.name, volume.line) for one in spec.containers for volume in one.volumes
    }
    for path, (name, line) in known.items():
        parts = path.strip("/").split("/")
        for outer in ("/" + "/".join(parts[:stop]) for stop in range(len(parts))):
            other, other_line = known.get(outer, (name, 0)) if outer != path else (name, 0)
            if (line and other_line) or ((line or other_line) and name != other):
                fact = f"the volume {path} of '{name}' lies in {outer}, which is '{other}'s"
                hint = "a volume is one container's with all that lies in it"
                raise InvalidFileError(f"{spec.place}:{max(line, other_line)}", fact, hint=hint)


def _steps(state: HostState, plan: Plan) -> Iterator[DiffLine]:
    known = {a.name: a for a in state.ledger.allocations}
    for allocation in plan.ledger.add:
        owner = ", and ".join((allocation.owner, *allocation.extra_owners))
        again = (
            ", as before it was released"
            if (allocation.name, allocation.reserved_range) in plan.ledger.unkeep
            else ""
        )
        yield DiffLine(
            "+", _kind(allocation), allocation.name, f"{_ids(allocation)}, owner {owner}{again}"
        )
    for command in plan.account_commands:
        yield DiffLine("+", "account", command[-1], command[0])
    for reservation in plan.ledger.reserve:
        is_new = reservation.ids not in {r.ids for r in state.ledger.reservations}
        yield DiffLine("+" if is_new else "~", "reservation", str(reservation.ids), reservation.why)
    for name in plan.restored:
        yield DiffLine("~", _kind(known[name]), name, "its lines are put back as they were granted")
    for name, owner in plan.ledger.extra_owners:
        yield DiffLine("~", _kind(known[name]), name, f"granted to {owner} too")
    for change in plan.changes:
        if change.path not in {SUBUID, SUBGID}:
            remap = daemon_json.parse(change.after, change.path).get(daemon_json.REMAP)
            text = f'"userns-remap": "{remap}"' if remap is not None else 'without "userns-remap"'
            yield DiffLine("~", "docker", state.layout.path(change.path), text)
    for name in plan.ledger.remove:
        yield DiffLine(
            "-", _kind(known[name]), name, f"{_ids(known[name])}: kept back until it is forgotten"
        )
    for ids in plan.ledger.unreserve:
        yield DiffLine("-", "reservation", str(ids), "no longer reserved")


def _volume_steps(state: HostState, volumes: Iterable[Volume]) -> Iterator[DiffLine]:
    doubted = doubts(state.ledger, state.volumes, state.layout)
    for volume in volumes:
        whom = f" {volume.user}" if volume.user else ""
        why = f": {doubted[volume.path].fact}" if volume.path in doubted else ""
        yield DiffLine(
            "~", "volume", volume.path, f"to be given to {volume.name} ({volume.mode}{whom}){why}"
        )


def _kind(allocation: Allocation) -> Literal["container", "pool"]:
    return "pool" if engine_of_pool(allocation) else "container"


def _ids(allocation: Allocation) -> str:
    return ", ".join(f"{e.container_range} -> {e.host_range}" for e in allocation.mapping.uids)
