"""The id maps of mounts, from listmount(2) and statmount(2).

Linux tells them since 6.15. Before that, only the option "idmapped" of mountinfo shows that a
mount has one.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from typing import TYPE_CHECKING

from usernsplan.host import procfs
from usernsplan.host.idmap import system_call
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# The numbers are the same on every architecture; since Linux 6.8.
_STATMOUNT, _LISTMOUNT = 457, 458
# linux/nsfs.h
_NS_GET_MNTNS_ID = 0x8008B705
# linux/mount.h: LSMT_ROOT, and the bits of the mask.
_ROOT = 2**64 - 1
_BASIC, _POINT, _MAPS = 0x2, 0x10, 0x2000 | 0x4000
# struct mnt_id_req: its size, an unused field, the mount, the mask or the last mount, the namespace.
_REQUEST = "=IIQQQ"
# struct statmount: the offsets of its size, of the mask, of the number that mountinfo has, of the
# mount point, of the number of lines of both maps (each with the place of their text), and of all
# text.
_SIZE, _MASK, _OLD_ID, _POINT_AT, _UIDS, _GIDS, _TEXT = 0, 8, 56, 108, 152, 160, 512
# Room for a path, and for two maps of at most 4096 bytes.
_ROOM = 1 << 16
_MANY = 1024


class IdMapped(NamedTuple):
    """A mount point, and (id on disk, host id, count) of each line of its maps.

    ``mount_id`` is the number of the mount in mountinfo.
    """

    point: str
    uids: list[tuple[int, int, int]]
    gids: list[tuple[int, int, int]]
    mount_id: int


def idmapped(pid: int | str) -> Iterator[IdMapped]:
    """The mounts with a map in the mount namespace of a process.

    Raises OSError if the process is gone, the kernel does not know these calls, or does not permit
    them.
    """
    descriptor = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        number = bytearray(8)
        fcntl.ioctl(descriptor, _NS_GET_MNTNS_ID, number)
    finally:
        os.close(descriptor)
    [namespace] = struct.unpack("=Q", number)
    room = ctypes.create_string_buffer(_ROOM)
    for mount in _mounts(namespace):
        yield from _maps(mount, namespace, room)


def _mounts(namespace: int) -> Iterator[int]:
    last, found = 0, (ctypes.c_uint64 * _MANY)()
    while count := system_call(_LISTMOUNT, _request(_ROOT, last, namespace), found, _MANY, 0):
        yield from found[:count]
        last = found[count - 1]


def _maps(mount: int, namespace: int, room: ctypes.Array[ctypes.c_char]) -> Iterator[IdMapped]:
    """The maps of one mount; nothing if it has none, or if the kernel does not tell them."""
    what = _BASIC | _POINT | _MAPS
    try:
        system_call(_STATMOUNT, _request(mount, what, namespace), room, _ROOM, 0)
    except FileNotFoundError:
        return  # it was unmounted meanwhile
    [mask] = struct.unpack_from("=Q", room, _MASK)
    if mask & _MAPS == _MAPS:
        [size] = struct.unpack_from("=I", room, _SIZE)
        raw = ctypes.string_at(room, size)
        [number, point] = (struct.unpack_from("=I", raw, at)[0] for at in (_OLD_ID, _POINT_AT))
        [text] = _texts(raw, point, 1)
        yield IdMapped(os.fsdecode(text), _lines(raw, _UIDS), _lines(raw, _GIDS), number)


def _request(mount: int, what: int, namespace: int) -> bytes:
    return struct.pack(_REQUEST, struct.calcsize(_REQUEST), 0, mount, what, namespace)


def _lines(raw: bytes, at: int) -> list[tuple[int, int, int]]:
    count, place = struct.unpack_from("=II", raw, at)
    return procfs.extents("\n".join(text.decode() for text in _texts(raw, place, count)))


def _texts(raw: bytes, place: int, count: int) -> list[bytes]:
    """So many texts, each of which ends with a NUL, from a place of the text on."""
    return raw[_TEXT + place :].split(b"\0", count)[:count]
