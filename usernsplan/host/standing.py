"""What is mounted at a place, with its id map, as the kernel tells it.

mountinfo is read once and the maps are asked for once, however many places there are. Nothing on a
file system that may not answer is touched.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidValueError, UsernsplanError
from usernsplan.escape import shown_path
from usernsplan.formats import unit_file
from usernsplan.host import reach, statmount, units
from usernsplan.host.mount_tree import MountTree, is_removed, shown_at
from usernsplan.host.mounts import MountPoint, all_mounts, is_of_network
from usernsplan.layout import is_name
from usernsplan.mapping import IdMap, Mapping
from usernsplan.model import MountSeen
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping as Dict

    from usernsplan.layout import Layout
    from usernsplan.model import VolumeMount


class Standing(NamedTuple):
    """The mount on top of a mount point. ``mapping`` is None if it has none or it is not told."""

    mount: MountPoint
    mapping: Mapping | None = None

    def shows(self, mapping: Mapping) -> bool:
        """Tell whether it shows ids by this map, as far as the kernel tells (since 6.15)."""
        return self.mount.is_idmapped and (self.mapping is None or self.mapping.is_same_as(mapping))


def standing() -> Dict[str, Standing]:
    """By mount point, what is on top there in our mount namespace."""
    tree = MountTree(all_mounts())
    maps = _maps(tree)
    tops = ((point, tree.on_top(point)) for point in tree.points())
    return {point: Standing(top, maps.get(top.mount_id)) for point, top in tops if top}


def stacked(point: str) -> list[Mapping | None]:
    """The map of each mount at a point, the one on top first; None where the kernel tells none."""
    tree = MountTree(all_mounts())
    maps, top = _maps(tree), tree.on_top(point)
    below = [one for one in tree.all_at(point) if one != top]
    return [maps.get(one.mount_id) for one in (top, *below) if one]


def on_path(path: str) -> Standing | None:
    """The mount on which a real path lies. Raises UsernsplanError if there is no /proc."""
    tree = MountTree(all_mounts())
    found = tree.leading_to(path)
    return Standing(found, _maps(tree).get(found.mount_id)) if found else None


def look(layout: Layout, mounts: Iterable[VolumeMount]) -> tuple[MountSeen, ...]:
    """Look at each recorded mount. Raises nothing: the reason is in ``MountSeen.why``."""
    wanted = list(mounts)
    if not wanted:
        return ()
    try:
        tree = MountTree(all_mounts())
    except UsernsplanError as error:
        return tuple(MountSeen(one.at, why=f"it is unknown: {error}") for one in wanted)
    maps, ways = _maps(tree), _Ways(tree)
    return tuple(
        _seen(layout, one, tree, maps, ways)._replace(forgotten=_forgotten(layout, one))
        if is_name(one.at) and is_name(one.source)
        # The owner of another root could write anything into its ledger.
        else MountSeen(one.at, why="its paths are not below the root")
        for one in wanted
    )


def strays(layout: Layout, folders: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """The idmapped mounts below these folders at none of the points ``known``.

    All are names below the root. Nothing is known without /proc.
    """
    tops = tuple(f"{layout.place(folder)}/" for folder in folders)
    ours = {layout.place(point) for point in known}
    with suppress(UsernsplanError):
        found = {
            one.point
            for one in all_mounts()
            if one.is_idmapped and one.point.startswith(tops) and one.point not in ours
        }
        return tuple(sorted(name for point in found if (name := layout.below(point))))
    return ()


def _maps(tree: MountTree) -> Dict[int, Mapping]:
    """By mount, its map. No mount is asked where none has a map."""
    return maps_of("self") if any(one.is_idmapped for one in tree.mounts) else {}


def maps_of(pid: int | str) -> Dict[int, Mapping]:
    """By mount of a process's mount namespace, its map: those that the kernel tells."""
    found: dict[int, Mapping] = {}
    # The calls are known since Linux 6.8, and the maps since 6.15. The process may end.
    with suppress(OSError):
        for one in statmount.idmapped(pid):
            # An id that our own user namespace lacks is no id.
            with suppress(InvalidValueError):
                found[one.mount_id] = Mapping(IdMap.of(*one.uids), IdMap.of(*one.gids))
    return found


class _Ways:
    """Whether a folder above a path keeps others than root out. Each folder is looked at once."""

    def __init__(self, tree: MountTree) -> None:
        self._tree = tree
        self._shut: dict[str, bool] = {}

    def is_open(self, path: str, mount: MountPoint | None) -> bool:
        """Tell whether others get to a path on this mount, and setuid counts there."""
        is_nosuid = mount is not None and mount.is_nosuid
        return not is_nosuid and not self._is_shut(os.path.dirname(path))

    def _is_shut(self, folder: str) -> bool:
        if folder not in self._shut:
            above = os.path.dirname(folder)
            self._shut[folder] = self._is_roots(folder) or (
                above != folder and self._is_shut(above)
            )
        return self._shut[folder]

    def _is_roots(self, folder: str) -> bool:
        mount = self._tree.leading_to(folder)
        # Of a network or of FUSE, the server decides who may enter.
        if mount is None or is_of_network(mount.kind):
            return False
        try:
            return reach.is_shut(folder)
        except PermissionError:
            return True
        except OSError:
            return False


def _seen(
    layout: Layout, one: VolumeMount, tree: MountTree, maps: Dict[int, Mapping], ways: _Ways
) -> MountSeen:
    place, source = layout.place(one.at), layout.place(one.source)
    below, top = tree.leading_to(source), tree.on_top(place)
    shown = shown_at(below, source) if below else None

    def is_of_source(mount: MountPoint) -> bool:
        return mount.is_idmapped and (is_removed(mount) or (mount.device, mount.root) == shown)

    if top and is_of_source(top):
        return MountSeen(
            one.at,
            is_standing=True,
            mapping=maps.get(top.mount_id),
            options=_options(top),
            of_source=_options(below) if below else (),
            is_removed=is_removed(top),
            is_open=ways.is_open(source, below),
        )
    # The mount that hides ours: it stands on it, or on a folder above it.
    hiding = tree.leading_to(place)
    is_hidden = any(map(is_of_source, tree.all_at(place)))
    return MountSeen(
        one.at,
        hidden_by=hiding.point if hiding and is_hidden else "",
        is_other=top is not None and not is_hidden,
        has_source=os.path.lexists(source),
    )


def _forgotten(layout: Layout, mount: VolumeMount) -> str:
    """Why a lasting mount does not return at boot; "" if it does, or was not asked to."""
    if not mount.lasting:
        return ""
    name = unit_file.name_of(mount.at, mount.lasting)
    path = shown_path(layout.path(units.path_of(name)))
    try:
        problem = units.problem(layout, name)
    except UsernsplanError as error:
        return str(error)
    return problem and f"{path} {problem}"


def _options(mount: MountPoint) -> tuple[str, ...]:
    return tuple(mount.options.split(","))


def is_inode(point: str, inode: int) -> bool:
    """Tell whether what a path shows has this inode: after a reboot the device may be another."""
    try:
        return os.lstat(point).st_ino == inode
    except OSError:
        return False


def is_same(point: str, source: os.stat_result) -> bool:
    """Tell whether what a path shows is this very file or folder, whatever its ids."""
    try:
        seen = os.lstat(point)
    except OSError:
        return False
    return (seen.st_dev, seen.st_ino) == (source.st_dev, source.st_ino)
