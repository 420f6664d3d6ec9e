"""What a worker does: it takes orders from the parent, and does each with its volumes until it is asked to stop.

Orders and answers are values that go through a socket; see crew for who gives which worker what.
"""

from __future__ import annotations

import errno
import gc
import mmap
import os
import pickle
import signal
import struct
import traceback
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

from usernsplan.errors import UsernsplanError, reason_of
from usernsplan.volume import logs, walk
from usernsplan.volume.carry import Forward, Rules
from usernsplan.volume.look import Foreseeing, LateLooker, Looker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from usernsplan.volume.passes import Pass
    from usernsplan.volume.seen import Done, Seen

MOST = 64
# On the shared page: one byte to stop, one for each worker that is asked to share, a counter of entries for each.
_STOP, _SHARE, _COUNTERS = 0, 1, 512
_SIZE = struct.Struct("Q")
# What a worker's last words are: an error of the user's, or of ours.
TOLD, BUG = "told", "bug"

# A folder: the number of its volume, and its parts.
FolderPlace = tuple[int, tuple[str, ...]]
# Folders to be looked at: the number of their volume, the parts above, their names, and their seen_before (see step).
Waiting = tuple[int, tuple[str, ...], list[str], int]


@dataclass(frozen=True, slots=True)
class Look:
    """The order to look at folders; ``log``: where to note them, None where nothing is to be written, nor changed."""

    pass_: Pass
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
    notes: tuple[logs.Folder, ...]
    run: str | None


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


class Line:
    """A worker's end of the line to its parent."""

    def __init__(self, line: socket.socket, number: int, board: Board) -> None:
        self.line, self.number, self.board = line, number, board
        self._parent = os.getppid()
        self.counted = 0

    def goes_on(self, entries: int) -> bool:
        """Note what was done since; tell whether to go on."""
        self.counted += entries
        self.board.count(self.number, self.counted)
        # A worker that lost its parent stops: the next run may be about to begin.
        return not self.board.stopped and os.getppid() == self._parent

    def say(self, message: object) -> None:
        """Answer the parent."""
        send(self.line, ("", message))


def serve(line: Line, volumes: Sequence[walk.OpenVolume]) -> None:
    """Do what the parent orders, until it hangs up. Never returns."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    gc.disable()
    try:
        _obey(line, volumes)
    except (EOFError, ConnectionError):
        os._exit(0)
    except UsernsplanError as error:
        _last_words(line, TOLD, (str(error), error.hint, error.exit_status))
    except OSError as error:
        # Entries' errors are caught where they happen: this is the journal's.
        reason = reason_of(error)
        words = (
            f"the journal of the run: {reason}",
            "make room, and run the same command again",
            1,
        )
        _last_words(line, TOLD, words)
    except BaseException:  # noqa: BLE001 - the parent shows it
        _last_words(line, BUG, traceback.format_exc())
    os._exit(1)


def _obey(line: Line, volumes: Sequence[walk.OpenVolume]) -> NoReturn:
    again: list[FolderPlace] = []
    while True:
        order = receive(line.line)
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


def _last_words(line: Line, kind: str, message: object) -> None:
    try:
        send(line.line, (kind, message))
    except OSError:
        os._exit(1)


def _look(line: Line, volumes: Sequence[walk.OpenVolume], order: Look) -> Seen:
    looker = Looker(volumes, order.pass_) if order.log else Foreseeing(volumes, order.pass_)
    writer = logs.Writer(order.log) if order.log else None
    while (stack := receive(line.line)) is not None:
        before = looker.found.entries
        while stack and line.goes_on(looker.found.entries - before):
            before = looker.found.entries
            if line.board.asked(line.number) and (given := _half(stack)):
                line.board.ask(line.number, share=False)
                line.say(given)
            number, above, names, seen_before = stack[-1]
            name = names.pop()
            if not names:
                stack.pop()
            parts = (*above, name) if name else above
            notes, folders, seen_before = looker.look(number, parts, seen_before)
            if writer:
                for note in notes:
                    writer.write(note)
            if folders:
                stack.append((number, parts, folders, seen_before))
        line.say(None)
    if writer:
        writer.sync()
        writer.close()
    return looker.found


def _half(stack: list[Waiting]) -> list[Waiting]:
    """Take half of what waits nearest to the top away from it: the largest part that can be had at once."""
    number, above, names, seen_before = stack[0]
    if len(names) > 1:
        half = names[: len(names) // 2]
        del names[: len(names) // 2]
        return [(number, above, half, seen_before)]
    return [stack.pop(0)] if len(stack) > 1 else []


def _carry(
    line: Line, volumes: Sequence[walk.OpenVolume], order: Carry, again: list[FolderPlace]
) -> Done:
    carrier = order.rules.carrier(volumes, logs.Links(order.run) if order.run else None)
    before = 0
    for log in order.logs:
        for note in logs.read(log):
            if not line.goes_on(carrier.done.changed - before):
                return carrier.done
            before = carrier.done.changed
            if (note.changes() or not note.parts) and not carrier.carry(note):
                again.append((note.volume, note.parts))
    return carrier.done


def _prove(volumes: Sequence[walk.OpenVolume], order: Prove) -> Done:
    carrier = Forward(volumes, order.rules, logs.Links(order.run))
    proved: set[tuple[int, int]] = set()
    tops: list[logs.Folder] = []
    for note in chain.from_iterable(map(logs.read, order.logs)):
        key = (note.volume, note.device)
        # A single file may be mounted, and then the device of its folder says nothing of it.
        is_known = key in proved or (note.device in order.known and not volumes[note.volume].only)
        if not is_known and note.changes():
            if not note.parts:
                tops.append(note)
            if carrier.prove(note, own=False) or (note.parts and carrier.prove(note, own=True)):
                proved.add(key)
        is_enough = not order.whole and len({number for number, _ in proved}) == len(volumes)
        if carrier.done.ignored or is_enough:
            return carrier.done
    # The top is the last to be changed, unless there is nothing else.
    for note in tops:
        if (note.volume, note.device) not in proved:
            carrier.prove(note, own=True)
    return carrier.done


def _late(
    line: Line, volumes: Sequence[walk.OpenVolume], order: Late, again: list[FolderPlace]
) -> Done:
    looker = LateLooker(volumes, order.rules.pass_, order.rules.outside)
    carrier = order.rules.carrier(volumes, logs.Links(order.run))
    writer: logs.Writer | None = None
    unseen: list[tuple[str, str]] = []

    def tells(question: Callable[[], bool], place: FolderPlace) -> bool:
        try:
            return question()
        except OSError as error:
            unseen.append((volumes[place[0]].shown(place[1]), reason_of(error)))
            return False

    todo = dict.fromkeys([(number, ()) for number in range(len(volumes))] if order.deep else again)
    for log in () if order.deep else order.logs:
        for note in logs.read(log):
            place = (note.volume, note.parts)
            if tells(partial(_touched, volumes, note, order.since), place):
                todo[place] = None
    stack = list(todo)
    while stack and line.goes_on(0):
        number, parts = stack.pop()
        pieces, folders, _ = looker.look(number, parts, first=False)
        for note in logs.joined(pieces):
            if note.changes():
                writer = writer or logs.Writer(order.log)
                writer.write(note)
                writer.sync()
                carrier.carry(note)
        below = [(number, (*parts, name)) for name in folders]
        stack += [
            at
            for at in below
            if order.deep or tells(partial(_is_new, volumes[number], at[1], looker), at)
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


def _touched(volumes: Sequence[walk.OpenVolume], note: logs.Folder, since: int) -> bool:
    """Tell whether a folder got or lost a name since (ns), or is another one now."""
    now = _seen(volumes[note.volume], note.parts)
    return now is not None and (now.st_mtime_ns >= since or now.st_ino != note.inode)


def _is_new(volume: walk.OpenVolume, parts: tuple[str, ...], looker: Looker) -> bool:
    """Tell whether a sub-folder has not been worked on: those that were, have their new owner."""
    now = _seen(volume, parts)
    return now is not None and looker.wanted(now[4:6]) != now[4:6]


def _seen(volume: walk.OpenVolume, parts: tuple[str, ...]) -> os.stat_result | None:
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


def _tops(volumes: Sequence[walk.OpenVolume], order: Tops) -> Done:
    carrier = order.rules.carrier(volumes, logs.Links(order.run) if order.run else None)
    for note in order.notes:
        top = volumes[note.volume].top
        os.fchdir(top)
        carrier.itself(note, top)
    return carrier.done


def send(line: socket.socket, message: object) -> None:
    """Send a message to the other end."""
    raw = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    line.sendall(_SIZE.pack(len(raw)) + raw)


def receive(line: socket.socket) -> Any:  # noqa: ANN401 - what the other side sent
    """Wait for a message. Raises EOFError and ConnectionError where the other end is gone."""
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
