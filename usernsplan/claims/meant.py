"""Lines that overlap other ids on purpose. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.claims.sources import OF_CONTAINERS
from usernsplan.model import ROOT

if TYPE_CHECKING:
    from usernsplan.claims.index import Claim

# The packages of LXD and Incus give the same range to these accounts and to root, who runs the
# daemon.
DAEMONS_OF_ROOT = frozenset({"lxd", "_lxd", "incus", "_incus"})
_OF_ROOT = DAEMONS_OF_ROOT | {ROOT}


def is_meant_by_root(owner: str, start: int, count: int) -> bool:
    """Tell whether a line gives root some of the host's own ids, which root has anyway.

    LXC's identity maps, single ids for LXD's raw.idmap, and ids of accounts that pass through are
    such lines. Guides to raw.idmap give the same single id to the account of the daemon.
    """
    if owner in DAEMONS_OF_ROOT:
        return count == 1
    return owner == ROOT and (start == 0 or count == 1 or start + count <= OF_CONTAINERS)


def is_meant(claim: Claim) -> bool:
    """Tell whether a claim is a line of root about the host's own ids."""
    return (
        # First, because nearly every line is that of somebody else.
        claim.holder in _OF_ROOT
        and claim.source == "subid"
        and not claim.allocation
        and is_meant_by_root(claim.holder, claim.start, claim.stop - claim.start)
    )
