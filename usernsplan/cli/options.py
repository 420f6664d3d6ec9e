"""Options that several commands share, and the ways of printing that they choose between."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from usernsplan import escape
from usernsplan.cli import say
from usernsplan.errors import (
    InvalidValueError,
    RefusedError,
    did_you_mean,
    reason_of,
)
from usernsplan.escape import shell
from usernsplan.host import files
from usernsplan.ids import IdRange
from usernsplan.model import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.layout import Layout
    from usernsplan.model import Finding, LedgerState

Root = Annotated[
    str,
    typer.Option(
        "--root",
        metavar="DIR",
        help="Work on the tree at DIR, as useradd --prefix does. Default: /.",
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Optional[str],
    typer.Option(
        "--config",
        metavar="FILE",
        help="Defaults of this host. Default: /etc/usernsplan/config.yaml, where it exists.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON document instead of text.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes", help="I have read the question. What is refused for safety has a flag of its own."
    ),
]


def id_range(text: str | None, option: str = "--pool") -> IdRange | None:
    """Read FIRST-LAST."""
    try:
        return None if text is None else IdRange.parse(text)
    except InvalidValueError as error:
        error.where = option
        raise


def one_of(option: str, value: str | None, *choices: str) -> str | None:
    """Hand back one of these values, or None. Raises InvalidValueError for any other."""
    if value is not None and value not in choices:
        raise InvalidValueError(
            f"'{value}' is none of {', '.join(choices)}",
            hint=did_you_mean(value, choices),
            option=option,
        )
    return value


def text_of(option: str, path: str) -> str:
    """What a file says that an option names; "-" is standard input. Raises InvalidValueError."""
    try:
        if path != "-":
            raw = files.whole(path, escape.line(path), files.LARGEST, named=True)
        elif sys.stdin is None:
            raise InvalidValueError(f"{option}: standard input is closed", hint="name a file")
        else:
            raw = sys.stdin.buffer.read(files.LARGEST + 1)
        if len(raw) > files.LARGEST:
            raise InvalidValueError(f"{option} {path}: more than {files.LARGEST} bytes")
        return raw.decode("utf-8-sig")
    except RefusedError as error:
        raise InvalidValueError(str(error), hint="name a file with one name a line") from error
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidValueError):
            raise
        reason = reason_of(error) if isinstance(error, OSError) else "not UTF-8"
        raise InvalidValueError(f"{option} {path}: {reason}") from error


def is_asked() -> bool:
    """Tell whether somebody is there who can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def agreed(question: str) -> bool:
    """Ask on the terminal whether to go on. Raises InvalidValueError where nobody is there."""
    if not is_asked():
        raise InvalidValueError(
            "nobody is there to be asked: standard input is no terminal", hint="say --yes"
        )
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    is_agreed = sys.stdin.readline().strip().lower() in {"y", "yes"}
    if not is_agreed:
        say("Nothing was changed.")
    return is_agreed


def typed() -> str:
    """The words as they were typed, to be typed again: for the history, and for hints."""
    return shell("usernsplan", *sys.argv[1:])


def note(lines: Iterable[str]) -> None:
    """Print what is not part of a result where it does not mix with it."""
    for line in lines:
        say(escape.told(f"note: {line}"))


def new_root(layout: Layout, *, done: bool = False) -> list[str]:
    """What is to be said first where a whole tree comes to be: a name that was mistyped makes one, too."""
    what = files.new_root(layout)
    is_now = "a new root is made there" if done else "a new root would be made there"
    return [f"{layout.root} {what}: {is_now}"] if what else []


def note_interrupted(ledger: LedgerState) -> None:
    """Say that a run was killed: what the ledger holds and what the files say may differ until it is mended."""
    if ledger.interrupted:
        note([INTERRUPTED])


def warn(findings: Iterable[Finding]) -> None:
    """Print findings where they do not mix with results."""
    from usernsplan.report import text  # noqa: PLC0415 - only where something is to be said

    found = tuple(findings)
    if found:
        say(text.findings(found))
