"""The commands plan, apply and export: a file says what a host should have."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Optional

import typer

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
from usernsplan.errors import ExitStatus, InvalidValueError, UsernsplanError
from usernsplan.escape import shell
from usernsplan.host.config import load as load_config
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.report import desired as report
from usernsplan.report.colour import Paint

File = Annotated[
    str,
    typer.Argument(
        metavar="[FILE]",
        help="The plan file. Default: ./usernsplan.yaml, else /etc/usernsplan.yaml.",
    ),
]
Prune = Annotated[bool, typer.Option("--prune", help="Release what the file does not name.")]


def plan(
    file: File = "",
    check: Annotated[bool, typer.Option("--check", help="Exit 4 if something is pending.")] = False,
    out: Annotated[
        Optional[str], typer.Option(metavar="F", help="Save it for 'usernsplan apply --plan F'.")
    ] = None,
    prune: Prune = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of plan files, for editors.")
    ] = False,
    config: ConfigFile = None,
    root: Root = "/",
    json: Json = False,
) -> None:
    """Show what a plan file would change.

    Shows what comes (+), changes (~) and goes (-). Nothing is written. Ranges that were given are
    never renumbered, and what the file does not name is kept.

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
    ledger = open_ledger(layout)
    loaded = planfile.load(layout, file or None, load_config(layout, config), prune=prune)
    desired = planfile.preview(layout, ledger, loaded)
    if out is not None:
        planfile.save(layout, out, loaded, desired)
    new = new_root(layout) if desired.allocate.changed else []
    note(new if json else ())
    emit(report.planned(desired, loaded.spec.place, layout, new, Paint(colours())), as_json=json)
    if out is not None:
        note([f"saved: {layout.command(f'apply --plan {shell(out)}')} does exactly this"])
    if check and desired.pending:
        raise typer.Exit(ExitStatus.CHANGES_PENDING)


def apply(
    file: File = "",
    saved: Annotated[
        Optional[str], typer.Option("--plan", metavar="F", help="Do exactly what was saved there.")
    ] = None,
    prune: Prune = False,
    fix_volumes: Annotated[
        bool, typer.Option("--fix-volumes", help="Run fix-volume for each volume that needs it.")
    ] = False,
    config: ConfigFile = None,
    root: Root = "/",
    json: Json = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make this host what a plan file says, after asking.

    What is done is what was shown: if the host has changed since, it is not (exit 6), and is to be looked at again.

    \b
    Examples:
      usernsplan apply --yes --fix-volumes
      usernsplan apply --plan tonight.plan --yes
    """
    if saved is not None and (file or prune):
        raise InvalidValueError("--plan with FILE or --prune", hint="what was saved says both")
    layout = layout_at(root)
    ledger = open_ledger(layout)
    defaults = load_config(layout, config)
    loaded = (
        planfile.load(layout, file or None, defaults, prune=prune)
        if saved is None
        else planfile.restore(layout, saved, defaults)
    )
    shown = planfile.preview(layout, ledger, loaded)
    place, command = loaded.spec.place, typed()
    new = new_root(layout) if shown.allocate.changed else []
    note(new if json else ())
    if not json:
        emit(report.planned(shown, place, layout, new, Paint(colours())), as_json=False)
    is_work = shown.allocate.changed or shown.prune.changed or bool(fix_volumes and shown.volumes)
    if is_work and not yes:
        if json:
            raise InvalidValueError(
                "--json shows nothing that could be asked about", hint="say --yes"
            )
        if not agreed("Apply this?"):
            raise typer.Exit(ExitStatus.FAILED)
    come, gone = planfile.carry_out(layout, ledger, loaded, shown, command)
    with watching() as watch:
        fixed = planfile.fix_volumes(layout, ledger, shown, command, watch) if fix_volumes else ()
    done = replace(shown, allocate=come, prune=gone)
    # The text of what was foreseen stands above; a run that was mended, say, was not foreseen.
    foreseen = (*shown.allocate.findings, *shown.prune.findings)
    result = report.applied(done, place, layout, fixed, foreseen, changed=is_work)
    if json or is_work:
        emit(result, as_json=json)
    else:
        warn(result.findings)
    failed = any(isinstance(one, UsernsplanError) or one.failed for _, one in fixed)
    if failed or come.unfinished:
        raise typer.Exit(ExitStatus.DONE_IN_PART)


def export(root: Root = "/", json: Json = False) -> None:
    """Print the plan file of this host as it is.

    Planning by it changes nothing.

    Example: usernsplan export > usernsplan.yaml
    """
    layout = layout_at(root, exists=True)
    spec, notes = planfile.exported(layout, open_ledger(layout))
    emit(report.exported(spec, notes), as_json=json)
