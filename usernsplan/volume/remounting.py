"""Give a mount that stands another map: at the same place, with all that it has besides.

The kernel does not change the map of a mount in place. A copy with the new map is put beneath the
one that stands, and then that is unmounted: at any time the path leads to one of the two. After a
kill in between, the same call unmounts what is above.
"""

from __future__ import annotations

import errno
import os
import posixpath
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError, UsernsplanError, reason_of
from usernsplan.escape import operand, shell, shown_path
from usernsplan.host import files, idmap, mountpoints, standing
from usernsplan.host.mounts import of_others
from usernsplan.planner import mounts as planned
from usernsplan.volume import lasting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.host.mounts import Seen
    from usernsplan.layout import Layout
    from usernsplan.model import Allocation, VolumeMount

_OPEN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# What the kernel returns for a call or a flag that it does not know; a filter of system calls may
# return EPERM.
_UNKNOWN = frozenset({errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP})


def refuse_impossible(layout: Layout, mount: VolumeMount) -> None:
    """Raise RefusedError unless the mount can get its map. It is tried on a copy that nobody sees."""
    lasting.refuse_foreign(layout, mount)
    if not standing.stacked(layout.place(mount.at)):
        return
    try:
        with _opened(layout, mount.at) as point, _copy(layout, mount, point):
            pass
    except OSError as error:
        raise RefusedError(
            f"the mount at {shown_path(layout.path(mount.at))} cannot get the new map:"
            f" {reason_of(error)}; nothing was changed",
            hint=f"take it away first: {planned.undoing(mount, layout)}",
        ) from error


def remount(layout: Layout, mount: VolumeMount, allocation: Allocation) -> str:
    """Give a mount that stands the map of ``mount``. Returns a note if that was seen, or "".

    Its folder gets the group of the container's root, and its unit the new map, whether it stands
    or not. Raises UsernsplanError if something uses it.
    """
    place = layout.place(mount.at)
    if planned.is_ours(mount.at):
        group = planned.folder_group(allocation)
        mountpoints.make_folder(layout, posixpath.dirname(mount.at), group)
    # First the unit: while the mount has the former map, the same remap goes on.
    lasting.make(layout, mount, mount.run)
    try:
        # What a kill left one above the other: only the one on top can be unmounted.
        while any((maps := standing.stacked(place))[1:]):
            _unmount(layout, mount)
        is_right = not maps or (maps[0] is not None and maps[0].is_same_as(mount.mapping))
        return "" if is_right else _exchange(layout, mount)
    except OSError as error:
        again = layout.inline(f"remap {shell(mount.name)}")
        is_busy = error.errno == errno.EBUSY
        raise UsernsplanError(
            f"the mount at {shown_path(place)} still has the former map:"
            f" {'something uses it' if is_busy else reason_of(error)}",
            hint=f"stop what 'fuser -vm {operand(place)}' shows, then run {again}"
            if is_busy
            else f"{again} tries it again",
        ) from error


def copies(layout: Layout, mounts: Iterable[VolumeMount]) -> list[str]:
    """A note for each process that has a mount in its own mount namespace, elsewhere than here.

    What is mounted here reaches a namespace that receives our mounts, at the same point.
    """
    here = standing.standing()
    wanted = {
        (found.mount.device, found.mount.root): mount
        for mount in mounts
        if (found := here.get(layout.place(mount.at))) and found.mount.is_idmapped
    }
    notes = []
    for seen in of_others() if wanted else ():
        for one in seen.mounts:
            mount = wanted.get((one.device, one.root))
            if mount and one.is_idmapped and one.point != layout.place(mount.at):
                notes.append(_keeps(layout, mount, seen, one.point))
    return notes


def left(layout: Layout, mount: VolumeMount) -> list[str]:
    """A note for each process whose mount namespace still has the former map of a mount.

    The kernel tells it since Linux 6.15.
    """
    now = standing.standing().get(layout.place(mount.at))
    notes = []
    for seen in of_others() if now else ():
        same = [one for one in seen.mounts if now and one.is_idmapped and one[:2] == now.mount[:2]]
        maps = standing.maps_of(seen.pid) if same else {}
        notes += [
            _keeps(layout, mount, seen, one.point)
            for one in same
            if one.mount_id in maps and not maps[one.mount_id].is_same_as(mount.mapping)
        ]
    return notes


def _keeps(layout: Layout, mount: VolumeMount, seen: Seen, point: str) -> str:
    return (
        f"process {seen.pid} ({shown_path(seen.command)}) has"
        f" {shown_path(layout.path(mount.source))} mounted at {shown_path(point)}: it keeps the former"
        " map until it ends"
    )


def _exchange(layout: Layout, mount: VolumeMount) -> str:
    """Put the new mount in the place of the one that stands. Raises OSError."""
    place = layout.place(mount.at)
    with ExitStack() as stack:
        # While a descriptor holds the mount that stands, it cannot be unmounted.
        with _opened(layout, mount.at) as point:
            tree = stack.enter_context(_copy(layout, mount, point))
            is_beneath = _attached_beneath(tree, point)
        _unmount(layout, mount)
        if is_beneath:
            return ""
        with _opened(layout, mount.at) as point:
            idmap.attach(tree, point)
    return f"{shown_path(place)} was not mounted for a moment: this kernel mounts nothing beneath"


def _unmount(layout: Layout, mount: VolumeMount) -> None:
    """Unmount what is seen there, and first what came with it from its source. Raises OSError."""
    place = layout.place(mount.at)
    for point, one in reversed([*standing.standing().items()]):
        if mount.crosses and one.mount.is_idmapped and point.startswith(f"{place}/"):
            idmap.unmount(point)
    idmap.unmount(place)


def _attached_beneath(tree: int, point: int) -> bool:
    """Mount the new one beneath; False before Linux 6.5, which cannot. Raises OSError."""
    try:
        idmap.attach_beneath(tree, point)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        return False
    return True


@contextmanager
def _opened(layout: Layout, name: str) -> Iterator[int]:
    """A descriptor of what is seen at a path below the root. Raises OSError."""
    with files.pinned(layout, name) as place:
        descriptor = os.open(place.name, _OPEN, dir_fd=place.folder)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def _copy(layout: Layout, mount: VolumeMount, point: int) -> Iterator[int]:
    """A detached mount with the new map, and with the attributes of the one that stands at ``point``.

    Raises OSError.
    """
    namespace = idmap.user_namespace(mount.mapping)
    try:
        try:
            tree = idmap.with_map(point, namespace, crosses=mount.crosses)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
            tree = _from_source(layout, mount, point, namespace)
    finally:
        os.close(namespace)
    try:
        yield tree
    finally:
        os.close(tree)


def _from_source(layout: Layout, mount: VolumeMount, point: int, namespace: int) -> int:
    """The same from the volume itself: before Linux 6.15 a map is given once. Raises OSError."""
    now = standing.standing().get(layout.place(mount.at))
    kept = {*now.mount.options.split(",")} & {*idmap.ATTRIBUTES} if now else set()
    with _opened(layout, mount.source) as source:
        if os.fstat(source).st_ino != os.fstat(point).st_ino:
            raise OSError(errno.ESTALE, "what it shows is not at its path any more")
        without = {*idmap.ATTRIBUTES} - kept
        return idmap.detached(
            source, namespace, crosses=mount.crosses, options=kept, without=without
        )
