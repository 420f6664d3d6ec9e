"""The locks that useradd, usermod and usernsplan share: shadow's protocol, in shadow's order.

First lckpwdf(3), a POSIX write lock on /etc/.pwd.lock; the kernel drops it when its holder dies.
Then subuid.lock and subgid.lock, hard links of a file that holds the pid, because shadow with
--prefix uses only these. Checked against shadow 4.13 (lib/commonio.c): the pid has no newline, and
a lock may be taken over if its process is gone.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import re
import stat
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from usernsplan.errors import LockBusyError
from usernsplan.host import files, waiting
from usernsplan.layout import GROUP, PASSWD, PWD_LOCK, SUBGID, SUBUID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from usernsplan.layout import Layout

# lckpwdf(3) gives up after 15 s, and shadow tries 15 times, a second apart.
PATIENCE = 15.0
_PID_MAX = 2**31 - 1
# All lock files of useradd and usermod; each follows the same protocol.
_LINK_LOCKS = tuple(
    f"{name}.lock" for name in (PASSWD, GROUP, "/etc/shadow", "/etc/gshadow", SUBUID, SUBGID)
)
_THREADS = _thread.allocate_lock()


@contextmanager
def subid_locks(layout: Layout, patience: float = PATIENCE) -> Iterator[None]:
    """Hold all locks that keep other programs from writing subuid and subgid.

    ``patience`` is in seconds, for each lock. Raises LockBusyError with the lock and its holder.
    """
    with ExitStack() as held:
        # POSIX locks belong to the process, so they do not keep its own threads apart: fcntl(2).
        if not _THREADS.acquire(timeout=patience):
            raise LockBusyError("another thread of this program holds the locks")
        held.callback(_THREADS.release)
        files.make_folder(layout, os.path.dirname(PWD_LOCK))
        held.enter_context(_password_lock(layout, patience))
        for name in (SUBUID, SUBGID):
            held.enter_context(_link_lock(layout, name, patience))
        yield


def left_behind(layout: Layout) -> tuple[tuple[str, int | None, bool | None], ...]:
    """The lock files that exist: name, pid (None: it holds none), and whether that process lives.

    The last is None for another root, whose processes are not on this machine.
    """
    found: list[tuple[str, int | None, bool | None]] = []
    for name in _LINK_LOCKS:
        with files.explained(layout, name), suppress(FileNotFoundError, NotADirectoryError):
            with files.pinned(layout, name) as lock:
                pid = _pid(_content(lock)[0])
            found.append(
                (name, pid, _is_alive(pid) if pid is not None and layout.is_host else None)
            )
    return tuple(found)


def remove_stale(layout: Layout, patience: float = PATIENCE) -> tuple[str, ...]:
    """Remove the lock files whose process is gone, as the next useradd would; return their names.

    Raises LockBusyError if another program holds the password lock.
    """
    removed = []
    with _password_lock(layout, patience):
        for name, pid, alive in left_behind(layout):
            if pid is not None and alive is False:
                with files.explained(layout, name), files.pinned(layout, name) as lock:
                    _holder(layout.path(name), lock)
                    with suppress(FileNotFoundError):
                        os.lstat(lock.name, dir_fd=lock.folder)
                        continue
                removed.append(name)
    return tuple(removed)


@contextmanager
def folder_lock(layout: Layout, patience: float = PATIENCE) -> Iterator[None]:
    """Keep other renderings out of the root folder; the kernel drops the lock with its holder.

    Raises LockBusyError after ``patience`` seconds.
    """
    with files.explained(layout, "/"):
        files.make_folder(layout, "/")
        descriptor = files.opened_folder(layout, "/")
    try:
        with files.explained(layout, "/"):
            _retry(patience, lambda: _try_folder_lock(layout, descriptor))
        yield
    finally:
        os.close(descriptor)


def _try_folder_lock(layout: Layout, descriptor: int) -> str:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return f"another rendering is writing {layout.root}: {_locker(descriptor)}"
    return ""


@contextmanager
def _password_lock(layout: Layout, patience: float) -> Iterator[None]:
    with files.explained(layout, PWD_LOCK), files.pinned(layout, PWD_LOCK) as lock:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(lock.name, flags, 0o600, dir_fd=lock.folder)
    try:
        with files.explained(layout, PWD_LOCK):
            _retry(patience, lambda: _try_password_lock(layout, descriptor))
        yield
    finally:
        os.close(descriptor)


def _try_password_lock(layout: Layout, descriptor: int) -> str:
    """Take the lock and return ""; if it is held, return a message with its holder."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EAGAIN}:
            raise
        return f"{layout.path(PWD_LOCK)} is locked by {_locker(descriptor)}"
    return ""


def wait_for(descriptor: int, shown: str) -> None:
    """Take a lock of flock(2) and wait without a limit. ``shown`` names the file in messages."""

    def attempt() -> str:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"{shown} is locked by {_locker(descriptor)}"
        return ""

    waiting.until(attempt, float("inf"))


def _locker(descriptor: int) -> str:
    return waiting.locker(os.fstat(descriptor))


@contextmanager
def _link_lock(layout: Layout, name: str, patience: float) -> Iterator[None]:
    # Its folder stays pinned, so that the lock is removed from the folder in which it was created.
    with ExitStack() as pins:
        with files.explained(layout, name + ".lock"):
            lock = pins.enter_context(files.pinned(layout, name + ".lock"))
            own = files.Place(lock.folder, os.path.basename(name) + ".usernsplan-lock")
            _retry(patience, lambda: _try_link_lock(layout.path(name) + ".lock", own, lock))
        try:
            yield
        finally:
            # A lock that cannot be removed holds our pid: any program may take it over afterwards.
            with suppress(OSError):
                os.unlink(lock.name, dir_fd=lock.folder)


def _try_link_lock(shown: str, own: files.Place, lock: files.Place) -> str:
    """Link our pid file as the lock and return ""; if it is held, return a message."""
    with suppress(FileNotFoundError):
        os.unlink(own.name, dir_fd=own.folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(own.name, flags, 0o600, dir_fd=own.folder)
    try:
        # shadow also writes the closing NUL of the string, and stops reading there.
        os.write(descriptor, f"{os.getpid()}\0".encode())
        os.close(descriptor)
        with suppress(FileExistsError):
            os.link(
                own.name,
                lock.name,
                src_dir_fd=own.folder,
                dst_dir_fd=lock.folder,
                follow_symlinks=False,
            )
            return ""
        return _holder(shown, lock)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(own.name, dir_fd=own.folder)


def _holder(shown: str, lock: files.Place) -> str:
    """A message with the holder of a lock; a lock whose process is gone is removed.

    The next try then links ours. Raises LockBusyError if the lock holds no pid.
    """
    try:
        raw, inode = _content(lock)
    except FileNotFoundError:
        return f"{shown} was just released"
    pid = _pid(raw)
    if pid is None:
        raise LockBusyError(
            f"{shown} does not hold a pid: shadow's tools will wait for it forever",
            hint=f"make sure that no useradd or usermod runs, then remove {shown}",
        )
    if _is_alive(pid):
        return f"{shown} is held by {waiting.called(pid)}"
    with suppress(FileNotFoundError):
        # Another process may have taken this lock over; do not remove its new one.
        if os.lstat(lock.name, dir_fd=lock.folder).st_ino == inode:
            os.unlink(lock.name, dir_fd=lock.folder)
    return f"{shown} was left by process {pid}, which is gone"


def _content(lock: files.Place) -> tuple[bytes, int]:
    """What a lock file holds up to a NUL, and its inode number; b"" if it is not a regular file."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(lock.name, flags, dir_fd=lock.folder)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return b"", os.lstat(lock.name, dir_fd=lock.folder).st_ino
    try:
        seen = os.fstat(descriptor)
        raw = os.read(descriptor, 64).split(b"\0")[0] if stat.S_ISREG(seen.st_mode) else b""
        return raw, seen.st_ino
    finally:
        os.close(descriptor)


def _pid(raw: bytes) -> int | None:
    """The pid as shadow reads it (strtol in lib/commonio.c); None if shadow would wait instead."""
    number = int(raw) if re.fullmatch(rb"[ \t]*[+-]?[0-9]{1,10}", raw) else 0
    return number if number and abs(number) <= _PID_MAX else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _retry(patience: float, attempt: Callable[[], str]) -> None:
    if holder := waiting.until(attempt, patience):
        raise LockBusyError(holder)
