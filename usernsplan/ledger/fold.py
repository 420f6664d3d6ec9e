"""Apply an event to the state of a ledger. Pure; every store and every preview uses it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from usernsplan.model import Quarantined

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.model import Allocation, Event, LedgerState, Reservation, Volume


def fold(state: LedgerState, event: Event) -> LedgerState:
    """The state of a ledger after one more event.

    Values that the event does not change stay the same objects: stores compare them by identity.
    Raises ValueError if the event gives a name a second allocation.
    """
    allocations = _allocations(state.allocations, event)

    return replace(
        state,
        allocations=allocations,
        quarantined=_quarantined(state, event),
        volumes=_volumes(state.volumes, event, allocations),
        reservations=_reservations(state.reservations, event),
        number=event.number,
    )


def _allocations(before: Iterable[Allocation], event: Event) -> tuple[Allocation, ...]:
    """The allocations, by name: those that remain, with additions, and the new ones."""
    change = event.change
    removed = {*change.remove}
    found = {a.name: a for a in before if a.name not in removed}

    for new in change.add:
        if new.name in found:
            raise ValueError(f"'{new.name}' is already allocated")
        found[new.name] = _new(new, event)

    for name, owner in change.extra_owners:
        if name in found:
            owners = {*found[name].extra_owners, owner}
            found[name] = replace(found[name], extra_owners=tuple(sorted(owners)))
    for name, path, line in change.found:
        if name in found:
            lines = {*found[name].found, (path, line)}
            found[name] = replace(found[name], found=tuple(sorted(lines)))

    return tuple(found[name] for name in sorted(found))


def _new(one: Allocation, event: Event) -> Allocation:
    """A new allocation. One that comes back from quarantine keeps its first moment and number."""
    return replace(
        one,
        since=one.since if one.event else event.at,
        event=one.event or event.number,
        extra_owners=tuple(sorted({*one.extra_owners})),
        found=tuple(sorted({*one.found})),
    )


def _quarantined(state: LedgerState, event: Event) -> tuple[Quarantined, ...]:
    """The quarantined ranges, by name and first id: those that remain, and the released ones."""
    change = event.change
    forgotten, gone = {*change.forget}, {*change.unkeep, *change.quarantine}
    was = {a.name: a for a in state.allocations} if change.quarantine else {}

    kept = (
        q
        for q in state.quarantined
        if q.name not in forgotten and (q.name, q.reserved_range) not in gone
    )
    new = (
        Quarantined(name, ids, event.at, was.get(name), event.number)
        for name, ids in change.quarantine
    )
    return tuple(sorted([*kept, *new], key=lambda q: (q.name, q.reserved_range.start)))


def _volumes(
    before: Iterable[Volume], event: Event, allocations: Iterable[Allocation]
) -> tuple[Volume, ...]:
    """The volumes, by path. A forgotten name loses its volumes unless it is allocated again."""
    change = event.change
    replaced = {*change.no_volumes, *(v.path for v in change.volumes)}
    gone = {*change.forget}.difference(a.name for a in allocations) if change.forget else set()

    kept = (v for v in before if v.path not in replaced and v.name not in gone)
    new = (replace(v, since=event.at, event=event.number) for v in change.volumes)
    return tuple(sorted([*kept, *new], key=lambda v: os.fsencode(v.path)))


def _reservations(before: Iterable[Reservation], event: Event) -> tuple[Reservation, ...]:
    """The reservations, oldest first; a new one replaces that of the same range."""
    change = event.change
    gone = {*change.unreserve, *(r.ids for r in change.reserve)}

    return (
        *(r for r in before if r.ids not in gone),
        *(replace(r, since=event.at) for r in change.reserve),
    )
