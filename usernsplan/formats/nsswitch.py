"""nsswitch.conf(5): the services that provide subordinate ids and accounts on this host."""

from __future__ import annotations

import re
from typing import NamedTuple

# The action between two services, such as [NOTFOUND=return]; it may contain blanks.
_ACTION = re.compile(r"\[[^\]]*\]?")


class Source(NamedTuple):
    """The services of one database, and the number of its line (0: no line)."""

    services: tuple[str, ...]
    number: int

    @property
    def reads_files(self) -> bool:
        """Tell whether subordinate ids come from the files.

        shadow (lib/nss.c) uses only the first service.
        """
        return self.services[:1] in {(), ("files",)}


def source(raw: bytes, database: str) -> Source:
    """The services of ``database``, in order; without a line ("files",), as in shadow and glibc.

    glibc allows blanks around the name. shadow reads the line of subid and does not allow them.
    """
    for number, line in enumerate(raw.decode("utf-8", "replace").split("\n"), 1):
        name, colon, services = line.partition("#")[0].partition(":")
        if colon and (name if database == "subid" else name.strip()).lower() == database:
            return Source(tuple(_ACTION.sub(" ", services).split()), number)
    return Source(("files",), 0)
