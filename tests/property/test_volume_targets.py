"""Passes over small worlds of ids, carried out by brute force, against the map followed once."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.property.maps import id_maps
from tests.unit.xattrs import GROUP, PLAIN, USER, acl, v2, v3
from usernsplan import IdMap, IdSet, Mapping
from usernsplan.errors import InvalidValueError
from usernsplan.volume import targets
from usernsplan.volume.passes import Form, Leg, Pass
from usernsplan.volume.power import lawful
from usernsplan.volume.targets import Moves, OwnershipRule

Owner = tuple[int, int]
IDS = range(45)
LIMIT = 4294967295


def told(extents: IdMap) -> dict[int, int]:
    return {e.container + i: e.host + i for e in extents for i in range(e.count)}


def moved(pairs: dict[int, int], old: int, *, source_first: bool, keep: bool) -> int | None:
    """The rule, in the words of the issue."""
    is_source, is_target = old in pairs, old in set(pairs.values())
    if is_target and not (is_source and source_first):
        return old
    return pairs[old] if is_source else old if keep else None


@st.composite
def moves(draw: st.DrawFn) -> Moves:
    return Moves(draw(id_maps()), draw(st.booleans()), draw(st.booleans()))


@dataclass
class Passes:
    """A rule of a map that overlaps itself, and each of its passes. ``uids`` and ``gids``: its map followed once."""

    rule: OwnershipRule
    one: Pass
    two: Pass
    back: Pass
    uids: dict[int, int]
    gids: dict[int, int]

    def final(self, first: Owner) -> Owner | None:
        uid, gid = self.uids.get(first[0]), self.gids.get(first[1])
        return None if uid is None or gid is None else (uid, gid)

    def movable(self) -> list[Owner]:
        """Every uid that has a place, with some such gid, and the other way round."""
        uids, gids = list(self.uids), list(self.gids)
        pairs = [
            (uids[i % len(uids)], gids[(i + by) % len(gids)])
            for i in range(len(IDS))
            for by in (0, 1)
        ]
        return list(dict.fromkeys(pairs))


@st.composite
def passes(draw: st.DrawFn) -> Passes:
    keep = draw(st.booleans())
    uids, gids = draw(id_maps()), draw(id_maps())
    rule = targets.explicit(uids, gids, keep=keep)
    used = draw(st.sets(st.integers(3_000_000_000, 3_000_000_020), max_size=5))
    staging = (targets.staging(rule.uids, used), targets.staging(rule.gids, used))
    once = [
        {old: moved(told(ids), old, source_first=True, keep=keep) for old in IDS}
        for ids in (uids, gids)
    ]
    final = [{old: new for old, new in pairs.items() if new is not None} for pairs in once]
    one, two, back = (
        Pass(rule, leg, staging) for leg in (Leg.TO_STAGING, Leg.FROM_STAGING, Leg.BACK)
    )
    return Passes(rule, one, two, back, *final)


def carried(one: Pass, first: Owner, now: Owner) -> Owner:
    """What a pass does to an inode that the journal knows."""
    olds, new = one.owners(first)
    return new if now in olds else now


@given(rule=moves())
def test_a_single_id_goes_where_the_words_of_the_issue_send_it(rule: Moves) -> None:
    pairs = told(rule.source)
    for old in IDS:
        expected = moved(pairs, old, source_first=rule.source_first, keep=rule.keep)
        assert rule(old) == expected
        assert rule.lacks(old) is (old not in pairs and old not in pairs.values())
        # Whatever the rule makes of an id can be told from what it has not seen yet only by not being an old one.
        if expected is not None:
            assert rule.settled(expected)


@given(rule=moves())
def test_a_map_overlaps_exactly_where_some_id_is_old_and_new_and_not_itself(rule: Moves) -> None:
    pairs = told(rule.source)
    overlapping = {old for old, new in pairs.items() if old != new} & set(pairs.values())
    assert rule.overlaps() is bool(overlapping)
    assert all((number in rule.target()) is (number in pairs.values()) for number in IDS)
    assert all(
        (number in rule.all_ids()) is (number in pairs or number in pairs.values())
        for number in IDS
    )


@given(rule=moves())
def test_a_rule_that_does_not_overlap_or_puts_its_target_first_can_be_followed_twice(
    rule: Moves,
) -> None:
    for old in IDS if not (rule.source_first and rule.overlaps()) else ():
        new = rule(old)
        assert new is None or rule(new) == new


@given(
    ids=id_maps(),
    up=st.tuples(*[st.sampled_from([0, 3_000_000_000, 3_000_000_003, LIMIT - 40])] * 2),
    used=st.lists(st.integers(3_000_000_000, 3_000_000_040)),
)
def test_staging_is_disjoint_from_everything_and_has_a_place_for_every_old_id(
    ids: IdMap, up: tuple[int, int], used: list[int]
) -> None:
    raised = IdMap(replace(e, container=e.container + up[0], host=e.host + up[1]) for e in ids)
    rule = Moves(raised, source_first=True)
    found = told(targets.staging(rule, used))
    pairs = told(raised)
    assert found.keys() >= pairs.keys()
    # One span where it fits: then ids between the extents have a place too.
    assert set(found) in ({*pairs}, {*range(min(pairs), max(pairs) + 1)})
    values = set(found.values())
    assert len(values) == len(found)
    assert not values & (pairs.keys() | set(pairs.values()) | set(used))
    assert all(3_000_000_000 <= number < LIMIT for number in values)
    assert not IdSet(targets.staging(rule, used).host_ranges()) & rule.all_ids()


@given(run=passes())
def test_both_passes_are_the_map_followed_once(run: Passes) -> None:
    for first in run.movable():
        between = carried(run.one, first, first)
        last = carried(run.two, first, between)
        assert last == run.final(first) == run.rule.owner_of(first)


@given(run=passes())
def test_each_pass_may_be_repeated_and_so_may_the_run_after_a_kill_anywhere(
    run: Passes,
) -> None:
    for first in run.movable():
        between = carried(run.one, first, first)
        assert carried(run.one, first, between) == between
        last = carried(run.two, first, between)
        assert carried(run.two, first, last) == last


@given(run=passes())
def test_the_way_back_leads_to_the_original_owner_from_wherever_a_kill_left_an_inode(
    run: Passes,
) -> None:
    for first in run.movable():
        between = carried(run.one, first, first)
        last = carried(run.two, first, between)
        for now in (first, between, last):
            assert carried(run.back, first, now) == first
            assert carried(run.back, first, carried(run.back, first, now)) == first


@given(run=passes())
def test_what_only_its_owner_tells_of_is_understood_in_each_pass(run: Passes) -> None:
    """Stragglers have no note in the journal: what they are is told by their owner alone."""
    for first in run.movable():
        between = carried(run.one, first, first)
        last = run.final(first)
        assert run.one.wanted(first) == between
        assert run.one.wanted(between) == between
        assert run.one.first(first) == first
        if between != first:
            assert run.two.wanted(between) == last
            assert run.two.first(between) == first
        assert last is not None
        assert run.two.wanted(last) == last
    for owner in zip(IDS, reversed(IDS), strict=True):
        assert (run.one.wanted(owner) is None) is (run.final(owner) is None)


@given(run=passes())
def test_the_staged_owners_of_different_inodes_are_different_as_those_before_and_after_are(
    run: Passes,
) -> None:
    found: dict[Owner, Owner] = {}
    for first in run.movable():
        between = carried(run.one, first, first)
        # Those of the target already are not staged, and what moves onto them is.
        assert found.setdefault(between, first) == first


@st.composite
def forms(draw: st.DrawFn, run: Passes) -> Form:
    def some_acl() -> bytes | None:
        if not draw(st.booleans()):
            return None
        uids = draw(
            st.lists(st.sampled_from([n for n in IDS if run.rule.uids(n) is not None]), max_size=3)
        )
        gids = draw(
            st.lists(st.sampled_from([n for n in IDS if run.rule.gids(n) is not None]), max_size=3)
        )
        return acl(*PLAIN, *((USER, 4, n) for n in uids), *((GROUP, 6, n) for n in gids))

    capabilities = [None, v2(), *(v3(n) for n in IDS)]
    possible = [raw for raw in capabilities if raw is None or run.rule.capability(raw) is not None]
    owner = draw(st.sampled_from(run.movable()))
    mode = draw(
        st.sampled_from([stat.S_IFREG | 0o644, stat.S_IFREG | 0o6755, stat.S_IFDIR | 0o2755])
    )
    return Form(owner, mode, some_acl(), some_acl(), draw(st.sampled_from(possible)))


@given(data=st.data(), run=passes())
def test_all_that_an_inode_has_is_carried_by_the_pass_that_reaches_the_target_and_comes_back(
    data: st.DataObject, run: Passes
) -> None:
    first = data.draw(forms(run))
    old, between = run.one.forms(first)
    assert (old, between) == (
        first,
        replace(first, owner=carried(run.one, first.owner, first.owner)),
    )
    assert run.two.forms(first)[0] == between
    last = run.two.forms(first)[1]
    assert last.owner == run.final(first.owner)
    assert (last.acl, last.default_acl) == tuple(
        raw and run.rule.acl(raw).raw for raw in (first.acl, first.default_acl)
    )
    # Nobody is the image of anybody here: power.lawful says what stays, and has tests of its own.
    whole = run.two.whole(first)
    assert whole.capability == (first.capability and run.rule.capability(first.capability))
    assert last == lawful(first, replace(last, mode=first.mode, capability=whole.capability))
    assert run.back.forms(first) == (last, first)
    assert [len(raw) for raw in (last.acl, first.acl) if raw] in ([], [len(first.acl or b"")] * 2)


@given(uids=id_maps(), gids=id_maps(), reverse=st.booleans(), keep=st.booleans())
def test_a_shift_without_passes_is_the_map_followed_once_and_comes_back(
    uids: IdMap, gids: IdMap, reverse: bool, keep: bool
) -> None:
    rule = targets.shift(Mapping(uids, gids), reverse=reverse, keep=keep)
    sides = [
        {new: old for old, new in told(m).items()} if reverse else told(m) for m in (uids, gids)
    ]
    there, back = Pass(rule), Pass(rule, Leg.BACK)
    for owner in [*zip(IDS, IDS, strict=True), *zip(IDS, reversed(IDS), strict=True)]:
        uid, gid = (
            moved(side, old, source_first=True, keep=keep)
            for side, old in zip(sides, owner, strict=True)
        )
        expected = None if uid is None or gid is None else (uid, gid)
        assert there.wanted(owner) == rule.owner_of(owner) == expected
        if expected is not None:
            assert there.owners(owner) == ((owner,), expected)
            # One that overlaps has passes.
            assert rule.overlaps() or there.wanted(expected) == expected
            assert carried(back, owner, expected) == owner


@settings(max_examples=examples(60))
@given(old=st.tuples(id_maps(), id_maps()), new=st.tuples(id_maps(), id_maps()), keep=st.booleans())
def test_from_one_container_to_another_keeps_the_container_id(
    old: tuple[IdMap, IdMap], new: tuple[IdMap, IdMap], keep: bool
) -> None:
    try:
        rule = targets.move(Mapping(*old), Mapping(*new), keep=keep)
    except InvalidValueError:
        assert any(not told(a).keys() & told(b).keys() for a, b in zip(old, new, strict=True))
        return
    for kind, moving in ((0, rule.uids), (1, rule.gids)):
        there = told(new[kind])
        inside = {host: container for container, host in told(old[kind]).items()}
        for n in IDS:
            # An old id goes where its container id is now; any other id may be a new one already.
            stays = n if keep or (n in there.values() and n not in inside) else None
            assert moving(n) == (there.get(inside[n], stays) if n in inside else stays)
            lacks = inside[n] not in there if n in inside else n not in there.values()
            assert moving.lacks(n) == lacks
        unclear = {n for n in inside if n in there.values() and there.get(inside[n]) != n}
        assert {n for n in IDS if n in moving.both()} == unclear
    read = OwnershipRule.from_json(json.loads(json.dumps(rule.to_json())), rule.mode)
    assert read == rule
    assert rule.root == told(new[0]).get(0)


@given(
    run=passes(),
    owner=st.one_of(st.none(), st.tuples(st.sampled_from(IDS), st.sampled_from(IDS))),
)
def test_a_rule_and_its_passes_are_the_same_after_json(run: Passes, owner: Owner | None) -> None:
    rule = replace(run.rule, mode="own" if owner else "shift", owner=owner)
    read = OwnershipRule.from_json(json.loads(json.dumps(rule.to_json())), rule.mode)
    assert read == rule
