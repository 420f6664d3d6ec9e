"""The three strategies: the mappings that the documentation writes out, and the words that they refuse."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING

import pytest

from tests.each import each
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.ids import IdRange
from usernsplan.strategies import (
    NAMES,
    Need,
    PerContainer,
    Shared,
    SingleUid,
    differing,
    in_subid,
    with_defaults,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.strategies import Strategy


@each(
    ("strategy", "base", "extents"),
    [
        (PerContainer(), 589824, [(0, 589824, 65536)]),
        (PerContainer(size=1), 589824, [(0, 589824, 1)]),
        (PerContainer(size=4294967295), 0, [(0, 0, 4294967295)]),
        (SingleUid(), 1000000000, [(0, 1000000000, 1)]),
        (SingleUid(container_id=1000), 1000010000, [(1000, 1000010000, 1)]),
        (SingleUid(block=1), 1000000001, [(0, 1000000001, 1)]),
        (Shared(), None, [(0, 2, 1), (3, 3, 65533)]),
        (Shared(max=4294967294), None, [(0, 2, 1), (3, 3, 4294967292)]),
        (Shared(dockerroot=1, max=2), None, [(0, 1, 1), (2, 2, 1)]),
        (Shared(dockerroot=1000, max=1003), None, [(0, 1000, 1), (1001, 1001, 3)]),
        (Shared(filler=True), 589824, [(0, 2, 1), (1, 589824, 2), (3, 3, 65533)]),
        (Shared(dockerroot=5, max=9, filler=True), 100, [(0, 5, 1), (1, 100, 5), (6, 6, 4)]),
        (Shared(identity=True), None, [(0, 0, 65535)]),
        (Shared(identity=True, filler=True), None, [(0, 0, 65535)]),
        (Shared(identity=True, max=4294967295), None, [(0, 0, 4294967295)]),
    ],
)
def test_a_mapping_is_the_documented_one_for_uids_and_gids(
    strategy: Strategy, base: int | None, extents: list[tuple[int, int, int]]
) -> None:
    mapping = strategy.mapping(base)
    assert mapping.uids.triples() == extents
    assert mapping.gids.triples() == extents


@each(
    ("strategy", "need"),
    [
        (PerContainer(), Need(65536, 65536)),
        (PerContainer(size=1000), Need(1000, 65536)),
        (SingleUid(), Need(10000, 10000)),
        (SingleUid(block=1), Need(1, 1)),
        (Shared(), None),
        (Shared(filler=True), Need(2, 1)),
        (Shared(dockerroot=7, filler=True), Need(7, 1)),
        (Shared(identity=True, filler=True), None),
    ],
)
def test_a_strategy_says_what_it_takes_from_the_pool(strategy: Strategy, need: Need | None) -> None:
    assert strategy.need == need


@pytest.mark.parametrize(
    ("strategy", "pool"),
    [
        (PerContainer(), None),
        (Shared(), None),
        (SingleUid(), IdRange.parse("1000000000-1999999999")),
    ],
)
def test_only_the_openshift_way_has_a_pool_of_its_own(
    strategy: Strategy, pool: IdRange | None
) -> None:
    assert strategy.pool == pool


@pytest.mark.parametrize("dockerroot", [0, -1])
def test_container_root_is_never_made_the_hosts_root(dockerroot: int) -> None:
    with pytest.raises(RefusedError, match="the host's root"):
        Shared(dockerroot=dockerroot)


@each(
    "make",
    [
        lambda: Shared(dockerroot=2, max=2),
        lambda: Shared(dockerroot=9, max=5),
        lambda: Shared(max=4294967295),
        lambda: Shared(identity=True, max=0),
        lambda: Shared(identity=True, max=4294967296),
        lambda: PerContainer(size=0),
        lambda: PerContainer(size=-1),
        lambda: PerContainer(size=4294967296),
        lambda: SingleUid(block=0),
        lambda: SingleUid(container_id=-1),
        lambda: SingleUid(container_id=4294967295),
    ],
)
def test_words_that_leave_no_map_are_refused_before_a_base_is_looked_for(
    make: Callable[[], Strategy],
) -> None:
    with pytest.raises(InvalidValueError):
        make()


@pytest.mark.parametrize("strategy", [PerContainer(), SingleUid(), Shared(filler=True)])
def test_a_strategy_that_needs_a_base_says_so(strategy: Strategy) -> None:
    with pytest.raises(InvalidValueError, match="needs a base"):
        strategy.mapping(None)


@pytest.mark.parametrize("base", [1, 2, 3, 65535])
def test_a_filler_on_ids_that_the_map_already_uses_is_refused(base: int) -> None:
    with pytest.raises(InvalidValueError, match="overlap in their host ids"):
        Shared(filler=True).mapping(base)


def test_the_filler_is_what_lets_docker_carry_the_shared_map() -> None:
    assert Shared(filler=True).mapping(65536).uids.is_end_to_end()
    assert not Shared().mapping(None).uids.is_end_to_end()


@each(
    ("strategy", "base", "answer"),
    [
        (Shared(), None, True),
        (Shared(max=65536), None, False),
        (Shared(max=4294967294), None, False),
        (Shared(identity=True, max=65536), None, True),
        (Shared(identity=True, max=65537), None, False),
        (Shared(filler=True), 589824, True),
        (PerContainer(size=1048576), 589824, True),
        (SingleUid(container_id=70000), 1000000000, True),
    ],
)
def test_a_shared_map_past_65535_is_kept_out_of_subuid(
    strategy: Strategy, base: int | None, answer: bool
) -> None:
    assert in_subid(strategy.name, strategy.mapping(base)) is answer


def test_every_strategy_is_named_once_and_is_a_value() -> None:
    assert sorted(NAMES) == ["per-container", "shared", "single-uid"]
    assert Shared(dockerroot=3) == Shared(dockerroot=3) != Shared()
    with pytest.raises(FrozenInstanceError):
        PerContainer().size = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "said", "defaults", "found"),
    [
        ("per-container", {}, {"size": 5}, {"size": 5}),
        ("per-container", {"size": 7}, {"size": 5}, {"size": 7}),
        # What another strategy has.
        ("per-container", {}, {"block": 5, "container-id": 3, "identity": True}, {}),
        (
            "single-uid",
            {"block": 1},
            {"container-id": 3, "size": 5},
            {"block": 1, "container-id": 3},
        ),
        # Container root is one id, or itself.
        ("shared", {"identity": True}, {"dockerroot": 9, "max": 99}, {"identity": True, "max": 99}),
        ("shared", {"dockerroot": 9}, {"identity": True}, {"dockerroot": 9}),
        ("shared", {"dockerroot": "auto"}, {"dockerroot": 9}, {"dockerroot": "auto"}),
        (
            "shared",
            {"identity": False},
            {"dockerroot": 9},
            {"identity": False, "dockerroot": 9},
        ),
        ("nothing", {"size": 5}, {"size": 7, "max": 5}, {"size": 5}),
    ],
)
def test_a_default_counts_for_what_was_not_said_and_the_strategy_has(
    name: str, said: dict[str, int | str], defaults: dict[str, int], found: dict[str, int | str]
) -> None:
    assert with_defaults(name, said, defaults) == found


@pytest.mark.parametrize(
    ("wanted", "stands", "option"),
    [
        (PerContainer(), PerContainer(), ""),
        (PerContainer(5), PerContainer(), "size"),
        (SingleUid(block=5), SingleUid(), "block"),
        (SingleUid(container_id=5), SingleUid(), "container-id"),
        (Shared(), Shared(filler=True), ""),
        (Shared(dockerroot=3), Shared(), "dockerroot"),
        (Shared(max=99), Shared(), "max"),
        (Shared(), Shared(identity=True), "identity"),
    ],
)
def test_the_option_in_which_two_differ_is_named(
    wanted: Strategy, stands: Strategy, option: str
) -> None:
    base = 1000000000
    held = IdRange(base, stands.need.count) if stands.need else None
    assert differing(wanted, stands.mapping(base), held) == option
