"""One process of this machine, as /proc tells of it."""

from __future__ import annotations

from contextlib import suppress

from usernsplan.errors import InvalidValueError, NotPermittedError, UsernsplanError, reason_of
from usernsplan.formats import proc_status


def status(pid: int) -> proc_status.Status:
    """What a process may do. Raises an error that says why where there is nothing to tell."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="surrogateescape") as file:
            found = proc_status.parse(file.read())
    except (FileNotFoundError, ProcessLookupError) as error:
        raise UsernsplanError(f"there is no process {pid}, or it cannot be seen from here") from error
    except InvalidValueError as error:
        raise UsernsplanError(f"process {pid}: {error}") from error
    except OSError as error:
        raise NotPermittedError(f"process {pid}: {reason_of(error)}") from error
    if found.state in {"Z", "X"}:
        raise UsernsplanError(f"process {pid} has ended: it is a zombie, and may do nothing any more")
    if found.kernel_thread:
        raise UsernsplanError(f"process {pid} is a thread of the kernel: it has no program, and no limits")
    return found


def name(pid: int) -> str:
    """What a process is called; "" where it is gone."""
    with suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="surrogateescape") as file:
        return file.read().removesuffix("\n")
    return ""
