"""Waiting for others: whoever shows what a command does says so, after a second, and names whom it waits for."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from usernsplan.escape import shown_path

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds; before that, nobody wonders.
_AFTER = 1.0
_PAUSE = 0.01
_listeners: list[Callable[[str], None]] = []


def listen(listener: Callable[[str], None]) -> None:
    """Have this called with what is waited for. Without a listener, as in a library, nothing is said."""
    _listeners[:] = [listener]


def until(attempt: Callable[[], str], patience: float) -> str:
    """Try until ``attempt`` returns "", or for so many seconds; what it returned last: who is in the way."""
    begun, is_told = time.monotonic(), False
    while holder := attempt():
        waited = time.monotonic() - begun
        if waited > patience:
            break
        if waited > _AFTER and not is_told:
            is_told = True
            for listener in _listeners:
                listener(f"waiting: {holder}")
        time.sleep(_PAUSE)
    return holder


def locker(seen: os.stat_result) -> str:
    """Who has locked a file, by fcntl(2) or flock(2). It is not opened: to close it would drop our own locks of it."""
    place = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}:{seen.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    for line in lines:
        # Those that wait for it have an arrow before them. A process of another pid namespace is 0.
        match line.split():
            case [_, "POSIX" | "FLOCK", _, _, pid, where, *_] if (
                where == place and pid.isdigit() and int(pid)
            ):
                return called(int(pid))
    return "a process that cannot be told"


def called(pid: int) -> str:
    """A process in a message."""
    from usernsplan.host import process  # noqa: PLC0415 - most never wait

    found = process.name(pid)
    return f"process {pid}" + (f" ({shown_path(found)})" if found else "")
