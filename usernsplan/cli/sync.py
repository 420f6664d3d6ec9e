"""The command sync."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Json, Root, typed
from usernsplan.cli.words import Option
from usernsplan.errors import ExitStatus, InvalidValueError
from usernsplan.host.files import layout_at

if TYPE_CHECKING:
    from usernsplan.layout import Layout


def sync(
    root: Root = "/",
    check: Annotated[
        bool, Option("--check", help="Write nothing; exit 4 if something would change.")
    ] = False,
    install_timer: Annotated[
        bool, Option("--install-timer", help="Let systemd run it every ten minutes.")
    ] = False,
    remove_timer: Annotated[bool, Option("--remove-timer", help="Remove that timer.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Make this host what the ledger of its fleet says of it.

    It does what operators ask of this host, completes an interrupted command, and restores lines and
    records that are missing. This host applies its own rules to all of that: what it refuses is
    reported here and in the ledger (exit 3), and tried again the next time. What people have to mend
    is reported as 'usernsplan check' does.

    --install-timer refuses if others than root can change the program that would run.

    \b
    Examples:
      usernsplan sync
      usernsplan sync --check        (exit 4 if something would change)
      usernsplan sync --install-timer
    """
    layout = layout_at(root, exists=True)
    preview = dry_run or check
    if install_timer or remove_timer:
        if install_timer and remove_timer:
            raise InvalidValueError(
                "--install-timer does not go with --remove-timer", hint="leave out one of them"
            )
        _timer(layout, remove=remove_timer, preview=preview, check=check, json=json)
        return

    from usernsplan import syncing  # noqa: PLC0415 - needs psycopg
    from usernsplan.report import synced as report  # noqa: PLC0415

    found = syncing.sync(layout, typed(), really=not preview)
    emit(report.result(found, dry_run=preview), as_json=json)
    if check and found.changed:
        sys.exit(ExitStatus.CHANGES_PENDING)
    if found.refused:
        sys.exit(ExitStatus.DONE_IN_PART)


def _timer(layout: Layout, *, remove: bool, preview: bool, check: bool, json: bool) -> None:
    from usernsplan import timing  # noqa: PLC0415 - only for the timer
    from usernsplan.report import synced as report  # noqa: PLC0415

    act = timing.remove if remove else timing.install
    done = act(layout, really=not preview)
    emit(report.timer(done, dry_run=preview), as_json=json)
    if check and done.changed:
        sys.exit(ExitStatus.CHANGES_PENDING)
