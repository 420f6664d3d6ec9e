"""What goes to standard output: a result as text or as one JSON document, and an error as one where JSON was wanted."""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

from usernsplan import escape
from usernsplan.errors import (
    BY_SIGNAL,
    ExitStatus,
    StoppedError,
    UsageError,
    UsernsplanError,
    reason_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.report.result import Result

_STILL_CHANGED = "what the command changed is changed all the same: 'usernsplan history' tells"
# Not empty once standard output has something: a second document would make both unreadable.
_printed: list[bool] = []


def begin() -> None:
    """Forget what an earlier command of this process printed."""
    _printed.clear()


def emit(result: Result, *, as_json: bool) -> None:
    """Print a result: as a document, or as text, with its findings and notes on standard error."""
    from usernsplan.cli.options import note, warn  # noqa: PLC0415 - errors are printed without options

    write(result.document() if as_json else result.text())
    if not as_json:
        warn(result.findings)
        note(result.notes)


def failed(error: UsernsplanError, words: Sequence[str]) -> None:
    """Print an error as a document where these words ask for JSON, unless standard output has something already."""
    if _printed or not wants_json(words):
        return
    # The exit status and the text on standard error tell, even where this cannot be printed.
    with suppress(UsernsplanError, ImportError, MemoryError):
        from usernsplan.cli.refusal import is_due  # noqa: PLC0415 - what is read here may be broken
        from usernsplan.report import json_  # noqa: PLC0415

        if not is_due(words):
            write(json_.document("error", error=json_.error_fields(error)))


def ended(request: SystemExit, words: Sequence[str]) -> None:
    """The same for a command that ended with a status: typer's wrong usage, a signal, a question that was denied."""
    status = request.code if isinstance(request.code, int) else int(ExitStatus.FAILED)
    if request.code is None or status == ExitStatus.DONE:
        return

    # What click complains of, it shows itself, and exits.
    usage = getattr(request.__context__, "format_message", None)
    error: UsernsplanError
    if usage:
        error = UsageError(usage())
    elif status > BY_SIGNAL:
        error = StoppedError("stopped by a signal")
    else:
        error = UsernsplanError("nothing was changed: the question was not answered with yes")
        error.code = "declined"
    error.exit_status = status
    failed(error, words)


def wants_json(words: Sequence[str]) -> bool:
    """Tell whether the words that were typed ask for JSON, also where nobody could parse them. Pure."""
    options = words[: words.index("--")] if "--" in words else words
    is_format = "--format=json" in options or ("--format", "json") in pairwise(options)
    return "--json" in options or (options[:1] == ["check"] and is_format)


def colours() -> bool:
    """Tell whether somebody looks who wants colours: a terminal, and no NO_COLOR (https://no-color.org)."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write(output: str | Iterable[str | bytes]) -> None:
    """Print a result, or its pieces as they come: a line for each text, and bytes as they are.

    A full disk is an error that does not hide what was done; a reader who left wants no more.
    """
    _printed.append(True)
    pieces = (output,) if isinstance(output, str) else output
    if sys.stdout is None:  # closed: nobody wants it, and the search still tells by its exit status
        deque(pieces, maxlen=0)
        return

    # Only whole texts have colours of ours.
    is_whole = isinstance(output, str)
    is_coloured = is_whole and colours()
    try:
        for piece in pieces:
            if isinstance(piece, bytes):
                sys.stdout.buffer.write(piece)
            else:
                sys.stdout.write(f"{escape.lines(piece, colours=is_coloured)}\n")
        sys.stdout.flush()
    except OSError as error:
        # Python would try once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            raise UsernsplanError(
                f"the result could not be printed: {reason_of(error)}",
                hint=_STILL_CHANGED if is_whole else "",
            ) from error
