"""What is mounted on this machine, as the kernel tells it."""

from __future__ import annotations

import re
from typing import NamedTuple


class Mount(NamedTuple):
    """One line of /proc/self/mountinfo: proc_pid_mountinfo(5). ``root`` is what it shows of the file system."""

    device: str
    root: str
    point: str
    kind: str


def all_mounts() -> list[Mount]:
    """What is mounted, as this process sees it."""
    # Only LF ends a line: the kernel leaves a CR in a path as it is.
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return [parse(line) for line in file]


def parse(line: str) -> Mount:
    """Read a line; blanks and backslashes in its paths are octal."""
    fields = line.split(" ")
    root, point = (re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path) for path in fields[3:5])
    return Mount(fields[2], root, point, line.partition(" - ")[2].split(" ")[0])
