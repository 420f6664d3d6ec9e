"""Write a file that the user named: whole or not at all."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from usernsplan.errors import NotPermittedError, UsernsplanError, reason_of
from usernsplan.report.text import shown_path


def write(path: str, content: bytes) -> None:
    """Put the content at ``path``; a regular file is replaced, and keeps its mode; a device or a pipe is written to.

    Raises NotPermittedError or UsernsplanError with what the system says; then an old file is as it was.
    """
    try:
        _write(os.path.realpath(path), content)
    except PermissionError as error:
        hint = "name a file in a folder of your own"
        raise NotPermittedError(f"{shown_path(path)}: {reason_of(error)}", hint=hint) from error
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise UsernsplanError(f"{shown_path(path)}: {reason}") from error


def _write(path: str, content: bytes) -> None:
    old = None
    with suppress(FileNotFoundError):
        old = os.stat(path)
    if old and not stat.S_ISREG(old.st_mode):
        # /dev/stdout, say, or a folder: that is an error of open's.
        with open(path, "wb", buffering=0) as file:
            file.write(content)
        return
    temporary = f"{path}.{os.getpid()}.new"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            if old:
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
