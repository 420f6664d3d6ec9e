"""Idmapped mounts of volumes: their places and maps, what the ledger has of them, which may stand. Pure."""

from __future__ import annotations

import posixpath
from itertools import chain, count
from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError
from usernsplan.escape import shell, shown_path
from usernsplan.layout import lies_in, meet
from usernsplan.mapping import Extent, IdMap, Mapping
from usernsplan.model import LedgerChange
from usernsplan.values import NamedTuple, replace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from usernsplan.fixing import FixRequest
    from usernsplan.ids import IdSet
    from usernsplan.layout import Layout
    from usernsplan.model import Allocation, HostState, LedgerState, MountSeen, VolumeMount

# Below the root: the mounts of this boot, and those that return at boot.
VOLUMES, LASTING_VOLUMES = "/run/usernsplan/volumes", "/var/lib/usernsplan/volumes"
# In bytes; a name has at most 255.
_LONGEST_NAME = 240
# At most this many mounts are named.
_SHOWN = 5


class Present(NamedTuple):
    """A mount that a run made, as it is now. ``taken`` is the later run that has it instead, or ""."""

    mount: VolumeMount
    taken: str = ""


def recorded(ledger: LedgerState, name: str, source: str) -> list[VolumeMount]:
    """The recorded mounts of a volume for a container, whether they stand or not."""
    return [m for m in ledger.mounts if (m.name, m.source) == (name, source)]


def not_noted(ledger: LedgerState, mounts: Iterable[VolumeMount]) -> tuple[VolumeMount, ...]:
    """The mounts that the ledger does not have exactly so. Without a run, any may have made it."""
    now = {m.at: m for m in ledger.mounts}
    return tuple(
        m
        for m in mounts
        if m.at not in now
        or replace(now[m.at], since=m.since, event=m.event, run=m.run and now[m.at].run) != m
    )


def record(
    ledger: LedgerState, mounts: Iterable[VolumeMount], removed: Iterable[str] = ()
) -> LedgerChange:
    """What the ledger gains by these mounts, and loses: none stands at the points ``removed``.

    A container that was released since then gets none.
    """
    names = {a.name for a in ledger.allocations}
    noted = {m.at for m in ledger.mounts}
    new = tuple(m for m in not_noted(ledger, mounts) if m.name in names)
    gone = tuple(at for at in removed if at in noted)
    return LedgerChange(mounts=new, no_mounts=gone)


def may_stand(state: HostState, mount: VolumeMount) -> bool:
    """Tell whether a recorded mount shows its ids now or at the next boot, or nobody knows."""
    seen = _seen(state, mount)
    is_gone = seen is not None and not (
        seen.is_standing or seen.hidden_by or seen.is_other or seen.why
    )
    return bool(mount.lasting) or not is_gone


def stands(state: HostState, mount: VolumeMount) -> bool:
    """Tell whether a recorded mount is known to stand."""
    seen = _seen(state, mount)
    return seen is not None and seen.is_standing


def _seen(state: HostState, mount: VolumeMount) -> MountSeen | None:
    return next((one for one in state.mounts if one.at == mount.at), None)


def why_unclear(state: HostState, mount: VolumeMount) -> str:
    """Why nobody can say what a recorded mount is now; "" if it is plain, or gone."""
    seen = _seen(state, mount)
    if seen is None:
        return ""
    hidden = f"{shown_path(seen.hidden_by)} hides it" if seen.hidden_by else ""
    other = "what is mounted there does not show its volume" if seen.is_other else ""
    return seen.why or hidden or other


def unlike(state: HostState, name: str) -> tuple[VolumeMount, ...]:
    """The mounts of a container that stand with another map than the ledger has."""
    maps = {one.at: one.mapping for one in state.mounts if one.is_standing}
    return tuple(
        m
        for m in state.ledger.mounts
        if m.name == name and (now := maps.get(m.at)) and not now.is_same_as(m.mapping)
    )


def of_names(state: HostState, names: Collection[str]) -> list[VolumeMount]:
    """The recorded mounts of these containers that may stand."""
    return [m for m in state.ledger.mounts if m.name in names and may_stand(state, m)]


def of_ids(state: HostState, ids: IdSet) -> list[VolumeMount]:
    """The recorded mounts that may stand and show some of these host ids."""
    now = {one.at: one.mapping for one in state.mounts}
    return [
        m
        for m in state.ledger.mounts
        if may_stand(state, m)
        and any(
            ids.meets(e.host, e.host + e.count)
            for mapping in filter(None, (m.mapping, now.get(m.at)))
            for e in (*mapping.uids, *mapping.gids)
        )
    ]


def refuse_standing(state: HostState, standing: Sequence[VolumeMount], done: str) -> None:
    """Raise RefusedError if there are such mounts. ``done``: what was not done."""
    if not standing:
        return
    layout = state.layout
    places = [
        f"{shown_path(layout.path(m.source))} at {shown_path(layout.path(m.at))}" for m in standing
    ]
    commands = list(dict.fromkeys(undoing(m, layout) for m in standing))
    more = [f"and {len(standing) - _SHOWN} more"] if standing[_SHOWN:] else []
    whose = " and ".join(f"'{name}'" for name in sorted({m.name for m in standing}))
    raise RefusedError(
        f"volumes are mounted with the ids of {whose}: {', '.join([*places[:_SHOWN], *more])};"
        f" nothing was {done}",
        hint="take the mounts away first: " + "\n  ".join(commands[:_SHOWN] + more),
    )


def remapped(mount: VolumeMount, new: Allocation) -> VolumeMount | None:
    """A mount with its container's new map; None if that lacks the user who owns the files there."""
    if mount.mode != "own":
        return replace(mount, mapping=new.mapping)
    uid, _, gid = mount.user.partition(":")
    host = new.mapping.uids.to_host(int(uid)), new.mapping.gids.to_host(int(gid))
    if None in host:
        return None
    disk = mount.mapping.uids[0].container, mount.mapping.gids[0].container
    return replace(mount, mapping=owned((host[0] or 0, host[1] or 0), disk))


def undoing(mount: VolumeMount, layout: Layout) -> str:
    """The command that takes a mount away."""
    return layout.command(f"undo {shell(mount.run or mount.at)}")


def around(ledger: LedgerState, path: str) -> VolumeMount | None:
    """A recorded mount whose source is this path, contains it, or lies in it."""
    return next((m for m in ledger.mounts if meet(m.source, path)), None)


def present(ledger: LedgerState, made: Iterable[VolumeMount], run: str) -> list[Present]:
    """The mounts that a run made, as the ledger has them now: renames and remaps changed them."""
    noted = {m.at: m for m in ledger.mounts}
    found = []
    for mount in made:
        now = noted.get(mount.at)
        is_mine = now is None or now.run in {"", run}
        found.append(Present((is_mine and now) or mount, "" if is_mine or not now else now.run))
    return found


def default_at(ledger: LedgerState, name: str, source: str, *, lasting: bool) -> str:
    """The mount point of a volume, unless the user names one: that of before, or a new one.

    A container that was renamed keeps the mount points that it has. Its folder has the group of its
    root, so another container gets a folder of its own, also if it has the former name.
    """
    top = LASTING_VOLUMES if lasting else VOLUMES
    before = [m.at for m in recorded(ledger, name, source)]
    if found := next((at for at in before if is_ours(at) and at.startswith(f"{top}/")), None):
        return found
    others = {posixpath.dirname(m.at) for m in ledger.mounts if m.name != name}
    folders = (f"{top}/{name}", *(f"{top}/{name}.{n}" for n in range(2, len(others) + 3)))
    folder = next(one for one in folders if one not in others)
    # Two volumes may have one name here: /srv/web and /srv-web.
    taken = {m.at for m in ledger.mounts}
    last = _short(source.strip("/").replace("/", "-")) or "-"
    names = chain([last], (f"{last}.{number}" for number in count(2)))
    return next(at for at in (f"{folder}/{one}" for one in names) if at not in taken)


def _short(name: str) -> str:
    """The end of a name, which tells most, as long as a file system takes it with a number behind."""
    while len(name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
        name = name[1:]
    return name


def folder_group(allocation: Allocation) -> int:
    """The host gid that may enter the folder of a container's mounts: that of container root.

    LXC mounts as container root, so it has to get there. A host group would let its members in
    too: then only root of the host may.
    """
    gid = allocation.mapping.gids.to_host(0)
    if gid is None:
        return 0
    passes = any(kind == "gid" and gid in extent.host_range for kind, extent in allocation.passes)
    return 0 if passes else gid


def owned(host: tuple[int, int], disk: tuple[int, int]) -> Mapping:
    """The map of --mode own: one owner on disk appears as this owner."""
    uids, gids = (IdMap((Extent(old, new, 1),)) for old, new in zip(disk, host, strict=True))
    return Mapping(uids, gids)


def permits(request: FixRequest) -> tuple[str, ...]:
    """The flags with which a request permits what would be refused; a mount does not keep them."""
    flags = {"--take": request.take, "--protected": request.protected}
    return tuple(flag for flag, is_set in flags.items() if is_set)


def why_not_at(at: str, name: str, sources: Iterable[str], ledger: LedgerState) -> str:
    """Why no mount for this container can stand at a path; "" if one can.

    ``sources`` are the volumes of the same command. A folder of ours has a group that may enter it,
    so it is for one container alone.
    """
    for folder in (VOLUMES, LASTING_VOLUMES):
        if lies_in(at, folder) and posixpath.dirname(at) != f"{folder}/{name}":
            return f"{folder} is for the mounts of usernsplan itself"
    for source in sources:
        if lies_in(at, source):
            return f"it lies in the volume itself, {source}"
    for volume in (*(v.path for v in ledger.volumes), *(m.source for m in ledger.mounts)):
        if lies_in(at, volume):
            return f"it lies in the volume {volume}"
    for mount in ledger.mounts:
        if lies_in(at, mount.at) and at != mount.at:
            return f"it lies in the mount of {mount.source} at {mount.at}"
    return ""


def is_ours(at: str) -> bool:
    """Tell whether a mount point is one of our own folders, and not one that the user named."""
    return posixpath.dirname(posixpath.dirname(at)) in {VOLUMES, LASTING_VOLUMES}


def is_shown(path: str) -> bool:
    """Tell whether a path is in a folder of ours, where volumes are mounted."""
    return path.startswith((f"{VOLUMES}/", f"{LASTING_VOLUMES}/"))


def command(mount: VolumeMount, permits: Sequence[str] = ()) -> str:
    """The words of the command that makes a mount again as it was, quoted for a shell.

    ``permits`` are flags besides, see above.
    """
    options = {
        "--container": mount.name,
        "--mode": mount.mode,
        "--user": mount.user,
        "--at": "" if is_ours(mount.at) else mount.at,
    }
    flags = {
        "--persist": bool(mount.lasting),
        "--read-only": "ro" in mount.options,
        "--cross-mounts": mount.crosses,
    }
    return shell(
        "mount-volume",
        mount.source,
        *(word for option, value in options.items() if value for word in (option, value)),
        *(flag for flag, is_set in flags.items() if is_set),
        *permits,
        *(("--protect", mount.protect) if mount.protect else ()),
    )
