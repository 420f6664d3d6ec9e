"""Ranges of ids, and sets of them. Pure; uids and gids look the same here.

All ranges are half-open, [start, stop): one overlap test then serves everywhere, and a range that ends where another
begins does not overlap it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import chain
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidValueError
from usernsplan.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# (uid_t)-1 means "no change" to chown(2) and "no id" to the kernel: 4294967295 is never an id.
# Source: user_namespaces(7).
ID_LIMIT = 4294967295
# stat(2) shows an unmapped id as this: the default of /proc/sys/kernel/overflowuid and overflowgid.
OVERFLOW_ID = 65534


@dataclass(frozen=True, order=True, slots=True)
class IdRange:
    """``count`` ids, the first of which is ``start``.

    Raises InvalidValueError unless ``start`` >= 0, ``count`` >= 1 and every id is below 4294967295.

    >>> ids = IdRange(589824, 65536)
    >>> ids.stop, ids.last, str(ids)
    (655360, 655359, '589824-655359')
    >>> 655359 in ids, 655360 in ids
    (True, False)
    """

    start: int
    count: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.count < 1 or self.start + self.count > ID_LIMIT:
            raise InvalidValueError(
                f"no such range of ids: start {self.start}, count {self.count}",
                hint="ids are 0 to 4294967294, and a range has at least one",
            )

    @property
    def stop(self) -> int:
        """The first id after the range."""
        return self.start + self.count

    @property
    def last(self) -> int:
        """The last id of the range."""
        return self.start + self.count - 1

    @classmethod
    def parse(cls, text: str) -> IdRange:
        """Read ``FIRST-LAST``, both inclusive, as ``usermod --add-subuids`` does.

        Raises InvalidValueError for other text, and for a range that cannot exist.

        >>> IdRange.parse("589824-655359")
        IdRange(start=589824, count=65536)
        """
        match = re.fullmatch(r"([0-9]{1,10})-([0-9]{1,10})", text)
        if not match:
            raise InvalidValueError(
                f"'{text}' is not a range", hint="write FIRST-LAST in decimal: 589824-1879048191"
            )
        first, last = map(int, match.groups())
        return cls(first, last - first + 1)

    def overlaps(self, other: IdRange) -> bool:
        """Tell whether at least one id is in both ranges.

        >>> IdRange(0, 10).overlaps(IdRange(9, 1)), IdRange(0, 10).overlaps(IdRange(10, 5))
        (True, False)
        """
        return self.start < other.stop and other.start < self.stop

    def __contains__(self, number: int) -> bool:
        return self.start <= number < self.stop

    def __str__(self) -> str:
        return f"{self.start}-{self.last}" if self.count > 1 else f"{self.start}"


class IdSet:
    """An immutable set of ids: sorted spans that neither overlap nor touch. No operation takes more than n log n steps.

    >>> IdSet([IdRange(5, 5), IdRange(0, 5), IdRange(20, 1)])
    IdSet(0-9, 20)
    >>> IdSet([IdRange(0, 10)]) - IdSet([IdRange(3, 2)])
    IdSet(0-2, 5-9)
    >>> list(IdSet([IdRange(0, 10)]) & IdSet([IdRange(8, 9)]))
    [IdRange(start=8, count=2)]
    """

    __slots__ = ("_spans",)
    _spans: tuple[tuple[int, int], ...]

    def __init__(self, ranges: Iterable[IdRange] = ()) -> None:
        self._spans = _merged((r.start, r.start + r.count) for r in ranges)

    @classmethod
    def clipped(cls, spans: Iterable[tuple[int, int]]) -> IdSet:
        """Make a set of (start, stop) pairs that another program wrote; ids that cannot exist are cut off.

        >>> IdSet.clipped([(-5, 3), (4294967290, 2**40)])
        IdSet(0-2, 4294967290-4294967294)
        """
        # Merged first, because thousands of ranges often become one span.
        cut = ((max(start, 0), min(stop, ID_LIMIT)) for start, stop in _merged(spans))
        return cls._of(tuple((start, stop) for start, stop in cut if start < stop))

    @classmethod
    def _of(cls, spans: tuple[tuple[int, int], ...]) -> IdSet:
        new = cls.__new__(cls)
        new._spans = spans  # noqa: SLF001 - our own
        return new

    @classmethod
    def union(cls, sets: Iterable[IdSet]) -> IdSet:
        """Every id that is in at least one of the sets, in one n log n step."""
        return cls._of(_merged(chain.from_iterable(s._spans for s in sets)))  # noqa: SLF001 - our own

    def __or__(self, other: IdSet) -> IdSet:
        return IdSet.union((self, other))

    def __and__(self, other: IdSet) -> IdSet:
        found: list[tuple[int, int]] = []
        mine, theirs = iter(self._spans), iter(other._spans)
        a, b = next(mine, None), next(theirs, None)
        while a and b:
            start, stop = max(a[0], b[0]), min(a[1], b[1])
            if start < stop:
                found.append((start, stop))
            if a[1] < b[1]:
                a = next(mine, None)
            else:
                b = next(theirs, None)
        return IdSet._of(tuple(found))

    def __sub__(self, other: IdSet) -> IdSet:
        return self & other._complement()

    def _complement(self) -> IdSet:
        edges = [0, *chain.from_iterable(self._spans), ID_LIMIT]
        pairs = zip(edges[::2], edges[1::2], strict=True)
        return IdSet._of(tuple((start, stop) for start, stop in pairs if start < stop))

    def gaps(self, within: IdRange) -> IdSet:
        """The ids of ``within`` that are not in this set.

        >>> IdSet([IdRange(2, 3)]).gaps(IdRange(0, 8))
        IdSet(0-1, 5-7)
        """
        return IdSet((within,)) - self

    def holds(self, ids: IdRange) -> bool:
        """Tell whether every id of a range is in the set.

        >>> IdSet([IdRange(2, 3)]).holds(IdRange(3, 2)), IdSet([IdRange(2, 3)]).holds(IdRange(4, 2))
        (True, False)
        """
        at = bisect_right(self._spans, (ids.start, ID_LIMIT))
        return at > 0 and ids.stop <= self._spans[at - 1][1]

    def __str__(self) -> str:
        """The ranges, FIRST-LAST, with "and" between them.

        >>> str(IdSet([IdRange(2, 3), IdRange(8, 1)]))
        '2-4 and 8'
        """
        return " and ".join(map(str, self))

    def fits(self, count: int, align: int = 1) -> Iterator[IdRange]:
        """Yield ranges of ``count`` ids in this set: disjoint, lowest first, each start a multiple of ``align``.

        The first is the first fit. The first n are what n allocations, one after the other, would get.

        >>> list(map(str, IdSet([IdRange(3, 10)]).fits(2, align=4)))
        ['4-5', '8-9']
        """
        for start, stop in self._spans:
            base = -(-start // align) * align
            while base + count <= stop:
                yield IdRange(base, count)
                base += -(-count // align) * align

    def how_many(self, count: int, align: int = 1) -> int:
        """How many ranges ``fits`` would yield, computed without making them.

        >>> IdSet([IdRange(3, 10)]).how_many(2, align=4)
        2
        """
        step = -(-count // align) * align
        rooms = (stop + -start // align * align - count for start, stop in self._spans)
        return sum(room // step + 1 for room in rooms if room >= 0)

    def first_fit(self, count: int, align: int = 1) -> IdRange | None:
        """The lowest range of ``count`` ids whose start is a multiple of ``align``; None if there is none."""
        return next(self.fits(count, align), None)

    def within(self, ids: IdRange) -> Iterator[IdRange]:
        """Yield the parts of this set that lie in ``ids``, lowest first: log n, and then one step for each part.

        >>> list(map(str, IdSet([IdRange(0, 4), IdRange(6, 4)]).within(IdRange(2, 6))))
        ['2-3', '6-7']
        """
        # The span that begins at or before the first id may reach into the range.
        first = max(bisect_right(self._spans, (ids.start, ID_LIMIT)) - 1, 0)

        for index in range(first, len(self._spans)):
            span_start, span_stop = self._spans[index]
            start, stop = max(span_start, ids.start), min(span_stop, ids.stop)
            if start < stop:
                yield IdRange(start, stop - start)
            elif start >= ids.stop:
                return

    def largest(self) -> int:
        """How many ids the longest range of the set has; 0 for the empty set."""
        return max((stop - start for start, stop in self._spans), default=0)

    def meets(self, start: int, stop: int) -> bool:
        """Tell whether the set has an id in [start, stop), in log n steps."""
        at = bisect_right(self._spans, (start, ID_LIMIT))
        before, after = self._spans[at - 1 : at], self._spans[at : at + 1]
        return any(start < theirs for _, theirs in before) or any(
            theirs < stop for theirs, _ in after
        )

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._spans, (number, ID_LIMIT))
        return at > 0 and number < self._spans[at - 1][1]

    def __iter__(self) -> Iterator[IdRange]:
        return (IdRange(start, stop - start) for start, stop in self._spans)

    def __bool__(self) -> bool:
        return bool(self._spans)

    def total(self) -> int:
        """How many ids are in the set. This is not ``len``: iterating yields ranges."""
        return sum(stop - start for start, stop in self._spans)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdSet) and self._spans == other._spans

    def __hash__(self) -> int:
        return hash(self._spans)

    def __repr__(self) -> str:
        return f"IdSet({', '.join(map(str, self))})"


def read_id(text: str) -> int | None:
    """A decimal id from 0 to 4294967294; None for other text, also for a leading 0 (octal)."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(ID_LIMIT))):
        return None
    number = int(text)
    return number if number < ID_LIMIT and str(number) == text else None


def _merged(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sort, drop the empty, and join what touches."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if start >= stop:
            continue
        if merged and start <= merged[-1][1]:
            if stop > merged[-1][1]:
                merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return tuple(merged)


# Every id that can exist.
EVERY_ID = IdSet((IdRange(0, ID_LIMIT),))
