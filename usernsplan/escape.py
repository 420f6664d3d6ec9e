"""Text that others wrote, as it leaves us: nothing in it moves a cursor, hides, turns letters or begins a line. Pure.

Each way out has its function: ``lines`` a terminal, ``told`` a message on it, ``line`` a log or a cell, ``command`` a
shell. JSON has escapes of its own, and is ASCII.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# A line of ours goes on in one with two blanks in front.
_FORGED = re.compile(r"\n(?!  )")
# What a runner of GitHub takes for its commands, blanks in front or not, and this one wherever it stands.
_COMMAND = re.compile(r"(?m)^([ \t]*):(?=:)|(#)#(?=\[)")
# What report.colour.Paint writes.
_PAINT = re.compile(r"(\x1b\[(?:[0-2]|3[1-6])m)")
_LINES = re.compile(r"[^\n\t]+")
_ODD = re.compile(r"[^\n\t -~]")


def line(text: str) -> str:
    r"""On one line: controls, line ends, marks of direction and bytes that are no UTF-8 are spelt, as \x1b."""
    return text if text.isprintable() else "".join(map(_character, text))


def lines(text: str, *, colours: bool = False) -> str:
    """The same with its lines and tabs as they are; ``colours`` lets those of ours pass."""
    if not _ODD.search(text):
        return text
    if colours and "\x1b" in text:
        # Every second piece is a colour.
        pieces = _PAINT.split(text)
        return "".join(piece if number % 2 else lines(piece) for number, piece in enumerate(pieces))
    return _LINES.sub(lambda match: line(match[0]), text)


def told(text: str) -> str:
    """A message of ours with names in it: only its own lines begin where lines begin."""
    return lines(_FORGED.sub(r"\\n", text))


def indented(text: str) -> str:
    """What another program said, as a part of a message of ours."""
    return "\n  ".join(filter(None, map(str.strip, text.splitlines())))


def no_result(text: str) -> str:
    """What goes to standard error, where a runner of GitHub looks for commands too and none of ours is."""
    return _COMMAND.sub(lambda match: match[1] + r"\x3a" if match[2] is None else r"#\x23", lines(text))


def shell(word: str) -> str:
    """A word for a shell, on one line: what cannot be printed is written as bash, zsh and POSIX of 2024 read it."""
    if word.isprintable():
        return shlex.quote(word)
    return f"$'{''.join(map(_quoted, word))}'"


def command(words: Iterable[str]) -> str:
    """A command for a shell, on one line."""
    return " ".join(map(shell, words))


def _character(it: str) -> str:
    return it if it.isprintable() else it.encode("unicode_escape").decode()


def _quoted(it: str) -> str:
    if it in {"\\", "'"}:
        return f"\\{it}"
    if it.isprintable():
        return it
    errors = "surrogateescape" if "\udc80" <= it <= "\udcff" else "surrogatepass"
    # Always three digits: what follows may be one.
    return "".join(f"\\{byte:03o}" for byte in it.encode("utf-8", errors))
