"""What keeps ids from being given out, in words that name the place; and choosing what is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import PoolExhaustedError
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import GROUP, LEDGER, PASSWD
from usernsplan.mapping import KINDS
from usernsplan.reserved import Reserved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.claims.index import Claim, Claims
    from usernsplan.layout import Layout
    from usernsplan.strategies import Need


def is_taken(claim: Claim) -> bool:
    """Tell whether a claim keeps its ids from others: what maps share with the host does not."""
    return claim.source != "shared"


def is_of_others(claim: Claim) -> bool:
    """Tell whether the host's own files give the ids to somebody."""
    return claim.source in {"subid", "account", "group"}


def holders(ids: IdRange, claims: Claims, layout: Layout) -> Iterator[tuple[str, IdRange]]:
    """Who has some of these ids, and which: the host's files first, then what the ledger has."""
    found: dict[tuple[int, str], list[Claim]] = {}
    for claim in claims.over(ids.start, ids.stop):
        found.setdefault(_words(claim, layout), []).append(claim)
    for (_, words), several in sorted(found.items(), key=lambda one: one[0][0]):
        for overlap in IdSet.clipped(claim[:2] for claim in several).within(ids):
            yield words, overlap


def _words(claim: Claim, layout: Layout) -> tuple[int, str]:
    """What has the ids, and where it stands among the others."""
    ledger, forget = layout.path(LEDGER), layout.inline("release --forget NAME")
    accounts = f"an account of {layout.path(PASSWD)} or a group of {layout.path(GROUP)}"
    convention = claim.value.source if isinstance(claim.value, Reserved) else ""
    words = {
        "account": (2, accounts),
        "group": (2, accounts),
        "reserved": (3, f"kept for {claim.holder} ({convention})"),
        "namespace": (4, "mapped by a running user namespace"),
        "allocation": (5, f"allocated in {ledger}"),
        "filler": (5, f"allocated in {ledger}"),
        "dockerroot": (6, f"container root (DOCKERROOT) of an allocation in {ledger}"),
        "reservation": (7, f"reserved in {ledger}: {claim.holder}"),
        "quarantine": (8, f"released, and files may still carry it ({forget} frees it)"),
    }
    if claim.source == "subid":
        return KINDS.index(claim.kind), f"granted by a line of {layout.path(claim.path)}"
    return words[claim.source]


def take(pool: IdRange, taken: IdSet, need: Need, wanted: int) -> list[int]:
    """The bases of ``wanted`` new ranges, first fit; all of them or PoolExhaustedError."""
    room = taken.gaps(pool)
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
