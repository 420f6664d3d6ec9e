"""Proxmox VE: lines of a container's config in /etc/pve/lxc, and root's lines in subuid and subgid.

Proxmox VE runs LXC as root, so newuidmap needs root's lines. pct.conf(5):
https://pve.proxmox.com/pve-docs/pct.conf.5.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import lxc
from usernsplan.engines.base import (
    EXACTLY,
    Engine,
    File,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    no,
    plain,
    ungranted,
)
from usernsplan.engines.lxc import maps_root, roots_files, roots_lines
from usernsplan.errors import InvalidValueError
from usernsplan.escape import shell
from usernsplan.ids import IdRange
from usernsplan.mapping import KINDS
from usernsplan.model import ROOT
from usernsplan.strategies import SLOT
from usernsplan.values import replace

if TYPE_CHECKING:
    from usernsplan.harden.effective import Effective
    from usernsplan.model import Allocation, Mount

# The numbers of containers and virtual machines: those below 100 are Proxmox VE's own.
_NUMBERS = IdRange(100, 999_999_900)
# The map of an unprivileged container without lxc.idmap lines, as fix-volume --from-map takes it.
_FORMER = "b 0 100000 65536"
_FILTER = "/usr/share/lxc/config/pve-userns.seccomp"
# What Proxmox VE adds to the filter of an unprivileged container when it starts it:
# make_seccomp_config of PVE::LXC, version 6 of pve-container. btrfs, and address family 38, AF_ALG.
_BTRFS = "ioctl errno 1 [1,0x9400,SCMP_CMP_MASKED_EQ,0xff00]"
_ALG, _NO_ALG = 38, "socket errno 97 [0,38,SCMP_CMP_EQ]"


class Proxmox(Engine):
    """Lines for the container's config. The file is Proxmox VE's own, so it is never written."""

    takes = frozenset({"volume", "vmid"})
    # Only new versions know the option idmap of a mount point.
    idmap = "asked"
    own_filters = (_FILTER,)

    def verdict(self, allocation: Allocation) -> Verdict:
        """Any map that is in subuid for newuidmap, and has container root and not host root."""
        if any(allocation.mapping[kind].to_host(0) is None for kind in KINDS):
            return no("it starts containers as container root, but container id 0 is not mapped")
        if maps_root(allocation):
            return no("a container that has host root is a privileged one, which has no map")
        if allocation.within not in {"", ROOT}:
            return no(
                f"it starts containers as root, and newuidmap grants these ids to {allocation.within} "
                "alone"
            )
        if why := ungranted(allocation):
            return no(f"newuidmap grants only what is in subuid, but {why}")
        return EXACTLY

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """The map as LXC reads it, with Proxmox VE's colon, and a mount point for each volume."""
        number = context.vmid
        if number is None:
            raise InvalidValueError(
                "--vmid is missing: the number of the container",
                hint="'pct list' shows the numbers",
            )
        if number not in _NUMBERS:
            raise InvalidValueError(
                f"--vmid {number} is not the number of a container: they are {_NUMBERS}",
                hint="'pct list' shows the numbers",
            )
        lines = ["unprivileged: 1"]
        lines += [
            f"lxc.idmap: {kind[0]} {extent}"
            for kind in KINDS
            for extent in allocation.mapping[kind]
        ]
        lines += [_mount(index, mount) for index, mount in enumerate(context.mounts)]
        its = Hardening({})
        if context.policy:
            its = self.hardening(context.policy, allocation, context)
        return Rendered(
            "\n".join([*lines, *its.words]),
            (*its.files, *roots_files(allocation)),
            (*_notes(allocation, context, number), *its.notes),
        )

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """A file of LXC's own lines: a container's config may not have lxc.no_new_privs itself."""
        if context.own_filter is not None:
            own = context.own_filter.rstrip(b"\n").decode("ascii", "replace")
            added = [_BTRFS, *[_NO_ALG] * (_ALG not in policy.families)]
            # In one that Proxmox VE has written itself, they are already.
            missing = [line for line in added if line not in own]
            context = replace(context, own_filter="\n".join([own, *missing, ""]).encode())
        unknown = f"Proxmox VE's own profile was not found, {_FILTER}; --base FILE gives it"
        found = lxc.hardening(policy, allocation, context, unknown=unknown)

        path = f"/etc/usernsplan/lxc/{allocation.name}.conf"
        needed = f"--out DIR writes {path}, which each node needs on which the container may run"
        replaced = (
            "with a filter of its own, the container's features keyctl and mknod have no effect"
        )
        return replace(
            found,
            words=(f"lxc.include: {path}",),
            files=(File(path, "\n".join([*found.words, ""])), *found.files),
            notes=(needed, *[replaced] * bool(found.files), *found.notes),
        )


def _mount(index: int, mount: Mount) -> str:
    """A mount point. "passthrough": the container sees the ids that the disk has."""
    words = [f"mp{index}: {plain(mount.source)}", f"mp={plain(mount.destination)}"]
    words += ["ro=1"] * mount.read_only + ["idmap=passthrough"] * (mount.owners == "idmap")
    return ",".join(words)


def _notes(allocation: Allocation, context: RenderContext, number: int) -> list[str]:
    tree = f"/var/lib/lxc/{number}/rootfs"
    shift = context.layout.command(
        f"fix-volume {tree} --container {shell(allocation.name)} --mode shift "
        f"--from-map {shell(_FORMER)}"
    )
    notes = [
        (
            f"stop the container, and put these lines into /etc/pve/lxc/{number}.conf, before the first "
            "[section] and in the place of its unprivileged and lxc.idmap lines"
        ),
        (
            "its root file system still has the host ids of the former map, without lxc.idmap lines "
            f"those of {shell(_FORMER)}: pct mount {number} && {shift} && pct unmount {number}"
        ),
        *roots_lines(allocation, context, "proxmox"),
    ]
    if context.mounts:
        notes.append(
            "mp0, mp1 and so on have to be free numbers in the file; only root may add such a mount "
            f"point: pct set {number} -mp0 …"
        )
    if any(mount.owners == "idmap" for mount in context.mounts):
        notes.append(
            "idmap needs a Proxmox VE 9 of May 2026 or newer: one whose pct.conf(5) has the option idmap "
            "of a mount point; an older one does not take the line"
        )
    if any(sum(e.count for e in allocation.mapping[kind]) < SLOT for kind in KINDS):
        notes.append(f"templates have files of nobody (65534) and need {SLOT} ids")
    return notes


ENGINES = {"proxmox": Proxmox()}
