"""Every error that usernsplan raises: one class for one kind of trouble, and each class owns its exit status.

A message says the place and the fact; the hint says the remedy. Only the command line turns these into an exit.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING

from usernsplan.escape import line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class ExitStatus(IntEnum):
    """What a command ends with, and what it means: the number is the value, ``meaning`` the text."""

    meaning: str

    DONE = 0, "done"
    FAILED = 1, "failed"
    WRONG_USAGE = 2, "wrong usage"
    DONE_IN_PART = 3, "done in part"
    CHANGES_PENDING = 4, "changes pending (--check)"
    LOCKED = 5, "locked by another program"
    HOST_CHANGED = 6, "the host changed meanwhile"
    NO_ROOM = 7, "no room in the pool"
    NOT_PERMITTED = 8, "not permitted"
    REFUSED = 9, "refused for safety"
    INTERRUPTED = 130, "interrupted"

    def __new__(cls, number: int, meaning: str) -> ExitStatus:  # noqa: PYI034 - Self came with Python 3.11
        """Make a number that has its meaning with it."""
        status = int.__new__(cls, number)
        status._value_ = number
        status.meaning = meaning
        return status


# What a signal ended has this and the signal's number as its status, as a shell says it.
BY_SIGNAL = 128


class UsernsplanError(Exception):
    """The root of the tree: something could not be done. Exit status 1.

    ``code`` is the error's name for programs (``--json``). It never changes; a class without its own has its parent's.
    """

    exit_status: int = ExitStatus.FAILED
    code = "failed"
    hint = ""
    # The name of the allocation that the error concerns, if any: a plan file then shows its line.
    allocation = ""
    # Where that option was said, as the edge shows it: "--start", or the line and key of a file.
    where = ""
    # What was done before it failed and still holds: an interrupted run that was mended, say.
    notes: tuple[str, ...] = ()
    # The lines of a message that tells of several places; a line end in any other is in a name, and shown as such.
    lines: tuple[str, ...] = ()

    def __init__(
        self, message: str, *, hint: str | None = None, option: str = "", in_file: str = ""
    ) -> None:
        """Take the place and the fact as ``message``; ``hint``, where given, replaces the class's own remedy.

        A message about an ``option`` does not name it: the edge does, as it was said. ``in_file`` is the remedy in a
        plan file, where that is another.
        """
        super().__init__(message)
        self.option, self.in_file = option, in_file
        if hint is not None:
            self.hint = hint

    def __str__(self) -> str:
        """The place where the option was said, where it is known, and the fact."""
        return f"{self.where}: {super().__str__()}" if self.where else super().__str__()


class InvalidValueError(UsernsplanError, ValueError):
    """A value that cannot be: a name, an id, a range or a map that no kernel or reader would take. Exit status 2."""

    exit_status = ExitStatus.WRONG_USAGE
    code = "invalid-value"


class UsageError(InvalidValueError):
    """A command line that no command has: an unknown option, a missing argument. Exit status 2."""

    code = "usage"


class InvalidFileError(UsernsplanError):
    """A file on the host does not say what its format demands. Exit status 1."""

    code = "invalid-file"

    def __init__(self, place: str, fact: str, *, hint: str = "") -> None:
        """``place`` is path:line or path:line:column."""
        super().__init__(f"{place}: {fact}", hint=hint)
        self.place, self.fact = place, fact


class UnknownNameError(UsernsplanError):
    """Nothing is allocated under this name. Exit status 1."""

    code = "unknown-name"
    hint = "'usernsplan list' shows what is allocated"


class LedgerError(UsernsplanError):
    """The ledger cannot be opened, read or written. Exit status 1."""

    code = "ledger"


class DamagedLedgerError(LedgerError):
    """The ledger does not hold what a ledger holds. Exit status 1."""

    code = "damaged-ledger"


class LockBusyError(UsernsplanError):
    """Another program holds a lock that shadow's tools share with us. Exit status 5."""

    exit_status = ExitStatus.LOCKED
    code = "lock-busy"
    hint = "another useradd, usermod or usernsplan is running; try again when it has finished"


class HostChangedError(UsernsplanError):
    """A file is no longer what the plan was made from. Exit status 6."""

    exit_status = ExitStatus.HOST_CHANGED
    code = "host-changed"
    hint = "run the command again: it plans anew from what the host holds now"


class PoolExhaustedError(UsernsplanError):
    """The pool has no room for what was asked. Nothing was allocated. Exit status 7."""

    exit_status = ExitStatus.NO_ROOM
    code = "pool-exhausted"
    hint = "name a larger pool or a smaller size, or release and forget what is no longer used"


class NotPermittedError(UsernsplanError):
    """The system does not let this user read or write a file. Exit status 8."""

    exit_status = ExitStatus.NOT_PERMITTED
    code = "not-permitted"
    hint = "run as root, or work on a tree of your own with --root DIR"


class RefusedError(UsernsplanError):
    """It could be done, and would harm: refused for safety. Exit status 9."""

    exit_status = ExitStatus.REFUSED
    code = "refused"


class StoppedError(UsernsplanError):
    """Somebody asked us to stop, and we did, at a point from which the same words go on. Exit status 130."""

    exit_status = ExitStatus.INTERRUPTED
    code = "interrupted"


@contextmanager
def concerning(allocation: str = "", option: str = "") -> Iterator[None]:
    """Note which allocation, or which option, an error that is raised inside concerns."""
    try:
        yield
    except UsernsplanError as error:
        error.allocation = error.allocation or allocation
        error.option = error.option or option
        raise


@contextmanager
def placed(places: Mapping[str, str]) -> Iterator[None]:
    """Let an error that is raised inside say where the option that it is about was said, by the option's name."""
    try:
        yield
    except UsernsplanError as error:
        error.where = error.where or places.get(error.option, "")
        raise


# What helps where the system fails, by errno.
_REMEDIES = {
    errno.ENOSPC: "make room and run again",
    errno.EDQUOT: "make room, or raise the quota, and run again",
    errno.EIO: "the disk or its file system failed: 'dmesg' may say how; when it works again, run the same words again",
    errno.EMFILE: "raise the limit and run again: ulimit -n 4096",
    errno.ENFILE: "the whole system has too many files open: end what holds them, and run again",
    errno.ENOMEM: "end what takes the memory, and run again",
    errno.ESTALE: "the server of this file system no longer knows it: mount it anew, and run again",
    errno.ENOLCK: "the file system, or its server, has no locks: mount it so that it has, and run again",
    errno.ENOENT: "name one that is there, or put it back in its place",
    errno.ENOTDIR: "name one that is there, or put it back in its place",
    errno.EISDIR: "put, or name, a regular file",
    errno.ENXIO: "put, or name, a regular file",
    errno.EROFS: "mount it writable, or use --root",
}
_ANY_REMEDY = "run the same words again; where it goes on failing, 'dmesg' may say why"
_NO_PROC = "mount it: mount -t proc proc /proc"


def of_system(error: OSError, place: str = "") -> UsernsplanError:
    """What the system failed at, as an error of ours: the place, the reason and what helps."""
    where = line(place or (str(error.filename) if error.filename else "a call of the system"))
    text = f"{where}: {reason_of(error)}"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return NotPermittedError(text)
    kind = NotPermittedError if error.errno == errno.EROFS else UsernsplanError
    is_lost = where.startswith("/proc") and error.errno in {errno.ENOENT, errno.ENOTDIR}
    return kind(text, hint=_NO_PROC if is_lost else _REMEDIES.get(error.errno or 0, _ANY_REMEDY))


@contextmanager
def of_place(place: str) -> Iterator[None]:
    """Turn what the system says into an error that names this place."""
    try:
        yield
    except OSError as error:
        raise of_system(error, place) from error


def reason_of(error: OSError) -> str:
    """What the system says of a failure, to stand in the middle of a message."""
    return (error.strerror or str(error)).lower()


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint that names what is spelled most like ``word``, in upper or lower case; else ``otherwise``."""
    import difflib  # noqa: PLC0415 - only after a mistake

    # The dashes of an option would make every other option look like it.
    folded = {one.casefold().lstrip("-"): one for one in known}
    near = difflib.get_close_matches(word.casefold().lstrip("-"), folded, n=1, cutoff=0.65)
    return f"did you mean {folded[near[0]]}?" if near else otherwise
