"""The readers of what programs take without asking subuid: one small module for each program."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan.host.unlisted import docker, incus, lxc, mounts, nspawn, podman, snapd
from usernsplan.host.unread import missing
from usernsplan.layout import DOCKER_DATA, LXC_PATH, PROXMOX_NODES
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.host.unread import Miss
    from usernsplan.layout import Layout
    from usernsplan.model import Unlisted


class Reader(NamedTuple):
    """Reads the ids of one program below a root. ``place`` is the file or folder to name on an error.

    ``read`` returns () if the program keeps nothing there. What it cannot read it gives to its
    ``Miss``, and goes on with the rest, or it raises a UsernsplanError: an unknown holder must not
    look like a free range.
    """

    place: str
    read: Callable[[Layout, Miss], tuple[Unlisted, ...]]


def everything(layout: Layout, miss: Miss) -> tuple[Unlisted, ...]:
    """The ids that all programs have without a line, as far as ``miss`` lets it go on."""
    found: list[Unlisted] = []
    for reader in READERS:
        with missing(reader.place, miss):
            found += reader.read(layout, miss)
    return tuple(found)


def _at_once(
    read: Callable[[Layout], tuple[Unlisted, ...]], layout: Layout, miss: Miss
) -> tuple[Unlisted, ...]:
    """The same from a function that reads all or nothing."""
    del miss
    return read(layout)


READERS: tuple[Reader, ...] = (
    Reader(LXC_PATH, lxc.of_root),
    Reader(PROXMOX_NODES, lxc.of_proxmox),
    Reader(nspawn.MACHINES, nspawn.trees),
    Reader(nspawn.SETTINGS[0], nspawn.settings),
    Reader(podman.UNITS, podman.of_root),
    Reader(DOCKER_DATA, docker.data_roots),
    Reader(incus.SNAP, partial(_at_once, incus.without_lines)),
    Reader(incus.SOCKET, incus.instances),
    Reader("/usr/bin/snap", partial(_at_once, snapd.users)),
    Reader("/proc", partial(_at_once, mounts.idmapped)),
)
