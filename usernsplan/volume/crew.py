"""The processes that do the work, and how they share it. Threads would wait for each other in Python.

Each worker owns whole folders: it stands in one and works there. While looking, a worker that has nothing left gets
half of what another still has before it; after that each carries out its own part of the journal. Workers do not listen
to signals: the parent does, and asks them through a shared page of memory to stop between two folders.
"""

from __future__ import annotations

import gc
import os
import select
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from usernsplan.errors import RefusedError, UsernsplanError, reason_of
from usernsplan.volume.workers import (
    TOLD,
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
    """One worker as the parent sees it."""

    pid: int
    line: socket.socket
    busy: bool = False


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
            serve(Line(theirs, number, self.board), self._volumes)
        theirs.close()
        self._workers.append(_Worker(pid, ours))

    def look(self, orders: Sequence[Look]) -> list[Seen]:
        """Have everything in the volumes looked at; each worker has its own order."""
        self.board.clear()
        for worker, order in zip(self._workers, orders, strict=True):
            self._tell(worker, order)
        waiting: list[list[Waiting]] = [
            [(number, (), [""], orders[0].seen_before)] for number in range(len(self._volumes))
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
            send(worker.line, message)
        except ConnectionError as gone:
            raise _killed(worker) from gone

    def _answer(self, worker: _Worker) -> Any:  # noqa: ANN401 - whatever the order asks for
        try:
            error, message = receive(worker.line)
        except (EOFError, ConnectionError) as gone:
            raise _killed(worker) from gone
        if error == TOLD:
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
        hint="nothing is lost: run the same command again",
    )
