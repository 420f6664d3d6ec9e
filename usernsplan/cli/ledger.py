"""The command ledger rebuild."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Json, Root, agreed, note, typed
from usernsplan.cli.words import Option
from usernsplan.errors import ExitStatus, InvalidValueError
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger


def ledger() -> None:
    """Repair the ledger, which records who has which ids.

    Example: usernsplan ledger rebuild --dry-run
    """


def rebuild(
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    yes: Annotated[bool, Option("--yes", help="Write it without asking.")] = False,
) -> None:
    """Rebuild a lost or damaged ledger from the host.

    Reads the lines in subuid and subgid and the journals of fix-volume. Shows the new ledger, then
    asks. Leaves out what it cannot know, and lists it; it never guesses. Keeps the damaged ledger
    beside the new one. Refuses if the ledger can be read (exit 9).

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
    make = partial(make_rebuilt, given=found, unread=left)
    shown, _ = apply.rebuild(layout, store, make, really=False)
    if json and not (dry_run or yes):
        raise InvalidValueError("--json cannot prompt", hint="use --dry-run or --yes")
    if dry_run or not json:
        emit(report.result(shown, layout, None, dry_run=dry_run), as_json=json)
    if dry_run:
        return
    if not yes and not agreed("Write this ledger?"):
        sys.exit(ExitStatus.FAILED)

    done, kept = apply.rebuild(layout, store, make, typed(), expected=shown, really=True)
    if json:
        emit(report.result(done, layout, kept, dry_run=False), as_json=True)
    else:
        note(["wrote the ledger", *([f"the damaged ledger is now {kept}"] if kept else [])])


ledger.commands = {"rebuild": rebuild}  # type: ignore[attr-defined]
