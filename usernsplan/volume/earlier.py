"""What earlier runs mean for a new run on the same volumes: finish, do not repeat, or trust."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError
from usernsplan.escape import shell
from usernsplan.values import NamedTuple
from usernsplan.volume import journal
from usernsplan.volume.state import (
    CHANGING,
    CHOWN,
    DONE,
    IDMAP,
    LOOKING,
    UNDOING,
    NotedVolume,
    RunState,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.layout import Layout
    from usernsplan.volume.walk import OpenVolume

# The kernel's clock for file times ticks up to 10 ms behind the clock that we read.
TICK_NS = 50_000_000


class Earlier(NamedTuple):
    """The interrupted run to finish, and the finished run that must not be repeated."""

    unfinished: RunState | None = None
    repeated: RunState | None = None


def find(
    layout: Layout, new: RunState, *, again: bool, among: Sequence[RunState] | None = None
) -> Earlier:
    """The earlier runs that a new run meets. ``again``: it may move ids a second time.

    ``among`` are all runs that there are; None: they are read.
    Raises LockBusyError or RefusedError if an earlier run is in the way.
    """
    every = journal.runs(layout, new) if among is None else among
    near = [run for run in every if run.overlaps(new)]
    half = {CHANGING, UNDOING}
    at_rest = (journal.at_rest(layout, run) if run.state in half else run for run in near)
    runs = [run for run in at_rest if run]
    for run in runs:
        if run.state not in half:
            continue
        if run.state == CHANGING and run.same_work(new):
            # Older versions did not record every failure; such a run can only be undone.
            journal.refuse_half_known(layout, run)
            return Earlier(unfinished=run)
        raise RefusedError(
            f"run {run.run} on {', '.join(run.places(layout))} was interrupted",
            hint=finish_or_undo(layout, run),
        )

    moved = [run for run in runs if run.method == new.method != IDMAP]
    before = {run.run: run for run in (_moved_by(one, new, moved) for one in new.volumes) if run}
    if not new.rule.overlaps() or not before:
        return Earlier()

    run = next(iter(before.values()))
    is_same = len(before) == 1 and run.same_work(new)
    if again and not (is_same and run.command == new.command and not run.told):
        return Earlier()
    # --again does not apply if this very command was killed after its last change: ids have moved.
    if is_same:
        return Earlier(repeated=run)
    raise RefusedError(
        f"run {run.run} already moved these ids in {', '.join(run.places(layout))}",
        hint="the map overlaps itself, so they would move twice; if you want that, use --again",
    )


def finish_or_undo(layout: Layout, run: RunState) -> str:
    """The commands that finish or undo a run; only the undo for a run that is being undone."""
    finish = f"finish it: {run.finish}\n  or " if run.finish and run.state == CHANGING else ""
    return f"{finish}undo it: {layout.command(f'undo {shell(run.run)}')}"


def _moved_by(volume: NotedVolume, new: RunState, runs: Sequence[RunState]) -> RunState | None:
    """The last run that moved the same ids in a volume or part of it, if it is still in effect."""
    for run in reversed(runs):
        if run.state != DONE or not any(
            volume.contains(other) or other.contains(volume) for other in run.volumes
        ):
            continue
        if run.same_ids(new):
            return run
        if any(other.contains(volume) for other in run.volumes):
            return None
    return None


def is_left(layout: Layout, new: RunState) -> bool:
    """Tell whether a run in these volumes has work left: it is unfinished, or something failed."""
    return any(
        run.state in {CHANGING, UNDOING} or (run.state == DONE and run.failed)
        for run in journal.runs(layout, new)
        if run.overlaps(new)
    )


def note_told(layout: Layout, run: str) -> None:
    """Record that a run's command has ended: from now on the same command means another run."""
    state = journal.run(layout, run)
    if state.state == DONE and not state.told:
        with closing(journal.resume(layout, state)) as log:
            log.set(told=True)


def has_moved(layout: Layout, new: RunState) -> bool:
    """Tell whether the last run in each volume moved, or began to move, the same ids."""
    runs = [
        run
        for run in journal.runs(layout, new)
        if run.state in {CHANGING, DONE} and run.method == CHOWN and run.overlaps(new)
    ]
    last = [
        next(
            (run for run in reversed(runs) if any(other.contains(one) for other in run.volumes)),
            None,
        )
        for one in new.volumes
    ]
    return all(run is not None and run.same_ids(new) for run in last)


def right_until(layout: Layout, new: RunState, volumes: Iterable[OpenVolume]) -> int:
    """Until when (ns) all attributes in these volumes are known to be right; 0 if unknown.

    That is the end of a run that did the same, ended completely, and left each top as it is now.
    The top changes if the volume is replaced, or rolled back to a snapshot.
    """
    runs = [
        run
        for run in journal.runs(layout, new)
        if run.state != LOOKING and run.method == CHOWN and run.overlaps(new)
    ]
    last = runs[-1] if runs else None
    if not (last and last.state == DONE and last.whole and last.end and last.seen and new.seen):
        return 0
    same = last.same_work(new) and last.tops == tops_changed(volumes)
    return last.end - TICK_NS if same else 0


def tops_changed(volumes: Iterable[OpenVolume]) -> tuple[int, ...]:
    """The ctime of each top (ns)."""
    return tuple(map(_changed_ns, volumes))


def _changed_ns(volume: OpenVolume) -> int:
    try:
        return volume.seen().st_ctime_ns
    except OSError:
        return 0  # a single file that is gone now
