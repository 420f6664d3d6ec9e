"""The locks that useradd, usermod and usernsplan share: shadow's protocol, in shadow's order.

First lckpwdf(3), a POSIX write lock on /etc/.pwd.lock, which the kernel drops when its holder dies. Then subuid.lock
and subgid.lock: hard links of a file that holds the pid, because shadow under --prefix uses only these. Checked against
shadow 4.13 (lib/commonio.c): the pid stands without a newline, and a lock whose process is gone may be taken over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from usernsplan.errors import LockBusyError
from usernsplan.host import files
from usernsplan.layout import PWD_LOCK, SUBGID, SUBUID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from usernsplan.layout import Layout

# lckpwdf(3) gives up after 15 s, and shadow tries 15 times, a second apart.
PATIENCE = 15.0
_PAUSE = 0.05


@contextmanager
def subid_locks(layout: Layout, patience: float = PATIENCE) -> Iterator[None]:
    """Hold everything that keeps others from writing subuid and subgid.

    ``patience`` is in seconds, for all locks together. Raises LockBusyError, which names the lock and its holder.
    """
    deadline = time.monotonic() + patience
    with ExitStack() as held:
        files.make_folder(layout, os.path.dirname(PWD_LOCK))
        held.enter_context(_password_lock(layout, deadline))
        for name in (SUBUID, SUBGID):
            held.enter_context(_link_lock(layout, name, deadline))
        yield


@contextmanager
def _password_lock(layout: Layout, deadline: float) -> Iterator[None]:
    with files.explained(layout, PWD_LOCK):
        path = files.real(layout, PWD_LOCK)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _retry(deadline, lambda: _try_password_lock(layout, descriptor))
        yield
    finally:
        os.close(descriptor)


def _try_password_lock(layout: Layout, descriptor: int) -> str:
    """Lock it and return "", or say who holds it."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EAGAIN}:
            raise
        return f"{layout.path(PWD_LOCK)} is locked"
    return ""


@contextmanager
def _link_lock(layout: Layout, name: str, deadline: float) -> Iterator[None]:
    with files.explained(layout, name + ".lock"):
        path = files.real(layout, name)
        lock, own = path + ".lock", path + ".usernsplan-lock"
        _retry(deadline, lambda: _try_link_lock(layout.path(name) + ".lock", own, lock))
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(lock)


def _try_link_lock(shown: str, own: str, lock: str) -> str:
    """Link our pid's file as the lock and return "", or say who holds it."""
    with suppress(FileNotFoundError):
        os.unlink(own)
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        # shadow writes the string's closing NUL as well and stops reading there.
        os.write(descriptor, f"{os.getpid()}\0".encode())
        os.close(descriptor)
        with suppress(FileExistsError):
            os.link(own, lock)
            return ""
        return _holder(shown, lock)
    finally:
        os.unlink(own)


def _holder(shown: str, lock: str) -> str:
    """Say who holds a lock, after taking it away where its process is gone ("taken over": the next try links ours)."""
    try:
        with open(lock, "rb") as file:
            content = file.read(64)
    except FileNotFoundError:
        return f"{shown} was just released"
    pid = content.split(b"\0")[0]
    if not pid.isdigit():
        raise LockBusyError(
            f"{shown} does not hold a pid: shadow's tools wait for it for ever",
            hint=f"make sure that no useradd or usermod runs, then remove {shown}",
        )
    if _is_alive(int(pid)):
        return f"{shown} is held by process {int(pid)}"
    with suppress(FileNotFoundError):
        os.unlink(lock)
    return f"{shown} was left by process {int(pid)}, which is gone"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _retry(deadline: float, attempt: Callable[[], str]) -> None:
    while holder := attempt():
        if time.monotonic() > deadline:
            raise LockBusyError(holder)
        time.sleep(_PAUSE)
