"""Allocations with ids that pass through, and slices, for tests of what shows and judges them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan import Allocation, IdMap, IdRange, Mapping, PerContainer
from usernsplan.formats import passes
from usernsplan.holdings import holdings
from usernsplan.mapping import Extent, Pass, joined

if TYPE_CHECKING:
    from collections.abc import Iterable


def passing(name: str, base: int, *texts: str, owners: Iterable[str] = ()) -> Allocation:
    """What the ledger holds of a map with holes: each text is as --pass takes it, in numbers."""
    found = []
    for text in texts:
        asked = passes.parse(text)
        assert isinstance(asked.host, IdRange)
        container = asked.host.start if asked.container is None else asked.container
        extent = Extent(container, asked.host.start, asked.host.count)
        found += [Pass(kind, extent) for kind in asked.kinds]
    strategy = PerContainer(passes=joined(found))
    return Allocation(
        name,
        f"usernsplan-{name}",
        "per-container",
        strategy.mapping(base),
        IdRange(base, 65536),
        extra_owners=tuple(owners),
        passes=strategy.passes,
    )


def slice_of(
    owner: str, name: str, start: int, count: int, *, gids: int | None = None
) -> Allocation:
    """What the ledger holds of a slice; ``gids`` is where its gids begin, if it is elsewhere."""
    first = start if gids is None else gids
    uid_map, gid_map = IdMap.of((0, start, count)), IdMap.of((0, first, count))
    return Allocation(
        name,
        owner,
        "per-container",
        Mapping(uid_map, uid_map if gids is None else gid_map),
        IdRange(start, count) if gids is None else None,
        in_files=False,
        within=owner,
    )


def lines(*allocations: Allocation) -> dict[str, bytes]:
    """The lines that these allocations need, as keywords of ``states.state``."""
    found = {"uid": b"", "gid": b""}
    for a in allocations:
        for one in holdings(a):
            found[one.kind] += b"".join(one.wanted)
    return {"subuid": found["uid"], "subgid": found["gid"]}
