"""The journal of a run: one folder below /var/lib/usernsplan/runs, written before any change.

``run.json`` says what the run is and how far it is. ``folders.N`` (one for each worker) has a line
for each folder of the volume, as it was: the owner of most entries, the names with other owners,
and each entry that needs care with its mode, ACLs and capability. ``late.N`` has the same for what
appeared during the run. See logs.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import lru_cache
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
from usernsplan.values import asdict, replace
from usernsplan.volume.logs import damaged_log, read, sum_of, whole_lines
from usernsplan.volume.state import CHANGING, LOOKING, UNDOING, NotedVolume, RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


# A second copy of the run's volumes: if run.json is damaged, this shows where the run worked.
_TREES = "trees.json"
# The logs of a run that began to change something.
_LOGS = ("folders", "late", "swaps")


class Journal:
    """The folder of one run on disk. The parent process writes run.json, its workers their logs."""

    def __init__(self, layout: Layout, state: RunState, lock: ExitStack | None = None) -> None:
        self._layout = layout
        self._name = f"{RUNS}/{state.run}"
        self._held = lock or ExitStack()
        self.state = state
        # The workers write by this path: it goes through a descriptor, so no rename or symlink can
        # redirect it.
        with files.explained(layout, self._name):
            pin = files.opened_folder(layout, self._name)
        self._held.callback(os.close, pin)
        self.folder = f"/proc/self/fd/{pin}"

    def set(self, **changes: Any) -> None:
        """Change these fields of run.json; they are on disk when this returns."""
        self.state = replace(self.state, **changes)
        text = json.dumps({"format": read_runs.FORMAT, **self.state.to_json()}, indent=1) + "\n"
        files.write(self._layout, {f"{self._name}/run.json": text.encode()})

    def sums(self) -> dict[str, list[int]]:
        """The size and the CRC-32 of each log of the look, by name."""
        return {os.path.basename(path): sum_of(path) for path in self.logs("folders")}

    def refuse_damaged(self) -> None:
        """Raise RefusedError unless every log is whole: half of one cannot be carried out."""
        with files.explained(self._layout, self._name):
            now = self.sums()
            for name, noted in self.state.sums.items():
                if now.get(name) != noted:
                    log = os.path.join(self.folder, os.path.basename(name))
                    raise damaged_log(
                        log, "it is not as the run left it" if name in now else "it is gone"
                    )
            for log in self.logs("folders", "late"):
                name = os.path.basename(log)
                if name in self.state.sums:
                    continue
                # The whole look was on disk before the first change. Only a later log may be cut.
                is_cut = whole_lines(log) != os.path.getsize(log)
                if name.startswith("folders.") and is_cut:
                    raise damaged_log(log, "its last line is cut")
                self._refuse_strange(log)

    def remove(self) -> None:
        """Delete a run that has changed nothing."""
        _forget(self._layout, self._name)
        self.close()

    def close(self) -> None:
        """Release the lock. The paths from ``path`` and ``logs`` lead nowhere after this."""
        self._held.close()

    def path(self, kind: str, worker: int) -> str:
        """The path of a worker's log of this kind (folders, late)."""
        return os.path.join(self.folder, f"{kind}.{worker}")

    def logs(self, *kinds: str) -> list[str]:
        """The paths of all logs of these kinds."""
        with files.explained(self._layout, self._name):
            names = sorted(
                name for name in os.listdir(self.folder) if name.partition(".")[0] in kinds
            )
        return [os.path.join(self.folder, name) for name in names]

    def refuse_forged(self) -> None:
        """Raise RefusedError for a journal that no run wrote: its paths may leave the root."""
        with files.explained(self._layout, self._name):
            entries = list(os.scandir(self.folder))
            if not all(entry.is_file(follow_symlinks=False) for entry in entries):
                raise read_runs.damaged(self._layout, self.state.run)
            # Only root can write the journals of this machine, and a long one takes time to read.
            for log in () if self._layout.is_host else self.logs("folders", "late"):
                self._refuse_strange(log)

    def _refuse_strange(self, log: str) -> None:
        for note in read(log):
            if not 0 <= note.volume < len(self.state.volumes):
                raise damaged_log(log, f"the run has no volume {note.volume}")


def runs(layout: Layout, near: RunState | None = None) -> list[RunState]:
    """All runs that have a journal, oldest first.

    With ``near``, a damaged run is left out if it does not concern that run's volumes. Raises
    RefusedError for any other damaged run, and NotPermittedError if we may not read the journals.
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
        # No run made the symlink, so what it leads to proves nothing.
        return True
    volumes = _noted_volumes(layout, name)
    if volumes is None:
        # Nothing shows where the run worked. If it began to change something, one of its logs has
        # content.
        with (
            closing(Journal(layout, replace(near, run=name))) as log,
            files.explained(layout, f"{RUNS}/{name}"),
        ):
            return any(os.path.getsize(path) for path in log.logs(*_LOGS))
    return near.overlaps(replace(near, volumes=volumes))


def _noted_volumes(layout: Layout, name: str) -> tuple[NotedVolume, ...] | None:
    """The volumes of a run, from the copy beside run.json or from its rest; None if unknown."""
    for place in (_TREES, "run.json"):
        with suppress(UsernsplanError, ValueError, LookupError, TypeError, RecursionError):
            content = json.loads(files.read(layout, f"{RUNS}/{name}/{place}") or b"")
            volumes = tuple(map(NotedVolume.from_json, content["trees"]))
            if place != _TREES and content.get("format") in {1, 2}:
                # These formats have paths of the machine, not names below the root.
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
        hint = (
            f"'{layout.command('history --runs')}' lists the runs; {layout.path(RUNS)} has a folder"
            " for each"
        )
        raise UnknownNameError(f"there is no run {shown_path(name)!r}", hint=hint)
    return state


def later(layout: Layout, state: RunState) -> list[RunState]:
    """The runs after this one on the same volumes, oldest first. Raises HostChangedError."""
    every = runs(layout, state)
    names = [run.run for run in every]
    if state.run not in names:
        raise HostChangedError(f"another process removed run {state.run} in the meantime")
    after = every[names.index(state.run) + 1 :]
    return [run for run in after if run.overlaps(state)]


def begin(
    layout: Layout, state: RunState, check: Callable[[Sequence[RunState]], None] = lambda _: None
) -> Journal:
    """Make the folder of a new run and hold its lock; ``state.run`` gets a suffix if it is taken.

    ``check`` is called with all runs under the lock, when no other run can begin or resume. Raises
    LockBusyError if another run is at work on one of the volumes, and what ``check`` raises.
    """
    files.make_folder(layout, os.path.dirname(RUNS), 0o700)
    files.make_folder(layout, RUNS, 0o700)
    with _lock(layout):
        every = runs(layout, state)
        for other in every:
            if other.overlaps(state):
                now = at_rest(layout, other)
            else:
                now = other if is_at_work(layout, other) else _state(layout, other.run)
            if now and now.state == LOOKING and not is_at_work(layout, now):
                # It was killed before it changed anything, so nobody needs it.
                _forget(layout, f"{RUNS}/{other.run}")
        check(every)

        taken = set(read_runs.names(layout))
        names = (state.run if number == 1 else f"{state.run}.{number}" for number in count(1))
        state = replace(state, run=next(name for name in names if name not in taken))

        name = f"{RUNS}/{state.run}"
        files.make_folder(layout, name, 0o700)
        with files.explained(layout, RUNS), files.pinned(layout, name) as place:
            files.sync_folder(place.folder)

        journal = Journal(layout, state, _lock(layout, state.run))
        text = json.dumps({"trees": list(map(asdict, state.volumes))}) + "\n"
        files.write(layout, {f"{name}/{_TREES}": text.encode()})
        journal.set()
    return journal


def resume(layout: Layout, state: RunState) -> Journal:
    """Take over a run that is no longer at work, if it still is as ``state`` says.

    Raises LockBusyError if it is at work, or another run is on the same volumes; HostChangedError
    if it is no longer as ``state`` says; RefusedError if another run on the same volumes is
    unfinished.
    """
    files.make_folder(layout, RUNS, 0o700)
    with _lock(layout), _lock(layout, state.run) as lock:
        for other in runs(layout, state):
            if other.run == state.run or not other.overlaps(state):
                continue
            now = at_rest(layout, other)
            if now and now.state in {CHANGING, UNDOING}:
                undo = layout.command(f"undo {shell(other.run)}")
                raise RefusedError(
                    f"run {other.run} on the same volume is unfinished",
                    hint=f"finish it, or undo it: {undo}",
                )
        if run(layout, state.run) != state:
            raise HostChangedError(f"another process resumed run {state.run} in the meantime")

        journal = Journal(layout, state, lock.pop_all())
        try:
            journal.refuse_forged()
        except BaseException:
            journal.close()
            raise
        return journal


def is_at_work(layout: Layout, state: RunState) -> bool:
    """Tell whether a process still holds the run's lock. Nothing is written for that."""
    return read_runs.is_at_work(layout, state.run)


def at_rest(layout: Layout, state: RunState) -> RunState | None:
    """The run as it is while no process is at work on it; None if its journal is gone.

    Raises LockBusyError while a process is at work on it.
    """
    if is_at_work(layout, state):
        raise busy(state.run)
    # It may have ended since its state was read, and before its lock was looked at.
    return _state(layout, state.run)


def refuse_half_known(layout: Layout, state: RunState) -> None:
    """Raise RefusedError for a run of an older version that did not note all that failed."""
    content = read_runs.content(layout, state.run)
    if content and not _can_be_finished(content):
        raise RefusedError(
            f"run {state.run} on {', '.join(state.places(layout))} was interrupted and cannot be"
            " finished: an older usernsplan began it, which did not note all that failed, and its"
            " map overlaps itself",
            hint=f"undo it, then run again: {layout.command(f'undo {shell(state.run)}')}",
        )


def _can_be_finished(content: dict[str, Any]) -> bool:
    """Tell whether run.json has all that is needed to finish the run.

    Format 1 shortened the list of failed entries for readers. With a map that overlaps itself, an
    entry that is not in the list would be moved twice, or not at all. If the list is empty, it was
    not shortened.
    """
    overlaps = content.get("staging") is not None
    return (
        content["format"] > 1
        or not overlaps
        or not (content.get("failed") or content.get("retried"))
    )


@contextmanager
def alone(layout: Layout, *, write: bool = True) -> Iterator[None]:
    """Let no run begin or resume inside this context.

    Nothing is locked without ``write``, or before the first run.
    """
    with ExitStack() as held:
        with suppress(FileNotFoundError, NotADirectoryError):
            if write and stat.S_ISDIR(files.look(layout, RUNS, follow=True).st_mode):
                held.enter_context(_lock(layout))
        yield


def new_name() -> str:
    """The name of a run that starts now: the time in UTC."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime())


def _lock(layout: Layout, run: str = "") -> ExitStack:
    """Hold the lock of a run; without a run wait for the lock of all runs.

    The result releases it. Workers inherit the lock of a run, so it is free only when the last of
    them is gone. Raises LockBusyError if another process has the lock of the run.
    """
    name = f"{RUNS}/{run}/{read_runs.LOCK}" if run else f"{RUNS}/{read_runs.LOCK}"
    flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with files.explained(layout, name), files.pinned(layout, name) as place, ExitStack() as held:
        descriptor = os.open(place.path, flags, 0o600)
        held.callback(os.close, descriptor)
        try:
            if run:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                locks.wait_for(descriptor, shown_path(layout.path(name)))
        except BlockingIOError as error:
            raise busy(run) from error
        return held.pop_all()


def _forget(layout: Layout, name: str) -> None:
    """Delete the folder of a run that changed nothing; one that cannot be deleted does no harm."""
    import shutil  # noqa: PLC0415 - seldom needed

    with suppress(OSError, RefusedError), files.pinned(layout, name) as place:
        shutil.rmtree(place.path, ignore_errors=True)


def busy(run: str) -> LockBusyError:
    """The error for a run that is at work on the same volume."""
    return LockBusyError(
        f"run {run} is at work on this volume", hint="wait until it has finished, and run again"
    )


def _state(layout: Layout, name: str) -> RunState | None:
    """Read run.json; None if a kill left a folder without one. Raises DamagedRunError."""
    raw = read_runs.text(layout, name)
    return None if raw is None else _parsed(layout, name, raw)


# A command reads all runs several times, because another one may change them; few of them change.
@lru_cache(maxsize=1024)
def _parsed(layout: Layout, name: str, raw: bytes) -> RunState:
    content = read_runs.parsed(layout, name, raw)
    try:
        return RunState.from_json(content, name)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise read_runs.damaged(layout, name) from error
