"""The command remap."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Optional

from usernsplan import remapping
from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Json, Root, Yes, agreed, id_range, typed
from usernsplan.cli.permits import (
    CopyUp,
    CrossMounts,
    DropPower,
    KeepPower,
    OutsideLinks,
    Protected,
    Unmapped,
    permitted,
)
from usernsplan.cli.progress import watching
from usernsplan.cli.words import Argument, Option
from usernsplan.errors import ExitStatus, InvalidValueError
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.model import RemapRequest
from usernsplan.report import remap as report

if TYPE_CHECKING:
    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.remapping import Shown


def remap(
    name: Annotated[str, Argument(metavar="NAME", help="Name that 'usernsplan list' shows.")],
    size: Annotated[Optional[int], Option(help="Ids of the new map. Default: as now.")] = None,
    passes: Annotated[
        Optional[list[str]],
        Option(
            "--pass",
            metavar="P",
            help="Host ids that the new map shows, as in allocate; all of them (repeatable).",
        ),
    ] = None,
    no_pass: Annotated[bool, Option("--no-pass", help="The new map shows no host ids.")] = False,
    start: Annotated[Optional[int], Option(help="First host id; an error if it is taken.")] = None,
    pool: Annotated[
        Optional[str],
        Option(metavar="FIRST-LAST", help="Take the new range from here."),
    ] = None,
    undo: Annotated[
        bool, Option("--undo", help="Return to the map before the last remap.")
    ] = False,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    pass_privileged: Annotated[
        bool,
        Option(
            "--pass-privileged", help="Pass ids that make the container a superuser of the host."
        ),
    ] = False,
    with_lines: Annotated[
        bool,
        Option("--with-lines", help="Also replace adopted lines, which others wrote."),
    ] = False,
    unmapped: Unmapped = "refuse",
    outside_links: OutsideLinks = "refuse",
    cross_mounts: CrossMounts = False,
    drop_power: DropPower = False,
    keep_power: KeepPower = False,
    protected: Protected = False,
    copy_up: CopyUp = False,
    yes: Yes = False,
) -> None:
    """Give an allocation another map, and move its volumes.

    Shows the new map, the lines and each volume's move, then asks. A larger range stays where it is
    if the ids behind it are free; then nothing moves. Otherwise the old range is quarantined, and
    the files in recorded volumes get the new ids. Stop the container first. A slice stays in the
    lines that it is of, which do not change. A mount of a volume stays where it is and shows the new
    ids.

    If it is interrupted, 'usernsplan remap NAME' finishes it. --undo returns to the map before.

    \b
    Examples:
      usernsplan remap web --size 131072
      usernsplan remap web --pass g:104:107 --dry-run
      usernsplan remap alice --size 131072 --with-lines
      usernsplan remap web --undo --yes
    """
    if no_pass and passes:
        raise InvalidValueError(
            "--pass and --no-pass exclude each other", hint="use one of the two"
        )
    request = RemapRequest(
        name,
        size=size,
        start=start,
        pool=id_range(pool),
        passes=() if no_pass else tuple(passes) if passes else None,
        pass_privileged=pass_privileged,
        undo=undo,
        with_lines=with_lines,
    )
    if undo and request != RemapRequest(name, undo=True, with_lines=with_lines):
        raise InvalidValueError(
            "--undo returns to a map that is known, so it takes no option for the map",
            hint="leave those out",
        )

    allowed = permitted(
        unmapped=unmapped,
        outside_links=outside_links,
        cross_mounts=cross_mounts,
        drop_power=drop_power,
        keep_power=keep_power,
        protected=protected,
        copy_up=copy_up,
    )
    layout = layout_at(root, exists=True)
    ledger = open_ledger(layout, asked=(request.name,))
    with watching() as watch:
        shown = remapping.preview(layout, ledger, request, allowed, watch)
    before = report.shown(shown.remap, shown.looked, layout, shown.notes, dry_run=dry_run)
    if dry_run or not shown.remap.pending:
        emit(before, as_json=json)
        return
    if not json:
        emit(before, as_json=False)
    if shown.remap.plan.consequences and not yes:
        if json:
            raise InvalidValueError("--json cannot prompt", hint="use --yes")
        if not agreed("Apply this?"):
            sys.exit(ExitStatus.FAILED)
    _carry_out(layout, ledger, request, shown, as_json=json)


def _carry_out(
    layout: Layout, ledger: Ledger, request: RemapRequest, shown: Shown, *, as_json: bool
) -> None:
    """Do what was shown, and print what came of it."""
    with watching() as watch:
        moved = remapping.carry_out(layout, ledger, request, shown, typed(), yes=True, watch=watch)
    foreseen = (*shown.remap.plan.consequences, *shown.remap.plan.findings)
    emit(report.done(moved.plan, moved.volumes, layout, foreseen, moved.mounts), as_json=as_json)
    if moved.failed or moved.plan.unfinished:
        sys.exit(ExitStatus.DONE_IN_PART)
