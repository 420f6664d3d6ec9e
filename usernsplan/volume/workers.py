"""The processes that do the work, and how they share it. Threads would wait for each other in Python.

Each worker owns whole folders: it stands in one and works there. While looking, a worker that has nothing left gets
half of what another still has before it; after that each carries out its own part of the journal. Workers do not listen
to signals: the parent does, and asks them through a shared page of memory to stop between two folders.
"""

from __future__ import annotations

import errno
import gc
import mmap
import os
import pickle
import select
import signal
import socket
import struct
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

from usernsplan.errors import RefusedError, UsernsplanError, reason_of
from usernsplan.volume import journal, walk
from usernsplan.volume.carry import Carrier, Done, Looker, Rules, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from usernsplan.volume.journal import Folder
    from usernsplan.volume.targets import Pass
    from usernsplan.volume.walk import OpenVolume

MOST = 64
# On the shared page: one byte to stop, one for each worker that is asked to share, a counter of entries for each.
_STOP, _SHARE, _COUNTERS = 0, 1, 512
_SIZE = struct.Struct("Q")
_TICK_MS = 100
# What a worker's last words are: an error of the user's, or of ours.
_TOLD, _BUG = "told", "bug"

Place = tuple[int, tuple[str, ...]]
# Folders to be looked at: of which tree, below which parts, their names, and their seen_before (see step).
Waiting = tuple[int, tuple[str, ...], list[str], int]


@dataclass(frozen=True, slots=True)
class Look:
    """The order to look at folders; ``log``: where to note them, None where nothing is to be written, nor changed."""

    turn: Pass
    seen_before: int
    log: str | None


@dataclass(frozen=True, slots=True)
class Carry:
    """The order to carry logs out; ``run``: the folder of the run, None where nothing is to be written."""

    rules: Rules
    logs: tuple[str, ...]
    run: str | None


@dataclass(frozen=True, slots=True)
class Prove:
    """The order to change one entry of each file system, and see whether it takes owners.

    ``known`` are devices that do. ``whole``: read the logs to their ends, because mounts are entered, and one of them
    may be met only there.
    """

    rules: Rules
    logs: tuple[str, ...]
    run: str
    known: frozenset[int]
    whole: bool


@dataclass(frozen=True, slots=True)
class Late:
    """The order to look once more where something was not as noted, or a folder got or lost names since ``since``.

    ``deep``: at everything, because a folder was not where it had been noted, and what lies in it may be anywhere.
    """

    rules: Rules
    since: int
    logs: tuple[str, ...]
    log: str
    run: str
    deep: bool


@dataclass(frozen=True, slots=True)
class Tops:
    """The order to change the tops of the volumes themselves."""

    rules: Rules
    notes: tuple[Folder, ...]
    run: str | None


@dataclass(slots=True)
class _Worker:
    """One worker as the parent sees it."""

    pid: int
    line: socket.socket
    busy: bool = False


class Board:
    """The page of memory that parent and workers share."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def stopped(self) -> bool:
        """Tell whether everybody is to stop at the next folder."""
        return self._page[_STOP] != 0

    def stop(self) -> None:
        """Ask everybody to stop; safe in a signal handler."""
        self._page[_STOP] = 1

    def asked(self, worker: int) -> bool:
        """Tell whether this worker is to share its work."""
        return self._page[_SHARE + worker] != 0

    def ask(self, worker: int, *, share: bool) -> None:
        """Ask a worker to share, or no longer."""
        self._page[_SHARE + worker] = share

    def count(self, worker: int, entries: int) -> None:
        """Note how many entries a worker is through with, of the order at hand."""
        _SIZE.pack_into(self._page, _COUNTERS + _SIZE.size * worker, entries)

    def counted(self) -> int:
        """How many entries all workers are through with."""
        return sum(
            _SIZE.unpack_from(self._page, _COUNTERS + _SIZE.size * worker)[0]
            for worker in range(MOST)
        )

    def clear(self) -> None:
        """Start counting anew."""
        for worker in range(MOST):
            self.count(worker, 0)


class Crew:
    """Forked workers, as a context. ``tick`` is called, with the entries counted, at least every tenth of a second."""

    def __init__(
        self, volumes: Sequence[OpenVolume], jobs: int, tick: Callable[[int], None] = lambda _: None
    ) -> None:
        self._volumes = volumes
        self.jobs = jobs
        self._tick = tick
        self._workers: list[_Worker] = []
        self.board = Board()

    def __enter__(self) -> Self:
        # What the parent has, no worker needs to look through again and again.
        gc.freeze()
        try:
            for number in range(self.jobs):
                self._hire(number)
        except OSError as error:
            self.__exit__()
            reason = reason_of(error)
            raise UsernsplanError(
                f"a worker process could not be started: {reason}", hint="try --jobs 1"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.board.stop()
        for worker in self._workers:
            worker.line.close()
        for worker in self._workers:
            with suppress(ChildProcessError):  # whoever started us ignores SIGCHLD
                os.waitpid(worker.pid, 0)

    def _hire(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            for line in (ours, *(worker.line for worker in self._workers)):
                line.close()
            _serve(_Line(theirs, number, self.board), self._volumes)
        theirs.close()
        self._workers.append(_Worker(pid, ours))

    def look(self, orders: Sequence[Look], trees: int) -> list[Seen]:
        """Have everything in so many trees looked at; each worker has its own order."""
        self.board.clear()
        for worker, order in zip(self._workers, orders, strict=True):
            self._tell(worker, order)
        waiting: list[list[Waiting]] = [
            [(tree, (), [""], orders[0].seen_before)] for tree in range(trees)
        ]
        found: list[Seen] = []
        while True:
            for worker in self._workers:
                if not worker.busy and waiting:
                    self._tell(worker, waiting.pop())
                    worker.busy = True
            hungry = any(not worker.busy for worker in self._workers)
            if not any(worker.busy for worker in self._workers):
                break
            for number, worker in enumerate(self._workers):
                self.board.ask(number, share=hungry and worker.busy)
            for worker, message in self._heard():
                if message is None:
                    worker.busy = False
                else:
                    waiting += [[part] for part in message]
        for worker in self._workers:
            self._tell(worker, None)
            found.append(self._answer(worker))
        return found

    def each(self, orders: Sequence[Carry | Prove | Late | Tops]) -> list[Done]:
        """Give each worker its order, and wait for all."""
        self.board.clear()
        done: list[Done] = []
        given = self._workers[: len(orders)]
        for worker, order in zip(given, orders, strict=True):
            self._tell(worker, order)
            worker.busy = True
        while any(worker.busy for worker in given):
            for worker, message in self._heard():
                worker.busy = False
                done.append(message)
        return done

    def _heard(self) -> list[tuple[_Worker, Any]]:
        """What busy workers have said by now, after at most a tenth of a second."""
        poll = select.poll()
        for worker in self._workers:
            if worker.busy:
                poll.register(worker.line, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(_TICK_MS)}
        self._tick(self.board.counted())
        return [
            (worker, self._answer(worker))
            for worker in self._workers
            if worker.line.fileno() in ready
        ]

    def _tell(self, worker: _Worker, message: object) -> None:
        try:
            _send(worker.line, message)
        except ConnectionError as gone:
            raise _killed(worker) from gone

    def _answer(self, worker: _Worker) -> Any:  # noqa: ANN401 - whatever the order asks for
        try:
            error, message = _receive(worker.line)
        except (EOFError, ConnectionError) as gone:
            raise _killed(worker) from gone
        if error == _TOLD:
            text, hint, status = message
            raise (RefusedError if status == RefusedError.exit_status else UsernsplanError)(
                text, hint=hint
            )
        if error:
            raise RuntimeError(message)
        return message


def _killed(worker: _Worker) -> UsernsplanError:
    return UsernsplanError(
        f"a worker (process {worker.pid}) was killed",
        hint="nothing is lost: run again with the same words",
    )


class _Line:
    """A worker's end."""

    def __init__(self, line: socket.socket, number: int, board: Board) -> None:
        self.line, self.number, self.board = line, number, board
        self._parent = os.getppid()
        self.counted = 0

    def goes_on(self, entries: int) -> bool:
        """Note what was done since; tell whether to go on."""
        self.counted += entries
        self.board.count(self.number, self.counted)
        # Whoever is left alone stops: the next run may be about to begin.
        return not self.board.stopped and os.getppid() == self._parent

    def say(self, message: object) -> None:
        _send(self.line, ("", message))


def _serve(line: _Line, volumes: Sequence[OpenVolume]) -> None:
    """Do what the parent orders, until it hangs up. Never returns."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    gc.disable()
    try:
        _obey(line, volumes)
    except (EOFError, ConnectionError):
        os._exit(0)
    except UsernsplanError as error:
        _last_words(line, _TOLD, (str(error), error.hint, error.exit_status))
    except OSError as error:
        # Entries' errors are caught where they happen: this is the journal's.
        reason = reason_of(error)
        words = (
            f"the journal of the run: {reason}",
            "make room, and run again with the same words",
            1,
        )
        _last_words(line, _TOLD, words)
    except BaseException:  # noqa: BLE001 - the parent shows it
        _last_words(line, _BUG, traceback.format_exc())
    os._exit(1)


def _obey(line: _Line, volumes: Sequence[OpenVolume]) -> NoReturn:
    again: list[Place] = []
    while True:
        order = _receive(line.line)
        line.counted = 0
        match order:
            case Look():
                line.say(_look(line, volumes, order))
            case Carry():
                again.clear()
                line.say(_carry(line, volumes, order, again))
            case Prove():
                line.say(_prove(volumes, order))
            case Late():
                line.say(_late(line, volumes, order, again))
            case Tops():
                line.say(_tops(volumes, order))


def _last_words(line: _Line, kind: str, message: object) -> None:
    try:
        _send(line.line, (kind, message))
    except OSError:
        os._exit(1)


def _look(line: _Line, volumes: Sequence[OpenVolume], order: Look) -> Seen:
    looker = Looker(volumes, order.turn, dry=order.log is None)
    writer = journal.Writer(order.log) if order.log else None
    while (stack := _receive(line.line)) is not None:
        before = looker.found.entries
        while stack and line.goes_on(looker.found.entries - before):
            before = looker.found.entries
            if line.board.asked(line.number) and (given := _half(stack)):
                line.board.ask(line.number, share=False)
                line.say(given)
            tree, above, names, seen_before = stack[-1]
            name = names.pop()
            if not names:
                stack.pop()
            parts = (*above, name) if name else above
            notes, folders, seen_before = looker.look(tree, parts, seen_before)
            if writer:
                for note in notes:
                    writer.write(note)
            if folders:
                stack.append((tree, parts, folders, seen_before))
        line.say(None)
    if writer:
        writer.sync()
        writer.close()
    return looker.found


def _half(stack: list[Waiting]) -> list[Waiting]:
    """Take half of what waits nearest to the top away from it: the largest part that can be had at once."""
    tree, above, names, seen_before = stack[0]
    if len(names) > 1:
        half = names[: len(names) // 2]
        del names[: len(names) // 2]
        return [(tree, above, half, seen_before)]
    return [stack.pop(0)] if len(stack) > 1 else []


def _carry(line: _Line, volumes: Sequence[OpenVolume], order: Carry, again: list[Place]) -> Done:
    carrier = Carrier(volumes, order.rules, journal.Links(order.run) if order.run else None)
    before = 0
    for log in order.logs:
        for note in journal.read(log):
            if not line.goes_on(carrier.done.changed - before):
                return carrier.done
            before = carrier.done.changed
            if (note.changes() or not note.parts) and not carrier.carry(note):
                again.append((note.tree, note.parts))
    return carrier.done


def _prove(volumes: Sequence[OpenVolume], order: Prove) -> Done:
    carrier = Carrier(volumes, order.rules, journal.Links(order.run))
    proved: set[tuple[int, int]] = set()
    tops: list[Folder] = []
    for note in chain.from_iterable(map(journal.read, order.logs)):
        key = (note.tree, note.device)
        # A single file may be mounted, and then the device of its folder says nothing of it.
        is_known = key in proved or (note.device in order.known and not volumes[note.tree].only)
        if not is_known and note.changes():
            if not note.parts:
                tops.append(note)
            if carrier.prove(note, own=False) or (note.parts and carrier.prove(note, own=True)):
                proved.add(key)
        is_enough = not order.whole and len({tree for tree, _ in proved}) == len(volumes)
        if carrier.done.ignored or is_enough:
            return carrier.done
    # The top is the last to be changed, unless there is nothing else.
    for note in tops:
        if (note.tree, note.device) not in proved:
            carrier.prove(note, own=True)
    return carrier.done


def _late(line: _Line, volumes: Sequence[OpenVolume], order: Late, again: list[Place]) -> Done:
    looker = Looker(volumes, order.rules.turn, late=True, outside=order.rules.outside)
    carrier = Carrier(volumes, order.rules, journal.Links(order.run))
    writer: journal.Writer | None = None
    unseen: list[tuple[str, str]] = []

    def tells(question: Callable[[], bool], place: Place) -> bool:
        try:
            return question()
        except OSError as error:
            unseen.append((volumes[place[0]].shown(place[1]), reason_of(error)))
            return False

    todo = dict.fromkeys([(tree, ()) for tree in range(len(volumes))] if order.deep else again)
    for log in () if order.deep else order.logs:
        for note in journal.read(log):
            place = (note.tree, note.parts)
            if tells(partial(_touched, volumes, note, order.since), place):
                todo[place] = None
    stack = list(todo)
    while stack and line.goes_on(0):
        tree, parts = stack.pop()
        pieces, folders, _ = looker.look(tree, parts, first=False)
        for note in journal.joined(pieces):
            if note.changes():
                writer = writer or journal.Writer(order.log)
                writer.write(note)
                writer.sync()
                carrier.carry(note)
        below = [(tree, (*parts, name)) for name in folders]
        stack += [
            at
            for at in below
            if order.deep or tells(partial(_is_new, volumes[tree], at[1], looker), at)
        ]
    if writer:
        writer.close()
    done = carrier.done
    done.stragglers = done.changed
    done.skipped, done.tops = looker.found.skipped, []
    # What the journal has is tried again; nobody knows whose the others were.
    done.named += [*looker.found.failed, *unseen]
    done.unseen += [*looker.found.unseen, *unseen]
    return done


def _touched(volumes: Sequence[OpenVolume], note: Folder, since: int) -> bool:
    """Tell whether a folder got or lost a name since (ns), or is another one now."""
    now = _seen(volumes[note.tree], note.parts)
    return now is not None and (now.st_mtime_ns >= since or now.st_ino != note.inode)


def _is_new(volume: OpenVolume, parts: tuple[str, ...], looker: Looker) -> bool:
    """Tell whether a sub-folder has not been worked on: those that were, have their new owner."""
    now = _seen(volume, parts)
    return now is not None and looker.wanted(now[4:6]) != now[4:6]


def _seen(volume: OpenVolume, parts: tuple[str, ...]) -> os.stat_result | None:
    """A folder as it is now; None where there is none any more. Raises OSError where it cannot be told."""
    try:
        pinned = walk.folder(volume, parts)
    except OSError as error:
        if error.errno in walk.GONE | {errno.EXDEV}:
            return None
        raise
    try:
        return os.fstat(pinned)
    finally:
        os.close(pinned)


def _tops(volumes: Sequence[OpenVolume], order: Tops) -> Done:
    carrier = Carrier(volumes, order.rules, journal.Links(order.run) if order.run else None)
    for note in order.notes:
        top = volumes[note.tree].top
        os.fchdir(top)
        carrier.itself(note, top)
    return carrier.done


def _send(line: socket.socket, message: object) -> None:
    raw = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    line.sendall(_SIZE.pack(len(raw)) + raw)


def _receive(line: socket.socket) -> Any:  # noqa: ANN401 - what the other side sent
    [size] = _SIZE.unpack(_exactly(line, _SIZE.size))
    return pickle.loads(_exactly(line, size))  # noqa: S301 - from our own child or parent


def _exactly(line: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        piece = line.recv(min(size - len(got), 1 << 20))
        if not piece:
            raise EOFError
        got += piece
    return bytes(got)
