"""IdMap against plain dictionaries: every map of two small extents, and random ones."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from tests.property.maps import id_maps
from usernsplan.errors import InvalidValueError
from usernsplan.ids import ID_LIMIT
from usernsplan.mapping import IdMap

Triple = tuple[int, int, int]
SMALL: list[Triple] = [*product(range(4), range(4), range(1, 4))]


def table(extents: tuple[Triple, ...]) -> dict[int, int] | None:
    """Container id -> host id, or None where one id of either side stands twice."""
    pairs = [(container + i, host + i) for container, host, count in extents for i in range(count)]
    sides = [{pair[side] for pair in pairs} for side in (0, 1)]
    return dict(pairs) if all(len(ids) == len(pairs) for ids in sides) else None


def made(extents: tuple[Triple, ...]) -> IdMap | None:
    try:
        return IdMap.of(*extents)
    except InvalidValueError:
        return None


def as_dict(ids: IdMap | None, universe: range) -> dict[int, int]:
    found = {} if ids is None else {number: ids.to_host(number) for number in universe}
    return {number: host for number, host in found.items() if host is not None}


def composed(inner: IdMap, outer: IdMap) -> IdMap | None:
    try:
        return inner.compose(outer)
    except InvalidValueError:
        return None


def test_every_pair_of_small_extents_is_a_map_exactly_when_no_id_stands_twice() -> None:
    universe = range(-1, 9)
    for pair in product(SMALL, repeat=2):
        expected, ids = table(pair), made(pair)
        assert (ids is None) is (expected is None), pair
        if ids is not None and expected is not None:
            assert as_dict(ids, universe) == expected
            assert {n: ids.to_container(n) for n in expected.values()} == {
                host: n for n, host in expected.items()
            }


def test_composition_is_that_of_functions_for_every_small_pair() -> None:
    universe = range(8)
    outers = [(pair, table(pair)) for pair in product(SMALL[::3], SMALL[::5])]
    for inner, (outer, over) in product(SMALL, outers):
        if over is None:
            continue
        under = table((inner,)) or {}
        expected = {number: over[host] for number, host in under.items() if host in over}
        assert as_dict(composed(IdMap.of(inner), IdMap.of(*outer)), universe) == expected, (
            inner,
            outer,
        )


@given(id_maps(), id_maps())
def test_composing_random_maps_is_following_one_after_the_other(inner: IdMap, outer: IdMap) -> None:
    through = composed(inner, outer)
    for number in range(80):
        middle = inner.to_host(number)
        expected = None if middle is None else outer.to_host(middle)
        assert (None if through is None else through.to_host(number)) == expected


@given(id_maps())
def test_a_map_and_its_inverse_cancel_out_on_every_mapped_id(ids: IdMap) -> None:
    back = ids.invert()
    assert back.invert() == ids
    for container, host, count in ids.triples():
        for i in range(count):
            assert back.to_host(host + i) == container + i == ids.to_container(host + i)
    assert all(extent.container == extent.host for extent in ids.compose(back))
    assert as_dict(ids.compose(back), range(80)) == {
        number: number for number in as_dict(ids, range(80))
    }


@given(id_maps())
def test_what_is_not_mapped_is_none_in_both_directions(ids: IdMap) -> None:
    pairs = {
        container + i: host + i for container, host, count in ids.triples() for i in range(count)
    }
    reverse = {host: container for container, host in pairs.items()}
    assert [ids.to_host(number) for number in range(80)] == [
        pairs.get(number) for number in range(80)
    ]
    assert [ids.to_container(number) for number in range(80)] == [
        reverse.get(number) for number in range(80)
    ]


@given(id_maps(), st.sampled_from([" ", "\t", "       "]))
def test_the_text_of_a_map_is_read_back_with_any_blanks(ids: IdMap, blank: str) -> None:
    assert IdMap.parse(ids.text().replace(" ", blank)) == ids


EDGES = st.sampled_from([-1, 0, 1, 2, 4294967293, 4294967294, 4294967295, 4294967296])


@given(st.lists(st.tuples(EDGES, EDGES, EDGES), min_size=1, max_size=3))
def test_a_map_at_the_edges_is_made_exactly_when_its_ids_exist_and_differ(
    extents: list[Triple],
) -> None:
    def valid(start: int, count: int) -> bool:
        return start >= 0 and count >= 1 and start + count - 1 <= ID_LIMIT - 1

    def apart(one: tuple[int, int], two: tuple[int, int]) -> bool:
        return one[0] + one[1] <= two[0] or two[0] + two[1] <= one[0]

    sides = [[(extent[side], extent[2]) for extent in extents] for side in (0, 1)]
    expected = all(
        all(valid(*one) for one in ranges)
        and all(apart(one, two) for at, one in enumerate(ranges) for two in ranges[:at])
        for ranges in sides
    )
    assert (made(tuple(extents)) is not None) is expected
