"""security.idmap.* and raw.idmap against a naive model: the daemon lays base and size, and raw.idmap over them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml
from hypothesis import given
from hypothesis import strategies as st

from usernsplan import Allocation, IdMap, IdRange, Mapping
from usernsplan.engines import render, verdict
from usernsplan.mapping import KINDS, Extent, Pass, around

if TYPE_CHECKING:
    from usernsplan.mapping import Kind

BASE, SIZE = 1000, 12
LINE = re.compile(r"(both|uid|gid) (\d+)(?:-(\d+))? (\d+)(?:-(\d+))?")
# Host ids below the base, and container ids up to a little more than the size.
extents = st.builds(
    Extent, st.integers(0, SIZE + 4), st.integers(0, 90).map(lambda n: n * 10), st.integers(1, 4)
)


def apart(found: list[Extent]) -> list[Extent]:
    """Those that overlap none before them, on either side."""
    kept: list[Extent] = []
    for one in found:
        if not any(
            one.host_range.overlaps(other.host_range)
            or one.container_range.overlaps(other.container_range)
            for other in kept
        ):
            kept.append(one)
    return kept


passes = st.lists(extents, max_size=4).map(apart)


def as_ids(ids: IdMap) -> dict[int, int]:
    return {e.container + n: e.host + n for e in ids for n in range(e.count)}


def laid(text: str) -> dict[Kind, dict[int, int]]:
    """What the daemon makes of a configuration, id by id."""
    config = yaml.safe_load(text)["config"]
    base, size = (int(config[f"security.idmap.{key}"]) for key in ("base", "size"))
    found: dict[Kind, dict[int, int]] = {kind: {n: base + n for n in range(size)} for kind in KINDS}
    for line in config.get("raw.idmap", "").splitlines():
        which, *numbers = LINE.fullmatch(line).groups()  # type: ignore[union-attr]
        host, host_last, first, last = (int(number) if number else None for number in numbers)
        assert host is not None
        assert first is not None
        count = (last if last is not None else first) - first + 1
        assert (host_last if host_last is not None else host) - host + 1 == count
        for kind in KINDS:
            if which in {"both", kind}:
                # It takes one id at the very end for one that is past it, and fails.
                assert (first, count) != (size - 1, 1)
                found[kind] |= {first + n: host + n for n in range(count)}
    return found


@given(passes, passes)
def test_any_map_with_ids_that_pass_is_made_or_refused(
    uids: list[Extent], gids: list[Extent]
) -> None:
    mapping = Mapping(around(BASE, SIZE, uids), around(BASE, SIZE, gids))
    made = Allocation(
        "web",
        "root",
        "per-container",
        mapping,
        IdRange(BASE, SIZE),
        passes=(*(Pass("uid", one) for one in uids), *(Pass("gid", one) for one in gids)),
    )
    if not any(one.host == 0 for one in uids):
        assert verdict("incus", made).can
    if verdict("incus", made).can:
        assert laid(render("incus", made).text) == {kind: as_ids(mapping[kind]) for kind in KINDS}


@given(passes.filter(bool), passes.filter(bool))
def test_any_other_map_is_made_as_it_is_or_refused(uids: list[Extent], gids: list[Extent]) -> None:
    mapping = Mapping(IdMap(uids), IdMap(gids))
    made = Allocation("web", "root", "per-container", mapping, None)
    if verdict("incus", made).can:
        assert laid(render("incus", made).text) == {kind: as_ids(mapping[kind]) for kind in KINDS}
    first = [min(mapping[kind]) for kind in KINDS]
    if first[0] == first[1] and first[0].container == 0:
        # The first extent as base and size, all others beside it.
        assert verdict("incus", made).can
