"""The step that runs for every inode: look at the entries of a pinned folder, give them owners.

All other code of this package runs once for each folder, or for the few entries that need care.
``step`` is a contract: numbers and names go in, names and error numbers come out. It is written
twice, in C (_step.c) and in Python, and each passes the same tests.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections import defaultdict
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from usernsplan.errors import reason_of
from usernsplan.ids import IdSet
from usernsplan.values import NamedTuple, dataclass, field
from usernsplan.volume import compiled, syscalls
from usernsplan.volume.metadata import CARRIED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from usernsplan.volume.targets import Owner

# For StepOptions.pinning: change an entry by its name.
BY_NAME = -1
# For StepOptions.until: however late.
LATEST = (1 << 63) - 1
_RANGE = struct.Struct("=II")
IMMUTABLE = "it is immutable or append-only (chattr -i -a)"
_SETID = stat.S_ISUID | stat.S_ISGID
_KIND = 0o170000
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


class StepOptions(NamedTuple):
    """The options of ``step``. In C it is a tuple of these fields, in this order.

    ``owners``: pairs of an owner that is found and its new one, each a (uid, gid) of two unsigned
    32-bit numbers. No owner is found in two pairs. If it is empty, as always with ``search``,
    nothing is changed.

    ``seen_before``: ns since the epoch, signed 64 bits. If the ctime of an entry, which nobody can
    set, is below it, an earlier look found no attributes that need care, and they are not read
    again. With 0 they always are.

    ``pinning``: how the inode that was looked at is held while it is changed, signed 64 bits.
    BY_NAME, or what ``syscalls.pin`` takes: the resolve flags of openat2(2), or 0 for open(2).

    ``until``: ns since the epoch, signed 64 bits. An entry whose ctime is after it needs care.

    ``search``: look for ids, instead of for entries that a change of owner could harm. ``uids`` and
    ``gids`` are the ids to look for, as ``packed`` makes them.

    ``threads``: how many threads a compiled version may use at most. Python uses one, because its
    threads would wait for its lock.
    """

    owners: tuple[tuple[Owner, Owner], ...] = ()
    seen_before: int = 0
    pinning: int = 0
    until: int = LATEST
    search: bool = False
    uids: bytes = b""
    gids: bytes = b""
    threads: int = 1


@dataclass(frozen=True, slots=True)
class FolderListing:
    """What ``step`` found, by name. C makes it from these four fields, in this order.

    Each list keeps the order of the names given to ``step``.

    ``folders``: the sub-folders. ``plain``: the plain entries by the (uid, gid) that was found,
    which is the old one if the entry got a new owner. ``care``: the entries that need care.
    ``failures``: the entries that could not be looked at or changed, each with the errno.
    """

    folders: list[str] = field(default_factory=list)
    plain: dict[Owner, list[str]] = field(default_factory=dict)
    care: list[str] = field(default_factory=list)
    failures: list[tuple[str, int]] = field(default_factory=list)

    def reasons(self) -> list[tuple[str, str]]:
        """The failures, each with its reason. Call it while the folder is still the current one."""
        return [
            (name, reason(OSError(code, os.strerror(code)), name)) for name, code in self.failures
        ]


def step(folder: int, names: Sequence[str], options: StepOptions) -> FolderListing:
    """Look at these names in a pinned folder, and give each plain entry its new owner, if any.

    ``folder`` is a descriptor of the folder, opened for reading. ``names`` are names in it, in any
    order, as Python decodes them (UTF-8 with surrogateescape): no "/", no NUL, neither "." nor
    "..". The process changes into the folder (fchdir(2)) and stays there, so that names are
    resolved in it alone, by the shortest calls. Raises OSError if fchdir fails; then nothing was
    looked at. All threads of a process share its current folder, so only one of them may do this.

    For each name, in this order:

    1. lstat(2). A folder goes into ``folders``. Without ``search``, that is all for a folder.

    2. An entry needs care, and is not changed, if its ctime is after ``until``, if its link count is
       not 1, if it is a device, or if it has a setuid or setgid bit; with ``search`` none of these
       matter. It also needs care if llistxattr(2) lists an attribute of ``metadata.CARRIED``. That
       call is not made for symlinks, nor for entries that ``seen_before`` covers. ENOTSUP means that
       there are no attributes. The list may grow between two calls: after ERANGE the call is
       repeated with more room.

    3. Every other entry is plain. If ``owners`` has another owner for it, it gets that one. If
       ``owners`` has the same owner, no call is made, so that the ctime stays. With ``search``, it is
       left out of the result if its uid is not in ``uids`` and its gid not in ``gids``.

    Whenever ``owners`` is not empty, the name is pinned first (O_PATH, O_NOFOLLOW, O_CLOEXEC), and
    all of the above is done with the pinned inode: fstat(2), listxattr(2) by /proc/self/fd,
    fchownat(2) with AT_EMPTY_PATH. So the inode that changes is the one that was looked at, whatever
    others do with the name. With BY_NAME, lstat(2) and lchown(2) may take the name instead: safe only
    if nobody but root can exchange names, and half the time in Python. EXDEV from openat2(2) is a
    mount point: a folder still goes into ``folders``.

    ENOENT from any of these calls: the entry is gone, and the result does not name it. Any other
    error goes into ``failures``, and the other names are still done.

    With ``search`` every entry is looked at for the ids that it carries: a sub-folder is in
    ``folders`` and also, like all other entries, in ``plain``, ``care`` or ``failures``.

    Every opened descriptor is closed again. A compiled version calls PyErr_CheckSignals at least
    once in 1,000 names, and repeats a call that ends with EINTR. All threads of a process have the
    same current folder, so no other thread may change it meanwhile.
    """
    if compiled.step:
        return FolderListing(*compiled.step(folder, names, options))
    return step_in_python(folder, names, options)


# One loop without calls of our own: it runs for every inode.
def step_in_python(  # noqa: C901, PLR0912
    folder: int, names: Sequence[str], options: StepOptions
) -> FolderListing:
    """``step`` without the compiled step."""
    os.fchdir(folder)

    found = FolderListing(plain=defaultdict(list))
    folders, plain, care = found.folders, found.plain, found.care
    _, seen_before, pinning, until, search, uids, gids, _ = options
    owners = dict(options.owners)
    is_pinned = bool(owners) and pinning != BY_NAME
    setid, devices = (0, ()) if search else (_SETID, _DEVICES)
    is_wanted = _wanted(uids, gids)
    lstat = os.lstat

    for name in names:
        pinned = -1
        try:
            if is_pinned:
                pinned = syscalls.pin(name, pinning)
            seen = os.fstat(pinned) if is_pinned else lstat(name)
            mode = seen[0]
            kind = mode & _KIND

            if kind == stat.S_IFDIR:
                folders.append(name)
                if not search:
                    continue

            if (
                ((seen[3] != 1 or seen.st_ctime_ns > until) and not search)
                or kind in devices
                or (
                    kind != stat.S_IFLNK
                    and (
                        mode & setid
                        or (seen.st_ctime_ns >= seen_before and has_attributes(name, pinned))
                    )
                )
            ):
                care.append(name)
                continue

            owner = seen[4:6]
            if search and not is_wanted(owner):
                continue

            new = owners.get(owner)
            if new is not None and new != owner:
                if is_pinned:
                    syscalls.chown_pinned(pinned, *new)
                else:
                    os.lchown(name, *new)

            plain[owner].append(name)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno == errno.EXDEV and pinned < 0 and _is_folder(name):
                folders.append(name)
            else:
                found.failures.append((name, error.errno or errno.EIO))
        finally:
            if pinned >= 0:
                os.close(pinned)
    return found


def packed(ids: IdSet) -> bytes:
    """Ids for StepOptions: the first and the last id of each range, ascending, as C stores them."""
    return b"".join(_RANGE.pack(one.start, one.last) for one in ids)


@lru_cache(maxsize=1)
def _wanted(uids: bytes, gids: bytes) -> Callable[[Owner], bool]:
    """Tell of an owner whether it is searched for. A tree has few owners, and a set many ranges."""
    of_uids, of_gids = (
        IdSet.clipped((first, last + 1) for first, last in _RANGE.iter_unpack(raw))
        for raw in (uids, gids)
    )
    return lru_cache(maxsize=1024)(lambda owner: owner[0] in of_uids or owner[1] in of_gids)


def _is_folder(name: str) -> bool:
    with suppress(OSError):
        return stat.S_ISDIR(os.lstat(name).st_mode)
    return False


def has_attributes(name: str, pinned: int = -1) -> bool:
    """Tell whether an entry of the current folder, or the pinned inode, has an ACL or a capability.

    Raises OSError.
    """
    try:
        names = (
            os.listxattr(name, follow_symlinks=False)
            if pinned < 0
            else os.listxattr(f"/proc/self/fd/{pinned}")
        )
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return False  # a file system without attributes
    return bool(names) and not CARRIED.isdisjoint(names)


def reason(error: OSError, name: str | None = None) -> str:
    """The reason why an entry of the current folder could not be changed, for people."""
    if error.errno == errno.EPERM and name is not None and syscalls.is_immutable(name):
        return IMMUTABLE
    if error.errno == errno.EXDEV:
        return "it is a mount point"
    if error.errno == errno.EOVERFLOW:
        return "its owner has no id on this mount, which is idmapped"
    return reason_of(error)
