"""Try whether something can be shown with other ids: on a detached mount, which nobody sees."""

from __future__ import annotations

import os
import re
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Literal

from usernsplan.host import idmap, procfs
from usernsplan.host.mounts import MountPoint, all_mounts, mount_of
from usernsplan.mapping import Extent, IdMap, Mapping
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

# One id, only to see whether a map is possible at all.
ANY = Mapping(IdMap((Extent(0, 589824, 1),)), IdMap((Extent(0, 589824, 1),)))
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Kernel(NamedTuple):
    """Its version, and how it holds this process.

    ``is_filtered``: it filters its system calls (seccomp). ``is_initial``: the process is in the
    first user namespace, not in a container's.
    """

    version: tuple[int, int]
    is_filtered: bool = False
    is_initial: bool = True
    is_root: bool = True


class Failed(NamedTuple):
    """A trial that failed: at which ``step``, with which errno, and what is known of the place.

    The steps: "open" the path, "namespace" (a user namespace that has the map), "copy" the mount
    (open_tree), "map" the copy (mount_setattr). ``mount`` is the one that the place lies on, and
    ``inner`` are the mounts below it that fail alone, which matter only if they are shown too.
    """

    step: Literal["open", "namespace", "copy", "map"]
    number: int
    mount: MountPoint
    kernel: Kernel
    inner: tuple[MountPoint, ...] = ()


def failed(
    source: int,
    path: str,
    mapping: Mapping,
    *,
    crosses: bool = False,
    namespaces: idmap.UserNamespaces | None = None,
) -> Failed | None:
    """Why what this descriptor holds cannot be shown with the ids of a map; None if it can.

    ``path`` is its real path. ``crosses``: with the mounts in it. The user namespace of the trial
    is one of ``namespaces``.
    """
    with nullcontext(namespaces) if namespaces else closing(idmap.UserNamespaces()) as made:
        found = _tried(source, mapping, made, crosses=crosses)
    if found is None:
        return None
    mounts = all_mounts()
    inner = []
    if crosses and found[0] != "namespace":
        inner = [one for one in inside(path, mounts) if of_path(one.point, mapping)]
    return Failed(*found, mount_of(path, mounts), kernel(), tuple(inner))


def of_path(path: str, mapping: Mapping = ANY, *, crosses: bool = False) -> Failed | None:
    """The same for a path, whose last part is no symlink."""
    try:
        descriptor = os.open(path, _PATH)
    except OSError as error:
        return Failed("open", error.errno or 0, mount_of(path, all_mounts()), kernel())
    try:
        return failed(descriptor, path, mapping, crosses=crosses)
    finally:
        os.close(descriptor)


def inside(path: str, mounts: Iterable[MountPoint]) -> list[MountPoint]:
    """What is mounted below a folder, the last of each point."""
    below = path.rstrip("/") + "/"
    return list({one.point: one for one in mounts if one.point.startswith(below)}.values())


def kernel() -> Kernel:
    """The kernel, as this process sees it."""
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    return Kernel(version, procfs.is_filtered(), procfs.is_initial(), os.geteuid() == 0)


def _tried(
    source: int, mapping: Mapping, namespaces: idmap.UserNamespaces, *, crosses: bool
) -> tuple[Literal["namespace", "copy", "map"], int] | None:
    """The step that failed, and its errno."""
    step: Literal["namespace", "copy", "map"] = "namespace"
    try:
        namespace = namespaces.of(mapping)
        step = "copy"
        tree = idmap.copied(source, crosses=crosses)
        try:
            step = "map"
            idmap.set_attributes(tree, namespace, crosses=crosses)
        finally:
            os.close(tree)
    except OSError as error:
        return step, error.errno or 0
    return None
