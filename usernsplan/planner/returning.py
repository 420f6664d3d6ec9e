"""A name that comes back: the range that it had until it was released is its own again, with the files in it. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from usernsplan.claims.sources import claims_of
from usernsplan.planner.stories import advise
from usernsplan.planner.taken import holders, is_taken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from usernsplan.claims.index import Claims
    from usernsplan.model import Allocation, Finding, HostState, Quarantined
    from usernsplan.planner.resolve import Wanted


def of(state: HostState, wanted: Iterable[Wanted]) -> dict[str, tuple[Quarantined, ...]]:
    """By name, the ranges that it had with the same owner, strategy and size, the latest first.

    Of what an older ledger released nobody noted the owner: there the name and the size tell.
    """
    now = {
        one.name: (need.count, one.owner, one.strategy.name)
        for one in wanted
        if (need := one.strategy.need)
    }
    found: dict[str, list[Quarantined]] = {}
    for former in state.ledger.quarantined:
        count, *more = now.get(former.name, (None,))
        was = former.was
        if former.reserved_range.count == count and (
            was is None or [was.owner, was.strategy] == more
        ):
            found.setdefault(former.name, []).append(former)
    return {name: tuple(sorted(ones, key=_released, reverse=True)) for name, ones in found.items()}


def without(claims: Claims, back: Iterable[Quarantined]) -> Claims:
    """The claims less these ranges in quarantine."""
    gone = {(one.name, one.reserved_range.start, one.reserved_range.stop) for one in back}
    if not gone:
        return claims
    return claims.where(
        lambda claim: claim.source != "quarantine" or (claim.holder, *claim[:2]) not in gone
    )


def since_then(allocation: Allocation, former: Quarantined | None) -> Allocation:
    """The allocation, as old as it was: with the same map, the volumes that it had are right as they are."""
    if former and former.was and former.was.mapping == allocation.mapping:
        return replace(allocation, since=former.was.since, event=former.was.event)
    return allocation


def told(state: HostState, back: Mapping[str, Quarantined]) -> Iterator[Finding]:
    """What is said of ranges that come back."""
    for name, former in back.items():
        message = f"'{name}' has {former.reserved_range} again, which it had until it was released"
        if state.namespaces.meets(former.reserved_range.start, former.reserved_range.stop):
            hint = f"a running user namespace maps ids of it: if that is no container of '{name}', stop it first"
            yield advise("USN135", message, hint)
        else:
            yield advise("USN131", message)


def missed(state: HostState, new: Iterable[Allocation]) -> Iterator[Finding]:
    """What is said of names that had another range before: files may still carry its ids."""
    former: dict[str, Quarantined] = {}
    for one in state.ledger.quarantined:
        former[one.name] = max(one, former.get(one.name, one), key=_released)
    for allocation in new:
        before = former.get(allocation.name)
        if before is not None:
            command, ids = (
                state.layout.command,
                f"{before.reserved_range.start}-{before.reserved_range.last}",
            )
            message = f"'{before.name}' had {before.reserved_range} until it was released, and does not get it again: "
            hint = (
                f"'{command(f'find-owned {ids} /')}' lists files that carry the old ids; fix-volume with "
                f"'--container {before.name} --from {before.name}' gives them the new ones"
            )
            yield advise("USN132", message + _why(state, before, allocation), hint)


def _why(state: HostState, former: Quarantined, now: Allocation) -> str:
    was = former.was
    if now.reserved_range is None:
        return "with these options it has no range of its own"
    if former.reserved_range.count != now.reserved_range.count:
        return f"{now.reserved_range.count} ids are asked for, and it has {former.reserved_range.count}"
    if was and was.strategy != now.strategy:
        return f"its strategy was {was.strategy}"
    if was and was.owner != now.owner:
        return f"its owner was {was.owner}"
    others = without(claims_of(state), [former]).where(
        lambda claim: is_taken(claim) and claim.source != "namespace"
    )
    if found := next(holders(former.reserved_range, others, state.layout), None):
        return f"{found[1]} is now {found[0]}"
    return "other ids are asked for"


def _released(one: Quarantined) -> tuple[int, int]:
    return one.event, one.reserved_range.start
