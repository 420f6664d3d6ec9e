"""Standard output: a result as text or as a JSON document, and an error as a JSON document."""

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

    from usernsplan.ledger import Ledger
    from usernsplan.report.result import Result

_STILL_CHANGED = "the changes of this command remain; 'usernsplan history' shows them"
# Not empty after the first output: a second document would make both unreadable.
_printed: list[bool] = []


def begin() -> None:
    """Forget what an earlier command of this process printed."""
    _printed.clear()


def emit(result: Result, *, as_json: bool, of: Ledger | None = None) -> None:
    """Print a result: a JSON document, or text with findings and notes on standard error.

    ``of`` is the ledger that it shows: where that of a fleet gives no answer, this is said.
    """
    from usernsplan.cli.options import note, warn  # noqa: PLC0415 - errors need no typer

    if away := of.away() if of else None:
        from usernsplan.report import away as report  # noqa: PLC0415 - seldom needed
        from usernsplan.report import json_  # noqa: PLC0415

        note([report.words(away)])
        with json_.besides(fleet=report.fields(away)):
            _print(result, as_json=as_json)
    else:
        _print(result, as_json=as_json)
    if not as_json:
        warn(result.findings)
        note(result.notes)


def _print(result: Result, *, as_json: bool) -> None:
    write(result.document() if as_json else result.text())


def failed(error: UsernsplanError, argv: Sequence[str]) -> None:
    """Print an error as a JSON document if ``argv`` asks for JSON and nothing was printed yet."""
    if _printed or not wants_json(argv):
        return
    # If this fails too, the exit status and the text on standard error remain.
    with suppress(UsernsplanError, ImportError, MemoryError):
        from usernsplan.cli.refusal import is_due  # noqa: PLC0415 - these modules may be broken
        from usernsplan.report import json_  # noqa: PLC0415

        if not is_due(argv):
            write(json_.document("error", error=json_.error_fields(error)))


def ended(request: SystemExit, argv: Sequence[str]) -> None:
    """Do the same after a status: wrong usage, a signal, a declined question."""
    status = request.code if isinstance(request.code, int) else int(ExitStatus.FAILED)
    if request.code is None or status == ExitStatus.DONE:
        return

    # Click has already printed its own usage errors.
    usage = getattr(request.__context__, "format_message", None)
    error: UsernsplanError
    if usage:
        error = UsageError(usage())
    elif status > BY_SIGNAL:
        error = StoppedError("stopped by a signal")
    else:
        error = UsernsplanError("nothing was changed: the answer was not yes")
        error.code = "declined"
    error.exit_status = status
    failed(error, argv)


def wants_json(argv: Sequence[str]) -> bool:
    """Tell whether the command line asks for JSON, even if it does not parse. Pure."""
    options = argv[: argv.index("--")] if "--" in argv else argv
    is_format = "--format=json" in options or ("--format", "json") in pairwise(options)
    return "--json" in options or (options[:1] == ["check"] and is_format)


def colours() -> bool:
    """Tell whether to use colours: a terminal, and no NO_COLOR (https://no-color.org)."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write(output: str | Iterable[str | bytes]) -> None:
    """Print a result, or its pieces as they come: each text as a line, bytes unchanged.

    A full disk is an error. A closed pipe is not: its reader wants no more.
    """
    _printed.append(True)
    pieces = (output,) if isinstance(output, str) else output
    if sys.stdout is None:  # closed: still run the search, for its exit status
        deque(pieces, maxlen=0)
        return

    # Pieces have no colours of ours: an escape sequence in them belongs to a file name.
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
        # Python flushes again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            raise UsernsplanError(
                f"cannot print the result: {reason_of(error)}",
                hint=_STILL_CHANGED if is_whole else "",
            ) from error
