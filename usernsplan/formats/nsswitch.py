"""nsswitch.conf(5): the services that provide subordinate ids and accounts on this host."""

from __future__ import annotations

import re

from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple

# The action between two services, such as [NOTFOUND=return]; it may contain blanks.
_ACTION = pattern(r"\[[^\]]*\]?")
# The services of which getpwent(3) lists all accounts.
_LISTED = frozenset({"files", "compat", "systemd"})
# shadow (lib/nss.c) does not load a service with a longer name, in bytes.
_LONGEST = 50


class Source(NamedTuple):
    """The services of one database, and the number of its line (0: no line).

    ``plugin`` is where the ``library`` of subordinate ids is installed, below the root; "" if it is
    not.
    """

    services: tuple[str, ...]
    number: int
    plugin: str = ""

    @property
    def library(self) -> str:
        """The library that shadow loads for subordinate ids; "" if it reads the files anyway.

        shadow (lib/nss.c) uses only the first service.
        """
        first = self.services[0] if self.services else "files"
        if first == "files" or len(first.encode()) > _LONGEST:
            return ""
        return f"libsubid_{first}.so"

    @property
    def reads_files(self) -> bool:
        """Tell whether subordinate ids come from the files, as they also do without the library."""
        return not self.plugin

    @property
    def lacks_plugin(self) -> bool:
        """Tell whether the files are read only because the library is not installed."""
        return bool(self.library) and not self.plugin

    @property
    def directory(self) -> str:
        """The first service of accounts that need not list them, such as sss; "" if all do."""
        return next((name for name in self.services if name not in _LISTED), "")


def source(raw: bytes, database: str) -> Source:
    """The services of ``database``, in order; without a line ("files",), as in shadow and glibc.

    glibc allows blanks around the name. shadow reads the line of subid and does not allow them, and
    skips a line without a service.
    """
    for number, line in enumerate(raw.decode("utf-8", "replace").split("\n"), 1):
        name, colon, found = re.split("[#\0]", line)[0].partition(":")
        is_subid = database == "subid"
        if colon and (name if is_subid else name.strip()).lower() == database:
            services = tuple(_ACTION.sub(" ", found).split())
            if services or not is_subid:
                return Source(services, number)
    return Source(("files",), 0)
