"""The bytes of ACLs and capabilities, from the kernel's posix_acl_xattr.h and capability.h."""

from __future__ import annotations

import struct

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NOBODY = 0xFFFFFFFF
PLAIN = ((USER_OBJ, 7, NOBODY), (GROUP_OBJ, 5, NOBODY), (OTHER, 0, NOBODY))
REVISION_1, REVISION_2, REVISION_3, EFFECTIVE = 0x01000000, 0x02000000, 0x03000000, 0x000001
NET_BIND, NET_RAW, HIGH = 1 << 10, 1 << 13, 1 << 5


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def v2(flags: int = EFFECTIVE) -> bytes:
    return struct.pack("<5I", REVISION_2 | flags, NET_BIND, NET_RAW, HIGH, 0)


def v3(rootid: int, flags: int = EFFECTIVE) -> bytes:
    return struct.pack("<6I", REVISION_3 | flags, NET_BIND, NET_RAW, HIGH, 0, rootid)
