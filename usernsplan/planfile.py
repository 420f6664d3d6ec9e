"""Find, read, save and carry out plan files. planner.desired decides what they mean."""

from __future__ import annotations

import json
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from usernsplan import apply
from usernsplan.errors import (
    HostChangedError,
    InvalidFileError,
    InvalidValueError,
    StoppedError,
    UsernsplanError,
    of_system,
)
from usernsplan.escape import in_words, line, shell
from usernsplan.fixing import FixRequest
from usernsplan.formats import spec as formats
from usernsplan.formats.yaml_nodes import LONGEST
from usernsplan.host import config as host_config
from usernsplan.host import files, output, plan_file, read, runs
from usernsplan.layout import PLAN_FILE, STDIN
from usernsplan.model import INTERRUPTED, Plan
from usernsplan.planner.defaults import of_spec
from usernsplan.planner.desired import fingerprint, make_desired
from usernsplan.planner.shown import changed, exactly
from usernsplan.planner.volumes import has_moved
from usernsplan.planner.wanted import refuse_together
from usernsplan.values import NamedTuple, dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from usernsplan.fixing import FixReport
    from usernsplan.formats.config import Config
    from usernsplan.formats.spec import Spec, SpecVolume
    from usernsplan.host.plan_file import FoundFile
    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import HostState, LedgerState, Volume, VolumeMount
    from usernsplan.planner.desired import PlanDiff
    from usernsplan.planner.of_hosts import Elsewhere
    from usernsplan.planner.wanted import ToMount, Wanted
    from usernsplan.volume.job import Watch

_SAVED = "saved-plan"


class Fixed(NamedTuple):
    """What became of one volume: a report or an error."""

    path: str
    result: FixReport | UsernsplanError

    @property
    def failed(self) -> bool:
        """Tell whether something is left to do."""
        return isinstance(self.result, UsernsplanError) or bool(self.result.failed)


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan file: its text and its values, as far as they are for this host.

    ``elsewhere`` is what other hosts of the fleet are asked for. ``prune`` releases what the file does
    not name. ``seen`` is the fingerprint of the plan that was shown; None unless it comes from a saved
    plan.
    """

    text: str
    spec: Spec
    prune: bool = False
    seen: str | None = None
    elsewhere: tuple[Elsewhere, ...] = ()


def load(
    layout: Layout, path: str | None, config: Config | None, *, prune: bool = False
) -> PlanFile:
    """Read the plan file at ``path`` ("-": standard input), or else the default one.

    ``config`` are the defaults of the host for what the file leaves open. Raises InvalidValueError
    if there is no plan file, and InvalidFileError for a wrong one.
    """
    if path is not None:
        raw, place = plan_file.named(path, LONGEST), STDIN if path == "-" else path
    elif one := plan_file.find(layout):
        raw, place = one.raw, one.path
    else:
        begin = in_words(f"{layout.command('export')} > {plan_file.HERE}")
        raise InvalidValueError(
            f"no plan file: neither ./{plan_file.HERE} nor {layout.path(PLAN_FILE)}",
            hint=f"name one, or create one with {begin}",
        )
    return _parsed(layout, raw, place, config, prune=prune)


def found(layout: Layout, one: FoundFile, config: Config | None) -> PlanFile:
    """Read the default plan file, which was found already."""
    return _parsed(layout, one.raw, one.path, config, prune=False)


def names(plan: PlanFile) -> tuple[str, ...]:
    """The names that a plan file is about, former ones included: for open_ledger."""
    return tuple(name for one in plan.spec.containers for name in (one.name, one.was) if name)


def save(layout: Layout, path: str, plan: PlanFile, desired: PlanDiff) -> None:
    """Save the plan that was shown, for ``restore``. An existing file is replaced atomically."""
    content = {
        "format_version": 1,
        "kind": _SAVED,
        "root": layout.real,
        "file": plan.spec.place,
        "prune": plan.prune,
        "steps": [f"{step.sign} {step.kind} {step.name}: {step.text}" for step in desired.steps],
        "fingerprint": fingerprint(desired),
        "text": plan.text,
    }
    output.write(path, json.dumps(content, indent=2).encode() + b"\n")


def restore(layout: Layout, path: str, config: Config | None) -> PlanFile:
    """Read a plan that ``save`` wrote.

    Raises InvalidFileError for any other content, and InvalidValueError for a plan of another root.
    """
    content = plan_file.named(path, LONGEST)
    try:
        found = json.loads(content)
        if found["kind"] != _SAVED or found["format_version"] != 1:
            raise KeyError("kind")
        root, text, place, prune = found["root"], found["text"], found["file"], found["prune"]
        seen, raw = str(found["fingerprint"]), text.encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        again = f"save it again: {layout.command(f'plan --out {shell(path)}')}"
        raise InvalidFileError(
            path, "not a plan that 'usernsplan plan --out' saved", hint=again
        ) from error

    if root != layout.real:
        raise InvalidValueError(
            f"{line(path)} was made for the root {line(str(root))}",
            hint=f"use --root {shell(str(root))}",
        )
    return replace(_parsed(layout, raw, str(place), config, prune=prune is True), seen=seen)


def allocating(plan: PlanFile, *, replace_remap: bool) -> Callable[[HostState], Plan]:
    """The decision of ``allocate`` without a name: it adds what the file names, and removes nothing."""

    def decide(state: HostState) -> Plan:
        desired = _desired(state, plan, replace_remap=replace_remap)
        later = (state.layout.command("apply --fix-volumes"),) if desired.to_fix else ()
        made = desired.allocate
        return replace(made, kind="allocate", next_steps=(*made.next_steps, *later))

    return decide


def preview(layout: Layout, ledger: Ledger, plan: PlanFile) -> PlanDiff:
    """What the plan file changes now. Raises HostChangedError if a saved plan showed something else."""
    desired, notes, unseen = apply.foreseen(layout, ledger, lambda state: _desired(state, plan))
    if plan.seen and plan.seen != fingerprint(desired):
        raise changed()
    apply.refuse_clashes(layout, ledger, desired.allocate.ledger)
    return replace(
        desired,
        allocate=replace(
            desired.allocate, findings=(*notes, *desired.allocate.findings), unseen=unseen
        ),
    )


def carry_out(  # noqa: PLR0913 - what was shown, and how it is told
    layout: Layout,
    ledger: Ledger,
    plan: PlanFile,
    shown: PlanDiff,
    command: str,
    *,
    watch: Watch,
) -> tuple[Plan, tuple[Fixed, ...], Plan]:
    """Do exactly what was shown, except volumes: allocate, take mounts away, release.

    If a mount cannot be taken away, nothing is released. Raises HostChangedError if the host has
    changed since then, and what apply.carry_out raises.
    """

    def of(part: Callable[[PlanDiff], Plan]) -> Callable[[HostState], Plan]:
        return lambda state: part(_desired(state, plan))

    # The user has agreed to what was shown, including its consequences.
    come = apply.carry_out(
        layout, ledger, exactly(shown.allocate, of(attrgetter("allocate"))), command, agreed=True
    )
    if shown.allocate.ledger.rename:
        from usernsplan.volume import lasting  # noqa: PLC0415 - few plans rename

        lasting.rename(layout, (new for _, new in shown.allocate.ledger.rename))
    away = _taken_away(layout, ledger, shown.unmount, command, watch)
    if _standing(ledger, shown.unmount):
        return come, away, Plan("apply")
    try:
        gone = apply.carry_out(
            layout, ledger, exactly(shown.prune, of(attrgetter("prune"))), command
        )
    except HostChangedError as error:
        done = {"the allocations are done": come.changed, "mounts were taken away": bool(away)}
        if told := " and ".join(what for what, is_done in done.items() if is_done):
            raise HostChangedError(
                f"the host changed in between: {told}, but nothing was released"
            ) from error
        raise
    return come, away, gone


def _desired(state: HostState, plan: PlanFile, *, replace_remap: bool = False) -> PlanDiff:
    """What the file changes. Raises RefusedError for a new name while volumes are half-way."""
    desired = make_desired(
        state, plan.spec, prune=plan.prune, replace_remap=replace_remap, look=_look
    )
    for old, _ in desired.allocate.ledger.rename:
        from usernsplan.planner.rename import refuse_unfinished  # noqa: PLC0415 - few plans rename

        refuse_unfinished(state.layout, old, runs.every(state.layout))
    return desired


def _look(state: HostState) -> HostState:
    """The host with the configurations of containers, for what a plan file adopts."""
    return read.with_configs(state)[0]


def exported(layout: Layout, ledger: Ledger) -> tuple[Spec, tuple[str, ...]]:
    """The plan file of the host as it is, and notes on it."""
    from usernsplan.planner import exported as made  # noqa: PLC0415 - only to export

    state = read.previewed(layout, ledger.state)
    notes = []
    if not state.ledger.allocations:
        notes.append("nothing is allocated here, so the strategy is only a proposal")
    names = {a.name for a in state.ledger.allocations}
    notes += [
        f"the volume {v.path!r} is left out: {why}; run fix-volume on it again, or add it by hand"
        for v in state.ledger.volumes
        if v.name in names and (why := made.why_left_out(v))
    ]
    notes += [
        f"the mount {m.at!r} is left out: {why}"
        for m in state.ledger.mounts
        if (why := made.why_mount_left_out(m, state.ledger))
    ]
    if state.ledger.interrupted:
        notes.append(INTERRUPTED)
    defaults = host_config.load(layout, None)
    return made.exported(state, defaults), tuple(notes)


def fix_volumes(
    layout: Layout, ledger: Ledger, desired: PlanDiff, command: str, watch: Watch
) -> tuple[Fixed, ...]:
    """Run fix-volume for each volume that is not as the file wants it.

    Mounts that others replace are taken away before any is made, so that two can change places. One
    stays if what is to replace it at another place is refused. An error of one volume does not stop
    the others.
    """
    half = _undone_half(layout, desired, command, watch)
    known = ledger.state()

    def fixed(path: str, request: Callable[[], FixRequest], *, dry_run: bool = False) -> Fixed:
        from usernsplan.volume.fix import fix_volume  # noqa: PLC0415 - many plans have no volumes

        return _attempted(
            path,
            lambda: fix_volume(
                request(), layout.root, dry_run=dry_run, command=command, watch=watch
            ),
        )

    def mounted(one: ToMount, *, dry_run: bool = False) -> Fixed:
        return fixed(one.wanted.source, partial(_mount_request, one.wanted), dry_run=dry_run)

    # At a place that something leaves, nothing can be tried before; nor while an undo is unfinished.
    left = {mount.at for one in desired.mounts for mount in one.instead}
    is_whole = not (left and runs.look(layout).unfinished)
    moving = [one for one in desired.mounts if one.instead and one.at not in left and is_whole]
    refused = {one.at: tried for one in moving if (tried := mounted(one, dry_run=True)).failed}
    instead = [mount for one in desired.mounts if one.at not in refused for mount in one.instead]
    away = _taken_away(layout, ledger, instead, command, watch)
    stuck = _standing(ledger, instead)
    return (
        *half,
        *away,
        *(fixed(one.path, partial(_request, known, one)) for one in desired.volumes),
        *(
            refused.get(one.at) or mounted(one)
            for one in desired.mounts
            if not stuck.intersection(m.at for m in one.instead)
        ),
    )


def _undone_half(
    layout: Layout, desired: PlanDiff, command: str, watch: Watch
) -> tuple[Fixed, ...]:
    """Finish what an apply that was killed has begun to take away from the volumes to mount."""
    sources = {layout.place(one.wanted.source): one.wanted.source for one in desired.mounts}
    left = runs.look(layout).unfinished if sources else ()
    if not left:
        return ()
    from usernsplan.volume.fix import undo  # noqa: PLC0415 - seldom needed

    return tuple(
        _attempted(sources[path], partial(undo, one.run, layout.root, command=command, watch=watch))
        for one in left
        for path in one.paths
        if one.is_undoing and path in sources
    )


def _attempted(path: str, do: Callable[[], FixReport]) -> Fixed:
    """The report of one run, or its error. Raises StoppedError."""
    try:
        return Fixed(path, do())
    except StoppedError:
        raise
    except UsernsplanError as error:
        return Fixed(path, error)
    except OSError as error:
        return Fixed(path, of_system(error, "" if error.filename else path))


def _taken_away(
    layout: Layout,
    ledger: Ledger,
    mounts: Sequence[VolumeMount],
    command: str,
    watch: Watch,
) -> tuple[Fixed, ...]:
    """Undo the runs that made these mounts, the last one first."""
    recorded = ledger.state().mounts if mounts else ()

    def taken(mount: VolumeMount) -> FixReport:
        from usernsplan.volume.fix import undo  # noqa: PLC0415 - few plans take mounts away

        refuse_together(layout, mount, recorded, mounts)
        return undo(mount.run, layout.root, command=command, watch=watch)

    # One run may have made several of them.
    runs = {m.run or m.at: m for m in mounts}
    last_first = sorted(runs.values(), key=lambda m: m.run, reverse=True)
    return tuple(_attempted(m.source, partial(taken, m)) for m in last_first)


def _standing(ledger: Ledger, mounts: Sequence[VolumeMount]) -> set[str]:
    """The mount points of those that are still recorded."""
    return {m.at for m in ledger.state().mounts}.intersection(m.at for m in mounts)


def _request(known: LedgerState, one: Volume) -> FixRequest:
    """The request that fixes a volume. Raises InvalidValueError for an unknown mode."""
    if one.known_mode is None:
        raise InvalidValueError(
            f"{one.path}: the mode {one.mode!r} is unknown",
            hint="write 'mode: own' or 'mode: shift'",
        )
    source = one.name if one.mode == "shift" and has_moved(known, one) else None
    return FixRequest(
        (one.path,), container=one.name, mode=one.known_mode, user=one.user or None, source=source
    )


def _mount_request(one: Wanted) -> FixRequest:
    return FixRequest(
        (one.source,),
        container=one.name,
        mode=one.mode,
        user=one.user or None,
        cross_mounts=one.crosses,
        method=one.method,
        at=one.at or None,
        persist=one.persist,
        read_only=one.read_only,
        protect=one.protect or None,
    )


def _parsed(
    layout: Layout, raw: bytes, place: str, config: Config | None, *, prune: bool
) -> PlanFile:
    spec = formats.parse(raw, place)
    if config is not None:
        spec = of_spec(spec, config)
    asked: tuple[Elsewhere, ...] = ()
    if spec.hosts:
        from usernsplan.ledger import member  # noqa: PLC0415 - only in a fleet
        from usernsplan.planner import of_hosts  # noqa: PLC0415

        who = member.read(layout)
        asked = tuple(of_hosts.elsewhere(spec, who.host)) if who else ()
        spec = of_hosts.here(spec, who.host if who else None)
    containers = tuple(
        replace(
            one,
            volumes=tuple(_below(layout, v) for v in one.volumes),
        )
        for one in spec.containers
    )
    spec = replace(spec, containers=containers)
    return PlanFile(raw.decode("utf-8-sig"), spec, prune, elsewhere=asked)


def _below(layout: Layout, volume: SpecVolume) -> SpecVolume:
    """A volume by the names that the ledger has for it and its mount point."""
    at = files.name_below(layout, volume.at) if volume.at else ""
    return replace(volume, path=files.name_below(layout, volume.path), at=at)
