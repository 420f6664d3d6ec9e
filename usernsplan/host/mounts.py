"""What is mounted on this machine, as the kernel tells it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import NamedTuple

from usernsplan.errors import of_place


class MountPoint(NamedTuple):
    """One line of /proc/self/mountinfo: proc_pid_mountinfo(5). ``root`` is what it shows of the file system.

    ``options`` are those of this mount, ``fs_options`` those of its file system, as the kernel writes them.
    """

    device: str
    root: str
    point: str
    kind: str
    options: str = ""
    fs_options: str = ""

    @property
    def number(self) -> int:
        """The device as st_dev has it."""
        major, _, minor = self.device.partition(":")
        return os.makedev(int(major), int(minor))

    @property
    def is_idmapped(self) -> bool:
        """Tell whether its files show other ids than the disk has."""
        return "idmapped" in self.options.split(",")

    def fs_option(self, name: str) -> str:
        """The value of an option of the file system; "" where it has none."""
        # A comma in a value is octal too, so that every comma ends an option.
        found = (option.partition("=") for option in self.fs_options.split(","))
        return next((_plain(value) for key, _, value in found if key == name), "")


class Seen(NamedTuple):
    """What is mounted in another mount namespace, and a process that lives there."""

    pid: int
    command: str
    mounts: tuple[MountPoint, ...]


def of_others() -> list[Seen]:
    """What is mounted in each mount namespace but our own, as far as this process may see it."""
    found: dict[str, Seen] = {}
    try:
        own = os.readlink("/proc/self/ns/mnt")
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    except OSError:
        return []
    for pid in pids:
        # Processes end at any time, and not all are ours to see. A namespace is read once, however many live in it.
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
    """What is mounted, as this process or another one sees it.

    Raises OSError where that is another one that is gone, and an error of ours where there is no /proc.
    """
    if pid == "self":
        with of_place("/proc/self/mountinfo"):
            return _mounts_of(pid)
    return _mounts_of(pid)


def _mounts_of(pid: int | str) -> list[MountPoint]:
    # Only LF ends a line: the kernel leaves a CR in a path as it is.
    with open(
        f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n"
    ) as file:
        return [parse(line) for line in file]


def parse(line: str) -> MountPoint:
    """Read a line; blanks and backslashes in its paths are octal."""
    fields = line.split(" ")
    kind, *rest = line.rstrip("\n").partition(" - ")[2].split(" ", 2)
    return MountPoint(
        fields[2], _plain(fields[3]), _plain(fields[4]), kind, fields[5], rest[-1] if rest else ""
    )


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
