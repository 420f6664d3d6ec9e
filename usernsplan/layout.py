"""Where everything lies, below one root. Pure: names only; the host rooms open them.

Every path that usernsplan reads or writes is one of these names under one Layout. It stands below the planner, not in
host/, because decisions and messages name files too.
"""

from __future__ import annotations

from dataclasses import dataclass

SUBUID = "/etc/subuid"
SUBGID = "/etc/subgid"
PASSWD = "/etc/passwd"  # noqa: S105 - a file of accounts
GROUP = "/etc/group"
LOGIN_DEFS = "/etc/login.defs"
NSSWITCH = "/etc/nsswitch.conf"
DAEMON_JSON = "/etc/docker/daemon.json"
# lckpwdf(3) locks this file.
PWD_LOCK = "/etc/.pwd.lock"  # noqa: S105 - a file
LEDGER = "/var/lib/usernsplan/ledger.sqlite3"


@dataclass(frozen=True, slots=True)
class Layout:
    """One host's files, below ``root``: "/" is this machine, anything else a tree as ``useradd --prefix`` means it."""

    root: str = "/"

    @property
    def is_host(self) -> bool:
        """Tell whether this is the running machine, with its processes, NSS and system log."""
        return self.root == "/"

    def path(self, name: str) -> str:
        """The path of one of the names above, as messages show it and as a shell would open it."""
        return self.root.rstrip("/") + name
