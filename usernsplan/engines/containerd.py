"""containerd: flags of ctr run, which takes one extent.

The CRI plugin of containerd has no key for maps: the kubelet chooses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines.base import (
    EXACTLY,
    TTY,
    Engine,
    RenderContext,
    Rendered,
    Verdict,
    no,
    plain,
)
from usernsplan.errors import RefusedError
from usernsplan.escape import shell
from usernsplan.mapping import KINDS

if TYPE_CHECKING:
    from usernsplan.model import Allocation


class Containerd(Engine):
    """Flags for ctr run."""

    takes = frozenset({"volume"})

    def verdict(self, allocation: Allocation) -> Verdict:
        """One extent of each kind that maps the group tty.

        Only the last flag of a kind counts, and ctr mounts /dev/pts for that group.
        """
        if len(allocation.mapping.uids) > 1 or len(allocation.mapping.gids) > 1:
            return no("ctr takes only one extent for uids and one for gids")
        if allocation.mapping.gids.to_host(TTY) is None:
            return no(f"ctr mounts /dev/pts for gid {TTY}, which is not mapped")
        return EXACTLY

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """The flags on one line, to follow ``ctr run``. With --rootfs ctr would ignore the map."""
        flags = [
            f"--{kind}map {container}:{host}:{count}"
            for kind in KINDS
            for container, host, count in allocation.mapping[kind].triples()
        ]
        flags += [
            f"--mount type=bind,src={_plain(mount.source)},dst={_plain(mount.destination)},"
            f"options=rbind:{'ro' if mount.read_only else 'rw'}"
            for mount in context.mounts
        ]
        notes = (
            "run ctr with an image and --snapshotter native: with --rootfs it ignores the map",
            "containerd's CRI plugin has no key for maps; the kubelet chooses the maps of pods: "
            + context.layout.command(f"render kubernetes {shell(allocation.name)}"),
        )
        return Rendered(" ".join(flags), (), notes)


def _plain(path: str) -> str:
    # Versions of ctr read a second '=' differently.
    if "=" in path:
        raise RefusedError(
            f"{path!r} has a '=', which means something else to ctr",
            hint="use a path without '='; a bind mount can give the folder one",
        )
    return plain(path)


ENGINES = {"containerd": Containerd()}
