"""Whether only root and the caller could have written, replaced or placed a file that was found."""

from __future__ import annotations

import errno
import os
import stat
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError
from usernsplan.escape import line
from usernsplan.host import procfs
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_SYMLINKS = 40  # as many as the kernel follows: path_resolution(7)
_WRITE = 2
# linux/posix_acl_xattr.h, little-endian on every machine: a version, then the tag, permissions and
# id of each entry.
_ACL, _ACL_VERSION, _ACL_ENTRY = (
    "system.posix_acl_access",
    struct.pack("<I", 2),
    struct.Struct("<HHI"),
)
_USER, _GROUP_OBJ, _GROUP, _MASK = 2, 4, 8, 16


class Place(NamedTuple):
    """The real path of a file, and why others may have written or placed it ("" if they cannot)."""

    path: str
    doubt: str


def place(top: str, name: str, trusted: frozenset[int] | None = None) -> Place:
    """Follow a name below ``top`` as a chroot there would, and check everything on the way.

    ``top`` is absolute and has no symlinks. ``trusted`` are the uids that may write the file; None:
    root and the caller. From "/" on, each folder is checked before its content, so that no other
    user can change what was already checked. Raises OSError if nothing is there, and RefusedError
    for a loop of symlinks.
    """
    trusted = _trusted() if trusted is None else trusted
    path, doubts, links = "/", list[str](), 0
    for part in _parts(top):
        doubts += _doubts(path, part, trusted)
        path = os.path.join(path, part)
    todo = list(reversed(_parts(name)))
    while todo:
        part = todo.pop()
        if part == "..":
            path = os.path.dirname(path) if path != top else top
            continue
        here = os.path.join(path, part)
        is_link = stat.S_ISLNK(os.lstat(here).st_mode)
        doubts += _doubts(path, part, trusted, is_folder=bool(todo) and not is_link)
        if not is_link:
            path = here
            continue
        links += 1
        if links > _SYMLINKS:
            raise RefusedError(f"{line(here)}: too many symlinks")
        target = os.readlink(here)
        path = top if target.startswith("/") else path
        todo += reversed(_parts(target))
    doubts += _writers(path, os.lstat(path), trusted)
    return Place(path, doubts[0] if doubts else "")


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]


def _trusted() -> frozenset[int]:
    actor = procfs.actor()
    return frozenset({0, actor.uid} | ({actor.sudo_uid} if actor.sudo_uid is not None else set()))


def _doubts(
    folder: str, name: str, trusted: frozenset[int], *, is_folder: bool = True
) -> Iterator[str]:
    """Why others may have placed this entry in a folder.

    In a folder with the sticky bit only the owner may move an entry. A folder of ours is safe
    there: moving a folder also needs write permission for the folder itself (its ".." changes). A
    file of ours is not: another user with write permission for its old folder may have moved it.
    """
    above, entry = os.lstat(folder), os.lstat(os.path.join(folder, name))
    is_safe = is_folder and bool(above.st_mode & stat.S_ISVTX) and entry.st_uid in trusted
    if not is_safe or above.st_uid not in trusted:
        yield from (f"the folder {folder} {why}" for why in _writers(folder, above, trusted))
    if stat.S_ISLNK(entry.st_mode) and entry.st_uid not in trusted:
        yield f"the symlink {os.path.join(folder, name)} belongs to uid {entry.st_uid}"


def _writers(path: str, seen: os.stat_result, trusted: frozenset[int]) -> Iterator[str]:
    """Who else may write a file or a folder, as the end of a sentence about it."""
    mode = stat.S_IMODE(seen.st_mode)
    if seen.st_uid not in trusted:
        yield f"belongs to uid {seen.st_uid} with mode {mode:o}"
    if mode & stat.S_IWOTH:
        yield f"has mode {mode:o}"
    acl = _acl(path)
    if acl is None:
        acl = [(_GROUP_OBJ, mode >> 3, 0)]
    allowed = next((permissions for tag, permissions, _ in acl if tag == _MASK), _WRITE)
    for tag, permissions, number in acl:
        if not permissions & allowed & _WRITE:
            continue
        if tag == _USER and number not in trusted:
            yield f"has an ACL that lets uid {number} write"
        if tag == _GROUP_OBJ and not _is_ours(seen.st_gid, trusted):
            yield f"has mode {mode:o} for the group {seen.st_gid}"
        if tag == _GROUP and not _is_ours(number, trusted):
            yield f"has an ACL that lets the group {number} write"


def _acl(path: str) -> list[tuple[int, int, int]] | None:
    """The access ACL of a file, as (tag, permissions, id); None if it has none.

    Raises RefusedError for a format that is not known.
    """
    try:
        raw = os.getxattr(path, _ACL, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return None
        raise
    if raw[:4] != _ACL_VERSION or (len(raw) - 4) % _ACL_ENTRY.size:
        raise RefusedError(f"{line(path)} has an ACL in an unknown format")
    return list(_ACL_ENTRY.iter_unpack(raw[4:]))


def _is_ours(gid: int, trusted: frozenset[int]) -> bool:
    """Tell whether a group has trusted members only.

    It is then the primary group of a trusted user, has the same name as that user, and has no
    other members.
    """
    import grp  # noqa: PLC0415 - only where a group may write
    import pwd  # noqa: PLC0415

    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    # A user whom getpwall does not list (LDAP) is found by uid.
    ours = [entry for entry in pwd.getpwall() if entry.pw_gid == gid]
    for uid in trusted:
        with suppress(KeyError):
            ours.append(pwd.getpwuid(uid))
    names = {entry.pw_name for entry in ours if entry.pw_uid in trusted}
    owns = any(
        entry.pw_gid == gid and entry.pw_name == group.gr_name and entry.pw_uid in trusted
        for entry in ours
    )
    return (
        owns and names.issuperset(group.gr_mem) and all(entry.pw_uid in trusted for entry in ours)
    )
