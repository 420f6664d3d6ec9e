"""Which ids a host's ledger claims in its fleet, so that no other host gives them out. Pure.

A shared map has the host's own ids, and a slice is part of lines that the host has already: these
are nobody else's business, as long as every host has accounts of its own. The pool of an engine is
local: the engine of each host gives parts of it to containers that no other host knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from usernsplan.engines import engine_of_pool
from usernsplan.holdings import own_ids
from usernsplan.mapping import KINDS
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation, LedgerState, Quarantined, Reservation

_Value = TypeVar("_Value")


class Hold(NamedTuple):
    """Ids from ``start`` up to, but without, ``stop``, that a host has under a name, and as what.

    ``local``: other hosts may have the same ids under other names. ``state`` None: no longer.
    """

    name: str
    local: bool
    kind: Kind
    start: int
    stop: int
    state: str | None


def holds(state: LedgerState) -> Iterator[Hold]:
    """All that a host claims: what its allocations have, what is quarantined, what is reserved."""
    return _holds(state.allocations, state.quarantined, state.reservations)


def _holds(
    allocations: Iterable[Allocation],
    quarantined: Iterable[Quarantined],
    reservations: Iterable[Reservation],
) -> Iterator[Hold]:
    for a in allocations:
        yield from _of(a)
    for q in quarantined:
        ids, local = q.reserved_range, bool(q.was and _is_local(q.was))
        for kind in KINDS:
            yield Hold(q.name, local, kind, ids.start, ids.stop, "quarantined")
    for r in reservations:
        for kind in KINDS:
            name = f"reserved {r.ids}"
            yield Hold(
                name, local=False, kind=kind, start=r.ids.start, stop=r.ids.stop, state="reserved"
            )


def _of(a: Allocation) -> Iterator[Hold]:
    for kind in () if a.within else KINDS:
        for ids in own_ids(a, kind):
            yield Hold(a.name, _is_local(a), kind, ids.start, ids.stop, "held")


def _is_local(a: Allocation) -> bool:
    return a.local or engine_of_pool(a) is not None


def changed(before: LedgerState, after: LedgerState) -> list[Hold]:
    """The holds that a host gets or has as something else, and those that it gives up."""
    # fold keeps the values that an event does not change; a host may have 10,000 others.
    had, has = _new(before, after), _new(after, before)
    kept = {hold[:-1] for hold in has}
    return [*has, *(hold._replace(state=None) for hold in had if hold[:-1] not in kept)]


def _new(one: LedgerState, other: LedgerState) -> list[Hold]:
    """The holds of what is in one state and not in the other."""
    found = _holds(
        _apart(one.allocations, other.allocations),
        _apart(one.quarantined, other.quarantined),
        _apart(one.reservations, other.reservations),
    )
    return list(dict.fromkeys(found))


def _apart(values: Iterable[_Value], others: Iterable[_Value]) -> Iterator[_Value]:
    known = {*map(id, others)}
    return (value for value in values if id(value) not in known)
