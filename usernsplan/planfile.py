"""Plan files at work: found, read, shown, saved and carried out. What they mean is decided in planner.desired."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
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
from usernsplan.formats import spec as formats
from usernsplan.formats.yaml_nodes import LONGEST
from usernsplan.host import config as host_config
from usernsplan.host import files, output, plan_file, read
from usernsplan.layout import PLAN_FILE, STDIN
from usernsplan.model import INTERRUPTED, FixRequest
from usernsplan.planner.defaults import of_spec
from usernsplan.planner.desired import fingerprint, make_desired
from usernsplan.planner.exported import exported as make_exported
from usernsplan.planner.exported import why_left_out
from usernsplan.planner.shown import changed, exactly
from usernsplan.planner.volumes import has_moved
from usernsplan.volume import fix_volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.formats.config import Config
    from usernsplan.formats.spec import Spec
    from usernsplan.host.plan_file import FoundFile
    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import FixReport, HostState, LedgerState, Plan, Volume
    from usernsplan.planner.desired import PlanDiff
    from usernsplan.volume.job import Watch

_SAVED = "saved-plan"


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan file that was read: its text, what it says, and whether what it does not name is to go.

    ``seen`` is the fingerprint of what was shown, where that was saved.
    """

    text: str
    spec: Spec
    prune: bool = False
    seen: str | None = None


def load(
    layout: Layout, path: str | None, config: Config | None, *, prune: bool = False
) -> PlanFile:
    """Read a plan file: this one ("-": standard input), or the one that is meant where none is named.

    What it leaves open, ``config`` says, the defaults of the host.
    """
    if path is None and (found := plan_file.find(layout)):
        return _parsed(layout, found.raw, found.path, config, prune=prune)
    if path is None:
        begin = in_words(f"{layout.command('export')} > {plan_file.HERE}")
        raise InvalidValueError(
            f"no plan file: neither ./{plan_file.HERE} nor {layout.path(PLAN_FILE)}",
            hint=f"name one, or begin with {begin}",
        )
    return _parsed(
        layout, plan_file.named(path, LONGEST), STDIN if path == "-" else path, config, prune=prune
    )


def found(layout: Layout, one: FoundFile, config: Config | None) -> PlanFile:
    """Read the plan file that was found where none was named."""
    return _parsed(layout, one.raw, one.path, config, prune=False)


def save(layout: Layout, path: str, plan: PlanFile, desired: PlanDiff) -> None:
    """Write down what was shown, for ``restore``. An existing file is replaced, whole."""
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
    """Read what ``save`` wrote. Raises InvalidFileError for anything else, InvalidValueError for another root's."""
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
            hint=f"say --root {shell(str(root))}",
        )
    return replace(_parsed(layout, raw, str(place), config, prune=prune is True), seen=seen)


def allocating(plan: PlanFile, *, replace_remap: bool) -> Callable[[HostState], Plan]:
    """The decision of an ``allocate`` without a name: what the file names comes, nothing goes."""

    def decide(state: HostState) -> Plan:
        desired = make_desired(state, plan.spec, replace_remap=replace_remap)
        later = (state.layout.command("apply --fix-volumes"),) if desired.volumes else ()
        made = desired.allocate
        return replace(made, kind="allocate", next_steps=(*made.next_steps, *later))

    return decide


def preview(layout: Layout, ledger: Ledger, plan: PlanFile) -> PlanDiff:
    """What the file comes to now. Raises HostChangedError where something else was shown when it was saved."""
    with apply.foreseen(layout, ledger) as (state, notes):
        desired = make_desired(state, plan.spec, prune=plan.prune)
    if plan.seen and plan.seen != fingerprint(desired):
        raise changed()
    return replace(
        desired, allocate=replace(desired.allocate, findings=(*notes, *desired.allocate.findings))
    )


def carry_out(
    layout: Layout, ledger: Ledger, plan: PlanFile, shown: PlanDiff, command: str
) -> tuple[Plan, Plan]:
    """Do exactly what was shown, but for volumes: first what comes, then what goes.

    Raises HostChangedError where the host holds something else by now, and what apply.carry_out raises.
    """

    def of(part: Callable[[PlanDiff], Plan]) -> Callable[[HostState], Plan]:
        return lambda state: part(make_desired(state, plan.spec, prune=plan.prune))

    # What was shown has been agreed to, consequences and all.
    come = apply.carry_out(
        layout, ledger, exactly(shown.allocate, of(attrgetter("allocate"))), command, agreed=True
    )
    try:
        return come, apply.carry_out(
            layout, ledger, exactly(shown.prune, of(attrgetter("prune"))), command
        )
    except HostChangedError as error:
        if come.changed:
            raise HostChangedError(
                "the host changed in between: what comes is done, nothing was released"
            ) from error
        raise


def exported(layout: Layout, ledger: Ledger) -> tuple[Spec, tuple[str, ...]]:
    """The plan file of the host as it is, and what is to be said of it."""
    state = read.state(layout, ledger.state)
    notes = (
        []
        if state.ledger.allocations
        else ["nothing is allocated here: the strategy is only a proposal"]
    )
    names = {a.name for a in state.ledger.allocations}
    notes += [
        f"the volume {v.path!r} is left out: {why}; fix it once more, or write it down by hand"
        for v in state.ledger.volumes
        if v.name in names and (why := why_left_out(v))
    ]
    if state.ledger.interrupted:
        notes.append(INTERRUPTED)
    defaults = host_config.load(layout, None)
    return make_exported(state, defaults.options if defaults else None), tuple(notes)


def fix_volumes(
    layout: Layout, ledger: Ledger, desired: PlanDiff, command: str, watch: Watch
) -> tuple[tuple[Volume, FixReport | UsernsplanError], ...]:
    """Run fix-volume for each volume that is not as the file wants it; one that cannot be fixed keeps none from it."""
    known = ledger.state()

    def fixed(one: Volume) -> FixReport | UsernsplanError:
        try:
            return fix_volume(_request(known, one), layout.root, command=command, watch=watch)
        except StoppedError:
            raise
        except UsernsplanError as error:
            return error
        except OSError as error:
            return of_system(error, "" if error.filename else one.path)

    return tuple((one, fixed(one)) for one in desired.volumes)


def _request(known: LedgerState, one: Volume) -> FixRequest:
    """What to ask of fix-volume for a volume. Raises InvalidValueError for a mode that nobody knows."""
    if one.known_mode is None:
        raise InvalidValueError(
            f"{one.path}: the mode {one.mode!r} is unknown",
            hint="write 'mode: own' or 'mode: shift'",
        )
    source = one.name if one.mode == "shift" and has_moved(known, one) else None
    return FixRequest(
        (one.path,), container=one.name, mode=one.known_mode, user=one.user or None, source=source
    )


def _parsed(
    layout: Layout, raw: bytes, place: str, config: Config | None, *, prune: bool
) -> PlanFile:
    spec = formats.parse(raw, place)
    if config is not None:
        spec = of_spec(spec, config)
    containers = tuple(
        replace(
            one,
            volumes=tuple(replace(v, path=files.name_below(layout, v.path)) for v in one.volumes),
        )
        for one in spec.containers
    )
    return PlanFile(raw.decode("utf-8-sig"), replace(spec, containers=containers), prune)
