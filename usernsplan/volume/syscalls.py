"""System calls that Python lacks, through ctypes, such as openat2, statx and renameat2.

Only openat2 is called by its number: every system call since Linux 4.20 has the same number on all
architectures. libc has functions for the others.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import cache

_OPENAT2 = 437
_AT_EMPTY_PATH = 0x1000
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EACCESS = 0x200
# linux/openat2.h
NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH = 0x01, 0x02, 0x04, 0x08
_ENTRY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# AT_FDCWD: the current folder, in place of a descriptor.
HERE = -100
# struct statx: its size, and the offsets of these fields.
_STATX_SIZE, _STATX_MASK, _STATX_ATTRIBUTES, _STATX_BTIME_AT = 256, 0, 8, 80
_STATX_BTIME = 0x800
_IMMUTABLE_OR_APPEND = 0x10 | 0x20

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_fchownat = _libc.fchownat
_fchownat.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_int)
# linux/fs.h
_RENAME_EXCHANGE = 2
_AT_SYMLINK_FOLLOW = 0x400
_AT_HANDLE_FID = 0x200
# A file handle of overlayfs (fs/overlayfs/overlayfs.h): type, magic byte, offset of the flags.
_MAX_HANDLE = 128
_OVERLAY_HANDLE, _OVERLAY_MAGIC, _OVERLAY_FLAGS_AT, _OVERLAY_IS_UPPER = 0xF8, 0xFB, 6, 0x04


def openat2(folder: int, path: bytes, flags: int, resolve: int) -> int:
    """Open ``path`` below the folder, resolved by these rules; with O_CLOEXEC. Raises OSError."""
    how = _how(flags, resolve)
    found: int = _syscall(_OPENAT2, folder, path, how, len(how))
    if found < 0:
        raise _error(path)
    return found


@cache
def _how(flags: int, resolve: int) -> bytes:
    """The struct open_how of linux/openat2.h. Few are ever needed."""
    return struct.pack("QQQ", flags | os.O_CLOEXEC, 0, resolve)


def pin(name: str, resolve: int) -> int:
    """Open an entry of the current folder with O_PATH, "." for the folder; follow no symlink.

    ``resolve`` are the rules of openat2(2). 0 means open(2), for kernels without that call. Raises
    OSError.
    """
    if not resolve:
        return os.open(name, _ENTRY)
    return openat2(HERE, os.fsencode(name), _ENTRY, resolve)


def chown_pinned(descriptor: int, uid: int, gid: int) -> None:
    """Change the owner of the inode that an O_PATH descriptor pins, which may be a symlink.

    fchown(2) refuses such descriptors with EBADF. Raises OSError.
    """
    if _fchownat(descriptor, b"", uid, gid, _AT_EMPTY_PATH | _AT_SYMLINK_NOFOLLOW):
        raise _error(b"")


def link(descriptor: int, folder: int, name: str) -> None:
    """Give an open file a name in a folder, its first one too (O_TMPFILE): linkat(2)."""
    path = f"/proc/self/fd/{descriptor}".encode()
    if _libc.linkat(HERE, path, folder, os.fsencode(name), _AT_SYMLINK_FOLLOW):
        raise _error(os.fsencode(name))


def exchange(folder: int, one: str, other: str) -> None:
    """Exchange two names of a folder in one step: renameat2(2). Raises OSError."""
    renameat2 = getattr(_libc, "renameat2", None)
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if renameat2(
        folder, os.fsencode(one), folder, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)
    ):
        raise _error(os.fsencode(one))


def sync_file_system(descriptor: int) -> None:
    """Write all changes of a file system to the disk: syncfs(2). Raises OSError."""
    if _libc.syncfs(descriptor):
        raise _error(b"")


def born_ns(name: str) -> int | None:
    """The birth time of an entry of the current folder, in ns since the epoch; None if unknown."""
    found = _statx(name, _STATX_BTIME)
    if found is None or not struct.unpack_from("I", found, _STATX_MASK)[0] & _STATX_BTIME:
        return None
    seconds, nanoseconds = struct.unpack_from("qI", found, _STATX_BTIME_AT)
    return int(seconds * 1_000_000_000 + nanoseconds)


def is_immutable(name: str) -> bool:
    """Tell whether an entry of the current folder is immutable or append-only; do not open it."""
    found = _statx(name, 0)
    return found is not None and bool(
        struct.unpack_from("Q", found, _STATX_ATTRIBUTES)[0] & _IMMUTABLE_OR_APPEND
    )


def is_read_only(name: str) -> bool:
    """Tell whether an entry of the current folder is on a read-only mount or btrfs subvolume.

    statvfs(2) does not show the state of a subvolume, so faccessat(2) asks for write access. That
    alone would not do: for devices and pipes it does not return EROFS.
    """
    if os.statvfs(name).f_flag & os.ST_RDONLY:
        return True
    denied = _libc.faccessat(HERE, os.fsencode(name), os.W_OK, _AT_EACCESS)
    return bool(denied) and ctypes.get_errno() == errno.EROFS


def is_only_in_upper(name: str) -> bool:
    """Tell whether an entry of the current folder, on an overlay, was created in its upper folder.

    The file handle shows that: name_to_handle_at(2). Before Linux 6.6 an overlay without nfs_export
    makes no handles, and the answer is False. It is also False for an entry that was copied up.
    """
    handle = ctypes.create_string_buffer(struct.pack("Ii", _MAX_HANDLE, 0), 8 + _MAX_HANDLE)
    mount = ctypes.c_int()
    asked = getattr(_libc, "name_to_handle_at", None)
    if asked is None or asked(HERE, os.fsencode(name), handle, ctypes.byref(mount), _AT_HANDLE_FID):
        return False
    size, kind = struct.unpack_from("Ii", handle)
    body = handle.raw[8 : 8 + size]
    is_overlays = (
        kind == _OVERLAY_HANDLE and len(body) > _OVERLAY_FLAGS_AT and body[4] == _OVERLAY_MAGIC
    )
    return is_overlays and bool(body[_OVERLAY_FLAGS_AT] & _OVERLAY_IS_UPPER)


def _statx(name: str, wanted: int) -> bytes | None:
    """The struct statx of statx(2); None if the call fails or libc lacks it."""
    statx = getattr(_libc, "statx", None)
    found = ctypes.create_string_buffer(_STATX_SIZE)
    if statx is None or statx(
        HERE, os.fsencode(name), _AT_SYMLINK_NOFOLLOW, ctypes.c_uint(wanted), found
    ):
        return None
    return found.raw


def _error(path: bytes) -> OSError:
    code = ctypes.get_errno() or errno.EIO
    return OSError(code, os.strerror(code), path)
