"""Processes that stand by while a volume is mounted, and a file system that everybody can reach."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.volume.tree import unshare_mounts

CLONE_NEWUSER = 0x10000000
USER = 1000
libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def open_ground() -> Iterator[Path]:
    """A tmpfs where no folder above keeps anybody out, unlike those of pytest."""
    place = Path(tempfile.mkdtemp(dir="/tmp", prefix="open-"))
    place.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        # With all that is mounted in it, covered or not.
        assert libc.umount2(os.fsencode(place), 2) == 0
        place.rmdir()


def drop(uid: int = USER) -> None:
    """Become another user for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


@contextmanager
def standing_by(*steps: Callable[[], object], uid: int | None = USER) -> Iterator[int]:
    """The pid of a process that took these steps as root, became ``uid``, and waits."""
    ready, said = os.pipe()
    child = os.fork()
    if child == 0:
        # Whatever happens, this copy of the test process must not go on as one.
        try:
            os.close(ready)
            kept = [step() for step in steps]
            if uid is not None:
                drop(uid)
            os.write(said, b"1")
            os.close(said)
            while kept is not None:
                signal.pause()
        finally:
            os._exit(1)
    os.close(said)
    try:
        assert os.read(ready, 1) == b"1", "it could not take its steps"
        yield child
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def own_mounts() -> None:
    """A step: have mounts of one's own, which receive nothing."""
    unshare_mounts()


def receiving() -> None:
    """A step: have mounts of one's own, which receive what is mounted outside."""
    if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, (1 << 19) | 0x4000, None):
        raise OSError(ctypes.get_errno(), "unshare")


def bind(source: Path, point: Path, *options: str) -> None:
    """Bind-mount something, with these options of the mount."""
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", source, point], check=True)
    if options:
        words = ",".join(("remount", "bind", *options))
        subprocess.run(["mount", "-o", words, point], check=True)


@contextmanager
def about_to_run(
    program: Path | str, *steps: Callable[[], object], uid: int = USER
) -> Iterator[Callable[[], str]]:
    """A process that took these steps as root and became ``uid``. Told to, it runs a program.

    The result is what ``id -u`` would print, or the error of the kernel. Once told, it is gone.
    """
    (wait, go), (out, said) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(go)
            os.close(out)
            kept = [step() for step in steps]
            drop(uid)
            os.write(said, b"ready\n")
            if os.read(wait, 1) and kept is not None:
                os.dup2(said, 1)
                os.execv(program, ["id", "-u"])  # noqa: S606 - by exactly this path
        except OSError as error:
            os.write(said, os.strerror(error.errno or 0).encode())
        finally:
            os._exit(1)
    os.close(wait)
    os.close(said)

    def run() -> str:
        os.write(go, b"1")
        with os.fdopen(os.dup(out), "rb") as file:
            return file.read().decode().strip()

    try:
        assert os.read(out, 6) == b"ready\n", "it could not take its steps"
        yield run
    finally:
        os.close(go)
        os.close(out)
        os.waitpid(child, 0)


def in_container(start: int, act: Callable[[], object], uid: int = 0) -> None:
    """Act as ``uid`` of a container whose ids begin at ``start``, with the host's mounts."""
    (ready, said), (wait, go) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            assert libc.unshare(CLONE_NEWUSER) == 0
            os.write(said, b"1")
            os.read(wait, 1)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    os.read(ready, 1)
    for kind in ("uid", "gid"):
        Path(f"/proc/{child}/{kind}_map").write_text(f"0 {start} 65536\n", encoding="ascii")
    os.write(go, b"1")
    for descriptor in (ready, said, wait, go):
        os.close(descriptor)
    assert os.waitpid(child, 0)[1] == 0, "what the container did failed"
