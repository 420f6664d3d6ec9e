"""The bytes of ACLs and file capabilities: the ids in them, and the same bytes with new ids. Pure.

The layouts are the kernel's: linux/posix_acl_xattr.h and linux/capability.h. Both are
little-endian on every machine.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

from usernsplan.errors import InvalidValueError
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Move = Callable[[int], int | None]

ACL_ACCESS = "system.posix_acl_access"
ACL_DEFAULT = "system.posix_acl_default"
CAPABILITY = "security.capability"
# chown leaves the ids in these stale or destroys them; it does not affect other attributes.
CARRIED = frozenset({ACL_ACCESS, ACL_DEFAULT, CAPABILITY})

_ACL_VERSION = struct.pack("<I", 2)
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_USER, _ACL_GROUP = 2, 8

_CAPABILITY_V2, _CAPABILITY_V3 = 0x02000000, 0x03000000
_REVISION = 0xFF000000
_V2_SIZE, _V3_SIZE = 20, 24


class MovedAcl(NamedTuple):
    """An ACL with its ids moved, and what prevents writing it.

    The map lacks ``unmapped_uids`` and ``unmapped_gids``. ``duplicates`` are ids that two
    entries would share; the kernel accepts that, but no reader can tell the entries apart.
    """

    raw: bytes
    unmapped_uids: tuple[int, ...] = ()
    unmapped_gids: tuple[int, ...] = ()
    duplicates: tuple[str, ...] = ()


def moved_acl(raw: bytes, uid: Move, gid: Move) -> MovedAcl:
    """Move the ids of an ACL's named entries. Raises InvalidValueError if malformed."""
    moved, seen = [_ACL_VERSION], set()
    lost: dict[int, list[int]] = {_ACL_USER: [], _ACL_GROUP: []}
    duplicates = []
    for tag, permissions, old in _entries(raw):
        new: int | None = old
        if tag in lost:
            new = (uid if tag == _ACL_USER else gid)(old)
            if new is None:
                lost[tag].append(old)
                new = old
            elif (tag, new) in seen:
                duplicates.append(f"{'user' if tag == _ACL_USER else 'group'} {new}")
            seen.add((tag, new))
        moved.append(_ACL_ENTRY.pack(tag, permissions, new))
    return MovedAcl(
        b"".join(moved), tuple(lost[_ACL_USER]), tuple(lost[_ACL_GROUP]), tuple(duplicates)
    )


class Named(NamedTuple):
    """A named entry of an ACL: the id of a user or group, and its permissions (r 4, w 2, x 1)."""

    kind: Literal["user", "group"]
    id: int
    permissions: int


def named(raw: bytes) -> tuple[Named, ...]:
    """The named entries of an ACL, in order. Raises InvalidValueError if malformed."""
    kinds: dict[int, Literal["user", "group"]] = {_ACL_USER: "user", _ACL_GROUP: "group"}
    return tuple(
        Named(kinds[tag], who, permissions)
        for tag, permissions, who in _entries(raw)
        if tag in kinds
    )


def _entries(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Each entry as tag, permissions, id."""
    if raw[:4] != _ACL_VERSION or (len(raw) - 4) % _ACL_ENTRY.size:
        raise InvalidValueError("unknown ACL format")
    return _ACL_ENTRY.iter_unpack(raw[4:])


def capability_rootid(raw: bytes) -> int:
    """The uid whose root has the capability: the rootid of version 3; host root (0) for version 2.

    Raises InvalidValueError if malformed.
    """
    version = struct.unpack_from("<I", raw)[0] & _REVISION if len(raw) >= _V2_SIZE else None
    if version == _CAPABILITY_V2 and len(raw) == _V2_SIZE:
        return 0
    if version == _CAPABILITY_V3 and len(raw) == _V3_SIZE:
        return int(struct.unpack_from("<I", raw, _V2_SIZE)[0])
    raise InvalidValueError("unknown capability format")


def capability_for(raw: bytes, rootid: int) -> bytes:
    """The same capability for another root: version 2 for host root (0), else version 3."""
    flags = struct.unpack_from("<I", raw)[0] & ~_REVISION
    rest = raw[4:_V2_SIZE]
    if rootid == 0:
        return struct.pack("<I", _CAPABILITY_V2 | flags) + rest
    return struct.pack("<I", _CAPABILITY_V3 | flags) + rest + struct.pack("<I", rootid)
