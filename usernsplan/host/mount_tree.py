"""The mounts of a namespace as a tree: to which mount a path leads. Pure.

A list of mounts does not say which one a path leads to: mounts stand on each other, and one on a
folder hides all that is mounted below it.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.host.mounts import MountPoint

# Where the first mount stands, which the kernel does not list.
_NOWHERE = -1
# What the kernel writes behind the path of a file or folder that was removed.
_REMOVED = "//deleted"


class MountTree:
    """The mounts of one namespace. Paths are those of the namespace, without symlinks."""

    def __init__(self, mounts: Iterable[MountPoint]) -> None:
        """Sort the mounts by the mount that they stand on, and by their points."""
        self.mounts = tuple(mounts)
        self.by_id = {one.mount_id: one for one in self.mounts}
        self._on: dict[int, dict[str, MountPoint]] = {}
        self._at: dict[str, list[MountPoint]] = {}
        for one in self.mounts:
            is_first = one.parent_id not in self.by_id or one.parent_id == one.mount_id
            self._on.setdefault(_NOWHERE if is_first else one.parent_id, {})[one.point] = one
            self._at.setdefault(one.point, []).append(one)

    def leading_to(self, path: str) -> MountPoint | None:
        """The mount on which a path lies, as the kernel resolves the path: none that is covered."""
        found = None
        # Bounded: the list is read in pieces, and a number may be given again in between.
        for _ in self.mounts:
            on = self._on.get(found.mount_id if found else _NOWHERE, {})
            above = folders_to(path, found.point if found else "/")
            nearest = next((on[point] for point in above if point in on), None)
            if nearest is None:
                break
            found = nearest
        return found

    def on_top(self, point: str) -> MountPoint | None:
        """The mount that stands at a point and is seen there; None if there is none."""
        found = self.leading_to(point)
        return found if found and found.point == point else None

    def all_at(self, point: str) -> list[MountPoint]:
        """Every mount at a point, also those that others hide."""
        return self._at.get(point, [])

    def showing(self, device: str, inner: str) -> list[MountPoint]:
        """The mounts that show this part of a file system, all of it or something in it."""
        roots = self._roots.get(device)
        if roots is None:
            return []
        below = inner.rstrip("/") + "/"
        names = self._names[device]
        start = bisect_left(names, below)
        # "0" is the character behind "/".
        stop = bisect_left(names, below[:-1] + "0", start)
        inside = (name for name in names[start:stop] if name != inner)
        found = [at for root in (*folders_to(inner), *inside) for at in roots.get(root, ())]
        return [self.mounts[at] for at in sorted(found)]

    @cached_property
    def _roots(self) -> dict[str, dict[str, list[int]]]:
        """By device and root, the places in the list of the mounts that show it."""
        found: dict[str, dict[str, list[int]]] = {}
        for at, one in enumerate(self.mounts):
            found.setdefault(one.device, {}).setdefault(one.root, []).append(at)
        return found

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        return {device: sorted(roots) for device, roots in self._roots.items()}

    def points(self) -> Iterator[str]:
        """Each point, once."""
        return iter(self._at)


def shown_at(mount: MountPoint, path: str) -> tuple[str, str]:
    """What a path on this mount shows: the device, and the path in its file system."""
    rest = path[len(mount.point) :].strip("/")
    return mount.device, os.path.join(mount.root, rest) if rest else mount.root


def is_removed(mount: MountPoint) -> bool:
    """Tell whether the file or folder that a mount shows was removed."""
    return mount.root.endswith(_REMOVED)


def folders_to(path: str, point: str = "/") -> Iterator[str]:
    """A mount point, and each folder on the way from it down to a path below it, and the path."""
    yield point
    at = len(point.rstrip("/"))
    while (at := path.find("/", at + 1)) != -1:
        yield path[:at]
    if path != point:
        yield path
