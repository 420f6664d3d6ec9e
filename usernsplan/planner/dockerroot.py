"""DOCKERROOT: the host id of container root in a shared map. Pure."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from usernsplan.errors import PoolExhaustedError
from usernsplan.formats.subid import Grant
from usernsplan.ids import IdSet
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.planner.meant import is_meant_by_root
from usernsplan.strategies import SHARED_SUBID_LAST, Shared

if TYPE_CHECKING:
    from usernsplan.model import Allocation, HostState


def dockerroot_of(allocation: Allocation) -> int | None:
    """The DOCKERROOT of a shared allocation; None where it is the host's root, or not shared."""
    return (
        allocation.mapping.uids.to_host(0) or None if allocation.strategy == Shared.name else None
    )


def first_free(state: HostState) -> int:
    """The DOCKERROOT that ``auto`` takes. Raises PoolExhaustedError where somebody has every id.

    One DOCKERROOT serves a whole host: that of an allocation which stands comes first, if nobody
    else has got the id since.
    """
    ours = [root for a in state.ledger.allocations if (root := dockerroot_of(a))]
    owners = {owner for a in state.ledger.allocations for owner in (a.owner, *a.extra_owners)}
    lines = (line for file in (state.subuid, state.subgid) for line in file.lines)
    others = IdSet.clipped(
        (x.start, x.stop)
        for x in lines
        if isinstance(x, Grant)
        and x.owner not in owners
        and not is_meant_by_root(x.owner, x.start, x.stop - x.start)
    )
    reserved = IdSet(r.ids for r in state.ledger.reservations)
    taken = IdSet.union((state.accounts.ids(), others, reserved))
    usual = Shared().dockerroot
    for root in chain(ours, range(usual, SHARED_SUBID_LAST)):
        if root not in taken:
            return root
    where = " and ".join(state.layout.path(path) for path in (SUBUID, SUBGID))
    raise PoolExhaustedError(
        f"somebody has every id from {usual} to {SHARED_SUBID_LAST - 1}",
        hint=f"accounts, groups, and lines of {where} have them; name one with --dockerroot N",
    )
