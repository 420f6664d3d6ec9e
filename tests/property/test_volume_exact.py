"""A shift and its reverse over every small map and every id: exact, or refused."""

from __future__ import annotations

import json
from itertools import combinations, pairwise, permutations, product

import pytest

from usernsplan import IdMap, IdRange, IdSet, Mapping
from usernsplan.volume import targets
from usernsplan.volume.passes import Leg, Pass
from usernsplan.volume.targets import OwnershipRule

SPACE = 6
NOBODY_ELSE = IdSet()
Triples = tuple[tuple[int, int, int], ...]


def small_maps() -> list[Triples]:
    """Every map of up to three extents that lies in the space: each cut of its container side, each host side."""
    found = set()
    ranges = [(start, count) for start in range(SPACE) for count in range(1, SPACE - start + 1)]
    for number in (1, 2, 3):
        for sources in combinations(ranges, number):
            if any(a + n > b for (a, n), (b, _) in pairwise(sources)):
                continue
            for hosts in product(*[range(SPACE - count + 1) for _, count in sources]):
                ids = [
                    host + i
                    for host, (_, count) in zip(hosts, sources, strict=True)
                    for i in range(count)
                ]
                if len(set(ids)) == len(ids):
                    found.add(
                        tuple((s, host, n) for (s, n), host in zip(sources, hosts, strict=True))
                    )
    return sorted(found)


MAPS = small_maps()


def told(triples: Triples) -> dict[int, int]:
    return {start + i: host + i for start, host, count in triples for i in range(count)}


def run(rule: OwnershipRule, old: int) -> int | None:
    """What the passes of a run make of an id; None where the run is refused because of it."""
    if rule.uids.lacks(old) or rule.owner_of((old, old)) is None:
        return None
    if not rule.overlaps():
        return Pass(rule).owners((old, old))[1][0]
    staging = (targets.staging(rule.uids, [old]), targets.staging(rule.gids, [old]))
    between = Pass(rule, Leg.TO_STAGING, staging).owners((old, old))[1]
    [found], last = Pass(rule, Leg.FROM_STAGING, staging).owners((old, old))
    assert found == between
    return last[0]


def mapping(triples: Triples) -> Mapping:
    return Mapping(IdMap.of(*triples), IdMap.of(*triples))


def test_there_are_maps_of_every_kind() -> None:
    assert {len(triples) for triples in MAPS} == {1, 2, 3}
    assert ((0, 2, 1), (1, 4, 1), (3, 3, 1)) in MAPS
    assert ((0, 1, 1), (1, 0, 1)) in MAPS
    for triples in permutations(((0, 0, 3), (3, 3, 3))):
        assert told(triples) == {n: n for n in range(SPACE)}


def test_a_shift_follows_the_map_and_its_reverse_is_exact() -> None:
    for triples in MAPS:
        rule = targets.shift(mapping(triples), exclusive=NOBODY_ELSE)
        back = targets.shift(mapping(triples), reverse=True)
        pairs = told(triples)
        for old in range(SPACE):
            new = run(rule, old)
            # An id that the container does not have is refused, also where the host id is another one's.
            assert new == pairs.get(old), (triples, old)
            assert new is None or run(back, new) == old, (triples, old)


def test_a_reverse_and_the_shift_after_it_are_exact_for_all_that_the_container_has() -> None:
    for triples in MAPS:
        rule = targets.shift(mapping(triples))
        back = targets.shift(mapping(triples), reverse=True)
        for old, new in told(triples).items():
            assert run(back, new) == old, (triples, new)
            assert run(rule, old) == new, (triples, old)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_repeated_run_moves_nothing_twice_unless_its_map_overlaps_itself(reverse: bool) -> None:
    for triples in MAPS:
        first = targets.shift(mapping(triples), reverse=reverse, exclusive=NOBODY_ELSE)
        again = first.after_it()
        sources = {new: old for old, new in told(triples).items()} if reverse else told(triples)
        overlaps = any(old != new and old in sources.values() for old, new in sources.items())
        assert first.overlaps() is overlaps, triples
        for old in range(SPACE) if not overlaps else ():
            new = run(first, old)
            assert new is None or run(again, new) == new, (triples, old)


def test_own_may_be_repeated_whatever_the_map() -> None:
    for triples in MAPS:
        for old, new in told(triples).items():
            rule = targets.own(mapping(triples), (old, old))
            assert not rule.overlaps()
            assert [rule.owner_of((n, n)) for n in range(SPACE)] == [(new, new)] * SPACE


def test_what_is_exclusively_the_container_s_is_right_already() -> None:
    # As Docker has it: 0 is host id 2, and 1 and 2 are two ids of nobody else.
    docker = mapping(((0, 2, 1), (1, 700, 2), (3, 3, 3)))
    rule = targets.shift(docker, exclusive=IdSet([IdRange(700, 2)]))
    assert [run(rule, old) for old in (0, 1, 2, 3, 700, 701, 702)] == [
        2,
        700,
        701,
        3,
        700,
        701,
        None,
    ]
    # As Podman has it: the container has no 1 and no 2, and host id 2 is bin's.
    podman = mapping(((0, 2, 1), (3, 3, 3)))
    rule = targets.shift(podman, exclusive=IdSet())
    assert [run(rule, old) for old in (0, 1, 2, 3, 6)] == [2, None, None, 3, None]
    assert [run(rule.after_it(), old) for old in (0, 1, 2, 3, 6)] == [2, None, 2, 3, None]


def test_what_others_may_have_too_is_moved_into_no_container() -> None:
    web, podman = mapping(((0, 500, 4),)), mapping(((0, 2, 1), (3, 3, 3)))
    rule = targets.move(web, podman, exclusive=IdSet())
    assert [run(rule, old) for old in (500, 503, 501, 2, 3)] == [2, 3, None, None, None]
    assert [run(rule.after_it(), old) for old in (500, 503, 2, 3)] == [2, 3, 2, 3]


def test_the_same_work_is_told_whichever_way_ids_on_both_sides_were_taken() -> None:
    docker = mapping(((0, 2, 1), (1, 700, 2), (3, 3, 3)))
    rule = targets.shift(docker, exclusive=IdSet())
    content = json.loads(json.dumps(rule.to_json()))
    for kind in ("uids", "gids"):
        content[kind]["source_first"] = False
    older = OwnershipRule.from_json(content, rule.mode)
    assert older != rule
    assert older.same_work(rule)
    assert not older.overlaps()
    assert not rule.same_work(targets.shift(docker, keep=True))
    assert not rule.same_work(targets.own(docker, (0, 0)))
    assert not rule.same_work(targets.shift(docker, reverse=True))
