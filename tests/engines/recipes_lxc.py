"""How LXC is run in a throw-away host, with the id map and the mounts that a test wants to see at work."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tests.engines import recipes
from tests.engines.throwaway import ThrowawayHost, require

if TYPE_CHECKING:
    from collections.abc import Sequence

LXC_ROOTFS = "/tmp/lxc-root"
LXC_PATH = "/tmp/lxc"

# Without the profile line liblxc asks for its own AppArmor profile, which only a booted machine has loaded.
LXC_CONF = f"""
lxc.rootfs.path = dir:{LXC_ROOTFS}
lxc.net.0.type = empty
lxc.mount.auto = proc
lxc.apparmor.profile = unconfined
"""

_numbers = itertools.count(1)


def lxc_execute(host: ThrowawayHost, config: str, argv: Sequence[str]) -> str:
    """Run a command with LXC as root; ``config`` are lines of lxc.conf: the id map, mounts.

    Unless the map contains host root itself, LXC calls newuidmap and newgidmap: root needs lines in both files.
    """
    require("lxc-execute", "newuidmap", "newgidmap")
    name = f"throwaway{next(_numbers)}"
    path = f"{LXC_PATH}/{name}.conf"
    _lxc_rootfs(host)
    host.write(path, f"{LXC_CONF}{config}\n")
    return host.run(
        "lxc-execute", "--name", name, "--lxcpath", LXC_PATH, "--rcfile", path, "--", *argv
    ).stdout


def _lxc_rootfs(host: ThrowawayHost) -> None:
    """Copy the root file system to where every id may make a folder: create=dir is done by the container's root."""
    if not host.exists(LXC_ROOTFS):
        host.run("cp", "-a", recipes._rootfs(host), LXC_ROOTFS)
        host.run("chmod", "1777", LXC_ROOTFS)
