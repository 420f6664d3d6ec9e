"""In whatever map a container has, nothing is given out that does not exist there."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.states import asked, state
from usernsplan import Allocation, IdRange, IdSet, PerContainer, Shared, SingleUid, make_plan
from usernsplan.errors import PoolExhaustedError

# Around the default pool (from 589824) and the blocks of single-uid (from 1000000000).
starts = st.one_of(st.integers(0, 1000000), st.integers(999990000, 1000100000))
maps = st.lists(st.builds(IdRange, starts, st.integers(1, 400000)), min_size=1, max_size=4).map(
    IdSet
)
strategies = st.sampled_from([PerContainer(), PerContainer(1000), SingleUid(), Shared(3, 400)])


@given(uids=maps, gids=maps, strategy=strategies, names=st.integers(1, 4))
def test_what_is_given_out_exists_and_what_is_refused_is_named(
    uids: IdSet, gids: IdSet, strategy: PerContainer | SingleUid | Shared, names: int
) -> None:
    host = replace(state(), exists=(uids, gids))
    request = asked(*(f"c{number}" for number in range(names)), strategy=strategy)
    made: tuple[Allocation, ...] = ()
    hint = ""
    try:
        made = make_plan(host, request).allocations
    except PoolExhaustedError as error:
        hint = error.hint
    # The same request is possible where every id exists, so only the map can be the reason.
    assert make_plan(state(), request).allocations
    assert bool(made) != ("its map needs" in hint)
    for a in made:
        assert all(uids.holds(ids) for ids in a.mapping.uids.host_ranges())
        assert all(gids.holds(ids) for ids in a.mapping.gids.host_ranges())
        assert a.reserved_range is None or (uids & gids).holds(a.reserved_range)
