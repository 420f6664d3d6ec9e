"""IdSet against Python's set: every pair of sets over a small universe, and random ones at both ends of the ids."""

from __future__ import annotations

from itertools import combinations, pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usernsplan.ids import ID_LIMIT, IdRange, IdSet

SIZE = 24
# Where the universe of a random test begins: at the first id, in the middle, and so that it ends with the last one.
OFFSETS = (0, 589816, ID_LIMIT - SIZE)


def of(numbers: frozenset[int]) -> IdSet:
    return IdSet(IdRange(number, 1) for number in numbers)


def numbers(ids: IdSet) -> frozenset[int]:
    return frozenset(number for span in ids for number in range(span.start, span.stop))


def subsets(size: int) -> list[frozenset[int]]:
    return [
        frozenset(chosen)
        for length in range(size + 1)
        for chosen in combinations(range(size), length)
    ]


def greedy(free: frozenset[int], count: int, align: int) -> list[int]:
    """Take the lowest aligned range that is free, strike it out, and start again."""
    left, bases = set(free), []
    for base in sorted(free):
        wanted = set(range(base, base + count))
        if base % align == 0 and wanted <= left:
            bases.append(base)
            left -= wanted
    return bases


@st.composite
def ranges(draw: st.DrawFn, offset: int) -> list[IdRange]:
    pairs = st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE))
    return [
        IdRange(offset + start, min(count, SIZE - start))
        for start, count in draw(st.lists(pairs, max_size=6))
    ]


def test_the_algebra_is_that_of_pythons_sets_for_every_pair_over_six_ids() -> None:
    small = {chosen: of(chosen) for chosen in subsets(6)}
    for a, b in product(small, repeat=2):
        assert numbers(small[a] | small[b]) == a | b
        assert numbers(small[a] & small[b]) == a & b
        assert numbers(small[a] - small[b]) == a - b
        assert (small[a] == small[b]) is (a == b)


def test_gaps_within_every_window_are_the_ids_that_are_missing() -> None:
    for chosen, start, count in product(subsets(6), range(8), range(1, 5)):
        window = IdRange(start, count)
        assert numbers(of(chosen).gaps(window)) == frozenset(range(start, start + count)) - chosen


@pytest.mark.parametrize("align", [1, 2, 3, 4])
def test_fits_are_what_taking_the_lowest_again_and_again_gives(align: int) -> None:
    for chosen, count in product(subsets(9), range(1, 5)):
        ids, bases = of(chosen), greedy(chosen, count, align)
        assert [fit.start for fit in ids.fits(count, align)] == bases
        assert ids.first_fit(count, align) == (IdRange(bases[0], count) if bases else None)


@given(st.data(), st.sampled_from(OFFSETS))
def test_overlapping_ranges_anywhere_make_the_set_of_their_ids(
    data: st.DataObject, offset: int
) -> None:
    mine, theirs = data.draw(ranges(offset)), data.draw(ranges(offset))
    a = frozenset(number for span in mine for number in range(span.start, span.stop))
    b = frozenset(number for span in theirs for number in range(span.start, span.stop))
    ids, others = IdSet(mine), IdSet(theirs)
    assert numbers(ids) == a
    assert ids.total() == len(a)
    assert bool(ids) is bool(a)
    assert [number in ids for number in range(offset, offset + SIZE)] == [
        number in a for number in range(offset, offset + SIZE)
    ]
    assert numbers(ids | others) == a | b
    assert numbers(ids & others) == a & b
    assert numbers(ids - others) == a - b
    assert IdSet.union([ids, others, ids]) == ids | others
    assert hash(IdSet(reversed(mine))) == hash(ids)
    spans = list(ids)
    assert all(left.stop < right.start for left, right in pairwise(spans))
    assert ids.largest() == max((span.count for span in spans), default=0)


@given(st.sampled_from(OFFSETS), st.data(), st.integers(1, 9), st.integers(1, 9))
def test_fits_at_either_end_of_the_ids_are_the_greedy_ones(
    offset: int, data: st.DataObject, count: int, align: int
) -> None:
    ids = IdSet(data.draw(ranges(offset)))
    assert [fit.start for fit in ids.fits(count, align)] == greedy(numbers(ids), count, align)


@given(
    st.lists(st.tuples(st.integers(-5, SIZE), st.integers(-5, SIZE)), max_size=6),
    st.sampled_from((0, ID_LIMIT - 9)),
)
def test_clipping_keeps_exactly_the_ids_that_can_exist(
    spans: list[tuple[int, int]], offset: int
) -> None:
    moved = [(offset + start, offset + stop) for start, stop in spans]
    expected = {
        number
        for start, stop in moved
        for number in range(start, stop)
        if 0 <= number <= 4294967294
    }
    assert numbers(IdSet.clipped(moved)) == expected


@given(st.integers(0, ID_LIMIT - 1), st.integers(0, ID_LIMIT - 1))
def test_a_range_that_is_shown_with_a_dash_is_read_back(one: int, two: int) -> None:
    first, last = sorted((one, two))
    ids = IdRange(first, last - first + 1)
    assert IdRange.parse(f"{first}-{last}") == ids
    assert (ids.start, ids.last) == (first, last)


def test_overlap_is_sharing_an_id_for_every_pair_of_small_ranges() -> None:
    small = [IdRange(start, count) for start in range(5) for count in range(1, 5)]
    for a, b in product(small, repeat=2):
        shared = set(range(a.start, a.stop)) & set(range(b.start, b.stop))
        assert a.overlaps(b) is bool(shared)
