"""The id space and its capacity as JSON documents: exact numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from usernsplan.mapping import KINDS
from usernsplan.report import json_

if TYPE_CHECKING:
    from usernsplan.claims.useradd import Useradd
    from usernsplan.space import Capacity, Kinds, Segment, Space


def document(space: Space) -> str:
    """The result of map: segments, conflicts (between which segments, counted from 0), what is free."""
    found = space.in_conflict()
    return json_.document(
        "map",
        segments=[
            {**_segment(s), "conflict": number in found} for number, s in enumerate(space.segments)
        ],
        conflicts=[
            {
                "start": c.ids.start,
                "count": c.ids.count,
                **_kinds(c.kinds),
                "segments": [c.first, c.second],
            }
            for c in space.conflicts
        ],
        conflicts_complete=space.is_complete,
        capacity=figures(space.capacity),
        useradd=useradd(space.useradd),
        problem=space.problem or None,
    )


def capacity(space: Space) -> str:
    """The result of capacity."""
    return json_.document(
        "capacity", **(figures(space.capacity) or {}), useradd=useradd(space.useradd)
    )


def figures(c: Capacity | None) -> dict[str, Any] | None:
    """The figures of a pool, in ids; ``more`` and ``more_after_forget`` are ranges of ``size`` ids.

    Where ``shared`` is true they can be given once the shared ones are released.
    """
    if c is None:
        return None
    return {
        "strategy": c.strategy,
        "pool": [c.pool.start, c.pool.count],
        "used": c.used,
        "free": c.free.total(),
        "gaps": [[gap.start, gap.count] for gap in c.free],
        "largest_gap": c.free.largest(),
        "size": c.count,
        "align": c.align,
        "more": c.more,
        "quarantined": c.quarantined,
        "more_after_forget": c.more_after_forget,
        "shared": c.shared,
    }


def useradd(found: Useradd | None) -> dict[str, Any] | None:
    """What useradd has left, None where login.defs cannot be read."""
    if found is None:
        return None
    sides: dict[str, Any] = {}
    for name, count, area, fits in zip(
        ("uids", "gids"), found.counts, found.areas, (found.uids, found.gids), strict=True
    ):
        sides[name] = {
            "range": [area.start, area.count] if area else None,
            "size": count,
            "more": fits,
        }
    return {"more_users": found.users, **sides}


def _segment(s: Segment) -> dict[str, Any]:
    return {
        "start": s.ids.start,
        "count": s.ids.count,
        **_kinds(s.kinds),
        "kind": s.origin,
        "label": s.label,
        "owners": list(s.owners),
        "details": list(s.details),
    }


def _kinds(kinds: Kinds) -> dict[str, bool]:
    return {kind: kind in kinds for kind in KINDS}
