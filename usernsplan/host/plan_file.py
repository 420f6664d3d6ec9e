"""The files that a command uses if none is named: the plan file, and the defaults of the host."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidValueError, RefusedError, of_system, reason_of
from usernsplan.escape import line, shell
from usernsplan.host import files, trust
from usernsplan.layout import CONFIG_FILE, PLAN_FILE
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

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
    is_meant = "name the file if you trust it ('usernsplan apply FILE'), or work in another folder"
    shown = layout.path(PLAN_FILE)
    return (_found(f"./{HERE}", _here, is_meant) if here else None) or _found(
        shown, lambda: trust.place(layout.real or "/", PLAN_FILE), is_meant
    )


def find_config(layout: Layout) -> FoundFile | None:
    """The defaults of a host: config.yaml below /etc of the root, or None.

    Raises RefusedError if a user other than root may have written it. Below another root its owner
    may write it, too.
    """
    shown, top = layout.path(CONFIG_FILE), layout.real or "/"
    mend = f"chown root: {shell(shown)} && chmod go-w {shell(shown)}"

    def look() -> trust.Place:
        owner = 0 if layout.is_host else os.stat(top).st_uid
        return trust.place(top, CONFIG_FILE, frozenset({0, owner}))

    return _found(shown, look, f"make it, and the folders above it, writable for root only: {mend}")


def named(path: str, most: int = files.LARGEST) -> bytes:
    """The bytes of a file that the user named, up to one more than ``most``; "-" is standard input.

    Raises InvalidValueError if it cannot be read.
    """
    shown = line(path)
    try:
        if path == "-":
            if sys.stdin is None:
                raise InvalidValueError("standard input is closed", hint="name a file")
            return sys.stdin.buffer.read(most + 1)
        return files.whole(path, shown, named=True)
    except RefusedError as error:
        # A named file of the wrong kind is a mistake of the user, not a danger.
        raise InvalidValueError(
            f"{shown}: {str(error).removeprefix(shown).strip()}", hint=error.hint
        ) from error
    except OSError as error:
        raise InvalidValueError(
            f"{shown}: {reason_of(error)}", hint=of_system(error, shown).hint
        ) from error


def is_here() -> bool:
    """Tell whether this folder has a plan file."""
    return os.path.lexists(HERE)


def _found(shown: str, look: Callable[[], trust.Place], remedy: str) -> FoundFile | None:
    try:
        place = look()
        if place.doubt:
            raise RefusedError(
                f"{line(shown)}: {line(place.doubt)}: another user may have written or placed it",
                hint=remedy,
            )
        raw = files.whole(place.path, line(shown))
        return FoundFile(place.path if shown.startswith("/") else shown.removeprefix("./"), raw)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise of_system(error, line(shown)) from error


def _here() -> trust.Place:
    """The plan file of this folder, followed by its absolute path.

    Raises FileNotFoundError if there is none, and RefusedError if the path leads to another folder.
    """
    os.lstat(HERE)  # without a plan file the folders above need no check
    folder = os.getcwd()
    if not os.path.samefile(folder, "."):
        raise RefusedError(
            f"./{HERE}: {line(folder)} is now another folder", hint="enter the folder again"
        )
    return trust.place("/", f"{folder}/{HERE}")
