"""Where everything lies, below one root. Pure: names only; the host rooms open them.

Every path that usernsplan reads or writes is one of these names under one Layout. It stands below the planner, not in
host/, because decisions and messages name files too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from usernsplan.escape import in_words, shell

SUBUID = "/etc/subuid"
SUBGID = "/etc/subgid"
PASSWD = "/etc/passwd"  # noqa: S105 - a file of accounts
GROUP = "/etc/group"
LOGIN_DEFS = "/etc/login.defs"
NSSWITCH = "/etc/nsswitch.conf"
DAEMON_JSON = "/etc/docker/daemon.json"
# What this host should have, where nobody names another plan file.
PLAN_FILE = "/etc/usernsplan.yaml"
# This host's defaults, for what neither the command line nor the plan file says.
CONFIG_FILE = "/etc/usernsplan/config.yaml"
# What a plan file is called that has no name.
STDIN = "standard input"
# lckpwdf(3) locks this file.
PWD_LOCK = "/etc/.pwd.lock"  # noqa: S105 - a file
LEDGER = "/var/lib/usernsplan/ledger.sqlite3"
# A folder for each run of fix-volume: what it needs to finish after a kill, and to be undone.
RUNS = "/var/lib/usernsplan/runs"


@dataclass(frozen=True, slots=True)
class Layout:
    """One host's files, below ``root``: "/" is this machine, anything else a tree as ``useradd --prefix`` means it.

    ``root`` is what the user typed, for messages; ``real`` is where that lies, absolute and without symlinks ("" where
    nothing is opened or run below it). ``inode`` is its device and inode, where it was there when it was named.
    """

    root: str = "/"
    real: str = ""
    inode: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def is_host(self) -> bool:
        """Tell whether this is the running machine, with its processes, NSS and system log."""
        return self.root == "/"

    def path(self, name: str) -> str:
        """The path of one of the names above, as messages show it and as a shell would open it."""
        return self.root.rstrip("/") + name

    def place(self, name: str) -> str:
        """Where a name below the root lies on this machine; no symlink is read for it."""
        return self.real.rstrip("/") + name.rstrip("/") or "/"

    def below(self, path: str) -> str | None:
        """What a real path is called below the root; None where it lies outside."""
        top = self.real.rstrip("/")
        return (path[len(top) :] or "/") if f"{path}/".startswith(f"{top}/") else None

    def command(self, words: str) -> str:
        """A usernsplan command for this root, to be pasted; what is not ours in ``words`` went through ``shell``."""
        return f"usernsplan {words}" + ("" if self.is_host else f" --root {shell(self.root)}")

    def inline(self, words: str) -> str:
        """The same inside a sentence."""
        return in_words(self.command(words))

    def account_command(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """A command of shadow's for this root: shadow takes only an absolute prefix."""
        return (
            command
            if self.is_host
            else (command[0], "--prefix", self.real or self.root, *command[1:])
        )


def is_name(path: object) -> bool:
    """Tell whether something is the name of a place below a root: absolute, normal, and never out of it."""
    is_text = (
        isinstance(path, str)
        and path.startswith("/")
        and not path.startswith("//")
        and "\0" not in path
    )
    return is_text and os.path.normpath(str(path)) == path
