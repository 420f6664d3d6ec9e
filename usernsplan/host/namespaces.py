"""The user namespaces that run on this machine, in one pass over /proc: user_namespaces(7), ioctl_ns(2).

One that no process is in is only found as the parent of another: nothing lists those that a bind mount keeps.
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
# The number of the first user namespace of every kernel: PROC_USER_INIT_INO.
_FIRST = 0xEFFFFFFD


def running() -> tuple[Namespace, ...]:
    """Every user namespace but our own, by inode; of those whose processes we may not look at, none.

    A parent in which no process is left is among them, without processes and without a mapping. See ``sees_all``.
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
    """The user namespace of a process and those around it, up to our own, which is none of them; of ``running``.

    Where we may not look at the process, one without a number that has its maps. None where that does not tell: maps
    like our own are no proof of our own namespace, and what lies outside of ours the kernel does not translate.
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
    if inode not in by_inode:  # it was made meanwhile
        by_inode = {namespace.inode: namespace for namespace in running()}
    line: list[Namespace] = []
    above: int | None = inode
    while above in by_inode:
        line.append(by_inode[above])
        above = line[-1].parent
    return tuple(line) or None


def is_first() -> bool:
    """Tell whether this process is in the host's first user namespace, and not itself in one of those that are made."""
    return inode_of("self") == _FIRST


def sees_all() -> bool:
    """Tell whether we may look at the processes of others: CAP_SYS_PTRACE, capabilities(7)."""
    return procfs.has_capability(_SYS_PTRACE)


def inode_of(pid: int | str) -> int | None:
    """The inode number of a process's user namespace; None where it is gone or not ours to look at."""
    try:
        # It reads user:[4026531837].
        return int(os.readlink(f"/proc/{pid}/ns/user")[6:-1])
    except OSError:
        return None


def host_ids() -> IdSet:
    """The host ids, uids and gids, that running user namespaces map to something else.

    Maps like our own are the host itself. An extent that maps ids to themselves hands out no range: it is left out.
    The maps of everybody can be read, also where the namespace's number cannot.
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
    # Without a /proc there is nobody to be seen; one that fails is not to be taken for that.
    with of_place("/proc"), suppress(FileNotFoundError), os.scandir("/proc") as processes:
        names = [process.name for process in processes]
        for name in filter(str.isdigit, names):
            yield int(name), inode_of(name)


def _line_of(pids: list[int], inode: int) -> list[tuple[int, int | None, int | None]]:
    """A namespace and those around it, as (inode, owner, parent), as far as the kernel tells us."""
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
    """The namespace, opened through one of its processes: the number of one that ended may be another's by now."""
    for pid in pids:
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
        return None  # EPERM: it is our own, or none of ours lies around it


def _owner(namespace: int) -> int | None:
    raw = bytearray(4)
    try:
        fcntl.ioctl(namespace, _NS_GET_OWNER_UID, raw)
    except OSError:
        return None
    return int.from_bytes(raw, "little")


def _mapping(pid: int, inode: int) -> Mapping | None:
    """Both maps, read while the process is in this namespace; None where neither is written yet."""
    texts = procfs.map_texts(pid)
    return procfs.read(*texts) if inode_of(pid) == inode else None
