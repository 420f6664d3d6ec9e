"""containers-storage.conf(5): set options in a file that others wrote, and keep every other byte.

The file has no drop-ins, and an incomplete one (without driver, runroot or graphroot) stops every
Podman of the host. So keys are set in an existing file only; no file is created.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError
from usernsplan.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

SECTION = "storage.options"
_HEADER = pattern(r"[ \t]*\[(?!\[)[ \t]*([^\]]*?)[ \t]*\][ \t]*(#.*)?")


def with_options(raw: bytes, options: Mapping[str, str], place: str = "storage.conf") -> bytes:
    """The file with these keys of [storage.options] set; the values are TOML text.

    An existing key gets its new value in its place. New keys come right below the header of the
    section, and a missing section comes at the end. Raises InvalidFileError if the result is not
    TOML: the file was not, or it writes a key in a form that is not understood here.
    """
    lines = raw.decode("utf-8", "surrogateescape").split("\n")
    start = next((n for n, line in enumerate(lines) if _name(line) == SECTION), None)
    left = dict(options)
    if start is None:
        if lines[-1]:
            lines.append("")
        lines[-1:] = [f"[{SECTION}]", ""]
        start = len(lines) - 2
    stop = next(
        (n for n in range(start + 1, len(lines)) if _name(lines[n]) is not None), len(lines)
    )
    for number in range(start + 1, stop):
        for key in options:
            if re.match(rf"""[ \t]*(["']?){re.escape(key)}\1[ \t]*=""", lines[number]):
                lines[number] = f"{key} = {options[key]}" + "\r" * lines[number].endswith("\r")
                left.pop(key, None)
    lines[start + 1 : start + 1] = [f"{key} = {value}" for key, value in left.items()]
    text = "\n".join(lines)
    _check(text, place)
    return text.encode("utf-8", "surrogateescape")


def _check(text: str, place: str) -> None:
    """Parse the result as Podman would. Python can do so since 3.11; before, nothing is checked."""
    if sys.version_info < (3, 11):
        return
    import tomllib  # noqa: PLC0415 - since 3.11, and only here

    try:
        tomllib.loads(text)
    except ValueError as error:
        hint = f"set the keys of [{SECTION}] by hand; without --out they are printed"
        raise InvalidFileError(place, f"cannot take these options: {error}", hint=hint) from error


def _name(line: str) -> str | None:
    """The section that a line begins; "" for an array of tables (``[[…]]``), None for others."""
    header = _HEADER.fullmatch(line.rstrip("\r"))
    if header:
        return header[1]
    return "" if line.lstrip().startswith("[[") else None
