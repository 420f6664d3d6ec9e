"""Docker's data roots: a folder UID.GID tells which ids its containers had, and its files have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.host import docker, files
from usernsplan.host.unread import fail, missing
from usernsplan.layout import DAEMON_JSON, Layout
from usernsplan.mapping import KINDS
from usernsplan.model import DOCKER, Unlisted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.host.unread import Miss

# The folder has the first ids and does not say how many there are; dockremap usually has so many.
_COUNT = 65536


def data_roots(layout: Layout, miss: Miss = fail) -> tuple[Unlisted, ...]:
    """The ids of each data root of a remapped daemon, below the default folder and "data-root".

    Ids below 65536 are the host's own: the shared strategy gives them to Docker on purpose.
    """
    raw = files.read(layout, DAEMON_JSON, follow=True)
    found: list[Unlisted] = []
    for base in docker.data_folders(raw):
        with missing(base, miss):
            found += _in(layout, base)
    return tuple(found)


def _in(layout: Layout, base: str) -> Iterator[Unlisted]:
    for path in docker.remapped(layout, base):
        starts = map(int, path.rpartition("/")[2].split("."))
        for kind, start in zip(KINDS, starts, strict=True):
            if start >= _COUNT:
                ids = (kind, start, start + _COUNT)
                yield Unlisted(DOCKER, f"data root {path}", *ids, path=path)
