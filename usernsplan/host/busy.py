"""Who uses a mount, and who sees it: what an unmount that fails, or that is not enough, has to say."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.host import reach, spaces
from usernsplan.host.mount_tree import shown_at
from usernsplan.layout import lies_in
from usernsplan.model import Holder
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.host.mounts import MountPoint
    from usernsplan.host.spaces import Space


class Elsewhere(NamedTuple):
    """A process in another mount namespace, and a path there."""

    pid: int
    command: str
    path: str


def holders(point: str) -> tuple[Holder, ...]:
    """The processes that have something of the mount at this point open, root's too, one link each.

    Those that may not be looked at are left out: this explains an error, and decides nothing.
    """
    found = spaces.look()
    mount = found.own.tree.leading_to(point)
    if mount is None:
        return ()
    links = (_holding(process, mount, point) for process in found.processes)
    return tuple(one for one in links if one)


def _holding(process: spaces.Process, mount: MountPoint, point: str) -> Holder | None:
    with suppress(OSError):
        for what, link, target in spaces.links(process):
            with suppress(FileNotFoundError, ProcessLookupError):
                if lies_in(target, point) and spaces.mount_id(link) == mount.mount_id:
                    return Holder(process.pid, process.command, process.uid, what, target)
    return None


def mounts_in(point: str) -> list[str]:
    """The mount points in the mount at this point: they keep it busy."""
    own = spaces.own()
    mount = own.tree.leading_to(point)
    return sorted(
        n.point for n in own.tree.by_id.values() if mount and n.parent_id == mount.mount_id
    )


def copies(source: str) -> list[Elsewhere]:
    """Where other mount namespaces show this path of ours, or a part of it, by a mount with a map.

    A container that was started with such a mount has a copy of its own.
    """
    ours, *others = spaces.every()
    part = reach.part_of(ours, source)
    return [
        Elsewhere(space.pid, space.command, shown)
        for space in others
        for mount, shown in (reach.shows(space, [part]) if part else ())
        if mount.is_idmapped
    ]


def blind(point: str) -> list[Elsewhere]:
    """The other mount namespaces that have this mount point, and not what is mounted on it here."""
    ours, *others = spaces.every()
    mount = ours.tree.leading_to(point)
    below = ours.tree.by_id.get(mount.parent_id) if mount else None
    if below is None:
        return []
    part = reach.Part(*shown_at(below, point))
    return list(_uncovered(others, part))


def _uncovered(several: Iterable[Space], part: reach.Part) -> Iterator[Elsewhere]:
    for space in several:
        shown = next(
            (
                path
                for mount, path in reach.shows(space, [part])
                if _is_bare(space, mount, path, part)
            ),
            None,
        )
        if shown:
            yield Elsewhere(space.pid, space.command, shown)


def _is_bare(space: Space, mount: MountPoint, path: str, part: reach.Part) -> bool:
    """Tell whether a path shows this very folder, and not what is mounted over it."""
    return lies_in(part.inner, mount.root) and space.tree.leading_to(path) is mount
