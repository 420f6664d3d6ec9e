"""The plan file that is meant when none is named."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.errors import RefusedError, of_system
from usernsplan.escape import line
from usernsplan.host import files, trust
from usernsplan.layout import PLAN_FILE

if TYPE_CHECKING:
    from usernsplan.layout import Layout

HERE = "usernsplan.yaml"


class FoundFile(NamedTuple):
    """A plan file, and its bytes: what was looked at is what is read, whoever exchanges the file."""

    path: str
    raw: bytes


def find(layout: Layout, *, here: bool = True) -> FoundFile | None:
    """The plan file of this folder (with ``here``), or below /etc of the root; None where there is none.

    Raises RefusedError for one that somebody else may have written: what it says would be done in our name. One that
    is named is not looked at so: whoever names it means it.
    """
    return (_found(layout, f"./{HERE}") if here else None) or _found(layout, layout.path(PLAN_FILE))


def is_here() -> bool:
    """Tell whether there is a plan file in this folder."""
    return os.path.lexists(HERE)


def _found(layout: Layout, shown: str) -> FoundFile | None:
    is_here = shown == f"./{HERE}"
    try:
        place = trust.place("/", _here()) if is_here else trust.place(layout.real or "/", PLAN_FILE)
        if place.doubt:
            raise RefusedError(
                f"{line(shown)}: {line(place.doubt)}: others may have written it, or put it there",
                hint="name the file ('usernsplan apply FILE') if it is meant, or work in another folder",
            )
        return FoundFile(HERE if is_here else place.path, files.whole(place.path, line(shown)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise of_system(error, line(shown)) from error


def _here() -> str:
    """The file of this folder, by its whole name. Raises RefusedError where that is another folder's."""
    os.lstat(HERE)  # where there is none, the folders above it are nobody's concern
    folder = os.getcwd()
    if not os.path.samefile(folder, "."):
        raise RefusedError(
            f"./{HERE}: {line(folder)} is another folder by now", hint="enter the folder again"
        )
    return f"{folder}/{HERE}"
