"""What a container may do to the host through a mount of its volume, and what keeps it from that.

Through the mount, the container makes files that on disk belong to the ids that the mount maps, and
gives them setuid, setgid or capabilities. Anybody who runs such a file past the mount gets that id. So
either nobody but root can get to the source past the mount, or only where nosuid is set. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.escape import line, shown_path
from usernsplan.ids import IdRange, IdSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.formats.accounts import Accounts
    from usernsplan.model import Allocation, Holder, Reach, VolumeMount, Way

# A directory service is asked for each id of so short a range.
_ASKED = 16
_MOST = 5


def powers(
    mount: VolumeMount, accounts: Accounts, allocations: Iterable[Allocation] = ()
) -> tuple[str, ...]:
    """Whose power the container could give to files on disk, in words; () if nobody's.

    That is root's, or that of an account, of a group, or of another container.
    """
    if "ro" in mount.options:
        return ()
    if found := of_root(mount):
        return found
    uids, gids = (
        IdSet(IdRange(extent.container, extent.count) for extent in ids)
        for ids in (mount.mapping.uids, mount.mapping.gids)
    )

    known = _asked(uids, gids, accounts)
    groups = {0: "root", **{user.gid: user.name for user in known.users}}
    groups |= {group.gid: group.name for group in known.groups}
    return tuple(
        dict.fromkeys(
            [
                *(f"{line(u.name)} (uid {u.uid})" for u in known.users if u.uid in uids),
                *(f"the group {line(n)} (gid {g})" for g, n in sorted(groups.items()) if g in gids),
                *_of_others(mount, uids, gids, allocations),
            ]
        )
    )


def of_root(mount: VolumeMount) -> tuple[str, ...]:
    """The first of ``powers``, which needs no account to be known: root's; () without it."""
    is_roots = "ro" not in mount.options and any(
        extent.container == 0 for extent in mount.mapping.uids
    )
    return ("root (uid 0)",) if is_roots else ()


def _asked(uids: IdSet, gids: IdSet, accounts: Accounts) -> Accounts:
    """The accounts and groups, with those of a directory for a few ids."""
    if accounts.directory is None:
        return accounts
    few_uids, few_gids = (
        [number for ids in found if ids.count <= _ASKED for number in range(ids.start, ids.stop)]
        for found in (uids, gids)
    )
    return accounts.and_these(
        filter(None, map(accounts.directory.user_of, few_uids)),
        filter(None, map(accounts.directory.group_of, few_gids)),
    )


def _of_others(
    mount: VolumeMount, uids: IdSet, gids: IdSet, allocations: Iterable[Allocation]
) -> list[str]:
    """The other containers that have these ids; not those that share them with this one."""
    every = list(allocations)
    own = [a.mapping for a in every if a.name == mount.name]
    uids -= IdSet.union(IdSet(m.uids.host_ranges()) for m in own)
    gids -= IdSet.union(IdSet(m.gids.host_ranges()) for m in own)
    return [
        f"the container {a.name}"
        for a in every
        if a.name != mount.name
        and (
            uids & IdSet(a.mapping.uids.host_ranges()) or gids & IdSet(a.mapping.gids.host_ranges())
        )
    ]


def open_ways(reach: Reach, protect: str = "", above: tuple[int, int] = (0, 0)) -> tuple[Way, ...]:
    """The ways by which others get to the volume, where a file's setuid bit counts.

    ``protect`` is what will be done about it, one of PROTECT; ``above`` is the device and inode
    number of the folder that "parent" shuts.
    """
    return tuple(
        way
        for way in reach.ways
        if not (
            way.nosuid
            or way.folder
            or (protect == "nosuid" and way.follows)
            or (protect == "parent" and way.above == above)
        )
    )


def problems(ways: Sequence[Way], reach: Reach) -> tuple[str, ...]:
    """What stands against a mount, a line each; () if nobody else can get to the volume."""
    found = [_way(way) for way in ways]
    found += [holder_words(holder) for holder in reach.holders]
    found += [f"{line(place)} could not be looked at" for place in reach.unknown]
    more = len(found) - _MOST
    return (*found[:_MOST], *([f"and {more} more"] if more > 0 else []))


def _way(way: Way) -> str:
    whose = f", as process {way.pid} ({line(way.command)}) sees it," if way.pid else ""
    return f"{shown_path(way.path)}{whose} is open to others than root, and setuid counts there"


def holder_words(holder: Holder) -> str:
    """A process that has something open, in words."""
    who = f"process {holder.pid} ({line(holder.command)}) of uid {holder.uid}"
    return f"{who} has {shown_path(holder.path)} as {holder.what}"
