"""What keeps others from the files that a container makes in the source of its mount.

Either nobody but root can get to the source past the mount, or setuid does not count there. A mount
with nosuid over the source, or mode 0700 of the folder above it, makes it so.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError, of_place, reason_of
from usernsplan.escape import shell, shown_path
from usernsplan.host import accounts, busy, files, idmap, reach, spaces
from usernsplan.host.mount_tree import shown_at
from usernsplan.layout import lies_in
from usernsplan.ledger import open_ledger
from usernsplan.planner import mounts as planned
from usernsplan.planner import shelter
from usernsplan.values import replace
from usernsplan.volume import journal, protected
from usernsplan.volume.state import CHANGING, DONE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from usernsplan.host.mounts import MountPoint
    from usernsplan.host.spaces import Space
    from usernsplan.layout import Layout
    from usernsplan.model import LedgerState, Reach, VolumeMount, Way
    from usernsplan.volume.walk import OpenVolume

NOSUID, PARENT = "nosuid", "parent"
_SHUT = 0o700


@contextmanager
def opened(volume: OpenVolume) -> Iterator[int]:
    """A descriptor of a volume itself, by which nothing can be exchanged for it."""
    if not volume.only:
        yield volume.top
        return
    with of_place(volume.named):
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(volume.only, flags, dir_fd=volume.top)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def owned(
    layout: Layout, ledger: LedgerState, mount: VolumeMount, source: int, wanted: str | None
) -> str:
    """What protects this mount that is to be ours, one of PROTECT; "" for what is there already.

    A mount that stands, or whose run was interrupted, keeps its own.
    """
    for other in (*ledger.mounts, *_of_runs(layout)):
        is_same = (other.at, other.source, other.name) == (mount.at, mount.source, mount.name)
        if is_same and other.protect:
            if wanted not in {None, other.protect}:
                raise RefusedError(
                    f"{shown_path(layout.path(mount.source))} is protected by {other.protect}",
                    option="protect",
                    hint="leave out --protect, or undo that first:"
                    f" {planned.undoing(other, layout)}",
                )
            return other.protect
    if wanted == NOSUID and _is_nosuid(source):
        return ""
    if wanted == PARENT and _is_shut(layout, posixpath.dirname(mount.source)):
        return ""
    return wanted or ""


def _of_runs(layout: Layout) -> list[VolumeMount]:
    """The mounts of runs that the ledger may not know yet, because of a kill; the last ones first."""
    runs = [run for run in journal.runs(layout) if run.state in {CHANGING, DONE}]
    return [replace(m, run=run.run) for run in reversed(runs) for m in run.mounts]


def _is_nosuid(source: int) -> bool:
    """Tell whether the path of what this descriptor holds leads to a mount with nosuid.

    The descriptor may be older than that mount.
    """
    found = spaces.own().tree.leading_to(path_of(source))
    return found is not None and found.is_nosuid


def path_of(source: int) -> str:
    """The path of what this descriptor holds, as it is now."""
    return os.readlink(f"/proc/self/fd/{source}")


def _is_shut(layout: Layout, folder: str) -> bool:
    return _only_root_enters(layout.place(folder))


def is_missing(layout: Layout, mount: VolumeMount, source: int) -> bool:
    """Tell whether what is to protect a mount is not there."""
    if mount.protect == NOSUID:
        return not _is_nosuid(source)
    return mount.protect == PARENT and not _is_shut(layout, posixpath.dirname(mount.source))


def words(layout: Layout, mount: VolumeMount, *, dry_run: bool) -> str:
    """What protecting a mount does to the host."""
    verb = "would be" if dry_run else "was"
    source = shown_path(layout.path(mount.source))
    if mount.protect == NOSUID:
        return f"a mount with nosuid {verb} made over {source}: setuid files do not count there"
    above = shown_path(layout.path(posixpath.dirname(mount.source)))
    return f"the mode of {above} {verb} set to 0700: only root can enter it and all that is in it"


def undone_words(
    layout: Layout, mount: VolumeMount, shut: Mapping[str, int], *, dry_run: bool
) -> list[str]:
    """What an undo of that does to the host as it is now; none if nothing."""
    verb = "would be" if dry_run else "was"
    if mount.protect == NOSUID:
        source = layout.place(mount.source)
        if cover_at(spaces.own(), source) is None:
            return []
        return [f"the mount with nosuid over {shown_path(source)} {verb} taken away"]
    folder = posixpath.dirname(mount.source)
    if mount.protect != PARENT or folder not in shut or not _is_shut(layout, folder):
        return []
    return [f"the mode of {shown_path(layout.path(folder))} {verb} set back to {shut[folder]:04o}"]


def refuse_parent(layout: Layout, mount: VolumeMount) -> None:
    """Raise RefusedError if the folder above a volume cannot be shut."""
    if why := _why_not_shut(layout, mount):
        folder = layout.path(posixpath.dirname(mount.source))
        raise RefusedError(
            f"{shown_path(folder)} cannot be shut to everybody but root: {why}",
            option="protect",
            hint="move the volume into a folder of its own, or use --protect nosuid",
        )


def _why_not_shut(layout: Layout, mount: VolumeMount) -> str:
    folder = posixpath.dirname(mount.source)
    place = layout.place(folder)
    danger = protected.danger(folder, protected.homes_of(accounts.homes(layout)))
    if layout.is_host:
        danger = danger or protected.danger(place, (), os.path.realpath)
    if danger:
        return danger.reason
    owner = os.lstat(place).st_uid
    if owner:
        return f"it belongs to uid {owner}"
    return "it has an ACL" if reach.has_acl(place) else ""


def modes(layout: Layout, mounts: Iterable[VolumeMount]) -> dict[str, int]:
    """The mode of each folder that is to be shut, as undo gives it back."""
    found = {}
    for folder in sorted({posixpath.dirname(m.source) for m in mounts if m.protect == PARENT}):
        if not _is_shut(layout, folder):
            found[folder] = stat.S_IMODE(os.lstat(layout.place(folder)).st_mode)
        elif (before := _mode_before(layout, folder)) is not None:
            found[folder] = before
    return found


def _mode_before(layout: Layout, folder: str) -> int | None:
    """The mode that an earlier run took from a folder: the last run with the mount gives it back."""
    runs = [run for run in journal.runs(layout) if run.state in {CHANGING, DONE}]
    return next((run.shut[folder] for run in reversed(runs) if folder in run.shut), None)


def protect(layout: Layout, mount: VolumeMount, source: int) -> None:
    """Make what is to protect a mount. Raises OSError."""
    if mount.protect == NOSUID:
        idmap.over(source, [NOSUID])
    elif mount.protect == PARENT:
        _chmod(layout, posixpath.dirname(mount.source), _SHUT)


def _chmod(layout: Layout, folder: str, mode: int) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with files.pinned(layout, folder) as place:
        descriptor = os.open(place.name, flags, dir_fd=place.folder)
    try:
        # It was looked at by its path, for which somebody may have exchanged it.
        if os.fstat(descriptor).st_uid:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def unprotect(layout: Layout, mount: VolumeMount, shut: Mapping[str, int], place: str = "") -> str:
    """Take back what protected a mount. Return why that failed; "" if it did not.

    ``place`` is where the source is, if that is not its path any more.
    """
    try:
        if mount.protect == NOSUID:
            _uncover(place or layout.place(mount.source))
        elif mount.protect == PARENT:
            folder = posixpath.dirname(mount.source)
            # Somebody else's later mode stays.
            if folder in shut and _is_shut(layout, folder):
                _chmod(layout, folder, shut[folder] & 0o7777)
    except OSError as error:
        return reason_of(error)
    return ""


def _uncover(path: str) -> None:
    """Unmount our mount over a path, and what it shows of the mounts in it. Raises OSError."""
    own = spaces.own()
    cover = cover_at(own, path)
    if cover is None:
        return
    below = own.tree.by_id[cover.parent_id]
    known = {(n.device, n.root) for n in own.mounts_below(below.mount_id)}
    for inside in reversed(own.mounts_below(cover.mount_id)):
        # What somebody mounted there later stays, and keeps ours busy.
        if (inside.device, inside.root) in known:
            idmap.unmount(inside.point)
    idmap.unmount(path)


def cover_at(own: Space, path: str) -> MountPoint | None:
    """The mount with nosuid over a path that shows the same as without it; None if there is none."""
    top = own.tree.on_top(path)
    below = own.tree.by_id.get(top.parent_id) if top else None
    if top is None or below is None or top.is_idmapped:
        return None
    same = shown_at(below, path) == (top.device, top.root)
    return top if same and top.is_nosuid and not below.is_nosuid else None


@contextmanager
def with_inner_mounts(layout: Layout, mount: VolumeMount, source: int) -> Iterator[int]:
    """The descriptor to make a mount from that shows the mounts in the volume.

    What the kernel copies of a folder that a mount covers is that mount too: so it is made from the
    mount that covers, and loses its nosuid again. Raises OSError.
    """
    path = layout.place(mount.source)
    if not mount.crosses or cover_at(spaces.own(), path) is None:
        yield source
        return
    top = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not os.path.sameopenfile(top, source):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        yield top
    finally:
        os.close(top)


def not_inherited(
    layout: Layout, ledger: LedgerState, mount: VolumeMount, source: int
) -> tuple[str, ...]:
    """The options of the source's mount that the container's does not get: the nosuid that is ours.

    In the container, su has to work. What the source had before ours stays.
    """
    own = spaces.own()
    mine = [m for m in (mount, *ledger.mounts) if m.protect == NOSUID]
    for path in (layout.place(m.source) for m in mine if lies_in(mount.source, m.source)):
        cover = cover_at(own, path)
        if cover is None:
            continue
        ours = {cover.mount_id, *(n.mount_id for n in own.mounts_below(cover.mount_id))}
        if spaces.mount_id_of(source) not in ours:
            continue
        inside = [
            n
            for n in own.mounts_below(cover.parent_id)
            if n.mount_id not in ours and lies_in(n.point, layout.place(mount.source))
        ]
        if not any(n.is_nosuid for n in inside if mount.crosses):
            return (NOSUID,)
    return ()


def refuse_open(
    layout: Layout,
    mount: VolumeMount,
    source: int,
    *,
    foreseen: bool = False,
    permits: Sequence[str] = (),
) -> None:
    """Raise RefusedError if others can get to files that the container makes with their power.

    ``foreseen``: judge as if what is to protect the mount were there. ``permits`` are the flags of
    the request that its remedy needs again.
    """
    whose = shelter.of_root(mount) or shelter.powers(
        mount, accounts.read(layout), open_ledger(layout).state().allocations
    )
    if not whose:
        return
    found = reach.of(source, crosses=mount.crosses)
    above = os.lstat(os.path.dirname(layout.place(mount.source)))
    shut = (above.st_dev, above.st_ino)
    ways = shelter.open_ways(found, mount.protect if foreseen else "", shut)
    problems = shelter.problems(ways, found)
    if not problems:
        return
    source_shown = shown_path(layout.path(mount.source))
    raise RefusedError(
        f"{source_shown}: through the mount, {mount.name} could make files with the power of"
        f" {' and '.join(whose[:2])}, and others could run them past it\n"
        + "\n".join(f"  {problem}" for problem in problems),
        hint=_remedy(layout, (mount, permits), found, shut, ways),
    )


def _remedy(
    layout: Layout,
    asked: tuple[VolumeMount, Sequence[str]],
    found: Reach,
    above: tuple[int, int],
    ways: tuple[Way, ...],
) -> str:
    if not ways:
        return "let these processes end or leave, and run the same command again"
    mount, permits = asked
    closing = [
        f"{how}: {layout.command(planned.command(replace(mount, protect=option), permits))}"
        for option, how in (
            (NOSUID, "make setuid files not count there"),
            (PARENT, "let only root into the folder above"),
        )
        if not mount.protect
        and not shelter.open_ways(found, option, above)
        and (option == NOSUID or not _why_not_shut(layout, mount))
    ]
    if closing:
        return "\n  or ".join(closing)
    own = [way for way in ways if not way.pid]
    if own:
        remount = [f"mount -o remount,bind,nosuid {shell(way.path)}" for way in own]
        return "unmount what is not needed, or: " + "; ".join(remount)
    return (
        "end these processes, whose mounts receive none of ours, and run the same command again; or"
        " move the volume into a folder that only root can enter"
    )


def refuse_wide(layout: Layout, mount: VolumeMount, group: int) -> None:
    """Raise RefusedError if the mount point opens a volume that a folder keeps others from.

    The ``group`` of container root may enter too, unless it is 0.
    """
    above_source, above = (posixpath.dirname(layout.place(p)) for p in (mount.source, mount.at))
    is_private = any(_only_root_enters(folder) for folder in _and_above(above_source))
    if (
        planned.is_ours(mount.at)
        or not is_private
        or any(_only_root_enters(folder, group or None) for folder in _and_above(above))
    ):
        return
    raise RefusedError(
        f"{shown_path(layout.path(mount.at))} is open to others than root, while"
        f" {shown_path(layout.path(mount.source))} is in a folder that only root can enter",
        option="at",
        hint="leave out --at: the default is a folder that only the container can enter",
    )


def _and_above(folder: str) -> Iterator[str]:
    yield folder
    while folder != "/":
        folder = posixpath.dirname(folder)
        yield folder


def _only_root_enters(path: str, group: int | None = None) -> bool:
    """Tell whether only root, and this group, can enter a folder."""
    with suppress(OSError):
        return reach.is_shut(path, group)
    return False


def dependants(ledger: LedgerState, mounts: Iterable[VolumeMount]) -> list[VolumeMount]:
    """The other mounts that need what protects these, and do not protect it themselves."""
    mine = list(mounts)
    points = {m.at for m in mine}
    areas = [_area(m) for m in mine if m.protect and sharing(ledger, m, points) is None]
    return [
        m
        for m in ledger.mounts
        if m.at not in points and any(lies_in(m.source, area) for area in areas)
    ]


def sharing(ledger: LedgerState, mount: VolumeMount, gone: Collection[str]) -> VolumeMount | None:
    """Another mount that made the same protection anew, after somebody had taken it away.

    ``gone`` are the mount points of those that an undo takes away.
    """
    made = ((m, m.protect, _area(m)) for m in ledger.mounts if m.at not in {*gone, mount.at})
    return next((m for m, *how in made if how == [mount.protect, _area(mount)]), None)


def _area(mount: VolumeMount) -> str:
    """The folder that the protection of a mount is for."""
    return mount.source if mount.protect == NOSUID else posixpath.dirname(mount.source)


def seen_elsewhere(layout: Layout, mount: VolumeMount) -> list[str]:
    """The processes whose mount namespaces still show the volume by a mount with a map, in words."""
    return [
        f"process {one.pid} ({one.command}) at {shown_path(one.path)}"
        for one in busy.copies(layout.place(mount.source))
    ]
