"""Folders of a volume, opened so that no symlink or rename can lead us out of the volume.

Each folder is pinned by a descriptor and known by its parts.
"""

from __future__ import annotations

import errno
import os
import stat
from itertools import islice
from typing import TYPE_CHECKING

from usernsplan.host.mounts import LOCAL, OVERLAYS, MountPoint, all_mounts, mount_of
from usernsplan.layout import lies_in
from usernsplan.values import NamedTuple
from usernsplan.volume import syscalls
from usernsplan.volume.parts import TOP, Parts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

# O_NOATIME: a look must not change the volume.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME
_BENEATH = syscalls.BENEATH | syscalls.NO_SYMLINKS | syscalls.NO_MAGICLINKS
# The kernel accepts paths of up to 4095 bytes, and names of up to 255. So a path is opened in pieces
# of so many parts.
_PIECE = 15
# How many folders a Walker holds at most; an even number. A process may have 1,024 open files.
_HELD = 64
# The st_size from which a folder is read in batches: it may have some ten thousand names.
BIG = 1 << 20
_BATCH = 1 << 15
# The errors for a folder that was moved, removed or exchanged after its name was read.
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

# Folders that wait for a look: the number of their volume, the place of the folder above them, their
# names ("" for that folder), and their seen_before (see step).
Waiting = tuple[int, Parts, list[str], int]


class Mounts(NamedTuple):
    """The mount points below a volume: by the parts of a folder, their names in that folder."""

    names: Mapping[Parts, frozenset[str]] = {}

    @classmethod
    def below(cls, path: str, mounts: Iterable[MountPoint]) -> Mounts:
        """The mount points below the volume at the real path ``path``."""
        found: dict[Parts, set[str]] = {}
        prefix = path.rstrip("/") + "/"
        for mount in mounts:
            if mount.point.startswith(prefix) and mount.point != prefix:
                *parts, name = mount.point[len(prefix) :].split("/")
                found.setdefault(Parts.of(parts), set()).add(name)
        return cls({parts: frozenset(names) for parts, names in found.items()})

    def points(self, path: str) -> list[str]:
        """The paths of the mount points; ``path`` is that of the volume."""
        return [
            "/".join([path.rstrip("/"), *parts, name])
            for parts, names in self.names.items()
            for name in names
        ]

    def among(self, path: str, points: Collection[str]) -> Mounts:
        """Those whose paths are among these; ``path`` is that of the volume."""
        top = path.rstrip("/")
        return Mounts(
            {
                parts: frozenset(n for n in names if "/".join((top, *parts, n)) in points)
                for parts, names in self.names.items()
            }
        )

    def crossed_by(self, parts: Parts) -> bool:
        """Tell whether a path leads through a mount point."""
        while parts.depth:
            if parts.name in self.names.get(parts.above, ()):
                return True
            parts = parts.above
        return False


class OpenVolume(NamedTuple):
    """An open volume.

    ``path`` is its real path, ``top`` the descriptor of its top (below 0: it is gone). ``mounts``
    are the mount points in it; ``cross_mounts``: enter them. ``local``: this machine's clock writes
    the times of its inodes. ``twice`` are mount points whose content is met under another name too.
    ``idmapped`` are mount points that show other ids than the disk has. ``overlays`` are the mounts
    of the overlays that its files may be on.

    ``only``: the volume is the single file of this name in the top, without the top itself and
    without its other entries.
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
        """The path of the volume: of the top, or of the single file."""
        return self.shown(TOP)

    def seen(self) -> os.stat_result:
        """The stat of the top or the single file, as it is now. Raises OSError if it is gone."""
        return os.lstat(self.only, dir_fd=self.top) if self.only else os.fstat(self.top)

    def shown(self, parts: Parts, name: str = "") -> str:
        """The path of an entry, for people and for lists of paths."""
        names = [self.only] if self.only else [*parts]
        if name and name != self.only:
            names.append(name)
        return "/".join([self.path.rstrip("/"), *names]) or "/"

    @property
    def opening(self) -> int:
        """The rules for opening folders, as ``syscalls.openat2`` takes them."""
        return _BENEATH if self.cross_mounts else _BENEATH | syscalls.NO_XDEV

    @property
    def pinning(self) -> int:
        """The rules for pinning entries, as ``syscalls.pin`` takes them."""
        if not self.has_openat2:
            return 0
        # A single file may be a mount point: the request means the file that is mounted there.
        return _BENEATH if self.cross_mounts or self.only else _BENEATH | syscalls.NO_XDEV

    def pin(self, name: str) -> int:
        """Pin an entry of the current folder, "." for the folder itself; never a symlink's target.

        Raises OSError: EXDEV for a mount point, unless mounts are entered.
        """
        return syscalls.pin(name, self.pinning)


def pin(path: str) -> int:
    """Open a folder by its real path. Raises OSError if any part of it is a symlink."""
    slash = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    root = OpenVolume("/", slash, Mounts(), cross_mounts=True, has_openat2=_has_openat2(slash))
    try:
        return folder(root, Parts.of(part for part in path.split("/") if part))
    finally:
        os.close(slash)


def volume(
    path: str, *, cross_mounts: bool = False, twice: frozenset[str] = frozenset()
) -> OpenVolume:
    """Pin the top of a volume, or the folder of a single file.

    ``path`` is real: absolute and normalized, without symlinks. Raises OSError.
    """
    mounts = all_mounts()
    try:
        top = pin(path)
    except NotADirectoryError:
        return _single(path, mounts)

    inside = Mounts.below(path, mounts)
    # If several mounts have the same point, the last is on top.
    on_top = {mount.point: mount for mount in mounts}
    points = inside.points(path)
    own = mount_of(path, mounts)
    met = [own, *(on_top[point] for point in points if cross_mounts)]
    return OpenVolume(
        path,
        top,
        inside,
        cross_mounts,
        _has_openat2(top),
        local=not points and own.kind in LOCAL,
        twice=twice,
        idmapped=frozenset(point for point in points if on_top[point].is_idmapped),
        overlays=tuple(mount for mount in met if mount.kind in OVERLAYS),
    )


def _single(path: str, mounts: Iterable[MountPoint]) -> OpenVolume:
    """Pin the folder of a single file. Raises OSError: ELOOP for a symlink."""
    above, _, name = path.rpartition("/")
    top = pin(above)
    own = mount_of(path, mounts)
    of = OpenVolume(
        above or "/",
        top,
        Mounts(),
        has_openat2=_has_openat2(top),
        local=own.kind in LOCAL,
        only=name,
        overlays=(own,) if own.kind in OVERLAYS else (),
    )
    try:
        if stat.S_ISLNK(of.seen().st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    except OSError:
        os.close(top)
        raise
    return of


def kind_of(path: str, mounts: Iterable[MountPoint]) -> str:
    """The type of the file system at a real path."""
    return mount_of(path, mounts).kind


def takes_owners(mounts: Iterable[MountPoint]) -> frozenset[int]:
    """The devices whose file systems store every owner, or return an error."""
    return frozenset(mount.number for mount in mounts if mount.kind in LOCAL)


def is_doubted(of: OpenVolume, mounts: Iterable[MountPoint]) -> bool:
    """Tell whether a volume has files on a file system that may ignore a change of owner."""
    points = [of.named, *(of.mounts.points(of.path) if of.cross_mounts else ())]
    return any(kind_of(point, mounts) not in LOCAL for point in points)


def other_names(path: str, mounts: Sequence[MountPoint]) -> list[str]:
    """The other paths that show the folder at a real path: its bind mounts, or their source."""
    own = mount_of(path, mounts)
    inside = own.root.rstrip("/") + path[len(own.point.rstrip("/")) :]
    names = [
        (mount, mount.point.rstrip("/") + inside[len(mount.root.rstrip("/")) :] or "/")
        for mount in mounts
        if mount.device == own.device and lies_in(inside, mount.root)
    ]
    # A path that another mount covers does not show it.
    return [name for mount, name in names if name != path and mount_of(name, mounts) is mount]


def lower_folders(of: OpenVolume) -> list[str]:
    """The lower folders of the overlays of a volume, those that the kernel shows as paths."""
    return [
        path
        for one in of.overlays
        for path in one.fs_option("lowerdir").split(":")
        if path[:1] == "/"
    ]


def _has_openat2(top: int) -> bool:
    """Kernels before 5.6 return ENOSYS, and the filters of old container engines EPERM."""
    try:
        os.close(syscalls.openat2(top, b".", _FOLDER, _BENEATH))
    except OSError:
        return False
    return True


class Walker:
    """Opens folders that lie near each other, each by the way from the last one.

    No symlink is followed, and every part is resolved below the pinned top of the volume, or below
    a folder that was opened so and is still held. So a folder was in the volume even if others
    rename entries at the same time. A folder up to 15 levels deep is always resolved from the top.

    Some of the folders above the last one are held, so that no way is long, however deep the volume
    is. They are closed with the walker.
    """

    def __init__(self) -> None:
        self._of: OpenVolume | None = None
        # From the top down. Their depths are multiples of _PIECE.
        self._held: list[tuple[Parts, int]] = []

    def folder(self, of: OpenVolume, parts: Parts) -> int:
        """Pin a folder of a volume; the caller closes the descriptor.

        Raises OSError: EXDEV for a mount point, unless mounts are entered; an errno of GONE if it
        is no longer a folder.
        """
        if not of.has_openat2 and not of.cross_mounts and of.mounts.crossed_by(parts):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        above, names = parts.split((parts.depth - 1) // _PIECE * _PIECE if parts.depth else 0)
        return _opened(of, self._hold(of, above) if above.depth else of.top, names)

    def _hold(self, of: OpenVolume, parts: Parts) -> int:
        """Hold the folder at this place, and folders above it. Returns its descriptor."""
        if of is not self._of:
            self.close()
            self._of = of

        # Up to the nearest folder that is held. Those that do not lead here are closed.
        way: list[tuple[Parts, list[str]]] = []
        while True:
            while self._held and self._held[-1][0].depth > parts.depth:
                os.close(self._held.pop()[1])
            if not parts.depth or (self._held and self._held[-1][0] is parts):
                break
            above, names = parts.split(parts.depth - _PIECE)
            way.append((parts, names))
            parts = above

        here = self._held[-1][1] if parts.depth else of.top
        for below, names in reversed(way):
            here = _opened(of, here, names)
            self._held.append((below, here))
            if len(self._held) == _HELD:
                # Every second one, but not the last: on the way up, none is then far below one.
                for _, pinned in self._held[::2]:
                    os.close(pinned)
                del self._held[::2]
        return here

    def close(self) -> None:
        """Close all folders that are held."""
        while self._held:
            os.close(self._held.pop()[1])

    def __del__(self) -> None:
        self.close()


def folder(of: OpenVolume, parts: Parts) -> int:
    """Pin a folder of a volume that lies near no other one; see Walker."""
    return Walker().folder(of, parts)


def _opened(of: OpenVolume, above: int, parts: list[str]) -> int:
    if not of.has_openat2:
        return _by_parts(above, parts)
    path = os.fsencode("/".join(parts)) or b"."
    try:
        return syscalls.openat2(above, path, _FOLDER, of.opening)
    except OSError as error:
        # Only the owner of a folder and CAP_FOWNER may use O_NOATIME: open(2).
        if error.errno != errno.EPERM:
            raise
    return syscalls.openat2(above, path, _FOLDER & ~os.O_NOATIME, of.opening)


def _by_parts(above: int, parts: list[str]) -> int:
    """Open one part after the other, each below the last; for kernels without openat2(2)."""
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
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
    """The names in a pinned folder, in one list, or in several if there may be very many.

    ``size`` is the folder's st_size. ``only``: yield just this name.
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


def taken(stack: list[Waiting]) -> tuple[int, Parts, int]:
    """Take the next folder that waits: the number of its volume, its place, its seen_before."""
    number, above, names, seen_before = stack[-1]
    name = names.pop()
    if not names:
        stack.pop()
    if "/" in name:  # some names, see Looker.below
        stack.append((number, above, name.split("/"), seen_before))
        return taken(stack)
    return number, above.below(name) if name else above, seen_before


def half(stack: list[Waiting]) -> list[Waiting]:
    """Remove half of the folders nearest to the top and return them; the most work in one step.

    They are those that would be taken last.
    """
    number, above, names, seen_before = stack[0]
    if len(names) > 1:
        half = names[: len(names) // 2]
        del names[: len(names) // 2]
        return [(number, above, half, seen_before)]
    # Or half of what waits: in a deep tree each place may have one folder, and little in it.
    half_of_all = stack[: len(stack) // 2]
    del stack[: len(half_of_all)]
    return half_of_all
