"""The mount namespaces of this machine, and who is in each of them.

What a process can reach depends on the mounts of its own namespace: the kernel treats a mount of
another one as nosuid (mnt_may_suid in fs/namespace.c).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.host import mounts, procfs
from usernsplan.host.mount_tree import MountTree
from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from usernsplan.host.mounts import MountPoint

# Only a process that has not ended, and is not one of the kernel's, has a VmSize:
# proc_pid_status(5). The kernel writes a line end in a name as an escape.
_STATUS = pattern(rb"Name:\t(?P<name>.*)\n(?s:.*?)\nUid:\t(?P<uids>.*)\n(?s:.*?)\nVmSize:")
_PIECE = 16384


class Process(NamedTuple):
    """A process: its mount namespace, its effective uid, and whether it is root as we are.

    The uid is root's only in our own user namespace: root of another one may gain power. The name
    of the mount namespace is "" if we may not read it.
    """

    pid: int
    command: str
    uid: int
    is_root: bool
    space: str


class Space(NamedTuple):
    """A mount namespace: its name, a process with its root (0: ours), and its mounts.

    The kernel gives a mount one id, the same for every process.
    """

    name: str
    pid: int
    command: str
    tree: MountTree

    def path(self, path: str) -> str:
        """The path by which we open what this path shows there."""
        return f"/proc/{self.pid}/root{path}" if self.pid else path

    def mounts_below(self, number: int) -> list[MountPoint]:
        """The mounts that are mounted in this one, and in those, the deepest ones last."""
        found = [n for n in self.tree.by_id.values() if n.parent_id == number != n.mount_id]
        return found + [n for one in found for n in self.mounts_below(one.mount_id)]


class Spaces(NamedTuple):
    """All mount namespaces, ours first, all processes, and what could not be looked at."""

    spaces: tuple[Space, ...]
    processes: tuple[Process, ...]
    unknown: tuple[str, ...] = ()

    @property
    def own(self) -> Space:
        """Our own one."""
        return self.spaces[0]


def own() -> Space:
    """Our own one. Raises OSError if there is no /proc."""
    return Space(os.readlink("/proc/self/ns/mnt"), 0, "", MountTree(mounts.all_mounts()))


def look() -> Spaces:
    """Look at every process and its mount namespace. Raises OSError if there is no /proc."""
    ours, user = own(), os.readlink("/proc/self/ns/user")
    spaces, found, unknown = {ours.name: ours}, [], []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        # Processes end while we look at them.
        with suppress(FileNotFoundError, ProcessLookupError):
            process = _process(pid, user)
            if process is None:
                continue
            found.append(process)
            if process.space and process.space not in spaces and (space := _space(process)):
                spaces[process.space] = space
    strange = [process for process in found if process.space not in spaces]
    # A process that is ending gives its mounts back while we look: then nothing is unknown of it.
    ended = {process for process in strange if _has_ended(process.pid)}
    if ended:
        strange = [process for process in strange if process not in ended]
        found = [process for process in found if process not in ended]
    if strange:
        known = {number for space in spaces.values() for number in space.tree.by_id}
        unknown = [what for process in strange for what in _strange(process, known)]
    return Spaces(tuple(spaces.values()), tuple(found), tuple(unknown))


def every() -> tuple[Space, ...]:
    """Our own one, and the others that can be looked at. Raises OSError if there is no /proc.

    It takes half the time of ``look``, because it asks one process of each.
    """
    ours, user = own(), os.readlink("/proc/self/ns/user")
    spaces = {ours.name: ours}
    for pid, name in mounts.processes():
        if isinstance(pid, int) and name not in spaces:
            with suppress(FileNotFoundError, ProcessLookupError):
                process = _process(pid, user)
                if process and (space := _space(process)):
                    spaces.setdefault(space.name, space)
    return tuple(spaces.values())


def _space(process: Process) -> Space | None:
    """The mount namespace of a process, if that has its root. Raises OSError if it has ended."""
    if not _sees_all(process.pid):
        return None
    tree = MountTree(mounts.all_mounts(process.pid))
    # A process that is just ending has none, and others may be in the same namespace.
    return Space(process.space, process.pid, process.command, tree) if tree.mounts else None


def _process(pid: int, ours: str) -> Process | None:
    """A process; None if it has ended or is one of the kernel's. Raises OSError.

    ``ours`` is the name of our user namespace.
    """
    found = _STATUS.match(_content(f"/proc/{pid}/status"))
    if found is None:
        return None
    uids = [int(uid) for uid in found["uids"].split()]
    space, user = "", ""
    # Another security module may keep root out of a process.
    with suppress(PermissionError):
        space = os.readlink(f"/proc/{pid}/ns/mnt")
        user = os.readlink(f"/proc/{pid}/ns/user")
    is_ours = user == ours if user else _has_our_ids(pid)
    return Process(pid, os.fsdecode(found["name"]), uids[1], is_ours and not any(uids), space)


def _has_ended(pid: int) -> bool:
    """Tell whether a process has ended. It loses its memory first, and its namespaces after that."""
    try:
        return _STATUS.match(_content(f"/proc/{pid}/status")) is None
    except (FileNotFoundError, ProcessLookupError):
        return True


def _content(path: str) -> bytes:
    """A file of /proc that the kernel writes as one piece; there are hundreds, twice for a mount."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.read(descriptor, _PIECE)
        while found and len(found) % _PIECE == 0 and (more := os.read(descriptor, _PIECE)):
            found += more
        return found
    finally:
        os.close(descriptor)


def _has_our_ids(pid: int) -> bool:
    return procfs.map_texts(pid) == procfs.map_texts("self")


def _sees_all(pid: int) -> bool:
    """Tell whether a process has the root of its mount namespace, or else sees a part of it."""
    try:
        return os.readlink(f"/proc/{pid}/root") == "/"
    except PermissionError:
        return False


def _strange(process: Process, known: Collection[int]) -> list[str]:
    """What is unknown about a process whose namespace cannot be looked at through any process.

    ``known`` are the mounts of the namespaces that can be.
    """
    with suppress(FileNotFoundError, ProcessLookupError):
        # No two mounts have one id, so one that we know is enough.
        if not any(m.mount_id in known for m in mounts.all_mounts(process.pid)):
            return [f"the mounts of process {process.pid} ({process.command})"]
    return []


def links(process: Process) -> Iterator[tuple[str, str, str]]:
    """What a process has open: (what it is, the path of the link, where it leads).

    Threads may have a current folder and files of their own. Raises OSError if it may not be
    looked at; a process that has ended has nothing open.
    """
    own = f"/proc/{process.pid}"
    with suppress(FileNotFoundError, ProcessLookupError):
        yield from _link("its program", f"{own}/exe")
        for thread in os.listdir(f"{own}/task"):
            with suppress(FileNotFoundError, ProcessLookupError):
                task = f"{own}/task/{thread}"
                yield from _link("its current folder", f"{task}/cwd")
                yield from _link("its root", f"{task}/root")
                for name in os.listdir(f"{task}/fd"):
                    yield from _link("an open file", f"{task}/fd/{name}")


def _link(what: str, link: str) -> Iterator[tuple[str, str, str]]:
    with suppress(FileNotFoundError, ProcessLookupError):
        target = os.readlink(link)
        if target.startswith("/"):
            yield what, link, target


def mount_id(link: str) -> int:
    """The id of the mount by which a process has something open. Raises OSError.

    ``link`` is one of ``links``, or of /proc/self/fd.
    """
    folder, _, name = link.rpartition("/")
    if folder.endswith("/fd"):
        return _mount_id(f"{folder}info/{name}")
    descriptor = os.open(link, os.O_PATH | os.O_CLOEXEC)
    try:
        return mount_id_of(descriptor)
    finally:
        os.close(descriptor)


def mount_id_of(descriptor: int) -> int:
    """The id of the mount on which what this descriptor holds lies. Raises OSError."""
    return _mount_id(f"/proc/self/fdinfo/{descriptor}")


def _mount_id(info: str) -> int:
    lines = _content(info).splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(b"mnt_id:"))
