"""What the pictures of the id space have in common: its scale, the regions that are worth a closer look, the words.

A picture has one bar for all ids, on a scale that is linear up to about 1000 and logarithmic above, and below it a bar
on a linear scale for each region in which something is. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.mapping import KINDS
from usernsplan.space import BACKGROUND, Segment, Space
from usernsplan.strategies import SLOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.claims.useradd import Useradd
    from usernsplan.space import Capacity, Conflict, Kinds, Origin

WHOLE = IdRange(0, ID_LIMIT)
# The ids of the host itself: accounts, and what 16 bits can hold.
HOST_IDS = IdRange(0, 65536)
# More than these bars are not read, they are counted.
_REGIONS = 6
# A range longer than this, 256 containers' worth, says where it begins; it does not stretch a region to its end.
_STRETCH = 256 * SLOT
_KNEE = 1000
_THOUSANDTH = 0.001

NAMES: dict[Origin, str] = {
    "allocation": "allocation",
    "filler": "filler of Docker's map",
    "shared": "shared map",
    "subid": "line of others",
    "account": "account",
    "group": "group",
    "namespace": "running namespaces",
    "quarantine": "quarantine",
    "reservation": "reservation",
    "reserved": "reserved by convention",
    "useradd": "where useradd looks",
    "pool": "the pool",
    "free": "free",
}
# The label of such a segment says what it is.
_SELF_NAMED: frozenset[Origin] = frozenset({"namespace", "useradd", "pool", "free"})
# What is drawn later lies above.
ORDER: tuple[Origin, ...] = (
    "free",
    "pool",
    "useradd",
    "reserved",
    "shared",
    "subid",
    "reservation",
    "quarantine",
    "allocation",
    "filler",
    "namespace",
    "group",
    "account",
)
LANES: tuple[Kinds, ...] = (("uid",), ("gid",))


@dataclass(frozen=True, slots=True)
class Item:
    """A segment with its position in the space, and the conflicts that it has; ``room``: how many ranges fit in it."""

    number: int
    segment: Segment
    conflicts: tuple[Conflict, ...]
    room: int = 0


class Region(NamedTuple):
    """A stretch of ids to be drawn on a linear scale, and what lies in it, areas included."""

    ids: IdRange
    items: tuple[Item, ...]

    def lanes(self) -> tuple[Kinds, ...]:
        """One lane where uids and gids are the same, else one for each."""
        return (KINDS,) if all(item.segment.kinds == KINDS for item in self.items) else LANES

    def claims(self) -> list[Item]:
        """What somebody has here."""
        return [item for item in self.items if item.segment.origin not in BACKGROUND]


def as_words(kinds: Kinds) -> str:
    """As what ids are claimed: "uids and gids"."""
    return " and ".join(f"{kind}s" for kind in kinds)


def is_in_lane(kinds: Kinds, lane: Kinds) -> bool:
    """Tell whether what is claimed as these kinds is seen in a lane."""
    return any(kind in lane for kind in kinds)


def share(number: int) -> float:
    """Where an id lies on the scale of the whole space, 0 to 1."""
    return math.log2(number / _KNEE + 1) / math.log2(ID_LIMIT / _KNEE + 1)


def at(part: float) -> int:
    """The id at a part of the scale of the whole space: the inverse of ``share``."""
    return min(round(_KNEE * (2 ** (part * math.log2(ID_LIMIT / _KNEE + 1)) - 1)), ID_LIMIT)


# Where the scale of the whole space is marked.
MARKS = (0, 1000, 65536, 524288, 2**22, 2**26, 2**30, 2**32 - 2)


def items(space: Space) -> tuple[Item, ...]:
    """All segments, each with its conflicts."""
    found = space.in_conflict()
    return tuple(
        Item(number, s, tuple(found.get(number, ()))) for number, s in enumerate(space.segments)
    )


def with_free(space: Space) -> tuple[Item, ...]:
    """All segments and, among them by its first id, what is free of the pool: with how many more fit in it."""
    return tuple(sorted((*items(space), *_free(space)), key=lambda item: item.segment.ids.start))


def _free(space: Space) -> Iterator[Item]:
    if (figures := space.capacity) is None:
        return
    for gap in figures.free:
        room = IdSet((gap,)).how_many(figures.count, figures.align)
        words = f"room for {room:,} more" if room else "free, too short for one more"
        why = ("once what is shared is released",) if figures.shared else ()
        yield Item(-1, Segment(gap, KINDS, "free", words, why), (), room)


def regions(space: Space, all_items: Iterable[Item]) -> tuple[Region, ...]:
    """The regions that hold anything, by their first ids.

    The host's own ids are one of them only where more than accounts is there: the whole space shows these well.
    """
    everything = tuple(all_items)
    spans = _clusters(
        [
            (s.ids.start, min(s.ids.stop, s.ids.start + _STRETCH))
            for s in space.segments
            if _is_far(s)
        ],
        space.capacity.pool.start if space.capacity else 0,
    )
    # A slot more than what is taken, so that the room behind it can be seen.
    rounded = [
        (start // SLOT * SLOT, min(-(-stop // SLOT) * SLOT + SLOT, ID_LIMIT))
        for start, stop in spans
    ]
    ranges = [HOST_IDS, *(IdRange(start, stop - start) for start, stop in rounded)]
    found = (
        Region(ids, tuple(i for i in everything if i.segment.ids.overlaps(ids))) for ids in ranges
    )
    return tuple(
        region
        for region in found
        if any(i.conflicts or not is_account(i.segment) for i in region.claims())
    )


def is_account(segment: Segment) -> bool:
    """Tell whether it is one id that people know by its name."""
    return segment.origin in {"account", "group"}


def _is_far(segment: Segment) -> bool:
    return segment.origin not in BACKGROUND and segment.ids.start >= HOST_IDS.stop


def _clusters(spans: list[tuple[int, int]], pool: int) -> list[tuple[int, int]]:
    """Join what lies near each other: nearer than the joined parts are long; never over the pool's start."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        last = found[-1] if found else None
        crosses = last and last[0] < pool <= start and last[1] <= pool
        if last and not crosses and start - last[1] <= max(last[1] - last[0], 4 * SLOT):
            found[-1] = (last[0], max(last[1], stop))
        else:
            found.append((start, stop))
    while len(found) > _REGIONS - 1:
        gaps = [later[0] / earlier[1] for earlier, later in pairwise(found)]
        nearest = gaps.index(min(gaps))
        found[nearest : nearest + 2] = [
            (found[nearest][0], max(found[nearest][1], found[nearest + 1][1]))
        ]
    return found


def ticks(ids: IdRange, wanted: int) -> list[int]:
    """About ``wanted`` ids of a range to mark: its ends, and multiples of a power of two, or of a round number."""
    step = ids.count / max(wanted, 1)
    unit = next((2**n for n in range(16, 33) if 2**n >= step), 2**32) if ids.count > SLOT else 10000
    inner = range(-(-ids.start // unit) * unit, ids.stop, unit)
    clear = ids.count / max(wanted, 1) / 2
    return [
        ids.start,
        *(n for n in inner if n - ids.start > clear and ids.last - n > clear),
        ids.last,
    ]


def counted(found: Iterable[Item]) -> str:
    """How many of each kind: "3 allocations, 1 account"."""
    numbers: dict[Origin, int] = {}
    for item in found:
        numbers[item.segment.origin] = numbers.get(item.segment.origin, 0) + 1
    return ", ".join(
        f"{numbers[origin]:,} {_plural(origin, numbers[origin])}"
        for origin in NAMES
        if origin in numbers
    )


def told(region: Region, space: Space) -> str:
    """A region in words: what lies in it, and what of the pool's part of it is free."""
    words, figures = [counted(region.claims())], space.capacity
    within = figures and IdSet((region.ids,)) & IdSet((figures.pool,))
    if figures and within:
        free = figures.free & within
        words.append(_free_part(free.total() / within.total()))
        if not figures.shared:
            words.append(f"room for {free.how_many(figures.count, figures.align):,} more here")
    return ", ".join(words)


def _free_part(part: float) -> str:
    """Only nothing is 0 %, and only everything is 100 %."""
    whole = round(100 * part)
    if whole in {0, 100} and part != whole / 100:
        return "over 99 % free" if whole else "under 1 % free"
    return f"{whole} % free"


def _plural(origin: Origin, number: int) -> str:
    name = NAMES[origin]
    plurals = {
        "subid": "lines of others",
        "filler": "fillers of Docker's maps",
        "shared": "ranges of shared maps",
    }
    # Of these it is not known how many they are, or a number of them needs other words.
    always = {
        "quarantine": "in quarantine",
        "reserved": name,
        "namespace": f"range{'s' * (number != 1)} of running namespaces",
    }
    return always.get(origin) or (name if number == 1 else plurals.get(origin, f"{name}s"))


def clashes(space: Space) -> Iterator[str]:
    """Each conflict in words."""
    return (clash(c, space.segments[c.first], space.segments[c.second]) for c in space.conflicts)


def clash(conflict: Conflict, one: Segment, other: Segment) -> str:
    """A conflict of these two in words."""
    return f"{conflict.ids} as {as_words(conflict.kinds)}: {_called(one)} and {_called(other)}"


def called(segment: Segment) -> str:
    """A segment's kind and name, where the name does not say the kind."""
    return (
        segment.label
        if segment.origin in _SELF_NAMED
        else f"{NAMES[segment.origin]} {segment.label}"
    )


def _called(segment: Segment) -> str:
    return f"{NAMES[segment.origin]} '{segment.label}'"


def figures(capacity: Capacity) -> list[tuple[str, str]]:
    """The figures of a pool: what, and how many."""
    part = capacity.used / capacity.pool.count
    shown = "under 0.1 %" if 0 < part < _THOUSANDTH else f"{100 * part:.1f} %"
    room = f"{capacity.more:,} more of {ids(capacity.count)} ({capacity.strategy})"
    if capacity.shared:
        room = f"any number of names: all share the same ids; once they are released, for {room}"
    rows = [
        ("pool", f"{capacity.pool}, {ids(capacity.pool.count)}"),
        ("used", f"{ids(capacity.used)}, {shown}"),
        ("free", ids(capacity.free.total())),
        ("largest gap", ids(capacity.free.largest())),
        ("room for", room),
    ]
    if capacity.quarantined:
        forgotten = capacity.more_after_forget - capacity.more
        rows.append(
            (
                "quarantine",
                f"{ids(capacity.quarantined)}; 'release --forget' makes room for {forgotten:,} more",
            )
        )
    return rows


def ids(count: int) -> str:
    """How many ids."""
    return f"{count:,} id{'s' * (count != 1)}"


def useradd_words(found: Useradd | None) -> str:
    """When useradd runs out of ranges."""
    if found is None:
        return "login.defs cannot be read, by useradd neither"
    if found.users is None:
        return "gives no ids to new users on this host"
    sorts = [
        name
        for name, n in (("uids", found.uids), ("gids", found.gids))
        if n is not None and n == found.users
    ]
    short = f"subordinate {' and '.join(sorts)}"
    if not found.users:
        return f"has no {short} left: it fails for the next user"
    return f"has subordinate ids for {found.users:,} more user{'s' * (found.users != 1)}, then {short} run out"
