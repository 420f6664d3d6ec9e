"""Journals of runs that ended long ago are taken away: what is left of a run after that can no longer be undone."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass

from usernsplan.errors import RefusedError
from usernsplan.host import files
from usernsplan.host import runs as read_runs
from usernsplan.layout import RUNS, Layout
from usernsplan.volume import journal
from usernsplan.volume.lifecycle import METHODS
from usernsplan.volume.state import DONE, LOOKING, UNDONE, NotedVolume


@dataclass(frozen=True, slots=True)
class Pruned:
    """The runs that were taken away, each with its size in bytes; and those that stay though they are old, and why."""

    removed: tuple[tuple[str, int], ...] = ()
    kept: tuple[tuple[str, str], ...] = ()


def prune(layout: Layout, before_ns: int, *, dry_run: bool = False) -> Pruned:
    """Take away the journals of runs that were done or undone before a moment (ns since the epoch).

    Never one that is unfinished, at work, or that nobody can read; nor, as long as its volume is there, one that keeps
    ids from being moved a second time. Raises NotPermittedError.
    """
    removed, kept = [], []
    # A preview takes no lock, for it writes nothing.
    with journal.alone(layout, write=not dry_run):
        for name in read_runs.names(layout):
            place = f"{RUNS}/{name}"
            with files.explained(layout, place), files.pinned(layout, place) as run:
                # A symlink is no run of ours.
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
    """Tell whether a run ended before this moment; where it does not say when, whether its folder was written then."""
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
    """Why the journal of an old run has to stay; "" where it may go."""
    if read_runs.is_at_work(layout, name):
        return "it is at work"
    try:
        state = journal.run(layout, name) if read_runs.content(layout, name) is not None else None
    except RefusedError:
        return "its run.json cannot be understood: see 'usernsplan check'"
    # A kill left a folder without a run.json, or one that only looked, before anything was changed.
    if state is None or state.state in {UNDONE, LOOKING}:
        return ""
    if state.state != DONE:
        return "it is unfinished: see 'usernsplan check'"
    if state.method not in METHODS:
        return "this usernsplan does not know how it gave its volumes: only its journal tells"
    is_needed = state.staging and any(_is_there(layout, one) for one in state.volumes)
    why = "its map overlaps itself: without its journal the same command would move ids twice"
    return why if is_needed else ""


def _is_there(layout: Layout, noted: NotedVolume) -> bool:
    try:
        return os.lstat(layout.place(noted.path)).st_ino == noted.inode
    except OSError:
        return False


def _size(folder: str) -> int:
    return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder))


def _remove(folder: str) -> None:
    # First what tells that there was a run: whatever a kill leaves after that is no run any more.
    if os.path.lexists(f"{folder}/run.json"):
        os.unlink(f"{folder}/run.json")
        files.sync_folder(folder)
    shutil.rmtree(folder)
