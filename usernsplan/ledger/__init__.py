"""Which container has which range, and what happened when: a Protocol, and the embedded ledger.

A ledger decides nothing. It stores numbered events; its state is what ``fold.fold`` makes of them.
It makes one promise: the intent is on disk before ``begin`` returns, and it can be read after a
crash until ``complete`` or ``put_back``. tests/host/test_ledger_contract.py tests every ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from usernsplan.errors import UnknownNameError, did_you_mean
from usernsplan.layout import LEDGER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from usernsplan.claims.of_host import Own
    from usernsplan.fleetwide import Away
    from usernsplan.ids import IdSet
    from usernsplan.layout import Layout
    from usernsplan.model import (
        Allocation,
        Clash,
        Event,
        HistoryEntry,
        Intent,
        LedgerChange,
        LedgerState,
        Record,
    )


class Ledger(Protocol):
    """What every ledger can do. Callers hold the subid locks around every method that writes.

    Every method raises LedgerError if the ledger cannot be reached, and DamagedLedgerError if it
    does not hold what usernsplan writes.
    """

    @property
    def place(self) -> str:
        """The path of the ledger for messages, with the root as the user typed it."""

    def exists(self) -> bool:
        """Tell whether a ledger exists, readable or not."""

    def state(self) -> LedgerState:
        """The whole state."""

    def deciding(self) -> LedgerState:
        """The whole state for a decision; in a fleet, with what other hosts have.

        Raises LedgerUnreachableError if the ledger of the fleet gives no answer.
        """

    def away(self) -> Away | None:
        """In a fleet: why its ledger gives no answer now, so that ``state`` is this host's copy alone."""

    def agree(self) -> tuple[str, ...]:
        """In a fleet: bring the host's file and the server to one state, under the locks.

        Returns what was done, for messages.
        """

    def clashes(self, change: LedgerChange) -> tuple[Clash, ...]:
        """In a fleet: what other hosts have of the ids that a change would give this host."""

    def publish(self, own: Sequence[Own]) -> None:
        """In a fleet: tell the others which ids this host has of its own."""

    def about(self, ids: IdSet) -> LedgerState:
        """The part of the state that concerns some host ids, without volumes.

        Of the mounts it has those of its allocations. Allocations that share ids, pass some through,
        or reserve no range, are always part of it: their maps may have any ids.
        """

    def published(self) -> tuple[Record, ...]:
        """The records that publish ranges: ``holdings.records`` of all allocations in userdb."""

    def history(self, numbers: Collection[int] | None = None) -> tuple[HistoryEntry, ...]:
        """The events for people, oldest first; with ``numbers``, only these."""

    def events(self) -> tuple[Event, ...]:
        """The events with their changes, oldest first.

        Versions before 6 did not note changes. In an upgraded ledger, these are the events since
        the upgrade.
        """

    def renames(self) -> tuple[Event, ...]:
        """The events that gave an allocation another name, oldest first."""

    def pending(self) -> Intent | None:
        """The intent of an interrupted run."""

    def begin(self, intent: Intent) -> None:
        """Write the intent of a run before the host changes. LedgerError if one is pending."""

    def complete(self, entry: HistoryEntry) -> None:
        """In one step, fold the intent's change into the state, note an event, drop the intent."""

    def put_back(self, entry: HistoryEntry) -> None:
        """In one step, note an event that changes nothing and drop the intent."""

    def salvage(self) -> LedgerState:
        """The quarantined and reserved ranges that a damaged ledger still shows."""

    def rebuild(self, change: LedgerChange, entry: HistoryEntry) -> str | None:
        """Replace a damaged or lost ledger with a new one whose first event is ``change``.

        The old one stays beside it, unchanged. Returns its path; None if there was none.
        """


def open_ledger(layout: Layout, place: str = LEDGER, asked: Collection[str] = ()) -> Ledger:
    """The ledger at a path below the root of a host, and that of its fleet. Makes nothing on disk.

    ``asked`` are the names that a request is about: of a fleet, only these are looked up. Raises
    LedgerError if it is unclear whether the host is in a fleet.
    """
    from usernsplan.ledger import member  # noqa: PLC0415 - it imports this package
    from usernsplan.ledger.sqlite import SqliteLedger  # noqa: PLC0415 - loads sqlite3

    local = SqliteLedger(layout, place)
    if who := member.read(layout):
        from usernsplan.ledger.fleet import FleetLedger  # noqa: PLC0415 - only in a fleet

        return FleetLedger(layout, local, who, asked)
    return local


def name_now(name: str, renames: Iterable[Event], event: int) -> str:
    """What a container is called now that had this name after the ``event`` of that number.

    ``renames`` are those of the ledger.
    """
    for one in renames:
        if one.number > event:
            name = dict(one.change.rename).get(name, name)
    return name


def allocation_of(ledger: LedgerState, name: str) -> Allocation:
    """The allocation with this name. Raises UnknownNameError."""
    for allocation in ledger.allocations:
        if allocation.name == name:
            return allocation
    hint = did_you_mean(name, (a.name for a in ledger.allocations), UnknownNameError.hint)
    raise UnknownNameError(f"nothing is allocated under the name '{name}'", hint=hint)
