"""Every error that usernsplan raises: one class for one kind of trouble, and each class owns its exit status.

A message says the place and the fact; the hint says the remedy. Only the command line turns these into an exit.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class UsernsplanError(Exception):
    """The root of the tree: something could not be done. Exit status 1."""

    exit_status = 1
    hint = ""
    # The allocation and the option that it is about, where it is about one: a plan file then tells the line.
    about = ""
    option = ""
    # What was done before it failed and still holds: an interrupted run that was mended, say.
    notes: tuple[str, ...] = ()

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Take the place and the fact as ``message``; ``hint``, where given, replaces the class's own remedy."""
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class InvalidValueError(UsernsplanError, ValueError):
    """A value that cannot be: a name, an id, a range or a map that no kernel or reader would take. Exit status 2."""

    exit_status = 2


class InvalidFileError(UsernsplanError):
    """A file on the host does not say what its format demands. Exit status 1."""

    def __init__(self, place: str, fact: str, *, hint: str = "") -> None:
        """``place`` is path:line or path:line:column."""
        super().__init__(f"{place}: {fact}", hint=hint)
        self.place, self.fact = place, fact


class UnknownNameError(UsernsplanError):
    """Nothing is allocated under this name. Exit status 1."""

    hint = "'usernsplan list' shows what is allocated"


class LedgerError(UsernsplanError):
    """The ledger cannot be opened, read or written. Exit status 1."""


class DamagedLedgerError(LedgerError):
    """The ledger does not hold what a ledger holds. Exit status 1."""


class LockBusyError(UsernsplanError):
    """Another program holds a lock that shadow's tools share with us. Exit status 5."""

    exit_status = 5
    hint = "another useradd, usermod or usernsplan is running; try again when it has finished"


class HostChangedError(UsernsplanError):
    """A file is no longer what the plan was made from. Exit status 6."""

    exit_status = 6
    hint = "run the command again: it plans anew from what the host holds now"


class PoolExhaustedError(UsernsplanError):
    """The pool has no room for what was asked. Nothing was allocated. Exit status 7."""

    exit_status = 7
    hint = "give a larger --pool, a smaller --size, or release and forget what is no longer used"


class NotPermittedError(UsernsplanError):
    """The system does not let this user read or write a file. Exit status 8."""

    exit_status = 8
    hint = "run as root, or work on a tree of your own with --root DIR"


class RefusedError(UsernsplanError):
    """It could be done, and would harm: refused for safety. Exit status 9."""

    exit_status = 9


class StoppedError(UsernsplanError):
    """Somebody asked us to stop, and we did, at a point from which the same words go on. Exit status 130."""

    exit_status = 130


@contextmanager
def about(name: str = "", option: str = "") -> Iterator[None]:
    """Let an error that is raised inside say which allocation, or which option, it is about."""
    try:
        yield
    except UsernsplanError as error:
        error.about = error.about or name
        error.option = error.option or option
        raise


def reason_of(error: OSError) -> str:
    """What the system says of a failure, to stand in the middle of a message."""
    return (error.strerror or str(error)).lower()
