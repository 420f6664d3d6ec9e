"""How LXC is run in a throw-away host, with the id map and the mounts that a test wants to see at work."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tests.engines import recipes
from tests.engines.recipes_systemd import MANAGER, SHOWN
from tests.engines.throwaway import ThrowawayHost, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.engines.recipes_systemd import Machine

LXC_ROOTFS = "/tmp/lxc-root"
LXC_PATH = "/tmp/lxc"

# Without the profile line liblxc asks for its own AppArmor profile, which only a booted machine has loaded.
LXC_CONF = f"""
lxc.rootfs.path = dir:{LXC_ROOTFS}
lxc.net.0.type = empty
lxc.mount.auto = proc
lxc.apparmor.profile = unconfined
"""

# As the package's own templates have it: their lines come first, and give all capabilities back.
BOOT_CONF = f"""
lxc.include = /usr/share/lxc/config/common.conf
lxc.include = /usr/share/lxc/config/userns.conf
lxc.net.0.type = empty
lxc.mount.auto = proc:mixed sys:mixed cgroup:rw
lxc.apparmor.profile = unconfined
lxc.console.path = none
lxc.tty.max = 0
lxc.init.cmd = /usr/lib/systemd/systemd {" ".join(MANAGER)}
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


def lxc_boot(host: ThrowawayHost, config: str, machine: Machine, root: int, script: str) -> str:
    """Boot the systemd of a machine with LXC, and return what its engine's script printed: "" if it did not boot.

    ``config`` are lines of lxc.conf, and ``root`` is the host id of the container's root, whose tree this becomes.
    """
    require("lxc-start", "newuidmap", "newgidmap")
    machine.prepare(script)
    folders = [f"{machine.tree}/{name}" for name in ("dev", "proc", "run", "sys")]
    host.run("mkdir", "-p", *folders)
    host.run("chown", "-R", f"{root}:{root}", machine.tree)
    path = f"{LXC_PATH}/{machine.name}.conf"
    binds = "".join(
        f"lxc.mount.entry = {shown} {shown[1:]} none bind,ro,create={kind}\n"
        for shown in SHOWN
        for kind in ["file" if shown.endswith(("passwd", "group")) else "dir"]
    )
    host.write(path, f"{BOOT_CONF}lxc.rootfs.path = dir:{machine.tree}\n{binds}{config}\n")
    words = ["lxc-start", "--foreground", "--name", machine.name, "--lxcpath", LXC_PATH]
    return machine.ended(host.run(*words, "--rcfile", path, check=False))
