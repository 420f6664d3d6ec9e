"""The tables of the SQLite ledger: numbered events, and the state that they add up to.

The state is kept in tables of its own because most commands need the state and none of its history,
and ``whois`` a few rows of it. Nothing but ``store`` writes them, and it writes what ``fold`` says;
a test compares the two.
"""

from __future__ import annotations

import os
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from usernsplan.ledger import codec
from usernsplan.model import LedgerState
from usernsplan.strategies import Shared

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection

    from usernsplan.ids import IdSet
    from usernsplan.model import HistoryEntry

VERSION = 6
# A path is bytes: it need not be text. ids are FIRST-LAST. user is that of --mode own as UID:GID.
# was is what a released range was, and change what an event did to the state: "" where an older
# version did not note it.
_SCHEMA = """
CREATE TABLE event (number INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL, command TEXT NOT NULL,
    changed TEXT NOT NULL, change TEXT NOT NULL);
CREATE TABLE intent (only INTEGER PRIMARY KEY CHECK (only = 1), command TEXT NOT NULL, actor TEXT NOT NULL,
    change TEXT NOT NULL, files TEXT NOT NULL);
CREATE TABLE allocation (name TEXT PRIMARY KEY, owner TEXT NOT NULL, strategy TEXT NOT NULL, uid_map TEXT NOT NULL,
    gid_map TEXT NOT NULL, held_start INTEGER, held_count INTEGER, since TEXT NOT NULL, event INTEGER NOT NULL,
    extra_owners TEXT NOT NULL, found TEXT NOT NULL);
CREATE TABLE quarantine (name TEXT NOT NULL, held_start INTEGER NOT NULL, held_count INTEGER NOT NULL,
    since TEXT NOT NULL, event INTEGER NOT NULL, was TEXT NOT NULL, PRIMARY KEY (name, held_start, held_count));
CREATE TABLE volume (path BLOB PRIMARY KEY, name TEXT NOT NULL, mode TEXT NOT NULL, since TEXT NOT NULL,
    event INTEGER NOT NULL, user TEXT NOT NULL);
CREATE TABLE reservation (ids TEXT PRIMARY KEY, why TEXT NOT NULL, since TEXT NOT NULL);
"""
EVENTS = "SELECT number, at, change FROM event WHERE change != '' ORDER BY number"
INTENT = "SELECT command, actor, change, files FROM intent"
# Of any version, as today's codec reads them.
RELEASED = (
    "SELECT name, held_start, held_count, since, 0, '' FROM quarantine ORDER BY name, held_start"
)
RESERVED = "SELECT ids, why, since FROM reservation ORDER BY rowid"
# By name, not *: a table that lost a column is damaged, though no row of it is there to show it.
_ALLOCATION = (
    "name, owner, strategy, uid_map, gid_map, held_start, held_count, since, event, "
    "extra_owners, found"
)
_QUARANTINED = "name, held_start, held_count, since, event, was"
_VOLUMES = "SELECT path, name, mode, since, event, user FROM volume ORDER BY path"
_ENTRY = "SELECT number, at, actor, command, changed FROM event"


class _Table(NamedTuple):
    """A table of the state: its key columns, its values, and the key and the row of a value."""

    name: str
    columns: tuple[str, ...]
    values: Callable[[LedgerState], tuple[Any, ...]]
    key: Callable[[Any], tuple[object, ...]]
    row: Callable[[Any], tuple[object, ...]]


_TABLES = (
    _Table(
        "allocation",
        ("name",),
        lambda state: state.allocations,
        lambda a: (a.name,),
        codec.allocation_row,
    ),
    _Table(
        "quarantine",
        ("name", "held_start", "held_count"),
        lambda state: state.quarantined,
        lambda q: (q.name, q.reserved_range.start, q.reserved_range.count),
        codec.quarantined_row,
    ),
    _Table(
        "volume",
        ("path",),
        lambda state: state.volumes,
        lambda v: (os.fsencode(v.path),),
        codec.volume_row,
    ),
    _Table(
        "reservation",
        ("ids",),
        lambda state: state.reservations,
        lambda r: (codec.range_text(r.ids),),
        codec.reservation_row,
    ),
)


def create(db: sqlite3.Connection) -> None:
    """Make the tables."""
    run(db, _SCHEMA)
    db.execute(f"PRAGMA user_version = {VERSION}")


def run(db: sqlite3.Connection, statements: str) -> None:
    """Execute several statements, without ending the transaction as executescript does."""
    for statement in filter(str.strip, statements.split(";")):
        db.execute(statement)


def stamp(db: sqlite3.Connection) -> tuple[int, str]:
    """The number and the moment of the last event; 0 and "" before the first one."""
    last = db.execute("SELECT number, at FROM event ORDER BY number DESC LIMIT 1")
    number, at = next(codec.typed(last, int, str), (0, ""))
    return number, at


def is_interrupted(db: sqlite3.Connection) -> bool:
    """Tell whether a run began and did not end."""
    return db.execute("SELECT 1 FROM intent").fetchone() is not None


def load(db: sqlite3.Connection, ids: IdSet | None = None) -> LedgerState:
    """The state; with ``ids``, what concerns these host ids: see Ledger.about."""
    concerns = "1"
    if ids is not None:
        db.create_function("concerns", 2, lambda start, count: ids.meets(start, start + count))
        concerns = "concerns(held_start, held_count)"
    allocations = db.execute(
        f"SELECT {_ALLOCATION} FROM allocation WHERE held_start IS NULL OR strategy = ? OR {concerns} "  # noqa: S608
        "ORDER BY name",
        (Shared.name,),
    )
    quarantined = db.execute(
        f"SELECT {_QUARANTINED} FROM quarantine WHERE {concerns} ORDER BY name, held_start"  # noqa: S608
    )
    volumes = db.execute(_VOLUMES) if ids is None else ()
    reservations = map(codec.reservation, db.execute(RESERVED))

    return LedgerState(
        tuple(codec.allocations(allocations)),
        tuple(map(codec.quarantined, quarantined)),
        is_interrupted(db),
        tuple(map(codec.volume, volumes)),
        tuple(r for r in reservations if ids is None or ids.meets(r.ids.start, r.ids.stop)),
        stamp(db)[0],
    )


def entries(db: sqlite3.Connection, numbers: Collection[int] | None) -> tuple[HistoryEntry, ...]:
    """The events for a person to read, oldest first; with ``numbers``, these only."""
    if numbers is None:
        return tuple(map(codec.entry, db.execute(f"{_ENTRY} ORDER BY number")))
    found = (db.execute(f"{_ENTRY} WHERE number = ?", (number,)) for number in sorted(numbers))
    return tuple(map(codec.entry, chain.from_iterable(found)))


def store(db: sqlite3.Connection, before: LedgerState, after: LedgerState) -> None:
    """Bring the tables from one state to the next. What ``fold`` left the very same value stands already."""
    for table in _TABLES:
        old, new = table.values(before), table.values(after)
        # By identity: to compare 10,000 values takes longer than to write the few that differ.
        had, has = {*map(id, old)}, {*map(id, new)}
        where = " AND ".join(f"{column} = ?" for column in table.columns)
        gone = [table.key(value) for value in old if id(value) not in has]
        rows = [table.row(value) for value in new if id(value) not in had]

        db.executemany(f"DELETE FROM {table.name} WHERE {where}", gone)  # noqa: S608 - our own words
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            db.executemany(f"INSERT INTO {table.name} VALUES ({marks})", rows)  # noqa: S608


def append(db: sqlite3.Connection, entry: HistoryEntry, change: str) -> None:
    """Note an event, with its change as the codec has it."""
    db.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", (*codec.entry_row(entry), change))


def begin(db: sqlite3.Connection, intent: tuple[str, ...]) -> None:
    """Keep a run that begins, as the codec has it; sqlite3.IntegrityError where one has begun already."""
    db.execute("INSERT INTO intent VALUES (1, ?, ?, ?, ?)", intent)


def close(db: sqlite3.Connection, entry: HistoryEntry, change: str) -> None:
    """Note what became of the run that began, and drop it."""
    append(db, entry, change)
    db.execute("DELETE FROM intent")
