"""Whether the kernel can mount a folder with its ids mapped. It is tried with mount_setattr(2).

Nothing is mounted anywhere: a detached copy of the mount gets the map and is closed.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress

from usernsplan.errors import reason_of
from usernsplan.host.mounts import all_mounts

_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOUNT_ATTR_IDMAP = 0x00100000
_CLONE_NEWUSER = 0x10000000
# Both numbers are the same on every architecture; since Linux 5.2 and 5.12.
_OPEN_TREE, _MOUNT_SETATTR = 428, 442

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")
    ]


def why_not(path: str) -> str:
    """Why the folder at ``path`` cannot be mounted with an idmap; "" if it can."""
    if _has_mounts(path):
        return "something is mounted in it"
    if os.geteuid() != 0:
        return "only root can test this"
    try:
        namespace = _namespace()
    except OSError as error:
        return f"no user namespace can be created ({reason_of(error)})"
    try:
        _try(path, namespace)
    except FileNotFoundError:
        return "it does not exist yet"
    except OSError as error:
        # mount_setattr(2) returns EINVAL if the file system does not support idmapped mounts.
        is_unsupported = error.errno == errno.EINVAL
        reason = f"the kernel returns: {reason_of(error)}"
        return "its file system does not support it" if is_unsupported else reason
    finally:
        os.close(namespace)
    return ""


def _try(path: str, namespace: int) -> None:
    """Map the ids of a detached mount of the folder. Raises OSError with the kernel's errno."""
    tree = _call(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    try:
        wanted = _MountAttr(_MOUNT_ATTR_IDMAP, 0, 0, namespace)
        _call(
            _MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(wanted), ctypes.sizeof(wanted)
        )
    finally:
        os.close(tree)


def _has_mounts(path: str) -> bool:
    """Tell whether something is mounted below a folder: engines treat such mounts differently."""
    below = os.path.realpath(path).rstrip("/") + "/"
    return any(mount.point.startswith(below) for mount in all_mounts())


def _namespace() -> int:
    """A descriptor of a new user namespace in which one id is mapped."""
    ready, go = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        # System calls only: the child is a copy of a program that may hold locks and buffers.
        done = _libc.unshare(_CLONE_NEWUSER) == 0
        os.write(ready[1], b"1" if done else b"0")
        os.close(go[1])
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.close(ready[1])
        if os.read(ready[0], 1) != b"1":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for kind in ("uid", "gid"):
            with open(f"/proc/{child}/{kind}_map", "w", encoding="ascii") as file:
                file.write("0 524288 1")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for descriptor in (ready[0], go[0], go[1]):
            os.close(descriptor)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


def _call(number: int, *arguments: object) -> int:
    words = (ctypes.c_long(word) if isinstance(word, int) else word for word in arguments)
    found = int(_libc.syscall(ctypes.c_long(number), *words))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
