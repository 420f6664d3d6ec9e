"""The workers of the fixer and how they share the work.

A worker handles whole folders, each as its current directory. During the look, a worker without
work takes over half of what another still has to do. Later each carries out its own part of the
journal.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan.errors import UsernsplanError, reason_of
from usernsplan.volume.forked import Workers
from usernsplan.volume.parts import TOP
from usernsplan.volume.workers import obey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from usernsplan.volume.seen import Done, Seen
    from usernsplan.volume.walk import OpenVolume, Waiting
    from usernsplan.volume.workers import Carry, Late, Look, Prove, Tops


class Crew(Workers):
    """The workers for some volumes, as a context; see Workers."""

    def __init__(
        self, volumes: Sequence[OpenVolume], jobs: int, tick: Callable[[int], None] = lambda _: None
    ) -> None:
        super().__init__(jobs, partial(obey, volumes=volumes), tick)
        self._volumes = volumes

    def __enter__(self) -> Self:
        try:
            return super().__enter__()
        except OSError as error:
            raise UsernsplanError(
                f"cannot start a worker process: {reason_of(error)}", hint="try --jobs 1"
            ) from error

    def look(self, orders: Sequence[Look]) -> list[Seen]:
        """Look at everything in the volumes. ``orders`` has one order for each worker."""
        self.board.clear()
        for worker, order in zip(self.workers, orders, strict=True):
            self.send(worker, order)

        waiting: list[list[Waiting]] = [
            [(number, TOP, [""], orders[0].seen_before)] for number in range(len(self._volumes))
        ]
        while True:
            for worker in self.workers:
                if not worker.busy and waiting:
                    self.send(worker, waiting.pop())
                    worker.busy = True
            if not any(worker.busy for worker in self.workers):
                break

            self.ask_to_share()
            for worker, message in self.answers(self.workers):
                if message is None:
                    worker.busy = False
                else:
                    waiting.append(message)

        for worker in self.workers:
            self.send(worker, None)
        return [self.receive(worker) for worker in self.workers]

    def each(self, orders: Sequence[Carry | Prove | Late | Tops]) -> list[Done]:
        """Give each worker its order, and wait for all."""
        self.board.clear()
        given = self.workers[: len(orders)]
        for worker, order in zip(given, orders, strict=True):
            self.send(worker, order)
            worker.busy = True

        done: list[Done] = []
        while any(worker.busy for worker in given):
            for worker, message in self.answers(given):
                worker.busy = False
                done.append(message)
        return done
