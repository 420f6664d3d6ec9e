"""Claims on ids, and the index that finds those that share ids with a range. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable
from functools import cached_property
from heapq import heappop, heappush
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, TypeVar

from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.strategies import Shared
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation

# Where a claim comes from. A ``filler`` fills the gap in Docker's shared map, ``dockerroot`` is
# container root of a shared map, and ``shared`` are the host's own ids in such a map. ``unlisted``
# are ids that a program has without a line. ``useradd`` is the area in which useradd computes the
# range of every uid: of those that no account has yet, too.
# ``fleet`` are ids that other hosts have.
# ``absent`` are ids that the user namespace around this host lacks. ``pass`` are host ids that a
# private map shows: they stay the host's.
Source = Literal[
    "allocation",
    "filler",
    "dockerroot",
    "shared",
    "subid",
    "account",
    "group",
    "namespace",
    "unlisted",
    "absent",
    "reservation",
    "quarantine",
    "reserved",
    "useradd",
    "pass",
    "fleet",
]
# The place of ``number`` in a claim.
NUMBER = 6
# The number of children of a node: more make the tree flatter, fewer make a node faster to search.
_FAN = 16

_Party = TypeVar("_Party", bound=Hashable)
_Item = TypeVar("_Item")


class Claim(NamedTuple):
    """Ids of one kind that somebody has, from ``start`` up to, but without, ``stop``.

    These are plain numbers, because a line may claim ids past the last one that can exist.
    ``holder`` is a name: the account of a line (or its uid, if no account has it), a container, or
    a reason. ``path`` is the file (its name in the layout) and ``number`` the line in it. ``value``
    is what was read there (a line, an account, an extent, a namespace). ``allocation`` is the one
    that has the ids or the line.
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
        """The ids as FIRST-LAST, or the one id; they may be past the last that can exist."""
        return f"{self.start}-{self.stop - 1}" if self.stop - self.start > 1 else f"{self.start}"

    @property
    def owner(self) -> str:
        """The owner of the lines that grant the ids: that of the allocation, or else the holder."""
        return self.allocation.owner if self.allocation else self.holder

    @property
    def id_range(self) -> IdRange:
        """The ids that can exist. Raises InvalidValueError if there are none."""
        return IdRange(self.start, min(self.stop, ID_LIMIT) - self.start)

    @property
    def for_usermod(self) -> str:
        """The ids as usermod takes them: FIRST-LAST, even for one id."""
        return f"{self.start}-{self.stop - 1}"

    @property
    def is_intended(self) -> bool:
        """Tell whether an allocation shares the ids with the host on purpose."""
        a = self.allocation
        if a is not None and a.passes:
            shown = IdSet(p.extent.host_range for p in a.passes if p.kind == self.kind)
            return self.source == "pass" or (self.source == "subid" and shown.holds(self.id_range))
        is_filler = a and a.reserved_range and self.start == a.reserved_range.start
        return a is not None and a.strategy == Shared.name and not is_filler


class Claims:
    """Claims in the order of their sources. They are read and sorted only for the first question.

    Sorting takes n log n.
    """

    def __init__(self, found: Iterable[Claim]) -> None:
        self._found = found
        self._trees: dict[Kind | None, _Tree] = {}

    @cached_property
    def _all(self) -> tuple[Claim, ...]:
        return tuple(self._found)

    def __iter__(self) -> Iterator[Claim]:
        return iter(self._all)

    def where(self, keep: Callable[[Claim], object]) -> Claims:
        """The claims for which ``keep`` is true, in the same order."""
        return Claims(filter(keep, iter(self)))

    @cached_property
    def ids(self) -> IdSet:
        """Every id that somebody has, as a uid or as a gid."""
        # Most ids have several claims: as uids and as gids, by a line and by the ledger.
        return IdSet.clipped(dict.fromkeys(map(itemgetter(0, 1), self._all)))

    def free(self, pool: IdRange) -> IdSet:
        """The ids of a pool that nobody has."""
        return self.ids.gaps(pool)

    def over(
        self, start: int, stop: int, kind: Kind | None = None, *, most: int | None = None
    ) -> list[Claim]:
        """The claims with ids from ``start`` up to ``stop``: log n for each, or if there are none.

        ``kind`` None: on uids and on gids. ``most``: at most that many, in no particular choice.
        """
        return self._tree(kind).over(start, stop, most)

    def met_by(self, spans: Iterable[Claim], kind: Kind | None = None) -> list[Claim]:
        """Those of ``spans`` that share ids with one of these claims: those for which ``over`` returns some.

        Nearly always that is none of 100,000 lines; to call ``over`` for each takes ten times as long.
        """
        return self._tree(kind).met_by(spans)

    def how_many(self, start: int, stop: int, kind: Kind | None = None) -> int:
        """The number of claims that ``over`` returns: log n."""
        return self._tree(kind).how_many(start, stop)

    def _tree(self, kind: Kind | None) -> _Tree:
        if kind not in self._trees:
            self._trees[kind] = _Tree([c for c in self._all if kind in {None, c.kind}])
        return self._trees[kind]

    def of_each(self, numbers: Collection[int], kind: Kind) -> dict[int, list[Claim]]:
        """The claims on each of these ids; ids without a claim are left out.

        It takes one pass over the claims and does not sort them, because the callers ask for few ids
        of a large host, or for many of a small one.
        """
        asked = sorted(numbers)
        found: dict[int, list[Claim]] = {}
        for claim in self._all:
            if claim.kind == kind:
                for at in range(bisect_left(asked, claim.start), bisect_left(asked, claim.stop)):
                    found.setdefault(asked[at], []).append(claim)
        return found


class _Tree:
    """Claims by their start; each level above has the largest stop of every group of the one below."""

    def __init__(self, claims: list[Claim]) -> None:
        self._numbered = sorted(enumerate(claims), key=lambda one: one[1].start)
        self._starts = [claim.start for _, claim in self._numbered]
        self._stops = sorted(claim.stop for claim in claims)
        self._levels = [[claim.stop for _, claim in self._numbered]]
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            self._levels.append([max(below[n : n + _FAN]) for n in range(0, len(below), _FAN)])

    def how_many(self, start: int, stop: int) -> int:
        """The claims that begin before the range ends, minus those that end before it begins."""
        return max(bisect_left(self._starts, stop) - bisect_right(self._stops, start), 0)

    def met_by(self, spans: Iterable[Claim]) -> list[Claim]:
        """See Claims.met_by. It compares the two numbers of ``how_many``, without a call for each."""
        starts, stops = self._starts, self._stops
        if not starts:
            return []
        return [s for s in spans if bisect_left(starts, s[1]) > bisect_right(stops, s[0])]

    def over(self, start: int, stop: int, most: int | None) -> list[Claim]:
        """See Claims.over."""
        if not self.how_many(start, stop):
            return []

        # The claims from this position on begin after the range.
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


# The items over an id, by party: (-stop, position), so that the one that reaches farthest is first.
Active = dict[_Party, list[tuple[int, int]]]


def sweep(
    items: Iterable[_Item],
    span: Callable[[_Item], tuple[int, int]],
    party: Callable[[_Item], _Party],
) -> Iterator[tuple[int, _Item, int, Active[_Party]]]:
    """Each item with the earlier ones that share ids with it. ``items`` are in order of their start.

    Yields the position, the item, the number of the others, and the others, which are valid until
    the next step. It takes n log n and no time for a pair: the caller walks through as many pairs
    as it wants.
    """
    active: Active[_Party] = {}
    ends: list[tuple[int, int, _Party]] = []
    for position, item in enumerate(items):
        start, stop = span(item)
        while ends and ends[0][0] <= start:
            # The one that ends first is the last of its party.
            _, _, gone = heappop(ends)
            active[gone].pop()
            if not active[gone]:
                del active[gone]

        yield position, item, len(ends), active

        insort(active.setdefault(party(item), []), (-stop, position))
        heappush(ends, (stop, position, party(item)))


def crowded(ordered: Iterable[Claim]) -> list[Claim]:
    """Those that share ids with another one, or are joined to it by a third. ``ordered``: by their start.

    Of 100,000 lines nearly all are alone, and ``sweep`` takes ten times as long to find that.
    """
    found: list[Claim] = []
    joined: list[Claim] = []
    reach = 0
    for claim in ordered:
        start, stop = claim[:2]
        if start < reach:
            joined.append(claim)
            reach = max(reach, stop)
            continue
        if joined[1:]:
            found += joined
        joined, reach = [claim], stop
    return found + joined if joined[1:] else found


def over_others(
    claims: Iterable[Claim], *, own: bool = False
) -> Iterator[tuple[Claim, int, Iterator[Claim]]]:
    """Each claim with the number and the list of earlier claims of other holders that overlap it.

    With ``own``: of the same holder instead. Every pair occurs once, at the later claim by (start,
    number). The list is valid until the next step.
    """
    ordered = crowded(sorted(claims, key=itemgetter(0, NUMBER)))
    met = sweep(ordered, lambda claim: claim[:2], lambda claim: claim.holder)
    for _, claim, total, active in met:
        mine = active.get(claim.holder, [])
        count = len(mine) if own else total - len(mine)
        if count:
            several = [mine] if own else (of for of in active.values() if of is not mine)
            yield claim, count, (ordered[at] for of in several for _, at in of)
