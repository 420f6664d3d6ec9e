"""login.defs(5): the keys for subordinate ids, read as shadow's lib/getdef.c reads them."""

from __future__ import annotations

import re
from contextlib import suppress

from usernsplan.errors import InvalidFileError
from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple, dataclass

# The values without a line in the file: shadow 4.13, lib/getdef.c and useradd.
DEFAULTS = {
    "SUB_UID_MIN": 100000,
    "SUB_UID_MAX": 600100000,
    "SUB_UID_COUNT": 65536,
    "SUB_GID_MIN": 100000,
    "SUB_GID_MAX": 600100000,
    "SUB_GID_COUNT": 65536,
    "UID_MIN": 1000,
    "UID_MAX": 60000,
}
# shadow 4.20 has other defaults where it computes ranges: lib/find_new_sub_uids.c.
_COMPUTED_MIN, _COMPUTED_MAX = 65536, 4294967295
# Keys that are on if their value is "yes" in any case: shadow's getdef_bool.
_COMPUTED = ("SUB_UID_DETERMINISTIC", "SUB_GID_DETERMINISTIC")
_WRAP = ("UNSAFE_SUB_UID_DETERMINISTIC_WRAP", "UNSAFE_SUB_GID_DETERMINISTIC_WRAP")
# strtoul(3) with base 0, as shadow calls it; a number with more digits overflows.
_NUMBER = pattern(r"[ \t]*\+?(0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,18})")


class Area(NamedTuple):
    """Where useradd looks for ``size`` ids of one kind: ``first`` to ``last``.

    ``key`` is the prefix of the keys that say so. ``computed`` is the line of SUB_UID_DETERMINISTIC
    (or its twin) if useradd does not look for free ids but computes the range of a user from the
    uid; 0 if it looks. ``wraps``: past ``last`` it begins again at ``first``.
    """

    key: str
    first: int
    last: int
    size: int
    computed: int = 0
    wraps: bool = False


@dataclass(frozen=True, slots=True)
class LoginDefs:
    """The subordinate id keys of one host; numbers are ids and counts, MAX is inclusive.

    ``computed`` and ``wraps`` are those of the areas of uids and of gids.
    """

    sub_uid_min: int = DEFAULTS["SUB_UID_MIN"]
    sub_uid_max: int = DEFAULTS["SUB_UID_MAX"]
    sub_uid_count: int = DEFAULTS["SUB_UID_COUNT"]
    sub_gid_min: int = DEFAULTS["SUB_GID_MIN"]
    sub_gid_max: int = DEFAULTS["SUB_GID_MAX"]
    sub_gid_count: int = DEFAULTS["SUB_GID_COUNT"]
    uid_min: int = DEFAULTS["UID_MIN"]
    uid_max: int = DEFAULTS["UID_MAX"]
    computed: tuple[int, int] = (0, 0)
    wraps: tuple[bool, bool] = (False, False)

    @property
    def areas(self) -> tuple[Area, Area]:
        """The areas of uids and of gids."""
        uids = ("SUB_UID", self.sub_uid_min, self.sub_uid_max, self.sub_uid_count)
        gids = ("SUB_GID", self.sub_gid_min, self.sub_gid_max, self.sub_gid_count)
        return (
            Area(*uids, self.computed[0], self.wraps[0]),
            Area(*gids, self.computed[1], self.wraps[1]),
        )


def parse(raw: bytes, place: str) -> LoginDefs:
    """Read the file; the last line of a key counts. ``place`` is its path, for messages.

    Raises InvalidFileError for a number that shadow cannot read.
    """
    found = _found(raw)
    return _read(
        found, {name: _value(name, *found[name], place) for name in found if name in DEFAULTS}
    )


def as_useradd(raw: bytes) -> LoginDefs:
    """Read the file as useradd does: with the default in place of a number that cannot be read."""
    found, numbers = _found(raw), {}
    for name in found:
        if name in DEFAULTS:
            with suppress(InvalidFileError):
                numbers[name] = _value(name, *found[name], "")
    return _read(found, numbers)


def _found(raw: bytes) -> dict[str, tuple[int, str]]:
    """The keys that matter here, each with its line number and its value."""
    found: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(raw.decode("utf-8", "replace").split("\n"), 1):
        name, value = _fields(line)
        if value is not None and (name in DEFAULTS or name in _COMPUTED or name in _WRAP):
            found[name] = (number, value)
    return found


def _read(found: dict[str, tuple[int, str]], numbers: dict[str, int]) -> LoginDefs:
    uids, gids = (_line_of_yes(found, name) for name in _COMPUTED)
    values = {name.lower(): value for name, value in numbers.items()}
    for prefix, computed in (("sub_uid", uids), ("sub_gid", gids)):
        if computed:
            values.setdefault(f"{prefix}_min", _COMPUTED_MIN)
            values.setdefault(f"{prefix}_max", _COMPUTED_MAX)
    wraps = (bool(_line_of_yes(found, _WRAP[0])), bool(_line_of_yes(found, _WRAP[1])))
    return LoginDefs(**values, computed=(uids, gids), wraps=wraps)


def _line_of_yes(found: dict[str, tuple[int, str]], name: str) -> int:
    """The line in which the key is on; 0 if it is off."""
    number, value = found.get(name, (0, ""))
    return number if value.lower() == "yes" else 0


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
