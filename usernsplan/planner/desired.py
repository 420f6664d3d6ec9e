"""A plan file and a host -> what changes on the host. Pure.

Nothing is renumbered: a file that wants another range for a name that has one is refused. Only
``prune`` releases what the file does not name.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from usernsplan.claims.sources import claims_of
from usernsplan.engines import engine_of_pool
from usernsplan.engines.mounts import given
from usernsplan.errors import (
    InvalidFileError,
    RefusedError,
    UsernsplanError,
    concerning,
)
from usernsplan.escape import shell
from usernsplan.formats import daemon_json, passes
from usernsplan.harden.policy import flags
from usernsplan.holdings import has_lines
from usernsplan.ids import IdRange
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
from usernsplan.planner import adopt, mount_doubts, renamed
from usernsplan.planner import wanted as wanted_mounts
from usernsplan.planner.allocate import make_plan
from usernsplan.planner.defaults import pool_options
from usernsplan.planner.harden import with_policies
from usernsplan.planner.publish import records_of
from usernsplan.planner.recovery import as_changed
from usernsplan.planner.release import make_release
from usernsplan.planner.runs import findings as findings_of_runs
from usernsplan.planner.stories import advise
from usernsplan.planner.taken import holders, is_of_others
from usernsplan.planner.volumes import doubts, not_noted
from usernsplan.strategies import named, with_defaults
from usernsplan.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from usernsplan.formats.spec import Spec, SpecVolume
    from usernsplan.harden.policy import Policy
    from usernsplan.model import Allocation, HostState, VolumeMount
    from usernsplan.planner.wanted import ToMount
    from usernsplan.strategies import PerContainer, Shared, SingleUid


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One change that a plan file makes on a host: something comes ("+"), changes or goes."""

    sign: Literal["+", "~", "-"]
    kind: Literal["container", "pool", "account", "docker", "reservation", "volume", "mount"]
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """Everything that a plan file changes on a host.

    It is carried out in this order: ``allocate``, ``unmount``, ``prune``, then ``volumes`` and
    ``mounts``, which are those that are not yet as the file wants them. ``kept`` is what the host
    has, the file does not name, and nothing releases.
    """

    allocate: Plan
    prune: Plan
    volumes: tuple[Volume, ...]
    steps: tuple[DiffLine, ...]
    kept: tuple[str, ...]
    mounts: tuple[ToMount, ...] = ()
    unmount: tuple[VolumeMount, ...] = ()

    @property
    def pruning(self) -> bool:
        """Tell whether something goes that the file does not name."""
        return self.prune.changed or bool(self.unmount)

    @property
    def to_fix(self) -> int:
        """The number of volumes to give to their containers, by either method."""
        return len(self.volumes) + len(self.mounts)

    @property
    def pending(self) -> bool:
        """Tell whether anything would change."""
        return self.allocate.changed or self.pruning or self.to_fix > 0


def make_desired(
    state: HostState,
    spec: Spec,
    *,
    prune: bool = False,
    replace_remap: bool = False,
    look: Callable[[HostState], HostState] = lambda state: state,
) -> PlanDiff:
    """Decide what turns the host into what the file describes.

    ``replace_remap``: Docker's remap may move to another user. ``look`` adds the configurations of
    containers to the host, if the file adopts any. Raises what make_plan raises, with
    the line of the container that the error concerns, and RefusedError if a range to reserve is
    allocated.
    """
    # A file that names Docker's container accepts that Docker hides its present data.
    request = replace(request_of(spec), replace_remap=replace_remap or bool(spec.daemon))
    with _placed(spec):
        new_names, told = renamed.of_spec(state, spec)
    reserve = _to_reserve(state, spec)
    # From here on, everything has its new name.
    state = as_changed(state, {}, LedgerChange(rename=new_names)) if new_names else state
    gone, unreserve = _not_named(state, spec)
    reserved = as_changed(state, {}, LedgerChange(reserve=reserve))
    with _placed(spec):
        adopted = adopt.of_request(reserved, request, look)
        taken_over = adopt.change_of(reserved, adopted.new)
        plan = make_plan(as_changed(reserved, {}, taken_over), adopted.request)

    plan = replace(
        plan,
        kind="apply",
        allocations=(*plan.allocations, *adopted.allocations),
        ledger=replace(
            plan.ledger,
            add=(*taken_over.add, *plan.ledger.add),
            unkeep=(*taken_over.unkeep, *plan.ledger.unkeep),
            rename=new_names,
            reserve=reserve,
        ),
        findings=(
            *(remark for one in adopted.new for remark in adopt.remarks(state, one)),
            *plan.findings,
            *told,
            *renamed.maybe(spec, plan.ledger.add, gone),
            *_reserved_over(state, reserve),
            *findings_of_runs(state.runs, state.layout),
        ),
        adopted=tuple(a.name for a in taken_over.add),
    )
    with _placed(spec):
        plan = with_policies(plan, {a.name: a for a in state.ledger.allocations}, _policies(spec))

    volumes, mounts, unmount = _given(
        _with_former(state, plan), spec, {a.name: a for a in plan.allocations}
    )
    release = Plan("apply")
    if prune:
        points = tuple(m.at for m in unmount)
        without = as_changed(state, {}, LedgerChange(no_mounts=points)) if points else state
        release = _pruned(without, spec, plan, gone)
        release = replace(release, ledger=replace(release.ledger, unreserve=unreserve))
    not_named = (
        *(a.name for a in gone),
        *(f"reservation {ids}" for ids in unreserve),
        *(f"mount {m.at}" for m in unmount),
    )
    if not prune:
        unmount = ()
    names = [DiffLine("~", "container", now, f"renamed from {was}") for was, now in new_names]
    adds = frozenset(a.name for a in taken_over.add)
    changes = (*_steps(state, plan, adds), *_unmount_steps(unmount), *_steps(state, release))
    steps = (*names, *changes, *_volume_steps(state, volumes), *_mount_steps(mounts))
    kept = () if prune else not_named
    return PlanDiff(plan, release, volumes, steps, kept, mounts, unmount)


def _policies(spec: Spec) -> dict[str, Policy | None]:
    """The policy of each container of which the file says one; None: it is to have none."""
    said = {one.name: spec.harden if one.harden is None else one.harden for one in spec.containers}
    return {name: policy or None for name, policy in said.items() if policy is not None}


def _pruned(state: HostState, spec: Spec, plan: Plan, gone: Iterable[Allocation]) -> Plan:
    """The release of what the file does not name, on the host as ``plan`` leaves it."""
    names = tuple(a.name for a in gone)
    if not names:
        return Plan("apply")
    # The state has the new names already.
    done = replace(plan.ledger, rename=())
    after = as_changed(state, {c.path: c.after for c in plan.changes}, done)
    try:
        return replace(make_release(after, ReleaseRequest(names)), kind="apply")
    except RefusedError as error:
        error.hint = (
            f"release it first: 'usernsplan release NAME --unset-remap'; or add it to {spec.place}"
        )
        raise


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
                _strategy(spec, one.options),
                one.owner,
                one.start,
                one.engines,
                spec.in_files if one.in_files is None else one.in_files,
                one.publish,
                one.passes,
                one.within,
                one.was,
                one.adopt,
                one.map,
                one.pass_privileged,
                one.local,
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
        publish=spec.publish,
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
        come.records,
        gone.changes,
        gone.ledger,
        gone.records,
        desired.volumes,
        desired.mounts,
        desired.unmount,
    )
    import hashlib  # noqa: PLC0415 - slow, and only for --check

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


def _given(
    state: HostState, spec: Spec, allocations: dict[str, Allocation]
) -> tuple[tuple[Volume, ...], tuple[ToMount, ...], tuple[VolumeMount, ...]]:
    """The volumes that differ from the file, the mounts that do, and those that it does not name.

    Raises InvalidFileError for a volume of two containers, unless it is mounted for both, for two
    mounts at one place, and for a user that the map of its container lacks.
    """
    wanted = [(one, volume) for one in spec.containers for volume in one.volumes]
    _refuse_nested(state, spec)
    volumes = [v for _, v in wanted]
    _refuse_twice(spec, volumes)
    _refuse_hiding(spec, volumes)

    for one, volume in wanted:
        mapping = allocations[one.name].mapping
        uid, _, gid = volume.user.partition(":")
        if volume.user and None in {mapping.uids.to_host(int(uid)), mapping.gids.to_host(int(gid))}:
            fact = f"{volume.path}: the map of '{one.name}' has no user {volume.user}"
            raise InvalidFileError(f"{spec.place}:{volume.line}", fact)

    # If the container is new here, the ledger's note is about an earlier container of that name.
    noted = [Volume(v.path, one.name, v.mode, user=v.user) for one, v in wanted]
    doubted = doubts(state.ledger, state.volumes, state.layout)
    differ = {v.path for v in not_noted(state.ledger, noted, doubted)}
    by_mount = {v.path for v in volumes if v.method in {"idmap", "auto"}}
    to_mount = (
        asked
        for one, v in wanted
        if (asked := wanted_mounts.of_volume(one.name, v))
        and (v.method == "idmap" or v.path in differ)
    )
    maps = {name: a.mapping for name, a in allocations.items()}
    wrong = mount_doubts.doubts(state.ledger, state.mounts, state.layout)
    mounts, others = wanted_mounts.compare(state.ledger, to_mount, maps, wrong)
    fix = tuple(v for v in noted if v.path in differ - by_mount)
    return fix, mounts, others


def _refuse_twice(spec: Spec, volumes: Iterable[SpecVolume]) -> None:
    """Raise InvalidFileError for one mount point of two, and for a volume that is not only mounted."""
    paths: dict[str, SpecVolume] = {}
    points: dict[str, SpecVolume] = {}
    for one in volumes:
        there = points.setdefault(one.at, one) if one.at else one
        same = paths.setdefault(one.path, one)
        both_mounts = one.method == same.method == "idmap"
        for what, first in (
            (f"the mount point {one.at}", there),
            (f"the volume {one.path}", one if both_mounts else same),
        ):
            if first is not one:
                fact = f"{what} appears a second time; the first is in line {first.line}"
                raise InvalidFileError(f"{spec.place}:{one.line}", fact)


def _refuse_hiding(spec: Spec, volumes: Sequence[SpecVolume]) -> None:
    """Raise InvalidFileError for a mount that hides a volume, or a part of one."""
    paths = {v.path for v in volumes}
    above = {folder: v.path for v in volumes for folder in _around(v.path)}
    for one in (v for v in volumes if v.at):
        hidden = next((folder for folder in _around(one.at) if folder in paths), above.get(one.at))
        if hidden:
            fact = f"the mount point {one.at} would hide the volume {hidden}, or a part of it"
            hint = "choose a mount point outside of all volumes"
            raise InvalidFileError(f"{spec.place}:{one.line}", fact, hint=hint)


def _around(path: str) -> Iterator[str]:
    """A path, and all folders above it."""
    parts = path.strip("/").split("/")
    return ("/" + "/".join(parts[:stop]) for stop in range(len(parts), -1, -1))


def _refuse_nested(state: HostState, spec: Spec) -> None:
    """Raise InvalidFileError for a volume inside another: the later fix takes the inner files.

    Two that are mounted may be so: no file changes. If only the ledger has one of the two and both
    belong to one container, nothing is wrong: the file names one instead of the other.
    """
    known = {path: (v.name, 0, False) for path, v in given(state.ledger).items()}
    known |= {
        volume.path: (one.name, volume.line, volume.method == "idmap")
        for one in spec.containers
        for volume in one.volumes
    }
    for path, (name, line, is_mount) in known.items():
        for outer in (folder for folder in _around(path) if folder != path and folder in known):
            other, other_line, other_is_mount = known[outer]
            if is_mount and other_is_mount:
                continue
            if (line and other_line) or ((line or other_line) and name != other):
                fact = (
                    f"the volume {path} of '{name}' is inside {outer}, which belongs to '{other}'"
                )
                hint = "one container has a volume and everything in it; move one of the two"
                raise InvalidFileError(f"{spec.place}:{max(line, other_line)}", fact, hint=hint)


def _new_steps(plan: Plan, adopted: Collection[str]) -> Iterator[DiffLine]:
    """What is allocated, or adopted."""
    for allocation in plan.ledger.add:
        owners = ", and ".join((allocation.owner, *allocation.extra_owners))
        alone = f"within {allocation.within}" if allocation.within else "without lines"
        owner = f"owner {owners}" if has_lines(allocation) else alone
        is_back = allocation.name in {name for name, _ in plan.ledger.unkeep}
        again = ", as before its release" if is_back else ""
        text = f"{_ids(allocation)}, {owner}{again}"
        if allocation.name in adopted:
            text = f"{text}: adopted as it stands"
        yield DiffLine("+", _kind(allocation), allocation.name, text)


def _steps(state: HostState, plan: Plan, adopted: Collection[str] = ()) -> Iterator[DiffLine]:
    known = {a.name: a for a in state.ledger.allocations}
    yield from _new_steps(plan, adopted)
    for command in plan.account_commands:
        yield DiffLine("+", "account", command[-1], command[0])
    for reservation in plan.ledger.reserve:
        is_new = reservation.ids not in {r.ids for r in state.ledger.reservations}
        yield DiffLine("+" if is_new else "~", "reservation", str(reservation.ids), reservation.why)
    for name in plan.restored:
        yield DiffLine("~", _kind(known[name]), name, "its lines are restored")
    yield from _publish_steps(state, plan)
    for name, owner in plan.ledger.extra_owners:
        yield DiffLine("~", _kind(known[name]), name, f"also granted to {owner}")
    yield from _split(plan, known)
    yield from _policy_steps(plan, known)
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


def _split(plan: Plan, known: Mapping[str, Allocation]) -> Iterator[DiffLine]:
    """The allocations whose large lines of root become smaller ones."""
    also = {name for name, _ in plan.ledger.extra_owners}
    for one in plan.ledger.update:
        if one.name not in also and one.split_owners != known[one.name].split_owners:
            yield DiffLine("~", _kind(one), one.name, "root's line is split into smaller ones")


def _policy_steps(plan: Plan, known: Mapping[str, Allocation]) -> Iterator[DiffLine]:
    """What changes in what containers may do."""
    for one in (*plan.ledger.add, *plan.ledger.update):
        was = known[one.name].policy if one.name in known else None
        if one.policy != was:
            words = shell(*flags(one.policy)) if one.policy else "none"
            yield DiffLine("~", _kind(one), one.name, f"policy: {words}")


def _publish_steps(state: HostState, plan: Plan) -> Iterator[DiffLine]:
    """What changes for allocations that exist: where they are published, and lost records."""
    known = {a.name: a for a in state.ledger.allocations}
    for one in plan.ledger.update:
        if one.published != known[one.name].published:
            yield DiffLine("~", _kind(one), one.name, f"published: {one.published}")
    had = {*records_of(known.values())}
    for change in plan.records:
        if change.sign == "+" and change.record in had:
            yield DiffLine("~", "account", change.record.name, "its record is restored")


def _volume_steps(state: HostState, volumes: Iterable[Volume]) -> Iterator[DiffLine]:
    doubted = doubts(state.ledger, state.volumes, state.layout)
    for volume in volumes:
        user = f" {volume.user}" if volume.user else ""
        why = f": {doubted[volume.path].fact}" if volume.path in doubted else ""
        text = f"fix for {volume.name} ({volume.mode}{user}){why}"
        yield DiffLine("~", "volume", volume.path, text)


def _mount_steps(mounts: Iterable[ToMount]) -> Iterator[DiffLine]:
    """What is mounted. With the method auto only the run knows whether it is."""
    for wanted, at, why, instead in mounts:
        user = f" {wanted.user}" if wanted.user else ""
        because = f": {why}" if why else ""
        how = f"{wanted.name} ({wanted.mode}{user})"
        if wanted.method == "auto":
            text = f"fix for {how}, with a mount where one is possible{because}"
            yield DiffLine("~", "volume", wanted.source, text)
            continue
        extra = {
            "read-only": wanted.read_only,
            "returns at boot": wanted.persist,
            f"protected by {wanted.protect}": bool(wanted.protect),
            "with the mounts in it": wanted.crosses,
        }
        more = "".join(f", {word}" for word, is_asked in extra.items() if is_asked)
        sign: Literal["+", "~"] = "~" if why or instead else "+"
        yield DiffLine(sign, "mount", at, f"{wanted.source} for {how}{more}{because}")


def _unmount_steps(mounts: Iterable[VolumeMount]) -> Iterator[DiffLine]:
    for mount in mounts:
        text = f"{mount.source} for {mount.name}: unmounted"
        yield DiffLine("-", "mount", mount.at, text)


def _kind(allocation: Allocation) -> Literal["container", "pool"]:
    return "pool" if engine_of_pool(allocation) else "container"


def _ids(allocation: Allocation) -> str:
    if allocation.passes and allocation.reserved_range:
        held = allocation.reserved_range
        containers = IdRange(0, held.count)
        return f"{containers} -> {held}, passes {passes.shown(allocation.passes)}"
    return ", ".join(f"{e.container_range} -> {e.host_range}" for e in allocation.mapping.uids)
