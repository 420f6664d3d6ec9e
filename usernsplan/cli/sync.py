"""The command sync."""

from __future__ import annotations

import sys
from typing import Annotated

from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Json, Root, typed
from usernsplan.cli.words import Option
from usernsplan.errors import ExitStatus
from usernsplan.host.files import layout_at


def sync(
    root: Root = "/",
    check: Annotated[
        bool, Option("--check", help="Write nothing; exit 4 if something would change.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Make this host what the ledger of its fleet says of it.

    It does what operators ask of this host, completes an interrupted command, and restores lines and
    records that are missing. This host applies its own rules to all of that: what it refuses is
    reported here and in the ledger (exit 3), and tried again the next time.

    \b
    Examples:
      usernsplan sync
      usernsplan sync --check        (exit 4 if something would change)
    """
    from usernsplan import syncing  # noqa: PLC0415 - needs psycopg
    from usernsplan.report import synced as report  # noqa: PLC0415

    layout = layout_at(root, exists=True)
    preview = dry_run or check
    found = syncing.sync(layout, typed(), really=not preview)
    emit(report.result(found, layout, dry_run=preview), as_json=json)
    if check and found.changed:
        sys.exit(ExitStatus.CHANGES_PENDING)
    if found.refused:
        sys.exit(ExitStatus.DONE_IN_PART)
