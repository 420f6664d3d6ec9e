"""What earlier runs mean for a new one on the same volumes: it finishes one, repeats one, or may trust what it left."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from usernsplan.errors import RefusedError
from usernsplan.escape import shell
from usernsplan.volume import journal
from usernsplan.volume.state import CHANGING, DONE, LOOKING, UNDOING, NotedVolume, RunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.layout import Layout
    from usernsplan.volume.walk import OpenVolume

# The clock that the kernel reads for times of files ticks up to 10 ms behind the one that we read.
TICK_NS = 50_000_000


class Earlier(NamedTuple):
    """The interrupted run that the same command goes on with; the run that did the same and must not be repeated."""

    unfinished: RunState | None = None
    repeated: RunState | None = None


def find(layout: Layout, new: RunState, *, again: bool) -> Earlier:
    """The runs that a new one meets; ``again``: it may move ids a second time.

    Raises LockBusyError or RefusedError where an earlier run stands in the way.
    """
    runs = [run for run in journal.runs(layout, new) if run.overlaps(new)]
    for run in runs:
        if run.state not in {CHANGING, UNDOING}:
            continue
        if journal.is_at_work(layout, run):
            raise journal.busy(run.run)
        if run.state == CHANGING and run.same_work(new):
            journal.refuse_half_known(layout, run)
            return Earlier(unfinished=run)
        first = f"finish it: {run.finish}\n  or " if run.state == CHANGING and run.finish else ""
        raise RefusedError(
            f"run {run.run} on {', '.join(run.places(layout))} was interrupted",
            hint=f"{first}take it back: {layout.command(f'undo {shell(run.run)}')}",
        )

    before = {run.run: run for run in (_moved_by(one, new, runs) for one in new.volumes) if run}
    if not new.rule.overlaps() or not before:
        return Earlier()
    run = next(iter(before.values()))
    is_same = len(before) == 1 and run.same_work(new)
    if again and not (is_same and run.command == new.command and not run.told):
        return Earlier()
    # With --again too where that very command was killed after its last change: it has moved the ids already.
    if is_same:
        return Earlier(repeated=run)
    raise RefusedError(
        f"run {run.run} has moved these ids already in {', '.join(run.places(layout))}",
        hint="the map overlaps itself, so that they would be moved twice; if you mean it all the same, say --again",
    )


def _moved_by(volume: NotedVolume, new: RunState, runs: Sequence[RunState]) -> RunState | None:
    """The last run that moved the same ids in a volume, or in a part of it, and whose work still stands."""
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


def note_told(layout: Layout, run: str) -> None:
    """Note that the command of a run has come to its end: from now on the same command means another run."""
    state = journal.run(layout, run)
    if state.state == DONE and not state.told:
        log = journal.resume(layout, state)
        try:
            log.set(told=True)
        finally:
            log.close()


def has_moved(layout: Layout, new: RunState) -> bool:
    """Tell whether a run has moved the same ids in each of these volumes, or has begun to, and it still stands."""
    runs = [
        run
        for run in journal.runs(layout, new)
        if run.state in {CHANGING, DONE} and run.overlaps(new)
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
    """Until when (ns) all attributes in these volumes are known to be right: the end of a run that did the same.

    It has to have ended whole, and each top has to be as that run left it: were the volume another one by now, or
    rolled back to a snapshot, its top would show it.
    """
    runs = [run for run in journal.runs(layout, new) if run.state != LOOKING and run.overlaps(new)]
    last = runs[-1] if runs else None
    if not (last and last.state == DONE and last.whole and last.end and last.seen and new.seen):
        return 0
    same = last.same_work(new) and last.tops == tops_changed(volumes)
    return last.end - TICK_NS if same else 0


def tops_changed(volumes: Iterable[OpenVolume]) -> tuple[int, ...]:
    """When the inode of each top has changed last (ns)."""
    return tuple(map(_changed_ns, volumes))


def _changed_ns(volume: OpenVolume) -> int:
    try:
        return volume.seen().st_ctime_ns
    except OSError:
        return 0  # a single file that is gone by now
