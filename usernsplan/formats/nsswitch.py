"""nsswitch.conf(5): where subordinate ids and accounts come from on this host."""

from __future__ import annotations

from typing import NamedTuple


class Source(NamedTuple):
    """The services that one database names, and the line that says so (0 where none does)."""

    services: tuple[str, ...]
    number: int


def source(raw: bytes, database: str) -> Source:
    """The services of ``database``, in order; no line means ("files",) as in shadow and glibc."""
    for number, line in enumerate(raw.decode("utf-8", "replace").split("\n"), 1):
        name, colon, services = line.partition("#")[0].partition(":")
        if colon and name.strip() == database:
            return Source(tuple(word for word in services.split() if not word.startswith("[")), number)
    return Source(("files",), 0)
