"""Ranges of ids and the algebra of sets of them. Pure; uids and gids look the same here.

All ranges are half-open, [start, stop), so that one overlap test serves everywhere.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# (uid_t)-1 means "no change" to chown(2) and "no id" to the kernel, so 4294967295 is never an id: user_namespaces(7).
ID_LIMIT = 4294967295
# What an unmapped id reads as; /proc/sys/kernel/overflowuid and overflowgid have this default.
OVERFLOW_ID = 65534


@dataclass(frozen=True, order=True, slots=True)
class IdRange:
    """The ids from ``start`` up to, but without, ``start + count``.

    Raises InvalidValueError unless ``start`` >= 0, ``count`` >= 1 and every id lies below 4294967295.
    """

    start: int
    count: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.count < 1 or self.start + self.count > ID_LIMIT:
            raise InvalidValueError(
                f"no such range of ids: start {self.start}, count {self.count}",
                hint="ids run from 0 to 4294967294, and a range holds at least one",
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
        """Read ``FIRST-LAST``, both inclusive, the way ``usermod --add-subuids`` writes a range."""
        match = re.fullmatch(r"([0-9]{1,10})-([0-9]{1,10})", text)
        if not match:
            raise InvalidValueError(
                f"'{text}' is not a range", hint="write FIRST-LAST in decimal: 524288-1879048191"
            )
        first, last = map(int, match.groups())
        return cls(first, last - first + 1)

    def overlaps(self, other: IdRange) -> bool:
        """Tell whether at least one id is in both."""
        return self.start < other.stop and other.start < self.stop

    def __contains__(self, number: int) -> bool:
        return self.start <= number < self.stop

    def __str__(self) -> str:
        return f"{self.start}-{self.last}" if self.count > 1 else f"{self.start}"


class IdSet:
    """An immutable set of ids, kept as sorted, disjoint, non-adjacent spans; every operation is n log n or better."""

    __slots__ = ("_spans",)
    _spans: tuple[tuple[int, int], ...]

    def __init__(self, ranges: Iterable[IdRange] = ()) -> None:
        self._spans = _merged((r.start, r.start + r.count) for r in ranges)

    @classmethod
    def clipped(cls, spans: Iterable[tuple[int, int]]) -> IdSet:
        """Make a set of (start, stop) pairs that others wrote: what lies outside the ids that can exist is cut off."""
        return cls._of(_merged((max(start, 0), min(stop, ID_LIMIT)) for start, stop in spans))

    @classmethod
    def _of(cls, spans: tuple[tuple[int, int], ...]) -> IdSet:
        new = cls.__new__(cls)
        new._spans = spans  # noqa: SLF001 - our own
        return new

    @classmethod
    def union(cls, sets: Iterable[IdSet]) -> IdSet:
        """All ids of all the sets, in one n log n step."""
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
        """The ids of ``within`` that are not in this set."""
        return IdSet((within,)) - self

    def fits(self, count: int, align: int = 1) -> Iterator[IdRange]:
        """Yield disjoint ranges of ``count`` ids inside this set, lowest first, each start a multiple of ``align``.

        The first one is the first fit; taking n of them is what allocating n times one after the other would give.
        """
        for start, stop in self._spans:
            base = -(-start // align) * align
            while base + count <= stop:
                yield IdRange(base, count)
                base += -(-count // align) * align

    def how_many(self, count: int, align: int = 1) -> int:
        """How many ranges ``fits`` would yield, worked out without making them."""
        step = -(-count // align) * align
        rooms = (stop + -start // align * align - count for start, stop in self._spans)
        return sum(room // step + 1 for room in rooms if room >= 0)

    def first_fit(self, count: int, align: int = 1) -> IdRange | None:
        """The lowest range of ``count`` ids with an aligned start, or None where none fits."""
        return next(self.fits(count, align), None)

    def within(self, ids: IdRange) -> Iterator[IdRange]:
        """The parts of this set that lie in ``ids``, lowest first; found without looking at the rest."""
        for index in range(
            max(bisect_right(self._spans, (ids.start, ID_LIMIT)) - 1, 0), len(self._spans)
        ):
            start, stop = (
                max(self._spans[index][0], ids.start),
                min(self._spans[index][1], ids.stop),
            )
            if start < stop:
                yield IdRange(start, stop - start)
            elif start >= ids.stop:
                return

    def largest(self) -> int:
        """How many ids the longest unbroken range holds; 0 for the empty set."""
        return max((stop - start for start, stop in self._spans), default=0)

    def meets(self, start: int, stop: int) -> bool:
        """Tell whether some id from ``start`` up to, but without, ``stop`` is in the set: log n."""
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
        """How many ids are in the set; not its ``len``, because iterating gives ranges."""
        return sum(stop - start for start, stop in self._spans)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdSet) and self._spans == other._spans

    def __hash__(self) -> int:
        return hash(self._spans)

    def __repr__(self) -> str:
        return f"IdSet({', '.join(map(str, self))})"


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
