"""Forked workers, and how they and their parent talk; threads would wait for Python's lock.

Orders and answers are values that are sent through a socket. Workers ignore signals: the parent
receives them, and through a shared page of memory asks the workers to stop between two folders.
"""

from __future__ import annotations

import gc
import io
import mmap
import os
import pickle
import select
import signal
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from usernsplan.errors import RefusedError, UsernsplanError
from usernsplan.values import dataclass
from usernsplan.volume import walk
from usernsplan.volume.parts import TOP, Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

# The largest number of workers.
MOST = 64
_TICK_MS = 100
# Offsets in the shared page: a byte that stops all workers, then for each worker a byte that asks
# it to share its work, and a counter of entries.
_STOP, _SHARE, _COUNTERS = 0, 1, 512
_SIZE = struct.Struct("Q")
# The kinds of error with which a worker ends: one to show to the user, or a bug of ours.
_USER_ERROR, _BUG = "user error", "bug"


class Board:
    """The page of memory that the parent and its workers share."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def stopped(self) -> bool:
        """Tell whether all workers stop at their next folder."""
        return self._page[_STOP] != 0

    def stop(self) -> None:
        """Ask all workers to stop; safe in a signal handler."""
        self._page[_STOP] = 1

    def asked(self, worker: int) -> bool:
        """Tell whether the parent asks this worker to share its work."""
        return self._page[_SHARE + worker] != 0

    def ask(self, worker: int, *, share: bool) -> None:
        """Ask a worker to share its work, or withdraw that."""
        self._page[_SHARE + worker] = share

    def count(self, worker: int, entries: int) -> None:
        """Note how many entries of the current order a worker has done."""
        _SIZE.pack_into(self._page, _COUNTERS + _SIZE.size * worker, entries)

    def counted(self) -> int:
        """How many entries of the current order all workers have done."""
        return sum(
            _SIZE.unpack_from(self._page, _COUNTERS + _SIZE.size * worker)[0]
            for worker in range(MOST)
        )

    def clear(self) -> None:
        """Set all counters to zero."""
        for worker in range(MOST):
            self.count(worker, 0)


class Line:
    """A worker's end of the socket to its parent."""

    def __init__(self, line: socket.socket, number: int, board: Board) -> None:
        self.line, self.number, self.board = line, number, board
        self._parent = os.getppid()
        self._looked = 0

    def goes_on(self, entries: int) -> bool:
        """Note how many entries of its order this worker has done; tell whether to go on."""
        self.board.count(self.number, entries)
        # A worker whose parent is gone stops, because the next run may begin at any moment.
        return not self.board.stopped and os.getppid() == self._parent

    def given(self, stack: list[walk.Waiting]) -> list[walk.Waiting]:
        """What this worker gives away of its stack, before it takes the next folder of it."""
        # To send a place takes as long as it is deep. So do as much before: two workers who take a
        # deep chain from each other, folder by folder, would never come to its end.
        is_due = self.board.asked(self.number) and self._looked >= stack[0][1].depth
        given = walk.half(stack) if is_due else []
        if given:
            self.board.ask(self.number, share=False)
            self._looked = 0
        self._looked += 1
        return given

    def receive(self) -> Any:  # noqa: ANN401 - what the parent sent
        """Wait for the parent's next message. Raises EOFError or ConnectionError if it is gone."""
        self._looked = 0
        return receive(self.line)

    def reply(self, message: object) -> None:
        """Answer the parent."""
        send(self.line, ("", message))

    def serve(self, obey: Callable[[Line], None]) -> NoReturn:
        """Obey the parent until it closes the socket."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        gc.disable()
        try:
            obey(self)
        except (EOFError, ConnectionError):
            os._exit(0)
        except UsernsplanError as error:
            self._report(_USER_ERROR, (str(error), error.hint, error.exit_status))
        except BaseException:  # noqa: BLE001 - the parent shows it
            import traceback  # noqa: PLC0415 - only for a bug

            self._report(_BUG, traceback.format_exc())
        os._exit(1)

    def _report(self, kind: str, message: object) -> None:
        with suppress(OSError):  # the parent is gone: nobody reads it
            send(self.line, (kind, message))


@dataclass(slots=True)
class Worker:
    """One worker, as its parent sees it."""

    pid: int
    line: socket.socket
    busy: bool = False


class Workers:
    """Forked workers that obey, as a context.

    ``tick`` is called at least every tenth of a second, with the number of entries done.
    """

    def __init__(
        self, jobs: int, obey: Callable[[Line], None], tick: Callable[[int], None] = lambda _: None
    ) -> None:
        self.jobs = jobs
        self._obey = obey
        self._tick = tick
        self.workers: list[Worker] = []
        self.board = Board()

    def __enter__(self) -> Self:
        """Start them. Raises OSError if there can be no more processes."""
        # The workers' garbage collectors skip the objects of the parent: their pages stay shared.
        gc.freeze()
        try:
            for number in range(self.jobs):
                self._start(number)
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.board.stop()
        for worker in self.workers:
            worker.line.close()
        for worker in self.workers:
            # If SIGCHLD is ignored, as a parent may have left it, the kernel reaps our children.
            with suppress(ChildProcessError):
                os.waitpid(worker.pid, 0)

    def _start(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            for line in (ours, *(worker.line for worker in self.workers)):
                line.close()
            Line(theirs, number, self.board).serve(self._obey)
        theirs.close()
        self.workers.append(Worker(pid, ours))

    def ask_to_share(self) -> None:
        """Ask the busy workers to share their work, if another has none."""
        is_one_idle = not all(worker.busy for worker in self.workers)
        for number, worker in enumerate(self.workers):
            self.board.ask(number, share=is_one_idle and worker.busy)

    def answers(self, of: Iterable[Worker]) -> list[tuple[Worker, Any]]:
        """The answers that the busy ones of these have sent, after at most a tenth of a second."""
        busy = [worker for worker in of if worker.busy]
        poll = select.poll()
        for worker in busy:
            poll.register(worker.line, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(_TICK_MS)}
        answers = [(one, self.receive(one)) for one in busy if one.line.fileno() in ready]
        # After the last answer the count is full, and so is the last picture.
        self._tick(self.board.counted())
        return answers

    def send(self, worker: Worker, message: object) -> None:
        """Send a worker an order, or a part of one."""
        try:
            send(worker.line, message)
        except ConnectionError as gone:
            raise _killed(worker) from gone

    def receive(self, worker: Worker) -> Any:  # noqa: ANN401 - the answer that the order asks for
        """Wait for a worker's answer. Raises the error with which it ended."""
        try:
            error, message = receive(worker.line)
        except (EOFError, ConnectionError) as gone:
            raise _killed(worker) from gone
        if error == _USER_ERROR:
            text, hint, status = message
            kind = RefusedError if status == RefusedError.exit_status else UsernsplanError
            raise kind(text, hint=hint)
        if error:
            raise RuntimeError(message)
        return message


def default_jobs() -> int:
    """One worker for each processor that this process may use."""
    return min(len(os.sched_getaffinity(0)), MOST)


def _killed(worker: Worker) -> UsernsplanError:
    return UsernsplanError(
        f"a worker (process {worker.pid}) was killed",
        hint="nothing is lost: run the same command again",
    )


class _Pickler(pickle.Pickler):
    """Writes each place as the way to it from the one before, so that many deep ones stay short."""

    _before = TOP

    def reducer_override(self, one: object) -> Any:  # noqa: ANN401 - see pickle
        if not isinstance(one, Parts):
            return NotImplemented
        if one is TOP:
            return "TOP"
        before, self._before = self._before, one
        kept = one.shared(before)
        return Parts.branch, (before, kept, one.since(kept))


def send(line: socket.socket, message: object) -> None:
    """Send a message to the other end."""
    raw = io.BytesIO()
    _Pickler(raw, pickle.HIGHEST_PROTOCOL).dump(message)
    line.sendall(_SIZE.pack(raw.tell()) + raw.getbuffer())


def receive(line: socket.socket) -> Any:  # noqa: ANN401 - what the other side sent
    """Wait for a message. Raises EOFError or ConnectionError if the other end is gone."""
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
