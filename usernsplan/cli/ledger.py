"""The commands of the ledger itself."""

from __future__ import annotations

from typing import Annotated

import typer

from usernsplan.cli.options import DryRun, Json, Root, agreed, note, typed, write_result
from usernsplan.cli.usage import Command, Group
from usernsplan.errors import InvalidValueError
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger

_REFUSED = 1

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
    if not json:
        write_result(report.text(shown))
    elif not (dry_run or yes):
        raise InvalidValueError(
            "--json shows nothing that could be asked about", hint="say --dry-run or --yes"
        )
    if dry_run:
        if json:
            write_result(report.document(shown, None, done=False))
        else:
            note(["nothing was written: this is what would be"])
        return
    if not yes and not agreed("Write this ledger?"):
        raise typer.Exit(_REFUSED)
    done, kept = apply.rebuild(
        layout,
        store,
        lambda state: make_rebuilt(state, found, left),
        typed(),
        expected=shown,
        really=True,
    )
    if json:
        write_result(report.document(done, kept, done=True))
    else:
        note(["the ledger is written", *([f"the damaged one is kept: {kept}"] if kept else [])])
