"""Ids of the host whose power ends at nothing, or at what everybody is kept from. Pure.

A container that shows one of them can become the host's root, or take from the host what is worth
as much: each row of TABLE says how.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.formats.accounts import Accounts
    from usernsplan.ids import IdRange
    from usernsplan.mapping import Kind


class Power(NamedTuple):
    """A group, what its members can do, and the source.

    ``numbers`` are the gids that distributions give it for ever. They count where this host has
    neither a group of this number nor one of this name.
    """

    group: str
    opens: str
    source: str
    numbers: tuple[int, ...] = ()


# A directory service is asked for each id of a range that is not longer than this.
ASKED = 16
_SUDO = "becomes root with sudo"
_DEVICES = "https://wiki.debian.org/SystemGroups"

TABLE: tuple[Power, ...] = (
    Power("root", "reads and writes what only root's group may", "group 0, of the kernel", (0,)),
    Power("wheel", _SUDO, "sudoers(5) of Fedora and Arch", (10,)),
    Power("sudo", _SUDO, "sudoers(5) of Debian", (27,)),
    Power("admin", _SUDO, "sudoers(5) of Ubuntu"),
    Power("disk", "reads and writes whole disks, past every permission", _DEVICES, (6,)),
    Power("docker", "starts containers as the host's root, by Docker's socket", "dockerd(8)"),
    Power(
        "podman",
        "starts containers as the host's root, by Podman's socket",
        "podman-system-service(1)",
    ),
    Power("lxd", "starts privileged instances as the host's root, by LXD's socket", "lxd(1)"),
    Power(
        "incus-admin",
        "starts privileged instances as the host's root, by Incus's socket",
        "incusd(1)",
    ),
    Power("incus", "starts instances by Incus's socket", "incus-user(1)"),
    Power("microk8s", "starts privileged pods, by MicroK8s", "https://microk8s.io/docs"),
    Power(
        "libvirt", "starts machines with any disk of the host, by libvirt's socket", "libvirtd(8)"
    ),
    Power("kvm", "runs virtual machines on the host's kernel, by /dev/kvm", _DEVICES, (36,)),
    Power("shadow", "reads the hashes of all passwords", _DEVICES, (42,)),
    Power("kmem", "reads the memory of the kernel", _DEVICES, (9, 15)),
    Power("mem", "reads the memory of the kernel", "Slackware's /etc/group", (8,)),
    Power("staff", "changes programs in /usr/local, which root runs", _DEVICES, (50,)),
    Power("tty", "reads and writes the consoles of others", "tty(4), vcs(4)", (5,)),
    Power("input", "reads what is typed on the host's keyboard", "udev(7)"),
)
_OF_GROUP = {one.group: one for one in TABLE}


def groups_of(user: str, accounts: Accounts) -> list[str]:
    """The groups of TABLE that an account is a member of, by the host's own group file."""
    return [group for group, member in accounts.members if member == user and group in _OF_GROUP]


def powers(kind: Kind, ids: IdRange, accounts: Accounts) -> Iterator[tuple[int, str, str]]:
    """The privileged ids in a range: the id, whose it is, and what it opens.

    A group is known by its name, whatever its number is here. A directory service is asked only for
    the ids of a short range.
    """
    if kind == "uid":
        if 0 in ids:
            yield 0, "root", "is the superuser of the host"
        return

    found = {**_by_number(ids, accounts), **_by_name(ids, accounts)}
    if 0 in ids:
        found[0] = TABLE[0]
    for number, one in sorted(found.items()):
        yield number, one.group, one.opens


def _by_name(ids: IdRange, accounts: Accounts) -> dict[int, Power]:
    groups = {(group.gid, group.name) for group in accounts.groups if group.gid in ids}
    if accounts.directory and ids.count <= ASKED:
        known = (accounts.group_of(number) for number in range(ids.start, ids.stop))
        groups.update((group.gid, group.name) for group in known if group)
    return {gid: _OF_GROUP[name] for gid, name in sorted(groups) if name in _OF_GROUP}


def _by_number(ids: IdRange, accounts: Accounts) -> dict[int, Power]:
    taken = {group.gid for group in accounts.groups}
    names = {group.name for group in accounts.groups}
    return {
        number: one
        for one in TABLE
        for number in one.numbers
        if one.group not in names and number in ids and number not in taken
    }
