"""What all pictures of the id space share: the scale, the regions to show, and the texts. Pure.

A picture has one bar for all ids, on a scale that is linear up to about 1000 and logarithmic above
it. Below it is a bar with a linear scale for each region that contains claims.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from usernsplan.escape import shown_path
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.mapping import KINDS
from usernsplan.planner import outer
from usernsplan.space import BACKGROUND, Segment, Space
from usernsplan.strategies import SLOT
from usernsplan.values import NamedTuple, dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.claims.useradd import Useradd
    from usernsplan.space import Capacity, Conflict, Kinds, Origin

WHOLE = IdRange(0, ID_LIMIT)
# The ids of the host itself: accounts, up to the largest number of 16 bits.
HOST_IDS = IdRange(0, 65536)
# Nobody reads more bars than this.
_REGIONS = 6
# Of a range longer than this, 256 containers' worth, a region shows only the first part.
_STRETCH = 256 * SLOT
_KNEE = 1000
_THOUSANDTH = 0.001

NAMES: dict[Origin, str] = {
    "allocation": "allocation",
    "filler": "filler of Docker's map",
    "shared": "shared map",
    "pass": "passes through",
    "subid": "other line",
    "account": "account",
    "group": "group",
    "namespace": "running namespaces",
    "unlisted": "ids of other programs",
    "quarantine": "quarantined",
    "reservation": "reservation",
    "reserved": "reserved by convention",
    "absent": "ids that this container lacks",
    "useradd": "where useradd looks",
    "pool": "the pool",
    "free": "free",
}
# The label of such a segment already says what it is.
_SELF_NAMED: frozenset[Origin] = frozenset({"namespace", "absent", "useradd", "pool", "free"})
# Later ones are drawn over earlier ones.
ORDER: tuple[Origin, ...] = (
    "free",
    "pool",
    "useradd",
    "reserved",
    "absent",
    "unlisted",
    "shared",
    "subid",
    "reservation",
    "quarantine",
    "allocation",
    "filler",
    "namespace",
    "group",
    "account",
    "pass",
)
LANES: tuple[Kinds, ...] = (("uid",), ("gid",))


@dataclass(frozen=True, slots=True)
class Item:
    """A segment, its position in the space, its conflicts, and how many ranges fit in it (room)."""

    number: int
    segment: Segment
    conflicts: tuple[Conflict, ...]
    room: int = 0


class Region(NamedTuple):
    """Ids that are drawn on a linear scale, and the items in them, areas included."""

    ids: IdRange
    items: tuple[Item, ...]

    def lanes(self) -> tuple[Kinds, ...]:
        """One lane if uids and gids are the same, else one for each."""
        return (KINDS,) if all(item.segment.kinds == KINDS for item in self.items) else LANES

    def claims(self) -> list[Item]:
        """The items that are claims, not areas."""
        return [item for item in self.items if item.segment.origin not in BACKGROUND]


def as_words(kinds: Kinds) -> str:
    """Kinds as text: "uids and gids"."""
    return " and ".join(f"{kind}s" for kind in kinds)


def is_in_lane(kinds: Kinds, lane: Kinds) -> bool:
    """Tell whether a lane shows claims of these kinds."""
    return any(kind in lane for kind in kinds)


def share(number: int) -> float:
    """The position of an id on the scale of the whole space, 0 to 1."""
    return math.log2(number / _KNEE + 1) / math.log2(ID_LIMIT / _KNEE + 1)


def at(part: float) -> int:
    """The id at a position on the scale of the whole space: the inverse of ``share``."""
    return min(round(_KNEE * (2 ** (part * math.log2(ID_LIMIT / _KNEE + 1)) - 1)), ID_LIMIT)


# The ids that the scale of the whole space marks.
MARKS = (0, 1000, 65536, 589824, 2**22, 2**26, 2**30, 2**32 - 2)


def items(space: Space) -> tuple[Item, ...]:
    """All segments, each with its conflicts."""
    found = space.in_conflict()
    return tuple(
        Item(number, s, tuple(found.get(number, ()))) for number, s in enumerate(space.segments)
    )


def with_free(space: Space) -> tuple[Item, ...]:
    """All segments and the free parts of the pool, by their first ids."""
    return tuple(sorted((*items(space), *_free(space)), key=lambda item: item.segment.ids.start))


def _free(space: Space) -> Iterator[Item]:
    if (figures := space.capacity) is None or not figures.is_complete:
        return
    for gap in figures.free:
        room = IdSet((gap,)).how_many(figures.count, figures.align)
        words = f"room for {room:,} more" if room else "free, but too short for one more"
        why = ("after the shared names are released",) if figures.shared else ()
        yield Item(-1, Segment(gap, KINDS, "free", words, why), (), room)


def regions(space: Space, all_items: Iterable[Item]) -> tuple[Region, ...]:
    """The regions that contain claims, by their first ids.

    The host's own ids are one of them only if they contain more than accounts without conflicts:
    the bar of the whole space shows accounts well enough.
    """
    everything = tuple(all_items)
    spans = _clusters(
        [
            (s.ids.start, min(s.ids.stop, s.ids.start + _STRETCH))
            for s in space.segments
            if _is_far(s)
        ],
        next(iter(space.capacity.pool)).start if space.capacity else 0,
    )
    # One slot more than what is taken, to show the room after it.
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
    """Tell whether it is an account or a group: one id, which people know by its name."""
    return segment.origin in {"account", "group"}


def _is_far(segment: Segment) -> bool:
    return segment.origin not in BACKGROUND and segment.ids.start >= HOST_IDS.stop


def _clusters(spans: list[tuple[int, int]], pool: int) -> list[tuple[int, int]]:
    """Join spans whose gap is shorter than the part before it, but never across the pool's start."""
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
    """About ``wanted`` ids to mark: the ends of a range, and multiples of a round number between."""
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
    numbers = Counter(item.segment.origin for item in found)
    return ", ".join(
        f"{numbers[origin]:,} {_plural(origin, numbers[origin])}"
        for origin in NAMES
        if origin in numbers
    )


def described(region: Region, space: Space) -> str:
    """A region as text: what it contains, and how much of the pool in it is free."""
    words, figures = [counted(region.claims())], space.capacity
    within = figures and IdSet((region.ids,)) & figures.pool
    if figures and within and figures.is_complete:
        free = figures.free & within
        words.append(_free_part(free.total() / within.total()))
        if not figures.shared:
            words.append(f"room for {free.how_many(figures.count, figures.align):,} more here")
    return ", ".join(words)


def _free_part(part: float) -> str:
    """The free part in percent. Only none is 0 %, and only all is 100 %."""
    whole = round(100 * part)
    if whole in {0, 100} and part != whole / 100:
        return "over 99 % free" if whole else "under 1 % free"
    return f"{whole} % free"


def _plural(origin: Origin, number: int) -> str:
    name = NAMES[origin]
    plurals = {
        "filler": "fillers of Docker's maps",
        "shared": "ranges of shared maps",
        "pass": "that pass through",
    }
    # Names that stay the same for any number.
    always = {
        "quarantine": name,
        "reserved": name,
        "namespace": f"range{'s' * (number != 1)} of running namespaces",
        "unlisted": f"range{'s' * (number != 1)} of other programs",
    }
    return always.get(origin) or (name if number == 1 else plurals.get(origin, f"{name}s"))


def clashes(space: Space) -> Iterator[str]:
    """Each conflict as text."""
    return (clash(c, space.segments[c.first], space.segments[c.second]) for c in space.conflicts)


def clash(conflict: Conflict, one: Segment, other: Segment) -> str:
    """A conflict of two segments as text."""
    return f"{conflict.ids} as {as_words(conflict.kinds)}: {_called(one)} and {_called(other)}"


def called(segment: Segment) -> str:
    """A segment's kind and name, without the kind if the name already says it."""
    if segment.origin in _SELF_NAMED:
        return segment.label
    return f"{NAMES[segment.origin]} {segment.label}"


def _called(segment: Segment) -> str:
    if segment.origin in _SELF_NAMED:
        return segment.label
    return f"{NAMES[segment.origin]} '{segment.label}'"


def left(space: Space) -> list[tuple[str, str]]:
    """What is left: the figures of the pool, or why there is none, and what useradd has."""
    rows = (
        figures(space.capacity)
        if space.capacity
        else [("pool", f"none: {shown_path(space.problem)}")]
    )
    return [*rows, *([] if space.is_of_fleet else [("useradd", useradd_words(space.useradd))])]


def figures(capacity: Capacity) -> list[tuple[str, str]]:
    """The figures of a pool: label and text."""
    part = capacity.used / capacity.pool.total()
    shown = "under 0.1 %" if 0 < part < _THOUSANDTH else f"{100 * part:.1f} %"
    least, most = ("", "") if capacity.is_complete else ("at least ", "at most ")
    room = f"{most}{capacity.more:,} more of {ids(capacity.count)} ({capacity.strategy})"
    if capacity.shared:
        room = f"any number of names, because they share the same ids; after their release {room}"
    rows = [
        ("pool", f"{capacity.pool}, {ids(capacity.pool.total())}"),
        ("used", f"{least}{ids(capacity.used)}, {shown}"),
        ("free", f"{most}{ids(capacity.free.total())}"),
        ("largest gap", f"{most}{ids(capacity.free.largest())}"),
        ("room for", room),
    ]
    if capacity.exists is not None:
        here = outer.shown(capacity.exists)
        words = f"has only the ids {here} (/proc/self/uid_map); useradd gives out others, too"
        rows.append(("this container", words))
    if capacity.quarantined:
        more = f"{capacity.more_after_forget - capacity.more:,} more"
        text = f"{ids(capacity.quarantined)}; 'release --forget' makes room for {more}"
        rows.append(("quarantined", text))
    return rows


def ids(count: int) -> str:
    """A number of ids as text."""
    return f"{count:,} id{'s' * (count != 1)}"


def useradd_words(found: Useradd | None) -> str:
    """How many more users useradd can give ranges to, as text."""
    if found is None:
        return "unknown: login.defs cannot be read, not even by useradd"
    if found.users is None:
        return "gives new users no subordinate ids on this host"
    kinds = [name for name, n in (("uids", found.uids), ("gids", found.gids)) if n == found.users]
    short = f"subordinate {' and '.join(kinds)}"
    if not found.users:
        return f"has no {short} left: it fails for the next user"
    users = f"{found.users:,} more user{'s' * (found.users != 1)}"
    if line := max(found.computed):
        return f"computes subordinate ids for {users} from their uids (line {line} of login.defs)"
    return f"has subordinate ids for {users}, then {short} run out"
