"""The commands of the ledger itself."""

from __future__ import annotations

from typing import Annotated

import typer

from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Json, Root, agreed, note, typed
from usernsplan.cli.usage import Command, Group
from usernsplan.errors import ExitStatus, InvalidValueError
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger

ledger = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None)


@ledger.callback()
def _ledger() -> None:
    """Mend the ledger, which says who has which ids.

    Example: usernsplan ledger rebuild --dry-run
    """


@ledger.command("rebuild", cls=Command)
def rebuild(
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    yes: Annotated[bool, typer.Option("--yes", help="Write it, and do not ask.")] = False,
) -> None:
    """Rebuild a lost or damaged ledger from what the host holds.

    It is read from lines in subuid and subgid and from journals of fix-volume. What it would hold
    is shown first, and what cannot be known is named and left out: nothing is guessed. The damaged
    ledger is kept beside the new one. Where the ledger can be read, nothing is done (exit status
    9).

    \b
    Examples:
      usernsplan ledger rebuild --dry-run
      usernsplan ledger rebuild --yes
    """
    from usernsplan import apply  # noqa: PLC0415 - only here
    from usernsplan.planner.rebuild import make_rebuilt  # noqa: PLC0415
    from usernsplan.report import rebuilt as report  # noqa: PLC0415
    from usernsplan.volume.given import given  # noqa: PLC0415

    layout = layout_at(root, exists=True)
    store = open_ledger(layout)
    found, left = given(layout)
    shown, _ = apply.rebuild(
        layout, store, lambda state: make_rebuilt(state, found, left), really=False
    )
    if json and not (dry_run or yes):
        raise InvalidValueError(
            "--json shows nothing that could be asked about", hint="say --dry-run or --yes"
        )
    if dry_run or not json:
        emit(report.result(shown, None, dry_run=dry_run), as_json=json)
    if dry_run:
        return
    if not yes and not agreed("Write this ledger?"):
        raise typer.Exit(ExitStatus.FAILED)
    done, kept = apply.rebuild(
        layout,
        store,
        lambda state: make_rebuilt(state, found, left),
        typed(),
        expected=shown,
        really=True,
    )
    if json:
        emit(report.result(done, kept, dry_run=False), as_json=True)
    else:
        note(["the ledger is written", *([f"the damaged one is kept: {kept}"] if kept else [])])
