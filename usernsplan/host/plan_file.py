"""The files that are meant when none is named: the plan file, and the defaults of the host."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.errors import InvalidValueError, RefusedError, of_system, reason_of
from usernsplan.escape import line, shell
from usernsplan.host import files, trust
from usernsplan.layout import CONFIG_FILE, PLAN_FILE

if TYPE_CHECKING:
    from collections.abc import Callable

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
    is_meant = "name the file ('usernsplan apply FILE') if it is meant, or work in another folder"
    shown = layout.path(PLAN_FILE)
    return (_found(f"./{HERE}", _here, is_meant) if here else None) or _found(
        shown, lambda: trust.place(layout.real or "/", PLAN_FILE), is_meant
    )


def find_config(layout: Layout) -> FoundFile | None:
    """The defaults of a host, config.yaml below /etc of the root; None where there is none.

    Raises RefusedError for one that somebody else than root may have written; below another root, its
    owner may, too.
    """
    shown, top = layout.path(CONFIG_FILE), layout.real or "/"
    mend = f"chown root: {shell(shown)} && chmod go-w {shell(shown)}"

    def look() -> trust.Place:
        owner = 0 if layout.is_host else os.stat(top).st_uid
        return trust.place(top, CONFIG_FILE, frozenset({0, owner}))

    return _found(shown, look, f"let root alone write it, and the folders it lies in: {mend}")


def named(path: str, most: int = files.LARGEST) -> bytes:
    """The bytes of a file that somebody named, up to one more than ``most``; "-" is standard input.

    Raises InvalidValueError where it cannot be read.
    """
    shown = line(path)
    try:
        if path == "-":
            if sys.stdin is None:
                raise InvalidValueError("standard input is closed", hint="name a file")
            return sys.stdin.buffer.read(most + 1)
        return files.whole(path, shown, named=True)
    except RefusedError as error:
        # What was named is not what it has to be: that is no danger, but a mistake.
        raise InvalidValueError(
            f"{shown}: {str(error).removeprefix(shown).strip()}", hint=error.hint
        ) from error
    except OSError as error:
        raise InvalidValueError(
            f"{shown}: {reason_of(error)}", hint=of_system(error, shown).hint
        ) from error


def is_here() -> bool:
    """Tell whether there is a plan file in this folder."""
    return os.path.lexists(HERE)


def _found(shown: str, look: Callable[[], trust.Place], remedy: str) -> FoundFile | None:
    try:
        place = look()
        if place.doubt:
            raise RefusedError(
                f"{line(shown)}: {line(place.doubt)}: others may have written it, or put it there",
                hint=remedy,
            )
        raw = files.whole(place.path, line(shown))
        return FoundFile(place.path if shown.startswith("/") else shown.removeprefix("./"), raw)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise of_system(error, line(shown)) from error


def _here() -> trust.Place:
    """The file of this folder, by its whole name. Raises RefusedError where that is another folder's."""
    os.lstat(HERE)  # where there is none, the folders above it are nobody's concern
    folder = os.getcwd()
    if not os.path.samefile(folder, "."):
        raise RefusedError(
            f"./{HERE}: {line(folder)} is another folder by now", hint="enter the folder again"
        )
    return trust.place("/", f"{folder}/{HERE}")
