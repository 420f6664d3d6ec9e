"""Make text of others safe to show: it cannot move the cursor, hide, turn letters or begin a line.

One function per destination: ``lines`` for a terminal, ``told`` for a message on it, ``line`` for a
log or a table cell, ``shell`` for a shell. JSON needs none: it has its own escapes and is ASCII.
Pure.
"""

from __future__ import annotations

import os

from usernsplan.patterns import pattern

# Our messages continue a line only with two blanks at the start of the next one. Any other line end
# comes from text of others.
_FORGED = pattern(r"\n(?!  )")
# The commands of a GitHub Actions runner: "::" at the start of a line, even after blanks, and "##["
# anywhere.
_COMMAND = pattern(r"(?m)^([ \t]*):(?=:)|(#)#(?=\[)")
# The colours that report.colour.Paint writes.
_PAINT = pattern(r"(\x1b\[(?:[0-2]|3[1-6])m)")
_LINES = pattern(r"[^\n\t]+")
# Characters without a meaning to printf(1) or to a shell in quotes. The dash is missing because
# printf would take a word that begins with one for an option.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+=:,@ ")


def line(text: str) -> str:
    r"""Text on one line, with other characters written as escapes such as \x1b.

    These are controls, line ends, marks of direction, and bytes that are not UTF-8.
    """
    return text if text.isprintable() else "".join(map(_character, text))


def shown_path(path: str) -> str:
    r"""A path on one line of a terminal; in quotes, with escapes, if it is not printable.

    >>> shown_path("/srv/web")
    '/srv/web'
    >>> print(shown_path("/srv/a\nb"))
    '/srv/a\nb'
    """
    return path if path.isprintable() else repr(path)


def file_line(raw: bytes) -> str:
    r"""One line of a file, for a message; bytes that are not UTF-8 are escaped.

    >>> print(file_line(b"web\xff:100000:65536\n"))
    web\xff:100000:65536
    """
    return raw.decode("utf-8", "backslashreplace").strip()


def utf8(text: str) -> str:
    r"""Text that JSON, the ledger and the log can hold; bytes that are not UTF-8 are escaped.

    >>> print(utf8("caf\udce9"))
    caf\udce9
    """
    # Not surrogateescape: it fails for half of a surrogate pair, which JSON of others may hold.
    return text.encode("utf-8", "backslashreplace").decode()


def lines(text: str, *, colours: bool = False) -> str:
    """Escape text like ``line``, but keep line ends and tabs; with ``colours`` also our colours."""
    # Nearly every text is printable, and a long one is looked at in a tenth of a pattern's time.
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    if colours and "\x1b" in text:
        # Every second piece is a colour.
        pieces = _PAINT.split(text)
        return "".join(piece if number % 2 else lines(piece) for number, piece in enumerate(pieces))
    return _LINES.sub(lambda match: line(match[0]), text)


def told(text: str) -> str:
    """A message of ours that contains names of others; a line end in a name is escaped."""
    return lines(_FORGED.sub(r"\\n", text))


def indented(text: str) -> str:
    """The output of another program, as part of a message of ours: further lines are indented."""
    return "\n  ".join(filter(None, map(str.strip, text.splitlines())))


def no_result(text: str) -> str:
    """Text for standard error. A GitHub Actions runner would also obey commands in it."""
    return _COMMAND.sub(
        lambda match: match[1] + r"\x3a" if match[2] is None else r"#\x23", lines(text)
    )


def operand(path: str) -> str:
    """A path, quoted for a shell, that no program takes for an option."""
    return _quoted(f"./{path}" if path.startswith("-") else path)


def shell(*words: str) -> str:
    """These words, quoted, as a command or a part of one that can be pasted into a shell."""
    return " ".join(map(_quoted, words))


def in_words(command: str) -> str:
    """A command inside a sentence: in quotes, unless it contains quotes itself.

    If the user pasted our quotes with it, they would end the quotes of the command, and the shell
    would obey what those quotes protect.
    """
    return command if set(command) & set("'\"`\\") else f"'{command}'"


def _character(it: str) -> str:
    return it if it.isprintable() else it.encode("unicode_escape").decode()


def _quoted(word: str) -> str:
    """Quote one word so that every POSIX shell reads it back and obeys nothing in it.

    Characters that are not plain, such as controls and line ends, become octal digits, so that the
    result is one line of printable text.
    """
    if word.isprintable():
        import shlex  # noqa: PLC0415 - only where a command is shown

        return shlex.quote(word)
    # Command substitution removes newlines at the end of the output, so they are added outside it.
    inner = word.rstrip("\n")
    octal = "".join(
        chr(byte) if chr(byte) in _PLAIN else f"\\{byte:03o}" for byte in os.fsencode(inner)
    )
    return f"\"`printf '{octal}'`\"" + ("'" + word[len(inner) :] + "'" if inner != word else "")
