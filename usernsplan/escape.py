"""Text that others wrote, as it leaves us: nothing in it moves a cursor, hides, turns letters or begins a line. Pure.

Each way out has its function: ``lines`` a terminal, ``told`` a message on it, ``line`` a log or a cell, ``shell`` a
shell. JSON has escapes of its own, and is ASCII.
"""

from __future__ import annotations

import os
import re
import shlex
import string

# A line of ours goes on in one with two blanks in front.
_FORGED = re.compile(r"\n(?!  )")
# What a runner of GitHub takes for its commands, blanks in front or not, and this one wherever it stands.
_COMMAND = re.compile(r"(?m)^([ \t]*):(?=:)|(#)#(?=\[)")
# What report.colour.Paint writes.
_PAINT = re.compile(r"(\x1b\[(?:[0-2]|3[1-6])m)")
_LINES = re.compile(r"[^\n\t]+")
_ODD = re.compile(r"[^\n\t -~]")
# What neither a shell in quotes nor printf(1) has a use for; to that a word that begins with a dash is an option.
_PLAIN = frozenset(string.ascii_letters + string.digits + "/._+=:,@ ")


def line(text: str) -> str:
    r"""On one line: controls, line ends, marks of direction and bytes that are no UTF-8 are spelt, as \x1b."""
    return text if text.isprintable() else "".join(map(_character, text))


def shown_path(path: str) -> str:
    r"""A path on one line of a terminal, whatever bytes it has; in quotes where it is not plain.

    >>> shown_path("/srv/web")
    '/srv/web'
    >>> print(shown_path("/srv/a\nb"))
    '/srv/a\nb'
    """
    return path if path.isprintable() else repr(path)


def file_line(raw: bytes) -> str:
    r"""One line of a file, as a part of a message: bytes that are not UTF-8 are spelt.

    >>> print(file_line(b"web\xff:100000:65536\n"))
    web\xff:100000:65536
    """
    return raw.decode("utf-8", "backslashreplace").strip()


def utf8(text: str) -> str:
    r"""Text as JSON, the ledger and the log can hold it: bytes that are not UTF-8 are spelt.

    >>> print(utf8("caf\udce9"))
    caf\udce9
    """
    # Not surrogateescape, which fails at half of a surrogate pair: JSON that others wrote may have one.
    return text.encode("utf-8", "backslashreplace").decode()


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
    return _COMMAND.sub(
        lambda match: match[1] + r"\x3a" if match[2] is None else r"#\x23", lines(text)
    )


def operand(path: str) -> str:
    """A path as a word that is no option of a program."""
    return _quoted(f"./{path}" if path.startswith("-") else path)


def shell(*words: str) -> str:
    """A command of these words, or a part of one, to be pasted."""
    return " ".join(map(_quoted, words))


def in_words(command: str) -> str:
    """A command inside a sentence: in quotes, but where it has some itself.

    Whoever pastes ours with it would end its own there, and what they keep from being obeyed would be obeyed.
    """
    return command if set(command) & set("'\"`\\") else f"'{command}'"


def _character(it: str) -> str:
    return it if it.isprintable() else it.encode("unicode_escape").decode()


def _quoted(word: str) -> str:
    """One word of a command that is printed, as every POSIX shell reads it back: nothing in it is obeyed.

    What a terminal would obey, or a line would end at, is written as octal digits: it stays one line of plain text.
    """
    if word.isprintable():
        return shlex.quote(word)
    # The shell takes newlines from the end of what a command prints.
    inner = word.rstrip("\n")
    octal = "".join(
        chr(byte) if chr(byte) in _PLAIN else f"\\{byte:03o}" for byte in os.fsencode(inner)
    )
    return f"\"`printf '{octal}'`\"" + ("'" + word[len(inner) :] + "'" if inner != word else "")
