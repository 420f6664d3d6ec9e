"""Who holds which range, and what was done when: one small Protocol, and the embedded ledger behind it.

A ledger does no deciding. Its one promise: ``begin`` is on disk before it returns, and between ``begin`` and
``complete`` or ``put_back`` the intent can be read again after a crash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from usernsplan.errors import UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Container

    from usernsplan.ids import IdSet
    from usernsplan.layout import Layout
    from usernsplan.model import Allocation, HistoryEntry, Intent, LedgerChange, LedgerState


class Ledger(Protocol):
    """What every ledger can do. Callers hold the subid locks around everything that writes."""

    def state(self) -> LedgerState:
        """Everything that is allocated or quarantined, by name."""

    def about(self, ids: IdSet) -> LedgerState:
        """What concerns some host ids: as ``state``, less what holds none of them. Volumes are left out.

        Allocations that share ids, or that hold none, may map any: they are among it always.
        """

    def history(self, at: Container[str] | None = None) -> tuple[HistoryEntry, ...]:
        """What was done, oldest first; with ``at``, at these moments only."""

    def pending(self) -> Intent | None:
        """The intent of a run that did not finish."""

    def begin(self, intent: Intent) -> None:
        """Remember what is about to happen to the host."""

    def complete(self, entry: HistoryEntry) -> None:
        """Take over the pending intent's ledger changes, note them in the history, and drop the intent: in one step."""

    def put_back(self, entry: HistoryEntry) -> None:
        """Drop the pending intent without its changes, and note that in the history."""

    def kept_back(self) -> LedgerState:
        """Of one that cannot be read: the quarantined and the reserved ranges that it still tells, and nothing else."""

    def rebuild(self, change: LedgerChange, entry: HistoryEntry) -> str | None:
        """Make a new ledger that holds just this, where the old one cannot be read or is gone.

        The old one is kept beside it, untouched; returns where. None where there was none.
        """


def open_ledger(layout: Layout) -> Ledger:
    """The ledger of a host. Nothing is made on disk before something is written."""
    from usernsplan.ledger.sqlite import SqliteLedger  # noqa: PLC0415 - sqlite3 only where a ledger is opened

    return SqliteLedger(layout)


def allocation_of(ledger: LedgerState, name: str) -> Allocation:
    """The allocation of this name. Raises UnknownNameError."""
    for allocation in ledger.allocations:
        if allocation.name == name:
            return allocation
    hint = did_you_mean(name, (a.name for a in ledger.allocations), UnknownNameError.hint)
    raise UnknownNameError(f"nothing is allocated under the name '{name}'", hint=hint)
