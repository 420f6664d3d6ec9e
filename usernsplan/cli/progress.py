"""How far a run is: a bar on a terminal, and otherwise a line every ten seconds. Always on standard error."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from usernsplan import escape
from usernsplan.cli import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID

    from usernsplan.volume.job import Watch

_EVERY = 10.0
# A bar that is gone before it can be read is only a flicker, and rich takes 60 ms to import.
_AFTER = 0.5


@contextmanager
def watching() -> Iterator[Watch]:
    """Show a run's progress while it lasts."""
    watch = (
        _Bar()
        if sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        else _Lines()
    )
    try:
        yield watch
    finally:
        watch.end()


class _Lines:
    """A line every ten seconds."""

    def __init__(self) -> None:
        self._what, self._total = "", None  # type: tuple[str, int | None]
        self._said = self._begun = time.monotonic()

    def begin(self, what: str, total: int | None) -> None:
        """See Watch."""
        self._what, self._total, self._begun = what, total, time.monotonic()

    def tick(self, entries: int) -> None:
        """See Watch."""
        now = time.monotonic()
        if now - self._said < _EVERY:
            return
        self._said = now
        rate = entries / max(now - self._begun, 0.001)
        of = f" of {self._total}" if self._total else ""
        left = (
            f", {(self._total - entries) / rate:.0f} s left"
            if self._total and rate and entries < self._total
            else ""
        )
        say(f"{escape.line(self._what)}: {entries}{of} entries, {rate:.0f}/s{left}")

    def warn(self, text: str) -> None:
        """See Watch."""
        say(escape.told(f"warning: {text}"))

    def end(self) -> None:
        """Nothing is left to be said."""


class _Bar:
    """A bar with rate and time left, drawn by us at each tick: a thread of its own would not survive a fork."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._what, self._total = "", None  # type: tuple[str, int | None]
        self._begun = time.monotonic()

    def begin(self, what: str, total: int | None) -> None:
        """See Watch."""
        self._what, self._total = what, total
        if self._progress and self._task is not None:
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(escape.line(what), total=total)

    def tick(self, entries: int) -> None:
        """See Watch."""
        if self._progress is None:
            if time.monotonic() - self._begun < _AFTER:
                return
            self._progress = _drawn()
            self._progress.start()
            self._task = self._progress.add_task(escape.line(self._what), total=self._total)
        if self._task is not None:
            self._progress.update(self._task, completed=entries)
            self._progress.refresh()

    def warn(self, text: str) -> None:
        """See Watch."""
        say(escape.told(f"warning: {text}"))

    def end(self) -> None:
        """Take the bar away: the report says it all."""
        if self._progress:
            self._progress.stop()


def _drawn() -> Progress:
    from rich.console import Console  # noqa: PLC0415 - only on a terminal, and only for a run that lasts
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text  # noqa: PLC0415

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:.0f}/s")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
