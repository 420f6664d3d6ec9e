"""The ids that an inode carries (owner, group, ACL, capability), and the search for ids in a tree.

Nothing is changed, no symlink is followed, and no folder outside the named tops is read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from typing import TYPE_CHECKING

from usernsplan.errors import (
    InvalidValueError,
    NotPermittedError,
    RefusedError,
    UsernsplanError,
    reason_of,
)
from usernsplan.escape import shown_path
from usernsplan.fixing import Place
from usernsplan.host import files
from usernsplan.host.mounts import all_mounts
from usernsplan.ids import IdSet
from usernsplan.layout import lies_in
from usernsplan.values import NamedTuple, dataclass, field
from usernsplan.volume import metadata, protected, spots, walk
from usernsplan.volume.folder import StepOptions, has_attributes, reason, step
from usernsplan.volume.parts import TOP

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from usernsplan.host.standing import Standing
    from usernsplan.layout import Layout
    from usernsplan.volume.metadata import Named
    from usernsplan.volume.parts import Parts

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}

# A search changes nothing and reads the attributes of every inode.
_SEARCH = StepOptions(search=True)


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


class Hit(NamedTuple):
    """One name of an inode that carries some of the ids; ``roles`` has each with its role."""

    path: str
    carried: InodeIds
    roles: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class Count:
    """How many names carry ids that were searched for.

    ``entries`` is how many names carry at least one, ``example`` one of these names ("" for none).
    ``by_role`` counts the names by role (see ROLES) and id. ``missed`` are the places that could
    not be looked at.
    """

    entries: int = 0
    example: str = ""
    by_role: dict[str, Counter[int]] = field(
        default_factory=lambda: {role: Counter() for role in ROLES}
    )
    missed: list[Place] = field(default_factory=list)

    def add(self, hit: Hit) -> None:
        """Count one more name."""
        self.entries += 1
        self.example = self.example or hit.path
        for role, number in set(hit.roles):
            self.by_role[role][number] += 1

    def ids(self) -> IdSet:
        """Every id that was found, in any role."""
        return IdSet.clipped(
            (number, number + 1) for found in self.by_role.values() for number in found
        )


def count(dirs: Iterable[str], ids: IdSet, *, cross_mounts: bool = False) -> Count:
    """Count the names in these folders that carry some of ``ids``, as uids or gids.

    ``dirs`` are real paths of this machine. A folder inside another of them is counted twice.
    Mounts below them are left out without ``cross_mounts``. To learn which of several ranges files
    still carry, count their union and look for each in ``ids()``. A place that cannot be looked at
    is in ``missed``, and no error is raised for it.
    """
    found = Count()
    for path in dirs:
        try:
            for hit in find(
                path, path, Wanted(ids, ids), cross_mounts=cross_mounts, miss=found.missed.append
            ):
                found.add(hit)
        except UsernsplanError as error:  # noqa: PERF203 - once for each folder
            found.missed.append(Place(path, str(error)))
    return found


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


def find(  # noqa: PLR0913 - what to search, for what, and how
    top: str,
    shown: str,
    wanted: Wanted,
    *,
    cross_mounts: bool = False,
    closed: Collection[str] = (),
    miss: Callable[[Place], object],
) -> Iterator[Hit]:
    """All names in the folder ``top``, and itself, that carry some of the ids.

    With ``cross_mounts``, the mounts below it too, but for those at the real paths ``closed``.

    ``top`` is a real path; if a part of it has become a symlink, nothing is read. The paths of the
    hits begin with ``shown`` instead. An inode with several names is a hit for each name. ``miss``
    is called with each place that cannot be looked at, but not for one that is gone. Raises
    InvalidValueError if ``top`` is not a folder, RefusedError if it is a symlink.
    """
    if os.path.islink(top):
        raise RefusedError(
            f"{shown_path(shown)} is a symlink",
            hint="name the folder that it leads to",
        )
    try:
        if not stat.S_ISDIR(os.stat(top).st_mode):
            raise InvalidValueError(f"{shown_path(shown)} is not a folder")
        volume = walk.volume(top, cross_mounts=cross_mounts)
    except FileNotFoundError as error:
        raise InvalidValueError(f"{shown_path(shown)} is not a folder") from error
    except PermissionError as error:
        raise NotPermittedError(f"{shown_path(shown)}: {reason(error)}") from error
    except OSError as error:
        raise UsernsplanError(f"{shown_path(shown)}: {reason(error)}") from error
    try:
        home = os.open(".", os.O_PATH | os.O_CLOEXEC)
        try:
            left = volume.mounts.among(top, closed) if cross_mounts else volume.mounts
            yield from _Search(volume, shown.rstrip("/"), wanted, miss, home, left).hits()
        finally:
            os.close(home)
    finally:
        os.close(volume.top)


@dataclass(frozen=True, slots=True)
class _Search:
    """One walk through one tree. ``home`` is the current folder, to which the process returns.

    ``left`` are the mount points that it does not enter.
    """

    volume: walk.OpenVolume
    shown: str
    wanted: Wanted
    miss: Callable[[Place], object]
    home: int
    left: walk.Mounts

    def hits(self) -> Iterator[Hit]:
        # Folders that wait, as the place above them and their names. Only the folders above the
        # current one have an entry here, so the list stays small even for a large tree.
        waiting: list[tuple[Parts, list[str]]] = [(TOP, [""])]
        walker = walk.Walker()
        while waiting:
            above, names = waiting[-1]
            name = names.pop()
            if not names:
                waiting.pop()
            parts = above.below(name) if name else above
            folders: list[str] = []
            try:
                pinned = walker.folder(self.volume, parts)
                try:
                    if not parts:
                        yield from self._carrying(parts, "", f"/proc/self/fd/{pinned}/.")
                    yield from self._inside(parts, pinned, folders)
                finally:
                    os.close(pinned)
            except OSError as error:
                if error.errno not in walk.GONE | {errno.EXDEV}:
                    self.miss(Place(self._path(parts), reason(error)))
            if folders:
                waiting.append((parts, folders))

    def _path(self, parts: Parts, name: str = "") -> str:
        """The path of an entry. That of a deep one is long, so it is made only where it is shown."""
        return "/".join([self.shown, *parts, *([name] if name else [])]) or "/"

    def _inside(self, parts: Parts, pinned: int, folders: list[str]) -> Iterator[Hit]:
        """The hits in one pinned folder. Its sub-folders are appended to ``folders``."""
        mounted = self.left.names.get(parts, frozenset())
        for names in walk.names(pinned, os.fstat(pinned).st_size):
            met = [name for name in names if name not in mounted] if mounted else names
            # step() changes into the folder. The caller of this generator must not run there.
            try:
                hits = self._looked_at(pinned, met, parts, folders)
            finally:
                os.fchdir(self.home)
            yield from hits

    def _looked_at(
        self, pinned: int, names: list[str], parts: Parts, folders: list[str]
    ) -> list[Hit]:
        """The hits among these entries of a folder. Entries without the ids cost only the step."""
        found = step(pinned, names, _SEARCH)
        folders += found.folders
        hits: list[Hit] = []

        for owner, of_owner in found.plain.items():
            one = InodeIds(*owner)
            if roles := tuple(self.wanted.of(one)):
                path = self._path(parts).rstrip("/")
                hits += [Hit(f"{path}/{name}", one, roles) for name in of_owner]

        for name in found.care:
            hits += self._carrying(parts, name, name)

        for name, why in found.reasons():
            self.miss(Place(self._path(parts, name), why))
        return hits

    def _carrying(self, parts: Parts, name: str, place: str) -> Iterator[Hit]:
        """The hit of an entry that needs care, if it is one; ``place`` leads to it from here."""
        try:
            one = carried(place)
        except FileNotFoundError:
            return
        except InvalidValueError as error:
            self.miss(Place(self._path(parts, name), str(error).removeprefix(f"{place}: ")))
        except OSError as error:
            self.miss(Place(self._path(parts, name), reason(error)))
        else:
            if roles := tuple(self.wanted.of(one)):
                yield Hit(self._path(parts, name), one, roles)
