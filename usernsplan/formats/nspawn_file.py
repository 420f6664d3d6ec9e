"""The range that a .nspawn file gives to its machine: PrivateUsers= in [Exec]. systemd.nspawn(5).

Read as systemd reads it: src/shared/conf-parser.c, and config_parse_private_users in
src/nspawn/nspawn-settings.c (252 to 258).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from usernsplan.ids import ID_LIMIT, IdRange
from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# The number of ids where the file names only the first one.
COUNT = 65536

_BLANK = " \t\n\r"
# Words that name no first id. With "identity" a machine has the host's own ids on purpose. With
# the others it has the ids of its tree, free ones at each start, those that systemd-nsresourced
# gives out, or none.
_WORDS = {"identity", "pick", "managed"}
_BOOLEANS = {"1", "yes", "y", "true", "t", "on", "0", "no", "n", "false", "f", "off"}
# parse_uid takes decimal numbers only; safe_atou32, for the count, takes what strtoul takes.
_FIRST = pattern(r"0|[1-9][0-9]{0,9}")
_COUNT = pattern(r"[ \t]*\+?(0x[0-9a-f]+|0b[01]+|0o[0-7]+|0[0-7]*|[1-9][0-9]{0,9})", re.IGNORECASE)
# What older programs take for -1 in 16 bits; systemd accepts it nowhere.
_INVALID = 65535


class Fixed(NamedTuple):
    """The ids that a file names, as uids and gids, and the number of the line."""

    ids: IdRange
    number: int


def private_users(raw: bytes) -> Fixed | None:
    """The range in the last valid assignment; None if that names no first id, or there is none."""
    found: Fixed | None = None
    section = ""
    for number, line in _lines(raw):
        if line.startswith("["):
            section = line
            continue
        key, equals, value = (part.strip(_BLANK) for part in line.partition("="))
        if section == "[Exec]" and equals and key == "PrivateUsers":
            if value in _WORDS or value.lower() in _BOOLEANS:
                found = None
            elif ids := _range(value):
                found = Fixed(ids, number)
    return found


def _lines(raw: bytes) -> Iterator[tuple[int, str]]:
    """Each line with its number: joined after a backslash, without comments and blanks around."""
    text = raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    joined: list[str] = []
    first = 0
    # A NUL ends a line, too, and CR LF is one end: read_line in src/basic/fileio.c.
    for number, raw_line in enumerate(re.split("\r\n|\n\r|[\n\r\0]", text), 1):
        line = raw_line.lstrip(_BLANK)
        if line.startswith(("#", ";")):
            continue
        first = first or number
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            joined.append(line[:-1] + " ")
            continue
        yield first, "".join((*joined, line)).strip(_BLANK)
        joined, first = [], 0
    if joined:
        yield first, "".join(joined).strip(_BLANK)


def _range(value: str) -> IdRange | None:
    """The range of BASE or BASE:COUNT; None if systemd ignores the value."""
    base, colon, text = value.partition(":")
    count = _count(text) if colon else COUNT
    if not _FIRST.fullmatch(base) or int(base) == _INVALID:
        return None
    return IdRange(int(base), count) if 0 < count <= ID_LIMIT - int(base) else None


def _count(text: str) -> int:
    """The number that strtoul reads; 0, which is no valid count, for anything else."""
    found = _COUNT.fullmatch(text)
    if not found:
        return 0
    is_octal = found[1].startswith("0") and found[1].isdigit()
    return int(found[1], 8 if is_octal else 0)
