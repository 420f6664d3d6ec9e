"""The id space of a fleet, so that the pictures and the figures of a host's serve for it too. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.ids import IdSet
from usernsplan.mapping import KINDS
from usernsplan.report.across import told
from usernsplan.report.scale import HOST_IDS
from usernsplan.space import Capacity, Segment, Space

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Mapping as Dict

    from usernsplan.fleetwide import Stretch, Taken
    from usernsplan.mapping import Kind
    from usernsplan.space import Kinds, Origin
    from usernsplan.strategies import Need

_ORIGINS: dict[str, Origin] = {
    "held": "allocation",
    "quarantined": "quarantine",
    "reserved": "reservation",
}


def capacity(pool: IdSet, taken: Dict[Kind, Taken], strategy: str, need: Need) -> Capacity:
    """The room in a pool for names that need ids which nobody has, as uids and as gids."""
    had = IdSet.union(one.ids for one in taken.values())
    kept = IdSet.union(one.quarantined for one in taken.values())
    # What is quarantined on all hosts that have it would be free; what somebody holds besides, not.
    rest = pool - IdSet.union(one.ids - one.quarantined for one in taken.values())
    free = pool - had
    return Capacity(
        strategy=strategy,
        pool=pool,
        free=free,
        count=need.count,
        align=need.align,
        more=free.how_many(need.count, need.align),
        quarantined=(kept & rest).total(),
        more_after_forget=rest.how_many(need.count, need.align),
    )


def space(stretches: Iterable[Stretch], figures: Capacity) -> Space:
    """The space of several hosts: who has which ids, and the pool."""
    pool = (Segment(part, KINDS, "pool", "the pool") for part in figures.pool)
    found = sorted(
        (*_segments(stretches), *pool),
        key=lambda s: (s.ids.start, -s.ids.count, s.origin, s.label),
    )
    return Space(tuple(found), (), figures, None, is_of_fleet=True)


def joined(stretches: Iterable[Stretch]) -> Iterator[tuple[Stretch, Kinds]]:
    """Each stretch once, with the kinds of ids as which it is there."""
    found: dict[tuple[object, ...], list[Stretch]] = {}
    for one in stretches:
        found.setdefault(one[1:], []).append(one)
    for several in found.values():
        yield several[0], tuple(kind for kind in KINDS if any(s.kind == kind for s in several))


def _segments(stretches: Iterable[Stretch]) -> Iterator[Segment]:
    for one, kinds in joined(stretches):
        hosts = told(one.hosts)
        label = f"{one.name} on {hosts}" if one.name else f"several names on {hosts}"
        origin = _ORIGINS.get(one.state)
        if origin is None:
            # Accounts are below, and what is far above them is in lines.
            origin = "account" if one.ids.stop <= HOST_IDS.stop else "subid"
            label = f"ids of {hosts}"
        details = ("other hosts may give these ids to other names",) if one.local else ()
        yield Segment(one.ids, kinds, origin, label, details, one.hosts)
