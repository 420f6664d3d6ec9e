"""The PATHs of a request on the host: where each really is, and whether it may be changed."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from usernsplan.errors import (
    InvalidValueError,
    NotPermittedError,
    RefusedError,
    UsernsplanError,
    concerning,
)
from usernsplan.escape import shown_path
from usernsplan.host import accounts, files
from usernsplan.host.mounts import Seen, all_mounts, mount_of
from usernsplan.layout import lies_in, meet
from usernsplan.planner.mounts import is_shown
from usernsplan.volume import decide, protected, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.fixing import FixRequest
    from usernsplan.layout import Layout

# The errors for a path that does not exist.
_NOTHING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def find(layout: Layout, request: FixRequest) -> tuple[str, ...]:
    """The real paths of the volumes of a request, each once.

    Raises RefusedError or InvalidValueError for a path that is not a volume.
    """
    places = tuple({place_of(layout, words): None for words in request.paths})
    mounts = all_mounts()
    for place in places:
        for name in (place, *walk.other_names(place, mounts)):
            for other in places:
                if place != other and lies_in(name, other):
                    raise InvalidValueError(
                        f"{place} lies in {other}", hint="name only the outer one"
                    )
    return places


def seen_twice(places: Sequence[str]) -> frozenset[str]:
    """The mount points whose content is met under another name too, so that no inode counts twice.

    Raises RefusedError for a mount point that shows a folder with a whole volume in it.
    """
    mounts = all_mounts()
    points = sorted(
        point for place in places for point in walk.Mounts.below(place, mounts).points(place)
    )
    twice: set[str] = set()
    for point in points:
        for name in walk.other_names(point, mounts):
            if any(lies_in(place, name) for place in places):
                raise RefusedError(
                    f"{point} shows {name}, which contains the volume itself", hint="unmount it"
                )
            if any(lies_in(name, place) for place in places):
                through = max((one for one in points if lies_in(name, one)), key=len, default=None)
                # Skip a point that shows only a part of what is met elsewhere, and the second of
                # two points that show the same.
                if through != name or name < point:
                    twice.add(point)
    return frozenset(twice)


def place_of(layout: Layout, words: str) -> str:
    """The real path of a PATH.

    Raises RefusedError for a symlink, for ".." and for a place outside the root; InvalidValueError
    if it does not exist; NotPermittedError or UsernsplanError if it cannot be looked at.
    """
    path = decide.source_of(words, exists=_why_unseen(placed_at(layout, words)) not in _NOTHING)
    if not path or "\0" in path:
        raise InvalidValueError(f"'{path}' is not a path")

    placed = placed_at(layout, path)
    real = os.path.realpath(placed)
    shown, hint = shown_path(path), f"name the real path, {shown_path(real)}"
    if ".." in path.split("/"):
        raise RefusedError(f"{shown} contains '..'", hint=hint)
    if os.path.islink(os.path.normpath(placed)):
        raise RefusedError(f"{shown} is a symlink", hint=hint)

    why = _why_unseen(real)
    if why in _NOTHING:
        where = "" if layout.is_host else f" ({placed}: with --root, PATH is below it)"
        raise InvalidValueError(f"{shown} does not exist{where}")
    if why == errno.EACCES:
        raise NotPermittedError(f"{shown}: permission denied", hint=_let_in(real))
    if why:
        raise UsernsplanError(f"{shown}: {os.strerror(why).lower()}")
    if layout.below(real) is None:
        raise RefusedError(f"{shown} is really {real}, which is not below --root {layout.root}")
    return real


def name_of(layout: Layout, place: str) -> str:
    """The path below the root of a volume at a real path, as the ledger and the journal keep it."""
    name = layout.below(place)
    if name is None:
        raise RefusedError(f"{place} is not below --root {layout.root}")
    return name


def _why_unseen(path: str) -> int:
    """The errno of lstat(2) for a path; 0 if there is none."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno or errno.EIO
    except ValueError:
        return errno.ENOENT  # a NUL
    return 0


def _let_in(path: str) -> str | None:
    """The remedy for EACCES; None for the usual one, to run as root."""
    if os.geteuid() == 0 and walk.kind_of(path, all_mounts()).startswith("fuse"):
        return (
            "only the user who mounted a FUSE mount may look at it: mount it with '-o allow_root',"
            " or fix the folder that it shows"
        )
    return None


def placed_at(layout: Layout, path: str) -> str:
    """The path on this machine of a path that was typed.

    It is below the root, unless it is relative or begins with the root already.
    """
    absolute = path if path.startswith("/") else f"{os.getcwd()}/{path}"
    tops = {layout.real, os.path.abspath(layout.root)}
    if layout.is_host or absolute != path or any(lies_in(path, top) for top in tops):
        return absolute
    return layout.real.rstrip("/") + absolute


def point_of(layout: Layout, words: str) -> str:
    """The path below the root that a --at means, whether it exists or not. Its folder does.

    Raises InvalidValueError for what is no path; RefusedError for a symlink, and for a place outside
    the root.
    """
    folder, name = os.path.split(placed_at(layout, words).rstrip("/"))
    is_path = bool(words) and "\0" not in words and ".." not in words.split("/")
    point = f"{os.path.realpath(folder).rstrip('/')}/{name}" if is_path else ""
    with concerning(option="at"):
        if name in {"", "."} or not point or layout.below(point) == "/":
            raise InvalidValueError(
                f"'{shown_path(words)}' is not a folder's name",
                hint="name a folder without '..', as in /mnt/web",
            )
        if os.path.islink(point):
            real = shown_path(os.path.realpath(point))
            raise RefusedError(
                f"{shown_path(point)} is a symlink", hint=f"name the real path, {real}"
            )
        return name_of(layout, point)


def refuse_dangerous(layout: Layout, request: FixRequest, places: Sequence[str]) -> None:
    """Raise RefusedError for a folder that nobody can mean.

    The other paths of a folder count as well, and with cross_mounts those of the mounts in it.
    """
    homes = protected.homes_of(accounts.homes(layout))
    host = layout if layout.is_host else files.layout_at("/")
    host_homes = protected.homes_of(accounts.homes(host))
    mounts = all_mounts()
    for place in places:
        kind = walk.kind_of(place, mounts)
        if kind in protected.NOT_FILES:
            raise RefusedError(
                f"{place} is on {kind}, a file system of the kernel",
                hint="name the folder of one volume",
            )

        names = [place, *walk.other_names(place, mounts)]
        for point in walk.Mounts.below(place, mounts).points(place) if request.cross_mounts else ():
            names += walk.other_names(point, mounts)
        # Our own mounts show the volume too; they are where they should be.
        names = [name for name in names if not is_shown(layout.below(name) or "")]
        inner = [inside for name in names if (inside := layout.below(name)) is not None]
        if not os.path.isdir(place):
            names, inner = _with_homes(names, host_homes), _with_homes(inner, homes)

        dangers = [protected.danger(name, host_homes, os.path.realpath) for name in names]
        dangers += [protected.danger(name, homes) for name in inner]
        for danger in sorted(filter(None, dangers), key=lambda danger: not danger.never):
            if danger.never or not request.protected:
                hint = "if you are sure, add --protected"
                raise RefusedError(
                    f"{place}: {danger.reason}",
                    hint="name the folder of one volume" if danger.never else hint,
                )


def refuse_dangerous_point(layout: Layout, place: str, *, permitted: bool) -> None:
    """Raise RefusedError for a place that nobody can mean as a mount point.

    ``permitted``: a home or a system folder is meant.
    """
    host = layout if layout.is_host else files.layout_at("/")
    dangers = [
        protected.danger(place, protected.homes_of(accounts.homes(host)), os.path.realpath),
        protected.danger(name_of(layout, place), protected.homes_of(accounts.homes(layout))),
    ]
    for danger in sorted(filter(None, dangers), key=lambda danger: not danger.never):
        if danger.never or not permitted:
            hint = (
                "name a folder of its own" if danger.never else "if you are sure, add --protected"
            )
            raise RefusedError(f"{shown_path(place)}: {danger.reason}", hint=hint)


def users_of(path: str, others: Sequence[Seen]) -> list[str]:
    """A note for each running container that has a real path, or a part of it, mounted.

    A container has another root than the host. A service has the host's root; a mount at the same
    point in both is one of the host.
    """
    mounts = all_mounts()
    own = mount_of(path, mounts)
    inside = own.root.rstrip("/") + path[len(own.point.rstrip("/")) :] or "/"
    root = mount_of("/", mounts)
    ours = {(mount.device, mount.root, mount.point) for mount in mounts}

    notes = []
    for seen in others:
        is_container = mount_of("/", seen.mounts)[:2] != root[:2]
        for mount in seen.mounts:
            is_meant = meet(mount.root, inside)
            # Monitors mount the host's "/". A mount of a whole file system does not mean this path.
            is_hosts = (mount.device, mount.root) == (own.device, own.root) and mount.root != inside
            is_copy = not is_container and mount[:3] in ours
            if mount.device == own.device and is_meant and not is_hosts and not is_copy:
                where = shown_path(mount.point)
                who = f"process {seen.pid} ({shown_path(seen.command)}) has it mounted at {where}"
                notes.append(
                    f"{shown_path(path)} is in use: {who}; stop its container first, or it sees"
                    " owners change"
                )
                break
    return notes


def refuse_idmapped(path: str) -> None:
    """Raise RefusedError for a path on an idmapped mount, whose ids are not those of the disk."""
    mounts = all_mounts()
    if not mount_of(path, mounts).is_idmapped:
        return
    others = walk.other_names(path, mounts)
    names = [name for name in others if not mount_of(name, mounts).is_idmapped]
    source = f": {shown_path(names[0])}" if names else ", after you unmount this"
    raise RefusedError(
        f"{shown_path(path)} is on an idmapped mount, which shows other ids than the disk has",
        hint=f"fix the folder that is mounted here{source}",
    )


def _with_homes(names: Sequence[str], homes: Sequence[str]) -> list[str]:
    """The paths of a file, and the home right above it: its programs read .bashrc or .profile."""
    return [*names, *(above for name in names if (above := os.path.dirname(name)) in homes)]
