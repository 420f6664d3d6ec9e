"""Where each id goes: the rules of own, shift, reverse, --from and typed maps, id by id."""

from __future__ import annotations

import json

import pytest

from tests.unit.xattrs import GROUP, PLAIN, USER, acl, v2, v3
from usernsplan import IdMap, IdRange, IdSet, Mapping
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.volume import targets
from usernsplan.volume.passes import Leg, Pass
from usernsplan.volume.targets import Moves, OwnershipRule

ID_LAST = 4294967294
WEB = Mapping(IdMap.of((0, 100000, 65536)), IdMap.of((0, 200000, 1000)))
DB = Mapping(IdMap.of((0, 300000, 65536)), IdMap.of((0, 400000, 65536)))
# Half of WEB's own range further up.
NEXT = Mapping(IdMap.of((0, 132768, 65536)), IdMap.of((0, 200500, 1000)))
NO_ZERO = Mapping(IdMap.of((1, 100001, 10)), IdMap.of((0, 200000, 10)))


def swapped(a: int, b: int) -> IdMap:
    return IdMap.of((a, b, 1), (b, a, 1))


# One id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (0, 100),
        (9, 109),
        (100, 100),
        (109, 109),
        (10, None),
        (99, None),
        (110, None),
        (ID_LAST, None),
    ],
)
def test_an_id_moves_or_stays_or_has_no_place(old: int, new: int | None) -> None:
    ids = IdMap.of((0, 100, 10))
    for first in (False, True):
        assert Moves(ids, source_first=first)(old) == new
        assert Moves(ids, source_first=first, keep=True)(old) == (old if new is None else new)
        assert Moves(ids, source_first=first).lacks(old) is (new is None)
        assert Moves(ids, source_first=first).settled(old) is (100 <= old < 110)
        assert Moves(ids, source_first=first, keep=True).settled(old) is not (0 <= old < 10)


def test_an_id_on_both_sides_is_a_new_one_unless_the_source_comes_first() -> None:
    ids = IdMap.of((0, 5, 10))
    assert [Moves(ids)(old) for old in (0, 4, 5, 9, 10, 14, 15)] == [5, 9, 5, 9, 10, 14, None]
    assert [Moves(ids, source_first=True)(old) for old in (0, 4, 5, 9, 10, 14, 15)] == [
        5,
        9,
        10,
        14,
        10,
        14,
        None,
    ]


@pytest.mark.parametrize(
    ("extents", "overlaps"),
    [
        ([(0, 100, 10)], False),
        ([(0, 10, 10)], False),
        ([(0, 9, 10)], True),
        ([(9, 0, 10)], True),
        ([(10, 0, 10)], False),
        ([(5, 5, 10)], False),
        ([(5, 5, 10), (0, 20, 5)], False),
        ([(0, 20, 5), (20, 40, 1)], True),
        ([(0, 20, 5), (25, 40, 1)], False),
        ([(1, 2, 1), (2, 1, 1)], True),
        ([(1, 1, 1), (2, 2, 1)], False),
        ([(3, 3, 1), (1, 2, 1), (2, 1, 1)], True),
        ([(0, ID_LAST, 1), (ID_LAST, 0, 1)], True),
    ],
)
def test_a_map_overlaps_where_an_old_id_is_the_new_one_of_another(
    extents: list[tuple[int, int, int]], overlaps: bool
) -> None:
    assert Moves(IdMap.of(*extents)).overlaps() is overlaps
    assert Moves(IdMap.of(*extents).invert()).overlaps() is overlaps


def test_both_sides_of_a_map_are_sets() -> None:
    moves = Moves(IdMap.of((0, 100, 10), (20, 110, 5)))
    assert moves.target() == IdSet([IdRange(100, 15)])
    assert moves.all_ids() == IdSet([IdRange(0, 10), IdRange(20, 5), IdRange(100, 15)])


# Staging


def test_staging_ids_are_above_three_thousand_millions_and_belong_to_nobody() -> None:
    moves = Moves(IdMap.of((0, 3_000_000_000, 100), (3_000_000_200, 200, 100)), source_first=True)
    found = targets.staging(moves, used=(3_000_000_100, 3_000_000_310, 5, 70000))
    assert [(e.container, e.count) for e in found] == [(0, 100), (3_000_000_200, 100)]
    ids = IdSet(found.host_ranges())
    assert ids.total() == 200
    assert not ids & moves.all_ids()
    assert not ids & IdSet([IdRange(0, 3_000_000_000)])
    assert all(number not in ids for number in (3_000_000_100, 3_000_000_310))


def test_staging_fits_into_the_very_last_ids() -> None:
    room = 4294967295 - 3_000_000_000
    moves = Moves(IdMap.of((0, 5, 10)), source_first=True)
    used = [3_000_000_000 + at for at in range(0, 1000, 10)]
    assert targets.staging(moves, used).triples() == [(0, 3_000_000_991, 10)]
    halves = Moves(IdMap.of((0, 1, room)), source_first=True)
    assert targets.staging(halves, ()).triples() == [(0, 3_000_000_000, room)]


@pytest.mark.parametrize("count", [1_294_967_295, 2_999_999_999])
def test_where_there_is_no_room_for_staging_it_is_refused(count: int) -> None:
    moves = Moves(IdMap.of((0, 1, count)), source_first=True)
    with pytest.raises(RefusedError, match="not enough free ids"):
        targets.staging(moves, used=(3_000_000_005,))


def test_the_longest_map_that_the_kernel_takes_has_staging_ids() -> None:
    # 340 extents, each moved up by one of its neighbours: 12 bytes or so a line, and 16 with staging ids.
    longest = IdMap.of(*((1000 + i, 1001 + i, 1) for i in range(340)))
    moves = Moves(longest, source_first=True)
    assert moves.overlaps()
    assert sum(extent.count for extent in targets.staging(moves, ())) == 340


# The rule of each mode


def test_own_gives_everything_to_one_user_of_the_container() -> None:
    rule = targets.own(WEB, (33, 44))
    assert rule.mode == "own"
    assert {rule.owner_of(old) for old in ((0, 0), (100033, 200044), (7, 99999999))} == {
        (100033, 200044)
    }
    assert targets.own(WEB, (0, 0)).owner_of((5, 5)) == (100000, 200000)
    assert rule.overlaps() is False


@pytest.mark.parametrize(
    ("user", "said"),
    [((65536, 0), "no uid 65536"), ((0, 1000), "no gid 1000"), ((65536, 1000), "no uid 65536")],
)
def test_own_for_a_user_that_the_container_does_not_have_is_an_error(
    user: tuple[int, int], said: str
) -> None:
    with pytest.raises(InvalidValueError, match=said):
        targets.own(WEB, user)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((0, 0), (100000, 200000)),
        ((33, 44), (100033, 200044)),
        ((65535, 999), (165535, 200999)),
        ((100033, 44), (100033, 200044)),
        ((33, 200044), (100033, 200044)),
        ((100033, 200044), (100033, 200044)),
        ((65536, 0), None),
        ((0, 1000), None),
        ((65534, 65534), None),
    ],
)
def test_shift_moves_uids_and_gids_each_by_their_own_map(
    old: tuple[int, int], new: tuple[int, int] | None
) -> None:
    rule = targets.shift(WEB)
    assert rule.mode == "shift"
    assert rule.owner_of(old) == new


def test_where_only_one_of_the_two_is_unmapped_the_other_one_moves_with_keep() -> None:
    rule = targets.shift(WEB, keep=True)
    assert rule.owner_of((33, 5000)) == (100033, 5000)
    assert rule.owner_of((70000, 44)) == (70000, 200044)
    assert rule.owner_of((70000, 5000)) == (70000, 5000)


def test_reverse_brings_the_host_ids_back_and_leaves_what_is_back_already() -> None:
    rule = targets.shift(WEB, reverse=True)
    assert rule.owner_of((100033, 200044)) == (33, 44)
    assert rule.owner_of((33, 200044)) == (33, 44)
    assert rule.owner_of((165536, 200000)) is None


def test_from_moves_host_ids_to_those_of_the_other_container() -> None:
    rule = targets.move(WEB, DB)
    assert rule.owner_of((100033, 200044)) == (300033, 400044)
    assert rule.owner_of((300033, 400044)) == (300033, 400044)
    # DB's container gid 1000 comes from no id of WEB: the container made that file itself.
    assert rule.owner_of((100033, 401000)) == (300033, 401000)
    assert rule.owner_of((33, 44)) is None
    assert rule.overlaps() is False


def test_from_a_range_that_overlaps_follows_the_source() -> None:
    rule = targets.move(WEB, NEXT)
    assert rule.overlaps() is True
    assert rule.owner_of((132768, 200500)) == (165536, 201000)
    assert rule.owner_of((100000, 200000)) == (132768, 200500)
    assert rule.owner_of((165536, 201000)) == (165536, 201000)
    # So does the plain shift of a container whose own ids overlap with the host's.
    assert targets.shift(Mapping(IdMap.of((0, 5, 10)), IdMap.of((0, 5, 10)))).overlaps() is True


def test_from_a_container_that_shares_no_container_id_is_an_error() -> None:
    other = Mapping(IdMap.of((70000, 565536, 10)), IdMap.of((0, 565536, 10)))
    with pytest.raises(InvalidValueError, match="no container ids in common"):
        targets.move(WEB, other)


def test_from_between_maps_of_many_pieces_follows_each() -> None:
    # Each cut at other places: 1 + 2 * 199 pieces where both have 200. No kernel has to take that.
    even = IdMap.of(*((2 * i, 100000 + 3 * i, 2) for i in range(200)))
    odd = IdMap.of((0, 300000, 1), *((2 * i + 1, 300003 + 3 * i, 2) for i in range(199)))
    rule = targets.move(Mapping(even, even), Mapping(odd, odd))
    assert len(rule.uids.source) == 399
    assert rule.owner_of((100000, 100001)) == (300000, 300003)
    assert rule.owner_of((100003, 100004)) == (300004, 300006)
    assert rule.owner_of((100002, 100000)) is None


# Container 50 and up have no id any more; theirs are those of container 0 and up now.
SMALLER = Mapping(IdMap.of((0, 100050, 50)), IdMap.of((0, 100050, 50)))


def test_an_old_id_that_goes_nowhere_is_not_taken_for_the_new_id_that_it_also_is() -> None:
    old = Mapping(IdMap.of((0, 100000, 100)), IdMap.of((0, 100000, 100)))
    rule = targets.move(old, SMALLER)
    assert rule.owner_of((100000, 100049)) == (100050, 100099)
    assert rule.uids(100050) is None
    assert rule.uids.lacks(100050)
    assert rule.overlaps()
    assert targets.move(old, SMALLER, keep=True).uids(100050) == 100050
    # A volume that is known to have the new ids.
    assert rule.trusting().owner_of((100050, 100099)) == (100050, 100099)
    assert rule.trusting().owner_of((100000, 100049)) == (100050, 100099)
    assert not rule.trusting().overlaps()


def test_ids_that_stay_where_they_are_need_no_staging() -> None:
    plain = Mapping(IdMap.of((0, 589824, 65536)), IdMap.of((0, 589824, 65536)))
    holes = IdMap.of((0, 589824, 107), (107, 104, 1), (108, 589932, 65428))
    rule = targets.move(plain, Mapping(plain.uids, holes))
    assert rule.owner_of((589824, 589931)) == (589824, 104)
    assert rule.owner_of((655359, 589932)) == (655359, 589932)
    assert rule.owner_of((589824, 104)) == (589824, 104)
    assert not rule.overlaps()
    # 104 goes from 107 to 108: it is an old id and a new one.
    other = IdMap.of((0, 589824, 108), (108, 104, 1), (109, 589933, 65427))
    moved = targets.move(Mapping(plain.uids, holes), Mapping(plain.uids, other))
    assert moved.owner_of((589824, 104)) == (589824, 589931)
    assert moved.owner_of((589824, 589932)) == (589824, 104)
    assert moved.gids.both() == IdSet([IdRange(104, 1)])
    assert moved.gids.only_new() == IdSet([IdRange(589931, 1)])


def test_a_map_without_root_gives_none_even_if_host_root_passes() -> None:
    ids = IdMap.of((1, 100001, 10), (20, 0, 1))
    assert targets.shift(Mapping(ids, ids)).root is None
    assert targets.explicit(ids, ids).root is None


def test_a_typed_map_goes_one_way_and_back() -> None:
    uids, gids = IdMap.of((0, 765536, 10), (50, 865536, 1)), IdMap.of((0, 965536, 10))
    assert targets.explicit(uids, gids).owner_of((50, 9)) == (865536, 965545)
    assert targets.explicit(uids, gids, reverse=True).owner_of((865536, 965545)) == (50, 9)
    assert targets.explicit(uids, gids).overlaps() is False
    assert targets.explicit(swapped(1, 2), gids).overlaps() is True
    assert targets.explicit(gids, swapped(1, 2), reverse=True).overlaps() is True
    assert targets.explicit(swapped(1, 2), swapped(1, 2)).owner_of((1, 2)) == (2, 1)


# ACLs and capabilities


def test_shift_moves_the_ids_of_an_acl_and_own_leaves_all_of_them() -> None:
    raw = acl(*PLAIN, (USER, 6, 33), (USER, 4, 100005), (GROUP, 4, 44))
    moved = acl(*PLAIN, (USER, 6, 100033), (USER, 4, 100005), (GROUP, 4, 200044))
    assert targets.shift(WEB).acl(raw) == (moved, (), (), ())
    assert targets.shift(WEB, reverse=True).acl(moved).raw == acl(
        *PLAIN, (USER, 6, 33), (USER, 4, 5), (GROUP, 4, 44)
    )
    assert targets.own(WEB, (0, 0)).acl(raw) == (raw, (), (), ())
    unmapped = acl(*PLAIN, (USER, 6, 65536), (GROUP, 4, 1000))
    assert targets.own(WEB, (0, 0)).acl(unmapped) == (unmapped, (), (), ())
    assert targets.shift(WEB).acl(unmapped) == (unmapped, (65536,), (1000,), ())
    assert targets.shift(WEB, keep=True).acl(unmapped) == (unmapped, (), (), ())


def test_shift_finds_what_would_be_two_entries_for_one_id() -> None:
    raw = acl(*PLAIN, (USER, 6, 33), (USER, 4, 100033))
    assert targets.shift(WEB).acl(raw).duplicates == ("user 100033",)


@pytest.mark.parametrize(
    "rule", [targets.shift(WEB), targets.own(WEB, (33, 44)), targets.explicit(WEB.uids, WEB.gids)]
)
def test_a_capability_is_given_to_the_root_of_the_container(rule: OwnershipRule) -> None:
    assert rule.capability(v2()) == v3(100000)
    assert rule.capability(v3(1000)) == v3(101000)
    assert rule.capability(v3(100000)) == v3(100000)
    assert rule.capability(v3(100007)) == v3(100007)
    assert rule.capability(v3(65536)) is None


@pytest.mark.parametrize(
    "rule", [targets.shift(WEB, reverse=True), targets.explicit(WEB.uids, WEB.gids, reverse=True)]
)
def test_going_back_a_capability_becomes_the_host_s_again(rule: OwnershipRule) -> None:
    assert rule.capability(v3(100000)) == v2()
    assert rule.capability(v2()) == v2()
    assert rule.capability(v3(101000)) == v3(1000)
    assert rule.capability(v3(1000)) == v3(1000)
    assert rule.capability(v3(300000)) is None


def test_from_one_container_to_another_a_capability_follows_its_root() -> None:
    rule = targets.move(WEB, DB)
    assert rule.capability(v3(100000)) == v3(300000)
    assert rule.capability(v3(300000)) == v3(300000)
    assert rule.capability(v2()) == v3(300000)
    assert rule.capability(v3(1000)) is None


def test_a_capability_keeps_its_root_where_ids_without_a_place_are_kept() -> None:
    assert targets.shift(WEB, keep=True).capability(v3(300000)) == v3(300000)
    assert targets.shift(NO_ZERO, keep=True).capability(v2()) == v2()
    assert targets.shift(NO_ZERO).capability(v2()) is None
    assert targets.own(NO_ZERO, (1, 1)).capability(v2()) is None


@pytest.mark.parametrize(
    "rule",
    [
        targets.own(WEB, (33, 44)),
        targets.own(WEB, (0, 0), keep=True),
        targets.shift(WEB),
        targets.shift(WEB, reverse=True, keep=True),
        targets.shift(NO_ZERO),
        targets.move(WEB, NEXT, keep=True),
        targets.explicit(swapped(1, 2), IdMap.of((0, 7, 3), (9, 1, 2)), reverse=True),
    ],
)
def test_a_rule_is_the_same_after_json(rule: OwnershipRule) -> None:
    content = json.loads(json.dumps(rule.to_json()))
    assert OwnershipRule.from_json(content, rule.mode) == rule


# Passes


def test_the_mode_is_never_read_off_the_owner() -> None:
    """A journal whose mode is unknown, or whose owner says another, is refused instead of shifted."""
    for rule, other in ((targets.shift(WEB), "own"), (targets.own(WEB, (0, 0)), "shift")):
        content = rule.to_json()
        for mode in (other, "reverse", "idmap", "", None):
            with pytest.raises(ValueError, match="mode"):
                OwnershipRule.from_json(content, mode)  # type: ignore[arg-type]


def test_the_passes_of_two_swapped_ids_and_the_way_back() -> None:
    rule = targets.explicit(swapped(1, 2), IdMap.of((0, 100, 10)))
    staged = (
        IdMap.of((1, 3_000_000_001, 1), (2, 3_000_000_002, 1)),
        IdMap.of((0, 3_000_000_000, 10)),
    )
    first, between, last = (1, 5), (3_000_000_001, 3_000_000_005), (2, 105)
    assert Pass(rule, Leg.TO_STAGING, staged).owners(first) == ((first,), between)
    assert Pass(rule, Leg.FROM_STAGING, staged).owners(first) == ((between,), last)
    olds, new = Pass(rule, Leg.BACK, staged).owners(first)
    assert (set(olds), new) == ({between, last}, first)
    # The group has its place already and the user has not.
    assert Pass(rule, Leg.TO_STAGING, staged).owners((1, 105)) == (
        ((1, 105),),
        (3_000_000_001, 105),
    )
    assert Pass(rule, Leg.FROM_STAGING, staged).owners((1, 105)) == (
        ((3_000_000_001, 105),),
        (2, 105),
    )
    assert Pass(rule, Leg.FROM_STAGING, staged).wanted((3_000_000_001, 105)) == (2, 105)
    assert Pass(rule, Leg.FROM_STAGING, staged).first((3_000_000_001, 105)) == (1, 105)


def test_without_an_overlap_there_is_one_pass_and_the_way_back() -> None:
    rule = targets.shift(WEB)
    assert Pass(rule).owners((33, 44)) == (((33, 44),), (100033, 200044))
    olds, new = Pass(rule, Leg.BACK).owners((33, 44))
    assert (set(olds), new) == ({(100033, 200044)}, (33, 44))
    assert Pass(rule).wanted((33, 44)) == (100033, 200044)
    assert Pass(rule).wanted((100033, 200044)) == (100033, 200044)
    assert Pass(rule).wanted((65536, 0)) is None
    assert Pass(rule).first((100033, 200044)) == (100033, 200044)
