"""Podman: the ids that root's .container and .pod files name. Root's Podman needs no line for them.

A unit that does not run keeps its ids all the same: its volumes have them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan import escape
from usernsplan.errors import InvalidFileError
from usernsplan.formats import quadlet_file
from usernsplan.host import quadlets
from usernsplan.host.unread import fail, missing
from usernsplan.mapping import KINDS
from usernsplan.model import PODMAN, Unlisted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.host.unread import Miss
    from usernsplan.layout import Layout
    from usernsplan.model import Quadlet

UNITS = quadlets.OF_ROOT[0]


def of_root(layout: Layout, miss: Miss = fail) -> tuple[Unlisted, ...]:
    """The ids of each unit of root's with a map of its own."""
    found: list[Unlisted] = []
    for unit in quadlets.of_root(layout, miss):
        with missing(unit.path, miss):
            found += _of(layout, unit)
    return tuple(found)


def _of(layout: Layout, unit: Quadlet) -> Iterator[Unlisted]:
    """The ids of one unit. Podman takes the one map for the other, too.

    What Podman does not take has no ids, because the container does not start. Raises
    InvalidFileError for a specifier of systemd, whose value is known only when the unit starts.
    """
    for kind, texts in zip(KINDS, (unit.uids or unit.gids, unit.gids or unit.uids), strict=True):
        for text in texts:
            if "%" in text:
                raise InvalidFileError(
                    escape.line(f"{layout.path(unit.path)}:{unit.number}"),
                    f"which ids '{escape.utf8(text)}' are is known only when the unit starts",
                    hint="write the numbers",
                )
            for ids in quadlet_file.host_ids(text, kind):
                what = f"container {unit.name}"
                yield Unlisted(
                    PODMAN, what, kind, ids.start, ids.stop, unit.name, unit.path, unit.number
                )
