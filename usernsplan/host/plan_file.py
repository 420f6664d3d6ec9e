"""Where the plan file lies that is meant when none is named."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError
from usernsplan.host import files, procfs
from usernsplan.layout import PLAN_FILE

if TYPE_CHECKING:
    from usernsplan.layout import Layout

HERE = "usernsplan.yaml"


def find(layout: Layout) -> str | None:
    """The plan file of this folder, or below /etc of the root; None where there is none.

    Raises RefusedError for one that somebody else may have written: what it says would be done in our name.
    """
    etc = files.real(layout, PLAN_FILE, follow=True)
    for path, shown in ((HERE, f"./{HERE}"), (etc, layout.path(PLAN_FILE))):
        try:
            found = os.stat(path)
        except OSError:
            continue
        actor, mode = procfs.actor(), stat.S_IMODE(found.st_mode)
        if found.st_uid not in {0, actor.uid, actor.sudo_uid} or mode & stat.S_IWOTH:
            raise RefusedError(
                f"{shown} belongs to uid {found.st_uid} with mode {mode:o}: others may have written it",
                hint="name the file ('usernsplan apply FILE') if it is meant, or work in another folder",
            )
        return path
    return None
