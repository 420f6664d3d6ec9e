"""Options, questions and notes that several commands share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Optional

from usernsplan import escape
from usernsplan.cli import say
from usernsplan.cli.words import Option
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
    Option(
        "--root",
        metavar="DIR",
        help="Work on the tree below DIR, as useradd --prefix. Default: /.",
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Optional[str],
    Option(
        "--config",
        metavar="FILE",
        help="The host's defaults. Default: /etc/usernsplan/config.yaml.",
    ),
]
Json = Annotated[bool, Option("--json", help="Print a JSON document instead of text.")]
DryRun = Annotated[bool, Option("--dry-run", help="Show the changes; write nothing.")]
Yes = Annotated[
    bool,
    Option("--yes", help="Do not ask. A safety refusal still needs its own flag."),
]

Host = Annotated[
    Optional[str],
    Option("--host", metavar="HOST", help="This host of the fleet, as the fleet's ledger has it."),
]
On = Annotated[
    Optional[list[str]],
    Option(
        "--on",
        metavar="HOST,…",
        help="In a fleet: on these hosts, which do it at their next sync (operators).",
    ),
]
Everywhere = Annotated[bool, Option("--everywhere", help="In a fleet: on all hosts, as --on does.")]
OfFleet = Annotated[bool, Option("--fleet", help="All hosts of the fleet.")]


def hosts_of(on: list[str] | None, *, everywhere: bool) -> tuple[str, ...] | None:
    """The hosts of --on; () for all of them, None if neither option was given."""
    if on is None:
        return () if everywhere else None
    if everywhere:
        raise InvalidValueError("--on does not go with --everywhere", hint="leave out one of them")
    found = tuple(name.strip() for one in on for name in one.split(",") if name.strip())
    if not found:
        raise InvalidValueError("--on names no host", hint="such as --on web1,web2")
    return found


def id_range(text: str | None, option: str = "--pool") -> IdRange | None:
    """The range of a text FIRST-LAST. Raises InvalidValueError, which names the option."""
    try:
        return None if text is None else IdRange.parse(text)
    except InvalidValueError as error:
        error.where = option
        raise


def one_of(option: str, value: str | None, *choices: str) -> str | None:
    """Return one of these values, or None. Raises InvalidValueError for any other."""
    if value is not None and value not in choices:
        raise InvalidValueError(
            f"'{value}' is not one of {', '.join(choices)}",
            hint=did_you_mean(value, choices),
            option=option,
        )
    return value


def text_of(option: str, path: str) -> str:
    """The text of an option's file; "-" is standard input. Raises InvalidValueError."""
    try:
        if path != "-":
            raw = files.whole(path, escape.line(path), files.LARGEST, named=True)
        elif sys.stdin is None:
            raise InvalidValueError(f"{option}: standard input is closed", hint="name a file")
        else:
            raw = sys.stdin.buffer.read(files.LARGEST + 1)
        if len(raw) > files.LARGEST:
            raise InvalidValueError(f"{option} {path}: larger than {files.LARGEST} bytes")
        return raw.decode("utf-8-sig")
    except RefusedError as error:
        raise InvalidValueError(str(error), hint="use a file with one name per line") from error
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidValueError):
            raise
        reason = reason_of(error) if isinstance(error, OSError) else "not UTF-8"
        raise InvalidValueError(f"{option} {path}: {reason}") from error


def is_asked() -> bool:
    """Tell whether the command can ask: standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def agreed(question: str) -> bool:
    """Ask on the terminal whether to go on. Raises InvalidValueError without a terminal."""
    if not is_asked():
        raise InvalidValueError("cannot prompt: standard input is not a terminal", hint="use --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    is_agreed = sys.stdin.readline().strip().lower() in {"y", "yes"}
    if not is_agreed:
        say("Nothing was changed.")
    return is_agreed


def typed() -> str:
    """The command line, quoted so that it can be pasted: for the history and for hints."""
    return shell("usernsplan", *sys.argv[1:])


def note(lines: Iterable[str]) -> None:
    """Print notes to standard error, apart from the result."""
    for line in lines:
        say(escape.told(f"note: {line}"))


def new_root(layout: Layout, *, done: bool = False) -> list[str]:
    """A first paragraph if the command creates a new root: a mistyped --root creates one too."""
    what = files.new_root(layout)
    verb = "creates" if done else "would create"
    return [f"{layout.root} {what}: this {verb} a new root"] if what else []


def note_interrupted(ledger: LedgerState) -> None:
    """Note an interrupted run: until it is repaired, the ledger and the files may differ."""
    if ledger.interrupted:
        note([INTERRUPTED])


def warn(findings: Iterable[Finding]) -> None:
    """Print findings to standard error, apart from the result."""
    from usernsplan.report import text  # noqa: PLC0415 - seldom needed

    found = tuple(findings)
    if found:
        say(text.findings(found))
