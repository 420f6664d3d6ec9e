"""A plan file and a host -> what changes on the host. Pure.

Nothing is renumbered: a file that wants another range for a name that has one is refused. Only
``prune`` releases what the file does not name.
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
from usernsplan.errors import InvalidFileError, RefusedError, UsernsplanError, concerning
from usernsplan.formats import daemon_json
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.model import (
    AllocateRequest,
    Change,
    ContainerOptions,
    Finding,
    LedgerChange,
    Plan,
    ReleaseRequest,
    Reservation,
    Volume,
)
from usernsplan.planner.allocate import make_plan
from usernsplan.planner.defaults import pool_options
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
    """One change that a plan file makes on a host: something comes ("+"), changes or goes."""

    sign: Literal["+", "~", "-"]
    kind: Literal["container", "pool", "account", "docker", "reservation", "volume"]
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """Everything that a plan file changes on a host.

    It is carried out in this order: ``allocate``, ``prune``, then ``volumes``, which are those that
    are not yet as the file wants them. ``kept`` is what the host has, the file does not name, and
    nothing releases.
    """

    allocate: Plan
    prune: Plan
    volumes: tuple[Volume, ...]
    steps: tuple[DiffLine, ...]
    kept: tuple[str, ...]

    @property
    def pending(self) -> bool:
        """Tell whether anything would change."""
        return self.allocate.changed or self.prune.changed or bool(self.volumes)


def make_desired(
    state: HostState, spec: Spec, *, prune: bool = False, replace_remap: bool = False
) -> PlanDiff:
    """Decide what turns the host into what the file describes.

    ``replace_remap``: Docker's remap may move to another user. Raises what make_plan raises, with
    the line of the container that the error concerns, and RefusedError if a range to reserve is
    allocated.
    """
    # A file that names Docker's container accepts that Docker hides its present data.
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
    if prune and gone:
        after = as_changed(state, {c.path: c.after for c in plan.changes}, plan.ledger)
        try:
            release = make_release(after, ReleaseRequest(tuple(a.name for a in gone)))
        except RefusedError as error:
            error.hint = (
                "release it first: 'usernsplan release NAME --unset-remap'; "
                f"or add it to {spec.place}"
            )
            raise
    if prune:
        ledger = replace(release.ledger, unreserve=unreserve)
        release = replace(release, kind="apply", ledger=ledger)

    volumes = _to_fix(_with_former(state, plan), spec, {a.name: a for a in plan.allocations})
    kept = () if prune else (*(a.name for a in gone), *(f"reservation {ids}" for ids in unreserve))
    steps = (*_steps(state, plan), *_steps(state, release), *_volume_steps(state, volumes))
    return PlanDiff(plan, release, volumes, steps, kept)


def request_of(spec: Spec) -> AllocateRequest:
    """The ``allocate`` that a plan file stands for.

    Raises InvalidFileError for options of another strategy, and for a daemon that the file does not
    define.
    """
    with _placed(spec):
        strategy = _strategy(spec, {})

    each = {}
    for one in spec.containers:
        with _placed(spec), concerning(one.name):
            each[one.name] = ContainerOptions(
                _strategy(spec, one.options), one.owner, one.start, one.engines
            )
    if spec.daemon and spec.daemon not in each:
        place = f"{spec.place}:{spec.lines['daemon']}"
        raise InvalidFileError(place, f"daemon: this file has no container '{spec.daemon}'")

    engines = spec.engines
    return AllocateRequest(
        names=tuple(each),
        strategy=strategy,
        pool=spec.pool,
        daemon=spec.daemon or None,
        daemon_config=spec.daemon is not False,
        engines=None if engines is None else tuple(one.name for one in engines),
        pools=pool_options(engines or ()),
        each=each,
        from_file=True,
    )


def _strategy(spec: Spec, own: dict[str, int]) -> PerContainer | SingleUid | Shared:
    """The strategy of the file, for a container with these options of its own."""
    said = {**spec.options, **own}
    return named(spec.strategy, with_defaults(spec.strategy, said, spec.defaults))


def merged_changes(desired: PlanDiff) -> tuple[Change, ...]:
    """The change of each file, merged if both steps change it."""
    found: dict[str, Change] = {}
    for change in (*desired.allocate.changes, *desired.prune.changes):
        found[change.path] = replace(found.get(change.path, change), after=change.after)
    return tuple(change for change in found.values() if change.before != change.after)


def fingerprint(desired: PlanDiff) -> str:
    """A hash of everything that would be done: equal decisions have equal hashes."""
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
    """Give an error the line and key of the file that it concerns."""
    try:
        yield
    except UsernsplanError as error:
        one = next((one for one in spec.containers if one.name == error.allocation), None)
        lines, line, at = (one.lines, one.line, one.at) if one else (spec.lines, 0, "")
        key = error.option if error.option in lines else ""
        path = ".".join(filter(None, (at, key)))
        if not key and error.option in spec.places:
            error.where = spec.places[error.option]
        elif path:
            error.where = f"{spec.place}:{lines.get(key, line)}: {path}"
        error.hint = error.in_file or error.hint
        raise


def _to_reserve(state: HostState, spec: Spec) -> tuple[Reservation, ...]:
    """The reservations that the host lacks. Raises RefusedError for ids that are allocated."""
    have = {r.ids: r.why for r in state.ledger.reservations}
    new = [one for one in spec.reservations if have.get(one.ids) != one.why]
    for one in new:
        for allocation in state.ledger.allocations:
            if allocation.reserved_range and allocation.reserved_range.overlaps(one.ids):
                raise RefusedError(
                    f"{spec.place}:{one.line}: {one.at}.ids: {one.ids} overlaps "
                    f"{allocation.reserved_range} of '{allocation.name}'",
                    hint=f"reserve only the rest of it, or release '{allocation.name}' first",
                )
    return tuple(Reservation(one.ids, one.why) for one in new)


def _reserved_over(state: HostState, reserve: Iterable[Reservation]) -> Iterator[Finding]:
    """A finding for every new reservation of ids that the files of this host grant."""
    others = claims_of(state).where(is_of_others)
    for one in reserve:
        for whose, overlap in holders(one.ids, others, state.layout):
            message = f"{overlap} becomes reserved for '{one.why}', but is {whose}"
            hint = "existing grants stay as they are; only new ranges avoid a reservation"
            yield advise("USN127", message, hint)


def _not_named(state: HostState, spec: Spec) -> tuple[tuple[Allocation, ...], tuple[IdRange, ...]]:
    """The allocations and reservations that the host has and the file does not name.

    An engine's pool counts only if the file names engines.
    """
    names = {one.name for one in spec.containers}
    engines = None if spec.engines is None else {one.name for one in spec.engines}
    gone = []
    for allocation in state.ledger.allocations:
        engine = engine_of_pool(allocation)
        is_named = engine is not None and (engines is None or engine in engines)
        if not is_named and allocation.name not in names:
            gone.append(allocation)
    reserved = {one.ids for one in spec.reservations}
    return tuple(gone), tuple(r.ids for r in state.ledger.reservations if r.ids not in reserved)


def _with_former(state: HostState, plan: Plan) -> HostState:
    """The host with the allocations that get back their former range and map.

    The volumes of these are right as they are.
    """
    back = tuple(a for a in plan.ledger.add if a.event)
    if not back:
        return state
    return as_changed(state, {}, LedgerChange(add=back, unkeep=plan.ledger.unkeep))


def _to_fix(state: HostState, spec: Spec, allocations: dict[str, Allocation]) -> tuple[Volume, ...]:
    """The volumes that differ from the file, in the ledger or on disk.

    Raises InvalidFileError for a volume of two containers, and for a user that the map of its
    container lacks.
    """
    wanted = [(one, volume) for one in spec.containers for volume in one.volumes]
    _refuse_nested(state, spec)

    for path, times in Counter(volume.path for _, volume in wanted).items():
        if times > 1:
            lines = [volume.line for _, volume in wanted if volume.path == path]
            fact = f"the volume {path} appears a second time; the first is in line {lines[0]}"
            raise InvalidFileError(f"{spec.place}:{lines[1]}", fact)

    for one, volume in wanted:
        mapping = allocations[one.name].mapping
        uid, _, gid = volume.user.partition(":")
        if volume.user and None in {mapping.uids.to_host(int(uid)), mapping.gids.to_host(int(gid))}:
            fact = f"{volume.path}: the map of '{one.name}' has no user {volume.user}"
            raise InvalidFileError(f"{spec.place}:{volume.line}", fact)

    # If the container is new here, the ledger's note is about an earlier container of that name.
    volumes = (Volume(v.path, one.name, v.mode, user=v.user) for one, v in wanted)
    return not_noted(state.ledger, volumes, doubts(state.ledger, state.volumes, state.layout))


def _refuse_nested(state: HostState, spec: Spec) -> None:
    """Raise InvalidFileError for a volume inside another: the later fix takes the inner files.

    If only the ledger has one of the two and both belong to one container, nothing is wrong: the
    file names one instead of the other.
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
                fact = (
                    f"the volume {path} of '{name}' is inside {outer}, which belongs to '{other}'"
                )
                hint = "one container has a volume and everything in it; move one of the two"
                raise InvalidFileError(f"{spec.place}:{max(line, other_line)}", fact, hint=hint)


def _steps(state: HostState, plan: Plan) -> Iterator[DiffLine]:
    known = {a.name: a for a in state.ledger.allocations}
    for allocation in plan.ledger.add:
        owner = ", and ".join((allocation.owner, *allocation.extra_owners))
        is_back = (allocation.name, allocation.reserved_range) in plan.ledger.unkeep
        again = ", as before its release" if is_back else ""
        text = f"{_ids(allocation)}, owner {owner}{again}"
        yield DiffLine("+", _kind(allocation), allocation.name, text)
    for command in plan.account_commands:
        yield DiffLine("+", "account", command[-1], command[0])
    for reservation in plan.ledger.reserve:
        is_new = reservation.ids not in {r.ids for r in state.ledger.reservations}
        yield DiffLine("+" if is_new else "~", "reservation", str(reservation.ids), reservation.why)
    for name in plan.restored:
        yield DiffLine("~", _kind(known[name]), name, "its lines are restored")
    for name, owner in plan.ledger.extra_owners:
        yield DiffLine("~", _kind(known[name]), name, f"also granted to {owner}")
    for change in plan.changes:
        if change.path not in {SUBUID, SUBGID}:
            remap = daemon_json.parse(change.after, change.path).get(daemon_json.REMAP)
            text = f'"userns-remap": "{remap}"' if remap is not None else 'without "userns-remap"'
            yield DiffLine("~", "docker", state.layout.path(change.path), text)
    for name in plan.ledger.remove:
        text = f"{_ids(known[name])}: quarantined until you forget it"
        yield DiffLine("-", _kind(known[name]), name, text)
    for ids in plan.ledger.unreserve:
        yield DiffLine("-", "reservation", str(ids), "no longer reserved")


def _volume_steps(state: HostState, volumes: Iterable[Volume]) -> Iterator[DiffLine]:
    doubted = doubts(state.ledger, state.volumes, state.layout)
    for volume in volumes:
        user = f" {volume.user}" if volume.user else ""
        why = f": {doubted[volume.path].fact}" if volume.path in doubted else ""
        text = f"fix for {volume.name} ({volume.mode}{user}){why}"
        yield DiffLine("~", "volume", volume.path, text)


def _kind(allocation: Allocation) -> Literal["container", "pool"]:
    return "pool" if engine_of_pool(allocation) else "container"


def _ids(allocation: Allocation) -> str:
    return ", ".join(f"{e.container_range} -> {e.host_range}" for e in allocation.mapping.uids)
