"""Who holds which range, and what was done when: one small Protocol, and the embedded ledger behind it.

A ledger does no deciding. It stores numbered events, and what they add up to is ``fold.fold`` of
them. Its one promise: ``begin`` is on disk before it returns, and between ``begin`` and
``complete`` or ``put_back`` the intent can be read again after a crash.
tests/host/test_ledger_contract.py is what every ledger has to pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from usernsplan.errors import UnknownNameError, did_you_mean
from usernsplan.layout import LEDGER

if TYPE_CHECKING:
    from collections.abc import Collection

    from usernsplan.ids import IdSet
    from usernsplan.layout import Layout
    from usernsplan.model import Allocation, Event, HistoryEntry, Intent, LedgerChange, LedgerState


class Ledger(Protocol):
    """What every ledger can do. Callers hold the subid locks around everything that writes.

    Everything raises LedgerError where the ledger cannot be reached, DamagedLedgerError where it
    cannot be understood.
    """

    @property
    def place(self) -> str:
        """Where it is, for messages: a path below the root as it was typed."""

    def exists(self) -> bool:
        """Tell whether there is a ledger, readable or not."""

    def state(self) -> LedgerState:
        """Everything that it holds."""

    def about(self, ids: IdSet) -> LedgerState:
        """What concerns some host ids: as ``state``, less what holds none of them. Volumes are left out.

        Allocations that share ids, or that hold none, may map any: they are among it always.
        """

    def history(self, numbers: Collection[int] | None = None) -> tuple[HistoryEntry, ...]:
        """What was done, oldest first; with ``numbers``, these events only."""

    def events(self) -> tuple[Event, ...]:
        """What each event did to the state, oldest first, from the first one whose change was noted.

        Versions before 6 noted no changes: of an upgraded ledger, these are the events since then.
        """

    def pending(self) -> Intent | None:
        """The intent of a run that did not finish."""

    def begin(self, intent: Intent) -> None:
        """Remember what is about to happen to the host. One run at a time: LedgerError where another is pending."""

    def complete(self, entry: HistoryEntry) -> None:
        """Fold the pending intent's change into the state as the next event, and drop the intent: in one step."""

    def put_back(self, entry: HistoryEntry) -> None:
        """Drop the pending intent, and note that as an event that changes nothing."""

    def salvage(self) -> LedgerState:
        """Of one that cannot be read: the quarantined and the reserved ranges that it still tells, and nothing else."""

    def rebuild(self, change: LedgerChange, entry: HistoryEntry) -> str | None:
        """Make a new ledger with this as its first event, where the old one cannot be read or is gone.

        The old one is kept beside it, untouched; returns where. None where there was none.
        """


def open_ledger(layout: Layout, place: str = LEDGER) -> Ledger:
    """The ledger of a host at a place: a path below its root. Nothing is made on disk before something is written."""
    from usernsplan.ledger.sqlite import SqliteLedger  # noqa: PLC0415 - sqlite3 only where a ledger is opened

    return SqliteLedger(layout, place)


def allocation_of(ledger: LedgerState, name: str) -> Allocation:
    """The allocation of this name. Raises UnknownNameError."""
    for allocation in ledger.allocations:
        if allocation.name == name:
            return allocation
    hint = did_you_mean(name, (a.name for a in ledger.allocations), UnknownNameError.hint)
    raise UnknownNameError(f"nothing is allocated under the name '{name}'", hint=hint)
