"""The journal of a run: one folder below /var/lib/usernsplan/runs, written before the volume is touched.

``run.json`` says what the run is and how far it has come. ``folders.N`` (one for each worker) has a line for each
folder of the volume, as it was: owners, the names that have another one, and every entry that needs care with its
mode, ACLs and capability. ``late.N`` has the same for what appeared meanwhile. See logs.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from usernsplan.errors import (
    HostChangedError,
    LockBusyError,
    RefusedError,
    UnknownNameError,
    UsernsplanError,
)
from usernsplan.escape import shell, shown_path
from usernsplan.host import files, locks
from usernsplan.host import runs as read_runs
from usernsplan.layout import RUNS, Layout
from usernsplan.volume.logs import damaged_log, read, sum_of, whole_lines
from usernsplan.volume.state import CHANGING, LOOKING, UNDOING, NotedVolume, RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_FORMAT = read_runs.FORMAT
_LOCK = read_runs.LOCK
# Where a run works, once more: when run.json is damaged, this tells which volumes it has to do with.
_TREES = "trees.json"
# What a run that has begun to change something has left.
_LOGS = ("folders", "late", "swaps")


class Journal:
    """One run's folder on disk. Its parent process writes run.json, its workers their logs."""

    def __init__(self, layout: Layout, state: RunState, lock: int = -1) -> None:
        self._layout = layout
        self._name = f"{RUNS}/{state.run}"
        self._lock = lock
        self.state = state
        # Where the workers write it: a path by which nobody can lead them elsewhere.
        with files.explained(layout, self._name):
            self._pin = files.opened_folder(layout, self._name)
        self.folder = f"/proc/self/fd/{self._pin}"

    def set(self, **changes: Any) -> None:
        """Note how far the run is; on disk when this returns."""
        self.state = replace(self.state, **changes)
        text = json.dumps({"format": _FORMAT, **self.state.to_json()}, indent=1) + "\n"
        files.write(self._layout, {f"{self._name}/run.json": text.encode()})

    def sums(self) -> dict[str, list[int]]:
        """Size and CRC-32 of each log of the look."""
        return {os.path.basename(path): sum_of(path) for path in self.logs("folders")}

    def refuse_damaged(self) -> None:
        """Raise RefusedError unless every log is whole: half of a run is not to be carried out, nor taken back."""
        with files.explained(self._layout, self._name):
            now = self.sums()
            for name, noted in self.state.sums.items():
                if now.get(name) != noted:
                    log = os.path.join(self.folder, os.path.basename(name))
                    raise damaged_log(
                        log, "it is not as the run left it" if name in now else "it is gone"
                    )
            for log in self.logs("folders", "late"):
                # What has a sum is as it was written.
                if os.path.basename(log) not in self.state.sums:
                    # The look was on disk, whole, before anything was changed; only what came later may be cut.
                    if os.path.basename(log).startswith("folders.") and whole_lines(
                        log
                    ) != os.path.getsize(log):
                        raise damaged_log(log, "its last line is cut")
                    self._refuse_strange(log)

    def remove(self) -> None:
        """Take the run away: it has changed nothing."""
        _forget(self._layout, self._name)
        self.close()

    def close(self) -> None:
        """Let others have the volume. What ``path`` and ``logs`` told leads nowhere after this."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._pin >= 0:
            os.close(self._pin)
            self._pin = -1

    def path(self, kind: str, worker: int) -> str:
        """Where a worker's log of this kind (folders, late) lies."""
        return os.path.join(self.folder, f"{kind}.{worker}")

    def logs(self, *kinds: str) -> list[str]:
        """Every log of these kinds, by path."""
        with files.explained(self._layout, self._name):
            names = sorted(
                name for name in os.listdir(self.folder) if name.partition(".")[0] in kinds
            )
        return [os.path.join(self.folder, name) for name in names]

    def refuse_forged(self) -> None:
        """Raise RefusedError for a journal that no run wrote: it may name what lies outside of the root."""
        with files.explained(self._layout, self._name):
            entries = list(os.scandir(self.folder))
            if not all(entry.is_file(follow_symlinks=False) for entry in entries):
                raise read_runs.damaged(self._layout, self.state.run)
            # Nobody but root writes the journals of this machine, and the longest take a while.
            for log in () if self._layout.is_host else self.logs("folders", "late"):
                self._refuse_strange(log)

    def _refuse_strange(self, log: str) -> None:
        for note in read(log):
            if not 0 <= note.volume < len(self.state.volumes):
                raise damaged_log(log, f"there is no volume {note.volume}")


def runs(layout: Layout, near: RunState | None = None) -> list[RunState]:
    """Every run that has a journal, oldest first; with ``near``, less damaged ones that do not concern its volumes.

    Raises NotPermittedError where they are not ours to see, RefusedError for a damaged one that may concern them.
    """
    found = []
    for name in read_runs.names(layout):
        try:
            state = _state(layout, name)
        except read_runs.DamagedRunError:
            if near is None or _may_concern(layout, name, near):
                raise
            continue
        if state is not None:
            found.append(state)
    return found


def _may_concern(layout: Layout, name: str, near: RunState) -> bool:
    """Tell whether a run whose run.json is damaged may have changed one of these volumes."""
    if files.is_symlink(layout, f"{RUNS}/{name}"):
        # Whatever it leads to was not noted by this run.
        return True
    volumes = _noted_volumes(layout, name)
    if volumes is None:
        # Nothing tells where it worked: one that had begun to change something has a log of it.
        with (
            closing(Journal(layout, replace(near, run=name))) as log,
            files.explained(layout, f"{RUNS}/{name}"),
        ):
            return any(os.path.getsize(path) for path in log.logs(*_LOGS))
    return near.overlaps(replace(near, volumes=volumes))


def _noted_volumes(layout: Layout, name: str) -> tuple[NotedVolume, ...] | None:
    """The volumes of a run as they stand beside its run.json, or in what is left of that; None where neither tells."""
    for place in (_TREES, "run.json"):
        with suppress(UsernsplanError, ValueError, LookupError, TypeError, RecursionError):
            content = json.loads(files.read(layout, f"{RUNS}/{name}/{place}") or b"")
            volumes = tuple(map(NotedVolume.from_json, content["trees"]))
            if place != _TREES and content.get("format") in {1, 2}:
                # These have paths of the machine.
                volumes = tuple(
                    replace(one, path=layout.below(one.path) or one.path) for one in volumes
                )
            if volumes:
                return volumes
    return None


def run(layout: Layout, name: str) -> RunState:
    """The run of this name. Raises UnknownNameError."""
    state = _state(layout, name) if name in read_runs.names(layout) else None
    if state is None:
        hint = f"'{layout.command('history --runs')}' lists them; {layout.path(RUNS)} has a folder for each"
        raise UnknownNameError(f"there is no run {shown_path(name)!r}", hint=hint)
    return state


def later(layout: Layout, state: RunState) -> list[RunState]:
    """The runs after this one on the same volumes, oldest first."""
    every = runs(layout, state)
    names = [run.run for run in every]
    if state.run not in names:
        raise HostChangedError(f"run {state.run} was taken away meanwhile")
    after = every[names.index(state.run) + 1 :]
    return [run for run in after if run.overlaps(state)]


def begin(layout: Layout, state: RunState, check: Callable[[], None] = lambda: None) -> Journal:
    """Make the folder of a new run, and hold its lock; ``state.run`` is completed so that no other has it.

    ``check`` is called when no other run can begin or be resumed any more. Raises LockBusyError where another one is at
    work on one of the volumes, and what ``check`` raises.
    """
    files.make_folder(layout, os.path.dirname(RUNS), 0o700)
    files.make_folder(layout, RUNS, 0o700)
    with _lock_in(layout, RUNS, wait=True):
        for other in runs(layout, state):
            at_work = is_at_work(layout, other)
            if at_work and other.overlaps(state):
                raise busy(other.run)
            if other.state == LOOKING and not at_work:
                # Killed before it changed anything: nobody will miss it.
                _forget(layout, f"{RUNS}/{other.run}")
        check()
        taken = set(read_runs.names(layout))
        names = (state.run if number == 1 else f"{state.run}.{number}" for number in count(1))
        state = replace(state, run=next(name for name in names if name not in taken))
        name = f"{RUNS}/{state.run}"
        files.make_folder(layout, name, 0o700)
        with files.explained(layout, RUNS), files.pinned(layout, name) as place:
            files.sync_folder(place.folder)
        journal = Journal(layout, state, _lock_in(layout, name).take())
        text = json.dumps({"trees": list(map(asdict, state.volumes))}) + "\n"
        files.write(layout, {f"{name}/{_TREES}": text.encode()})
        journal.set()
    return journal


def resume(layout: Layout, state: RunState) -> Journal:
    """Take over a run that is not at work any more, as ``state`` says it is.

    Raises LockBusyError where it is at work, or another one on the same volumes; HostChangedError where it is no longer
    so; RefusedError where a later run on the same volumes is unfinished.
    """
    files.make_folder(layout, RUNS, 0o700)
    with _lock_in(layout, RUNS, wait=True):
        lock = _lock_in(layout, f"{RUNS}/{state.run}")
        if not lock:
            raise busy(state.run)
        with lock:
            for other in runs(layout, state):
                if other.run != state.run and other.overlaps(state):
                    if is_at_work(layout, other):
                        raise busy(other.run)
                    if other.state in {CHANGING, UNDOING}:
                        hint = f"finish it, or take it back: {layout.command(f'undo {shell(other.run)}')}"
                        raise RefusedError(
                            f"run {other.run} on the same volume is unfinished", hint=hint
                        )
            if run(layout, state.run) != state:
                raise HostChangedError(f"run {state.run} has gone on meanwhile")
            journal = Journal(layout, state, lock.take())
            try:
                journal.refuse_forged()
            except BaseException:
                journal.close()
                raise
            return journal


def is_at_work(layout: Layout, state: RunState) -> bool:
    """Tell whether some process still holds the run's lock. Nothing is written for it."""
    return read_runs.is_at_work(layout, state.run)


def refuse_half_known(layout: Layout, state: RunState) -> None:
    """Raise RefusedError where a run that an older version left cannot be finished: what failed in it is not known."""
    content = read_runs.content(layout, state.run)
    if content and not _can_be_finished(content):
        raise RefusedError(
            f"run {state.run} on {', '.join(state.places(layout))} was interrupted, and an older usernsplan began it:"
            " what failed in it is not known, and its map overlaps itself",
            hint=f"take it back, and run again: {layout.command(f'undo {shell(state.run)}')}",
        )


def _can_be_finished(content: dict[str, Any]) -> bool:
    """Tell whether what run.json says is enough to finish the run.

    Format 1 kept of what failed in an overlapping map a list that was cut for readers: an entry that it forgot would
    be moved twice, or not at all. Where nothing had failed, nothing was forgotten.
    """
    overlaps = content.get("staging") is not None
    return (
        content["format"] > 1
        or not overlaps
        or not (content.get("failed") or content.get("retried"))
    )


@contextmanager
def alone(layout: Layout, *, write: bool = True) -> Iterator[None]:
    """Let no run begin or be resumed meanwhile; without ``write``, or where there is no run yet, nothing is locked."""
    with ExitStack() as held:
        with suppress(FileNotFoundError, NotADirectoryError):
            if write and stat.S_ISDIR(files.look(layout, RUNS, follow=True).st_mode):
                held.enter_context(_lock_in(layout, RUNS, wait=True))
        yield


def new_name() -> str:
    """What a run that starts now is called."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime())


class _Held:
    """A lock that may have been got, as a context."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __bool__(self) -> bool:
        return self._descriptor >= 0

    def take(self) -> int:
        """The lock's descriptor, to be closed by whoever takes it."""
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def __enter__(self) -> bool:
        return bool(self)

    def __exit__(self, *_: object) -> None:
        if self:
            os.close(self.take())


def _lock_in(layout: Layout, folder: str, *, wait: bool = False) -> _Held:
    name = f"{folder}/{_LOCK}"
    with files.explained(layout, name), files.pinned(layout, name) as place:
        return _locked(place.path, shown_path(layout.path(name)), wait=wait)


def _locked(path: str, shown: str, *, wait: bool = False) -> _Held:
    """Try to hold a lock. Workers inherit it, so that it is free only when the last of them is gone."""
    descriptor = os.open(
        path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600
    )
    try:
        if wait:
            locks.wait_for(descriptor, shown)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return _Held(-1)
    except BaseException:
        os.close(descriptor)
        raise
    return _Held(descriptor)


def _forget(layout: Layout, name: str) -> None:
    """Take away the folder of a run that has changed nothing; what cannot be taken away harms nobody."""
    with suppress(OSError, RefusedError), files.pinned(layout, name) as place:
        shutil.rmtree(place.path, ignore_errors=True)


def busy(run: str) -> LockBusyError:
    """What to say where a run is at work."""
    return LockBusyError(
        f"run {run} is at work on this volume", hint="wait until it has finished, and run again"
    )


def _state(layout: Layout, name: str) -> RunState | None:
    """Read run.json; None where a kill left a folder without one. Raises RefusedError where it cannot be understood."""
    content = read_runs.content(layout, name)
    if content is None:
        return None
    try:
        return RunState.from_json(content, name)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise read_runs.damaged(layout, name) from error
