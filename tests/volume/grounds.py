"""What a volume can lie on: file systems in files, FUSE, overlays, binds; and a filter of system calls."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.command import missing
from tests.volume.tree import mounted
from usernsplan.host import idmap
from usernsplan.mapping import Extent, IdMap, Mapping

Ground: TypeAlias = Callable[[Path], AbstractContextManager[None]]
MOUNT_SETATTR = 442


def need(program: str) -> None:
    if shutil.which(program) is None:
        missing(program)


@contextmanager
def looped(kind: str, volume: Path) -> Iterator[None]:
    """A file system in a file beside the volume, mounted on it."""
    need(f"mkfs.{kind}")
    image = volume.parent / f"{kind}.image"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
    words: list[str | Path] = ["mount", "-o", "loop", image, volume]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip(f"this kernel has no {kind}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", volume], check=True)
        image.unlink()


@contextmanager
def xfs(volume: Path) -> Iterator[None]:
    """An XFS."""
    with looped("xfs", volume):
        yield


@contextmanager
def btrfs(volume: Path) -> Iterator[None]:
    """A Btrfs."""
    with looped("btrfs", volume):
        yield


@contextmanager
def fuse(volume: Path, source: Path | None = None) -> Iterator[None]:
    """A program that shows another folder: the one beside the volume."""
    need("bindfs")
    subprocess.run(["bindfs", source or volume.parent / "outside", volume], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", volume], check=True)


@contextmanager
def dead(volume: Path) -> Iterator[None]:
    """A FUSE mount whose program is gone: every call on it fails."""
    handle = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={handle},rootmode=40000,user_id=0,group_id=0"
    words: list[str | Path] = ["mount", "-i", "-t", "fuse", "-o", options, "dead", volume]
    subprocess.run(words, check=True, pass_fds=[handle])
    os.close(handle)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", volume], check=True)


@contextmanager
def reachable(volume: Path) -> Iterator[Path]:
    """The volume at a further path, which everybody can go; that path."""
    place = Path(tempfile.mkdtemp(dir="/"))
    place.chmod(0o755)
    try:
        with mounted("--bind", volume, place):
            yield place
    finally:
        place.rmdir()


@contextmanager
def overlay(volume: Path) -> Iterator[None]:
    """A merged overlay of two folders beside the volume."""
    lower, upper, work = (volume.parent / name for name in ("lower", "upper", "work"))
    for folder in (lower, upper, work):
        folder.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    with mounted("-t", "overlay", "-o", options, "merged", volume):
        yield


@contextmanager
def read_only(volume: Path) -> Iterator[None]:
    """The volume itself, by a mount that is read-only."""
    with mounted("--bind", volume, volume):
        subprocess.run(["mount", "-o", "remount,bind,ro", volume], check=True)
        yield


@contextmanager
def idmapped(volume: Path) -> Iterator[None]:
    """A folder beside the volume with other ids."""
    ids = IdMap((Extent(0, 1_000_000, 65536),))
    namespace = idmap.user_namespace(Mapping(ids, ids))
    source = os.open(volume.parent / "outside", os.O_PATH)
    point = os.open(volume, os.O_PATH)
    tree = idmap.detached(source, namespace)
    try:
        idmap.attach(tree, point)
    finally:
        for descriptor in (namespace, source, point, tree):
            os.close(descriptor)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", volume], check=True)


@contextmanager
def plain(volume: Path) -> Iterator[None]:
    """The volume as it is."""
    assert volume.is_dir()
    yield


def filtering(number: int, answer: int) -> Callable[[], None]:
    """What a child runs first, so that the kernel answers a system call with an errno: seccomp(2)."""
    # Load the number of the call; if it is this one, return the errno, else let it through.
    program = b"".join(
        struct.pack("HBBI", *one)
        for one in (
            (0x20, 0, 0, 0),
            (0x15, 0, 1, number),
            (0x06, 0, 0, 0x00050000 | answer),
            (0x06, 0, 0, 0x7FFF0000),
        )
    )

    def install() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        code = ctypes.create_string_buffer(program)
        pointer = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
        # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP with SECCOMP_MODE_FILTER: linux/prctl.h.
        if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, pointer, 0, 0):
            raise OSError(ctypes.get_errno(), "seccomp")

    return install
