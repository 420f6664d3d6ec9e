"""The drop-in records of systemd: read those of others, and write and remove ours.

nss-systemd(8) lists the folders. Ours go to the first one, /etc/userdb.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.errors import HostChangedError, RefusedError
from usernsplan.escape import line
from usernsplan.formats import userdb
from usernsplan.formats.userdb import GROUP, USER
from usernsplan.holdings import records
from usernsplan.host import files
from usernsplan.layout import USERDB
from usernsplan.model import Userdb
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.formats.accounts import Group, User
    from usernsplan.formats.userdb import Entry
    from usernsplan.layout import Layout
    from usernsplan.model import Allocation, Record

_OTHER_FOLDERS = ("/run/userdb", "/run/host/userdb", "/usr/local/lib/userdb", "/usr/lib/userdb")
# Beside a file that is being written; systemd does not read this name.
_NEW = ".usernsplan-new"
# The longest record that is read. systemd's own have a few hundred bytes.
_LARGEST = 1 << 20
# The kernel's clock for files has no finer steps than this, in nanoseconds, on any machine.
_TICK = 100_000_000
# More files than these are written to disk with one call for the whole file system.
_FEW = 16
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Found(NamedTuple):
    """The folder of our records, and the accounts and groups of the others.

    ``published`` are those of these accounts that usernsplan wrote, although the ledger lacks them.
    """

    userdb: Userdb
    users: tuple[User, ...] = ()
    groups: tuple[Group, ...] = ()
    published: tuple[User, ...] = ()


NOTHING = Found(Userdb())


class Ours(NamedTuple):
    """The records that the ledger has, and the names of their files."""

    records: tuple[Record, ...]
    names: frozenset[str]


def named(several: Iterable[Record]) -> Ours:
    """These records, with the names of their files."""
    found = tuple(several)
    return Ours(found, userdb.names(found))


# A command reads the host twice, before and under its locks, mostly with the same allocations.
_known: tuple[tuple[Allocation, ...], Ours] = ((), Ours((), frozenset()))


def of_allocations(allocations: tuple[Allocation, ...]) -> Ours:
    """The records of these allocations."""
    global _known  # noqa: PLW0603 - see there
    if _known[0] is not allocations:
        found = (record for a in allocations if a.published == "userdb" for record in records(a))
        _known = (allocations, named(found))
    return _known[1]


def read(layout: Layout, ours: Ours, *, compare: bool = False) -> Found:
    """Read all records but ``ours``; with ``compare``, those too that differ.

    Only names tell ours apart without ``compare``: to read 20,000 files would take longer than all
    else that a command does. Raises the errors of reading a file, and RefusedError.
    """
    names, others = _folder(layout, USERDB, ours.names)
    if compare:
        others |= _differing(layout, ours.records, names)

    found = {USERDB: others}
    found |= {path: _folder(layout, path, frozenset())[1] for path in _OTHER_FOLDERS}
    theirs = [
        (name, raw)
        for path, there in found.items()
        for name, entry in there.items()
        if (raw := _content(layout, f"{path}/{name}", entry))
    ]
    users = {raw: one for name, raw in theirs if name.endswith(USER) and (one := userdb.user(raw))}
    groups = (userdb.group(raw) for name, raw in theirs if name.endswith(GROUP))
    return Found(
        Userdb(names, others, _is_folder(layout)),
        tuple(users.values()),
        tuple(one for one in groups if one),
        tuple(one for raw, one in users.items() if userdb.is_ours(raw)),
    )


def publish(layout: Layout, wanted: Iterable[Record], *, strict: bool = True) -> None:
    """Write what is missing of these records, and replace what is damaged.

    What others wrote stays: ``strict`` raises HostChangedError for it. Otherwise this is a repair,
    and must not fail because the folder was replaced. Raises UsernsplanError.
    """
    entries = [entry for one in wanted for entry in userdb.entries(one).items()]
    if not entries or not (strict or _is_folder(layout)):
        return
    files.make_folder(layout, USERDB)
    with files.explained(layout, USERDB):
        folder = _opened(layout, USERDB)
    try:
        for name, content in entries:
            # Nearly always nothing is there, so nothing is looked at first. There may be 40,000
            # names: a context manager for each takes longer than making the file.
            try:
                _put(folder, name, content)
            except FileExistsError:  # noqa: PERF203 - it says which file failed
                with files.explained(layout, f"{USERDB}/{name}"):
                    _mend(layout, folder, name, content, strict=strict)
            except OSError as error:
                raise files.explanation(layout, f"{USERDB}/{name}", error) from error
        with files.explained(layout, USERDB):
            _sync(folder, [name for name, content in entries if isinstance(content, bytes)])
    finally:
        os.close(folder)


def _mend(layout: Layout, folder: int, name: str, content: Entry, *, strict: bool) -> None:
    """Replace what is there instead of a file of ours, if it is ours; see ``publish``."""
    there = _entry(layout, folder, USERDB, name)
    if there == content:
        return
    if there is None or userdb.is_ours(there):
        _put(folder, name, content, replaced=True)
    elif strict:
        raise in_the_way(layout, name)


def withdraw(layout: Layout, unwanted: Iterable[Record], kept: Iterable[Record] = ()) -> None:
    """Remove these records, as far as they are there and ours. Raises UsernsplanError.

    The files of ``kept`` stay: a record that moved to another number has the files of its name
    still.
    """
    staying = userdb.names(kept)
    entries = [
        (name, content)
        for one in unwanted
        for name, content in userdb.entries(one).items()
        if name not in staying
    ]
    if not entries or not files.exists(layout, USERDB) or not _is_folder(layout):
        return
    with files.explained(layout, USERDB):
        folder = _opened(layout, USERDB)
    try:
        for name, content in entries:
            with files.explained(layout, f"{USERDB}/{name}"):
                there = _entry(layout, folder, USERDB, name)
                if there == content or userdb.is_ours(there):
                    os.unlink(name, dir_fd=folder)
        with files.explained(layout, USERDB):
            os.fsync(folder)
    finally:
        os.close(folder)


def discard_unfinished(layout: Layout) -> None:
    """Remove what a killed run left beside its records. Raises UsernsplanError."""
    if not files.exists(layout, USERDB) or not _is_folder(layout):
        return
    with files.explained(layout, USERDB):
        folder = _opened(layout, USERDB)
        try:
            for name in os.listdir(folder):
                if name.endswith((USER + _NEW, GROUP + _NEW)):
                    os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)


def in_the_way(layout: Layout, name: str) -> HostChangedError:
    """The error for a record of somebody else that appeared where one of ours goes."""
    return HostChangedError(
        f"{line(layout.path(f'{USERDB}/{name}'))} was written by another program at the same time"
    )


def _content(layout: Layout, path: str, entry: Entry) -> bytes:
    """The bytes of a record, also behind a symlink; empty for the symlink of a number."""
    if isinstance(entry, bytes):
        return entry
    if not entry or os.path.basename(path).partition(".")[0].isdigit():
        return b""
    return files.read(layout, path, follow=True, largest=_LARGEST) or b""


def _folder(
    layout: Layout, path: str, ours: frozenset[str]
) -> tuple[frozenset[str], dict[str, Entry]]:
    """All names in a folder, and what is there under those that are not ours."""
    with files.explained(layout, path):
        try:
            folder = files.opened_folder(layout, path)
        except (FileNotFoundError, NotADirectoryError):
            return frozenset(), {}
        try:
            names = _listed(folder)
            theirs = sorted(name for name in names - ours if name.endswith((USER, GROUP)))
            there = {name: _entry(layout, folder, path, name) for name in theirs}
            return names, {name: entry for name, entry in there.items() if entry is not None}
        finally:
            os.close(folder)


# The last folder that was listed, as it was then: a command lists 40,000 names once, not twice.
_last: tuple[tuple[int, ...], frozenset[str]] = ((), frozenset())


def _listed(folder: int) -> frozenset[str]:
    """All names in a folder."""
    global _last  # noqa: PLW0603 - see there
    seen = os.fstat(folder)
    now = (seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns)
    # Two changes within one tick of the clock look like one.
    if _last[0] != now or time.time_ns() - seen.st_mtime_ns < _TICK:
        _last = (now, frozenset(os.listdir(folder)))
    return _last[1]


def _differing(
    layout: Layout, ours: Iterable[Record], names: frozenset[str]
) -> Iterator[tuple[str, Entry]]:
    """What is there instead of our records."""
    with files.explained(layout, USERDB):
        if not names:
            return
        folder = files.opened_folder(layout, USERDB)
    try:
        for one in ours:
            for name, content in userdb.entries(one).items():
                if name in names:
                    with files.explained(layout, f"{USERDB}/{name}"):
                        there = _entry(layout, folder, USERDB, name)
                    if there is not None and there != content:
                        yield name, there
    finally:
        os.close(folder)


def _is_folder(layout: Layout) -> bool:
    """Tell whether records can be written: whether the folder is one, or is still to be made."""
    with files.explained(layout, USERDB):
        try:
            return stat.S_ISDIR(files.look(layout, USERDB).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return True


def _opened(layout: Layout, path: str) -> int:
    """Open a folder to write in it. A symlink would lead our records elsewhere."""
    with files.pinned(layout, path) as place:
        try:
            return os.open(place.name, _FOLDER, dir_fd=place.folder)
        except (NotADirectoryError, OSError) as error:
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                raise RefusedError(
                    f"{line(layout.path(path))} is not a folder, or is a symlink",
                    hint="put a folder in its place, or publish nothing (--publish none)",
                ) from error
            raise


def _entry(layout: Layout, folder: int, path: str, name: str) -> Entry | None:
    """What is in a folder under a name: bytes, the target of a symlink, or None for nothing.

    A folder, a device or a pipe is a symlink to nowhere: no record, and not ours.
    """
    try:
        return os.readlink(name, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        # A socket, or a pipe without a reader.
        if error.errno in {errno.ENXIO, errno.ELOOP}:
            return ""
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        raw = os.read(descriptor, _LARGEST + 1)
        if len(raw) > _LARGEST:
            raise RefusedError(
                f"{line(layout.path(f'{path}/{name}'))} has more than {_LARGEST} bytes",
                hint="move it away; a record of systemd is short",
            )
        return raw
    finally:
        os.close(descriptor)


def _put(folder: int, name: str, content: Entry, *, replaced: bool = False) -> None:
    """Create a file or a symlink; only a damaged record of ours is ``replaced``.

    Raises FileExistsError if something else has the name.
    """
    if isinstance(content, str):
        if replaced:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
        os.symlink(content, name, dir_fd=folder)
        return
    temporary = name + _NEW
    try:
        descriptor = os.open(temporary, _CREATE, 0o644, dir_fd=folder)
    except FileExistsError:
        _discard(folder, name)
        descriptor = os.open(temporary, _CREATE, 0o644, dir_fd=folder)
    try:
        # Every program reads these files, so the umask must not restrict the mode.
        os.fchmod(descriptor, 0o644)
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
    if replaced:
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        return
    # A link, unlike a rename, never replaces what another program has just created.
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    finally:
        os.unlink(temporary, dir_fd=folder)


def _discard(folder: int, name: str) -> None:
    """Remove what a killed run left beside a file."""
    with suppress(FileNotFoundError):
        os.unlink(name + _NEW, dir_fd=folder)


def _sync(folder: int, names: list[str]) -> None:
    """Write files and their folder to disk."""
    if len(names) > _FEW:
        import ctypes  # noqa: PLC0415 - slow, and seldom needed: Python lacks syncfs(2)

        ctypes.CDLL(None).syncfs(folder)
        return
    for name in names:
        with suppress(FileNotFoundError):
            descriptor = os.open(name, _READ, dir_fd=folder)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    os.fsync(folder)
