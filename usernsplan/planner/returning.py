"""A released name that is allocated again gets back its former range, with the files in it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.claims.sources import claims_of
from usernsplan.claims.uses import may_run, may_stay, without_own
from usernsplan.errors import RefusedError
from usernsplan.planner.stories import advise
from usernsplan.planner.taken import holders, is_taken
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from usernsplan.claims.index import Claims
    from usernsplan.model import Allocation, Finding, HostState, Quarantined
    from usernsplan.planner.resolve import Wanted


def of(state: HostState, wanted: Iterable[Wanted]) -> dict[str, tuple[Quarantined, ...]]:
    """By name, its quarantined ranges of the same owner, strategy and size, the latest first.

    An older ledger did not note the owner and the strategy; then the name and the size count.
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
            was is None or ([was.owner, was.strategy] == more and not was.within)
        ):
            found.setdefault(former.name, []).append(former)
    return {name: tuple(sorted(ones, key=_released, reverse=True)) for name, ones in found.items()}


def without(claims: Claims, back: Iterable[Quarantined]) -> Claims:
    """The claims without these quarantined ranges."""
    gone = {(one.name, one.reserved_range.start, one.reserved_range.stop) for one in back}
    if not gone:
        return claims
    return claims.where(
        lambda claim: claim.source != "quarantine" or (claim.holder, *claim[:2]) not in gone
    )


def in_use(state: HostState, former: Quarantined, claims: Claims) -> RefusedError:
    """The error if somebody uses ids of a range that would come back.

    It may be the container, which was never stopped; or another program, such as systemd-nspawn,
    took the range after the release. With another range, the container's files would have ids that
    it lacks.
    """
    name, ids = former.name, former.reserved_range
    whose, overlap = next(holders(ids, claims.where(may_run), state.layout))
    shown = state.layout.inline("inspect --all")
    stop = f"stop or unmount it ({shown} shows what runs), and try again"
    return RefusedError(
        f"'{name}' had {ids} before its release, and {overlap} is {whose}",
        hint=f"{stop}; if it is '{name}' itself, --start {ids.start} gives it the range now",
        in_file=f"{stop}; if it is '{name}' itself, 'start: {ids.start}' gives it the range now",
    )


def since_then(allocation: Allocation, former: Quarantined | None) -> Allocation:
    """The allocation with its former policy, and with its former date if it has its former map.

    Its volumes are then right.
    """
    if former is None or former.was is None:
        return allocation
    # Nobody asked to let the container do more.
    allocation = replace(allocation, policy=former.was.policy)
    if former.was.mapping == allocation.mapping:
        return replace(allocation, since=former.was.since, event=former.was.event)
    return allocation


def regained(claims: Claims, back: Mapping[str, Quarantined]) -> Iterator[Finding]:
    """A finding for each range that comes back. ``claims`` are those of others."""
    running = claims.where(may_run).ids
    for name, former in back.items():
        message = f"'{name}' has {former.reserved_range} again, its range before the release"
        if running.meets(former.reserved_range.start, former.reserved_range.stop):
            hint = (
                "a running user namespace or a mount has some of these ids; if it is not "
                f"'{name}', stop it first"
            )
            yield advise("USN135", message, hint)
        else:
            yield advise("USN131", message)


def missed(state: HostState, new: Iterable[Allocation]) -> Iterator[Finding]:
    """A finding for each name that had another range: files may still carry its ids."""
    former: dict[str, Quarantined] = {}
    for one in state.ledger.quarantined:
        former[one.name] = max(one, former.get(one.name, one), key=_released)
    for allocation in new:
        before = former.get(allocation.name)
        if before is not None:
            ids = f"{before.reserved_range.start}-{before.reserved_range.last}"
            message = (
                f"'{before.name}' had {before.reserved_range} before its release, and does not get "
                f"it again: {_why(state, before, allocation)}"
            )
            hint = (
                f"{state.layout.inline(f'find-owned {ids} /')} lists files that carry the old ids; "
                f"'fix-volume PATH --container {before.name} --from {before.name}' gives them the "
                "new ones"
            )
            yield advise("USN132", message, hint)


def _why(state: HostState, former: Quarantined, now: Allocation) -> str:
    was = former.was
    if was and now.within != was.within:
        return f"its ids were {f'a slice within {was.within}' if was.within else 'no slice'}"
    if now.reserved_range is None:
        return "with these options it has no range of its own"
    if former.reserved_range.count != now.reserved_range.count:
        asked, had = now.reserved_range.count, former.reserved_range.count
        return f"the request is for {asked} ids, and that range has {had}"
    for what, before, after in (
        (("strategy", was.strategy, now.strategy), ("owner", was.owner, now.owner)) if was else ()
    ):
        if before != after:
            return f"its {what} was {before}"
    others = without(claims_of(state), [former]).where(
        lambda claim: is_taken(claim) and not may_stay(claim)
    )
    others = without_own(others, state.ledger, [was] if was else [])
    if found := next(holders(former.reserved_range, others, state.layout), None):
        return f"{found[1]} is now {found[0]}"
    return "the request is for other ids"


def _released(one: Quarantined) -> tuple[int, int]:
    return one.event, one.reserved_range.start
