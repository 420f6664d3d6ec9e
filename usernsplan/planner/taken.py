"""The claims that make ids unavailable, as text with the place, and the choice of free ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import PoolExhaustedError
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import LEDGER
from usernsplan.mapping import KINDS
from usernsplan.reserved import Reserved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.claims.index import Claim, Claims
    from usernsplan.layout import Layout
    from usernsplan.strategies import Need


def is_taken(claim: Claim) -> bool:
    """Tell whether a claim makes its ids unavailable.

    Ids that a map shares with the host stay free. So do those that useradd computes for uids that
    no account has: only the default pool keeps clear of them. What passes through is the host's,
    and so no range may have it.
    """
    return claim.source not in {"shared", "useradd"}


def is_of_others(claim: Claim) -> bool:
    """Tell whether the files of the host give the ids to somebody."""
    return claim.source in {"subid", "account", "group"}


def holders(ids: IdRange, claims: Claims, layout: Layout) -> Iterator[tuple[str, IdRange]]:
    """The holders of some of these ids, as text, each with the ids: the host's files come first."""
    found: dict[tuple[int, str], list[Claim]] = {}
    for claim in claims.over(ids.start, ids.stop):
        found.setdefault(_ranked(claim, layout), []).append(claim)
    for (_, holder), several in sorted(found.items(), key=lambda one: one[0][0]):
        for overlap in IdSet.clipped(claim[:2] for claim in several).within(ids):
            yield holder, overlap


def _ranked(claim: Claim, layout: Layout) -> tuple[int, str]:
    """The rank of a claim among the holders, and its text."""
    ledger, forget = layout.path(LEDGER), layout.inline("release --forget NAME")
    place = layout.path(claim.path) + (f":{claim.number}" if claim.number else "")
    # It may be in passwd or group, or a directory service knows it.
    accounts = f"an account or a group ({layout.inline('whois ID')} names it)"
    convention = claim.value.source if isinstance(claim.value, Reserved) else ""
    texts = {
        "account": (2, accounts),
        "group": (2, accounts),
        "reserved": (3, f"reserved for {claim.holder} ({convention})"),
        "namespace": (4, "mapped by a running user namespace"),
        "unlisted": (4, f"used by {claim.holder}" + (f", see {place}" if claim.path else "")),
        "absent": (4, f"not in the map of this container ({claim.path})"),
        "useradd": (4, claim.holder),
        "allocation": (5, f"allocated in {ledger}"),
        "filler": (5, f"allocated in {ledger}"),
        "pass": (6, f"passed through to a container in {ledger}"),
        "dockerroot": (6, f"container root (DOCKERROOT) of an allocation in {ledger}"),
        "reservation": (7, f"reserved in {ledger}: {claim.holder}"),
        "fleet": (5, f"another host's in the fleet ({layout.inline('whois --fleet ID')} names it)"),
        "quarantine": (8, f"quarantined, because files may still carry it ({forget} frees it)"),
    }
    if claim.source == "subid":
        return KINDS.index(claim.kind), f"granted by a line of {layout.path(claim.path)}"
    return texts[claim.source]


def take(pool: IdSet, taken: IdSet, need: Need, wanted: int) -> list[int]:
    """The bases of ``wanted`` new ranges, first fit. Raises PoolExhaustedError if not all fit."""
    room = pool - taken
    found = [fit for fit, _ in zip(room.fits(need.count, need.align), range(wanted), strict=False)]
    if len(found) < wanted:
        left = room - IdSet(found)
        aligned = f" at a multiple of {need.align}" if need.align > 1 else ""
        raise PoolExhaustedError(
            f"no room for {wanted - len(found)} of {wanted} ranges of {need.count} ids{aligned} "
            f"in the pool {pool}; the largest gap left holds {left.largest()} ids; "
            "nothing was allocated"
        )
    return [fit.start for fit in found]
