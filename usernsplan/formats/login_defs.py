"""login.defs(5): the keys that say where subordinate ids come from. Read the way shadow's getdef.c reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from usernsplan.errors import InvalidFileError

# shadow 4.13, lib/getdef.c and useradd: what holds where the file does not say.
DEFAULTS = {
    "SUB_UID_MIN": 100000,
    "SUB_UID_MAX": 600100000,
    "SUB_UID_COUNT": 65536,
    "SUB_GID_MIN": 100000,
    "SUB_GID_MAX": 600100000,
    "SUB_GID_COUNT": 65536,
}
# C's strtoul with base 0, as shadow calls it.
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class LoginDefs:
    """The subordinate id keys of one host; numbers are ids and counts, MAX is inclusive."""

    sub_uid_min: int = DEFAULTS["SUB_UID_MIN"]
    sub_uid_max: int = DEFAULTS["SUB_UID_MAX"]
    sub_uid_count: int = DEFAULTS["SUB_UID_COUNT"]
    sub_gid_min: int = DEFAULTS["SUB_GID_MIN"]
    sub_gid_max: int = DEFAULTS["SUB_GID_MAX"]
    sub_gid_count: int = DEFAULTS["SUB_GID_COUNT"]


def parse(raw: bytes, place: str) -> LoginDefs:
    """Read the file; the last line of a key counts. Raises InvalidFileError for a number that shadow cannot read."""
    found: dict[str, int] = {}
    for number, line in enumerate(raw.decode("utf-8", "replace").split("\n"), 1):
        words = line.strip(' \t\r"').split(None, 1)
        if not words or words[0] not in DEFAULTS:
            continue
        value = words[1].strip(' \t"') if len(words) > 1 else ""
        if not _NUMBER.fullmatch(value):
            raise InvalidFileError(
                f"{place}:{number}",
                f"{words[0]} is '{value}', not a number",
                hint="correct the line, or say where to take ranges from with --pool FIRST-LAST",
            )
        octal = value[0] == "0" and value.isdigit() and len(value) > 1
        found[words[0].lower()] = int(value, 8 if octal else 0)
    return LoginDefs(**found)
