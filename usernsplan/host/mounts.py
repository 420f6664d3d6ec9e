"""The mounts of this machine, from /proc/PID/mountinfo."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from usernsplan.errors import of_place
from usernsplan.layout import lies_in
from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


# File systems that ask another machine or a program, and hang if it does not answer. The kernel
# names those of FUSE "fuse.NAME".
_OF_NETWORK = pattern(
    "9p|afs|autofs|ceph|cifs|coda|davfs|fuse([.].*)?|gfs2?|glusterfs|lustre|ncp|ncpfs|nfs4?|ocfs2|"
    "orangefs|pvfs2|smb3|smbfs|sshfs"
)
OVERLAYS = frozenset({"overlay", "fuse.fuse-overlayfs"})
# File systems of this machine, which store every owner and use this machine's clock.
LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "f2fs"})
_LAYERS = ("lowerdir", "lowerdir+", "upperdir")


class MountPoint(NamedTuple):
    """One line of /proc/self/mountinfo: proc_pid_mountinfo(5).

    ``device`` is "major:minor". ``root`` is the part of the file system that it shows. ``options``
    are those of the mount and ``fs_options`` those of its file system, as the kernel writes them.
    ``mount_id`` is the kernel's number of the mount, and ``parent_id`` that of the mount on which it
    stands. ``shared`` is its peer group, and ``master`` the group from which it receives mounts; 0
    if there is none. ``source`` is what was mounted: a device, or what a server calls it.
    """

    device: str
    root: str
    point: str
    kind: str
    options: str = ""
    fs_options: str = ""
    mount_id: int = 0
    parent_id: int = 0
    shared: int = 0
    master: int = 0
    source: str = ""

    @property
    def number(self) -> int:
        """The device number, as in st_dev."""
        major, _, minor = self.device.partition(":")
        return os.makedev(int(major), int(minor))

    @property
    def is_nosuid(self) -> bool:
        """Tell whether setuid, setgid and capabilities of its files do not count."""
        return "nosuid" in self.options.split(",")

    @property
    def is_idmapped(self) -> bool:
        """Tell whether its files show other ids than the ones on disk."""
        return "idmapped" in self.options.split(",")

    def fs_option(self, name: str) -> str:
        """The value of an option of the file system; "" if it has none."""
        # The kernel writes a comma in a value as octal, so every comma ends an option.
        found = (option.partition("=") for option in self.fs_options.split(","))
        return next((_plain(value) for key, _, value in found if key == name), "")

    @property
    def layers(self) -> list[str]:
        """The folders that an overlay merges, those that the kernel shows as paths."""
        # Since Linux 6.8 there may be an option for each lower folder.
        options = (option.partition("=") for option in self.fs_options.split(","))
        values = [_plain(value) for key, _, value in options if key in _LAYERS]
        return [path for value in values for path in value.split(":") if path.startswith("/")]


class Seen(NamedTuple):
    """The mounts of another mount namespace, and one process that is in it."""

    pid: int
    command: str
    mounts: tuple[MountPoint, ...]


def of_others() -> list[Seen]:
    """The mounts of each mount namespace except our own, if this process may read them."""
    found: dict[str, Seen] = {}
    own = ""
    for pid, namespace in processes():
        own = own or namespace
        # Each namespace is read once, through the first process that can be read in it.
        with suppress(OSError):
            if isinstance(pid, int) and namespace != own and namespace not in found:
                mounts = tuple(all_mounts(pid))
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="surrogateescape") as file:
                    command = file.read().rstrip("\n")
                if mounts:
                    found[namespace] = Seen(pid, command, mounts)
    return list(found.values())


def processes() -> Iterator[tuple[int | str, str]]:
    """Each process that we may look at, first "self", and the name of its mount namespace."""
    pids: list[int | str]
    try:
        pids = ["self", *sorted(int(name) for name in os.listdir("/proc") if name.isdigit())]
    except OSError:
        return
    for pid in pids:
        # Processes end at any time, and we may not look at all of them.
        with suppress(OSError):
            yield pid, os.readlink(f"/proc/{pid}/ns/mnt")


def raw(pid: int | str) -> bytes:
    """The mounts as the kernel writes them for a process. Raises OSError if it is gone."""
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        return file.read()


def all_mounts(pid: int | str = "self") -> list[MountPoint]:
    """The mounts as this process, or the process ``pid``, sees them.

    Raises OSError if that other process is gone, and UsernsplanError if there is no /proc.
    """
    if pid == "self":
        with of_place("/proc/self/mountinfo"):
            return _mounts_of(pid)
    return _mounts_of(pid)


def mount_of(path: str, mounts: Iterable[MountPoint]) -> MountPoint:
    """The mount of a real path: the last one at the longest mount point above it."""
    above = [mount for mount in mounts if lies_in(path, mount.point)]
    longest = max((len(mount.point) for mount in above), default=0)
    return next(
        (mount for mount in reversed(above) if len(mount.point) == longest),
        MountPoint("", "/", "/", ""),
    )


def is_of_network(kind: str) -> bool:
    """Tell whether a kind of file system asks another machine or a program."""
    return bool(_OF_NETWORK.fullmatch(kind))


def of_network() -> dict[str, str]:
    """The mount points whose files may hang, and the kind of each. None of them is touched.

    Nothing is known without /proc.
    """
    # The last mount on a point covers those before it.
    kinds: dict[str, str] = {}
    with suppress(OSError):
        kinds = {mount.point: mount.kind for mount in _mounts_of("self")}
    return {point: kind for point, kind in kinds.items() if is_of_network(kind)}


def _mounts_of(pid: int | str) -> list[MountPoint]:
    try:
        # Only LF ends a line: the kernel does not escape a CR in a path.
        with open(
            f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n"
        ) as file:
            return list(_parsed(file.read()))
    except OSError as error:
        # A process that is ending has no mount namespace any more.
        if error.errno != errno.EINVAL:
            raise
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), error.filename) from error


# A command reads the same mounts a dozen times, because they may change at any time.
@lru_cache(maxsize=16)
def _parsed(text: str) -> tuple[MountPoint, ...]:
    return tuple(parse(line) for line in text.removesuffix("\n").split("\n") if line)


def parse(line: str) -> MountPoint:
    """Read one line. Blanks and backslashes in paths are octal escapes."""
    before, _, after = line.rstrip("\n").partition(" - ")
    fields = before.split(" ")
    tags = dict(tag.partition(":")[::2] for tag in fields[6:])
    kind, *rest = after.split(" ", 2)
    return MountPoint(
        fields[2],
        _plain(fields[3]),
        _plain(fields[4]),
        kind,
        fields[5],
        rest[-1] if rest else "",
        int(fields[0]),
        int(fields[1]),
        int(tags.get("shared", 0)),
        int(tags.get("master", 0)),
        _plain(rest[0]) if rest else "",
    )


def _plain(text: str) -> str:
    if "\\" not in text:
        return text
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
