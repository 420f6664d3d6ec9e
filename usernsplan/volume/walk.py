"""Folders below a volume, opened so that nobody can lead us out of it: every one is pinned, and known by its parts.

A part is one name of a path, so a path has no length to exceed, and a name may hold any byte but '/' and NUL.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from usernsplan.host.mounts import MountPoint, all_mounts
from usernsplan.volume import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Parts = Sequence[str]

# O_NOATIME: looking at a volume is not to change it.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME
_BENEATH = syscalls.BENEATH | syscalls.NO_SYMLINKS | syscalls.NO_MAGICLINKS
# The kernel takes paths of up to 4095 bytes; longer ones are walked in pieces of a few parts, of up to 255 bytes each.
_PIECE = 4000
_PARTS = 15
# A folder that takes more than this may hold a hundred thousand names: too many to keep at once.
BIG = 1 << 22
_BATCH = 8192
_OVERLAYS = frozenset({"overlay", "fuse.fuse-overlayfs"})
_LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "f2fs"})
# What a folder answers that was moved, removed or exchanged since its name was read.
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


@dataclass(frozen=True, slots=True)
class Mounts:
    """What is mounted below a volume: for the parts of a folder, the names in it that are mount points."""

    names: dict[tuple[str, ...], frozenset[str]] = field(default_factory=dict)

    @classmethod
    def below(cls, path: str, mounts: Iterable[MountPoint]) -> Mounts:
        """What is mounted below the volume that really lies at ``path``."""
        found: dict[tuple[str, ...], set[str]] = {}
        prefix = path.rstrip("/") + "/"
        for mount in mounts:
            if mount.point.startswith(prefix) and mount.point != prefix:
                *parts, name = mount.point[len(prefix) :].split("/")
                found.setdefault(tuple(parts), set()).add(name)
        return cls({parts: frozenset(names) for parts, names in found.items()})

    def points(self, path: str) -> list[str]:
        """The mount points, by path."""
        return [
            "/".join([path.rstrip("/"), *parts, name])
            for parts, names in self.names.items()
            for name in names
        ]

    def crossed_by(self, parts: Parts) -> bool:
        """Tell whether a path leads through a mount point."""
        return bool(self.names) and any(
            parts[i] in self.names.get(tuple(parts[:i]), ()) for i in range(len(parts))
        )


@dataclass(frozen=True, slots=True)
class OpenVolume:
    """A volume held open: where it really lies, its pinned top, what is mounted in it, and whether mounts are entered.

    ``local``: the times of its inodes are written by this machine's clock. ``twice`` are mount points whose content is
    met under another name. A ``top`` below 0: it is gone. ``only``: the volume is this one name in the top, a single
    file, and neither the top itself nor anything else in it. ``idmapped`` are mount points that show other ids than the
    disk has; ``overlays`` are the merged overlays that its files may lie on.
    """

    path: str
    top: int
    mounts: Mounts
    cross_mounts: bool = False
    has_openat2: bool = True
    local: bool = False
    twice: frozenset[str] = frozenset()
    only: str = ""
    idmapped: frozenset[str] = frozenset()
    overlays: tuple[MountPoint, ...] = ()

    @property
    def named(self) -> str:
        """The path that was named: of the top, or of the single file."""
        return self.shown(())

    def seen(self) -> os.stat_result:
        """What lies there now: the top, or the single file. Raises OSError where that is gone."""
        return os.lstat(self.only, dir_fd=self.top) if self.only else os.fstat(self.top)

    def shown(self, parts: Parts, name: str = "") -> str:
        """The path of an entry, for people."""
        if self.only:
            parts, name = (self.only,), "" if name == self.only else name
        return "/".join([self.path.rstrip("/"), *parts, *([name] if name else [])]) or "/"

    @property
    def pinning(self) -> int:
        """The rules by which entries are pinned: what ``syscalls.pin`` takes."""
        if not self.has_openat2:
            return 0
        # A file on which another is mounted is that one, where it was named itself.
        return _BENEATH if self.cross_mounts or self.only else _BENEATH | syscalls.NO_XDEV

    def pin(self, name: str) -> int:
        """Pin an entry of the current folder, '.' for the folder itself; never a symlink's target.

        Raises OSError: EXDEV for a mount point, where mounts are not entered.
        """
        return syscalls.pin(name, self.pinning)


def pin(path: str) -> int:
    """Open a folder by its real path, no symlink anywhere in it."""
    parts = [part for part in path.split("/") if part]
    slash = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return (
            _in_pieces(slash, parts, _BENEATH) if _knows_openat2(slash) else _by_parts(slash, parts)
        )
    finally:
        os.close(slash)


def volume(
    path: str, *, cross_mounts: bool = False, twice: frozenset[str] = frozenset()
) -> OpenVolume:
    """Pin the top of a volume, or the folder of a single file. ``path`` is real: absolute, normal, no symlinks."""
    mounts = all_mounts()
    try:
        top = pin(path)
    except NotADirectoryError:
        return _single(path, mounts)
    inside = Mounts.below(path, mounts)
    local = not inside.names and kind_of(path, mounts) in _LOCAL
    # Of those at the same point, the last is on top.
    on_top = {mount.point: mount for mount in mounts}
    idmapped = frozenset(point for point in inside.points(path) if on_top[point].is_idmapped)
    met = [
        mount_of(path, mounts),
        *(on_top[point] for point in inside.points(path) if cross_mounts),
    ]
    return OpenVolume(
        path,
        top,
        inside,
        cross_mounts,
        _knows_openat2(top),
        local,
        twice,
        idmapped=idmapped,
        overlays=tuple(mount for mount in met if mount.kind in _OVERLAYS),
    )


def _single(path: str, mounts: Iterable[MountPoint]) -> OpenVolume:
    above, _, name = path.rpartition("/")
    top = pin(above)
    own = mount_of(path, mounts)
    of = OpenVolume(
        above or "/",
        top,
        Mounts(),
        has_openat2=_knows_openat2(top),
        local=own.kind in _LOCAL,
        only=name,
        overlays=(own,) if own.kind in _OVERLAYS else (),
    )
    try:
        if stat.S_ISLNK(of.seen().st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    except OSError:
        os.close(top)
        raise
    return of


def mount_of(path: str, mounts: Iterable[MountPoint]) -> MountPoint:
    """The mount on which a real path lies: the last of those on its longest part."""
    above = [
        mount
        for mount in mounts
        if f"{path.rstrip('/')}/".startswith(mount.point.rstrip("/") + "/")
    ]
    longest = max((len(mount.point) for mount in above), default=0)
    return next(
        (mount for mount in reversed(above) if len(mount.point) == longest),
        MountPoint("", "/", "/", ""),
    )


def kind_of(path: str, mounts: Iterable[MountPoint]) -> str:
    """The type of the file system at a real path."""
    return mount_of(path, mounts).kind


def takes_owners(mounts: Iterable[MountPoint]) -> frozenset[int]:
    """The devices whose file systems take every owner, or say that they do not."""
    return frozenset(mount.number for mount in mounts if mount.kind in _LOCAL)


def is_doubted(of: OpenVolume, mounts: Iterable[MountPoint]) -> bool:
    """Tell whether a volume has files on a file system that may keep owners of its own."""
    points = [of.named, *(of.mounts.points(of.path) if of.cross_mounts else ())]
    return any(kind_of(point, mounts) not in _LOCAL for point in points)


def is_idmapped(path: str, mounts: Iterable[MountPoint]) -> bool:
    """Tell whether what lies at a real path shows other ids than the disk has."""
    return mount_of(path, mounts).is_idmapped


def other_names(path: str, mounts: Sequence[MountPoint]) -> list[str]:
    """The other paths at which the folder at a real path can be seen: bind mounts of it, and what it is one of."""
    own = mount_of(path, mounts)
    inside = own.root.rstrip("/") + path[len(own.point.rstrip("/")) :]
    names = [
        (mount, mount.point.rstrip("/") + inside[len(mount.root.rstrip("/")) :] or "/")
        for mount in mounts
        if mount.device == own.device and f"{inside}/".startswith(mount.root.rstrip("/") + "/")
    ]
    # Where another mount lies on it, it cannot be seen.
    return [name for mount, name in names if name != path and mount_of(name, mounts) is mount]


def lower_folders(of: OpenVolume) -> list[str]:
    """The lower folders of the overlays that a volume's files may lie on, as far as the kernel tells."""
    return [
        path
        for one in of.overlays
        for path in one.fs_option("lowerdir").split(":")
        if path[:1] == "/"
    ]


def _knows_openat2(top: int) -> bool:
    """Kernels before 5.6 answer ENOSYS, and filters of old container engines EPERM."""
    try:
        os.close(syscalls.openat2(top, b".", _FOLDER, _BENEATH))
    except OSError:
        return False
    return True


def folder(of: OpenVolume, parts: Parts) -> int:
    """Pin a folder of a volume. Raises OSError: EXDEV for what is mounted there, one of GONE for what is no folder.

    Every part is looked up below the volume's pinned top, and no symlink is followed: whatever is renamed meanwhile,
    what is opened was in the volume.
    """
    if of.has_openat2:
        resolve = _BENEATH if of.cross_mounts else _BENEATH | syscalls.NO_XDEV
        return _in_pieces(of.top, parts, resolve)
    if not of.cross_mounts and of.mounts.crossed_by(parts):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    return _by_parts(of.top, parts)


def _in_pieces(top: int, parts: Parts, resolve: int) -> int:
    path = os.fsencode("/".join(parts)) or b"."
    if len(path) < _PIECE:
        return _opened(top, path, resolve)
    here = _opened(top, b".", resolve)
    for at in range(0, len(parts), _PARTS):
        try:
            below = _opened(here, os.fsencode("/".join(parts[at : at + _PARTS])), resolve)
        finally:
            os.close(here)
        here = below
    return here


def _opened(top: int, path: bytes, resolve: int) -> int:
    try:
        return syscalls.openat2(top, path, _FOLDER, resolve)
    except OSError as error:
        # O_NOATIME is for the owner and for CAP_FOWNER.
        if error.errno != errno.EPERM:
            raise
    return syscalls.openat2(top, path, _FOLDER & ~os.O_NOATIME, resolve)


def _by_parts(top: int, parts: Parts) -> int:
    """One part after the other, each below the folder pinned before."""
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
    for part in [*parts, "."]:
        flags = (
            _FOLDER & ~os.O_NOATIME
            if part == "."
            else os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        )
        try:
            below = os.open(part, flags, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


def names(of: int, size: int, only: str = "") -> Iterator[list[str]]:
    """The names in a pinned folder (``size`` is its st_size), in lists: one, or several where there are very many.

    ``only``: just this one.
    """
    if only:
        yield [only]
        return
    if size < BIG:
        yield os.listdir(of)
        return
    with os.scandir(of) as entries:
        while batch := [entry.name for entry in islice(entries, _BATCH)]:
            yield batch
