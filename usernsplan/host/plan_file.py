"""The plan file that is meant when none is named."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.errors import RefusedError, of_place, of_system
from usernsplan.host import files, procfs
from usernsplan.layout import PLAN_FILE

if TYPE_CHECKING:
    from usernsplan.layout import Layout

HERE = "usernsplan.yaml"


class Found(NamedTuple):
    """A plan file, and its bytes: what was looked at is what is read, whoever exchanges the file."""

    path: str
    raw: bytes


def find(layout: Layout) -> Found | None:
    """The plan file of this folder, or below /etc of the root; None where there is none.

    Raises RefusedError for one that somebody else may have written: what it says would be done in our name.
    """
    etc = files.real(layout, PLAN_FILE, follow=True)
    for path, shown in ((HERE, f"./{HERE}"), (etc, layout.path(PLAN_FILE))):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise of_system(error, shown) from error
        try:
            with of_place(shown):
                _refuse_foreign(os.fstat(descriptor), shown)
                with open(descriptor, "rb", closefd=False) as file:
                    return Found(path, file.read())
        finally:
            os.close(descriptor)
    return None


def _refuse_foreign(seen: os.stat_result, shown: str) -> None:
    actor, mode = procfs.actor(), stat.S_IMODE(seen.st_mode)
    if not stat.S_ISREG(seen.st_mode):
        raise RefusedError(
            f"{shown} is not a regular file", hint="name the file that is meant: 'usernsplan apply FILE'"
        )
    if seen.st_uid not in {0, actor.uid, actor.sudo_uid} or mode & stat.S_IWOTH:
        raise RefusedError(
            f"{shown} belongs to uid {seen.st_uid} with mode {mode:o}: others may have written it",
            hint="name the file ('usernsplan apply FILE') if it is meant, or work in another folder",
        )
