"""How mounts affect entries of the current folder: which stay as they are, which get copied up."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from usernsplan.layout import lies_in
from usernsplan.volume import syscalls
from usernsplan.volume.folder import reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.host.mounts import MountPoint
    from usernsplan.volume.parts import Parts
    from usernsplan.volume.seen import PathReason
    from usernsplan.volume.walk import OpenVolume

MOUNT = "it is a mount point; --cross-mounts enters it"
_TWICE = "it is a mount point, and its content is met under another name"
_READ_ONLY = "it is a mount point, and read-only"
_IDMAPPED = "it is a mount point, and idmapped: fix the folder that is mounted there"


def without(
    volume: OpenVolume, parts: Parts, names: list[str]
) -> tuple[list[str], list[PathReason]]:
    """The names of the current folder without the mount points to leave alone; and those, with why.

    A change of such a name would change what is mounted there, which lies outside the volume.
    """
    mounted = volume.mounts.names.get(parts)
    if not mounted:
        return names, []
    # The server of a mount may be dead, and every call on it may hang. So look only at mounts that
    # are to be entered.
    left = {
        name: why
        for name in mounted.intersection(names)
        if (why := _left_alone(volume, parts, name) if volume.cross_mounts else MOUNT)
    }
    return [name for name in names if name not in left], [
        (volume.shown(parts, name), left[name]) for name in left
    ]


def _left_alone(volume: OpenVolume, parts: Parts, name: str) -> str:
    """Why a run that enters mounts does not enter this one of the current folder; "" if it does."""
    path = volume.shown(parts, name)
    if path in volume.twice:
        return _TWICE
    if path in volume.idmapped:
        return _IDMAPPED
    try:
        os.lstat(name)
        return _READ_ONLY if os.statvfs(name).f_flag & os.ST_RDONLY else ""
    except OSError as error:
        return f"it is a mount point, and cannot be looked at: {reason(error)}"


def copied(volume: OpenVolume, parts: Parts, device: int, names: Iterable[str]) -> Iterator[int]:
    """The size of each of these entries of the current folder that a change of owner would copy up.

    These are the entries of an overlay that its upper folder does not have yet.
    """
    # A single file may be a mount of its own, so the device of its folder does not matter.
    above = [
        one
        for one in volume.overlays
        if (volume.only or one.number == device) and lies_in(volume.shown(parts), one.point)
    ]
    if not above:
        return
    overlay = max(above, key=lambda one: len(one.point))

    for name in names:
        try:
            if _is_in_upper(overlay, volume.shown(parts, name), name):
                continue
            seen = os.lstat(name)
        except OSError:
            continue  # an entry that is gone is not copied up
        # With metacopy only the inode is copied up, without content. It still splits hard links.
        has_content = stat.S_ISREG(seen.st_mode) and overlay.fs_option("metacopy") != "on"
        yield seen.st_size if has_content else 0


def _is_in_upper(overlay: MountPoint, shown: str, name: str) -> bool:
    """Tell whether the upper folder of its overlay already has an entry of the current folder.

    The file handle shows that for an entry that was created there. An entry that was copied up is
    looked for in the upper folder, by the path that this had at the time of the mount. If that path
    leads nowhere now, nothing counts as copied up.
    """
    if syscalls.is_only_in_upper(name):
        return True
    upper = overlay.fs_option("upperdir")
    if not upper.startswith("/"):
        return False
    inside = overlay.root.rstrip("/") + shown[len(overlay.point.rstrip("/")) :]
    try:
        return stat.S_IFMT(os.lstat(upper + inside).st_mode) == stat.S_IFMT(os.lstat(name).st_mode)
    except OSError:
        return False
