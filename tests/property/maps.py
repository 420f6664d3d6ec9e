"""Random maps for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from usernsplan.mapping import Extent, IdMap


@st.composite
def id_maps(draw: st.DrawFn, side: int = 30) -> IdMap:
    """Cut both sides into the same pieces, in any order, and keep some of them."""
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    orders = [draw(st.permutations(range(len(counts)))) for _ in range(2)]
    starts: list[dict[int, int]] = []
    for order in orders:
        at, found = draw(st.integers(0, side - sum(counts) if sum(counts) < side else 0)), {}
        for index in order:
            found[index] = at
            at += counts[index] + draw(st.integers(0, 2))
        starts.append(found)
    kept = draw(st.lists(st.sampled_from(range(len(counts))), min_size=1, unique=True))
    return IdMap(Extent(starts[0][index], starts[1][index], counts[index]) for index in kept)
