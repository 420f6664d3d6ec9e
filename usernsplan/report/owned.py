"""The files that carry some ids, as text and as JSON."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from usernsplan.escape import shown_path
from usernsplan.report.json_ import document, path_fields
from usernsplan.report.result import Result
from usernsplan.report.text import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.mapping import Mapping
    from usernsplan.model import Place
    from usernsplan.volume.owned import Count, Hit

_SHOWN = 20
_OF_GROUPS = {"group", "ACL group"}


def found(
    what: str,
    hits: Iterable[Hit],
    missed: Sequence[Place],
    left_out: Sequence[str],
    *,
    null: bool = False,
) -> Result:
    """What find-owned finds. It is printed during the search, which also fills ``missed``.

    The text is one path per line; with ``null``, the bytes of each path and a NUL.
    """
    return Result(
        lambda: (os.fsencode(one.path) + b"\0" if null else shown_path(one.path) for one in hits),
        partial(_streamed, what, hits, missed, left_out),
    )


def counted(what: str, found: Count, mapping: Mapping | None, left_out: Sequence[str]) -> Result:
    """What find-owned --count finds."""
    return Result(
        partial(_count, found, mapping), partial(_count_document, what, found, mapping, left_out)
    )


def _streamed(
    what: str, hits: Iterable[Hit], missed: Sequence[Place], left_out: Sequence[str]
) -> Iterator[str]:
    head = document("find-owned", what=what, entries=[]).rstrip()
    yield head[: head.rindex("]")].rstrip()
    last = ""
    for hit in hits:
        if last:
            yield f"{last},"
        roles = [{"role": role, "id": number} for role, number in hit.roles]
        fields = {
            **path_fields(hit.path),
            "uid": hit.carried.uid,
            "gid": hit.carried.gid,
            "roles": roles,
        }
        last = f"    {json.dumps(fields)}"
    if last:
        yield last
    mounts = json.dumps([path_fields(path) for path in left_out])
    yield f'  ],\n  "missed": {json.dumps(_places(missed))},\n  "left_out": {mounts}\n}}'


def _count_document(
    what: str, found: Count, mapping: Mapping | None, left_out: Sequence[str]
) -> str:
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
        left_out=[path_fields(path) for path in left_out],
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


def _places(missed: Sequence[Place]) -> list[dict[str, Any]]:
    return [{**path_fields(place.path), "reason": place.reason} for place in missed]
