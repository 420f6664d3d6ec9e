"""What was asked for, found on the host: where each PATH really lies, and whether it may be touched at all."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.errors import InvalidValueError, NotPermittedError, RefusedError, UsernsplanError
from usernsplan.escape import shown_path
from usernsplan.host import accounts, files
from usernsplan.host.mounts import all_mounts
from usernsplan.volume import decide, protected, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.host.mounts import Seen
    from usernsplan.layout import Layout
    from usernsplan.model import FixRequest


# What says that there is nothing of this name.
_NOTHING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


class VolumePlace(NamedTuple):
    """A volume that was asked for: where it really lies, and its name below the root, which the ledger has."""

    path: str
    name: str


def find(layout: Layout, request: FixRequest) -> tuple[VolumePlace, ...]:
    """The volumes of a request, each once. Raises RefusedError or InvalidValueError for what is none."""
    found = tuple({spot(layout, words): None for words in request.paths})
    mounts = all_mounts()
    for one in found:
        for name in (one.path, *walk.other_names(one.path, mounts)):
            for other in found:
                if one.path != other.path and decide.lies_in(name, other.path):
                    raise InvalidValueError(
                        f"{one.path} lies in {other.path}", hint="name the outer one alone"
                    )
    return found


def seen_twice(spots: Sequence[VolumePlace]) -> frozenset[str]:
    """The mount points inside whose content is met under another name too: no inode is to be counted twice.

    Raises RefusedError for one that shows a whole volume, and more.
    """
    mounts = all_mounts()
    points = sorted(
        point for spot in spots for point in walk.Mounts.below(spot.path, mounts).points(spot.path)
    )
    twice: set[str] = set()
    for point in points:
        for name in walk.other_names(point, mounts):
            if any(decide.lies_in(spot.path, name) for spot in spots):
                raise RefusedError(
                    f"{point} shows {name}, in which the volume itself lies", hint="unmount it"
                )
            if any(decide.lies_in(name, spot.path) for spot in spots):
                through = max(
                    (one for one in points if decide.lies_in(name, one)), key=len, default=None
                )
                # A part of what is met elsewhere is left out; of two points that show the same, the second.
                if through != name or name < point:
                    twice.add(point)
    return frozenset(twice)


def spot(layout: Layout, words: str) -> VolumePlace:
    """Where a PATH lies. Raises RefusedError for a symlink and '..', and errors that tell why nothing is seen there."""
    path = decide.source_of(words, exists=_why_unseen(placed_at(layout, words)) not in _NOTHING)
    if not path or "\0" in path:
        raise InvalidValueError(f"'{path}' is no path")
    placed = placed_at(layout, path)
    real = os.path.realpath(placed)
    shown, hint = (
        shown_path(path),
        f"it really is {shown_path(real)}: name that, if you mean it",
    )
    if ".." in path.split("/"):
        raise RefusedError(f"{shown} contains '..'", hint=hint)
    if os.path.islink(os.path.normpath(placed)):
        raise RefusedError(f"{shown} is a symlink", hint=hint)
    why = _why_unseen(real)
    if why in _NOTHING:
        where = "" if layout.is_host else f" ({placed}: with --root, PATH is a name below it)"
        raise InvalidValueError(f"{shown} does not exist{where}")
    if why == errno.EACCES:
        raise NotPermittedError(f"{shown}: permission denied", hint=_let_in(real))
    if why:
        raise UsernsplanError(f"{shown}: {os.strerror(why).lower()}")
    name = below(layout, real)
    if name is None:
        raise RefusedError(f"{shown} really is {real}, which is not below --root {layout.root}")
    return VolumePlace(real, name)


def _why_unseen(path: str) -> int:
    """The errno with which the system does not show what lies at a path; 0 where it does."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno or errno.EIO
    except ValueError:
        return errno.ENOENT  # a NUL
    return 0


def _let_in(path: str) -> str | None:
    """What helps where the system lets this user not in; None: what always helps."""
    if os.geteuid() == 0 and walk.kind_of(path, all_mounts()).startswith("fuse"):
        return "only who mounted it may see a FUSE mount: mount it with '-o allow_root', or fix what it shows"
    return None


def placed_at(layout: Layout, path: str) -> str:
    """Where a path that was typed lies: below the root, unless it was typed as lying there, or as relative."""
    absolute = path if path.startswith("/") else f"{os.getcwd()}/{path}"
    tops = {layout.real, os.path.abspath(layout.root)}
    if (
        layout.is_host
        or absolute != path
        or any(f"{path}/".startswith(top.rstrip("/") + "/") for top in tops)
    ):
        return absolute
    return layout.real.rstrip("/") + absolute


def refuse_dangerous(layout: Layout, request: FixRequest, spots: Sequence[VolumePlace]) -> None:
    """Raise RefusedError for a folder that nobody can mean, under whatever name it was given, or is mounted inside."""
    homes = protected.homes_of(accounts.homes(layout))
    everybody = (
        homes if layout.is_host else protected.homes_of(accounts.homes(files.layout_at("/")))
    )
    mounts = all_mounts()
    for spot in spots:
        kind = walk.kind_of(spot.path, mounts)
        if kind in protected.NOT_FILES:
            raise RefusedError(
                f"{spot.path} is {kind}, which is the kernel's own",
                hint="name the folder of one volume",
            )
        names = [spot.path, *walk.other_names(spot.path, mounts)]
        for point in (
            walk.Mounts.below(spot.path, mounts).points(spot.path) if request.cross_mounts else ()
        ):
            names += walk.other_names(point, mounts)
        inner = [inside for name in names if (inside := below(layout, name)) is not None]
        if not os.path.isdir(spot.path):
            names, inner = _with_homes(names, everybody), _with_homes(inner, homes)
        dangers = [protected.danger(name, everybody, os.path.realpath) for name in names]
        dangers += [protected.danger(name, homes) for name in inner]
        for danger in sorted(filter(None, dangers), key=lambda danger: not danger.never):
            if danger.never:
                raise RefusedError(
                    f"{spot.path}: {danger.reason}", hint="name the folder of one volume"
                )
            if not request.protected:
                raise RefusedError(
                    f"{spot.path}: {danger.reason}",
                    hint="if you mean it all the same, say --protected",
                )


def users_of(path: str, others: Sequence[Seen]) -> list[str]:
    """What is to be said of each running container that has what lies at a real path, or a part of it, mounted.

    A container has another root than the host; a service has the host's own, and what is mounted at the same point in
    both is the host's mount.
    """
    mounts = all_mounts()
    own = walk.mount_of(path, mounts)
    inside = own.root.rstrip("/") + path[len(own.point.rstrip("/")) :] or "/"
    root = walk.mount_of("/", mounts)
    ours = {(mount.device, mount.root, mount.point) for mount in mounts}
    told = []
    for seen in others:
        is_container = walk.mount_of("/", seen.mounts)[:2] != root[:2]
        for mount in seen.mounts:
            is_meant = decide.lies_in(mount.root, inside) or decide.lies_in(inside, mount.root)
            # Of a whole file system of the host (monitors mount "/"), nobody can tell what it is there for.
            is_hosts = (mount.device, mount.root) == (own.device, own.root) and mount.root != inside
            is_copy = not is_container and mount[:3] in ours
            if mount.device == own.device and is_meant and not is_hosts and not is_copy:
                where = shown_path(mount.point)
                who = f"process {seen.pid} ({shown_path(seen.command)}) has it mounted at {where}"
                told.append(
                    f"{shown_path(path)} is in use: {who}; stop its container first, or it sees owners change"
                )
                break
    return told


def refuse_idmapped(path: str) -> None:
    """Raise RefusedError for a path on an idmapped mount: ids that are given there are others on the disk."""
    mounts = all_mounts()
    if not walk.is_idmapped(path, mounts):
        return
    names = [name for name in walk.other_names(path, mounts) if not walk.is_idmapped(name, mounts)]
    source = f": {shown_path(names[0])}" if names else ", once this mount is gone"
    raise RefusedError(
        f"{shown_path(path)} lies on an idmapped mount, which shows other ids than the disk has",
        hint=f"fix the folder that is mounted here{source}",
    )


def _with_homes(names: Sequence[str], homes: Sequence[str]) -> list[str]:
    """Paths of a file, and the home that it lies right in: that account's programs read it (.bashrc, .profile)."""
    return [*names, *(above for name in names if (above := os.path.dirname(name)) in homes)]


def below(layout: Layout, path: str) -> str | None:
    """What a real path is called below the root; None where it lies outside."""
    return layout.below(path)
