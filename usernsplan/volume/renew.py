"""Give power back by replacing the inode: the content is proved, and nobody else has the new one.

Giving power to an inode in place cannot be made safe. A process that has the file open or
mapped, or has passed the permission check of open(2), can write to it after the bit is set. So
the content is copied into an unnamed file of root's that only this program can open. The copy is
compared with the proof, and gets its owner and power. Only then it takes the name. A log records
which inode replaces which before the first name changes, so that a kill loses nothing.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from usernsplan.errors import reason_of
from usernsplan.host.files import no_symlink, sync_folder
from usernsplan.values import NamedTuple, dataclass, field
from usernsplan.volume import syscalls, walk
from usernsplan.volume.descriptors import attribute, held
from usernsplan.volume.metadata import ACL_ACCESS, CAPABILITY
from usernsplan.volume.parts import Parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.volume.walk import OpenVolume

    Key = tuple[int, int, int]

# Files with more data are never proved: they are no programs, and reading them takes too long.
_MOST = 1 << 30
_PIECE, _BLOCK = 1 << 20, 4096
_HIDDEN = ".usernsplan-"
# The states of a swap in the log.
_BEGUN, _DONE, _ENDED = "begun", "done", "ended"
# The new inode gets its own values of these; the kernel signs security.evm for one inode only.
_NOT_COPIED = frozenset({ACL_ACCESS, CAPABILITY, "security.evm"})
# The errors of a file system that has no unnamed files.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})


class NotRenewedError(Exception):
    """The file stays as it is, without power; the message says why."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a file held: its size in bytes, and a SHA-256 (hex) of its blocks and their offsets."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Name:
    """One name of an inode: the index of its volume in the run, its folder's place, its name."""

    volume: int
    parts: Parts
    name: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to renew: its inode, all of its names, and the attributes of the new inode.

    ``mode`` has permission bits only; ``acl`` and ``capability`` are raw, None for none.
    """

    inode: int
    names: tuple[Name, ...]
    owner: tuple[int, int]
    mode: int
    acl: bytes | None
    capability: bytes | None
    proof: Proof


def proof_of(pinned: int, before: os.stat_result, capability: bytes | None) -> Proof | None:
    """The proof of the regular file that an O_PATH descriptor pins.

    It had this fstat and this capability. None if it changed during the read, or has more data than
    any program. Raises OSError.
    """
    if not stat.S_ISREG(before.st_mode) or before.st_blocks * 512 > _MOST:
        return None
    try:
        with _opened(pinned) as file:
            proof = _proved(file)
    except NotRenewedError:
        return None
    now = os.fstat(pinned)
    # A write moves ctime, except within a clock tick, and clears power.
    same = (before[:7], before.st_ctime_ns) == (now[:7], now.st_ctime_ns)
    return proof if same and capability == attribute(pinned, CAPABILITY) else None


def foretell(volumes: Sequence[OpenVolume], wanted: Wanted) -> None:
    """Check that a file's content is proved, without changing it. Raises NotRenewedError if not."""
    with (
        _explained(),
        _folder(volumes, wanted.names[0]) as folder,
        _pinned(folder, wanted) as pinned,
    ):
        _refuse_other(wanted, pinned)
        with _opened(pinned) as file:
            _compare(file, wanted.proof)


def renew(volumes: Sequence[OpenVolume], wanted: Wanted, log: Swaps) -> None:
    """Replace a file by a new inode with the same content and the wanted attributes.

    The old inode must already be without power. If NotRenewedError is raised, no name has
    changed.
    """
    with _explained(), _folder(volumes, wanted.names[0]) as folder, _pinned(folder, wanted) as old:
        _refuse_other(wanted, old)
        with _copied(folder, old, wanted) as new:
            _swap(volumes, wanted, new, log)


def mend(volumes: Sequence[OpenVolume], logs: Iterable[str]) -> None:
    """After a kill: finish complete swaps, undo the others, and leave no temporary name."""
    for log in logs:
        swaps, noted = Swaps(log), _read(log)
        for swap in noted.begun:
            if swap.key in noted.ended:
                continue

            is_done = swap.key in noted.done
            if not is_done and all(_shows(volumes, name, swap.new) for name, _ in swap.hidden):
                swaps.note(_DONE, swap)
                is_done = True
            if _clear(volumes, swap, swap.old if is_done else swap.new):
                swaps.note(_ENDED, swap)


@dataclass(frozen=True, slots=True)
class _Swap:
    """One line of the log: the inodes, and each name with its temporary name.

    ``times`` are the atime and mtime (ns) of each name's folder, which are restored at the end.
    """

    device: int
    old: int
    new: int
    hidden: tuple[tuple[Name, str], ...]
    times: tuple[tuple[int, int], ...]

    @property
    def key(self) -> Key:
        """The device, the old inode and the new one."""
        return self.device, self.old, self.new


class Swaps:
    """The log of swaps. A swap is in it, on disk, before its first name changes."""

    def __init__(self, path: str) -> None:
        self._path = path

    def note(self, what: str, swap: _Swap) -> None:
        """Record how far a swap is; on disk when this returns."""
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
            # The leading newline ends a line that a kill cut short.
            os.write(file, b"\n" + json.dumps(words).encode() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)
        if is_new:
            sync_folder(os.path.dirname(self._path))


class Swapped(NamedTuple):
    """Inode ``new`` replaced ``old`` on a device; ``at`` is the time in ns since the epoch."""

    at: int
    device: int
    old: int
    new: int


def swapped(logs: Iterable[str]) -> list[Swapped]:
    """The swaps that the logs call done."""
    return [Swapped(at, *key) for log in logs for key, at in _read(log).done.items()]


@dataclass(slots=True)
class _Noted:
    """The swaps in a log: begun, done (the new inode has all names) and ended (cleaned up)."""

    begun: list[_Swap] = field(default_factory=list)
    done: dict[Key, int] = field(default_factory=dict)
    ended: set[Key] = field(default_factory=set)


def _read(log: str) -> _Noted:
    noted = _Noted()
    with open(log, "rb", opener=no_symlink) as file:
        for line in file:
            # A line that a kill cut short has no meaning: its step had not happened yet.
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
    return Name(volume + 0, Parts.of(map(_text, parts)), _text(name))


def _text(name: str) -> str:
    """The recorded name of an entry. Raises TypeError or ValueError for anything else."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ValueError("not the name of an entry")
    return name + ""


# One file


@contextmanager
def _explained() -> Iterator[None]:
    """Turn a system error into the reason why a file stays as it is."""
    try:
        yield
    except OSError as error:
        raise NotRenewedError(reason_of(error)) from error


def _folder(volumes: Sequence[OpenVolume], name: Name) -> AbstractContextManager[int]:
    volume = volumes[name.volume] if 0 <= name.volume < len(volumes) else None
    if volume is None or volume.top < 0:
        raise NotRenewedError("its volume is gone")
    return held(walk.folder(volume, name.parts))


def _pinned(folder: int, wanted: Wanted) -> AbstractContextManager[int]:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    return held(os.open(wanted.names[0].name, flags, dir_fd=folder))


def _opened(pinned: int) -> AbstractContextManager[int]:
    """Open exactly this inode for reading, without changing its atime if the kernel allows that."""
    path, flags = f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        # open(2): O_NOATIME needs the file's owner or CAP_FOWNER.
        return held(os.open(path, flags | os.O_NOATIME))
    except PermissionError:
        return held(os.open(path, flags))


def _refuse_other(wanted: Wanted, pinned: int) -> None:
    now = os.fstat(pinned)
    if now.st_ino != wanted.inode or not stat.S_ISREG(now.st_mode):
        raise NotRenewedError("another file has its name now")
    if now.st_nlink != len(wanted.names):
        raise NotRenewedError(f"it has {now.st_nlink} names, but {len(wanted.names)} are known")
    if now.st_size != wanted.proof.size:
        raise NotRenewedError("its content has changed")


def _data(file: int) -> Iterator[tuple[int, bytes]]:
    """The data of a file without its holes: (offset, bytes), in whole blocks, each block once."""
    at = 0
    while True:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
            stop = os.lseek(file, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        # Whole blocks, so that the offsets do not depend on where the file system finds holes.
        at, stop = max(at, start - start % _BLOCK), stop + -stop % _BLOCK
        while at < stop:
            piece = os.pread(file, min(_PIECE, stop - at), at)
            if not piece:
                return
            yield at, piece
            at += len(piece)


def _proved(file: int) -> Proof:
    """The proof of an open file. It skips blocks of zeros, so holes do not matter."""
    read = 0
    import hashlib  # noqa: PLC0415 - slow, and seldom needed

    digest = hashlib.sha256()
    for at, piece in _data(file):
        read += len(piece)
        if read > _MOST:
            raise NotRenewedError("it is too large for a proof")
        for start in range(0, len(piece), _BLOCK):
            block = piece[start : start + _BLOCK]
            if any(block):
                digest.update(b"%d:" % (at + start))
                digest.update(block)
    return Proof(os.fstat(file).st_size, digest.hexdigest())


def _compare(file: int, proof: Proof) -> None:
    if _proved(file) != proof:
        raise NotRenewedError("its content has changed")


@contextmanager
def _copied(folder: int, old: int, wanted: Wanted) -> Iterator[int]:
    """An unnamed file with the proved content and all wanted attributes."""
    try:
        new = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno in _NO_TMPFILE:
            raise NotRenewedError("the file system has no unnamed files (O_TMPFILE)") from error
        raise
    with held(new):
        seen = os.fstat(old)
        with _opened(old) as file:
            os.truncate(new, wanted.proof.size)
            for at, piece in _data(file):
                # Another process may append as fast as we copy.
                if at >= wanted.proof.size:
                    break
                _write(new, piece, at)
        _compare(new, wanted.proof)
        _furnish(new, old, wanted)

        os.utime(new, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        os.fsync(new)
        yield new


def _write(file: int, piece: bytes, at: int) -> None:
    while piece:
        written = os.pwrite(file, piece, at)
        piece, at = piece[written:], at + written


def _furnish(new: int, old: int, wanted: Wanted) -> None:
    """Copy the other attributes of the old inode, then set owner, ACL, mode and capability.

    The order matters: chown clears setuid and capability, and an ACL changes the mode.
    """
    for name in _names_of_attributes(old):
        if name not in _NOT_COPIED and (value := attribute(old, name)) is not None:
            os.setxattr(new, name, value)
    # A folder's default ACL gives an ACL to every new file.
    if ACL_ACCESS in _names_of_attributes(new):
        os.removexattr(new, ACL_ACCESS)

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
        attribute(new, CAPABILITY),
        attribute(new, ACL_ACCESS),
    )
    if has != (wanted.owner, wanted.mode, wanted.capability, wanted.acl):
        raise NotRenewedError("the file system does not keep the owner, mode or attributes")


def _names_of_attributes(descriptor: int) -> list[str]:
    try:
        return os.listxattr(f"/proc/self/fd/{descriptor}")
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


# Its names


def _swap(volumes: Sequence[OpenVolume], wanted: Wanted, new: int, log: Swaps) -> None:
    """Give all names of the old inode to the new one, or none."""
    seen = os.fstat(new)
    hidden = tuple((name, f"{_HIDDEN}{os.urandom(8).hex()}") for name in wanted.names)
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
        # Another process may have given it a name; without power it is a file like any other.
        _disarm(new)
        if _clear(volumes, swap, swap.new):
            log.note(_ENDED, swap)
        raise
    if _clear(volumes, swap, swap.old):
        # The swap is complete; without this line the next run only checks it again.
        with suppress(OSError):
            log.note(_ENDED, swap)


def _disarm(new: int) -> None:
    os.fchown(new, 0, 0)
    os.fchmod(new, 0o600)
    with suppress(OSError):
        os.removexattr(new, CAPABILITY)


def _clear(volumes: Sequence[OpenVolume], swap: _Swap, loser: int) -> bool:
    """Remove the temporary names of the inode that loses. Tell whether every folder was there.

    If the new inode loses, first give the old one its names back.
    """
    reached = 0
    for (name, temporary), times in reversed([*zip(swap.hidden, swap.times, strict=True)]):
        with suppress(OSError, NotRenewedError), _folder(volumes, name) as folder:
            now = (_inode(folder, temporary), _inode(folder, name.name))
            if loser == swap.new and now == (swap.old, swap.new):
                syscalls.exchange(folder, temporary, name.name)
            _remove(folder, temporary, loser)
            os.utime(folder, ns=times)
            reached += 1
    return reached == len(swap.hidden)


def _shows(volumes: Sequence[OpenVolume], name: Name, inode: int) -> bool:
    with suppress(OSError, NotRenewedError), _folder(volumes, name) as folder:
        return _inode(folder, name.name) == inode
    return False


def _exchange(folder: int, name: str, temporary: str, swap: _Swap) -> None:
    """Exchange the temporary name, of the new inode, and the name of the old one.

    Raises NotRenewedError if another process renames files there; ``_clear`` undoes the rest.
    """
    syscalls.exchange(folder, temporary, name)
    if _inode(folder, temporary) != swap.old:
        # Another process was faster; its file came out and goes back.
        syscalls.exchange(folder, temporary, name)
        raise NotRenewedError("another file has its name now")
    if _inode(folder, name) != swap.new:
        raise NotRenewedError("another process renames files there")


def _remove(folder: int, name: str, inode: int) -> None:
    """Remove a temporary name if it is still this inode's."""
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
