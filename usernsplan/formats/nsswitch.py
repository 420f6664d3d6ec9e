"""nsswitch.conf(5): where subordinate ids and accounts come from on this host."""

from __future__ import annotations

import re
from typing import NamedTuple

# What to do with a service's answer, between two services; blanks may stand inside.
_ACTION = re.compile(r"\[[^\]]*\]?")


class Source(NamedTuple):
    """The services that one database names, and the line that says so (0 where none does)."""

    services: tuple[str, ...]
    number: int

    @property
    def reads_files(self) -> bool:
        """Tell whether subordinate ids come from the files: shadow (lib/nss.c) takes the first service alone."""
        return self.services[:1] in {(), ("files",)}


def source(raw: bytes, database: str) -> Source:
    """The services of ``database``, in order; no line means ("files",) as in shadow and glibc.

    glibc takes blanks around the name, shadow, who reads the line of subid, none.
    """
    for number, line in enumerate(raw.decode("utf-8", "replace").split("\n"), 1):
        name, colon, services = line.partition("#")[0].partition(":")
        if colon and (name if database == "subid" else name.strip()).lower() == database:
            return Source(tuple(_ACTION.sub(" ", services).split()), number)
    return Source(("files",), 0)
