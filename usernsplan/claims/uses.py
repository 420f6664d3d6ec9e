"""Whose containers a program uses ids for that it has without a line. Pure.

A program that has ids of an allocation may run this very container. It is no stranger then, and
the ids have one owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.claims.meant import DAEMONS_OF_ROOT, is_meant
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.model import (
    DEFAULT_OWNER,
    DOCKER,
    INCUS,
    LXD,
    MOUNT,
    PODMAN,
    ROOT,
    SNAPD,
    Unlisted,
)
from usernsplan.reserved import FOR_SNAPD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from usernsplan.claims.index import Claim, Claims
    from usernsplan.model import Allocation, LedgerState

_LATER = frozenset({DOCKER, MOUNT, SNAPD})


def without_own(claims: Claims, ledger: LedgerState, made: Iterable[Allocation]) -> Claims:
    """The claims without those of programs that use the ids for one of these allocations."""
    volumes, allocations = volumes_of(ledger), tuple(made)
    return claims.where(
        lambda claim: (
            not (
                isinstance(claim.value, Unlisted)
                and any(is_own(claim.value, a, volumes) for a in allocations)
            )
        )
    )


def without_mounts(claims: Claims, ledger: LedgerState) -> Claims:
    """The claims without those of our own mounts, which show the ids of the containers that have them."""
    if not ledger.mounts:
        return claims
    its = {a.name: a for a in ledger.allocations}
    made = {m.at: its[m.name] for m in ledger.mounts if m.name in its}
    volumes = volumes_of(ledger)
    return claims.where(
        lambda claim: (
            not (
                isinstance(claim.value, Unlisted)
                and claim.value.program == MOUNT
                and (a := made.get(claim.value.path))
                and is_own(claim.value, a, volumes)
            )
        )
    )


def volumes_of(ledger: LedgerState) -> dict[str, str]:
    """The container of each recorded volume, by its path, and of each mount, by its point."""
    mounts = {mount.at: mount.name for mount in ledger.mounts}
    return {volume.path: volume.name for volume in ledger.volumes} | mounts


def may_stay(claim: Claim) -> bool:
    """Tell whether a claim is no obstacle for a range that was given out before.

    A running user namespace or a mount may be the container itself. Docker took its ids from a
    line, so they belong to the owner of that line. snapd's slot was unknown when earlier ranges
    were given out.
    """
    by_program = isinstance(claim.value, Unlisted) and claim.value.program in _LATER
    return by_program or claim.source == "namespace" or claim.value is FOR_SNAPD


def may_run(claim: Claim) -> bool:
    """Tell whether somebody uses these ids now, and nothing tells which container it is."""
    is_mount = isinstance(claim.value, Unlisted) and claim.value.program == MOUNT
    return is_mount or claim.source == "namespace"


def is_own(one: Unlisted, a: Allocation, volumes: Mapping[str, str]) -> bool:
    """Tell whether a program uses these ids for this allocation.

    So it is if the program has them by lines of the owner, who is an account, if the program's
    container has the allocation's name, or if the place is one of its recorded volumes
    (``volumes``: see ``volumes_of``). Docker's remap user has the ids of its data root. A unit of
    Podman with ids that the ledger has for the allocation was given them, whatever it is called.
    """
    if one.program == DOCKER:
        return a.owner == DEFAULT_OWNER and one.start == a.mapping[one.kind].to_host(0)
    is_named = one.container == a.name or volumes.get(one.path) == a.name
    is_named = is_named or (one.program == PODMAN and bool(a.since))
    # Root runs containers for many, and so a line of root's says nothing about whose one it is. Nor
    # does that of an owner whose lines have slices.
    is_by_line = not a.within and one.grantee != ROOT and one.grantee in {a.owner, *a.extra_owners}
    return is_by_line or (is_named and _is_in(one, a))


def _is_in(one: Unlisted, a: Allocation) -> bool:
    ids = IdSet(e.host_range for e in a.mapping[one.kind])
    if a.reserved_range:
        ids |= IdSet((a.reserved_range,))
    # A line of a file says how many ids there are; the owner of a folder does not.
    if not one.number:
        return ids.meets(one.start, one.stop)
    return one.stop <= ID_LIMIT and ids.holds(IdRange(one.start, one.stop - one.start))


def parties(claims: Claims) -> Claims:
    """The claims of allocations and lines, whose holders may be strangers to a program.

    Thousands of containers may share one map, and comparing each with each would take seconds.
    """
    return claims.where(
        lambda claim: (
            claim.source in {"allocation", "filler"}
            or (claim.source == "subid" and not claim.allocation and not is_meant(claim))
        )
    )


def strangers(one: Unlisted, others: Claims, volumes: Mapping[str, str]) -> list[Claim]:
    """The claims on these ids, among the ``parties``, that the program does not use them for.

    Ids that a folder or a mount shows are those of one container: if it is known, nobody else has
    to be. The owner of lines over the host's own ids has these anyway.
    """
    over = others.over(one.start, one.stop, one.kind)
    own = [claim for claim in over if _is_for(one, claim, volumes)]
    if own and not one.number and not one.grantee:
        return []
    owners = {claim.owner for claim in own}
    return [claim for claim in over if claim.owner not in owners]


def _is_for(one: Unlisted, claim: Claim, volumes: Mapping[str, str]) -> bool:
    of_root = {ROOT, *DAEMONS_OF_ROOT}
    if one.program == SNAPD:
        return claim.owner in of_root
    if one.program in {INCUS, LXD}:
        # An instance may have another name than the allocation that root was granted for it.
        a = claim.allocation
        of_ours = a is not None and one.container != "" and ROOT in a.extra_owners
        return claim.owner in of_root or of_ours
    if one.program == MOUNT and claim.start <= one.start and one.stop <= claim.stop:
        return True
    if one.program == DOCKER:
        return one.start == claim.start
    if claim.allocation:
        return is_own(one, claim.allocation, volumes)
    return one.grantee == claim.owner
