"""Recorded volumes as they are on disk: the owners of each top and of the entries in it.

Decides nothing.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from usernsplan.errors import UsernsplanError, reason_of
from usernsplan.host import files, runs
from usernsplan.host.mounts import all_mounts
from usernsplan.layout import is_name
from usernsplan.model import MOST_SEEN, VolumeSeen
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from usernsplan.layout import Layout
    from usernsplan.model import LedgerState, UnfinishedRun, Volume

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Recorded(NamedTuple):
    """The recorded volumes of a ledger as they are on disk, and the unfinished runs."""

    volumes: tuple[VolumeSeen, ...]
    runs: tuple[UnfinishedRun, ...]


def recorded(layout: Layout, ledger: LedgerState) -> Recorded:
    """Look at the volumes that the ledger records: the disk decides. Raises NotPermittedError."""
    found = runs.look(layout)
    return Recorded(look(layout, ledger.volumes, found.kept), found.unfinished)


def look(
    layout: Layout, volumes: Iterable[Volume], kept: Collection[str] = ()
) -> tuple[VolumeSeen, ...]:
    """Look at each volume; those in ``kept`` may have ids that the map lacks.

    Changes nothing and raises nothing: the reason is in ``VolumeSeen.why``.
    """
    wanted = list(volumes)
    try:
        mounts = _mounts() if wanted else {}
    except UsernsplanError as error:
        return tuple(
            VolumeSeen(volume.path, why=f"it cannot be read: {error}") for volume in wanted
        )
    top = layout.real.rstrip("/")
    return tuple(
        _seen(layout, one.path, top + one.path, mounts, keeps=one.path in kept)
        if is_name(one.path)
        # The owner of another root could write anything into its ledger.
        else VolumeSeen(one.path, why="this is not a path below the root")
        for one in wanted
    )


def _mounts() -> dict[str, set[str]]:
    """The names on which something is mounted, by their folder."""
    found: dict[str, set[str]] = {}
    for mount in all_mounts():
        above, _, name = mount.point.rpartition("/")
        found.setdefault(above or "/", set()).add(name)
    return found


def _seen(
    layout: Layout, name: str, path: str, mounts: dict[str, set[str]], *, keeps: bool
) -> VolumeSeen:
    try:
        if files.real(layout, name, follow=True) != path:
            return VolumeSeen(name, why="a symlink leads to it")
        above, _, last = path.rpartition("/")
        is_mount = last in mounts.get(above or "/", ())
        owners, is_cut = Counter[tuple[int, int]](), False
        with files.pinned(layout, name) as place:
            seen = os.lstat(place.name, dir_fd=place.folder)
            if stat.S_ISDIR(seen.st_mode):
                seen, owners, is_cut = _inside(place, mounts.get(path, ()))
    except UsernsplanError as error:
        return VolumeSeen(name, why=str(error))
    except (FileNotFoundError, NotADirectoryError):
        return VolumeSeen(name, is_missing=True, why="there is nothing at this path")
    except OSError as error:
        return VolumeSeen(name, why=f"it cannot be read: {reason_of(error)}")
    found = tuple((uid, gid, count) for (uid, gid), count in sorted(owners.items()))
    return VolumeSeen(name, (seen.st_uid, seen.st_gid), found, is_cut, is_mount, keeps)


def _inside(
    place: files.Place, mounted: Collection[str]
) -> tuple[os.stat_result, Counter[tuple[int, int]], bool]:
    """The stat of a folder, the number of entries per owner, and whether it has more entries."""
    owners: Counter[tuple[int, int]] = Counter()
    descriptor = _opened(place)
    try:
        with os.scandir(descriptor) as entries:
            # Mounts in it are not part of the volume, and no run enters them.
            for entry in islice(
                (entry for entry in entries if entry.name not in mounted), MOST_SEEN
            ):
                try:
                    seen = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                # A run may have left a file with hard links elsewhere unchanged, on purpose.
                if seen.st_nlink == 1 or stat.S_ISDIR(seen.st_mode):
                    owners[seen.st_uid, seen.st_gid] += 1
            is_cut = next(entries, None) is not None
        return os.fstat(descriptor), owners, is_cut
    finally:
        os.close(descriptor)


def _opened(place: files.Place) -> int:
    try:
        # Looking at a volume must not change it.
        return os.open(place.name, _FOLDER | os.O_NOATIME, dir_fd=place.folder)
    except PermissionError:
        # Only the owner and CAP_FOWNER may use O_NOATIME: open(2).
        return os.open(place.name, _FOLDER, dir_fd=place.folder)
