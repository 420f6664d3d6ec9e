"""The mount points of idmapped mounts: made, opened and removed.

While nothing is mounted on it, nobody can write to a mount point of ours: a container that starts
too early would write beside its volume.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from usernsplan.errors import of_place
from usernsplan.escape import shown_path
from usernsplan.host import files
from usernsplan.host.spaces import mount_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.layout import Layout

_OPEN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# linux/fs.h; the argument is an int, though the number says long.
_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10


def make_folder(layout: Layout, name: str, group: int) -> None:
    """Make the folder of a container's mounts: root's, open to this group alone."""
    above = os.path.dirname(name)
    top = os.path.dirname(above)
    for missing, mode in ((top, 0o711), (above, 0o711), (name, 0o700)):
        files.make_folder(layout, missing, mode)
    # Every container passes through the folders above its own. That of the ledger is root's alone,
    # until a mount lies below it; what else is in it stays root's.
    with _folder(layout, top) as folder:
        os.fchmod(folder, stat.S_IMODE(os.fstat(folder).st_mode) | 0o011)
    with _folder(layout, name) as folder:
        os.fchown(folder, 0, group)
        os.fchmod(folder, 0o710 if group else 0o700)


@contextmanager
def _folder(layout: Layout, name: str) -> Iterator[int]:
    with of_place(layout.path(name)):
        folder = files.opened_folder(layout, name)
        try:
            yield folder
        finally:
            os.close(folder)


@contextmanager
def opened(layout: Layout, name: str, *, is_folder: bool, is_ours: bool = False) -> Iterator[int]:
    """A descriptor of a mount point; it is made if it is missing. Raises UsernsplanError.

    With ``is_ours`` it is immutable, where the file system can say so: its mode does not stop root
    of the host, and so not an engine that makes missing folders.
    """
    with of_place(shown_path(layout.path(name))), files.pinned(layout, name) as place:
        with suppress(FileExistsError):
            if is_folder:
                os.mkdir(place.name, 0o000, dir_fd=place.folder)
            else:
                made = os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC
                os.close(os.open(place.name, made, 0o000, dir_fd=place.folder))
        if is_ours:
            _mark(place, _IMMUTABLE)
        point = os.open(place.name, _OPEN, dir_fd=place.folder)
        try:
            yield point
        finally:
            os.close(point)


def removed(layout: Layout, name: str) -> None:
    """Remove a mount point that we made, if it is empty."""
    with suppress(OSError), files.pinned(layout, name) as place:
        seen = os.lstat(place.name, dir_fd=place.folder)
        if stat.S_IMODE(seen.st_mode):
            return  # it was there before us
        _mark(place, 0)
        if stat.S_ISDIR(seen.st_mode):
            os.rmdir(place.name, dir_fd=place.folder)
        elif not seen.st_size:
            os.unlink(place.name, dir_fd=place.folder)


def folder_removed(layout: Layout, name: str) -> None:
    """Remove the folder of a container's mounts if it is empty."""
    with suppress(OSError), files.pinned(layout, name) as place:
        os.rmdir(place.name, dir_fd=place.folder)


def _mark(place: files.Place, immutable: int) -> None:
    """Make a mount point immutable, or no longer so; never what is mounted on it."""
    with suppress(OSError):
        point = os.open(place.name, _READ, dir_fd=place.folder)
        try:
            # A mount of the same disk has another id, and the same device number.
            if mount_id_of(point) != mount_id_of(place.folder):
                return
            flags = int.from_bytes(fcntl.ioctl(point, _GET_FLAGS, bytes(8))[:4], sys.byteorder)
            wanted = flags & ~_IMMUTABLE | immutable
            if wanted != flags:
                fcntl.ioctl(point, _SET_FLAGS, wanted.to_bytes(8, sys.byteorder))
        finally:
            os.close(point)
