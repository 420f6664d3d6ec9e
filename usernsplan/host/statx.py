"""statx(2): the owner of an entry, and whether it is immutable, in one call (Linux 4.11)."""

from __future__ import annotations

import ctypes
import os
import struct

from usernsplan.values import NamedTuple

# linux/fcntl.h, linux/stat.h: immutable and append-only files.
_NO_FOLLOW, _BASIC = 0x100, 0x7FF
_FIXED = 0x10 | 0x20
# struct statx: its attributes, links, owner, group, mode, inode number; and its device.
_FIELDS = struct.Struct("=8xQIIIH2xQ")
_DEVICE, _DEVICE_AT = struct.Struct("=II"), 136

_libc = ctypes.CDLL(None, use_errno=True)
_answer = ctypes.create_string_buffer(256)


class Stat(NamedTuple):
    """An inode. ``is_fixed``: it is immutable or append-only, so that its owner cannot change."""

    uid: int
    gid: int
    mode: int
    links: int
    key: tuple[int, int]
    is_fixed: bool


def look(folder: int, name: str) -> Stat:
    """The entry of an open folder; of a symlink, the symlink itself. Raises OSError."""
    if _libc.statx(folder, os.fsencode(name), _NO_FOLLOW, _BASIC, _answer):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    attributes, links, uid, gid, mode, inode = _FIELDS.unpack_from(_answer)
    major, minor = _DEVICE.unpack_from(_answer, _DEVICE_AT)
    device = os.makedev(major, minor)
    return Stat(uid, gid, mode, links, (device, inode), bool(attributes & _FIXED))
