"""The files that carry some ids, as text and as JSON."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from usernsplan.escape import shown_path
from usernsplan.report.json_ import document, mount_fields, path_fields
from usernsplan.report.result import Result
from usernsplan.report.text import ids_told, table
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.fixing import Place
    from usernsplan.layout import Layout
    from usernsplan.mapping import Mapping
    from usernsplan.model import VolumeMount
    from usernsplan.volume.owned import Count, Found

_SHOWN = 20
_OF_GROUPS = {"group", "ACL group"}


class Met(NamedTuple):
    """The mounts that a search met: those ``left_out``, and the recorded ones that show other ids.

    Each of ``mounts`` comes with whether it was searched.
    """

    left_out: Sequence[str]
    mounts: Sequence[tuple[VolumeMount, bool]]
    layout: Layout


def shown_otherwise(mount: VolumeMount, layout: Layout, *, searched: bool) -> str:
    """A note about a recorded mount that a search met."""
    place, source = (shown_path(layout.path(one)) for one in (mount.at, mount.source))
    does = "shows" if searched else "was not searched: it shows"
    return f"{place} {does} {source} with other ids: {ids_told(mount.mapping)}"


def found(
    what: str,
    hits: Iterable[Found],
    missed: Sequence[Place],
    met: Met,
    *,
    null: bool = False,
) -> Result:
    """What find-owned finds. It is printed during the search, which also fills ``missed``.

    The text is one path per line; with ``null``, the bytes of each path and a NUL.
    """
    return Result(
        lambda: map(_with_nul if null else _lines, hits),
        partial(_streamed, what, hits, missed, met),
    )


def _lines(one: Found) -> str:
    """The paths, one per line."""
    if one.names != [""] and one.folder.isprintable() and "".join(one.names).isprintable():
        head = f"{one.folder}/"
        return head + f"\n{head}".join(one.names)
    return "\n".join(map(shown_path, one.paths()))


def _with_nul(one: Found) -> bytes:
    return os.fsencode("".join(f"{path}\0" for path in one.paths()))


def counted(what: str, found: Count, mapping: Mapping | None, met: Met) -> Result:
    """What find-owned --count finds."""
    return Result(
        partial(_count, found, mapping), partial(_count_document, what, found, mapping, met)
    )


def _streamed(what: str, hits: Iterable[Found], missed: Sequence[Place], met: Met) -> Iterator[str]:
    head = document("find-owned", what=what, entries=[]).rstrip()
    yield head[: head.rindex("]")].rstrip()
    last = ""
    for hit in hits:
        ids = {
            "uid": hit.carried.uid,
            "gid": hit.carried.gid,
            "roles": [{"role": role, "id": number} for role, number in hit.roles],
        }
        for path in hit.paths():
            if last:
                yield f"{last},"
            last = f"    {json.dumps({**path_fields(path), **ids})}"
    if last:
        yield last
    rest = {"missed": _places(missed), **_met_fields(met)}
    yield "  ],\n" + ",\n".join(f'  "{key}": {json.dumps(rest[key])}' for key in rest) + "\n}"


def _count_document(what: str, found: Count, mapping: Mapping | None, met: Met) -> str:
    rows = [
        {"role": role, "id": number, "container_id": inside, "entries": times}
        for role, number, inside, times in _rows(found, mapping)
    ]
    totals = {role: sum(by_id.values()) for role, by_id in found.by_role.items()}
    return document(
        "find-owned-count",
        what=what,
        count=found.entries,
        by_role=totals,
        by_id=rows,
        missed=_places(found.missed),
        **_met_fields(met),
    )


def _count(found: Count, mapping: Mapping | None) -> str:
    """The number of entries, then by role and id, the most frequent first."""
    entries = "1 entry carries" if found.entries == 1 else f"{found.entries} entries carry"
    lines = [f"{entries} these ids"]
    rows = _rows(found, mapping)
    if rows:
        lines[0] += f"; the first is {shown_path(found.example)}"
        cells = [
            (role, str(number), "" if inside is None else str(inside), str(times))
            for role, number, inside, times in rows[:_SHOWN]
        ]
        lines.append(table(("as", "id", "container id", "entries"), cells))
    if len(rows) > _SHOWN:
        lines.append(f"… and {len(rows) - _SHOWN} more ids (--json has them)")
    return "\n".join(lines)


def _rows(found: Count, mapping: Mapping | None) -> list[tuple[str, int, int | None, int]]:
    rows = [
        (role, number, _inside(role, number, mapping), times)
        for role, by_id in found.by_role.items()
        for number, times in by_id.items()
    ]
    return sorted(rows, key=lambda row: (-row[3], row[1], row[0]))


def _inside(role: str, number: int, mapping: Mapping | None) -> int | None:
    if mapping is None:
        return None
    return mapping["gid" if role in _OF_GROUPS else "uid"].to_container(number)


def _met_fields(met: Met) -> dict[str, Any]:
    return {
        "left_out": [path_fields(path) for path in met.left_out],
        "mounts": [
            {**mount_fields(mount, met.layout), "searched": searched}
            for mount, searched in met.mounts
        ],
    }


def _places(missed: Sequence[Place]) -> list[dict[str, Any]]:
    return [{**path_fields(place.path), "reason": place.reason} for place in missed]
