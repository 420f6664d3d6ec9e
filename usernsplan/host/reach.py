"""By which paths a volume can be reached with the ids that the disk has, and who is in it already.

An idmapped mount lets container root make files that on disk are another id's and setuid. Who runs
such a file by a path of its own, without that map, gets that id.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING

from usernsplan.errors import of_place
from usernsplan.host import mounts, spaces
from usernsplan.host.mount_tree import folders_to, shown_at
from usernsplan.layout import lies_in
from usernsplan.model import Holder, Reach, Way
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from usernsplan.host.mounts import MountPoint
    from usernsplan.host.spaces import Process, Space, Spaces

_ACL = "system.posix_acl_access"
_DELETED = " (deleted)"
# Processes and mount namespaces come and go while we look at them. Then we look again.
_LOOKS = 5
_ENDED = (FileNotFoundError, ProcessLookupError)


class Part(NamedTuple):
    """What is to be reached: a part of a file system, by mountinfo's device and root."""

    device: str
    inner: str


class Source(NamedTuple):
    """What is to be reached, by a descriptor (None: it is gone); ``crosses``: the mounts in it too."""

    opened: Callable[[], AbstractContextManager[int | None]]
    crosses: bool = False


def of(source: int, *, crosses: bool = False) -> Reach:
    """How what this descriptor holds can be reached; ``crosses``: the mounts in it too.

    A mount with a map of its own is no way: it does not show the ids on disk. What cannot be looked
    at is ``unknown``. Raises UsernsplanError if there is no /proc.
    """
    return of_all([Source(partial(nullcontext, source), crosses)])[0]


def of_all(sources: Sequence[Source]) -> list[Reach]:
    """The same for many: every process is looked at once, and one source is open at a time."""
    for _ in range(_LOOKS):
        with of_place("/proc/self/mountinfo"):
            found = spaces.look()
        with suppress(_ChangedError):
            known = _Known(found, {}, {})
            places = [_place(known, one) for one in sources]
            return _with_holders(found, places)
    unknown = "processes begin and end too fast to look at them all"
    return [Reach(unknown=(unknown,))] * len(sources)


class _Regions(NamedTuple):
    """Where the volume is shown in a mount namespace, and what others must not be in."""

    shown: list[str]
    shut: list[str]


class _Place(NamedTuple):
    """Where a source is: its parts, by which ways, and its regions by mount namespace."""

    parts: Sequence[Part]
    ways: tuple[Way, ...]
    regions: Mapping[str, _Regions]


class _Known(NamedTuple):
    """What was found once for all sources.

    ``receivers`` are the peer groups that receive what is mounted in one; ``shut`` says whether
    only root enters a folder of a mount namespace.
    """

    found: Spaces
    receivers: dict[int, set[int]]
    shut: dict[tuple[str, str], bool]


class _ChangedError(Exception):
    """A process or a mount namespace has ended, or a new one has begun."""


def _place(known: _Known, one: Source) -> _Place | Reach:
    with one.opened() as source:
        if source is None:
            return Reach()
        link = f"/proc/self/fd/{source}"
        path, top = os.readlink(link), known.found.own.tree.by_id.get(spaces.mount_id(link))
        if top is None or not lies_in(path, top.point) or path.endswith(_DELETED):
            return Reach(unknown=(f"the mount of {path}",))
        return _located(known, path, top, crosses=one.crosses)


def _located(known: _Known, path: str, top: MountPoint, *, crosses: bool) -> _Place:
    found = known.found
    parts = [Part(*shown_at(top, path))]
    if crosses:
        inside = (n for n in found.own.tree.by_id.values() if n.point != path)
        parts += [Part(n.device, n.root) for n in inside if lies_in(n.point, path)]

    groups = _receivers(top, known)
    ways: list[Way] = []
    regions = {}
    for space in found.spaces:
        first = list(shows(space, parts[:1]))
        every = [*first, *shows(space, parts[1:])]
        # A mount over the volume would appear in these places, and cover what is mounted there.
        covered = [
            shown
            for mount, shown in first
            if lies_in(parts[0].inner, mount.root)
            and (mount.mount_id == top.mount_id or groups & {mount.shared, mount.master})
        ]
        here = [
            _way(known, space, mount, shown, follows=any(lies_in(shown, one) for one in covered))
            for mount, shown in every
            if not mount.is_idmapped and space.tree.leading_to(shown) is mount
        ]
        ways += here
        regions[space.name] = _Regions(
            [shown for _, shown in every], [_below(way) for way in here if not way.nosuid]
        )
    return _Place(parts, tuple(dict.fromkeys(ways)), regions)


def _with_holders(found: Spaces, places: Sequence[_Place | Reach]) -> list[Reach]:
    holders, unknown = _holders(
        found, {at: one for at, one in enumerate(places) if isinstance(one, _Place)}
    )
    return [
        one
        if isinstance(one, Reach)
        else Reach(one.ways, tuple(holders[at]), (*found.unknown, *unknown[at]))
        for at, one in enumerate(places)
    ]


def part_of(ours: Space, path: str) -> Part | None:
    """What a path of ours shows."""
    mount = ours.tree.leading_to(path)
    return Part(*shown_at(mount, path)) if mount else None


def place_of(mount: MountPoint, part: Part) -> str:
    """Where a mount shows a part of its file system, or what it shows of it; "" if nothing."""
    if lies_in(part.inner, mount.root):
        shown = mount.point.rstrip("/") + part.inner[len(mount.root.rstrip("/")) :]
        return shown.rstrip("/") or "/"
    return mount.point if lies_in(mount.root, part.inner) else ""


def shows(space: Space, parts: Sequence[Part]) -> Iterator[tuple[MountPoint, str]]:
    """The mounts that show one of these parts, whether something covers them or not, and where."""
    for part in parts:
        for mount in space.tree.showing(*part):
            if shown := place_of(mount, part):
                yield mount, shown


def _receivers(top: MountPoint, known: _Known) -> set[int]:
    """The peer groups that receive what is mounted on this mount: mount_namespaces(7)."""
    if top.shared not in known.receivers:
        groups = {top.shared} - {0}
        every = [mount for space in known.found.spaces for mount in space.tree.by_id.values()]
        while more := {one.shared for one in every if one.master in groups} - groups - {0}:
            groups |= more
        known.receivers[top.shared] = groups
    return known.receivers[top.shared]


def _way(known: _Known, space: Space, mount: MountPoint, path: str, *, follows: bool) -> Way:
    folder, above = "", os.path.dirname(path)
    try:
        seen = os.lstat(space.path(above))
        while path != "/" and not folder:
            if _only_root_enters(known, space, above):
                folder = above
            elif above == "/":
                break
            else:
                above = os.path.dirname(above)
    except _ENDED as error:
        raise _ChangedError from error
    except OSError:
        return Way(path, pid=space.pid, command=space.command)
    return Way(
        path,
        mount.is_nosuid,
        folder,
        (seen.st_dev, seen.st_ino) if path != "/" else (0, 0),
        follows,
        space.pid,
        space.command,
    )


def _only_root_enters(known: _Known, space: Space, folder: str) -> bool:
    """Tell whether a folder belongs to root, with no permission and no ACL for anybody else."""
    key = space.name, folder
    if key not in known.shut:
        known.shut[key] = _is_roots(space, folder)
    return known.shut[key]


def _is_roots(space: Space, folder: str) -> bool:
    mount = space.tree.leading_to(folder)
    # Of a network or of FUSE, the server decides who may enter.
    if mount is None or mounts.is_of_network(mount.kind):
        return False
    return is_shut(space.path(folder))


def is_shut(folder: str, group: int | None = None) -> bool:
    """Tell whether mode and ACL of a folder let only root in, and this group. Raises OSError."""
    seen = os.lstat(folder)
    others = 0o007 if group is not None and seen.st_gid == group else 0o077
    is_roots = stat.S_ISDIR(seen.st_mode) and seen.st_uid == 0 and not seen.st_mode & others
    return is_roots and not has_acl(folder)


def has_acl(path: str) -> bool:
    """Tell whether a folder has an access ACL. Raises OSError."""
    try:
        return bool(os.getxattr(path, _ACL, follow_symlinks=False))
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return False
        raise


def _below(way: Way) -> str:
    """The highest folder of a way that others cannot get to: right below the one that is shut."""
    folder = way.folder.rstrip("/")
    if not way.folder:
        return way.path
    return f"{folder}/{way.path[len(folder) + 1 :].partition('/')[0]}"


def _holders(
    found: Spaces, places: Mapping[int, _Place]
) -> tuple[dict[int, list[Holder]], dict[int, list[str]]]:
    """By source, the processes other than root's that have something open in its regions.

    And those that may not be looked at.
    """
    holders: dict[int, list[Holder]] = {at: [] for at in places}
    unknown: dict[int, list[str]] = {at: [] for at in places}
    every = {number for space in found.spaces for number in space.tree.by_id}
    looks = {
        space.name: _Looks(
            space.tree.by_id,
            every,
            {at: (one.parts, one.regions[space.name]) for at, one in places.items()},
        )
        for space in found.spaces
    }
    for process in found.processes:
        if process.is_root:
            continue
        look = looks.get(process.space)
        held = {} if look is None else _held(process, look, places)
        for at in places:
            if one := held.get(at):
                holders[at].append(one)
            elif look is None or None in held:
                unknown[at].append(f"process {process.pid} ({process.command})")
    return holders, unknown


def _held(
    process: Process, look: _Looks, wanted: Collection[int]
) -> dict[int | None, Holder | None]:
    """What a process has open, by source; with None if it may not be looked at in full."""
    found: dict[int | None, Holder | None] = {}
    left = set(wanted)
    try:
        for what, link, target in spaces.links(process):
            for at in look.leads_in(link, target, left):
                found[at] = Holder(process.pid, process.command, process.uid, what, target)
                left.remove(at)
            if not left:
                break
    except OSError:
        found[None] = None
    return found


class _Looks:
    """What is looked for in the processes of one mount namespace, for each source.

    ``by_id`` are its mounts, and ``every`` those of all.
    """

    def __init__(
        self,
        by_id: Mapping[int, MountPoint],
        every: set[int],
        wanted: Mapping[int, tuple[Sequence[Part], _Regions]],
    ) -> None:
        self._by_id = by_id
        self._every = every
        self._parts = {at: parts for at, (parts, _) in wanted.items()}
        # By path, the sources for which it is a region.
        self._all: dict[str, set[int]] = {}
        self._shut: dict[str, set[int]] = {}
        for at, (_, regions) in wanted.items():
            for one in regions.shown:
                self._all.setdefault(one, set()).add(at)
            for one in regions.shut:
                self._all.setdefault(one, set()).add(at)
                self._shut.setdefault(one, set()).add(at)

    def leads_in(self, link: str, target: str, wanted: Collection[int]) -> list[int]:
        """To which of these sources a link of a process leads, past what keeps others from it."""
        path = target.removesuffix(_DELETED)
        near = [at for at in _near(self._all, path) if at in wanted]
        if not near:
            return []
        try:
            number = spaces.mount_id(link)
            mount = self._by_id.get(number)
            if mount is None:
                # A mount of another namespace counts as nosuid; one of none may be anything.
                return [] if number in self._every else near
            found = {at for at in near if _is_part(mount, path, self._parts[at])}
            below = _near(self._shut, path).intersection(near) - found
            # From a folder one gets up to its parents and down again, past the one that is shut.
            if below and os.path.isdir(link):
                found |= below
        except _ENDED:
            return []
        return sorted(found)


def _near(regions: Mapping[str, set[int]], path: str) -> set[int]:
    """The sources in whose regions a path lies."""
    return {at for above in folders_to(path) for at in regions.get(above, ())}


def _is_part(mount: MountPoint, path: str, parts: Sequence[Part]) -> bool:
    if mount.is_idmapped or mount.is_nosuid:
        return False
    if not lies_in(path, mount.point):
        return any(mount.device == part.device for part in parts)
    there = Part(*shown_at(mount, path))
    return any(there.device == part.device and lies_in(there.inner, part.inner) for part in parts)
