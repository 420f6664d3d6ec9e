"""The commands that only look: list, show, history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Json, Root, note, note_interrupted
from usernsplan.errors import InvalidValueError
from usernsplan.host import runs as runs_of
from usernsplan.host.files import layout_at
from usernsplan.host.volumes import recorded
from usernsplan.ledger import allocation_of, open_ledger
from usernsplan.report import results

if TYPE_CHECKING:
    from usernsplan.layout import Layout
    from usernsplan.model import LedgerState, Volume

# More of a number would be no age.
_DIGITS = 5


def list_(root: Root = "/", json: Json = False) -> None:
    """List what is allocated, and which ranges are quarantined.

    Example: usernsplan list --json
    """
    layout = layout_at(root, exists=True)
    ledger = open_ledger(layout).state()
    volumes, runs = _recorded(layout, ledger)
    emit(results.allocations(ledger, volumes, runs), as_json=json)
    note_interrupted(ledger)
    note("; ".join(run[1:]) for run in runs)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What 'usernsplan list' shows.")],
    root: Root = "/",
    json: Json = False,
) -> None:
    """Show one allocation: owner, maps, volumes and runs.

    Example: usernsplan show web
    """
    layout = layout_at(root, exists=True)
    ledger = open_ledger(layout).state()
    found = allocation_of(ledger, name)
    volumes, runs = _recorded(layout, ledger, name)
    of_it = [one for one in runs_of.every(layout) if one.container == name]
    emit(results.allocation(found, volumes, runs, of_it, layout), as_json=json)
    note_interrupted(ledger)
    note("; ".join(run[1:]) for run in runs)


def _prune(root: str, seconds: int, *, dry_run: bool, as_json: bool) -> None:
    import time  # noqa: PLC0415 - only for --prune-runs

    from usernsplan.volume.prune import prune  # noqa: PLC0415

    layout = layout_at(root, exists=True)
    pruned = prune(layout, time.time_ns() - seconds * 10**9, dry_run=dry_run)
    emit(results.pruned(pruned, dry_run=dry_run), as_json=as_json)


def _seconds(age: str) -> int:
    """Read 12h, 30d or 4w."""
    units = {"h": 3600, "d": 86400, "w": 604800}
    number, unit = age[:-1], age[-1:]
    if unit not in units or not (number.isascii() and number.isdigit() and len(number) <= _DIGITS):
        raise InvalidValueError(
            f"--older-than {age}: expected a number and a unit", hint="12h, 30d or 4w"
        )
    return int(number) * units[unit]


def _recorded(
    layout: Layout, ledger: LedgerState, name: str | None = None
) -> tuple[list[tuple[Volume, str, str]], list[tuple[str, str, str]]]:
    """The recorded volumes (of one container) that stand, each with what is wrong and the remedy; "" where it is right.

    And the runs of fix-volume that were interrupted: the name of each, the fact, and the remedy.
    """
    found = recorded(layout, ledger)
    told: list[tuple[str, str, str]] = []
    volumes: list[tuple[Volume, str, str]] = []
    if found.runs:
        from usernsplan.planner.runs import told as words  # noqa: PLC0415 - most hosts have none

        told = [(run.run, *words(run, layout)) for run in found.runs]
    if ledger.volumes:
        from usernsplan.planner.volumes import looks  # noqa: PLC0415 - the same

        volumes = [
            one for one in looks(ledger, found.volumes, layout) if name in {None, one[0].name}
        ]
    return volumes, told


def history(
    runs: Annotated[
        bool, typer.Option("--runs", help="List the runs of fix-volume, which undo takes back.")
    ] = False,
    prune_runs: Annotated[
        bool,
        typer.Option("--prune-runs", help="Remove journals of fix-volume that ended long ago."),
    ] = False,
    older_than: Annotated[
        Optional[str], typer.Option(metavar="AGE", help="--prune-runs: 30d; units are h, d and w.")
    ] = None,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Show what was changed: when, by whom, with which command.

    With --runs, list the runs of fix-volume that have a journal: state, container, mode, volumes, size.
    With --prune-runs, remove the journals of runs of fix-volume that are done or undone and older than AGE: they can no
    longer be undone then. The history stays, and so does every run that is unfinished.

    \b
    Examples:
      usernsplan history
      usernsplan history --runs
      usernsplan history --prune-runs --older-than 30d --dry-run
    """
    if prune_runs != (older_than is not None):
        raise InvalidValueError(
            "--prune-runs and --older-than go together", hint="--prune-runs --older-than 30d"
        )
    if dry_run and not prune_runs:
        raise InvalidValueError(
            "--dry-run is about --prune-runs", hint="without it nothing is written"
        )
    if runs and prune_runs:
        raise InvalidValueError("--runs with --prune-runs", hint="say one of the two")
    if runs:
        layout = layout_at(root, exists=True)
        emit(results.runs(runs_of.every(layout), layout), as_json=json)
        return
    if older_than is not None:
        _prune(root, _seconds(older_than), dry_run=dry_run, as_json=json)
        return
    entries = open_ledger(layout_at(root, exists=True)).history()
    emit(results.history(entries), as_json=json)
