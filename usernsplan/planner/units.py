"""The systemd unit that makes a mount again at each boot. Pure."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from usernsplan.formats import unit_file
from usernsplan.layout import LEDGER
from usernsplan.mapping import KINDS
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.model import VolumeMount

# The longest map that mount(8) takes is a page; the other options are short.
_LONGEST_OPTIONS = 4000
# What starts containers at boot has to come later, or a container would find its volume missing.
ENGINES = {
    "docker.service": "starts containers with a restart policy",
    "containerd.service": "keeps the containers of others, which start with it",
    "crio.service": "starts the pods of its kubelet",
    "kubelet.service": "starts static pods, whose volumes it looks at first",
    "podman.service": "serves clients that start containers",
    "podman-restart.service": "starts containers with the restart policy always",
    "lxc.service": "starts containers with lxc.start.auto",
    "incus.service": "starts instances that ran before",
    "incus-startup.service": "does so in the packages of Debian and Zabbly",
    "lxd.service": "starts instances that ran before",
    "snap.lxd.daemon.service": "is lxd.service of the snap",
    "machines.target": "has the machines of systemd-nspawn",
    "systemd-user-sessions.service": "lets users in, and with them their rootless engines",
}


class Unit(NamedTuple):
    """A unit file: its name, what systemd reads of it, and what it says to people."""

    name: str
    body: str
    head: str


def name_of(mount: VolumeMount) -> str:
    """The name of the unit that makes a lasting mount."""
    return unit_file.name_of(mount.at, mount.lasting)


def how(mount: VolumeMount, *, is_file: bool, honours: bool) -> str:
    """How a mount returns at boot: one of LASTING.

    ``honours``: mount(8) of the host knows X-mount.idmap. It leaves a single file and the mounts
    inside to us, and would take over the nosuid of a protected source.
    """
    name = unit_file.name_of(mount.at, "mount")
    is_simple = honours and not (is_file or mount.crosses or mount.protect)
    is_plain = all(map(unit_file.is_plain, (mount.at, mount.source)))
    is_short = len(_options(mount)) <= _LONGEST_OPTIONS and unit_file.fits(name)
    return "mount" if is_simple and is_plain and is_short else "service"


def unit(mount: VolumeMount, interpreter: str, run: str) -> Unit:
    """The unit of a lasting mount. ``interpreter`` is the Python that has usernsplan."""
    head = (
        f"Written by usernsplan, which mounts {mount.source} for the container {mount.name}.\n"
        f"To remove the unit and the mount: usernsplan undo {run}"
    )
    # Nothing is mounted before the disks are there that it needs.
    needed = [mount.source, posixpath.dirname(mount.at)]
    if mount.lasting == "mount":
        lines = [*_order(mount, needed), *_mount(mount)]
    else:
        needed += [posixpath.dirname(LEDGER), interpreter]
        lines = [*_order(mount, needed), *_service(mount, interpreter)]
    return Unit(name_of(mount), "\n".join([*lines, *_INSTALL]), head)


_INSTALL = ("", "[Install]", "WantedBy=multi-user.target", "")


def _order(mount: VolumeMount, needed: Sequence[str]) -> list[str]:
    machine = f"systemd-nspawn@{unit_file.escaped(mount.name)}.service"
    return [
        "[Unit]",
        f"Description=Volume of the container {mount.name}",
        f"RequiresMountsFor={' '.join(map(unit_file.word, needed))}",
        f"Before={' '.join((*ENGINES, machine))}",
        "",
    ]


def _options(mount: VolumeMount) -> str:
    maps = " ".join(
        f"{kind[0]}:{e.container}:{e.host}:{e.count}" for kind in KINDS for e in mount.mapping[kind]
    )
    return ",".join(("bind", *mount.options, f"X-mount.idmap={maps}"))


def _mount(mount: VolumeMount) -> list[str]:
    return [
        "[Mount]",
        f"What={mount.source}",
        f"Where={mount.at}",
        "Type=none",
        f"Options={_options(mount)}",
    ]


def _service(mount: VolumeMount, interpreter: str) -> list[str]:
    at = unit_file.argument(mount.at)
    python = unit_file.argument(interpreter)
    return [
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        # -I: neither the environment nor the current folder says what root runs.
        f"ExecStart={python} -I -m usernsplan volumes --restore {at}",
        # It may be unmounted already.
        f"ExecStop=-/bin/umount {at}",
    ]
