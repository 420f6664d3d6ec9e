"""Find, read, save and carry out plan files. planner.desired decides what they mean."""

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
    """A plan file: its text and its values.

    ``prune`` releases what it does not name. ``seen`` is the fingerprint of the plan that was shown;
    None unless it comes from a saved plan.
    """

    text: str
    spec: Spec
    prune: bool = False
    seen: str | None = None


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
        desired = make_desired(state, plan.spec, replace_remap=replace_remap)
        later = (state.layout.command("apply --fix-volumes"),) if desired.volumes else ()
        made = desired.allocate
        return replace(made, kind="allocate", next_steps=(*made.next_steps, *later))

    return decide


def preview(layout: Layout, ledger: Ledger, plan: PlanFile) -> PlanDiff:
    """What the plan file changes now. Raises HostChangedError if a saved plan showed something else."""
    desired, notes = apply.foreseen(
        layout, ledger, lambda state: make_desired(state, plan.spec, prune=plan.prune)
    )
    if plan.seen and plan.seen != fingerprint(desired):
        raise changed()
    return replace(
        desired, allocate=replace(desired.allocate, findings=(*notes, *desired.allocate.findings))
    )


def carry_out(
    layout: Layout, ledger: Ledger, plan: PlanFile, shown: PlanDiff, command: str
) -> tuple[Plan, Plan]:
    """Do exactly what was shown, except volumes: first allocate, then release.

    Raises HostChangedError if the host has changed since then, and what apply.carry_out raises.
    """

    def of(part: Callable[[PlanDiff], Plan]) -> Callable[[HostState], Plan]:
        return lambda state: part(make_desired(state, plan.spec, prune=plan.prune))

    # The user has agreed to what was shown, including its consequences.
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
                "the host changed in between: the allocations are done, but nothing was released"
            ) from error
        raise


def exported(layout: Layout, ledger: Ledger) -> tuple[Spec, tuple[str, ...]]:
    """The plan file of the host as it is, and notes on it."""
    state = read.state(layout, ledger.state)
    notes = []
    if not state.ledger.allocations:
        notes.append("nothing is allocated here, so the strategy is only a proposal")
    names = {a.name for a in state.ledger.allocations}
    notes += [
        f"the volume {v.path!r} is left out: {why}; run fix-volume on it again, or add it by hand"
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
    """Run fix-volume for each volume that is not as the file wants it.

    An error of one volume does not stop the others.
    """
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
