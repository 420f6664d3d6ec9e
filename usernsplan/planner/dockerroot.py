"""DOCKERROOT: the host id of container root in a shared map. Pure."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from usernsplan.claims.meant import is_meant
from usernsplan.claims.sources import claims_of
from usernsplan.errors import PoolExhaustedError
from usernsplan.formats.subid import Grant
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.strategies import SHARED_SUBID_LAST, Shared

if TYPE_CHECKING:
    from usernsplan.claims.index import Claim, Claims
    from usernsplan.model import Allocation, HostState


def dockerroot_of(allocation: Allocation) -> int | None:
    """The DOCKERROOT of a shared allocation; None if it is the host's root, or not shared."""
    is_shared = allocation.strategy == Shared.name
    return allocation.mapping.uids.to_host(0) or None if is_shared else None


def claims_of_others(state: HostState) -> Claims:
    """The claims of others: container root should not be one of these ids.

    Lines of our owners do not count, and neither do lines of root about the host's own ids, which
    root has anyway. A line that not every reader understands does not count either.
    """
    ours = {owner for a in state.ledger.allocations for owner in (a.owner, *a.extra_owners)}

    def is_others(claim: Claim) -> bool:
        if claim.source == "subid":
            is_plain = isinstance(claim.value, Grant)
            return is_plain and claim.holder not in ours and not is_meant(claim)
        return claim.source in {"account", "group", "reservation", "absent"}

    return claims_of(state).where(is_others)


def first_free(state: HostState) -> int:
    """The DOCKERROOT that ``auto`` takes. Raises PoolExhaustedError if no id is free.

    One DOCKERROOT serves the whole host: that of an existing allocation comes first, unless
    somebody else has got the id since then.
    """
    ours = [root for a in state.ledger.allocations if (root := dockerroot_of(a))]
    taken = claims_of_others(state).ids
    usual = Shared().dockerroot
    for root in chain(ours, range(usual, SHARED_SUBID_LAST)):
        if root not in taken:
            return root
    where = " and ".join(state.layout.path(path) for path in (SUBUID, SUBGID))
    raise PoolExhaustedError(
        f"no id from {usual} to {SHARED_SUBID_LAST - 1} is free for DOCKERROOT",
        hint=f"accounts, groups and lines of {where} have them; choose one with --dockerroot N",
    )
