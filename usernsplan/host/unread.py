"""What could not be read: an error ends the command, or is noted and the command goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from usernsplan.errors import NotPermittedError, UsernsplanError
from usernsplan.host import procfs
from usernsplan.layout import USERDB
from usernsplan.model import Unseen
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# linux/capability.h: with it, no mode of a file keeps a process out.
_DAC_OVERRIDE = 1


class Unread(NamedTuple):
    """A file or folder (its name below the root) that could not be read, and the error."""

    path: str
    error: UsernsplanError


# What to do with the error of a file or folder: raise it, or note it and return.
Miss = Callable[[str, UsernsplanError], None]


def fail(path: str, error: UsernsplanError) -> None:  # noqa: ARG001 - a Miss
    """Raise the error: a decision must not be made without the file."""
    raise error


@contextmanager
def missing(path: str, miss: Miss) -> Iterator[None]:
    """Give an error in the body to ``miss``, as that of this file or folder."""
    try:
        yield
    except UsernsplanError as error:
        miss(path, error)


def is_closed(error: UsernsplanError) -> bool:
    """Tell whether only the rights of this user are in the way, so that root could read the file."""
    return isinstance(error, NotPermittedError) and not procfs.has_capability(_DAC_OVERRIDE)


def unseen_at(path: str, error: UsernsplanError) -> Unseen:
    """The note about a file or folder of others that could not be read."""
    what = "accounts" if path == USERDB else "ids that are used"
    return Unseen(path, f"{error}: the {what} there are unknown")


def homes_unseen(missed: Sequence[Unread]) -> tuple[str, ...]:
    """The note about homes that could not be looked at; there may be thousands."""
    if not missed:
        return ()
    others = f", and in {len(missed) - 1} more homes" if missed[1:] else ""
    return (f"{missed[0].error}: containers there are unknown{others}",)
