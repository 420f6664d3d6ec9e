"""The plan file that a command uses if none is named."""

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
    """A plan file and its bytes. Use these bytes: the file may change after the check."""

    path: str
    raw: bytes


def find(layout: Layout, *, here: bool = True) -> FoundFile | None:
    """The plan file of this folder (with ``here``), or the one below /etc of the root, or None.

    Raises RefusedError if another user may have written it, because its content would be carried
    out in our name. A plan file that the user names is not checked like this.
    """
    return (_found(layout, f"./{HERE}") if here else None) or _found(layout, layout.path(PLAN_FILE))


def is_here() -> bool:
    """Tell whether this folder has a plan file."""
    return os.path.lexists(HERE)


def _found(layout: Layout, shown: str) -> FoundFile | None:
    is_here = shown == f"./{HERE}"
    try:
        place = trust.place("/", _here()) if is_here else trust.place(layout.real or "/", PLAN_FILE)
        if place.doubt:
            raise RefusedError(
                f"{line(shown)}: {line(place.doubt)}: another user may have written or placed it",
                hint="name the file if you trust it ('usernsplan apply FILE'), "
                "or work in another folder",
            )
        return FoundFile(HERE if is_here else place.path, files.whole(place.path, line(shown)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise of_system(error, line(shown)) from error


def _here() -> str:
    """The absolute path of the plan file in this folder.

    Raises FileNotFoundError if there is none, and RefusedError if the path leads to another folder.
    """
    os.lstat(HERE)  # without a plan file the folders above need no check
    folder = os.getcwd()
    if not os.path.samefile(folder, "."):
        raise RefusedError(
            f"./{HERE}: {line(folder)} is now another folder", hint="enter the folder again"
        )
    return f"{folder}/{HERE}"
