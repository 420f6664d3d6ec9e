"""Podman's .container and .pod files that name ids: those of root, and those of accounts."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan import escape
from usernsplan.errors import RefusedError, UsernsplanError
from usernsplan.formats import quadlet_file
from usernsplan.host import files
from usernsplan.model import Quadlet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from usernsplan.formats.accounts import Accounts
    from usernsplan.formats.quadlet_file import Setting
    from usernsplan.host.unread import Miss
    from usernsplan.layout import Layout

# An administrator's folder comes before that of packages.
OF_ROOT = ("/etc/containers/systemd", "/usr/share/containers/systemd")
# Here are those that root keeps for accounts: in users/UID for one, in users for all.
USERS = "users"
_UNITS = (".container", ".pod")
_DROPINS = ".d"
# A unit has a few dozen lines, and a folder a few units; Podman looks into folders below, too.
_LARGEST = 1 << 20
_MOST = 10_000
_DEEPEST = 5


def read(
    layout: Layout, known: Accounts, granted: Collection[str], miss: Miss
) -> tuple[Quadlet, ...]:
    """The .container files that ask for a user namespace: of root, then of each account.

    ``granted`` are owners of lines. What cannot be read goes to ``miss``.
    """
    from usernsplan.host.unlisted.lxc import homes_of  # noqa: PLC0415 - its package reads this module

    found = [*of_root(layout, miss)]
    homes: list[tuple[str, str]] = []
    with suppress(UsernsplanError):  # the reader of the accounts reports it
        homes += homes_of(layout, known, granted, local=True)
    if homes:
        from usernsplan.host import mounts  # noqa: PLC0415 - most hosts have no such homes

        uids = {user.name: user.uid for user in reversed(known.users)}
        folders = _Folders(layout, miss, mounts.of_network())
        for name, home in homes:
            for_it = f"{OF_ROOT[0]}/{USERS}/{uids.get(name, name)}"
            found += _of(name, (f"{home}/.config/containers/systemd", for_it), folders)
    return tuple(found)


def of_root(layout: Layout, miss: Miss) -> tuple[Quadlet, ...]:
    """Those of root alone."""
    return tuple(_of("", OF_ROOT, _Folders(layout, miss), skip=USERS))


def _of(
    account: str, tops: Iterable[str], folders: _Folders, *, skip: str = ""
) -> Iterator[Quadlet]:
    units: dict[str, str] = {}
    dropins: dict[str, dict[str, str]] = {}
    for top in tops:
        for path in folders.paths(top, skip):
            folder, _, name = path.rpartition("/")
            if name.endswith(_UNITS):
                units.setdefault(name, path)
            else:
                unit = folder.rpartition("/")[2].removesuffix(_DROPINS)
                dropins.setdefault(unit, {}).setdefault(name, path)

    for name, path in sorted(units.items()):
        parts = [path, *(place for _, place in sorted(dropins.get(name, {}).items()))]
        said = quadlet_file.together(one for part in parts for one in folders.settings(part))
        if said.place:
            stem = name.rpartition(".")[0]
            plain = said.name if said.name and "%" not in said.name else stem
            yield Quadlet(
                plain,
                account,
                said.place.path,
                said.place.number,
                said.uids,
                said.gids,
                said.userns,
                said.whose_ids,
            )


def _is_dropins(folder: str) -> bool:
    return folder.endswith(tuple(f"{unit}{_DROPINS}" for unit in _UNITS))


class _Folders:
    """Reads units below folders; nothing below the mount points ``away`` is opened."""

    def __init__(self, layout: Layout, miss: Miss, away: Mapping[str, str] = files.NOWHERE) -> None:
        self._layout, self._miss, self._away = layout, miss, away

    def paths(self, top: str, skip: str = "") -> list[str]:
        """The units and drop-ins below a folder, but for its folder ``skip``."""
        found: list[str] = []
        try:
            self._collect(found, top, skip, 0)
        except UsernsplanError as error:
            self._miss(top, error)
        return found

    def _collect(self, found: list[str], folder: str, skip: str, depth: int) -> None:
        with files.explained(self._layout, folder):
            try:
                here = files.opened_folder(self._layout, folder, away=self._away)
            except (FileNotFoundError, NotADirectoryError):
                return
            try:
                with os.scandir(here) as entries:
                    names = sorted((one.name, one.is_dir(follow_symlinks=False)) for one in entries)
            finally:
                os.close(here)
        for name, is_folder in names:
            if len(found) > _MOST:
                raise RefusedError(
                    f"{escape.line(self._layout.path(folder))}: more than {_MOST} files",
                    hint="remove what Podman does not need",
                )
            if is_folder and name != skip and depth < _DEEPEST:
                self._collect(found, f"{folder}/{name}", "", depth + 1)
            elif name.endswith(_UNITS) or (_is_dropins(folder) and name.endswith(".conf")):
                found.append(f"{folder}/{name}")

    def settings(self, path: str) -> tuple[Setting, ...]:
        """What a file says; () if it is gone or cannot be read, which is noted."""
        try:
            with files.explained(self._layout, path):
                shown = escape.line(self._layout.path(path))
                try:
                    with files.pinned(self._layout, path, follow=True, away=self._away) as place:
                        raw = files.regular(place, shown, _LARGEST)
                except (FileNotFoundError, NotADirectoryError):
                    return ()
        except UsernsplanError as error:
            self._miss(path, error)
            return ()
        return quadlet_file.settings(raw, path)
