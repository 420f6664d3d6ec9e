"""The worker processes and how they share the work; threads would wait for Python's lock.

A worker handles whole folders, each as its current directory. During the look, a worker without
work takes over half of what another still has to do. Later each carries out its own part of the
journal. Workers ignore signals: the parent receives them, and through a shared page of memory asks
the workers to stop between two folders.
"""

from __future__ import annotations

import gc
import os
import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from usernsplan.errors import RefusedError, UsernsplanError, reason_of
from usernsplan.values import dataclass
from usernsplan.volume.parts import TOP
from usernsplan.volume.workers import (
    USER_ERROR,
    Board,
    Carry,
    Late,
    Line,
    Look,
    Prove,
    Tops,
    Waiting,
    receive,
    send,
    serve,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from usernsplan.volume.seen import Done, Seen
    from usernsplan.volume.walk import OpenVolume

_TICK_MS = 100


@dataclass(slots=True)
class _Worker:
    """One worker, as its parent sees it."""

    pid: int
    line: socket.socket
    busy: bool = False


class Crew:
    """Forked workers, as a context.

    ``tick`` is called at least every tenth of a second, with the number of entries done.
    """

    def __init__(
        self, volumes: Sequence[OpenVolume], jobs: int, tick: Callable[[int], None] = lambda _: None
    ) -> None:
        self._volumes = volumes
        self.jobs = jobs
        self._tick = tick
        self._workers: list[_Worker] = []
        self.board = Board()

    def __enter__(self) -> Self:
        # The workers' garbage collectors skip the objects of the parent: their pages stay shared.
        gc.freeze()
        try:
            for number in range(self.jobs):
                self._start(number)
        except OSError as error:
            self.__exit__()
            raise UsernsplanError(
                f"cannot start a worker process: {reason_of(error)}", hint="try --jobs 1"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.board.stop()
        for worker in self._workers:
            worker.line.close()
        for worker in self._workers:
            # If SIGCHLD is ignored, as a parent may have left it, the kernel reaps our children.
            with suppress(ChildProcessError):
                os.waitpid(worker.pid, 0)

    def _start(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            for line in (ours, *(worker.line for worker in self._workers)):
                line.close()
            serve(Line(theirs, number, self.board), self._volumes)
        theirs.close()
        self._workers.append(_Worker(pid, ours))

    def look(self, orders: Sequence[Look]) -> list[Seen]:
        """Look at everything in the volumes. ``orders`` has one order for each worker."""
        self.board.clear()
        for worker, order in zip(self._workers, orders, strict=True):
            self._send(worker, order)

        waiting: list[list[Waiting]] = [
            [(number, TOP, [""], orders[0].seen_before)] for number in range(len(self._volumes))
        ]
        while True:
            for worker in self._workers:
                if not worker.busy and waiting:
                    self._send(worker, waiting.pop())
                    worker.busy = True
            if not any(worker.busy for worker in self._workers):
                break

            is_one_idle = not all(worker.busy for worker in self._workers)
            for number, worker in enumerate(self._workers):
                self.board.ask(number, share=is_one_idle and worker.busy)
            for worker, message in self._answers():
                if message is None:
                    worker.busy = False
                else:
                    waiting.append(message)

        for worker in self._workers:
            self._send(worker, None)
        return [self._receive(worker) for worker in self._workers]

    def each(self, orders: Sequence[Carry | Prove | Late | Tops]) -> list[Done]:
        """Give each worker its order, and wait for all."""
        self.board.clear()
        given = self._workers[: len(orders)]
        for worker, order in zip(given, orders, strict=True):
            self._send(worker, order)
            worker.busy = True

        done: list[Done] = []
        while any(worker.busy for worker in given):
            for worker, message in self._answers():
                worker.busy = False
                done.append(message)
        return done

    def _answers(self) -> list[tuple[_Worker, Any]]:
        """The answers that busy workers have sent, after at most a tenth of a second."""
        poll = select.poll()
        for worker in self._workers:
            if worker.busy:
                poll.register(worker.line, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(_TICK_MS)}
        self._tick(self.board.counted())
        return [
            (worker, self._receive(worker))
            for worker in self._workers
            if worker.line.fileno() in ready
        ]

    def _send(self, worker: _Worker, message: object) -> None:
        try:
            send(worker.line, message)
        except ConnectionError as gone:
            raise _killed(worker) from gone

    def _receive(self, worker: _Worker) -> Any:  # noqa: ANN401 - the answer that the order asks for
        try:
            error, message = receive(worker.line)
        except (EOFError, ConnectionError) as gone:
            raise _killed(worker) from gone
        if error == USER_ERROR:
            text, hint, status = message
            kind = RefusedError if status == RefusedError.exit_status else UsernsplanError
            raise kind(text, hint=hint)
        if error:
            raise RuntimeError(message)
        return message


def _killed(worker: _Worker) -> UsernsplanError:
    return UsernsplanError(
        f"a worker (process {worker.pid}) was killed",
        hint="nothing is lost: run the same command again",
    )
