"""How rootlesskit and rootless podman are run in a throw-away host: as a login user with subordinate ids of his own.

The recipes write nothing to /etc/subuid and /etc/subgid: what a user is granted is for the test to say. Rootless
podman keeps a user namespace alive between its commands, so a range changed later is seen only after
``as_user(host, name, "podman", "system", "migrate")``; rootlesskit reads the files anew each time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.engines import recipes
from tests.engines.throwaway import ThrowawayHost, require

if TYPE_CHECKING:
    from collections.abc import Sequence

# Only the driver: rootless podman puts graphroot and runroot into the user's own folders, and should.
STORAGE_CONF = """
[storage]
driver = "vfs"
"""

# What forbids user namespaces to ordinary users if it reads 0; the first is Debian's and Ubuntu's, not every kernel's.
SWITCHES = ("/proc/sys/kernel/unprivileged_userns_clone", "/proc/sys/user/max_user_namespaces")


class Account(NamedTuple):
    """What a login shell of the user would know."""

    uid: str
    gid: str
    home: str

    @property
    def runtime(self) -> str:
        """XDG_RUNTIME_DIR, which pam_systemd makes at login."""
        return f"/run/user/{self.uid}"


def login_user(host: ThrowawayHost, name: str, uid: int) -> None:
    """Add a user as somebody who logged in has it: home, group of the same name, shell, XDG_RUNTIME_DIR.

    With a count of 0 useradd hands out no subordinate ids, as it otherwise does for every user who has none yet.
    """
    no_ids = ("-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0")
    host.run(
        "useradd",
        "--uid",
        str(uid),
        "--user-group",
        "--create-home",
        "--shell",
        "/bin/sh",
        *no_ids,
        name,
    )
    user = _account(host, name)
    host.run("mkdir", "-p", "/run/user")
    host.run(
        "install",
        "--directory",
        "--mode=0700",
        f"--owner={user.uid}",
        f"--group={user.gid}",
        user.runtime,
    )


def as_user(host: ThrowawayHost, name: str, *argv: str) -> str:
    """Run a command with the ids, the groups and the environment of a login user, in /; return what it printed."""
    require("setpriv")
    user = _account(host, name)
    become = ["setpriv", "--reuid", user.uid, "--regid", user.gid, "--init-groups"]
    environment = {
        "HOME": user.home,
        "USER": name,
        "LOGNAME": name,
        "XDG_RUNTIME_DIR": user.runtime,
    }
    return host.run(*become, *argv, env=environment).stdout


def rootlesskit(host: ThrowawayHost, name: str, argv: Sequence[str]) -> str:
    """Run a command in the user namespace that rootlesskit makes: the base of rootless Docker."""
    _require_rootless("rootlesskit")
    # The host's network, because slirp4netns and its kind are not needed to see a map.
    return as_user(host, name, "rootlesskit", "--net=host", *argv)


def podman_unshare(host: ThrowawayHost, name: str, argv: Sequence[str]) -> str:
    """Run a command in the user namespace that all rootless containers of the user live in."""
    _require_rootless("podman")
    _configure_podman(host, name)
    return as_user(host, name, "podman", "unshare", *argv)


def podman_rootless(
    host: ThrowawayHost,
    name: str,
    flags: Sequence[str],
    argv: Sequence[str],
    volumes: Sequence[str] = (),
) -> str:
    """Run a command in a container of the user's; ``volumes`` are written as for podman's -v option.

    The middle number of --uidmap and --gidmap counts in what podman_unshare shows: 0 is the user himself, 1 the first
    of his subordinate ids. That is also what a container's own uid_map shows; its host ids are seen in a volume.
    """
    _require_rootless("podman", "crun")
    _configure_podman(host, name)
    if not as_user(host, name, "podman", "images", "-q", recipes.IMAGE):
        as_user(host, name, "podman", "import", "-q", recipes.rootfs_tar(host), recipes.IMAGE)
    volume_flags = recipes._volume_flags(volumes)
    return as_user(host, name, "podman", "run", "--rm", *flags, *volume_flags, recipes.IMAGE, *argv)


def _require_rootless(*programs: str) -> None:
    """Skip as well where the machine lets no ordinary user make a user namespace."""
    require("newuidmap", "newgidmap", *programs)
    for switch in map(Path, SWITCHES):
        if switch.exists() and switch.read_text().strip() == "0":
            pytest.skip(f"no user namespaces for ordinary users: {switch} is 0")


def _configure_podman(host: ThrowawayHost, name: str) -> None:
    """Add what a host needs to the user's own settings: so a podman that a test runs with as_user has it too.

    As the first of the drop-ins, so that whatever a test writes next to it counts for more.
    """
    config = f"{_account(host, name).home}/.config"
    settings, storage = (
        f"{config}/containers/containers.conf.d/00-throwaway.conf",
        f"{config}/containers/storage.conf",
    )
    if not host.exists(settings):
        host.write(settings, recipes.CONTAINERS_CONF)
        if not host.exists(storage):
            host.write(storage, STORAGE_CONF)
        host.run("chown", "--recursive", f"{name}:", config)


def _account(host: ThrowawayHost, name: str) -> Account:
    fields = host.run("getent", "passwd", name).stdout.split(":")
    return Account(uid=fields[2], gid=fields[3], home=fields[5])
