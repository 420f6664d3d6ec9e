"""The embedded ledger: one SQLite file with the events and the state that they add up to."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from usernsplan.errors import LedgerError
from usernsplan.holdings import records_of_range
from usernsplan.ledger import codec, schema
from usernsplan.ledger.access import DAMAGE, LedgerFile
from usernsplan.ledger.fold import fold
from usernsplan.ledger.upgrade import upgrade
from usernsplan.model import Event, LedgerChange, LedgerState
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from usernsplan.claims.of_host import Own
    from usernsplan.ids import IdSet
    from usernsplan.layout import Layout
    from usernsplan.model import Clash, HistoryEntry, Intent, Quarantined, Record, Reservation


class SqliteLedger:
    """The embedded Ledger. A missing file reads as an empty ledger; ``begin`` makes it."""

    def __init__(self, layout: Layout, path: str) -> None:
        self._file = LedgerFile(layout, path, schema.create)
        self.place = self._file.shown
        # What this process read or wrote last, because a run with thousands of allocations would
        # decode them again for every step: the state, with the number and the moment of its last
        # event; and the change of the intent, by its text.
        self._known: tuple[tuple[int, str], LedgerState] | None = None
        self._begun: dict[str, LedgerChange] = {}

    def exists(self) -> bool:
        """Tell whether a ledger exists, readable or not."""
        return self._file.exists()

    def state(self) -> LedgerState:
        """The whole state."""
        with self._reading() as db:
            return self._state(db) if db else LedgerState()

    def about(self, ids: IdSet) -> LedgerState:
        """The part of the state that concerns these host ids."""
        with self._reading() as db:
            return schema.load(db, ids) if db else LedgerState()

    def published(self) -> tuple[Record, ...]:
        """The records that publish ranges, without the rest of their allocations."""
        with self._reading() as db:
            rows = codec.typed(db.execute(schema.PUBLISHED), str, int, int) if db else ()
            return tuple(record for row in rows for record in records_of_range(*row))

    def history(self, numbers: Collection[int] | None = None) -> tuple[HistoryEntry, ...]:
        """The events for people, oldest first; with ``numbers``, only these."""
        with self._reading() as db:
            return schema.entries(db, numbers) if db else ()

    def events(self) -> tuple[Event, ...]:
        """The events with their changes, oldest first."""
        with self._reading() as db:
            return tuple(map(codec.event, db.execute(schema.EVENTS))) if db else ()

    def renames(self) -> tuple[Event, ...]:
        """The events that gave an allocation another name, oldest first."""
        with self._reading() as db:
            return tuple(map(codec.event, db.execute(schema.RENAMES))) if db else ()

    def pending(self) -> Intent | None:
        """The intent of an interrupted run."""
        with self._reading() as db:
            return next(map(codec.intent, db.execute(schema.INTENT)), None) if db else None

    def begin(self, intent: Intent) -> None:
        """Write the intent; it is on disk when this returns."""
        row = codec.intent_row(intent)
        self._file.reserve(sum(map(len, row)))
        try:
            with self._writing() as db:
                schema.begin(db, row)
        except BaseException:
            self._file.unreserve()
            raise
        _, _, change, _ = row
        self._begun = {change: intent.ledger}

    def complete(self, entry: HistoryEntry) -> None:
        """Fold the intent's change into the state, append the event, drop the intent."""
        self._file.unreserve()
        with self._writing() as db:
            [[_, _, text, _]] = codec.typed(db.execute(schema.INTENT), *(str,) * 4)
            change = self._begun.get(text) or codec.change(text)

            before = self._state(db)
            event = Event(before.number + 1, entry.at, change)
            after = fold(before, event)
            schema.store(db, before, after)
            schema.close(db, replace(entry, number=event.number), text)
        self._known = ((event.number, entry.at), replace(after, interrupted=False))

    def put_back(self, entry: HistoryEntry) -> None:
        """Drop the intent, and append an event that changes nothing."""
        self._file.unreserve()
        with self._writing() as db:
            number = schema.stamp(db)[0] + 1
            nothing = codec.change_text(LedgerChange())
            schema.close(db, replace(entry, number=number), nothing)

    def rebuild(self, change: LedgerChange, entry: HistoryEntry) -> str | None:
        """Replace a damaged or lost ledger with a new one; returns where the old one is kept."""

        def create(db: sqlite3.Connection) -> None:
            state = fold(LedgerState(), Event(1, entry.at, change))
            schema.create(db)
            schema.store(db, LedgerState(), state)
            schema.append(db, replace(entry, number=1), codec.change_text(change))

        self._known = None
        return self._file.renew(create, entry.at)

    def deciding(self) -> LedgerState:
        """The state, which is all that a decision needs on a host of its own."""
        return self.state()

    def clashes(self, change: LedgerChange) -> tuple[Clash, ...]:  # noqa: ARG002 - there are no other hosts
        """Nothing: there are no other hosts."""
        return ()

    def publish(self, own: Sequence[Own]) -> None:
        """Nothing: there are no other hosts."""

    def away(self) -> None:
        """Nothing: a host of its own has no other place."""
        return

    def agree(self) -> tuple[str, ...]:
        """Nothing: there is no other place."""
        return ()

    def stamp(self) -> tuple[int, str]:
        """The number and the moment of the last event; 0 and "" without one."""
        with self._reading() as db:
            return schema.stamp(db) if db else (0, "")

    def since(self, last: int) -> list[tuple[Any, ...]]:
        """The rows of the events after the one of this number, for another ledger."""
        with self._reading() as db:
            return schema.since(db, last) if db else []

    def restore(
        self,
        content: Iterable[tuple[str, Sequence[Any]]],
        events: Sequence[Sequence[Any]],
        intent: Intent | None,
    ) -> None:
        """Replace the file with one that another ledger has kept: rows of tables, and of events.

        ``intent`` is that of an interrupted run.
        """

        def create(db: sqlite3.Connection) -> None:
            schema.create(db)
            schema.restore(db, content, events)
            if intent:
                schema.begin(db, codec.intent_row(intent))

        self._known = None
        self._file.renew(create, events[-1][1] if events else "")

    def salvage(self) -> LedgerState:
        """The quarantined and reserved ranges that a damaged ledger still shows. Writes nothing."""
        quarantined: list[Quarantined] = []
        reservations: list[Reservation] = []
        with suppress(LedgerError), self._file.salvaging() as db:
            with suppress(*DAMAGE):
                quarantined.extend(map(codec.quarantined, db.execute(schema.RELEASED)))
            with suppress(*DAMAGE):
                reservations.extend(map(codec.reservation, db.execute(schema.RESERVED)))
        return LedgerState(quarantined=tuple(quarantined), reservations=tuple(reservations))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """Today's tables. Older ones are upgraded in memory; the file does not change."""
        with self._file.reading() as db:
            version = self._version(db) if db else schema.VERSION
            if db is None or version == schema.VERSION:
                yield db
                return
            with closing(sqlite3.connect(":memory:", isolation_level=None)) as new:
                db.backup(new)
                upgrade(new, version)
                yield new

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Today's tables, in one transaction. Older ones are upgraded in it."""
        with self._file.writing() as db:
            version = self._version(db)
            if version < schema.VERSION:
                upgrade(db, version)
            yield db

    def _version(self, db: sqlite3.Connection) -> int:
        """The version of the tables. Raises LedgerError if it is newer, ValueError without one."""
        [version] = db.execute("PRAGMA user_version").fetchone()
        if version > schema.VERSION:
            raise LedgerError(
                f"{self.place} has version {version}; this usernsplan reads up to {schema.VERSION}",
                hint="use the newer usernsplan that wrote it",
            )
        if version < 1:
            raise ValueError("the file is empty or is not a ledger")
        return int(version)

    def _state(self, db: sqlite3.Connection) -> LedgerState:
        """The state, cached until the next event: a run reads it before and under its locks."""
        stamp, interrupted = schema.stamp(db), schema.is_interrupted(db)
        if self._known is None or self._known[0] != stamp:
            self._known = (stamp, schema.load(db))
        return replace(self._known[1], interrupted=interrupted)
