"""The command volumes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Optional

from usernsplan.cli.emit import emit
from usernsplan.cli.options import Json, Root, note_interrupted
from usernsplan.cli.recorded import mounts
from usernsplan.cli.words import Argument, Option
from usernsplan.errors import InvalidValueError, UnknownNameError, did_you_mean
from usernsplan.escape import shown_path
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.report import volumes as report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.layout import Layout
    from usernsplan.model import LedgerState


def volumes(
    names: Annotated[
        Optional[list[str]],
        Argument(
            metavar="[NAME|PATH]...",
            help="Only those of these containers, at these paths or mount points.",
        ),
    ] = None,
    restore: Annotated[
        bool,
        Option("--restore", help="Make recorded mounts that are missing, as at boot."),
    ] = False,
    fleet: Annotated[
        bool,
        Option("--fleet", help="Which host works, or worked last, on which volume."),
    ] = False,
    end_lease: Annotated[
        Optional[str],
        Option(
            metavar="HOST/RUN",
            help="Operators: let others have the volumes of a run that its host will never finish.",
        ),
    ] = None,
    root: Root = "/",
    json: Json = False,
    yes: Annotated[bool, Option("--yes", help="--end-lease: do not ask.")] = False,
) -> None:
    """List the volumes of containers, and whether each looks right.

    These are the volumes whose files fix-volume changed, and the idmapped mounts of mount-volume:
    where each is mounted, which ids appear as which, and whether it returns at boot. What is wrong
    is listed with the command that helps. The maps of mounts are compared from Linux 6.15 on.
    The units of lasting mounts run --restore at boot; it makes no run and asks nothing.

    In a fleet, a run keeps the other hosts from its volumes until it is finished or undone; --fleet
    shows that. --end-lease ends it from outside: what that run left half-way stays so.

    \b
    Examples:
      usernsplan volumes
      usernsplan volumes web --json
      usernsplan volumes --restore
      usernsplan volumes --fleet
    """
    if fleet or end_lease is not None:
        from usernsplan.cli import leases  # noqa: PLC0415 - only in a fleet

        leases.volumes(root, end=end_lease, as_json=json, yes=yes, others=bool(names or restore))
        return
    if yes:
        raise InvalidValueError("--yes goes with --end-lease", hint="leave it out")
    if restore:
        from usernsplan.cli import restore as again  # noqa: PLC0415 - a list needs half of it

        again.restore(names or (), root, as_json=json)
        return
    layout = layout_at(root, exists=True)
    ledger = open_ledger(layout).state()
    rows = list(_rows(layout, ledger))
    if names:
        rows = _named(names, rows, ledger, layout)
    emit(report.result(sorted(rows), layout), as_json=json)
    note_interrupted(ledger)


def _rows(layout: Layout, ledger: LedgerState) -> Iterator[report.Row]:
    if ledger.volumes:
        from usernsplan.host.volumes import recorded  # noqa: PLC0415 - not always needed
        from usernsplan.planner.volumes import looks  # noqa: PLC0415

        for volume, fact, remedy in looks(ledger, recorded(layout, ledger).volumes, layout):
            wrong = ((fact, remedy),) if fact else ()
            yield report.Row(volume.name, volume.path, wrong=wrong, volume=volume)
    for mount, facts, is_told in mounts(layout, ledger, by_all_ways=True):
        yield report.Row(mount.name, mount.source, mount.at, facts, None, mount, is_told)


def _named(
    names: Sequence[str], rows: Sequence[report.Row], ledger: LedgerState, layout: Layout
) -> list[report.Row]:
    """The rows of these containers, or at these paths. Raises UnknownNameError."""
    known = {a.name for a in ledger.allocations}
    paths = {path for row in rows for path in (row.path, row.at) if path}
    wanted = set()
    for name in names:
        path = os.path.normpath(name) if name.startswith("/") else name
        # The path with the root in front is as good.
        below = layout.below(path) if not layout.is_host else None
        found = next((one for one in (path, below) if one in known | paths), None)
        if found is None:
            hint = did_you_mean(name, known | paths, f"{layout.inline('volumes')} lists all")
            raise UnknownNameError(f"no container or volume is {shown_path(name)}", hint=hint)
        wanted.add(found)
    return [row for row in rows if wanted & {row.name, row.path, row.at}]
