"""Mounts that show other ids than the disk has: the system calls, one function each.

Nothing here decides. The numbers are the same on every architecture: open_tree(2) and
move_mount(2) since Linux 5.2, mount_setattr(2) since 5.12.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from usernsplan.mapping import Mapping

_EMPTY_PATH, _RECURSIVE = 0x1000, 0x8000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_FROM_EMPTY, _TO_EMPTY, _BENEATH = 0x4, 0x40, 0x200
_IDMAP, _PRIVATE = 0x00100000, 1 << 18
_CLONE_NEWUSER = 0x10000000
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR, _OPEN_TREE_ATTR = 428, 429, 442, 467
_UMOUNT_NOFOLLOW = 8
# linux/mount.h: the attributes of a mount that keep something from happening, by their names.
ATTRIBUTES = {"ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8}

# No process may have more open than this: fs.nr_open.
_MOST_FILES = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")
    ]


def user_namespace(mapping: Mapping) -> int:
    """A descriptor of a new user namespace with this map, for ``detached``. Raises OSError."""
    ready, go = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        # System calls only: the child is a copy of a program that may hold locks and buffers. It
        # holds no file of ours: another usernsplan would take it for somebody in its volume.
        os.chdir("/")
        low, high = sorted((ready[1], go[0]))
        os.closerange(0, low)
        os.closerange(low + 1, high)
        os.closerange(high + 1, _MOST_FILES)
        failed = ctypes.get_errno() if _libc.unshare(_CLONE_NEWUSER) else 0
        os.write(ready[1], bytes([failed]))
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.close(ready[1])
        # A child that was killed has said nothing.
        if (said := os.read(ready[0], 1)) != b"\0":
            number = said[0] if said else errno.ENOMEM
            raise OSError(number, os.strerror(number))
        for kind, ids in (("uid", mapping.uids), ("gid", mapping.gids)):
            text = "\n".join(f"{e.container} {e.host} {e.count}" for e in ids)
            # The kernel takes a map with one write only: user_namespaces(7).
            descriptor = os.open(f"/proc/{child}/{kind}_map", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for descriptor in (ready[0], go[0], go[1]):
            os.close(descriptor)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


class UserNamespaces:
    """User namespaces by their maps: a command makes each once, because each takes a process."""

    def __init__(self) -> None:
        """Begin with none."""
        self._made: dict[Mapping, int] = {}

    def of(self, mapping: Mapping) -> int:
        """A descriptor, open until ``close``. Raises OSError."""
        if mapping not in self._made:
            self._made[mapping] = user_namespace(mapping)
        return self._made[mapping]

    def close(self) -> None:
        """Forget them all."""
        while self._made:
            os.close(self._made.popitem()[1])


def detached(
    source: int,
    namespace: int | None = None,
    *,
    crosses: bool = False,
    options: Collection[str] = (),
    without: Collection[str] = (),
) -> int:
    """A detached mount of what this descriptor holds; the result is its descriptor.

    With ``namespace`` it shows the ids that this maps. ``crosses``: with the mounts below. It keeps
    the attributes of the mount that it is made from, gains ``options`` and loses ``without``, both
    of ATTRIBUTES. It is private: what is mounted in the source later does not appear in it with
    other ids. Raises OSError.
    """
    tree = copied(source, crosses=crosses)
    try:
        set_attributes(tree, namespace, crosses=crosses, options=options, without=without)
    except BaseException:
        os.close(tree)
        raise
    return tree


def copied(source: int, *, crosses: bool) -> int:
    """The first half of ``detached``: a copy that shows the ids of its source. Raises OSError."""
    how = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _EMPTY_PATH | (_RECURSIVE if crosses else 0)
    return system_call(_OPEN_TREE, source, b"", how)


def set_attributes(
    tree: int,
    namespace: int | None,
    *,
    crosses: bool,
    options: Collection[str] = (),
    without: Collection[str] = (),
) -> None:
    """The second half of ``detached``. Raises OSError."""
    added = sum(ATTRIBUTES[one] for one in options) | (0 if namespace is None else _IDMAP)
    taken = sum(ATTRIBUTES[one] for one in without if one not in options)
    wanted = _MountAttr(added, taken, _PRIVATE, namespace or 0)
    how = _EMPTY_PATH | (_RECURSIVE if crosses else 0)
    system_call(_MOUNT_SETATTR, tree, b"", how, ctypes.byref(wanted), ctypes.sizeof(wanted))


def with_map(mount: int, namespace: int, *, crosses: bool = False) -> int:
    """A detached copy of an idmapped mount, with the ids that ``namespace`` maps instead of its own.

    It keeps the attributes of that mount. Raises OSError: ENOSYS before Linux 6.15, which has no
    other way to replace a map (open_tree_attr(2)).
    """
    wanted = _MountAttr(_IDMAP, 0, _PRIVATE, namespace)
    how = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _EMPTY_PATH | (_RECURSIVE if crosses else 0)
    return system_call(
        _OPEN_TREE_ATTR, mount, b"", how, ctypes.byref(wanted), ctypes.sizeof(wanted)
    )


def attach_beneath(tree: int, mount: int) -> None:
    """Mount a detached mount beneath the mount whose top folder or file the other descriptor holds.

    Nobody sees it until what is above is unmounted. Raises OSError: EINVAL before Linux 6.5.
    """
    system_call(_MOVE_MOUNT, tree, b"", mount, b"", _FROM_EMPTY | _TO_EMPTY | _BENEATH)


def attach(tree: int, point: int) -> None:
    """Mount a detached mount on what the other descriptor holds. Raises OSError."""
    system_call(_MOVE_MOUNT, tree, b"", point, b"", _FROM_EMPTY | _TO_EMPTY)


def over(source: int, options: Collection[str]) -> None:
    """Mount what this descriptor holds over itself, with these options of ATTRIBUTES.

    The mounts in it are there again too, with these options. Raises OSError.
    """
    tree = detached(source, crosses=True, options=options)
    try:
        attach(tree, source)
    finally:
        os.close(tree)


def unmount(path: str) -> None:
    """Unmount what is on top of this path, never lazily. Raises OSError: EBUSY if it is in use."""
    if _libc.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def system_call(number: int, *arguments: object) -> int:
    """Make a system call by its number. Raises OSError with the kernel's errno."""
    words = (ctypes.c_long(word) if isinstance(word, int) else word for word in arguments)
    found = int(_libc.syscall(ctypes.c_long(number), *words))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
