"""Extent and IdMap: the kernel's rules, kept before the kernel is asked."""

from __future__ import annotations

import pytest

from tests.each import each
from tests.unit.maps import exactly
from usernsplan.errors import InvalidValueError
from usernsplan.ids import IdRange
from usernsplan.mapping import Extent, IdMap


@each(
    "extent",
    [
        (0, 0, 0),
        (0, 0, -1),
        (-1, 0, 1),
        (0, -1, 1),
        (4294967295, 0, 1),
        (0, 4294967295, 1),
        (4294967294, 0, 2),
        (0, 4294967294, 2),
        (0, 0, 4294967296),
        (1, 0, 4294967295),
    ],
)
def test_an_extent_that_leaves_the_ids_cannot_be_made(extent: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidValueError, match="not an extent"):
        Extent(*extent)


@pytest.mark.parametrize(
    "extent", [(0, 0, 4294967295), (4294967294, 0, 1), (0, 4294967294, 1), (3, 3, 4294967292)]
)
def test_an_extent_may_reach_the_last_id(extent: tuple[int, int, int]) -> None:
    assert IdMap.of(extent).triples() == [extent]


@pytest.mark.parametrize(
    ("side", "extents"),
    [
        ("container", [(0, 100, 10), (9, 200, 1)]),
        ("container", [(5, 100, 1), (0, 200, 10)]),
        ("container", [(0, 100, 1), (0, 200, 1)]),
        ("host", [(0, 100, 10), (50, 109, 1)]),
        ("host", [(0, 100, 1), (1, 100, 1)]),
        ("host", [(0, 100, 2), (10, 101, 2), (20, 200, 1)]),
        ("host", [(20, 200, 1), (0, 102, 1), (10, 100, 5)]),
    ],
)
def test_an_overlap_on_either_side_is_refused_and_named(
    side: str, extents: list[tuple[int, int, int]]
) -> None:
    with pytest.raises(InvalidValueError, match=f"overlap in their {side} ids"):
        IdMap.of(*extents)


def test_extents_that_only_touch_are_no_overlap_in_any_order() -> None:
    assert IdMap.of((10, 90, 10), (0, 100, 10)).text() == "10 90 10\n0 100 10\n"


def test_a_map_without_an_extent_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="has no extent"):
        IdMap([])


def test_340_extents_are_taken_and_341_are_not() -> None:
    short = [(i, i, 1) for i in range(341)]
    assert len(IdMap.of(*short[:340])) == 340
    with pytest.raises(InvalidValueError, match="341 extents"):
        IdMap.of(*short)


def test_4095_bytes_are_taken_and_4096_are_not() -> None:
    assert len(IdMap.of(*exactly(4095)).text()) == 4095
    with pytest.raises(InvalidValueError, match="4096 bytes"):
        IdMap.of(*exactly(4096))


@pytest.mark.parametrize(
    ("container", "host"),
    [(0, 1000), (1, None), (2, None), (3, 5003), (12, 5012), (13, None), (-1, None)],
)
def test_an_unmapped_id_is_none_and_a_mapped_one_goes_both_ways(
    container: int, host: int | None
) -> None:
    ids = IdMap.of((0, 1000, 1), (3, 5003, 10))
    assert ids.to_host(container) == host
    if host is not None:
        assert ids.to_container(host) == container


@pytest.mark.parametrize("host", [999, 1001, 5002, 5013])
def test_a_host_id_that_the_container_does_not_know_is_none(host: int) -> None:
    assert IdMap.of((0, 1000, 1), (3, 5003, 10)).to_container(host) is None


def test_a_map_composed_with_another_splits_where_the_outer_one_does() -> None:
    inner = IdMap.of((0, 5, 10))
    outer = IdMap.of((0, 100, 8), (8, 300, 4))
    # 0-2 -> 5-7 -> 105-107; 3-6 -> 8-11 -> 300-303; 7-9 -> 12-14, which the outer map does not know.
    assert inner.compose(outer).triples() == [(0, 105, 3), (3, 300, 4)]


def test_composing_maps_that_share_nothing_is_an_error() -> None:
    with pytest.raises(InvalidValueError, match="has no extent"):
        IdMap.of((0, 5, 1)).compose(IdMap.of((0, 5, 5)))


def test_composing_into_more_extents_than_the_kernel_takes_is_an_error() -> None:
    # Each line is 17 bytes at most in the outer map, and 24 once the inner one has moved its container ids up.
    inner, outer = (
        IdMap.of((4000000000, 0, 300)),
        IdMap.of(*((i, 3000000000 + 2 * i, 1) for i in range(220))),
    )
    with pytest.raises(InvalidValueError, match="5280 bytes as text"):
        inner.compose(outer)


@pytest.mark.parametrize(
    ("extents", "answer"),
    [
        ([(0, 100000, 65536)], True),
        ([(0, 2, 1), (1, 200000, 2), (3, 3, 65533)], True),
        ([(0, 2, 1), (3, 3, 65533)], False),
        ([(1, 100000, 65536)], False),
        ([(1, 200000, 2), (0, 2, 1)], False),
    ],
)
def test_only_a_map_without_holes_from_zero_on_is_end_to_end(
    extents: list[tuple[int, int, int]], answer: bool
) -> None:
    assert IdMap.of(*extents).is_end_to_end() is answer


def test_the_two_sides_of_an_extent_are_ranges() -> None:
    extent = Extent(0, 100000, 65536)
    assert (extent.container_range, extent.host_range) == (
        IdRange(0, 65536),
        IdRange(100000, 65536),
    )
    assert IdMap.of((9, 50, 2), (0, 10, 3)).host_ranges() == (IdRange(50, 2), IdRange(10, 3))


def test_a_map_is_read_as_proc_shows_it() -> None:
    assert IdMap.parse(
        "         0     100000      65536\n     65536          7          1\n"
    ) == IdMap.of((0, 100000, 65536), (65536, 7, 1))


@each(
    "text",
    [
        "",
        "0 0\n",
        "0 0 1 2\n",
        "a b c\n",
        "0 0x10 1\n",
        "0 -1 1\n",
        "0 0 1\n\n1 1 1\n",
        "0 1.0 1\n",
        "0 0 1 0 0 1",
    ],
)
def test_what_is_no_uid_map_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(InvalidValueError):
        IdMap.parse(text)
