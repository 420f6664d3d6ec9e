"""The result of a command, as text and as JSON; ``cli.emit`` prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from usernsplan.model import Finding


class Result(NamedTuple):
    """A result: ``text`` makes what a person reads, ``document`` the JSON. Only one is called.

    Each returns a text, or pieces of it as they are found: str is a line, bytes stay as they are.
    ``findings`` and ``notes`` go to standard error after the text; the document contains them.
    """

    text: Callable[[], str | Iterable[str | bytes]]
    document: Callable[[], str | Iterable[str | bytes]]
    findings: Iterable[Finding] = ()
    notes: Iterable[str] = ()
