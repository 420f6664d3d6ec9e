"""A file with power gets a new inode: power goes only to content that is proved, in an inode that nobody has open.

Power given to an inode in place cannot be made safe: whoever had the file open, or mapped, or had passed the permission
check of an open(2), writes to it after the bit is set. So the content is copied into a file without a name, of root's,
which nobody but us can open; the copy is compared with the proof; it gets its owner and power; and only then it takes
the name. Which inode takes whose place is in a log before the first name changes, so that a kill loses nothing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from usernsplan.errors import reason_of
from usernsplan.host.files import no_symlink, sync_folder
from usernsplan.volume import syscalls, walk
from usernsplan.volume.metadata import ACL_ACCESS, CAPABILITY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.volume.walk import OpenVolume

    Key = tuple[int, int, int]

# Of what holds more data nothing is proved: it is no program, and reading it would take longer than the run.
_MOST = 1 << 30
_PIECE, _BLOCK = 1 << 20, 4096
_HIDDEN = ".usernsplan-"
# How far a swap is, in the log.
_BEGUN, _DONE, _ENDED = "begun", "done", "ended"
# What the new inode gets of its own, and what the kernel signs for one inode alone.
_NOT_COPIED = frozenset({ACL_ACCESS, CAPABILITY, "security.evm"})
# What a file system answers that has no files without a name.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})


class NotRenewedError(Exception):
    """The file stays as it is, without power; the message tells why."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a file held: its size in bytes, and the SHA-256 of its blocks and their places, in hex."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Name:
    """One name of an inode: in which volume of the run, below which parts."""

    volume: int
    parts: tuple[str, ...]
    name: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a file is to be: its inode now, all of its names, and what the new one is to have.

    ``mode`` are permission bits; ``acl`` and ``capability`` are raw, None for none.
    """

    inode: int
    names: tuple[Name, ...]
    owner: tuple[int, int]
    mode: int
    acl: bytes | None
    capability: bytes | None
    proof: Proof


def proof_of(pinned: int) -> Proof | None:
    """Prove the content of the regular file that an O_PATH descriptor pins; None where it changed while it was read.

    None also for more data than any program has. Raises OSError.
    """
    before = os.fstat(pinned)
    if not stat.S_ISREG(before.st_mode) or before.st_blocks * 512 > _MOST:
        return None
    had = _attribute(pinned, CAPABILITY)
    try:
        with _opened(pinned) as file:
            proof = _proved(file)
    except NotRenewedError:
        return None
    now = os.fstat(pinned)
    # A write moves ctime, but for the grain of the clock, and takes power away.
    same = (before[:7], before.st_ctime_ns) == (now[:7], now.st_ctime_ns) and had == _attribute(
        pinned, CAPABILITY
    )
    return proof if same else None


def foretell(volumes: Sequence[OpenVolume], wanted: Wanted) -> None:
    """Tell, without changing anything, whether a file's content is proved. Raises NotRenewedError where it is not."""
    with (
        _explained(),
        _folder(volumes, wanted.names[0]) as folder,
        _pinned(folder, wanted) as pinned,
    ):
        _refuse_other(wanted, pinned)
        with _opened(pinned) as file:
            _compare(file, wanted.proof)


def renew(volumes: Sequence[OpenVolume], wanted: Wanted, log: Swaps) -> None:
    """Put a new inode, with the same content and the wanted owner, mode, ACL and capability, in a file's place.

    The old inode must have been left without power. Raises NotRenewedError: then no name has changed.
    """
    with _explained(), _folder(volumes, wanted.names[0]) as folder, _pinned(folder, wanted) as old:
        _refuse_other(wanted, old)
        with _copied(folder, old, wanted) as new:
            _swap(volumes, wanted, new, log)


def mend(volumes: Sequence[OpenVolume], logs: Iterable[str]) -> None:
    """After a kill: finish what was exchanged whole, take the rest back; no temporary name is left."""
    for log in logs:
        swaps, noted = Swaps(log), _read(log)
        for swap in noted.begun:
            if swap.key in noted.ended:
                continue
            if swap.key in noted.done:
                reached = _tidy(volumes, swap)
            elif all(_shows(volumes, name, swap.new) for name, _ in swap.hidden):
                swaps.note(_DONE, swap)
                reached = _tidy(volumes, swap)
            else:
                reached = _take_back(volumes, swap)
            if reached:
                swaps.note(_ENDED, swap)


@dataclass(frozen=True, slots=True)
class _Swap:
    """One line of the log: the inodes, and each name with the temporary one that it is exchanged with.

    ``times`` are the atime and mtime (ns) of each name's folder, which is as it was in the end.
    """

    device: int
    old: int
    new: int
    hidden: tuple[tuple[Name, str], ...]
    times: tuple[tuple[int, int], ...]

    @property
    def key(self) -> Key:
        """Which inode takes the place of which other one."""
        return self.device, self.old, self.new


class Swaps:
    """Appends to a log which inode is about to take whose place; on disk before the first name changes."""

    def __init__(self, path: str) -> None:
        self._path = path

    def note(self, what: str, swap: _Swap) -> None:
        """Note how far it is; on disk when this returns."""
        names = [[name.volume, list(name.parts), name.name, other] for name, other in swap.hidden]
        self._write(
            [what, *swap.key, *([names, swap.times] if what == _BEGUN else [time.time_ns()])]
        )

    def _write(self, words: list[Any]) -> None:
        is_new = not os.path.exists(self._path)
        file = os.open(
            self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            # Whatever a kill cut short ends here.
            os.write(file, b"\n" + json.dumps(words).encode() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)
        if is_new:
            sync_folder(os.path.dirname(self._path))


class Swapped(NamedTuple):
    """Which inode has taken the place of which other one on a device, and when (ns since the epoch)."""

    at: int
    device: int
    old: int
    new: int


def swapped(logs: Iterable[str]) -> list[Swapped]:
    """Which inodes have taken the place of others."""
    return [Swapped(at, *key) for log in logs for key, at in _read(log).done.items()]


@dataclass(slots=True)
class _Noted:
    """What a log says has begun, whose names are all the new inode's, and of what nothing is left to be done."""

    begun: list[_Swap] = field(default_factory=list)
    done: dict[Key, int] = field(default_factory=dict)
    ended: set[Key] = field(default_factory=set)


def _read(log: str) -> _Noted:
    noted = _Noted()
    with open(log, "rb", opener=no_symlink) as file:
        for line in file:
            # A line that a kill cut short says nothing: what it was to say had not come about.
            with suppress(ValueError, TypeError, LookupError, RecursionError):
                what, device, old, new, *more = json.loads(line)
                if not all(type(number) is int for number in (device, old, new)):
                    continue
                if what == _BEGUN:
                    names = [
                        (_name(volume, parts, name), _text(other))
                        for volume, parts, name, other in more[0]
                    ]
                    times = ((accessed + 0, modified + 0) for accessed, modified in more[1])
                    noted.begun.append(_Swap(device, old, new, tuple(names), tuple(times)))
                elif what == _DONE:
                    noted.done[device, old, new] = more[0] + 0
                else:
                    noted.ended.add((device, old, new))
    return noted


def _name(volume: int, parts: list[str], name: str) -> Name:
    return Name(volume + 0, tuple(map(_text, parts)), _text(name))


def _text(name: str) -> str:
    """The name of an entry as it is noted; TypeError or ValueError for anything else."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ValueError("no name of an entry")
    return name + ""


# One file


@contextmanager
def _explained() -> Iterator[None]:
    """An error of the system as the reason why a file is left as it is."""
    try:
        yield
    except OSError as error:
        raise NotRenewedError(reason_of(error)) from error


@contextmanager
def _folder(volumes: Sequence[OpenVolume], name: Name) -> Iterator[int]:
    volume = volumes[name.volume] if 0 <= name.volume < len(volumes) else None
    if volume is None or volume.top < 0:
        raise NotRenewedError("its volume is gone")
    folder = walk.folder(volume, name.parts)
    try:
        yield folder
    finally:
        os.close(folder)


@contextmanager
def _pinned(folder: int, wanted: Wanted) -> Iterator[int]:
    pinned = os.open(wanted.names[0].name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield pinned
    finally:
        os.close(pinned)


@contextmanager
def _opened(pinned: int) -> Iterator[int]:
    """Open the very inode for reading; its time of access stays where the system lets us."""
    path, flags = f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        file = os.open(path, flags)
    try:
        yield file
    finally:
        os.close(file)


def _refuse_other(wanted: Wanted, pinned: int) -> None:
    now = os.fstat(pinned)
    if now.st_ino != wanted.inode or not stat.S_ISREG(now.st_mode):
        raise NotRenewedError("another file has its name now")
    if now.st_nlink != len(wanted.names):
        raise NotRenewedError(f"it has {now.st_nlink} names, and {len(wanted.names)} are known")
    if now.st_size != wanted.proof.size:
        raise NotRenewedError("its content was changed since")


def _data(file: int) -> Iterator[tuple[int, bytes]]:
    """The content of a file but for its holes: (offset, bytes), in whole blocks, each once."""
    at = 0
    while True:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
            stop = os.lseek(file, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        at, stop = max(at, start - start % _BLOCK), stop + -stop % _BLOCK
        while at < stop:
            piece = os.pread(file, min(_PIECE, stop - at), at)
            if not piece:
                return
            yield at, piece
            at += len(piece)


def _proved(file: int) -> Proof:
    """The proof of an open file: of each block that is not all zeros, and its place: a hole and zeros are the same."""
    read = 0
    digest = hashlib.sha256()
    for at, piece in _data(file):
        read += len(piece)
        if read > _MOST:
            raise NotRenewedError("it is too large to be proved")
        for start in range(0, len(piece), _BLOCK):
            block = piece[start : start + _BLOCK]
            if any(block):
                digest.update(b"%d:" % (at + start))
                digest.update(block)
    return Proof(os.fstat(file).st_size, digest.hexdigest())


def _compare(file: int, proof: Proof) -> None:
    if _proved(file) != proof:
        raise NotRenewedError("its content was changed since")


@contextmanager
def _copied(folder: int, old: int, wanted: Wanted) -> Iterator[int]:
    """A file without a name that holds the proved content, and has all that it is to have."""
    try:
        new = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno in _NO_TMPFILE:
            raise NotRenewedError(
                "the file system has no files without a name (O_TMPFILE)"
            ) from error
        raise
    try:
        seen = os.fstat(old)
        with _opened(old) as file:
            os.truncate(new, wanted.proof.size)
            for at, piece in _data(file):
                # Somebody may append as fast as we copy.
                if at >= wanted.proof.size:
                    break
                _write(new, piece, at)
        _compare(new, wanted.proof)
        _furnish(new, old, wanted)
        os.utime(new, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        os.fsync(new)
        yield new
    finally:
        os.close(new)


def _write(file: int, piece: bytes, at: int) -> None:
    while piece:
        written = os.pwrite(file, piece, at)
        piece, at = piece[written:], at + written


def _furnish(new: int, old: int, wanted: Wanted) -> None:
    """Give the new inode the other attributes of the old one, and owner, ACL, mode and capability, in this order."""
    for attribute in _names_of_attributes(old):
        if attribute not in _NOT_COPIED and (value := _attribute(old, attribute)) is not None:
            os.setxattr(new, attribute, value)
    # A folder's default ACL gives every new file one.
    for attribute in set(_names_of_attributes(new)) & {ACL_ACCESS}:
        os.removexattr(new, attribute)
    os.fchown(new, *wanted.owner)
    if wanted.acl is not None:
        os.setxattr(new, ACL_ACCESS, wanted.acl)
    os.fchmod(new, wanted.mode)
    if wanted.capability is not None:
        os.setxattr(new, CAPABILITY, wanted.capability)
    now = os.fstat(new)
    has = (
        now[4:6],
        stat.S_IMODE(now.st_mode),
        _attribute(new, CAPABILITY),
        _attribute(new, ACL_ACCESS),
    )
    if has != (wanted.owner, wanted.mode, wanted.capability, wanted.acl):
        raise NotRenewedError("the file system does not keep what it is given")


def _attribute(descriptor: int, attribute: str) -> bytes | None:
    try:
        return os.getxattr(f"/proc/self/fd/{descriptor}", attribute)
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.ENOTSUP}:
            return None
        raise


def _names_of_attributes(descriptor: int) -> list[str]:
    try:
        return os.listxattr(f"/proc/self/fd/{descriptor}")
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


# Its names


def _swap(volumes: Sequence[OpenVolume], wanted: Wanted, new: int, log: Swaps) -> None:
    """Let the new inode take all names of the old one, or none."""
    seen = os.fstat(new)
    hidden = tuple((name, f"{_HIDDEN}{secrets.token_hex(8)}") for name in wanted.names)
    swap = _Swap(
        seen.st_dev,
        wanted.inode,
        seen.st_ino,
        hidden,
        tuple(_times(volumes, name) for name in wanted.names),
    )
    log.note(_BEGUN, swap)
    try:
        for name, temporary in hidden:
            with _folder(volumes, name) as folder:
                syscalls.link(new, folder, temporary)
                _exchange(folder, name.name, temporary, swap)
        log.note(_DONE, swap)
    except (OSError, NotRenewedError):
        # Wherever somebody may have taken it meanwhile: it is to be a file like any other.
        _disarm(new)
        if _take_back(volumes, swap):
            log.note(_ENDED, swap)
        raise
    if _tidy(volumes, swap):
        # All has come about; without this line the next run only looks once more.
        with suppress(OSError):
            log.note(_ENDED, swap)


def _disarm(new: int) -> None:
    os.fchown(new, 0, 0)
    os.fchmod(new, 0o600)
    with suppress(OSError):
        os.removexattr(new, CAPABILITY)


def _take_back(volumes: Sequence[OpenVolume], swap: _Swap) -> bool:
    """Give the old inode its names back, and take the temporary ones away; tell whether every folder was there."""
    reached = 0
    for (name, temporary), times in reversed([*zip(swap.hidden, swap.times, strict=True)]):
        with suppress(OSError, NotRenewedError), _folder(volumes, name) as folder:
            if (_inode(folder, temporary), _inode(folder, name.name)) == (swap.old, swap.new):
                syscalls.exchange(folder, temporary, name.name)
            _remove(folder, temporary, swap.new)
            os.utime(folder, ns=times)
            reached += 1
    return reached == len(swap.hidden)


def _tidy(volumes: Sequence[OpenVolume], swap: _Swap) -> bool:
    """Take the temporary names away, the old inode's last ones; tell whether every folder was there."""
    reached = 0
    for (name, temporary), times in zip(swap.hidden, swap.times, strict=True):
        with suppress(OSError, NotRenewedError), _folder(volumes, name) as folder:
            _remove(folder, temporary, swap.old)
            os.utime(folder, ns=times)
            reached += 1
    return reached == len(swap.hidden)


def _shows(volumes: Sequence[OpenVolume], name: Name, inode: int) -> bool:
    with suppress(OSError, NotRenewedError), _folder(volumes, name) as folder:
        return _inode(folder, name.name) == inode
    return False


def _exchange(folder: int, name: str, temporary: str, swap: _Swap) -> None:
    """Let the new inode, which has the temporary name, and the old one change names; else nothing changes."""
    syscalls.exchange(folder, temporary, name)
    if _inode(folder, temporary) != swap.old:
        # Somebody was quicker: what has come out is his, and goes back to where it was.
        syscalls.exchange(folder, temporary, name)
        raise NotRenewedError("another file has its name now")
    if _inode(folder, name) != swap.new:
        raise NotRenewedError("somebody exchanges names there")


def _remove(folder: int, name: str, inode: int) -> None:
    """Take a temporary name away, where it is still that of this inode."""
    if _inode(folder, name) == inode:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _inode(folder: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def _times(volumes: Sequence[OpenVolume], name: Name) -> tuple[int, int]:
    with _folder(volumes, name) as folder:
        seen = os.fstat(folder)
    return seen.st_atime_ns, seen.st_mtime_ns
