"""A tree with every hazard, what can be seen of a tree, and what ought to be seen of it once it was carried.

``expected`` is written from the words of the documentation, entry by entry, and shares nothing with the command.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from tests.command import here, missing, usernsplan
from tests.documents import document_in

ACL = "system.posix_acl_access"
DEFAULT_ACL = "system.posix_acl_default"
CAPABILITY = "security.capability"
# Of an ACL entry, from acl(5) and linux/posix_acl.h.
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 0x10, 0x20
NOBODY_NAMED = 0xFFFFFFFF
# CAP_NET_RAW, permitted and effective.
CAPABILITIES = (1 << 13, 0, 0, 0)
CLONE_NEWNS = 0x20000
OLD = 1_000_000_000_123_456_789

AclEntry: TypeAlias = tuple[int, int, int]
Acl: TypeAlias = tuple[AclEntry, ...]
# (from, to, count): ids that go from one range to another.
Extents: TypeAlias = tuple[tuple[int, int, int], ...]


# What can be seen.


@dataclass(frozen=True, slots=True)
class Inode:
    """All that lstat, the xattrs and the content say of one name."""

    kind: int
    uid: int
    gid: int
    mode: int
    acl: Acl
    default_acl: Acl
    capability: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    links: int
    names: tuple[bytes, ...]
    rdev: int
    size: int
    data: tuple[tuple[int, int], ...]
    mtime_ns: int
    target: bytes
    content: str
    ctime_ns: int

    def of_any_time(self) -> Inode:
        """The same, without the one clock that nobody can set back."""
        return replace(self, ctime_ns=0)


Snapshot: TypeAlias = dict[bytes, Inode]


def walk(top: str | bytes | Path) -> Iterator[tuple[bytes, int, bytes, os.stat_result]]:
    """Every name of a tree: its relative path, a descriptor of its folder, its name there, its lstat.

    One descriptor at a time, no recursion, no path from the root, no clock moved: so it sees any tree.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME
    folder = os.open(top, flags)
    try:
        yield b".", folder, b".", os.lstat(b".", dir_fd=folder)
        pending = [iter(_names(folder))]
        above: list[bytes] = []
        while pending:
            name = next(pending[-1], None)
            if name is not None:
                seen = os.lstat(name, dir_fd=folder)
                yield b"/".join([*above, name]), folder, name, seen
                if stat.S_ISDIR(seen.st_mode):
                    below = os.open(name, flags, dir_fd=folder)
                    os.close(folder)
                    folder = below
                    pending.append(iter(_names(folder)))
                    above.append(name)
                continue
            pending.pop()
            if above:
                above.pop()
                parent = os.open("..", os.O_PATH | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = parent
    finally:
        os.close(folder)


def _names(folder: int) -> list[bytes]:
    return sorted(map(os.fsencode, os.listdir(folder)))


def snapshot(top: str | bytes | Path) -> Snapshot:
    """All that can be seen of a tree; mounts inside are entered."""
    found: dict[bytes, tuple[Inode, tuple[int, int]]] = {}
    twins: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    for path, folder, name, seen in walk(top):
        key = (seen.st_dev, seen.st_ino)
        twins[key].append(path)
        found[path] = (_inode(folder, name, seen), key)
    return {path: replace(inode, names=tuple(twins[key])) for path, (inode, key) in found.items()}


def _inode(folder: int, name: bytes, seen: os.stat_result) -> Inode:
    place = b"/proc/self/fd/%d/%s" % (folder, name)
    xattrs = {key: os.getxattr(place, key, follow_symlinks=False) for key in _xattrs(place)}
    regular = stat.S_ISREG(seen.st_mode)
    data, content = _content(folder, name) if regular else ((), "")
    return Inode(
        kind=stat.S_IFMT(seen.st_mode),
        uid=seen.st_uid,
        gid=seen.st_gid,
        mode=stat.S_IMODE(seen.st_mode),
        acl=parsed_acl(xattrs.pop(ACL, b"")),
        default_acl=parsed_acl(xattrs.pop(DEFAULT_ACL, b"")),
        capability=xattrs.pop(CAPABILITY, b""),
        xattrs=tuple(sorted(xattrs.items())),
        links=seen.st_nlink,
        names=(),
        rdev=seen.st_rdev,
        size=seen.st_size,
        data=data,
        mtime_ns=seen.st_mtime_ns,
        target=os.readlink(name, dir_fd=folder) if stat.S_ISLNK(seen.st_mode) else b"",
        content=content,
        ctime_ns=seen.st_ctime_ns,
    )


def _xattrs(place: bytes) -> list[str]:
    with suppressed(errno.ENOTSUP):
        return os.listxattr(place, follow_symlinks=False)
    return []


def _content(folder: int, name: bytes) -> tuple[tuple[tuple[int, int], ...], str]:
    """Where a file has data and where holes, and what it says."""
    handle = os.open(
        name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_NONBLOCK, dir_fd=folder
    )
    try:
        data = []
        end = 0
        with suppressed(errno.ENXIO):
            while True:
                start = os.lseek(handle, end, os.SEEK_DATA)
                end = os.lseek(handle, start, os.SEEK_HOLE)
                data.append((start, end))
        os.lseek(handle, 0, os.SEEK_SET)
        digest = hashlib.sha256()
        while piece := os.read(handle, 1 << 20):
            digest.update(piece)
    finally:
        os.close(handle)
    return tuple(data), digest.hexdigest()


class Clocks(NamedTuple):
    """When an inode was read, when its content changed, and when anything of it did."""

    atime_ns: int
    mtime_ns: int
    ctime_ns: int


def clocks(top: str | bytes | Path) -> dict[bytes, Clocks]:
    """The clocks of every name. ``snapshot`` reads symlinks, which moves their atime; this moves nothing."""
    return {
        path: Clocks(s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns) for path, _, _, s in walk(top)
    }


def settled(seen: Snapshot) -> Snapshot:
    """A snapshot without the ctimes, to compare with what is expected."""
    return {path: inode.of_any_time() for path, inode in seen.items()}


def differences(seen: Snapshot, wanted: Snapshot) -> list[str]:
    """What differs between two trees, ctimes apart, a line for each; far shorter than what an assert would print."""
    found = [f"{path!r} is missing" for path in wanted.keys() - seen.keys()]
    found += [f"{path!r} is new" for path in seen.keys() - wanted.keys()]
    for path in wanted.keys() & seen.keys():
        found += [
            f"{path!r}: {name} is {getattr(seen[path], name)!r}, not {getattr(wanted[path], name)!r}"
            for name in Inode.__dataclass_fields__
            if name != "ctime_ns" and getattr(seen[path], name) != getattr(wanted[path], name)
        ]
    return sorted(found)


# ACLs and capabilities.


def parsed_acl(raw: bytes) -> Acl:
    """The entries of an ACL as the xattr has it, sorted: in which order ids of one kind stand says nothing."""
    if not raw:
        return ()
    assert struct.unpack_from("<I", raw) == (2,)
    return tuple(
        sorted((tag, perm, number) for tag, perm, number in struct.iter_unpack("<HHI", raw[4:]))
    )


def raw_acl(entries: Iterable[AclEntry]) -> bytes:
    """An ACL as the kernel takes it, in the order given."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def acl_of(
    mode: int, users: Mapping[int, int], groups: Mapping[int, int], mask: int = 7
) -> list[AclEntry]:
    """An ACL with named users and groups (id to permissions) for a file of this mode."""
    return [
        (USER_OBJ, mode >> 6 & 7, NOBODY_NAMED),
        *((USER, perm, number) for number, perm in users.items()),
        (GROUP_OBJ, mode >> 3 & 7, NOBODY_NAMED),
        *((GROUP, perm, number) for number, perm in groups.items()),
        (MASK, mask, NOBODY_NAMED),
        (OTHER, mode & 7, NOBODY_NAMED),
    ]


def capability_v2(effective: bool = True) -> bytes:
    """A file capability that counts on the host too."""
    return struct.pack("<5I", 0x02000000 | effective, *CAPABILITIES)


def capability_v3(rootid: int, effective: bool = True) -> bytes:
    """A file capability that counts where this id is root."""
    return struct.pack("<6I", 0x03000000 | effective, *CAPABILITIES, rootid)


def rootid_of(capability: bytes) -> int | None:
    """For which root a capability counts; None for a v2 one."""
    if len(capability) == 20:
        return None
    assert len(capability) == 24
    rootid: int = struct.unpack_from("<I", capability, 20)[0]
    return rootid


# What is expected.


class UnmappedError(Exception):
    """The map lacks an id that stands in the tree."""


@dataclass(frozen=True)
class Rule:
    """What a run was asked for: where ids go from and to, and whether one owner gets everything."""

    uids: Extents
    gids: Extents
    # Container root as it is after the run: what a v2 capability gets; None where the capability stays v2 (--reverse).
    root: int | None
    own: tuple[int, int] | None = None
    keep: bool = False
    # Of two ranges that overlap: whether an id in both is moved (explicit maps, --from) or stays.
    source_wins: bool = False
    # Whether new ids that are no host's are nothing but images of the old ones, which nobody else has.
    images: bool = True

    def uid(self, number: int) -> int:
        """Where a user id goes."""
        return self._moved(number, self.uids)

    def gid(self, number: int) -> int:
        """Where a group id goes."""
        return self._moved(number, self.gids)

    def _moved(self, number: int, extents: Extents) -> int:
        there = [number for _, to, count in extents if to <= number < to + count]
        moved = [
            to + number - start for start, to, count in extents if start <= number < start + count
        ]
        for answers in (moved, there) if self.source_wins else (there, moved):
            if answers:
                return answers[0]
        if self.keep:
            return number
        raise UnmappedError(number)

    def acl(self, entries: Acl) -> Acl:
        """Each named user and group goes where its id goes."""
        moves: dict[int, Callable[[int], int]] = {USER: self.uid, GROUP: self.gid}
        return tuple(
            sorted(
                (tag, perm, moves[tag](number) if tag in moves else number)
                for tag, perm, number in entries
            )
        )

    def capability(self, before: bytes) -> bytes:
        """v2 becomes v3 of the container's root, the root of v3 goes where its id goes, and v3 of 0 is v2."""
        if not before:
            return b""
        old = rootid_of(before)
        new = self.root if old is None else self.uid(old)
        magic = struct.unpack_from("<I", before)[0] & 0xFFFFFF
        if not new:
            return struct.pack("<I", 0x02000000 | magic) + before[4:20]
        return struct.pack("<I", 0x03000000 | magic) + before[4:20] + struct.pack("<I", new)

    def _is_image(self, number: int) -> bool:
        return self.images and self.own is None and number >= 65536

    def _kept(self, inode: Inode, uid: int, gid: int, capability: bytes) -> tuple[int, bytes]:
        """Mode and capability of an inode that becomes this user's and group's: nobody gets an id that he had not."""
        mode = inode.mode
        if inode.kind != stat.S_IFREG:
            return mode, capability
        if mode & stat.S_ISUID and inode.uid not in {0, uid} and not self._is_image(uid):
            mode -= stat.S_ISUID
        is_setgid = mode & (stat.S_ISGID | stat.S_IXGRP) == stat.S_ISGID | stat.S_IXGRP
        if (
            is_setgid
            and inode.gid != gid
            and (inode.uid, inode.gid) != (0, 0)
            and not self._is_image(gid)
        ):
            mode -= stat.S_ISGID
        if capability:
            old, new = rootid_of(inode.capability) or 0, rootid_of(capability) or 0
            if old not in {0, new} and not self._is_image(new):
                capability = b""
            if self.own and inode.uid not in {0, uid}:
                capability = b""
        return mode, capability

    def carried(self, inode: Inode) -> Inode:
        """One inode after the run."""
        capability = self.capability(inode.capability)
        uid, gid = self.own or (self.uid(inode.uid), self.gid(inode.gid))
        mode, capability = self._kept(inode, uid, gid, capability)
        inode = replace(inode, uid=uid, gid=gid, mode=mode, capability=capability)
        if self.own:
            return inode
        return replace(inode, acl=self.acl(inode.acl), default_acl=self.acl(inode.default_acl))


def shift(start: int, count: int = 65536, **more: Any) -> Rule:
    """--mode shift into one range of a container."""
    return Rule(((0, start, count),), ((0, start, count),), start, **more)


def reverse(start: int, count: int = 65536, **more: Any) -> Rule:
    """--reverse out of one range of a container."""
    return Rule(((start, 0, count),), ((start, 0, count),), None, images=False, **more)


def over(old: int, new: int, count: int = 65536, **more: Any) -> Rule:
    """--from a container of this range into one of another."""
    return Rule(((old, new, count),), ((old, new, count),), new, source_wins=True, **more)


def own(start: int, user: int = 0, group: int = 0) -> Rule:
    """--mode own in one range of a container."""
    return replace(shift(start), own=(start + user, start + group))


def expected(before: Snapshot, rule: Rule) -> Snapshot:
    """The tree after the run. Raises UnmappedError where the map lacks an id."""
    return {path: rule.carried(inode) for path, inode in before.items()}


def changed(before: Snapshot, after: Snapshot) -> Snapshot:
    """What is not as it was, ctimes apart, as it was: one name for each inode."""
    return {
        path: inode
        for path, inode in before.items()
        if inode.names[0] == path and inode.of_any_time() != after[path].of_any_time()
    }


# Trees.


def finish(
    path: bytes,
    uid: int = 0,
    gid: int = 0,
    mode: int = 0o644,
    *,
    acl: Iterable[AclEntry] = (),
    default_acl: Iterable[AclEntry] = (),
    capability: bytes = b"",
) -> None:
    """Give an entry its owners, mode, ACLs and capability, in the order in which none clears another."""
    os.lchown(path, uid, gid)
    if not os.path.islink(path):
        os.chmod(path, mode)
    for key, entries in ((ACL, acl), (DEFAULT_ACL, default_acl)):
        if raw := list(entries):
            os.setxattr(path, key, raw_acl(raw), follow_symlinks=False)
    if capability:
        os.setxattr(path, CAPABILITY, capability, follow_symlinks=False)


def write(path: bytes, content: bytes = b"content") -> bytes:
    """Make a file."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    return path


def folder(path: bytes) -> bytes:
    """Make a folder."""
    os.mkdir(path, 0o700)
    return path


def age(top: str | bytes | Path) -> None:
    """Give everything an mtime of long ago, each another one."""
    for number, (_, parent, name, _) in enumerate(walk(top)):
        place = b"/proc/self/fd/%d/%s" % (parent, name)
        os.utime(place, ns=(OLD + number, OLD - number), follow_symlinks=False)


def busy(top: str | bytes | Path) -> None:
    """Make every folder look as if names came and went right now, and all the time."""
    tomorrow = time.time_ns() + 86_400_000_000_000
    for _, parent, name, seen in walk(top):
        if stat.S_ISDIR(seen.st_mode):
            os.utime(b"/proc/self/fd/%d/%s" % (parent, name), ns=(tomorrow, tomorrow))


@dataclass(frozen=True)
class Ids:
    """Which ids stand in a tree: those of a host (0), or of a container's range; and a range they are to go to."""

    offset: int = 0
    # Where ids already are that are not to be moved; None: there are none.
    already: int | None = None
    users: tuple[int, ...] = (0, 1, 33, 999, 1000, 1001, 65534, 65535)
    groups: tuple[int, ...] = (0, 5, 42, 100, 1000, 2000, 65534, 65535)

    def user(self, number: int) -> int:
        """A user id of the tree."""
        return self.offset + number

    def group(self, number: int) -> int:
        """A group id of the tree."""
        return self.offset + number


def nasty(top: Path, outside: Path, ids: Ids | None = None) -> None:
    """A tree with every hazard at ``top``, which must be empty; and beside it files that it points to."""
    ids = ids or Ids()
    outside.mkdir(parents=True, exist_ok=True)
    if not (outside / "secret").exists():
        (outside / "secret").write_text("for root alone")
        (outside / "secret").chmod(0o600)
        (outside / "folder").mkdir()
        (outside / "folder/inner").write_text("also outside")
    root = os.fsencode(top) + b"/"
    for build in (
        _owners,
        _bits,
        _acls,
        _capabilities,
        _links,
        _specials,
        _xattr_files,
        _odd_names,
        _already,
    ):
        build(root, ids)
    _symlinks(root, ids, os.fsencode(outside))
    # The folder that the volume itself is, has all that a folder can have.
    named = acl_of(0o755, {ids.user(1000): 7}, {ids.group(100): 5})
    finish(os.fsencode(top), ids.user(0), ids.group(0), 0o2755, acl=named, default_acl=named)
    age(top)


def _owners(root: bytes, ids: Ids) -> None:
    folder(root + b"owners")
    for number, (user, group) in enumerate(zip(ids.users, reversed(ids.groups), strict=True)):
        for mode in (0o644, 0o000, 0o600):
            path = write(root + b"owners/file-%d-%o" % (number, mode))
            finish(path, ids.user(user), ids.group(group), mode)
        path = folder(root + b"owners/folder-%d" % number)
        write(path + b"/inner")
        finish(path + b"/inner", ids.user(user), ids.group(group), 0o640)
        finish(path, ids.user(group), ids.group(user), 0o750)
    finish(folder(root + b"owners/empty"), ids.user(33), ids.group(33), 0o755)
    locked = folder(root + b"owners/locked")
    finish(write(locked + b"/inner"), ids.user(7), ids.group(8), 0o000)
    finish(locked, ids.user(33), ids.group(42), 0o000)
    finish(root + b"owners", ids.user(1000), ids.group(1000), 0o711)


def _bits(root: bytes, ids: Ids) -> None:
    top = folder(root + b"bits")
    for mode in (0o4755, 0o2755, 0o6755, 0o2644, 0o6644, 0o1755, 0o7777, 0o4000, 0o4711):
        finish(write(top + b"/file-%o" % mode), ids.user(0), ids.group(42), mode)
        below = folder(top + b"/folder-%o" % mode)
        finish(write(below + b"/inner"), ids.user(1000), ids.group(100), mode)
        finish(below, ids.user(33), ids.group(5), mode)
    finish(top, ids.user(0), ids.group(42), 0o2775)


def _acls(root: bytes, ids: Ids) -> None:
    top = folder(root + b"acls")
    users = {ids.user(1000): 6, ids.user(1001): 4, ids.user(33): 7, ids.user(0): 1}
    groups = {ids.group(100): 5, ids.group(2000): 4, ids.group(0): 0}
    for name, mode, mask in (
        (b"plain", 0o640, 7),
        (b"masked", 0o640, 4),
        (b"setuid", 0o4755, 5),
        (b"setgid", 0o2755, 7),
    ):
        finish(
            write(top + b"/" + name),
            ids.user(33),
            ids.group(33),
            mode,
            acl=acl_of(mode, users, groups, mask),
        )
    mode = 0o4755
    finish(
        write(top + b"/setuid-and-capability"),
        ids.user(33),
        ids.group(33),
        mode,
        acl=acl_of(mode, users, {}),
        capability=capability_v2(),
    )
    finish(write(top + b"/users"), ids.user(5), ids.group(5), 0o600, acl=acl_of(0o600, users, {}))
    finish(write(top + b"/groups"), ids.user(5), ids.group(5), 0o600, acl=acl_of(0o600, {}, groups))
    # More entries than fit into an inode of ext4.
    many = {ids.user(3000 + number): 4 for number in range(40)}
    finish(write(top + b"/many"), ids.user(0), ids.group(0), 0o644, acl=acl_of(0o644, many, groups))
    both = folder(top + b"/both")
    finish(
        write(both + b"/inner"), ids.user(1), ids.group(1), 0o644, acl=acl_of(0o644, users, groups)
    )
    default = acl_of(
        0o750, {ids.user(1000): 7, ids.user(2): 5}, {ids.group(2): 1, ids.group(77): 2}
    )
    finish(
        both,
        ids.user(1000),
        ids.group(5),
        0o2770,
        acl=acl_of(0o770, users, groups),
        default_acl=default,
    )
    finish(folder(top + b"/default"), ids.user(0), ids.group(0), 0o1777, default_acl=default)
    # No id is named: nothing to map, but there is an xattr.
    nobody = acl_of(0o700, {}, {})
    finish(
        folder(top + b"/default-of-nobody"), ids.user(0), ids.group(0), 0o700, default_acl=nobody
    )
    fifo = top + b"/fifo"
    os.mkfifo(fifo)
    finish(fifo, ids.user(33), ids.group(33), 0o620, acl=acl_of(0o620, users, groups))
    finish(top, ids.user(33), ids.group(33), 0o755)


def _capabilities(root: bytes, ids: Ids) -> None:
    top = folder(root + b"capabilities")
    capabilities = {
        b"v2": capability_v2(),
        b"v2-not-effective": capability_v2(effective=False),
        b"v3-of-root": capability_v3(ids.user(0)),
        b"v3-of-1000": capability_v3(ids.user(1000)),
        b"v3-of-65535": capability_v3(ids.user(65535), effective=False),
    }
    for name, capability in capabilities.items():
        finish(write(top + b"/" + name), ids.user(0), ids.group(0), 0o755, capability=capability)
        finish(
            write(top + b"/setuid-" + name),
            ids.user(33),
            ids.group(42),
            0o6755,
            capability=capability,
        )
    path = write(top + b"/linked-1")
    finish(path, ids.user(9), ids.group(9), 0o4755, capability=capability_v2())
    os.link(path, top + b"/linked-2")
    finish(top, ids.user(0), ids.group(0), 0o755)


def _links(root: bytes, ids: Ids) -> None:
    top = folder(root + b"links")
    finish(write(top + b"/one"), ids.user(1000), ids.group(1000), 0o644)
    os.link(top + b"/one", top + b"/two")
    for number in range(3):
        finish(folder(top + b"/folder-%d" % number), ids.user(number), ids.group(number), 0o755)
    finish(
        write(top + b"/folder-0/setuid"),
        ids.user(33),
        ids.group(33),
        0o6755,
        acl=acl_of(0o755, {ids.user(8): 5}, {}),
    )
    for number in (1, 2):
        os.link(top + b"/folder-0/setuid", top + b"/folder-%d/setuid" % number)
    os.symlink(b"one", top + b"/symlink-1")
    finish(top + b"/symlink-1", ids.user(12), ids.group(13))
    os.link(top + b"/symlink-1", top + b"/symlink-2", follow_symlinks=False)
    os.mkfifo(top + b"/fifo-1")
    finish(top + b"/fifo-1", ids.user(12), ids.group(13), 0o600)
    os.link(top + b"/fifo-1", top + b"/folder-1/fifo-2")
    finish(top, ids.user(0), ids.group(0), 0o755)


def _symlinks(root: bytes, ids: Ids, outside: bytes) -> None:
    top = folder(root + b"symlinks")
    targets = {
        b"dangling": b"nowhere/at all",
        b"to-a-file-outside": outside + b"/secret",
        b"to-a-folder-outside": outside + b"/folder",
        b"up": b"../../outside/secret",
        b"to-a-folder": b"../owners",
        b"to-the-root": b"/",
        b"to-itself": b"to-itself",
        b"to-its-folder": b".",
        # xfs has room for 1023.
        b"long": b"x" * 1000,
    }
    for number, (name, target) in enumerate(targets.items()):
        os.symlink(target, top + b"/" + name)
        finish(top + b"/" + name, ids.user(1000 + number), ids.group(number))
    finish(top, ids.user(33), ids.group(33), 0o755)


def _specials(root: bytes, ids: Ids) -> None:
    top = folder(root + b"specials")
    nodes = {
        b"fifo": (stat.S_IFIFO | 0o600, 0),
        b"fifo-setuid": (stat.S_IFIFO | 0o6777, 0),
        b"socket": (stat.S_IFSOCK | 0o755, 0),
        b"null": (stat.S_IFCHR | 0o666, os.makedev(1, 3)),
        b"watchdog": (stat.S_IFCHR | 0o600, os.makedev(10, 130)),
        b"disk": (stat.S_IFBLK | 0o660, os.makedev(8, 1)),
        b"whiteout": (stat.S_IFCHR, os.makedev(0, 0)),
    }
    for number, (name, (mode, device)) in enumerate(nodes.items()):
        path = top + b"/" + name
        os.mknod(path, mode, device)
        finish(path, ids.user(number), ids.group(2 * number), stat.S_IMODE(mode))
        os.setxattr(path, "trusted.overlay.whiteout", b"y")
    finish(top, ids.user(0), ids.group(0), 0o755)


def _xattr_files(root: bytes, ids: Ids) -> None:
    top = folder(root + b"xattrs")
    for path in (write(top + b"/file"), folder(top + b"/folder")):
        os.setxattr(path, "trusted.overlay.opaque", b"y")
        os.setxattr(path, "trusted.binary", bytes(range(256)))
        with suppressed(errno.ENOTSUP):  # on tmpfs since Linux 6.6
            os.setxattr(path, "user.comment", b"kept")
        finish(path, ids.user(33), ids.group(33), 0o700)
    sparse = write(top + b"/sparse", b"")
    handle = os.open(sparse, os.O_WRONLY)
    os.truncate(handle, 8 << 20)
    os.pwrite(handle, b"end", (4 << 20) + 5)
    os.fsync(handle)
    os.close(handle)
    finish(sparse, ids.user(33), ids.group(33), 0o4700, capability=capability_v2())
    finish(write(top + b"/empty", b""), ids.user(1), ids.group(1), 0o600)
    finish(top, ids.user(0), ids.group(0), 0o755)


ODD_NAMES = (
    b"new\nline",
    b"\n",
    b" ",
    b"-rf",
    b"--reference=x",
    b"\xff\xfe\x80",
    b"n" * 255,
    "ünï".encode(),
    b"\x1b[31m",
    b"...",
    b"*",
    b"a\\b'c\"d",
    b"%s{0}",
    b"\xc0\xaf",
)


def _odd_names(root: bytes, ids: Ids) -> None:
    top = folder(root + b"names")
    for number, name in enumerate(ODD_NAMES):
        finish(write(top + b"/" + name), ids.user(number), ids.group(1000), 0o4755)
    below = folder(root + b"names-\xfffolders\n")
    for number, name in enumerate(ODD_NAMES):
        inner = folder(below + b"/" + name)
        finish(write(inner + b"/" + name), ids.user(1000), ids.group(number), 0o644)
        finish(inner, ids.user(0), ids.group(0), 0o755)
    finish(top, ids.user(0), ids.group(0), 0o755)
    finish(below, ids.user(0), ids.group(0), 0o755)


def _already(root: bytes, ids: Ids) -> None:
    """Ids that are where they are to be, among others that are not."""
    if ids.already is None:
        return
    there = ids.already
    top = folder(root + b"already")
    finish(write(top + b"/both"), there + 5, there + 6, 0o6755)
    finish(write(top + b"/the-user"), there + 5, ids.group(6), 0o6755)
    finish(write(top + b"/the-group"), ids.user(5), there + 6, 0o2755)
    half = acl_of(0o644, {there + 50: 7, ids.user(60): 6}, {there + 51: 5, ids.group(61): 4})
    finish(write(top + b"/half-an-acl"), there, there, 0o644, acl=half)
    whole = acl_of(0o644, {there + 50: 7}, {there + 51: 5})
    finish(write(top + b"/the-acl"), there, there, 0o644, acl=whole)
    finish(write(top + b"/v2"), there, there, 0o755, capability=capability_v2())
    finish(write(top + b"/v3-of-root"), there, there, 0o4755, capability=capability_v3(there))
    finish(
        write(top + b"/v3-of-42"), there, ids.group(0), 0o4755, capability=capability_v3(there + 42)
    )
    finish(write(top + b"/v3-moves"), there, there, 0o4755, capability=capability_v3(ids.user(42)))
    below = folder(top + b"/folder")
    finish(write(below + b"/inner"), there + 5, there + 5, 0o644)
    finish(below, there, there, 0o2755, acl=acl_of(0o755, {there + 1: 7}, {}), default_acl=half)
    finish(top, there, there, 0o755)


def simple(top: Path, uid: int = 0, gid: int = 0, count: int = 3) -> None:
    """A folder with some files of one owner."""
    top.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        finish(write(os.fsencode(top) + b"/file-%d" % number), uid, gid)
    finish(os.fsencode(top), uid, gid, 0o755)


def deep(top: Path, name: bytes, levels: int, uid: int = 1000, gid: int = 1000) -> None:
    """Folders in folders, deeper than any path can say."""
    handle = os.open(top, os.O_PATH | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir(name, 0o755, dir_fd=handle)
        below = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
        os.close(handle)
        handle = below
        os.chown(b"/proc/self/fd/%d" % handle, uid, gid)
    os.mkfifo(b"bottom", 0o4755, dir_fd=handle)
    os.chown(b"bottom", uid, gid, dir_fd=handle, follow_symlinks=False)
    os.close(handle)


# Hosts.


@dataclass(frozen=True)
class Host:
    """A folder that --root takes for a host, on a file system that one can mount."""

    root: Path
    file_system: str
    starts: dict[str, int] = field(default_factory=dict)

    @property
    def volume(self) -> Path:
        """Where tests put the tree."""
        return self.root / "srv/vol"

    @property
    def outside(self) -> Path:
        """A folder beside the volume, on the same file system, which nothing may touch."""
        return self.root / "srv/outside"

    @property
    def runs(self) -> Path:
        """Where the journals of runs are."""
        return self.root / "var/lib/usernsplan/runs"

    def run_names(self) -> list[str]:
        """The runs that the journal knows."""
        return (
            sorted(path.name for path in self.runs.iterdir() if path.is_dir())
            if self.runs.exists()
            else []
        )

    def allocate(self, *names: str, size: int = 65536) -> list[int]:
        """Give containers their ranges; where each begins."""
        words = ("allocate", "--strategy", "per-container", "--size", str(size), *names)
        document = json.loads(here(*words, "--json", "--root", self.root)[0])
        starts = {found["name"]: found["uid_map"][0]["host"] for found in document["allocations"]}
        self.starts.update(starts)
        return [starts[name] for name in names]

    def fix(
        self, *words: str | Path, status: int = 0, path: str | Path | None = None
    ) -> dict[str, Any]:
        """Run fix-volume on the volume, expect this status, and read what it printed."""
        return self._report("fix-volume", path or self.volume, *words, status=status)

    def told(self, *words: str | Path, status: int = 0, path: str | Path | None = None) -> str:
        """Run fix-volume on the volume; what it printed for people, on both streams."""
        return "".join(self._ran("fix-volume", path or self.volume, *words, status=status))

    def refusal(self, *words: str | Path, status: int, path: str | Path | None = None) -> str:
        """Run fix-volume on the volume, which is to fail with nothing but an error; what that says."""
        printed, said = self._ran("fix-volume", path or self.volume, *words, status=status)
        assert printed == ""
        assert said.startswith("usernsplan: ") or status == 2, said
        return said

    def attempt(
        self, *words: str | Path, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run usernsplan with any words that end in any way but a traceback."""
        return usernsplan(*words, "--root", self.root, status=None, cwd=cwd)

    def undo(self, run: str, *words: str | Path, status: int = 0) -> dict[str, Any]:
        """Run undo, expect this status, and read what it printed."""
        return self._report("undo", run, *words, status=status)

    def _report(self, *words: str | Path, status: int) -> dict[str, Any]:
        return document_in(self._ran(*words, "--json", status=status)[0])

    def _ran(self, *words: str | Path, status: int) -> tuple[str, str]:
        """Run it within this process, which is several times as fast, and must not be changed by it."""
        before, opened = (
            (os.getcwd(), signal.getsignal(signal.SIGINT)),
            set(os.listdir("/proc/self/fd")),
        )
        done = here(*words, "--root", self.root, status=status)
        assert before == (os.getcwd(), signal.getsignal(signal.SIGINT))
        # What an earlier test left open may be collected, and so closed, meanwhile.
        assert set(os.listdir("/proc/self/fd")) <= opened
        return done


def maps(rule: Rule) -> list[str]:
    """The words that ask for these maps without a ledger."""
    words = []
    for option, extents in (("--uid-map", rule.uids), ("--gid-map", rule.gids)):
        for start, to, count in extents:
            words += [option, f"{start}:{to}:{count}"]
    return words


def counted(before: Snapshot, after: Snapshot) -> dict[str, int]:
    """What a report has to count, from two snapshots: names, but of what was changed each inode once."""
    different = changed(before, after)
    kinds: Counter[str] = Counter()
    for inode in different.values():
        kinds["acl"] += bool(inode.acl or inode.default_acl)
        kinds["capability"] += bool(inode.capability)
        kinds["device"] += inode.kind in {stat.S_IFCHR, stat.S_IFBLK}
        kinds["hard_link"] += len(inode.names) > 1
        kinds["setuid"] += inode.kind != stat.S_IFDIR and bool(
            inode.mode & (stat.S_ISUID | stat.S_ISGID)
        )
    same = [path for path, inode in before.items() if inode.names[0] not in different]
    return {
        "entries": len(before),
        "changed": len(different),
        "right": len(same),
        **{kind: kinds[kind] for kind in ("acl", "capability", "device", "hard_link", "setuid")},
    }


# The machine.


@contextmanager
def suppressed(number: int) -> Iterator[None]:
    """Pass over one error of the system, and no other."""
    try:
        yield
    except OSError as error:
        if error.errno != number:
            raise


@contextmanager
def mounted(*words: str | Path) -> Iterator[None]:
    """Mount something for a while; the last word is where."""
    subprocess.run(["mount", *words], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", words[-1]], check=True)


@contextmanager
def flagged(flag: str, path: Path) -> Iterator[None]:
    """Make a file immutable (i) or append-only (a) for a while."""
    if shutil.which("chattr") is None:
        missing("chattr")
    subprocess.run(["chattr", f"+{flag}", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", f"-{flag}", path], check=True)


def unshare_mounts() -> None:
    """Give this process mounts of its own; what it mounts from now on ends with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    private_recursive = 0x40000 | 0x4000
    if libc.mount(b"none", b"/", None, private_recursive, None):
        raise OSError(ctypes.get_errno(), "make-rprivate")
    with suppress(OSError):
        os.chdir(os.getcwd())
