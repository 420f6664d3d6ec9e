"""What was asked for, found on the host: where each PATH really lies, and whether it may be touched at all."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidValueError, NotPermittedError, RefusedError, UsernsplanError
from usernsplan.escape import shown_path
from usernsplan.host import accounts, files
from usernsplan.host.mounts import Seen, all_mounts
from usernsplan.volume import decide, protected, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.layout import Layout
    from usernsplan.model import FixRequest


# What says that there is nothing of this name.
_NOTHING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def find(layout: Layout, request: FixRequest) -> tuple[str, ...]:
    """Where the volumes of a request really lie, each once. Raises RefusedError or InvalidValueError for what is none."""
    places = tuple({place_of(layout, words): None for words in request.paths})
    mounts = all_mounts()
    for place in places:
        for name in (place, *walk.other_names(place, mounts)):
            for other in places:
                if place != other and decide.lies_in(name, other):
                    raise InvalidValueError(
                        f"{place} lies in {other}", hint="name the outer one alone"
                    )
    return places


def seen_twice(places: Sequence[str]) -> frozenset[str]:
    """The mount points inside whose content is met under another name too: no inode is to be counted twice.

    Raises RefusedError for one that shows a whole volume, and more.
    """
    mounts = all_mounts()
    points = sorted(
        point for place in places for point in walk.Mounts.below(place, mounts).points(place)
    )
    twice: set[str] = set()
    for point in points:
        for name in walk.other_names(point, mounts):
            if any(decide.lies_in(place, name) for place in places):
                raise RefusedError(
                    f"{point} shows {name}, in which the volume itself lies", hint="unmount it"
                )
            if any(decide.lies_in(name, place) for place in places):
                through = max(
                    (one for one in points if decide.lies_in(name, one)), key=len, default=None
                )
                # A part of what is met elsewhere is left out; of two points that show the same, the second.
                if through != name or name < point:
                    twice.add(point)
    return frozenset(twice)


def place_of(layout: Layout, words: str) -> str:
    """Where a PATH really lies.

    Raises RefusedError for a symlink and '..', and errors that tell why nothing is seen there.
    """
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
    if layout.below(real) is None:
        raise RefusedError(f"{shown} really is {real}, which is not below --root {layout.root}")
    return real


def name_of(layout: Layout, place: str) -> str:
    """The name below the root of a volume that really lies at ``place``: the ledger and the journal have it by this."""
    name = layout.below(place)
    if name is None:
        raise RefusedError(f"{place} is not below --root {layout.root}")
    return name


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


def refuse_dangerous(layout: Layout, request: FixRequest, places: Sequence[str]) -> None:
    """Raise RefusedError for a folder that nobody can mean, under whatever name it was given, or is mounted inside."""
    homes = protected.homes_of(accounts.homes(layout))
    everybody = (
        homes if layout.is_host else protected.homes_of(accounts.homes(files.layout_at("/")))
    )
    mounts = all_mounts()
    for place in places:
        kind = walk.kind_of(place, mounts)
        if kind in protected.NOT_FILES:
            raise RefusedError(
                f"{place} is {kind}, which is the kernel's own",
                hint="name the folder of one volume",
            )
        names = [place, *walk.other_names(place, mounts)]
        for point in walk.Mounts.below(place, mounts).points(place) if request.cross_mounts else ():
            names += walk.other_names(point, mounts)
        inner = [inside for name in names if (inside := layout.below(name)) is not None]
        if not os.path.isdir(place):
            names, inner = _with_homes(names, everybody), _with_homes(inner, homes)
        dangers = [protected.danger(name, everybody, os.path.realpath) for name in names]
        dangers += [protected.danger(name, homes) for name in inner]
        for danger in sorted(filter(None, dangers), key=lambda danger: not danger.never):
            if danger.never:
                raise RefusedError(
                    f"{place}: {danger.reason}", hint="name the folder of one volume"
                )
            if not request.protected:
                raise RefusedError(
                    f"{place}: {danger.reason}",
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
