"""The names of all files, below one root. Pure: names only; host/ opens the files.

Every path that usernsplan reads or writes is one of these names below a Layout. The module is not
in host/ because the planner and the messages name files too.
"""

from __future__ import annotations

import os

from usernsplan.escape import in_words, shell
from usernsplan.values import dataclass, field

SUBUID = "/etc/subuid"
SUBGID = "/etc/subgid"
PASSWD = "/etc/passwd"  # noqa: S105 - a file of accounts
GROUP = "/etc/group"
LOGIN_DEFS = "/etc/login.defs"
NSSWITCH = "/etc/nsswitch.conf"
DAEMON_JSON = "/etc/docker/daemon.json"
# Docker's data folder, unless daemon.json sets another one.
DOCKER_DATA = "/var/lib/docker"
# The kubelet's configuration where kubeadm puts it, and the folder that its documentation names for
# parts that replace some of it.
KUBELET_CONFIG = "/var/lib/kubelet/config.yaml"
KUBELET_DROPINS = "/etc/kubernetes/kubelet.conf.d"
# The plan file of the host, if the user names no other.
PLAN_FILE = "/etc/usernsplan.yaml"
# The defaults of the host, for what neither the command line nor the plan file says.
CONFIG_FILE = "/etc/usernsplan/config.yaml"
# The name, in messages, of a plan file that comes from a pipe.
STDIN = "standard input"
# Where ranges are published: drop-in records of systemd (nss-systemd(8)).
USERDB = "/etc/userdb"
# The containers of LXC, and of each node of a Proxmox VE cluster; the first is this host's own node.
LXC_PATH = "/var/lib/lxc"
PROXMOX = "/etc/pve/lxc"
PROXMOX_NODES = "/etc/pve/nodes"
# The command of LXD's snap (/snap is elsewhere on some distributions), and the data of the snap.
LXD_SNAPS = ("/snap/bin/lxd", "/var/lib/snapd/snap/bin/lxd", "/var/snap/lxd")
# lckpwdf(3) locks this file.
PWD_LOCK = "/etc/.pwd.lock"  # noqa: S105 - a file
LEDGER = "/var/lib/usernsplan/ledger.sqlite3"
# That the host is in a fleet, and under which name. Its time is when both ledgers agreed last.
FLEET = "/var/lib/usernsplan/fleet.json"
# One folder per run of fix-volume, with the journal that finishing and undoing it need.
RUNS = "/var/lib/usernsplan/runs"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one host, below ``root``.

    "/" is this machine. Any other root is a tree, as ``useradd --prefix`` takes it.

    ``root`` is what the user typed, for messages. ``real`` is its path, absolute and without
    symlinks, or "" if nothing is opened or run below it. ``inode`` is its device and inode number,
    or None if it did not exist when the Layout was made.
    """

    root: str = "/"
    real: str = ""
    inode: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def is_host(self) -> bool:
        """Tell whether this is the running machine, with its processes, NSS and system log."""
        return self.root == "/"

    def path(self, name: str) -> str:
        """The path of a name below the root, for messages; a shell would open it like this."""
        return self.root.rstrip("/") + name

    def place(self, name: str) -> str:
        """The real path of a name below the root, on this machine. Reads no symlink."""
        return self.real.rstrip("/") + name.rstrip("/") or "/"

    def below(self, path: str) -> str | None:
        """The name below the root of a real path; None if the path is outside the root."""
        top = self.real.rstrip("/")
        return (path[len(top) :] or "/") if f"{path}/".startswith(f"{top}/") else None

    def command(self, words: str) -> str:
        """A usernsplan command for this root that can be pasted.

        Text of others in ``words`` must have gone through ``escape.shell``.
        """
        return f"usernsplan {words}" + ("" if self.is_host else f" --root {shell(self.root)}")

    def inline(self, words: str) -> str:
        """The same command inside a sentence: in quotes if it has none itself."""
        return in_words(self.command(words))

    def account_command(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """A useradd or groupadd command for this root; shadow accepts only an absolute prefix."""
        if self.is_host:
            return command
        return (command[0], "--prefix", self.real or self.root, *command[1:])


def lies_in(path: str, folder: str) -> bool:
    """Tell whether a path is a folder, or below it. Both are absolute and normalised."""
    return f"{path.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def meet(one: str, other: str) -> bool:
    """Tell whether one of two paths is the other, or below it."""
    return lies_in(one, other) or lies_in(other, one)


def is_name(path: object) -> bool:
    """Tell whether a value is a name below a root: absolute and normalised, so never outside it."""
    is_text = (
        isinstance(path, str)
        and path.startswith("/")
        and not path.startswith("//")
        and "\0" not in path
    )
    return is_text and os.path.normpath(str(path)) == path
