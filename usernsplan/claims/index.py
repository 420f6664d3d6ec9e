"""Claims on ids, and the index that finds those that share ids with a range. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable
from functools import cached_property
from heapq import heappop, heappush
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.strategies import Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation

# What a claim was found in. A ``filler`` fills the gap in Docker's shared map; ``dockerroot`` is
# container root of a shared map, and ``shared`` what such a map lays over the host's own ids.
Source = Literal[
    "allocation",
    "filler",
    "dockerroot",
    "shared",
    "subid",
    "account",
    "group",
    "namespace",
    "reservation",
    "quarantine",
    "reserved",
]
# So many children has a node of the tree: more make it flat, fewer make it narrow to search.
_FAN = 16

_Party = TypeVar("_Party", bound=Hashable)
_Item = TypeVar("_Item")


class Claim(NamedTuple):
    """Ids of one kind, from ``start`` up to but without ``stop``, that somebody has.

    A line may claim ids past the last one that can exist, so that these are plain numbers.
    ``holder`` is a name: the account of a line (the number where nobody has it), a container, a
    person, or the reason. ``path`` is the file (its name in the layout) and ``number`` the line in
    it that says so. ``value`` is what was read there (a line, an account, an extent, a namespace).
    ``allocation`` is the one that has the ids, or whose line it is.
    """

    start: int
    stop: int
    kind: Kind
    source: Source
    holder: str
    path: str = ""
    number: int = 0
    value: object = None
    allocation: Allocation | None = None

    @property
    def ids(self) -> str:
        """The ids as FIRST-LAST, or the one; also past what an id can be."""
        return f"{self.start}-{self.stop - 1}" if self.stop - self.start > 1 else f"{self.start}"

    @property
    def owner(self) -> str:
        """Who owns the lines that give the ids: of an allocation, the owner that it has."""
        return self.allocation.owner if self.allocation else self.holder

    @property
    def id_range(self) -> IdRange:
        """The ids that can exist. Raises InvalidValueError where there is none."""
        return IdRange(self.start, min(self.stop, ID_LIMIT) - self.start)

    @property
    def for_usermod(self) -> str:
        """The ids as usermod takes them: FIRST-LAST, also where they are one."""
        return f"{self.start}-{self.stop - 1}"

    @property
    def is_intended(self) -> bool:
        """Tell whether an allocation shares the ids with the host on purpose, as 'shared' does."""
        a = self.allocation
        is_filler = a and a.reserved_range and self.start == a.reserved_range.start
        return a is not None and a.strategy == Shared.name and not is_filler


class Claims:
    """Claims in the order of their sources. Nothing is read or ordered before the first question.

    Ordering them takes n log n.
    """

    def __init__(self, found: Iterable[Claim]) -> None:
        self._found = found
        self._trees: dict[Kind | None, _Tree] = {}

    @cached_property
    def _all(self) -> tuple[Claim, ...]:
        return tuple(self._found)

    def __iter__(self) -> Iterator[Claim]:
        yield from self._all

    def where(self, keep: Callable[[Claim], object]) -> Claims:
        """Those for which ``keep`` is true, in the same order."""
        return Claims(filter(keep, iter(self)))

    @cached_property
    def ids(self) -> IdSet:
        """Every id that somebody has, as a uid or as a gid."""
        # Most ids are claimed twice and more: as uids and as gids, by a line and by the ledger.
        return IdSet.clipped(dict.fromkeys(map(itemgetter(0, 1), self._all)))

    def free(self, pool: IdRange) -> IdSet:
        """The ids of a pool that nobody has."""
        return self.ids.gaps(pool)

    def over(
        self, start: int, stop: int, kind: Kind | None = None, *, most: int | None = None
    ) -> list[Claim]:
        """The claims that have ids from ``start`` up to ``stop``: log n for each, and to find none.

        ``kind`` None: on uids and on gids. ``most``: that many, whichever, where there are more.
        """
        return self._tree(kind).over(start, stop, most)

    def how_many(self, start: int, stop: int, kind: Kind | None = None) -> int:
        """How many claims ``over`` gives: log n."""
        return self._tree(kind).how_many(start, stop)

    def _tree(self, kind: Kind | None) -> _Tree:
        if kind not in self._trees:
            self._trees[kind] = _Tree([c for c in self._all if kind in {None, c.kind}])
        return self._trees[kind]

    def of_each(self, numbers: Collection[int], kind: Kind) -> dict[int, list[Claim]]:
        """Who has each of these ids; those that nobody has are left out.

        One pass over the claims, without ordering them: few ids are asked of a large host, or many
        of a small one.
        """
        asked = sorted(numbers)
        found: dict[int, list[Claim]] = {}
        for claim in self._all:
            if claim.kind == kind:
                for at in range(bisect_left(asked, claim.start), bisect_left(asked, claim.stop)):
                    found.setdefault(asked[at], []).append(claim)
        return found


class _Tree:
    """Claims by their start, and above them how far each group of them, and of groups, reaches."""

    def __init__(self, claims: list[Claim]) -> None:
        self._numbered = sorted(enumerate(claims), key=lambda one: one[1].start)
        self._starts = [claim.start for _, claim in self._numbered]
        self._stops = sorted(claim.stop for claim in claims)
        self._levels = [[claim.stop for _, claim in self._numbered]]
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            self._levels.append([max(below[n : n + _FAN]) for n in range(0, len(below), _FAN)])

    def how_many(self, start: int, stop: int) -> int:
        """Those that begin before the range ends, less those that end before it begins."""
        return max(bisect_left(self._starts, stop) - bisect_right(self._stops, start), 0)

    def over(self, start: int, stop: int, most: int | None) -> list[Claim]:
        """See Claims.over."""
        # Those that begin at this place, or behind it, begin after the range.
        end = bisect_left(self._starts, stop)
        found: list[tuple[int, Claim]] = []
        waiting = [(len(self._levels) - 1, 0)]
        while waiting and len(found) != most:
            level, at = waiting.pop()
            if at * _FAN**level >= end or self._levels[level][at] <= start:
                continue
            if level == 0:
                found.append(self._numbered[at])
            else:
                last = min((at + 1) * _FAN, len(self._levels[level - 1]))
                waiting += [(level - 1, child) for child in reversed(range(at * _FAN, last))]
        return [claim for _, claim in sorted(found, key=lambda one: one[0])]


# What lies over an id, by party: (-stop, position), so that what reaches farthest comes first.
Active = dict[_Party, list[tuple[int, int]]]


def sweep(
    items: Iterable[_Item],
    span: Callable[[_Item], tuple[int, int]],
    party: Callable[[_Item], _Party],
) -> Iterator[tuple[int, _Item, int, Active[_Party]]]:
    """Items, in the order of their starts, beside those that begin before and share ids with each.

    Gives each position and item, how many the others are, and these, until the next is asked for.
    n log n, and nothing for each pair: the caller walks through the pairs as far as it wants them.
    """
    active: Active[_Party] = {}
    ends: list[tuple[int, int, _Party]] = []
    for position, item in enumerate(items):
        start, stop = span(item)
        while ends and ends[0][0] <= start:
            # What ends first is the last of its party.
            _, _, gone = heappop(ends)
            active[gone].pop()
            if not active[gone]:
                del active[gone]

        yield position, item, len(ends), active

        insort(active.setdefault(party(item), []), (-stop, position))
        heappush(ends, (stop, position, party(item)))


def over_others(
    claims: Iterable[Claim], *, own: bool = False
) -> Iterator[tuple[Claim, int, Iterator[Claim]]]:
    """Each claim that shares ids with other holders' claims that begin before it: how many, which.

    With ``own``, with other claims of its own holder. Every pair is told once, at the later one
    by (start, number); the partners are to be taken before the next claim is asked for.
    """
    ordered = sorted(claims, key=lambda claim: (claim.start, claim.number))
    met = sweep(ordered, lambda claim: claim[:2], lambda claim: claim.holder)
    for _, claim, total, active in met:
        mine = active.get(claim.holder, [])
        count = len(mine) if own else total - len(mine)
        if count:
            several = [mine] if own else (of for of in active.values() if of is not mine)
            yield claim, count, (ordered[at] for of in several for _, at in of)
