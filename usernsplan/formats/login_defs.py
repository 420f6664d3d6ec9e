"""login.defs(5): the keys for subordinate ids, read as shadow's lib/getdef.c reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from usernsplan.errors import InvalidFileError

# The values without a line in the file: shadow 4.13, lib/getdef.c and useradd.
DEFAULTS = {
    "SUB_UID_MIN": 100000,
    "SUB_UID_MAX": 600100000,
    "SUB_UID_COUNT": 65536,
    "SUB_GID_MIN": 100000,
    "SUB_GID_MAX": 600100000,
    "SUB_GID_COUNT": 65536,
}
# strtoul(3) with base 0, as shadow calls it; a number with more digits overflows.
_NUMBER = re.compile(r"[ \t]*\+?(0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,18})")


class Area(NamedTuple):
    """Where useradd looks for ``size`` ids of one kind: ``first`` to ``last``.

    ``key`` is the prefix of the keys that say so.
    """

    key: str
    first: int
    last: int
    size: int


@dataclass(frozen=True, slots=True)
class LoginDefs:
    """The subordinate id keys of one host; numbers are ids and counts, MAX is inclusive."""

    sub_uid_min: int = DEFAULTS["SUB_UID_MIN"]
    sub_uid_max: int = DEFAULTS["SUB_UID_MAX"]
    sub_uid_count: int = DEFAULTS["SUB_UID_COUNT"]
    sub_gid_min: int = DEFAULTS["SUB_GID_MIN"]
    sub_gid_max: int = DEFAULTS["SUB_GID_MAX"]
    sub_gid_count: int = DEFAULTS["SUB_GID_COUNT"]

    @property
    def areas(self) -> tuple[Area, Area]:
        """The areas of uids and of gids."""
        return (
            Area("SUB_UID", self.sub_uid_min, self.sub_uid_max, self.sub_uid_count),
            Area("SUB_GID", self.sub_gid_min, self.sub_gid_max, self.sub_gid_count),
        )


def parse(raw: bytes, place: str) -> LoginDefs:
    """Read the file; the last line of a key counts. ``place`` is its path, for messages.

    Raises InvalidFileError for a number that shadow cannot read.
    """
    found: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(raw.decode("utf-8", "replace").split("\n"), 1):
        name, value = _fields(line)
        if name in DEFAULTS and value is not None:
            found[name] = (number, value)
    return LoginDefs(**{name.lower(): _value(name, *found[name], place) for name in found})


def _fields(line: str) -> tuple[str, str | None]:
    """Split a line into its name and value; the value is None if there is none.

    The value begins after blanks and quotes, and ends before the next quote.
    """
    name, *rest = re.split(r"[ \t]", line.rstrip().lstrip(" \t"), maxsplit=1)
    return name, rest[0].lstrip(' \t"').partition('"')[0] if rest else None


def _value(name: str, number: int, text: str, place: str) -> int:
    match = _NUMBER.fullmatch(text)
    if not match:
        raise InvalidFileError(
            f"{place}:{number}",
            f"{name} is '{text}', not a number",
            hint="correct the line, or name a pool to take ranges from",
        )
    octal = match[1].startswith("0") and match[1].isdigit() and len(match[1]) > 1
    return int(match[1], 8 if octal else 0)
