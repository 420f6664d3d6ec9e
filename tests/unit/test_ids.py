"""IdRange and IdSet: what cannot be made, and the edges of what can."""

from __future__ import annotations

import pytest

from tests.each import each
from usernsplan.errors import InvalidValueError
from usernsplan.ids import ID_LIMIT, IdRange, IdSet


def _set(*spans: tuple[int, int]) -> IdSet:
    return IdSet(IdRange(start, stop - start) for start, stop in spans)


@each(
    ("start", "count"),
    [
        (-1, 1),
        (-1, 5),
        (0, 0),
        (5, -1),
        (4294967295, 1),
        (4294967294, 2),
        (0, 4294967296),
        (2**64, 1),
    ],
)
def test_a_range_with_no_id_or_an_impossible_one_cannot_be_made(start: int, count: int) -> None:
    with pytest.raises(InvalidValueError, match="no such range"):
        IdRange(start, count)


@pytest.mark.parametrize(
    ("start", "count", "last"),
    [(0, 1, 0), (0, 4294967295, 4294967294), (4294967294, 1, 4294967294)],
)
def test_a_range_may_reach_the_last_id_there_is(start: int, count: int, last: int) -> None:
    ids = IdRange(start, count)
    assert (ids.last, ids.stop) == (last, last + 1)
    assert last in ids
    assert last + 1 not in ids
    assert start - 1 not in ids


@pytest.mark.parametrize(
    ("text", "start", "count"),
    [
        ("5-5", 5, 1),
        ("589824-1879048191", 589824, 1878458368),
        ("0-4294967294", 0, 4294967295),
        ("007-9", 7, 3),
    ],
)
def test_first_dash_last_is_read_with_both_ends_in_it(text: str, start: int, count: int) -> None:
    assert IdRange.parse(text) == IdRange(start, count)


@each(
    "text",
    [
        "",
        "-",
        "5",
        "5-",
        "-5",
        "9-5",
        "1-2-3",
        "0x1-0x2",
        " 1-2",
        "1 - 2",
        "+1-2",
        "1_0-20",
        "0-4294967295",
        "²-³",
        "\u0661-\u0662",
    ],
)
def test_what_is_not_first_dash_last_in_decimal_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        IdRange.parse(text)


def test_a_number_of_thousands_of_digits_is_refused_like_any_other() -> None:
    with pytest.raises(InvalidValueError):
        IdRange.parse("1-" + "9" * 5000)


@pytest.mark.parametrize(("ids", "text"), [(IdRange(7, 1), "7"), (IdRange(7, 3), "7-9")])
def test_a_range_is_shown_as_usermod_takes_it(ids: IdRange, text: str) -> None:
    assert str(ids) == text


def test_a_set_joins_what_touches_or_overlaps_and_shows_it_in_order() -> None:
    ids = _set((20, 30), (5, 10), (10, 12), (22, 24))
    assert list(ids) == [IdRange(5, 7), IdRange(20, 10)]
    assert repr(ids) == "IdSet(5-11, 20-29)"
    assert (ids.total(), ids.largest(), bool(ids)) == (17, 10, True)


def test_the_empty_set_holds_nothing() -> None:
    assert (IdSet().total(), IdSet().largest(), bool(IdSet()), list(IdSet())) == (0, 0, False, [])
    assert IdSet().first_fit(1) is None


@pytest.mark.parametrize(
    ("span", "kept"),
    [
        ((-5, 3), _set((0, 3))),
        ((4294967290, 4295032826), _set((4294967290, ID_LIMIT))),
        ((4294967295, 4294967296), IdSet()),
        ((2**70, 2**71), IdSet()),
        ((9, 9), IdSet()),
        ((9, 3), IdSet()),
        ((-9, -3), IdSet()),
    ],
)
def test_clipping_cuts_off_what_cannot_be_an_id(span: tuple[int, int], kept: IdSet) -> None:
    assert IdSet.clipped([span]) == kept


def test_the_gaps_within_a_range_leave_out_what_lies_beside_it() -> None:
    taken = _set((0, 3), (5, 6), (9, 20))
    assert taken.gaps(IdRange(2, 10)) == _set((3, 5), (6, 9))


def test_the_complement_of_the_set_of_all_ids_is_empty() -> None:
    everything = IdRange(0, ID_LIMIT)
    assert IdSet([everything]).gaps(everything) == IdSet()
    assert IdSet().gaps(everything) == IdSet([everything])


@each(
    ("free", "count", "align", "bases"),
    [
        ((100000, 400000), 65536, 65536, [131072, 196608, 262144, 327680]),
        ((0, 65535), 65536, 65536, []),
        ((65537, 196607), 65536, 65536, []),
        ((65536, 131072), 65536, 65536, [65536]),
        ((10, 31), 4, 10, [10, 20]),
        ((1, 40), 11, 10, [10]),
        ((1, 41), 11, 10, [10, 30]),
        ((4294967293, 4294967295), 1, 1, [4294967293, 4294967294]),
    ],
)
def test_fits_are_disjoint_aligned_and_lowest_first(
    free: tuple[int, int], count: int, align: int, bases: list[int]
) -> None:
    ids = _set(free)
    assert [fit.start for fit in ids.fits(count, align)] == bases
    assert ids.first_fit(count, align) == (IdRange(bases[0], count) if bases else None)


def test_a_span_that_is_too_small_does_not_hide_the_next_one() -> None:
    assert _set((0, 3), (7, 9), (20, 24)).first_fit(4) == IdRange(20, 4)


def test_a_set_is_not_equal_to_anything_that_is_no_set() -> None:
    assert IdSet() != frozenset()
    assert hash(_set((1, 2), (2, 3))) == hash(_set((1, 3)))


def test_listing_a_large_set_takes_room_for_its_ranges_and_not_for_its_ids() -> None:
    # list() asks len() how much to reserve: eight bytes for each of four thousand million ids.
    assert list(IdSet([IdRange(0, ID_LIMIT)])) == [IdRange(0, ID_LIMIT)]
