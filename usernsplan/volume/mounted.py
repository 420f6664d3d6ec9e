"""What mounts mean for the entries of the current folder: some are left alone, and an overlay copies some up."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from usernsplan.volume import syscalls
from usernsplan.volume.folder import reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.host.mounts import MountPoint
    from usernsplan.volume.seen import PathReason
    from usernsplan.volume.walk import OpenVolume

MOUNT = "it is a mount point; --cross-mounts enters it"
_TWICE = "it is a mount point, and what it shows is met under another name"
_READ_ONLY = "it is a mount point, and read-only"
_IDMAPPED = "it is a mount point, and idmapped: fix the folder that is mounted there"


def without(
    volume: OpenVolume, parts: tuple[str, ...], names: list[str]
) -> tuple[list[str], list[PathReason]]:
    """The names of the current folder without those mount points that are left alone, and why.

    Changing such a name would change what is mounted there, which lies outside.
    """
    mounted = volume.mounts.names.get(parts)
    if not mounted:
        return names, []
    # What serves a mount may be dead, and then every call on it fails or hangs: one that is not entered is not asked.
    left = {
        name: why
        for name in mounted.intersection(names)
        if (why := _left_alone(volume, parts, name) if volume.cross_mounts else MOUNT)
    }
    return [name for name in names if name not in left], [
        (volume.shown(parts, name), left[name]) for name in left
    ]


def _left_alone(volume: OpenVolume, parts: tuple[str, ...], name: str) -> str:
    """Why a mount point in the current folder is not entered, although mounts are; "" where it is."""
    if volume.shown(parts, name) in volume.twice:
        return _TWICE
    if volume.shown(parts, name) in volume.idmapped:
        return _IDMAPPED
    try:
        os.lstat(name)
        return _READ_ONLY if os.statvfs(name).f_flag & os.ST_RDONLY else ""
    except OSError as error:
        return f"it is a mount point, and cannot be looked at: {reason(error)}"


def copied(
    volume: OpenVolume, parts: tuple[str, ...], device: int, names: Iterable[str]
) -> Iterator[int]:
    """The bytes of each of these entries of the current folder that a change of owner would copy up.

    Those are the entries of an overlay that its upper folder does not have.
    """
    # Of a file that is mounted by itself, the folder says nothing.
    met = [one for one in volume.overlays if volume.only or one.number == device]
    lying = [
        one for one in met if f"{volume.shown(parts)}/".startswith(one.point.rstrip("/") + "/")
    ]
    if not lying:
        return
    overlay = max(lying, key=lambda one: len(one.point))
    for name in names:
        try:
            if _is_in_upper(overlay, volume.shown(parts, name), name):
                continue
            seen = os.lstat(name)
        except OSError:
            continue  # what goes away meanwhile is not copied
        # With metacopy the content stays where it is; links are split all the same.
        has_content = stat.S_ISREG(seen.st_mode) and overlay.fs_option("metacopy") != "on"
        yield seen.st_size if has_content else 0


def _is_in_upper(overlay: MountPoint, shown: str, name: str) -> bool:
    """Tell whether an entry of the current folder is in the upper folder of its overlay already.

    Its handle says so of what was made there. What was copied up is looked for in that folder; where this cannot be
    found by the path that it had when it was mounted, nothing counts as copied up.
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
