"""One process of this machine, from /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidValueError, NotPermittedError, UsernsplanError, reason_of
from usernsplan.formats import proc_status

if TYPE_CHECKING:
    from collections.abc import Iterator

# The states of a zombie and of a dead process: proc_pid_stat(5).
_ENDED = {"Z", "X"}


def status(pid: int) -> proc_status.Status:
    """The ids, capabilities and limits of a process.

    Raises UsernsplanError if it is gone, ended or a kernel thread, and NotPermittedError.
    """
    try:
        found = _read(f"/proc/{pid}/status")
        if found.state in _ENDED:
            # Only its first thread has ended; others may still run.
            found = next(_running_threads(pid), found)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise UsernsplanError(
            f"there is no process {pid}, or it cannot be seen from here"
        ) from error
    except InvalidValueError as error:
        raise UsernsplanError(f"process {pid}: {error}") from error
    except OSError as error:
        raise NotPermittedError(f"process {pid}: {reason_of(error)}") from error
    if found.state in _ENDED:
        raise UsernsplanError(f"process {pid} has ended: it is a zombie and can do nothing")
    if found.kernel_thread:
        raise UsernsplanError(f"process {pid} is a kernel thread: it has no program and no limits")
    return found


def _read(path: str) -> proc_status.Status:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return proc_status.parse(file.read())


def _running_threads(pid: int) -> Iterator[proc_status.Status]:
    for thread in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
        with suppress(FileNotFoundError, ProcessLookupError):
            found = _read(f"/proc/{pid}/task/{thread}/status")
            if found.state not in _ENDED:
                yield found


def name(pid: int) -> str:
    """The name of a process (comm); "" if it is gone."""
    with (
        suppress(OSError),
        open(f"/proc/{pid}/comm", encoding="utf-8", errors="surrogateescape") as file,
    ):
        return file.read().removesuffix("\n")
    return ""
