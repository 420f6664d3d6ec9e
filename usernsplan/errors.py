"""Every error that usernsplan raises. Each class owns its exit status and its code.

A message has the place and the fact; the hint is the remedy. Only the command line exits.
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
    """The exit status of a command: the value is the number, ``meaning`` the text."""

    meaning: str

    DONE = 0, "done"
    FAILED = 1, "failed"
    WRONG_USAGE = 2, "wrong usage"
    DONE_IN_PART = 3, "done in part"
    CHANGES_PENDING = 4, "changes pending (--check)"
    LOCKED = 5, "locked by another program"
    HOST_CHANGED = 6, "the host changed since the plan"
    NO_ROOM = 7, "no room in the pool"
    NOT_PERMITTED = 8, "not permitted"
    REFUSED = 9, "refused for safety"
    UNREACHABLE = 10, "the fleet's ledger cannot be reached"
    INTERRUPTED = 130, "interrupted"

    def __new__(cls, number: int, meaning: str) -> ExitStatus:  # noqa: PYI034 - 3.10 has no Self
        """A number with its meaning."""
        status = int.__new__(cls, number)
        status._value_ = number
        status.meaning = meaning
        return status


# The status after a signal is this plus the signal's number, as in a shell.
BY_SIGNAL = 128


class UsernsplanError(Exception):
    """The base class: the command failed. Exit status 1.

    ``code`` is the error's name for programs (``--json``) and never changes. A subclass may have
    its parent's.
    """

    exit_status: int = ExitStatus.FAILED
    code = "failed"
    hint = ""
    # The allocation that the error concerns; a plan file then shows its line.
    allocation = ""
    # Where the user wrote the option, as it is shown: "--start", or the line and key of a file.
    where = ""
    # What was done before the failure and remains, such as a finished interrupted run.
    notes: tuple[str, ...] = ()
    # The lines of a message about several places. Elsewhere, a line end is part of a name and is
    # shown escaped.
    lines: tuple[str, ...] = ()

    def __init__(
        self, message: str, *, hint: str | None = None, option: str = "", in_file: str = ""
    ) -> None:
        """``message`` is the place and the fact; ``hint`` replaces the remedy of the class.

        A message about an ``option`` does not name it: the command line or the plan file adds it as
        the user wrote it. ``in_file`` is the remedy in a plan file, if that differs.
        """
        super().__init__(message)
        self.option, self.in_file = option, in_file
        if hint is not None:
            self.hint = hint

    def __str__(self) -> str:
        """The message, after the place of the option if that is known."""
        return f"{self.where}: {super().__str__()}" if self.where else super().__str__()


class InvalidValueError(UsernsplanError, ValueError):
    """A name, id, range or map that a kernel or reader would refuse. Exit status 2."""

    exit_status = ExitStatus.WRONG_USAGE
    code = "invalid-value"


class UsageError(InvalidValueError):
    """A wrong command line, such as an unknown option or a missing argument. Exit status 2."""

    code = "usage"


class InvalidFileError(UsernsplanError):
    """A file that does not follow its format. Exit status 1."""

    code = "invalid-file"

    def __init__(self, place: str, fact: str, *, hint: str = "") -> None:
        """``place`` is path:line or path:line:column."""
        super().__init__(f"{place}: {fact}", hint=hint)
        self.place, self.fact = place, fact


class UnknownNameError(UsernsplanError):
    """A name without an allocation. Exit status 1."""

    code = "unknown-name"
    hint = "'usernsplan list' shows what is allocated"


class LedgerError(UsernsplanError):
    """The ledger cannot be opened, read or written. Exit status 1."""

    code = "ledger"


class DamagedLedgerError(LedgerError):
    """The ledger's content is not that of a ledger. Exit status 1."""

    code = "damaged-ledger"


class LedgerUnreachableError(LedgerError):
    """The server with the ledger of the fleet gave no answer. Exit status 10."""

    exit_status = ExitStatus.UNREACHABLE
    code = "ledger-unreachable"
    hint = "run again when the server answers; 'usernsplan ledger status' shows it"


class LockBusyError(UsernsplanError):
    """Another program holds a lock that shadow's tools share with us. Exit status 5."""

    exit_status = ExitStatus.LOCKED
    code = "lock-busy"
    hint = "another useradd, usermod or usernsplan is running; try again when it ends"


class HostChangedError(UsernsplanError):
    """A file changed since the plan was made from it. Exit status 6."""

    exit_status = ExitStatus.HOST_CHANGED
    code = "host-changed"
    hint = "run the command again; it makes a new plan"


class MeanwhileTakenError(HostChangedError):
    """Another host of the fleet took ids that the plan gives out. Exit status 6."""

    code = "meanwhile-taken"


class PoolExhaustedError(UsernsplanError):
    """The pool has no room. Nothing was allocated. Exit status 7."""

    exit_status = ExitStatus.NO_ROOM
    code = "pool-exhausted"
    hint = "use a larger pool or a smaller size, or release and forget unused names"


class NotPermittedError(UsernsplanError):
    """The system does not let this user read or write a file. Exit status 8."""

    exit_status = ExitStatus.NOT_PERMITTED
    code = "not-permitted"
    hint = "run as root, or use --root DIR with a tree of your own"


class RefusedError(UsernsplanError):
    """A change that would do harm, refused for safety. Exit status 9."""

    exit_status = ExitStatus.REFUSED
    code = "refused"


class StoppedError(UsernsplanError):
    """A signal stopped the command; the same command goes on from here. Exit status 130."""

    exit_status = ExitStatus.INTERRUPTED
    code = "interrupted"


class concerning:  # noqa: N801 - it is used like a function
    """Add to errors in the body the allocation, or the option, that they concern.

    A class, because a plan of 10,000 names enters it 60,000 times.
    """

    __slots__ = ("_allocation", "_option")

    def __init__(self, allocation: str = "", option: str = "") -> None:
        self._allocation, self._option = allocation, option

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: object, __: object) -> None:
        if isinstance(error, UsernsplanError):
            error.allocation = error.allocation or self._allocation
            error.option = error.option or self._option


@contextmanager
def placed(places: Mapping[str, str]) -> Iterator[None]:
    """Add to errors in the body where the user wrote their option: ``places`` by option name."""
    try:
        yield
    except UsernsplanError as error:
        error.where = error.where or places.get(error.option, "")
        raise


# Remedies for failures of the system, by errno.
_REMEDIES = {
    errno.ENOSPC: "make room and run again",
    errno.EDQUOT: "make room, or raise the quota, and run again",
    errno.EIO: "the disk or its file system failed; see 'dmesg', and run again after the repair",
    errno.EMFILE: "raise the limit and run again: ulimit -n 4096",
    errno.ENFILE: "the whole system has too many open files: close some and run again",
    errno.ENOMEM: "free some memory and run again",
    errno.ESTALE: "the file server no longer knows this file system: mount it again, and run again",
    errno.ENOLCK: "the file system or its server has no locks: mount it with locks, and run again",
    errno.ENOENT: "use an existing path, or restore this one",
    errno.ENOTDIR: "use an existing path, or restore this one",
    errno.EISDIR: "use a regular file",
    errno.ENXIO: "use a regular file",
    errno.EROFS: "mount it writable, or use --root",
}
_ANY_REMEDY = "run the same command again; if it fails again, 'dmesg' may show why"
_NO_PROC = "mount it: mount -t proc proc /proc"


def of_system(error: OSError, place: str = "") -> UsernsplanError:
    """An OSError as an error of ours, with the place, the reason and the remedy."""
    where = line(place or (str(error.filename) if error.filename else "a system call"))
    text = f"{where}: {reason_of(error)}"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return NotPermittedError(text)
    kind = NotPermittedError if error.errno == errno.EROFS else UsernsplanError
    is_lost = where.startswith("/proc") and error.errno in {errno.ENOENT, errno.ENOTDIR}
    return kind(text, hint=_NO_PROC if is_lost else _REMEDIES.get(error.errno or 0, _ANY_REMEDY))


@contextmanager
def of_place(place: str) -> Iterator[None]:
    """Turn an OSError in the body into an error of ours that names this place."""
    try:
        yield
    except OSError as error:
        raise of_system(error, place) from error


def reason_of(error: OSError) -> str:
    """The reason of an OSError, in lower case for the middle of a message."""
    return (error.strerror or str(error)).lower()


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint with the known word most like ``word``, ignoring case; else ``otherwise``."""
    import difflib  # noqa: PLC0415 - only after a mistake

    # With their dashes, all options would look alike.
    folded = {one.casefold().lstrip("-"): one for one in known}
    near = difflib.get_close_matches(word.casefold().lstrip("-"), folded, n=1, cutoff=0.65)
    return f"did you mean {folded[near[0]]}?" if near else otherwise
