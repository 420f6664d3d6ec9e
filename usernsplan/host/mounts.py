"""The mounts of this machine, from /proc/PID/mountinfo."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import NamedTuple

from usernsplan.errors import of_place


class MountPoint(NamedTuple):
    """One line of /proc/self/mountinfo: proc_pid_mountinfo(5).

    ``device`` is "major:minor". ``root`` is the part of the file system that it shows. ``options``
    are those of the mount and ``fs_options`` those of its file system, as the kernel writes them.
    """

    device: str
    root: str
    point: str
    kind: str
    options: str = ""
    fs_options: str = ""

    @property
    def number(self) -> int:
        """The device number, as in st_dev."""
        major, _, minor = self.device.partition(":")
        return os.makedev(int(major), int(minor))

    @property
    def is_idmapped(self) -> bool:
        """Tell whether its files show other ids than the ones on disk."""
        return "idmapped" in self.options.split(",")

    def fs_option(self, name: str) -> str:
        """The value of an option of the file system; "" if it has none."""
        # The kernel writes a comma in a value as octal, so every comma ends an option.
        found = (option.partition("=") for option in self.fs_options.split(","))
        return next((_plain(value) for key, _, value in found if key == name), "")


class Seen(NamedTuple):
    """The mounts of another mount namespace, and one process that is in it."""

    pid: int
    command: str
    mounts: tuple[MountPoint, ...]


def of_others() -> list[Seen]:
    """The mounts of each mount namespace except our own, if this process may read them."""
    found: dict[str, Seen] = {}
    try:
        own = os.readlink("/proc/self/ns/mnt")
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    except OSError:
        return []
    for pid in pids:
        # Processes end at any time, and we may not look at all of them. Each namespace is read
        # once, through the first process that we find in it.
        with suppress(OSError):
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace != own and namespace not in found:
                mounts = tuple(all_mounts(pid))
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="surrogateescape") as file:
                    command = file.read().rstrip("\n")
                if mounts:
                    found[namespace] = Seen(pid, command, mounts)
    return list(found.values())


def all_mounts(pid: int | str = "self") -> list[MountPoint]:
    """The mounts as this process, or the process ``pid``, sees them.

    Raises OSError if that other process is gone, and UsernsplanError if there is no /proc.
    """
    if pid == "self":
        with of_place("/proc/self/mountinfo"):
            return _mounts_of(pid)
    return _mounts_of(pid)


def _mounts_of(pid: int | str) -> list[MountPoint]:
    # Only LF ends a line: the kernel does not escape a CR in a path.
    with open(
        f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n"
    ) as file:
        return [parse(line) for line in file]


def parse(line: str) -> MountPoint:
    """Read one line. Blanks and backslashes in paths are octal escapes."""
    fields = line.split(" ")
    kind, *rest = line.rstrip("\n").partition(" - ")[2].split(" ", 2)
    return MountPoint(
        fields[2], _plain(fields[3]), _plain(fields[4]), kind, fields[5], rest[-1] if rest else ""
    )


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
