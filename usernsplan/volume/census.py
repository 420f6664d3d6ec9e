"""A bounded look at a volume: how many entries it has, and whose they are. Changes nothing."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from typing import TYPE_CHECKING

from usernsplan.fixing import Census
from usernsplan.host import statx
from usernsplan.volume import walk
from usernsplan.volume.parts import TOP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.host.statx import Stat
    from usernsplan.volume.walk import OpenVolume

MOST, SECONDS = 200_000, 3.0


def take(volume: OpenVolume, *, most: int = MOST, seconds: float = SECONDS) -> Census:
    """Count entries until one of the bounds is met. It goes down first, and comes back to the top last.

    A folder that cannot be opened counts, and what is in it does not.
    """
    started = time.monotonic()
    owners: Counter[tuple[int, int]] = Counter()
    linked: dict[tuple[int, int], int] = {}
    entries = fixed = 0
    unread: list[str] = []
    is_whole = True
    for seen in _entries(volume, unread):
        if entries and (entries >= most or time.monotonic() - started >= seconds):
            is_whole = False
            break
        entries += 1
        owners[seen.uid, seen.gid] += 1
        fixed += seen.is_fixed
        if seen.links > 1 and not stat.S_ISDIR(seen.mode):
            linked[seen.key] = linked.get(seen.key, seen.links) - 1
    return Census(
        entries,
        is_whole,
        time.monotonic() - started,
        tuple((*owner, count) for owner, count in owners.most_common()),
        at_most=entries if is_whole else _inodes(volume),
        outside=sum(left > 0 for left in linked.values()),
        fixed=fixed,
        unread=tuple(unread),
        mounts=tuple(sorted(volume.mounts.points(volume.path))),
    )


def _entries(volume: OpenVolume, unread: list[str]) -> Iterator[Stat]:
    """The top, and what is below it."""
    yield statx.look(volume.top, volume.only or ".")
    walker = walk.Walker()
    folders = [] if volume.only else [TOP]
    while folders:
        parts = folders.pop()
        try:
            folder = walker.folder(volume, parts)
        except OSError:
            unread.append(volume.shown(parts))
            continue
        try:
            # A mount that is left out may hang.
            hidden = frozenset() if volume.cross_mounts else volume.mounts.names.get(parts, ())
            with os.scandir(folder) as names:
                for entry in names:
                    if entry.name in hidden:
                        continue
                    try:
                        seen = statx.look(folder, entry.name)
                    except FileNotFoundError:
                        continue
                    except OSError:
                        unread.append(volume.shown(parts, entry.name))
                        continue
                    yield seen
                    if stat.S_ISDIR(seen.mode):
                        folders.append(parts.below(entry.name))
        finally:
            os.close(folder)


def _inodes(volume: OpenVolume) -> int | None:
    """The inodes in use on the file system; None if it does not count them, as Btrfs."""
    found = os.fstatvfs(volume.top)
    return found.f_files - found.f_ffree or None
