"""What Docker keeps below its data folder. A changed userns-remap hides all of it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError, UsernsplanError, reason_of
from usernsplan.host import files
from usernsplan.layout import DAEMON_JSON, DOCKER_DATA
from usernsplan.model import DockerData
from usernsplan.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.layout import Layout

# A remapped daemon keeps everything in a folder <uid>.<gid> (container root's host ids) of its
# data folder.
_REMAPPED = pattern("[0-9]+[.][0-9]+")
# Entries of the folder "volumes" that are not volumes.
_NO_VOLUMES = frozenset({"metadata.db", "backingFsBlockDev"})


def look(layout: Layout, raw: bytes | None) -> tuple[DockerData, ...]:
    """Each data folder that is not empty. ``raw`` is daemon.json, which may set "data-root".

    Raises nothing: a folder that cannot be read is listed with the reason.
    """
    base = data_folders(raw)[-1]
    folders = [base]
    found = []
    try:
        folders += remapped(layout, base)
    except UsernsplanError as error:
        found.append(DockerData(base, _unknown(error)))
    for folder in folders:
        try:
            what = ", ".join(_kept(layout, folder))
        except (OSError, UsernsplanError) as error:
            what = _unknown(error)
        if what:
            found.append(DockerData(folder, what))
    return tuple({one.path: one for one in reversed(found)}.values())[::-1]


def data_folders(raw: bytes | None) -> tuple[str, ...]:
    """Docker's default data folder, and, last, the one that its daemon.json (``raw``) sets."""
    if not raw:
        return (DOCKER_DATA,)
    # Imported here because it is slow to load, and whois needs it for few hosts.
    from usernsplan.formats import daemon_json  # noqa: PLC0415

    # Rules of ``check`` report a file that is no JSON, and dockerd does not start with no path.
    with suppress(InvalidFileError, UnicodeEncodeError):
        own = daemon_json.parse(raw, DAEMON_JSON).get(daemon_json.DATA_ROOT)
        if own and b"\0" not in os.fsencode(own):
            return tuple(dict.fromkeys((DOCKER_DATA, own)))
    return (DOCKER_DATA,)


def remapped(layout: Layout, base: str) -> list[str]:
    """The data folders UID.GID of a remapped daemon in its data folder. Raises UsernsplanError."""
    return [f"{base}/{name}" for name in files.names(layout, base) if _REMAPPED.fullmatch(name)]


def _unknown(error: OSError | UsernsplanError) -> str:
    return f"data that cannot be read ({reason_of(error) if isinstance(error, OSError) else error})"


def _kept(layout: Layout, folder: str) -> Iterator[str]:
    """What lies in one data folder, for a message: "2 containers", "1 image", …."""
    images = _images(layout, folder)
    for count, word in (
        (len(_names(layout, f"{folder}/containers")), "container"),
        (images, "image"),
        (len(_names(layout, f"{folder}/volumes") - _NO_VOLUMES), "volume"),
    ):
        if count:
            yield f"{count} {word}" + ("s" if count > 1 else "")


def _images(layout: Layout, folder: str) -> int:
    """The number of images in all stores of a data folder, those with only a name included."""
    found = 0
    for driver in _names(layout, f"{folder}/image"):
        store = f"{folder}/image/{driver}"
        kinds = _names(layout, f"{store}/imagedb/content")
        known = sum(len(_names(layout, f"{store}/imagedb/content/{kind}")) for kind in kinds)
        found += known or _named(layout, f"{store}/repositories.json")
    return found


def _named(layout: Layout, path: str) -> int:
    """The number of repositories that the file names.

    Docker first writes {"Repositories":{}}, which has none. A damaged file counts as one, because
    it may have some.
    """
    raw = files.read(layout, path, follow=True)
    try:
        return 0 if raw is None else len(json.loads(raw)["Repositories"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return 1


def _names(layout: Layout, folder: str) -> set[str]:
    """The names in a folder; empty if the folder does not exist."""
    try:
        return set(os.listdir(files.real(layout, folder, follow=True)))
    except (FileNotFoundError, NotADirectoryError):
        return set()
