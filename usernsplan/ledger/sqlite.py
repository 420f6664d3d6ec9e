"""The embedded ledger: it stores events, and the state that they add up to, in one SQLite file."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from usernsplan.errors import LedgerError
from usernsplan.ledger import codec, schema
from usernsplan.ledger.access import DAMAGE, LedgerFile
from usernsplan.ledger.fold import fold
from usernsplan.ledger.upgrade import upgrade
from usernsplan.model import Event, LedgerChange, LedgerState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from usernsplan.ids import IdSet
    from usernsplan.layout import Layout
    from usernsplan.model import HistoryEntry, Intent, Quarantined, Reservation


class SqliteLedger:
    """See the Ledger protocol. A missing file reads as an empty ledger and is made by the first ``begin``."""

    def __init__(self, layout: Layout, path: str) -> None:
        self._file = LedgerFile(layout, path, schema.create)
        self.place = self._file.shown
        self._known: tuple[tuple[int, str], LedgerState] | None = None

    def exists(self) -> bool:
        """Tell whether there is a ledger, readable or not."""
        return self._file.exists()

    def state(self) -> LedgerState:
        """Everything that is allocated or quarantined, by name."""
        with self._reading() as db:
            return self._state(db) if db else LedgerState()

    def about(self, ids: IdSet) -> LedgerState:
        """What concerns some host ids: see the protocol."""
        with self._reading() as db:
            return schema.load(db, ids) if db else LedgerState()

    def history(self, numbers: Collection[int] | None = None) -> tuple[HistoryEntry, ...]:
        """What was done, oldest first; with ``numbers``, these events only."""
        with self._reading() as db:
            return schema.entries(db, numbers) if db else ()

    def events(self) -> tuple[Event, ...]:
        """What each event did to the state, oldest first: see the protocol."""
        with self._reading() as db:
            return tuple(map(codec.event, db.execute(schema.EVENTS))) if db else ()

    def pending(self) -> Intent | None:
        """The intent of a run that did not finish."""
        with self._reading() as db:
            return next(map(codec.intent, db.execute(schema.INTENT)), None) if db else None

    def begin(self, intent: Intent) -> None:
        """Remember what is about to happen; on disk when this returns."""
        row = codec.intent_row(intent)
        self._file.reserve(sum(map(len, row)))
        try:
            with self._writing() as db:
                schema.begin(db, row)
        except BaseException:
            self._file.unreserve()
            raise

    def complete(self, entry: HistoryEntry) -> None:
        """Take over the pending intent's changes, note them, drop the intent."""
        self._file.unreserve()
        with self._writing() as db:
            [[_, _, change, _]] = codec.typed(db.execute(schema.INTENT), *(str,) * 4)
            before = self._state(db)
            event = Event(before.number + 1, entry.at, codec.change(change))
            after = fold(before, event)
            schema.store(db, before, after)
            schema.close(db, replace(entry, number=event.number), change)
        self._known = ((event.number, entry.at), replace(after, interrupted=False))

    def put_back(self, entry: HistoryEntry) -> None:
        """Drop the pending intent without its changes, and note that."""
        self._file.unreserve()
        with self._writing() as db:
            number = schema.stamp(db)[0] + 1
            nothing = codec.change_text(LedgerChange())
            schema.close(db, replace(entry, number=number), nothing)

    def rebuild(self, change: LedgerChange, entry: HistoryEntry) -> str | None:
        """Put a new ledger in the place of one that cannot be read, or is gone: see the protocol."""

        def create(db: sqlite3.Connection) -> None:
            state = fold(LedgerState(), Event(1, entry.at, change))
            schema.create(db)
            schema.store(db, LedgerState(), state)
            schema.append(db, replace(entry, number=1), codec.change_text(change))

        self._known = None
        return self._file.renew(create, entry.at)

    def salvage(self) -> LedgerState:
        """Of a ledger that cannot be read, what is quarantined or reserved as far as it goes; nothing is written."""
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
        """The tables of today; those of an older version are upgraded in memory, and the file stays as it is."""
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
        """The tables of today, to be written in one transaction, and upgraded in it where they are older."""
        with self._file.writing() as db:
            version = self._version(db)
            if version < schema.VERSION:
                upgrade(db, version)
            yield db

    def _version(self, db: sqlite3.Connection) -> int:
        """The version of the file's tables. Raises LedgerError for one from the future, or without any."""
        [version] = db.execute("PRAGMA user_version").fetchone()
        if version > schema.VERSION:
            raise LedgerError(
                f"{self.place} has version {version}, and this usernsplan knows {schema.VERSION}",
                hint="use the newer usernsplan that wrote it",
            )
        if version < 1:
            raise ValueError("it is empty, or holds no ledger")
        return int(version)

    def _state(self, db: sqlite3.Connection) -> LedgerState:
        """The state, read once for each last event: a run reads it before and under its locks."""
        stamp, interrupted = schema.stamp(db), schema.is_interrupted(db)
        if self._known is None or self._known[0] != stamp:
            self._known = (stamp, schema.load(db))
        return replace(self._known[1], interrupted=interrupted)
