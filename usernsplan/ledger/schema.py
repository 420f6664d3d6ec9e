"""The tables of the SQLite ledger: numbered events, and the state that they add up to.

The state has tables of its own because most commands need it without the history, and ``whois``
needs a few rows of it. Only ``store`` writes them, and it writes what ``fold`` returns; a test
compares the two.
"""

from __future__ import annotations

from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from usernsplan.ledger import codec
from usernsplan.model import LedgerState
from usernsplan.strategies import Shared
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Sequence

    from usernsplan.ids import IdSet
    from usernsplan.model import HistoryEntry

VERSION = 11
# path: bytes, because Linux allows any bytes in it. ids: FIRST-LAST. user: UID:GID of --mode own.
# policy: what the container may do, as JSON, or "". former: the maps whose ids a volume still has, or
# "". at: where a volume is mounted.
# was: the allocation that had a quarantined range. change: what an event did to the state. Both
# are "" if an older version did not note them.
# Version 9 added it.
MOUNT = """
CREATE TABLE mount (at BLOB PRIMARY KEY, source BLOB NOT NULL, name TEXT NOT NULL,
    mode TEXT NOT NULL, user TEXT NOT NULL, uid_map TEXT NOT NULL, gid_map TEXT NOT NULL,
    options TEXT NOT NULL, crosses INTEGER NOT NULL, lasting TEXT NOT NULL, protect TEXT NOT NULL,
    run TEXT NOT NULL, since TEXT NOT NULL, event INTEGER NOT NULL);
"""
_SCHEMA = """
CREATE TABLE event (number INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL,
    command TEXT NOT NULL, changed TEXT NOT NULL, change TEXT NOT NULL);
CREATE TABLE intent (only INTEGER PRIMARY KEY CHECK (only = 1), command TEXT NOT NULL,
    actor TEXT NOT NULL, change TEXT NOT NULL, files TEXT NOT NULL);
CREATE TABLE allocation (name TEXT PRIMARY KEY, owner TEXT NOT NULL, strategy TEXT NOT NULL,
    uid_map TEXT NOT NULL, gid_map TEXT NOT NULL, held_start INTEGER, held_count INTEGER,
    since TEXT NOT NULL, event INTEGER NOT NULL, extra_owners TEXT NOT NULL, found TEXT NOT NULL,
    split_owners TEXT NOT NULL, in_files INTEGER NOT NULL, published TEXT NOT NULL,
    passes TEXT NOT NULL, within TEXT NOT NULL, unpublished INTEGER NOT NULL,
    policy TEXT NOT NULL, local INTEGER NOT NULL);
CREATE TABLE quarantine (name TEXT NOT NULL, held_start INTEGER NOT NULL,
    held_count INTEGER NOT NULL, since TEXT NOT NULL, event INTEGER NOT NULL, was TEXT NOT NULL,
    PRIMARY KEY (name, held_start, held_count));
CREATE TABLE volume (path BLOB PRIMARY KEY, name TEXT NOT NULL, mode TEXT NOT NULL,
    since TEXT NOT NULL, event INTEGER NOT NULL, user TEXT NOT NULL, former TEXT NOT NULL);
CREATE TABLE reservation (ids TEXT PRIMARY KEY, why TEXT NOT NULL, since TEXT NOT NULL);
"""
EVENTS = "SELECT number, at, change FROM event WHERE change != '' ORDER BY number"
# As codec.change_text writes a change that renames nothing.
RENAMES = (
    "SELECT number, at, change FROM event "
    """WHERE change != '' AND change NOT LIKE '%"rename": [],%' ORDER BY number"""
)
PUBLISHED = (
    "SELECT owner, held_start, held_count FROM allocation "
    "WHERE published = 'userdb' AND held_start IS NOT NULL"
)
INTENT = "SELECT command, actor, change, files FROM intent"
# These two read a ledger of any version.
RELEASED = (
    "SELECT name, held_start, held_count, since, 0, '' FROM quarantine ORDER BY name, held_start"
)
RESERVED = "SELECT ids, why, since FROM reservation ORDER BY rowid"
# Not *: the names make SQLite report a damaged table that lost a column, even if it has no rows.
_ALLOCATION = (
    "name, owner, strategy, uid_map, gid_map, held_start, held_count, since, event, "
    "extra_owners, found, split_owners, in_files, published, passes, within, unpublished, "
    "policy, local"
)
_QUARANTINED = "name, held_start, held_count, since, event, was"
_VOLUMES = "SELECT path, name, mode, since, event, user, former FROM volume ORDER BY path"
_MOUNTS = (
    "SELECT at, source, name, mode, user, uid_map, gid_map, options, crosses, lasting, protect, "
    "run, since, event FROM mount ORDER BY at"
)
_NAME_OF_MOUNT = 2
_ENTRY = "SELECT number, at, actor, command, changed FROM event"


class Table(NamedTuple):
    """A table of the state: its name, its values, their rows, and how many first columns are the key."""

    name: str
    values: Callable[[LedgerState], tuple[Any, ...]]
    row: Callable[[Any], tuple[object, ...]]
    key: int
    delete: str
    insert: str


TABLES = (
    Table(
        "allocation",
        attrgetter("allocations"),
        codec.allocation_row,
        key=1,
        delete="DELETE FROM allocation WHERE name = ?",
        insert="INSERT INTO allocation VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    ),
    Table(
        "quarantine",
        attrgetter("quarantined"),
        codec.quarantined_row,
        key=3,
        delete="DELETE FROM quarantine WHERE name = ? AND held_start = ? AND held_count = ?",
        insert="INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, ?)",
    ),
    Table(
        "volume",
        attrgetter("volumes"),
        codec.volume_row,
        key=1,
        delete="DELETE FROM volume WHERE path = ?",
        insert="INSERT INTO volume VALUES (?, ?, ?, ?, ?, ?, ?)",
    ),
    Table(
        "mount",
        attrgetter("mounts"),
        codec.mount_row,
        key=1,
        delete="DELETE FROM mount WHERE at = ?",
        insert="INSERT INTO mount VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    ),
    Table(
        "reservation",
        attrgetter("reservations"),
        codec.reservation_row,
        key=1,
        delete="DELETE FROM reservation WHERE ids = ?",
        insert="INSERT INTO reservation VALUES (?, ?, ?)",
    ),
)


def create(db: sqlite3.Connection) -> None:
    """Make the tables."""
    run(db, _SCHEMA + MOUNT)
    stamped(db)


def stamped(db: sqlite3.Connection) -> None:
    """Note that the tables are those of today's version."""
    db.execute(f"PRAGMA user_version = {VERSION}")


def run(db: sqlite3.Connection, statements: str) -> None:
    """Execute several statements. Unlike executescript, this does not end the transaction."""
    for statement in filter(str.strip, statements.split(";")):
        db.execute(statement)


def stamp(db: sqlite3.Connection) -> tuple[int, str]:
    """The number and the moment of the last event; 0 and "" if there is no event."""
    last = db.execute("SELECT number, at FROM event ORDER BY number DESC LIMIT 1")
    number, at = next(codec.typed(last, int, str), (0, ""))
    return number, at


def is_interrupted(db: sqlite3.Connection) -> bool:
    """Tell whether a run was interrupted, or is at work."""
    return db.execute("SELECT 1 FROM intent").fetchone() is not None


def load(db: sqlite3.Connection, ids: IdSet | None = None) -> LedgerState:
    """The state; with ``ids``, the part that concerns these host ids: see Ledger.about."""
    concerns = "1"
    if ids is not None:
        db.create_function("concerns", 2, lambda start, count: ids.meets(start, start + count))
        concerns = "concerns(held_start, held_count)"
    allocations = db.execute(
        f"SELECT {_ALLOCATION} FROM allocation "  # noqa: S608 - our own text
        f"WHERE held_start IS NULL OR strategy = ? OR passes != '[]' OR {concerns} ORDER BY name",
        (Shared.name,),
    )
    quarantined = db.execute(
        f"SELECT {_QUARANTINED} FROM quarantine WHERE {concerns} "  # noqa: S608 - our own text
        "ORDER BY name, held_start"
    )
    volumes = db.execute(_VOLUMES) if ids is None else ()
    reservations = map(codec.reservation, db.execute(RESERVED))
    known = tuple(codec.allocations(allocations))
    names = {a.name for a in known}
    mounts = (row for row in db.execute(_MOUNTS) if ids is None or row[_NAME_OF_MOUNT] in names)

    return LedgerState(
        known,
        tuple(map(codec.quarantined, quarantined)),
        is_interrupted(db),
        tuple(map(codec.volume, volumes)),
        tuple(r for r in reservations if ids is None or ids.meets(r.ids.start, r.ids.stop)),
        stamp(db)[0],
        tuple(map(codec.mount, mounts)),
    )


def entries(db: sqlite3.Connection, numbers: Collection[int] | None) -> tuple[HistoryEntry, ...]:
    """The events for people, oldest first; with ``numbers``, only these."""
    if numbers is None:
        return tuple(map(codec.entry, db.execute(f"{_ENTRY} ORDER BY number")))
    found = (db.execute(f"{_ENTRY} WHERE number = ?", (number,)) for number in sorted(numbers))
    return tuple(map(codec.entry, chain.from_iterable(found)))


def store(db: sqlite3.Connection, before: LedgerState, after: LedgerState) -> None:
    """Bring the tables from one state to the next. They already hold what both states share."""
    for table in TABLES:
        old, new = table.values(before), table.values(after)
        # By identity, because fold keeps the values that an event does not change: to compare
        # 10,000 of them takes longer than to write the few that differ.
        had, has = {*map(id, old)}, {*map(id, new)}
        gone = [table.row(value)[: table.key] for value in old if id(value) not in has]

        db.executemany(table.delete, gone)
        db.executemany(table.insert, [table.row(value) for value in new if id(value) not in had])


def since(db: sqlite3.Connection, last: int) -> list[tuple[Any, ...]]:
    """The rows of the events after the one of this number, as ``append`` writes them."""
    return db.execute(
        "SELECT number, at, actor, command, changed, change FROM event WHERE number > ? "
        "ORDER BY number",
        (last,),
    ).fetchall()


def restore(
    db: sqlite3.Connection,
    content: Iterable[tuple[str, Sequence[Any]]],
    events: Iterable[Sequence[Any]],
) -> None:
    """Fill the tables of a new ledger with rows of tables, by name, and of events."""
    inserts = {table.name: table.insert for table in TABLES}
    for name, row in content:
        db.execute(inserts[name], row)
    db.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", events)


def append(db: sqlite3.Connection, entry: HistoryEntry, change: str) -> None:
    """Append an event; ``change`` is the text of its change."""
    db.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", (*codec.entry_row(entry), change))


def begin(db: sqlite3.Connection, intent: tuple[str, ...]) -> None:
    """Write the row of an intent. Raises sqlite3.IntegrityError if one is pending."""
    db.execute("INSERT INTO intent VALUES (1, ?, ?, ?, ?)", intent)


def close(db: sqlite3.Connection, entry: HistoryEntry, change: str) -> None:
    """Append the event that ends the pending run, and drop its intent."""
    append(db, entry, change)
    db.execute("DELETE FROM intent")
