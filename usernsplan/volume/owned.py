"""The ids that an inode carries (owner, group, ACL, capability), and the search for ids in a tree.

Nothing is changed, no symlink is followed, and no folder outside the named tops is read.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from typing import TYPE_CHECKING

from usernsplan.errors import (
    InvalidValueError,
    NotPermittedError,
    reason_of,
)
from usernsplan.escape import shown_path
from usernsplan.host import files
from usernsplan.host.mounts import all_mounts
from usernsplan.layout import lies_in
from usernsplan.values import NamedTuple, dataclass, field
from usernsplan.volume import metadata, protected, spots, walk
from usernsplan.volume.folder import has_attributes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from usernsplan.fixing import Place
    from usernsplan.host.standing import Standing
    from usernsplan.ids import IdSet
    from usernsplan.layout import Layout
    from usernsplan.volume.metadata import Named

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}


class InodeIds(NamedTuple):
    """The ids of one inode.

    ``rootid`` is the root uid that its capability is for (0: the host's root); None without one.
    """

    uid: int
    gid: int
    acl: tuple[Named, ...] = ()
    default_acl: tuple[Named, ...] = ()
    rootid: int | None = None


def carried(path: str, seen: os.stat_result | None = None) -> InodeIds:
    """The ids of the inode at ``path``, which may be a symlink; ``seen`` is its lstat, if known.

    Raises OSError, and InvalidValueError for an attribute of an unknown form.
    """
    seen = seen or os.lstat(path)
    if not has_attributes(path):
        return InodeIds(seen.st_uid, seen.st_gid)
    names = metadata.CARRIED.intersection(os.listxattr(path, follow_symlinks=False))
    raw = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    try:
        return InodeIds(
            seen.st_uid,
            seen.st_gid,
            metadata.named(raw[metadata.ACL_ACCESS]) if metadata.ACL_ACCESS in raw else (),
            metadata.named(raw[metadata.ACL_DEFAULT]) if metadata.ACL_DEFAULT in raw else (),
            metadata.capability_rootid(raw[metadata.CAPABILITY])
            if metadata.CAPABILITY in raw
            else None,
        )
    except InvalidValueError as error:
        raise InvalidValueError(f"{path}: {error}") from error


def of_path(layout: Layout, path: str) -> tuple[str, InodeIds]:
    """The kind and the ids of what is at a PATH that was typed; see kind_of.

    With another root, PATH is a path below it, as for fix-volume. Raises InvalidValueError if
    nothing is there, or if it is outside the root; NotPermittedError.
    """
    if "\0" in path or not path:
        raise InvalidValueError(f"{path!r} is not a path")
    shown = shown_path(path)
    try:
        place = spots.placed_at(layout, path)
        if not layout.is_host:
            name = layout.below(place)
            if name is None:
                raise InvalidValueError(f"{shown} is not below --root {layout.root}")
            with files.pinned(layout, name) as pin:
                return _kind_and_ids(pin.path, shown)
        return _kind_and_ids(place, shown)
    except PermissionError as error:
        raise NotPermittedError(f"{shown}: {reason_of(error)}") from error
    except OSError as error:
        raise InvalidValueError(f"{shown}: {reason_of(error)}") from error


def idmapped_at(layout: Layout, path: str) -> Standing | None:
    """The mount that shows other ids than the disk has, if a PATH that was typed lies on one."""
    if not any(mount.is_idmapped for mount in all_mounts()):
        return None
    from usernsplan.host import standing  # noqa: PLC0415 - seldom needed

    above, name = os.path.split(spots.placed_at(layout, path).rstrip("/") or "/")
    found = standing.on_path(os.path.join(os.path.realpath(above), name))
    return found if found and found.mount.is_idmapped else None


def _kind_and_ids(place: str, shown: str) -> tuple[str, InodeIds]:
    seen = os.lstat(place)
    try:
        return kind_of(seen), carried(place, seen)
    except InvalidValueError as error:
        raise InvalidValueError(str(error).replace(place, shown)) from error


def kind_of(seen: os.stat_result) -> str:
    """The kind of an inode in one word, such as "folder"."""
    return _KINDS.get(stat.S_IFMT(seen.st_mode), "file")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The ids to search for, as uids and as gids."""

    uids: IdSet
    gids: IdSet

    def of(self, one: InodeIds) -> Iterator[tuple[str, int]]:
        """Those that an inode carries, each with its role; see ROLES."""
        if one.uid in self.uids:
            yield "owner", one.uid
        if one.gid in self.gids:
            yield "group", one.gid
        for entry in (*one.acl, *one.default_acl):
            if entry.id in (self.uids if entry.kind == "user" else self.gids):
                yield f"ACL {entry.kind}", entry.id
        if one.rootid is not None and one.rootid in self.uids:
            yield "capability", one.rootid


# The roles of an id on an inode. "group" and "ACL group" are gids, the others uids.
ROLES = ("owner", "group", "ACL user", "ACL group", "capability")


class Found(NamedTuple):
    """Entries of one folder that carry the same ids; ``roles`` has those searched for.

    ``folder`` is its path, without a slash at its end. The name "" is the folder itself.
    """

    folder: str
    names: list[str]
    carried: InodeIds
    roles: tuple[tuple[str, int], ...]

    def paths(self) -> Iterator[str]:
        """The path of each entry."""
        return (f"{self.folder}/{name}" if name else self.folder or "/" for name in self.names)


@dataclass(slots=True)
class Count:
    """How many names carry ids that were searched for.

    ``found`` has, for each set of roles and ids (see Wanted.of) that names carry together, how many
    do and the first of them. ``missed`` are the places that could not be looked at.
    """

    found: dict[tuple[tuple[str, int], ...], tuple[int, str]] = field(default_factory=dict)
    missed: list[Place] = field(default_factory=list)

    def add(self, found: Found) -> None:
        """Count more names."""
        before, example = self.found.get(found.roles) or (0, next(found.paths()))
        self.found[found.roles] = (before + len(found.names), example)

    def among(self, ids: IdSet) -> Count:
        """Those that carry some of these ids, which are among those searched for."""
        return Count(
            {
                roles: found
                for roles, found in self.found.items()
                if any(number in ids for _, number in roles)
            },
            self.missed,
        )

    @property
    def entries(self) -> int:
        """How many names carry at least one of the ids."""
        return sum(times for times, _ in self.found.values())

    @property
    def example(self) -> str:
        """The first of these names; "" for none."""
        return next((example for _, example in self.found.values()), "")

    @property
    def by_role(self) -> dict[str, Counter[int]]:
        """The number of names by role (see ROLES) and id."""
        counted: dict[str, Counter[int]] = {role: Counter() for role in ROLES}
        for roles, (times, _) in self.found.items():
            for role, number in set(roles):
                counted[role][number] += times
        return counted


def top_of(layout: Layout, path: str) -> str:
    """The real path of a DIR that was typed. Raises what spots.place_of does."""
    place = spots.placed_at(layout, path)
    if os.path.exists(place) and not os.path.isdir(place) and not os.path.islink(place):
        hint = "'usernsplan whois --file' shows the owner of a single file"
        raise InvalidValueError(f"{shown_path(path)} is not a folder", hint=hint)
    return spots.place_of(layout, path)


def each_once(
    tops: Iterable[str], *, cross_mounts: bool, closed: Collection[str] = ()
) -> tuple[dict[str, None], tuple[str, ...]]:
    """The folders that no walk through another of them meets, and the mounts that no walk enters.

    Both are real paths. The mounts are without the kernel's own file systems, which have no files.
    ``closed`` are mount points that ``cross_mounts`` does not enter.
    """
    mounts = all_mounts()
    points = {top: walk.Mounts.below(top, mounts).points(top) for top in tops}

    def meets(top: str, path: str) -> bool:
        passed = (p for p in points[top] if p in closed) if cross_mounts else points[top]
        return lies_in(path, top) and not any(lies_in(path, point) for point in passed)

    kept = {
        top: None
        for top in points
        if not any(top != other and meets(other, top) for other in points)
    }
    left = sorted(
        {
            point
            for top in kept
            for point in points[top]
            if not any(meets(top, point) for top in kept)
        }
    )
    return kept, tuple(
        point for point in left if walk.kind_of(point, mounts) not in protected.NOT_FILES
    )
