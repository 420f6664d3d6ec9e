"""Which ids are kept out of every pool because somebody outside of this host has them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.model import LedgerChange, Reservation


def reserved_after(
    reservations: Iterable[Reservation], change: LedgerChange
) -> tuple[Reservation, ...]:
    """The reservations that the ledger holds after a change: one for each range."""
    gone = {*change.unreserve, *(r.ids for r in change.reserve)}
    return (*(r for r in reservations if r.ids not in gone), *change.reserve)
