"""Apply an event to the state of a ledger. Pure; every store and every preview uses it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from usernsplan.model import Allocation, Quarantined, Volume, VolumeMount
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.ids import IdRange
    from usernsplan.model import Event, LedgerState, Reservation

_Named = TypeVar("_Named", Allocation, Quarantined, Volume, VolumeMount)


def fold(state: LedgerState, event: Event) -> LedgerState:
    """The state of a ledger after one more event.

    Values that the event does not change stay the same objects: stores compare them by identity.
    Raises ValueError if the event gives a name a second allocation, or renames what is not there.
    """
    state = _renamed(state, dict(event.change.rename)) if event.change.rename else state
    allocations = _allocations(state.allocations, event)

    return replace(
        state,
        allocations=allocations,
        quarantined=_quarantined(state, event),
        volumes=_volumes(state.volumes, event, allocations),
        mounts=_mounts(state.mounts, event),
        reservations=_reservations(state.reservations, event),
        number=event.number,
    )


def _renamed(state: LedgerState, new: dict[str, str]) -> LedgerState:
    """The state with new names: an allocation takes its volumes, mounts and quarantined ranges along.

    A range that is quarantined under the new name already stays so.
    """
    names = {a.name for a in state.allocations}
    if not names.issuperset(new) or len({new.get(name, name) for name in names}) < len(names):
        raise ValueError(f"{new!r:.80} renames what is not there, or to a name that is")

    def after(one: _Named) -> _Named:
        return replace(one, name=new[one.name]) if one.name in new else one

    return replace(
        state,
        allocations=tuple(sorted(map(after, state.allocations), key=lambda a: a.name)),
        quarantined=tuple(
            sorted(map(after, state.quarantined), key=lambda q: (q.name, q.reserved_range.start))
        ),
        volumes=tuple(map(after, state.volumes)),
        mounts=tuple(map(after, state.mounts)),
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

    for one in change.update:
        if one.name in found:
            was = found[one.name]
            found[one.name] = replace(_new(one, event), since=was.since, event=was.event)

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
        split_owners=tuple(sorted({*one.split_owners})),
    )


def _quarantined(state: LedgerState, event: Event) -> tuple[Quarantined, ...]:
    """The quarantined ranges, by name and first id: those that remain, and the released ones.

    What is left of one that comes back in part was had by the same allocation as all of it.
    """
    change = event.change
    forgotten, gone = {*change.forget}, {*change.unkeep, *change.quarantine}
    was = {a.name: a for a in state.allocations} if change.quarantine else {}

    kept = (
        q
        for q in state.quarantined
        if q.name not in forgotten and (q.name, q.reserved_range) not in gone
    )
    came = {*change.unkeep}
    back = [q for q in state.quarantined if (q.name, q.reserved_range) in came]

    def had(name: str, ids: IdRange) -> Allocation | None:
        return next(
            (q.was for q in back if q.name == name and q.reserved_range.overlaps(ids)),
            was.get(name),
        )

    new = (
        Quarantined(name, ids, event.at, had(name, ids), event.number)
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


def _mounts(before: Iterable[VolumeMount], event: Event) -> tuple[VolumeMount, ...]:
    """The mounts, by mount point. One that is recorded again replaces that of the same point."""
    change = event.change
    replaced = {*change.no_mounts, *(m.at for m in change.mounts)}

    kept = (m for m in before if m.at not in replaced)
    new = (replace(m, since=event.at, event=event.number) for m in change.mounts)
    return tuple(sorted([*kept, *new], key=lambda m: os.fsencode(m.at)))


def _reservations(before: Iterable[Reservation], event: Event) -> tuple[Reservation, ...]:
    """The reservations, oldest first; a new one replaces that of the same range."""
    change = event.change
    gone = {*change.unreserve, *(r.ids for r in change.reserve)}

    return (
        *(r for r in before if r.ids not in gone),
        *(replace(r, since=event.at) for r in change.reserve),
    )
