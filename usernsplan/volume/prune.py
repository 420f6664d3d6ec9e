"""Delete the journals of runs that ended long ago. Without its journal a run cannot be undone."""

from __future__ import annotations

import os
import stat

from usernsplan.errors import RefusedError
from usernsplan.escape import line, shown_path
from usernsplan.host import files
from usernsplan.host import runs as read_runs
from usernsplan.layout import RUNS, Layout
from usernsplan.ledger import open_ledger
from usernsplan.planner.mounts import present
from usernsplan.values import dataclass
from usernsplan.volume import journal, leasing
from usernsplan.volume.lifecycle import METHODS
from usernsplan.volume.state import DONE, LOOKING, UNDONE, NotedVolume, RunState


@dataclass(frozen=True, slots=True)
class Pruned:
    """The result of ``prune``.

    ``removed`` are the deleted runs, each with its size in bytes; ``kept`` the old runs that stay,
    each with the reason.
    """

    removed: tuple[tuple[str, int], ...] = ()
    kept: tuple[tuple[str, str], ...] = ()


def prune(layout: Layout, before_ns: int, *, dry_run: bool = False) -> Pruned:
    """Delete the journals of runs that ended, or were undone, before a time (ns since the epoch).

    A run stays if it is unfinished, at work or cannot be read; and, while its volume exists, if
    only its journal prevents that ids are moved twice. Raises NotPermittedError, and
    LedgerUnreachableError: the journal tells the fleet that a run has ended.
    """
    removed, kept = [], []
    # A preview writes nothing, not even a lock.
    with journal.alone(layout, write=not dry_run):
        if not dry_run:
            leasing.settled(layout)
        for name in read_runs.names(layout):
            place = f"{RUNS}/{name}"
            with files.explained(layout, place), files.pinned(layout, place) as run:
                # usernsplan makes no symlink here.
                if not stat.S_ISDIR(os.lstat(run.path).st_mode) or not _is_old(
                    layout, name, run.path, before_ns
                ):
                    continue
                if why := _why_kept(layout, name):
                    kept.append((name, why))
                    continue
                removed.append((name, _size(run.path)))
                if not dry_run:
                    _remove(run.path)
    return Pruned(tuple(removed), tuple(kept))


def _is_old(layout: Layout, name: str, folder: str, before_ns: int) -> bool:
    """Tell whether a run ended before this time; if it does not say when, judge by its mtimes."""
    try:
        content = read_runs.content(layout, name) or {}
    except RefusedError:
        content = {}
    ended = content.get("undone") or content.get("end")
    if not isinstance(ended, int):
        places = (folder, f"{folder}/run.json")
        ended = max(os.lstat(place).st_mtime_ns for place in places if os.path.lexists(place))
    return ended < before_ns


def _why_kept(layout: Layout, name: str) -> str:
    """Why the journal of an old run has to stay; "" if it may go."""
    if read_runs.is_at_work(layout, name):
        return "it is at work"
    try:
        state = journal.run(layout, name) if read_runs.content(layout, name) is not None else None
    except RefusedError:
        return "its run.json cannot be read: see 'usernsplan check'"
    # A kill left a folder without run.json, or one of a run that had changed nothing.
    return _why_needed(layout, state) if state and state.state not in {UNDONE, LOOKING} else ""


def _why_needed(layout: Layout, state: RunState) -> str:
    """What the journal of a run that changed something is needed for; "" if for nothing."""
    if state.state != DONE:
        return "it is unfinished: see 'usernsplan check'"
    if state.method not in METHODS:
        return f"this usernsplan does not know its method, {line(state.method)!r}"
    if state.staging and any(_is_there(layout, one) for one in state.volumes):
        return "its map overlaps itself: without the journal, the same command would move ids twice"
    return _why_mounted(layout, state)


def _why_mounted(layout: Layout, state: RunState) -> str:
    """The mount of a run that the ledger still has, as a reason: undo needs the journal."""
    if not state.mounts:
        return ""
    ledger = open_ledger(layout).state()
    noted = {mount.at for mount in ledger.mounts}
    made = present(ledger, state.mounts, state.run)
    at = next((one.at for one, taken in made if one.at in noted and not taken), None)
    return f"the ledger has its mount at {shown_path(layout.path(at))}" if at else ""


def _is_there(layout: Layout, noted: NotedVolume) -> bool:
    try:
        return os.lstat(layout.place(noted.path)).st_ino == noted.inode
    except OSError:
        return False


def _size(folder: str) -> int:
    return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder))


def _remove(folder: str) -> None:
    # run.json goes first: what a kill leaves after that does not count as a run.
    if os.path.lexists(f"{folder}/run.json"):
        os.unlink(f"{folder}/run.json")
        files.sync_folder(folder)
    import shutil  # noqa: PLC0415 - seldom needed

    shutil.rmtree(folder)
