"""What a command found or did, for both of its readers; ``cli.emit`` prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from usernsplan.model import Finding


class Result(NamedTuple):
    """A result: ``text`` makes what a person reads, ``document`` what a program reads. Only one of them is called.

    Each returns a text, or pieces of it as they are found: a line each, bytes as they are. ``findings`` and ``notes``
    go to standard error beside the text; the document has them itself.
    """

    text: Callable[[], str | Iterable[str | bytes]]
    document: Callable[[], str | Iterable[str | bytes]]
    findings: Iterable[Finding] = ()
    notes: Iterable[str] = ()
