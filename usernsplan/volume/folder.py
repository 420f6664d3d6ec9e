"""The step that runs once for every inode: look at the entries of one pinned folder, and give plain ones their owner.

Everything else in this room runs once per folder, or for the few entries that are not plain. A compiled version of
``step`` would take its place with the same contract, and the same tests.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from usernsplan.errors import reason_of
from usernsplan.volume import syscalls
from usernsplan.volume.metadata import CARRIED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from usernsplan.volume.targets import Owner

_SETID = stat.S_ISUID | stat.S_ISGID
_KIND = 0o170000
IMMUTABLE = "it is immutable or append-only (chattr -i -a)"
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


@dataclass(slots=True)
class FolderListing:
    """What one folder holds: sub-folders, plain entries by the owner that was found, entries that need care, failures.

    Plain: one link, no device, no setuid or setgid bit, no ACL, no capability; a change of owner changes nothing else.
    What was exchanged between the look and the change is among those that need care.
    """

    folders: list[str] = field(default_factory=list)
    plain: dict[Owner, list[str]] = field(default_factory=dict)
    care: list[tuple[str, os.stat_result]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)


def step(
    folder: int,
    names: Iterable[str],
    owners: Mapping[Owner, Owner],
    seen_before: int,
    pin: Callable[[str], int] | None = None,
) -> FolderListing:
    """Look at these names in a pinned folder, and give each plain entry whose owner is in ``owners`` its new one.

    The process goes and stands in the folder: names are then looked up in it alone, and the calls are the shortest.
    ``seen_before`` (ns): whatever has not changed since then (ctime, which nobody can set) was found to have no
    attributes that need care. ``pin`` pins an entry of the current folder: with it no inode is changed but the one that
    was looked at, whoever exchanges names meanwhile; without it, which takes half the time, nobody but root may do so.
    """
    os.fchdir(folder)
    found = FolderListing()
    plain, care, folders = found.plain, found.care, found.folders
    lstat, give = os.lstat, partial(_give_pinned, pin) if pin else _give_name
    for name in names:
        try:
            seen = lstat(name)
            mode = seen[0]
            kind = mode & _KIND
            if kind == stat.S_IFDIR:
                folders.append(name)
                continue
            if (
                seen[3] != 1
                or kind in _DEVICES
                or (
                    kind != stat.S_IFLNK
                    and (
                        mode & _SETID or (seen.st_ctime_ns >= seen_before and has_attributes(name))
                    )
                )
            ):
                care.append((name, seen))
                continue
            owner = seen[4:6]
            new = owners.get(owner)
            if new is not None and new != owner and not give(name, seen, new):
                care.append((name, seen))
                continue
            group = plain.get(owner)
            if group is None:
                plain[owner] = [name]
            else:
                group.append(name)
        except FileNotFoundError:
            continue
        except OSError as error:
            found.failures.append((name, reason(error, name)))
    return found


def has_attributes(name: str) -> bool:
    """Tell whether an entry of the current folder has an ACL or a capability."""
    try:
        names = os.listxattr(name, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return False  # a file system without attributes
    return bool(names) and not CARRIED.isdisjoint(names)


def reason(error: OSError, name: str | None = None) -> str:
    """Why an entry of the current folder could not be changed, in words."""
    if error.errno == errno.EPERM and name is not None and syscalls.is_immutable(name):
        return IMMUTABLE
    if error.errno == errno.EXDEV:
        return "it is a mount point"
    if error.errno == errno.EOVERFLOW:
        return "its owner has no id on this mount, which is idmapped"
    return reason_of(error)


def _give_name(name: str, _: os.stat_result, owner: Owner) -> bool:
    os.lchown(name, *owner)
    return True


def _give_pinned(pin: Callable[[str], int], name: str, seen: os.stat_result, owner: Owner) -> bool:
    """Change the inode that was looked at, and no other that has got its name since."""
    pinned = pin(name)
    try:
        now = os.fstat(pinned)
        if now[:6] != seen[:6] or now.st_ctime_ns != seen.st_ctime_ns:
            return False
        syscalls.chown_pinned(pinned, *owner)
    finally:
        os.close(pinned)
    return True
