"""containerd: flags of ctr run, which takes one extent. Its CRI plugin has no key for maps: the kubelet chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from usernsplan.engines.base import EXACTLY, TTY, RenderContext, Rendered, Verdict, no, plain
from usernsplan.errors import RefusedError
from usernsplan.mapping import KINDS

if TYPE_CHECKING:
    from usernsplan.model import Allocation


class Containerd:
    """Flags for ctr run."""

    reads_host: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset({"volume"})
    idmap: ClassVar[Literal["no"]] = "no"

    def verdict(self, allocation: Allocation) -> Verdict:
        """Each flag counts once (the last), and is one extent; /dev/pts is mounted for the group tty."""
        if len(allocation.mapping.uids) > 1 or len(allocation.mapping.gids) > 1:
            return no("ctr takes one extent for uids and one for gids")
        if allocation.mapping.gids.to_host(TTY) is None:
            return no(f"ctr mounts /dev/pts for gid {TTY}, which is not mapped")
        return EXACTLY

    def render(self, allocation: Allocation, asked: RenderContext) -> Rendered:
        """The flags, on one line, to stand right after ``ctr run``; with --rootfs, ctr would ignore the map."""
        flags = [
            f"--{kind}map {container}:{host}:{count}"
            for kind in KINDS
            for container, host, count in allocation.mapping[kind].triples()
        ]
        flags += [
            f"--mount type=bind,src={_plain(mount.source)},dst={_plain(mount.destination)},"
            f"options=rbind:{'ro' if mount.read_only else 'rw'}"
            for mount in asked.mounts
        ]
        notes = (
            "give ctr an image and --snapshotter native: with --rootfs it ignores the map and says nothing",
            "containerd's CRI plugin has no key for maps: for pods, the kubelet chooses them (render kubernetes)",
        )
        return Rendered(" ".join(flags), (), notes)


def _plain(path: str) -> str:
    """Versions of ctr differ in what they make of a second '='."""
    if "=" in path:
        raise RefusedError(
            f"{path!r} has a '=', which ctr takes for its own",
            hint="bind the folder to one without it",
        )
    return plain(path)


ENGINES = {"containerd": Containerd()}
