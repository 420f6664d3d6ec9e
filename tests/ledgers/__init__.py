"""Ledgers for tests: files from older versions, and a ledger in memory."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from usernsplan.errors import DamagedLedgerError, LedgerError
from usernsplan.holdings import records
from usernsplan.layout import LEDGER
from usernsplan.ledger.fold import fold
from usernsplan.model import Event, LedgerChange, LedgerState
from usernsplan.strategies import Shared

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from usernsplan.claims.of_host import Own
    from usernsplan.ids import IdSet
    from usernsplan.model import Clash, HistoryEntry, Intent, Record

# The versions whose state is derived by hand; 7 to 10 noted a change for each of their events.
VERSIONS = (1, 2, 3, 4, 5, 6)
NOTED = (6, 7, 8, 9, 10)


def put_old(version: int, root: Path) -> Path:
    """Restore the ledger of an older version below a new root."""
    path = Path(f"{root}{LEDGER}")
    path.parent.mkdir(parents=True)
    (root / "etc").mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.executescript((Path(__file__).parent / f"v{version}.sql").read_text())
    return path


class MemoryLedger:
    """The smallest ledger: a list of events; ``fold`` alone makes the state of them."""

    place = "memory"

    def __init__(self) -> None:
        self._events: list[tuple[Event, HistoryEntry]] = []
        self._pending: Intent | None = None
        self._damaged = False

    def exists(self) -> bool:
        return bool(self._events or self._pending)

    def damage(self) -> None:
        self._damaged = True

    def deciding(self) -> LedgerState:
        return self.state()

    def clashes(self, change: LedgerChange) -> tuple[Clash, ...]:
        del change
        return ()

    def publish(self, own: Sequence[Own]) -> None:
        del own

    def away(self) -> None:
        return

    def agree(self) -> tuple[str, ...]:
        return ()

    def state(self) -> LedgerState:
        if self._damaged:
            raise DamagedLedgerError(f"{self.place}: damaged")
        found = LedgerState()
        for event, _ in self._events:
            found = fold(found, event)
        return replace(found, interrupted=self._pending is not None)

    def about(self, ids: IdSet) -> LedgerState:
        found = self.state()
        allocations = tuple(
            a
            for a in found.allocations
            if a.reserved_range is None
            or a.strategy == Shared.name
            or ids.meets(a.reserved_range.start, a.reserved_range.stop)
        )
        return replace(
            found,
            allocations=allocations,
            quarantined=tuple(
                q
                for q in found.quarantined
                if ids.meets(q.reserved_range.start, q.reserved_range.stop)
            ),
            volumes=(),
            mounts=tuple(m for m in found.mounts if m.name in {a.name for a in allocations}),
            reservations=tuple(r for r in found.reservations if ids.meets(r.ids.start, r.ids.stop)),
        )

    def published(self) -> tuple[Record, ...]:
        several = (a for a in self.state().allocations if a.published == "userdb")
        return tuple(record for a in several for record in records(a))

    def history(self, numbers: Collection[int] | None = None) -> tuple[HistoryEntry, ...]:
        return tuple(e for _, e in self._events if numbers is None or e.number in numbers)

    def events(self) -> tuple[Event, ...]:
        return tuple(event for event, _ in self._events)

    def renames(self) -> tuple[Event, ...]:
        return tuple(event for event, _ in self._events if event.change.rename)

    def pending(self) -> Intent | None:
        return self._pending

    def begin(self, intent: Intent) -> None:
        if self._pending:
            raise LedgerError("another run is pending")
        self._pending = intent

    def complete(self, entry: HistoryEntry) -> None:
        if self._pending is None:
            raise LedgerError("no run is pending")
        self._append(self._pending.ledger, entry)

    def put_back(self, entry: HistoryEntry) -> None:
        self._append(LedgerChange(), entry)

    def salvage(self) -> LedgerState:
        return LedgerState()

    def rebuild(self, change: LedgerChange, entry: HistoryEntry) -> str | None:
        had, self._damaged = bool(self._events), False
        self._events = []
        self._append(change, entry)
        return f"{self.place}.damaged" if had else None

    def _append(self, change: LedgerChange, entry: HistoryEntry) -> None:
        number = len(self._events) + 1
        event = Event(number, entry.at, change)
        try:
            fold(self.state(), event)
        except ValueError as error:
            raise DamagedLedgerError(str(error)) from error
        self._events.append((event, replace(entry, number=number)))
        self._pending = None
