"""The commands plan, apply and export, which work with a plan file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Optional

from usernsplan import planfile
from usernsplan.cli.emit import colours, emit, write
from usernsplan.cli.options import (
    ConfigFile,
    Json,
    Root,
    agreed,
    new_root,
    note,
    typed,
    warn,
)
from usernsplan.cli.progress import watching
from usernsplan.cli.words import Argument, Option
from usernsplan.errors import ExitStatus, InvalidValueError
from usernsplan.escape import shell
from usernsplan.host.config import load as load_config
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.report import desired as report
from usernsplan.report.colour import Paint
from usernsplan.report.json_ import besides
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.layout import Layout
    from usernsplan.model import Asked
    from usernsplan.planfile import PlanFile

File = Annotated[
    str,
    Argument(
        metavar="[FILE]",
        help="Plan file. Default: ./usernsplan.yaml, else /etc/usernsplan.yaml.",
    ),
]
Prune = Annotated[
    bool, Option("--prune", help="Release names, and unmount volumes, that the file lacks.")
]


def plan(
    file: File = "",
    check: Annotated[bool, Option("--check", help="Exit 4 if something would change.")] = False,
    out: Annotated[
        Optional[str],
        Option(metavar="F", help="Save the plan for 'usernsplan apply --plan F'."),
    ] = None,
    prune: Prune = False,
    schema: Annotated[
        bool, Option("--schema", help="Print the JSON Schema of plan files.")
    ] = False,
    config: ConfigFile = None,
    root: Root = "/",
    json: Json = False,
) -> None:
    """Show what a plan file would change.

    Lists additions (+), changes (~) and removals (-). Writes nothing. Allocated ranges never move.
    Names that the file lacks stay; --prune releases them.

    \b
    Examples:
      usernsplan plan
      usernsplan plan hosts/web1.yaml --check
      usernsplan plan --out tonight.plan; usernsplan apply --plan tonight.plan
    """
    if schema:
        from usernsplan.formats.spec_writer import schema as text  # noqa: PLC0415 - only here

        write(text())
        return

    layout = layout_at(root)
    loaded = planfile.load(layout, file or None, load_config(layout, config), prune=prune)
    ledger = open_ledger(layout, asked=planfile.names(loaded))
    desired = planfile.preview(layout, ledger, loaded)
    if out is not None:
        planfile.save(layout, out, loaded, desired)

    new = new_root(layout) if desired.allocate.changed else []
    note(new if json else ())
    others = _others(layout, loaded, really=False)
    with besides(**_asked(others)):
        emit(
            report.planned(desired, loaded.spec.place, layout, new, Paint(colours())), as_json=json
        )
    _tell(others, as_json=json, done=False)
    if out is not None:
        note([f"saved; apply exactly this with: {layout.command(f'apply --plan {shell(out)}')}"])
    if check and (desired.pending or any(one.changed for one in others)):
        sys.exit(ExitStatus.CHANGES_PENDING)


def apply(
    file: File = "",
    saved: Annotated[
        Optional[str],
        Option("--plan", metavar="F", help="Apply the plan that 'usernsplan plan --out F' saved."),
    ] = None,
    prune: Prune = False,
    fix_volumes: Annotated[
        bool, Option("--fix-volumes", help="Also fix or mount each volume that needs it.")
    ] = False,
    config: ConfigFile = None,
    root: Root = "/",
    json: Json = False,
    yes: Annotated[bool, Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Apply a plan file to this host, after asking.

    The command does exactly what it showed. If the host changed since, it does nothing (exit 6); run
    it again. It asks the other hosts that the file names (hosts) for their part: each does it at its
    next 'usernsplan sync'. Without --prune and --fix-volumes, it only allocates ids.

    \b
    Examples:
      usernsplan apply --yes --fix-volumes
      usernsplan apply --plan tonight.plan --yes
    """
    if saved is not None and (file or prune):
        raise InvalidValueError(
            "--plan does not go with FILE or --prune",
            hint="leave them out: the saved plan has both",
        )

    layout = layout_at(root)
    defaults = load_config(layout, config)
    loaded = (
        planfile.load(layout, file or None, defaults, prune=prune)
        if saved is None
        else planfile.restore(layout, saved, defaults)
    )
    ledger = open_ledger(layout, asked=planfile.names(loaded))
    shown = planfile.preview(layout, ledger, loaded)
    place, command = loaded.spec.place, typed()
    new = new_root(layout) if shown.allocate.changed else []
    note(new if json else ())
    others = _others(layout, loaded, really=False)
    if not json:
        emit(report.planned(shown, place, layout, new, Paint(colours())), as_json=False)
        _tell(others, as_json=False, done=False)

    is_here = shown.allocate.changed or shown.pruning or bool(fix_volumes and shown.to_fix)
    is_work = is_here or any(one.changed for one in others)
    if is_work and not yes:
        if json:
            raise InvalidValueError("--json cannot prompt", hint="use --yes")
        if not agreed("Apply this?"):
            sys.exit(ExitStatus.FAILED)

    with watching() as watch:
        come, away, gone = planfile.carry_out(layout, ledger, loaded, shown, command, watch=watch)
        given = planfile.fix_volumes(layout, ledger, shown, command, watch) if fix_volumes else ()
    # After this host's part, so that a name of both is known by then.
    others = _others(layout, loaded, really=True)

    fixed = (*away, *given)
    done = replace(shown, allocate=come, prune=gone)
    # The preview printed these findings already. Others may be new, such as a finished run.
    foreseen = (*shown.allocate.findings, *shown.prune.findings)
    result = report.applied(done, place, layout, fixed, foreseen, changed=is_work)
    if json or is_here:
        with besides(**_asked(others)):
            emit(result, as_json=json)
    else:
        warn(result.findings)
    _tell(others, as_json=json, done=True)
    if any(one.failed for one in fixed) or come.unfinished:
        sys.exit(ExitStatus.DONE_IN_PART)


def _others(layout: Layout, plan: PlanFile, *, really: bool) -> list[Asked]:
    """Ask the other hosts that the file names."""
    if not plan.elsewhere:
        return []
    from usernsplan import asking  # noqa: PLC0415 - only in a fleet

    return asking.of_plan(layout, plan, really=really)


def _asked(others: Sequence[Asked]) -> dict[str, list[dict[str, str]]]:
    """The field of a document about other hosts; none for a file that names none."""
    new = [{"host": host, "name": name} for one in others for host, name in one.new]
    return {"asked": new} if others else {}


def _tell(others: Sequence[Asked], *, as_json: bool, done: bool) -> None:
    """Say what other hosts are asked; a document has it as the field asked."""
    if others and not as_json:
        from usernsplan.report import asked  # noqa: PLC0415 - only in a fleet

        note(text for one in others for text in asked.lines(one, done=done))


def export(root: Root = "/", json: Json = False) -> None:
    """Print a plan file that describes this host.

    Contains every allocation and recorded volume. 'usernsplan plan' with this file shows no
    changes.

    Example: usernsplan export > usernsplan.yaml
    """
    layout = layout_at(root, exists=True)
    spec, notes = planfile.exported(layout, open_ledger(layout))
    emit(report.exported(spec, notes), as_json=json)
