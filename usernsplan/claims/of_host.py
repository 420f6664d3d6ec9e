"""The ids that a host has of its own, for the other hosts of its fleet: lines of others, accounts, machines. Pure."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from usernsplan.claims.sources import OWN
from usernsplan.escape import utf8
from usernsplan.holdings import all_own_ids
from usernsplan.ids import EVERY_ID, ID_LIMIT, IdSet
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from usernsplan.claims.sources import Host
    from usernsplan.mapping import Kind

# Up to this many are listed one by one; beyond that, only their ids and sources are.
MOST = 20_000


class Own(NamedTuple):
    """Ids from ``start`` up to, but without, ``stop``, that ``holder`` has on a host."""

    kind: Kind
    start: int
    stop: int
    source: str
    holder: str


def own(host: Host) -> tuple[Own, ...]:
    """All of them, sorted. What the ledger gave out is not among them: the server has it already."""
    theirs = EVERY_ID - IdSet(
        chain(
            (ids for a in host.ledger.allocations for ids in all_own_ids(a)),
            (q.reserved_range for q in host.ledger.quarantined),
        )
    )
    found = {
        Own(c.kind, c.start, min(c.stop, ID_LIMIT), c.source, utf8(c.holder))
        for c in chain.from_iterable(source(host) for source in OWN)
        if c.allocation is None and c.start < min(c.stop, ID_LIMIT)
    }
    apart = [one for one in found if theirs.meets(one.start, one.stop)]
    if len(apart) > MOST:
        spans: dict[tuple[Kind, str], list[tuple[int, int]]] = {}
        for one in apart:
            spans.setdefault((one.kind, one.source), []).append((one.start, one.stop))
        apart = [
            Own(kind, ids.start, ids.stop, source, "")
            for (kind, source), several in spans.items()
            for ids in IdSet.clipped(several)
        ]
    return tuple(sorted(apart))
