"""The rule about the container that this host may be: ids that its map lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, rule
from usernsplan.escape import shell
from usernsplan.ids import EVERY_ID, IdSet
from usernsplan.layout import LEDGER
from usernsplan.mapping import KINDS
from usernsplan.planner import outer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.claims.index import Claim
    from usernsplan.mapping import Kind


@rule("USN095", "error")
def beyond_the_map(facts: Facts) -> Iterator[Seen]:
    """A line or an allocation has ids that do not exist in this container.

    This host is itself a container: it runs in a user namespace, and the kernel knows only the
    ids of that namespace's map, /proc/self/uid_map and gid_map. newuidmap fails for all others
    (write to uid_map failed: Operation not permitted), so no container starts with them.

    useradd does not look at the map, and gives out 100000-165535 in a container that has only
    0-65535. A root file system that was copied from elsewhere has lines of elsewhere.

        0 100000 65536          /proc/self/uid_map
        bob:100000:65536        in subuid

    On the host around the container, give it a larger map. Or remove the line, and allocate a
    range that exists.
    """
    for kind, exists in zip(KINDS, facts.state.exists, strict=True):
        told = set[str]()
        absent = EVERY_ID - exists
        # On nearly every host all ids exist, and no line has to be looked at.
        for claim in _held(facts, kind) if absent else ():
            a = claim.allocation
            if not absent.meets(*claim[:2]) or (a and a.name in told):
                continue
            lost = IdSet.clipped([claim[:2]]) & absent
            what, undo = f"{claim.holder}'s {claim.ids}", "remove the line if nobody needs it"
            if a:
                told.add(a.name)
                what = f"'{a.name}' ({claim.ids})"
                undo = f"{facts.state.layout.inline(f'release {shell(a.name)}')} gives it up"
            yield Seen(
                facts.place_of(claim) if claim.number else facts.place(LEDGER),
                f"{what} has {kind}s that do not exist here, {outer.shown(lost)}: "
                f"{outer.fact(facts.state)}",
                f"{undo}; {outer.remedy(facts.state, lost)}",
            )


def _held(facts: Facts, kind: Kind) -> Iterator[Claim]:
    """What lines grant, and then what the ledger holds; its lines stand for an allocation."""
    yield from facts.granted[kind]
    for claim in facts.claims:
        if claim.kind == kind and claim.allocation and claim.source != "subid":
            yield claim
