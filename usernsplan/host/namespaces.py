"""The user namespaces that run on this machine, from one pass over /proc.

Sources: user_namespaces(7), ioctl_ns(2).

A namespace without processes is only found as the parent of another one: the kernel does not list
namespaces that only a bind mount keeps.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.errors import of_place
from usernsplan.host import procfs
from usernsplan.ids import IdSet
from usernsplan.model import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.mapping import Mapping

# linux/nsfs.h
_NS_GET_PARENT = 0xB702
_NS_GET_OWNER_UID = 0xB704
_SYS_PTRACE = 19
# The inode number of the first user namespace of every kernel: PROC_USER_INIT_INO.
_FIRST = 0xEFFFFFFD


def running() -> tuple[Namespace, ...]:
    """Every user namespace except our own, sorted by inode number.

    Namespaces whose processes we may not look at are missing; see ``sees_all``. A parent without
    processes is included, with no pids and no mapping.
    """
    own = inode_of("self")
    members: dict[int, list[int]] = {}
    for pid, inode in _processes():
        if inode is not None and inode != own:
            members.setdefault(inode, []).append(pid)
    found: dict[int, Namespace] = {}
    for inode, pids in members.items():
        mapping = next((read for pid in pids if (read := _mapping(pid, inode))), None)
        itself, *around = _line_of(pids, inode) or [(inode, None, None)]
        found[inode] = Namespace(*itself, tuple(sorted(pids)), mapping)
        for name, owner, parent in around:
            if name != own and name not in members:
                found[name] = Namespace(name, owner, parent, (), None)
    return tuple(found[inode] for inode in sorted(found))


def around(pid: int, found: tuple[Namespace, ...]) -> tuple[Namespace, ...] | None:
    """The user namespace of a process and those around it, innermost first, without our own.

    ``found`` is the result of ``running``. If we may not look at the process, the result is one
    namespace with inode 0 and the maps of the process. None if nothing is certain: equal maps do
    not prove that it is our own namespace, and the kernel does not translate ids outside ours.
    """
    inode, own = inode_of(pid), inode_of("self")
    if inode is None:
        texts = procfs.map_texts(pid)
        if own != _FIRST or texts == procfs.map_texts("self"):
            return None
        return (Namespace(0, None, None, (pid,), procfs.read(*texts)),)
    if inode == own:
        return ()
    by_inode = {namespace.inode: namespace for namespace in found}
    if inode not in by_inode:  # it was created after ``found`` was read
        by_inode = {namespace.inode: namespace for namespace in running()}
    line: list[Namespace] = []
    above: int | None = inode
    while above in by_inode:
        line.append(by_inode[above])
        above = line[-1].parent
    return tuple(line) or None


def is_first() -> bool:
    """Tell whether this process is in the host's first user namespace, the one of the kernel."""
    return inode_of("self") == _FIRST


def sees_all() -> bool:
    """Tell whether we may look at processes of other users: CAP_SYS_PTRACE, capabilities(7)."""
    return procfs.has_capability(_SYS_PTRACE)


def inode_of(pid: int | str) -> int | None:
    """The inode number of a process's user namespace; None if it is gone or we may not look."""
    try:
        # The link reads user:[4026531837].
        return int(os.readlink(f"/proc/{pid}/ns/user")[6:-1])
    except OSError:
        return None


def host_ids() -> IdSet:
    """The host ids, as uids and gids, that running user namespaces map to other container ids.

    Maps equal to our own are the host itself. An extent that maps ids to themselves takes no range
    and is left out. Every process's maps can be read, even if its namespace's number cannot.
    """
    own = set(procfs.map_texts("self"))
    seen: set[int | None] = set()
    texts: set[str] = set()
    for pid, inode in _processes():
        if inode is None or inode not in seen:
            read = procfs.map_texts(pid)
            texts.update(read)
            if all(read):
                seen.add(inode)
    extents = (extent for text in texts - own for extent in procfs.extents(text))
    return IdSet.clipped(
        (host, host + count) for container, host, count in extents if container != host
    )


def _processes() -> Iterator[tuple[int, int | None]]:
    """Every process, and the inode number of its user namespace."""
    # Without a /proc no process is visible. An error of /proc must not look like that.
    with of_place("/proc"), suppress(FileNotFoundError), os.scandir("/proc") as processes:
        names = [process.name for process in processes]
        for name in filter(str.isdigit, names):
            yield int(name), inode_of(name)


def _line_of(pids: list[int], inode: int) -> list[tuple[int, int | None, int | None]]:
    """A namespace and those around it that the kernel shows us, as (inode, owner, parent)."""
    line: list[tuple[int, int | None, int | None]] = []
    here = _opened(pids, inode)
    with of_place(f"/proc/{pids[0]}/ns/user"):
        while here is not None:
            above = _parent(here)
            line.append(
                (
                    os.fstat(here).st_ino,
                    _owner(here),
                    None if above is None else os.fstat(above).st_ino,
                )
            )
            os.close(here)
            here = above
    return line


def _opened(pids: list[int], inode: int) -> int | None:
    """A descriptor of the namespace, opened through one of its processes; None if all ended."""
    for pid in pids:
        # A process may have ended, and another one may have its pid: compare the inode number.
        with suppress(OSError):
            descriptor = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            if os.fstat(descriptor).st_ino == inode:
                return descriptor
            os.close(descriptor)
    return None


def _parent(namespace: int) -> int | None:
    try:
        return fcntl.ioctl(namespace, _NS_GET_PARENT)
    except OSError:
        return None  # EPERM: it is our own namespace, or its parent is not inside ours


def _owner(namespace: int) -> int | None:
    raw = bytearray(4)
    try:
        fcntl.ioctl(namespace, _NS_GET_OWNER_UID, raw)
    except OSError:
        return None
    return int.from_bytes(raw, "little")


def _mapping(pid: int, inode: int) -> Mapping | None:
    """Both maps of a process; None if neither is written yet or it left this namespace."""
    texts = procfs.map_texts(pid)
    return procfs.read(*texts) if inode_of(pid) == inode else None
