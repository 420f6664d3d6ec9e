"""Progress of a run on standard error: a bar on a terminal, otherwise a line every ten seconds."""

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
# A short run needs no bar: it would only flicker, and rich takes 60 ms to import.
_AFTER = 0.5


@contextmanager
def watching() -> Iterator[Watch]:
    """Show the progress of the run in the body."""
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
        of = f" of {self._total}" if self._total else ""
        say(f"{escape.line(self._what)}: {entries}{of} entries, {self._pace(entries)}")

    def _pace(self, entries: int) -> str:
        """Entries in a second since the part began, and how long the rest takes at that."""
        rate = entries / max(time.monotonic() - self._begun, 0.001)
        if not (self._total and rate and entries < self._total):
            return f"{rate:.0f}/s"
        return f"{rate:.0f}/s, {(self._total - entries) / rate:.0f} s left"

    def warn(self, text: str) -> None:
        """See Watch."""
        say(escape.told(f"warning: {text}"))

    def end(self) -> None:
        """See Watch; lines need no cleaning up."""


class _Bar(_Lines):
    """A bar with rate and time left. Each tick draws it: a thread would not survive a fork."""

    def __init__(self) -> None:
        super().__init__()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def begin(self, what: str, total: int | None) -> None:
        """See Watch."""
        super().begin(what, total)
        if self._progress and self._task is not None:
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(escape.line(what), total=total, pace="")

    def tick(self, entries: int) -> None:
        """See Watch."""
        if self._progress is None:
            if time.monotonic() - self._begun < _AFTER:
                return
            self._progress = _drawn()
            self._progress.start()
            self._task = self._progress.add_task(
                escape.line(self._what), total=self._total, pace=""
            )
        if self._task is not None:
            self._progress.update(self._task, completed=entries, pace=self._pace(entries))
            self._progress.refresh()

    def end(self) -> None:
        """Remove the bar; the report follows."""
        if self._progress:
            self._progress.stop()


def _drawn() -> Progress:
    from rich.console import Console  # noqa: PLC0415 - only for long runs on a terminal
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    return Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
