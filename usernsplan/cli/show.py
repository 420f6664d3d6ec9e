"""The commands list, show and history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Host, Json, OfFleet, Root, note, note_interrupted
from usernsplan.cli.recorded import mounts
from usernsplan.cli.words import Argument, Option
from usernsplan.errors import InvalidValueError, UsernsplanError
from usernsplan.host import runs as runs_of
from usernsplan.host.files import layout_at
from usernsplan.host.volumes import recorded
from usernsplan.ledger import allocation_of, name_now, open_ledger
from usernsplan.report import results
from usernsplan.report.recorded import Recorded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.formats.accounts import Accounts
    from usernsplan.layout import Layout
    from usernsplan.model import Allocation, LedgerState, Volume

# The longest age in digits: 99999w is 1,900 years.
_DIGITS = 5


def list_(host: Host = None, fleet: OfFleet = False, root: Root = "/", json: Json = False) -> None:
    """List allocations and quarantined ranges.

    Also lists recorded volumes and mounts that look wrong, and interrupted runs of fix-volume, with the
    command that helps.

    With --fleet, a name is one row where hosts agree. Also says what hosts have still to do.

    \b
    Examples:
      usernsplan list --json
      usernsplan list --fleet
    """
    layout = layout_at(root, exists=True)
    if host or fleet:
        from usernsplan.cli import across  # noqa: PLC0415 - only in a fleet

        across.list_(across.views(layout, host), as_json=json)
        return
    store = open_ledger(layout)
    ledger = store.state()
    known = _recorded(layout, ledger)
    emit(
        results.allocations(
            ledger,
            known,
            layout,
            _names(layout, ledger.allocations),
        ),
        as_json=json,
        of=store,
    )
    note_interrupted(ledger)
    note("; ".join(run[1:]) for run in known.runs)


def show(
    name: Annotated[str, Argument(metavar="NAME", help="Name that 'usernsplan list' shows.")],
    host: Host = None,
    fleet: OfFleet = False,
    root: Root = "/",
    json: Json = False,
) -> None:
    """Show one allocation: owner, maps, volumes, mounts and runs.

    Says of each recorded volume and mount whether it looks right, and lists the runs of fix-volume for this
    container.

    Example: usernsplan show web
    """
    layout = layout_at(root, exists=True)
    if host or fleet:
        from usernsplan.cli import across  # noqa: PLC0415 - only in a fleet

        across.show(across.views(layout, host), name, as_json=json)
        return
    store = open_ledger(layout)
    ledger = store.state()
    found = allocation_of(ledger, name)
    known = _recorded(layout, ledger, name)
    every = runs_of.every(layout)
    renames = store.renames() if every else ()
    of_it = [
        one
        for one in every
        if one.container and name_now(one.container, renames, one.event) == name
    ]
    emit(
        results.allocation(
            found,
            known,
            of_it,
            layout,
            _names(layout, [found]),
        ),
        as_json=json,
        of=store,
    )
    note_interrupted(ledger)
    note("; ".join(run[1:]) for run in known.runs)


def _names(layout: Layout, allocations: Iterable[Allocation]) -> Accounts | None:
    """The accounts and groups that name ids which pass through; None where none passes."""
    passes = [one for a in allocations for one in a.passes]
    if not passes:
        return None
    from usernsplan.host import accounts  # noqa: PLC0415 - seldom needed

    try:
        return accounts.naming(layout, passes)
    except UsernsplanError as error:
        note([f"the ids that pass through have no names here: {error}"])
        return None


def _prune(root: str, seconds: int, *, dry_run: bool, as_json: bool) -> None:
    import time  # noqa: PLC0415 - only for --prune-runs

    from usernsplan.volume.prune import prune  # noqa: PLC0415

    layout = layout_at(root, exists=True)
    pruned = prune(layout, time.time_ns() - seconds * 10**9, dry_run=dry_run)
    emit(results.pruned(pruned, dry_run=dry_run), as_json=as_json)


def _seconds(age: str) -> int:
    """The seconds of an age such as 12h, 30d or 4w. Raises InvalidValueError."""
    units = {"h": 3600, "d": 86400, "w": 604800}
    number, unit = age[:-1], age[-1:]
    if unit not in units or not (number.isascii() and number.isdigit() and len(number) <= _DIGITS):
        raise InvalidValueError(
            f"--older-than {age}: not a number and a unit", hint="write 12h, 30d or 4w"
        )
    return int(number) * units[unit]


def _recorded(layout: Layout, ledger: LedgerState, name: str | None = None) -> Recorded:
    """The recorded volumes and mounts (of one container), and the interrupted runs."""
    found = recorded(layout, ledger)
    runs: list[tuple[str, str, str]] = []
    volumes: list[tuple[Volume, str, str]] = []
    if found.runs:
        from usernsplan.planner.runs import told  # noqa: PLC0415 - most hosts have none

        runs = [(run.run, *told(run, layout)) for run in found.runs]
    if ledger.volumes:
        from usernsplan.planner.volumes import looks  # noqa: PLC0415 - the same

        volumes = [
            one for one in looks(ledger, found.volumes, layout) if name in {None, one[0].name}
        ]
    shown = [(one.mount, one.wrong) for one in mounts(layout, ledger, name)]
    return Recorded(volumes, runs, shown)


def history(
    runs: Annotated[
        bool, Option("--runs", help="List the runs of fix-volume that have a journal.")
    ] = False,
    prune_runs: Annotated[
        bool,
        Option("--prune-runs", help="Remove old journals of finished runs; needs --older-than."),
    ] = False,
    older_than: Annotated[
        Optional[str], Option(metavar="AGE", help="--prune-runs: such as 12h, 30d or 4w.")
    ] = None,
    host: Host = None,
    fleet: OfFleet = False,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Show past changes: when, by whom, with which command.

    --runs lists the runs of fix-volume that have a journal: state, container, mode, volumes and
    size. --prune-runs removes the journals of finished runs that are older than AGE; those runs
    can no longer be undone. It keeps the history and every interrupted run.

    \b
    Examples:
      usernsplan history
      usernsplan history --fleet
      usernsplan history --runs
      usernsplan history --prune-runs --older-than 30d --dry-run
    """
    if prune_runs != (older_than is not None):
        raise InvalidValueError(
            "--prune-runs and --older-than need each other",
            hint="use both, as in: usernsplan history --prune-runs --older-than 30d",
        )
    if dry_run and not prune_runs:
        raise InvalidValueError(
            "--dry-run needs --prune-runs",
            hint="leave it out: without --prune-runs, nothing is written",
        )
    if runs and prune_runs:
        raise InvalidValueError(
            "--runs does not go with --prune-runs", hint="leave out one of them"
        )

    if host or fleet:
        from usernsplan.cli import across  # noqa: PLC0415 - only in a fleet

        of_fleet = across.views(
            layout_at(root, exists=True), host, runs=runs, prune_runs=prune_runs
        )
        across.history(of_fleet, as_json=json)
        return
    if runs:
        layout = layout_at(root, exists=True)
        emit(results.runs(runs_of.every(layout), layout), as_json=json)
        return
    if older_than is not None:
        _prune(root, _seconds(older_than), dry_run=dry_run, as_json=json)
        return
    store = open_ledger(layout_at(root, exists=True))
    emit(results.history(store.history()), as_json=json, of=store)
