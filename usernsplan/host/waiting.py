"""Waiting for other processes. After a second, a listener gets a message that names the process."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from usernsplan.escape import shown_path

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds of waiting before a message: a shorter wait is not worth one.
_AFTER = 1.0
_PAUSE = 0.01
_listeners: list[Callable[[str], None]] = []


def listen(listener: Callable[[str], None]) -> None:
    """Call ``listener`` with a message about each wait. A library has none and stays silent."""
    _listeners[:] = [listener]


def until(attempt: Callable[[], str], patience: float) -> str:
    """Call ``attempt`` until it returns "" or ``patience`` seconds are over.

    Returns its last result: a message that names the holder, or "".
    """
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
    """The process that has locked a file, by fcntl(2) or flock(2), for a message.

    The file is not opened: closing it would drop our own POSIX locks of it (fcntl(2)).
    """
    place = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}:{seen.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    for line in lines:
        # Waiting processes have an arrow before the type. A process of another pid namespace is 0.
        match line.split():
            case [_, "POSIX" | "FLOCK", _, _, pid, where, *_] if (
                where == place and pid.isdigit() and int(pid)
            ):
                return called(int(pid))
    return "an unknown process"


def called(pid: int) -> str:
    """A process for a message: its pid and its name."""
    from usernsplan.host import process  # noqa: PLC0415 - most commands never wait

    found = process.name(pid)
    return f"process {pid}" + (f" ({shown_path(found)})" if found else "")
