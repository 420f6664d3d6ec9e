"""Options that several commands share, and the ways of printing that they choose between."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from usernsplan.errors import InvalidValueError
from usernsplan.ids import IdRange

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.model import Finding

Root = Annotated[
    str, typer.Option("--root", metavar="DIR", help="Work on the tree at DIR, as useradd --prefix does. Nothing else.")
]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON document instead of text.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do what would otherwise be refused, as the refusal explains.")]


def id_range(text: str | None) -> IdRange | None:
    """Read FIRST-LAST."""
    try:
        return None if text is None else IdRange.parse(text)
    except InvalidValueError as error:
        raise InvalidValueError(f"--pool: {error}", hint=error.hint) from error


def show(output: str) -> None:
    """Print a result."""
    print(output)


def note(lines: Iterable[str]) -> None:
    """Print what is not part of a result where it does not mix with it."""
    sys.stdout.flush()
    for line in lines:
        print(f"note: {line}", file=sys.stderr)


def warn(findings: Iterable[Finding]) -> None:
    """Print findings where they do not mix with results."""
    from usernsplan.report import text  # noqa: PLC0415 - only where something is to be said

    found = tuple(findings)
    if found:
        sys.stdout.flush()
        print(text.findings(found), file=sys.stderr)
