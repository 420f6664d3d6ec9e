"""The id space and its capacity as JSON documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from usernsplan.mapping import KINDS
from usernsplan.report.json_ import document, range_fields

if TYPE_CHECKING:
    from usernsplan.claims.useradd import Useradd
    from usernsplan.space import Capacity, Kinds, Segment, Space


def space(found: Space) -> str:
    """The result of map: segments, conflicts (with positions of segments, from 0), free ids."""
    conflicting = found.in_conflict()
    return document(
        "map",
        segments=[
            {**_segment(s), "conflict": number in conflicting}
            for number, s in enumerate(found.segments)
        ],
        conflicts=[
            {"range": range_fields(c.ids), **_kinds(c.kinds), "segments": [c.first, c.second]}
            for c in found.conflicts
        ],
        conflicts_complete=found.is_complete,
        capacity=figures(found.capacity),
        useradd=useradd(found.useradd),
        problem=found.problem or None,
        unseen=list(found.unseen),
    )


def capacity(space: Space) -> str:
    """The result of capacity."""
    return document(
        "capacity",
        **(figures(space.capacity) or {}),
        useradd=useradd(space.useradd),
        others=[
            {
                "kind": part.source,
                "holder": part.holder,
                "places": list(part.places),
                "ranges": [range_fields(ids) for ids in part.ids],
            }
            for part in space.parts
        ],
        unseen=list(space.unseen),
    )


def figures(c: Capacity | None) -> dict[str, Any] | None:
    """The figures of a pool, in ids. ``more`` and ``more_after_forget`` count ranges of ``size`` ids.

    If ``shared`` is true, these ranges are available after the shared names are released. What is
    free is null if something of other programs could not be read.
    """
    if c is None:
        return None
    is_known = c.is_complete
    return {
        "strategy": c.strategy,
        "pool": range_fields(next(iter(c.pool))),
        "pools": [range_fields(part) for part in c.pool],
        "used": c.used,
        "free": c.free.total() if is_known else None,
        "gaps": [range_fields(gap) for gap in c.free] if is_known else None,
        "largest_gap": c.free.largest() if is_known else None,
        "size": c.count,
        "align": c.align,
        "more": c.more if is_known else None,
        "quarantined": c.quarantined,
        "more_after_forget": c.more_after_forget if is_known else None,
        "shared": c.shared,
        "exists": None if c.exists is None else [range_fields(part) for part in c.exists],
    }


def useradd(found: Useradd | None) -> dict[str, Any] | None:
    """What useradd has left; None if login.defs cannot be read."""
    if found is None:
        return None
    uids, gids = (
        {
            "range": range_fields(area) if area else None,
            "size": count,
            "more": fits,
            "computed": line or None,
        }
        for count, area, fits, line in zip(
            found.counts, found.areas, (found.uids, found.gids), found.computed, strict=True
        )
    )
    return {"more_users": found.users, "uids": uids, "gids": gids}


def _segment(s: Segment) -> dict[str, Any]:
    return {
        "range": range_fields(s.ids),
        **_kinds(s.kinds),
        "kind": s.origin,
        "label": s.label,
        "owners": list(s.owners),
        "details": list(s.details),
    }


def _kinds(kinds: Kinds) -> dict[str, bool]:
    return {kind: kind in kinds for kind in KINDS}
