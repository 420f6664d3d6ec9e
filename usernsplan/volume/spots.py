"""What was asked for, found on the host: where each PATH really lies, and whether it may be touched at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.formats.accounts import Accounts, groups, users
from usernsplan.host import accounts, files
from usernsplan.volume import decide, protected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.layout import Layout
    from usernsplan.model import FixRequest


class Spot(NamedTuple):
    """A volume that was asked for: where it really lies, and its name below the root, which the ledger has."""

    path: str
    name: str


def find(layout: Layout, request: FixRequest) -> tuple[Spot, ...]:
    """The volumes of a request, each once. Raises RefusedError or InvalidValueError for what is none."""
    found = {_spot(layout, words): None for words in request.paths}
    spots = tuple(found)
    for spot in spots:
        for other in spots:
            if spot.path.startswith(other.path.rstrip("/") + "/"):
                raise InvalidValueError(f"{spot.path} lies in {other.path}", hint="name the outer one alone")
    return spots


def _spot(layout: Layout, words: str) -> Spot:
    """Where a PATH lies. Raises RefusedError for a symlink and '..', InvalidValueError for what is no folder."""
    path = decide.source_of(words, exists=os.path.lexists(_placed(layout, words)))
    if not path or "\0" in path:
        raise InvalidValueError(f"'{path}' is no path")
    placed = _placed(layout, path)
    shown = decide.printable(path)
    if ".." in path.split("/"):
        raise RefusedError(
            f"{shown} contains '..'", hint=f"it really is {os.path.realpath(placed)}: name that, if you mean it"
        )
    if os.path.islink(placed):
        raise RefusedError(
            f"{shown} is a symlink", hint=f"it leads to {os.path.realpath(placed)}: name that, if you mean it"
        )
    real = os.path.realpath(placed)
    if not os.path.lexists(real):
        where = "" if layout.is_host else f" ({placed}: with --root, PATH is a name below it)"
        raise InvalidValueError(f"{shown} does not exist{where}")
    if not os.path.isdir(real):
        raise InvalidValueError(f"{shown} is not a folder", hint="a volume is a folder; give a single file with chown")
    if layout.is_host:
        return Spot(real, real)
    if real != layout.real and not real.startswith(layout.real.rstrip("/") + "/"):
        raise RefusedError(f"{shown} really is {real}, which is not below --root {layout.root}")
    return Spot(real, real[len(layout.real.rstrip("/")) :] or "/")


def _placed(layout: Layout, path: str) -> str:
    """Where a path that was typed lies: below the root, unless it was typed as lying there, or as relative."""
    absolute = os.path.abspath(path) if not path.startswith("/") else path
    absolute = absolute.rstrip("/") or "/"
    below = layout.real.rstrip("/")
    if layout.is_host or not path.startswith("/") or f"{absolute}/".startswith(f"{below}/"):
        return absolute
    return below + absolute


def refuse_dangerous(layout: Layout, request: FixRequest, spots: Sequence[Spot]) -> None:
    """Raise RefusedError for a volume that nobody can mean, whatever name it has."""
    homes = protected.homes_of(accounts.homes(layout))
    for spot in spots:
        dangers = [protected.danger(spot.name, homes)]
        if not layout.is_host:
            everybody = protected.homes_of(accounts.homes(files.layout_at("/")))
            dangers.append(protected.danger(spot.path, everybody, os.path.realpath))
        elif dangers == [None]:
            dangers = [protected.danger(spot.path, homes, os.path.realpath)]
        for danger in dangers:
            if danger and danger.never:
                raise RefusedError(f"{spot.path}: {danger.reason}", hint="name the folder of one volume")
            if danger and not request.yes:
                raise RefusedError(f"{spot.path}: {danger.reason}", hint="if you mean it all the same, say --yes")
        seen = os.stat(spot.path)
        if (seen.st_dev, seen.st_ino) in precious():
            raise RefusedError(
                f"{spot.path} is a system folder under another name", hint="name the folder of one volume"
            )


def precious() -> frozenset[tuple[int, int]]:
    """The inodes of what no name may lead us to: a bind mount gives it another name."""
    found = (os.stat(path) for path in protected.NEVER if os.path.isdir(path))
    return frozenset((seen.st_dev, seen.st_ino) for seen in found)


def passwd(path: str | None) -> Accounts:
    """Users of an image's passwd, and groups of the file 'group' beside it."""
    if path is None:
        return Accounts()
    try:
        with open(path, "rb") as file:
            found = tuple(users(file.read()))
        group_path = os.path.join(os.path.dirname(path), "group")
        if not os.path.exists(group_path):
            return Accounts(found)
        with open(group_path, "rb") as file:
            return Accounts(found, tuple(groups(file.read())))
    except OSError as error:
        raise InvalidValueError(f"--passwd {path}: {(error.strerror or str(error)).lower()}") from error
