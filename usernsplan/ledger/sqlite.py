"""The embedded ledger: one SQLite file below the root, readable by root alone.

On this machine SQLite works in the file. SQLite opens by path, and resolves that path itself, /proc/self/fd too: below
another root, who may exchange folders could lead it out, and its journals. There it never opens anything: the file is
read as any other, SQLite works on a copy in memory, and the file is replaced whole.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sqlite3
import stat
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from usernsplan.errors import LedgerError
from usernsplan.host import files, waiting
from usernsplan.ids import IdRange
from usernsplan.layout import LEDGER, SUBGID, SUBUID
from usernsplan.mapping import IdMap, Mapping
from usernsplan.model import (
    Actor,
    Allocation,
    Change,
    HistoryEntry,
    Intent,
    LedgerChange,
    LedgerState,
    Quarantined,
    Reservation,
    Volume,
)
from usernsplan.strategies import Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator
    from collections.abc import Mapping as Mapping_

    from usernsplan.ids import IdSet
    from usernsplan.layout import Layout

_VERSION = 5
# What the last step of a run needs on the disk besides its rows: a few pages, and their rollback journal.
_ROOM = 131072
# Seconds to wait for another reader or writer of the file itself; writers of the host wait on the subid locks before.
_PATIENCE = 15
# What SQLite makes beside a file that it changes: where one is left, the file alone is half a ledger.
_BESIDE = ("-journal", "-wal")
# The bytes of the file on which SQLite's readers have a lock, and that a writer locks alone before he writes (os.h).
_SHARED_FIRST, _SHARED_COUNT = 0x40000002, 510
# In a file's header: its changes are in a write-ahead log (sqlite.org/fileformat.html).
_IS_WAL = b"\2\2"
# Python 3.11 reads and writes a whole database in memory; an older one makes files of its own for it.
_IN_MEMORY = hasattr(sqlite3.Connection, "deserialize")
_SCHEMA = """
CREATE TABLE allocation (
    name TEXT PRIMARY KEY, owner TEXT NOT NULL, strategy TEXT NOT NULL,
    uid_map TEXT NOT NULL, gid_map TEXT NOT NULL, held_start INTEGER, held_count INTEGER, since TEXT NOT NULL
);
CREATE TABLE quarantine (name TEXT NOT NULL, held_start INTEGER NOT NULL, held_count INTEGER NOT NULL,
    since TEXT NOT NULL);
CREATE TABLE history (at TEXT NOT NULL, actor TEXT NOT NULL, command TEXT NOT NULL, changed TEXT NOT NULL);
CREATE TABLE intent (only INTEGER PRIMARY KEY CHECK (only = 1), content TEXT NOT NULL);
"""
# What each version added to the one before. A path is bytes: it need not be text.
_STEPS = {
    1: _SCHEMA,
    2: "CREATE TABLE volume (path BLOB PRIMARY KEY, name TEXT NOT NULL, mode TEXT NOT NULL, since TEXT NOT NULL);",
    3: "CREATE TABLE also (name TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (name, owner));",
    # ids are FIRST-LAST; user is that of --mode own as UID:GID, '' where nobody noted it.
    4: "CREATE TABLE reservation (ids TEXT PRIMARY KEY, why TEXT NOT NULL, since TEXT NOT NULL);"
    "ALTER TABLE volume ADD COLUMN user TEXT NOT NULL DEFAULT '';",
    # Lines that stood before their allocation adopted them; and what a released range was: '' where nobody noted it.
    5: "CREATE TABLE found (name TEXT NOT NULL, path TEXT NOT NULL, line TEXT NOT NULL, "
    "PRIMARY KEY (name, path, line));"
    + "".join(
        f"ALTER TABLE quarantine ADD COLUMN {column} TEXT NOT NULL DEFAULT '';"
        for column in ("owner", "strategy", "uid_map", "gid_map", "made")
    ),
}


class SqliteLedger:
    """See the Ledger protocol. A missing file reads as an empty ledger and is made by the first ``begin``."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._shown = layout.path(LEDGER)
        self._known: tuple[object, LedgerState] | None = None

    def state(self) -> LedgerState:
        """Everything that is allocated or quarantined, by name."""
        with self._reading() as db:
            if db is None:
                return LedgerState()
            # Whatever changes the ledger is in its history too, and a run reads the ledger before and under its locks.
            stamp = db.execute("SELECT max(rowid), (SELECT count(*) FROM intent) FROM history").fetchone()
            if self._known and self._known[0] == stamp:
                return self._known[1]
            version = self._version(db)
            state = LedgerState(
                tuple(_allocations(db, version)),
                tuple(_quarantined(db)),
                interrupted=bool(stamp[1]),
                volumes=tuple(_volumes(db, version)),
                reservations=tuple(_reservations(db, version)),
            )
            self._known = (stamp, state)
            return state

    def about(self, ids: IdSet) -> LedgerState:
        """What concerns some host ids: see the protocol."""
        with self._reading() as db:
            if db is None:
                return LedgerState()
            version = self._version(db)
            db.create_function("concerns", 2, lambda start, count: ids.meets(start, start + count))
            shares = f"held_start IS NULL OR strategy = '{Shared.name}' OR concerns(held_start, held_count)"
            return LedgerState(
                tuple(_allocations(db, version, shares)),
                tuple(_quarantined(db, "concerns(held_start, held_count)")),
                interrupted=bool(db.execute("SELECT count(*) FROM intent").fetchone()[0]),
                reservations=tuple(r for r in _reservations(db, version) if ids.meets(r.ids.start, r.ids.stop)),
            )

    def history(self, at: Container[str] | None = None) -> tuple[HistoryEntry, ...]:
        """What was done, oldest first; with ``at``, at these moments only."""
        with self._reading() as db:
            rows = db.execute("SELECT at, actor, command, changed FROM history ORDER BY rowid") if db else ()
            return tuple(
                HistoryEntry(then, Actor(**json.loads(actor)), command, tuple(json.loads(changed)))
                for then, actor, command, changed in rows
                if at is None or then in at
            )

    def pending(self) -> Intent | None:
        """The intent of a run that did not finish."""
        with self._reading() as db:
            row = db.execute("SELECT content FROM intent").fetchone() if db else None
            return _intent(row[0]) if row else None

    def begin(self, intent: Intent) -> None:
        """Remember what is about to happen; on disk when this returns."""
        content = _intent_text(intent)
        self._reserve(_ROOM + 4 * len(content) + self._size())
        try:
            with self._writing() as db:
                db.execute("INSERT INTO intent VALUES (1, ?)", (content,))
        except BaseException:
            self._reserve(0)
            raise

    def complete(self, entry: HistoryEntry) -> None:
        """Take over the pending intent's ledger changes, note them, drop the intent."""
        self._reserve(0)
        with self._writing() as db:
            [content] = db.execute("SELECT content FROM intent").fetchone()
            change = _intent(content).ledger
            db.executemany("DELETE FROM quarantine WHERE name = ?", ((name,) for name in change.forget))
            db.executemany(
                "DELETE FROM quarantine WHERE name = ? AND held_start = ? AND held_count = ?",
                ((name, held.start, held.count) for name, held in change.unkeep),
            )
            rows = db.execute("SELECT * FROM allocation") if change.quarantine else ()
            was = {name: (owner, strategy, u, g, since) for name, owner, strategy, u, g, _, _, since in rows}
            db.executemany(
                "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((n, held.start, held.count, entry.at, *was.get(n, ("",) * 5)) for n, held in change.quarantine),
            )
            for table in ("allocation", "also", "found"):
                db.executemany(f"DELETE FROM {table} WHERE name = ?", ((name,) for name in change.remove))  # noqa: S608
            db.executemany(
                "INSERT INTO allocation VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                # One that has its former range again has it since then.
                (_row(a, a.since or entry.at) for a in change.add),
            )
            db.executemany("INSERT OR IGNORE INTO also VALUES (?, ?)", _also(change))
            found = _found(change) if "found" in json.loads(content) else _not_written(change, entry)
            db.executemany("INSERT OR IGNORE INTO found VALUES (?, ?, ?)", found)
            db.executemany(
                "DELETE FROM volume WHERE name = ?1 AND NOT EXISTS (SELECT * FROM allocation WHERE name = ?1)",
                ((name,) for name in change.forget),
            )
            db.executemany("DELETE FROM volume WHERE path = ?", ((os.fsencode(path),) for path in change.no_volumes))
            db.executemany(
                "INSERT OR REPLACE INTO volume (path, name, mode, since, user) VALUES (?, ?, ?, ?, ?)",
                ((os.fsencode(v.path), v.name, v.mode, entry.at, v.user) for v in change.volumes),
            )
            db.executemany("DELETE FROM reservation WHERE ids = ?", ((_ids(r),) for r in change.unreserve))
            db.executemany(
                "INSERT OR REPLACE INTO reservation VALUES (?, ?, ?)",
                ((_ids(r.ids), r.why, entry.at) for r in change.reserve),
            )
            _close(db, entry)

    def put_back(self, entry: HistoryEntry) -> None:
        """Drop the pending intent without its changes, and note that."""
        self._reserve(0)
        with self._writing() as db:
            _close(db, entry)

    def _reserve(self, size: int) -> None:
        """Keep ``size`` bytes of the disk for the end of a run, or give them back.

        Between the two the files change; a full disk must be met before.
        """
        files.make_folder(self._layout, os.path.dirname(LEDGER), 0o700)
        name = f"{LEDGER}-reserve"
        with files.explained(self._layout, LEDGER), files.pinned(self._layout, name) as place:
            with suppress(FileNotFoundError):
                os.unlink(place.name, dir_fd=place.folder)
            if size:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                descriptor = os.open(place.name, flags, 0o600, dir_fd=place.folder)
                try:
                    os.posix_fallocate(descriptor, 0, size)
                except OSError as error:
                    os.unlink(place.name, dir_fd=place.folder)
                    # A file system that cannot reserve is no reason not to work.
                    if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                        raise
                finally:
                    os.close(descriptor)

    def _size(self) -> int:
        """How large the file is that has to be written out whole, beside the old one; 0 where SQLite works in it."""
        if self._layout.is_host:
            return 0
        try:
            return files.look(self._layout, LEDGER).st_size
        except OSError:
            return 0

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        with self._in_place_to_read() if self._layout.is_host else self._apart() as db:
            if db is None:
                yield None
                return
            version = self._version(db)
            # One moment for everything that is read: a writer may finish between two statements.
            db.execute("BEGIN")
            yield db if version else None

    @contextmanager
    def _in_place_to_read(self) -> Iterator[sqlite3.Connection | None]:
        with files.explained(self._layout, LEDGER):
            path = files.real(self._layout, LEDGER)
            try:
                # SQLite's own "unable to open database file" does not say why.
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                yield None
                return
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            os.close(descriptor)
            if not regular:
                raise self._no_file()
        # rw, not ro: after a kill in a commit, SQLite has to roll back before it can read.
        mode = "rw" if os.access(path, os.W_OK) else "ro&immutable=1"
        with self._explained(), _connected(path, mode) as db:
            self._patiently(db, path, "PRAGMA user_version")
            yield db

    @contextmanager
    def _in_place(self) -> Iterator[sqlite3.Connection]:
        with files.explained(self._layout, LEDGER):
            path = files.real(self._layout, LEDGER)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            os.fchmod(descriptor, 0o600)
            os.close(descriptor)
        with self._explained(), _connected(path, "rw") as db:
            self._patiently(db, path, "BEGIN IMMEDIATE")
            yield db

    @contextmanager
    def _apart(self) -> Iterator[sqlite3.Connection | None]:
        """The ledger in memory; what is changed there, nobody sees."""
        raw, beside = self._content()
        if raw is None:
            yield None
            return
        with self._explained(), closing(_loaded(raw, beside)) as db:
            yield db

    @contextmanager
    def _replacing(self) -> Iterator[sqlite3.Connection]:
        """The ledger in memory; at the end, it takes the place of the file."""
        with self._folder_lock():
            raw, beside = self._content()
            with self._explained(), closing(_loaded(raw or b"", beside)) as db:
                if beside:
                    # First the file as it is without them, which they leave as it is: a kill may come in between.
                    self._replace(db)
                    for suffix in beside:
                        files.remove(self._layout, LEDGER + suffix)
                db.execute("BEGIN IMMEDIATE")
                yield db
                self._replace(db)

    def _content(self) -> tuple[bytes | None, dict[str, bytes]]:
        """The file's bytes; and what a kill left beside it, which whoever opens it next has to take back.

        Where this root is a running container's, who works in it writes the file in place: he is waited for.
        """
        with files.explained(self._layout, LEDGER), suppress(FileNotFoundError, NotADirectoryError):
            if stat.S_IFMT(files.look(self._layout, LEDGER).st_mode) not in {stat.S_IFREG, stat.S_IFLNK}:
                raise self._no_file()
        descriptor = files.opened(self._layout, LEDGER)
        if descriptor is None:
            return None, {}
        with files.explained(self._layout, LEDGER), open(descriptor, "rb") as file:
            self._wait(
                file.fileno(), lambda: fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, _SHARED_COUNT, _SHARED_FIRST)
            )
            raw = file.read()
            found = {suffix: files.read(self._layout, LEDGER + suffix) for suffix in _BESIDE}
            return raw, {suffix: content for suffix, content in found.items() if content}

    def _replace(self, db: sqlite3.Connection) -> None:
        files.write(self._layout, {LEDGER: _bytes_of(db)}, mode=0o600)

    @contextmanager
    def _folder_lock(self) -> Iterator[None]:
        """Keep others from replacing the file meanwhile, as SQLite's own lock does where it works in the file."""
        with files.explained(self._layout, LEDGER):
            folder = files.opened_folder(self._layout, os.path.dirname(LEDGER))
        try:
            self._wait(folder, lambda: fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB))
            yield
        finally:
            os.close(folder)

    def _wait(self, descriptor: int, lock: Callable[[], None]) -> None:
        def attempt() -> str:
            return "" if _got(lock) else f"{self._shown} is locked by {waiting.locker(os.fstat(descriptor))}"

        if holder := waiting.until(attempt, _PATIENCE):
            raise LedgerError(holder)

    def _no_file(self) -> LedgerError:
        return LedgerError(f"{self._shown} is not a regular file", hint="put the ledger back in its place")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        files.make_folder(self._layout, os.path.dirname(LEDGER), 0o700)
        with self._in_place() if self._layout.is_host else self._replacing() as db, db:
            version = self._version(db)
            for step in range(version + 1, _VERSION + 1):
                # Not executescript, which would end the transaction.
                for statement in filter(str.strip, _STEPS[step].split(";")):
                    db.execute(statement)
                if step == 5:  # noqa: PLR2004 - see _STEPS
                    rows = [(a.name, *line) for a in _allocations(db, step - 1) for line in a.found]
                    db.executemany("INSERT INTO found VALUES (?, ?, ?)", rows)
            if version < _VERSION:
                db.execute(f"PRAGMA user_version = {_VERSION}")
            yield db

    def _patiently(self, db: sqlite3.Connection, path: str, statement: str) -> None:
        """Execute what has to wait for others, who may hold the file; after a second that is said."""
        busy: list[sqlite3.OperationalError] = []

        def attempt() -> str:
            try:
                db.execute(statement).fetchall()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                busy[:] = [error]
                return f"{self._shown} is locked by {waiting.locker(os.stat(path))}"
            return ""

        # SQLite's own patience is silent.
        db.execute("PRAGMA busy_timeout = 0")
        if waiting.until(attempt, _PATIENCE):
            raise busy[0]
        db.execute(f"PRAGMA busy_timeout = {int(_PATIENCE * 1000)}")

    def _version(self, db: sqlite3.Connection) -> int:
        """The version of the file's tables; 0 where there are none. Raises LedgerError for one from the future."""
        [version] = db.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise LedgerError(
                f"{self._shown} has version {version}, and this usernsplan knows {_VERSION}",
                hint="use the newer usernsplan that wrote it",
            )
        return int(version)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise LedgerError(
                f"{self._shown}: {error}",
                hint="where the file itself is damaged, put back a copy of it from a backup",
            ) from error


@contextmanager
def _connected(path: str, mode: str) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}", uri=True, timeout=_PATIENCE, isolation_level=None
    )
    try:
        yield db
    finally:
        db.close()


def _got(lock: Callable[[], None]) -> bool:
    try:
        lock()
    except BlockingIOError:
        return False
    return True


def _loaded(raw: bytes, beside: dict[str, bytes]) -> sqlite3.Connection:
    """A ledger in memory, from its file's bytes and those of its journals."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        # What has journals has to be a file.
        if beside or raw[18:20] == _IS_WAL or not _IN_MEMORY:
            with _private({"": raw, **beside}) as path, _connected(path, "rw") as file:
                file.execute("PRAGMA journal_mode = DELETE")
                file.backup(db)
        elif raw:
            db.deserialize(raw)
    except BaseException:
        db.close()
        raise
    return db


def _bytes_of(db: sqlite3.Connection) -> bytes:
    if _IN_MEMORY:
        return bytes(db.serialize())
    with _private({"": b""}) as path:
        with _connected(path, "rw") as file:
            db.backup(file)
        with open(path, "rb") as written:
            return written.read()


@contextmanager
def _private(content: dict[str, bytes]) -> Iterator[str]:
    """A ledger's files (by what their names end in) in a folder that is nobody else's, for as long as this lasts."""
    import tempfile  # noqa: PLC0415 - only after a kill, and with an old Python

    with tempfile.TemporaryDirectory(prefix="usernsplan-") as folder:
        path = os.path.join(folder, os.path.basename(LEDGER))
        for suffix, raw in content.items():
            with open(path + suffix, "xb") as file:
                file.write(raw)
        yield path


def _close(db: sqlite3.Connection, entry: HistoryEntry) -> None:
    actor = json.dumps({"uid": entry.actor.uid, "sudo_uid": entry.actor.sudo_uid, "login_uid": entry.actor.login_uid})
    row = (entry.at, actor, entry.command, json.dumps(entry.changed))
    db.execute("INSERT INTO history VALUES (?, ?, ?, ?)", row)
    db.execute("DELETE FROM intent")


def _mapping(uids: str, gids: str) -> Mapping:
    """Texts of maps to values; both are mostly the same text, and then one value."""
    uid_map = IdMap.of(*json.loads(uids))
    return Mapping(uid_map, uid_map if uids == gids else IdMap.of(*json.loads(gids)))


def _allocations(db: sqlite3.Connection, version: int, where: str = "1") -> Iterator[Allocation]:
    also: dict[str, list[str]] = {}
    for name, owner in db.execute("SELECT name, owner FROM also ORDER BY owner") if version > 2 else ():  # noqa: PLR2004
        also.setdefault(name, []).append(owner)
    found: dict[str, list[tuple[str, str]]] = {}
    for name, path, line in db.execute("SELECT * FROM found ORDER BY path, line") if version > 4 else ():  # noqa: PLR2004
        found.setdefault(name, []).append((path, line))
    written = _written(db) if version < 5 else {}  # noqa: PLR2004
    for name, owner, strategy, uids, gids, start, count, since in db.execute(
        "SELECT name, owner, strategy, uid_map, gid_map, held_start, held_count, since FROM allocation "  # noqa: S608
        f"WHERE {where} ORDER BY name"  # our own words
    ):
        held = _held(start, count)
        one = Allocation(name, owner, strategy, _mapping(uids, gids), held, since, tuple(also.get(name, ())))
        lines = found.get(name, ()) if version > 4 else _unproven(one, written)  # noqa: PLR2004
        yield replace(one, found=tuple(lines)) if lines else one


def _quarantined(db: sqlite3.Connection, where: str = "1") -> Iterator[Quarantined]:
    for name, start, count, since, *was in db.execute(
        f"SELECT * FROM quarantine WHERE {where} ORDER BY name, held_start"  # noqa: S608
    ):
        held, former = IdRange(start, count), None
        # Before version 5 nobody noted what it was.
        if was and was[0]:
            owner, strategy, uids, gids, made = was
            former = Allocation(name, owner, strategy, _mapping(uids, gids), held, made)
        yield Quarantined(name, held, since, former)


def _volumes(db: sqlite3.Connection, version: int) -> Iterator[Volume]:
    if version < 2:  # noqa: PLR2004 - see _STEPS
        return
    # Since version 4 the user stands there too.
    for path, name, mode, since, *user in db.execute("SELECT * FROM volume ORDER BY path"):
        yield Volume(os.fsdecode(path), name, mode, since, "".join(user))


def _reservations(db: sqlite3.Connection, version: int) -> Iterator[Reservation]:
    if version < 4:  # noqa: PLR2004 - see _STEPS
        return
    for ids, why, since in db.execute("SELECT ids, why, since FROM reservation ORDER BY rowid"):
        yield Reservation(IdRange.parse(ids), why, since)


def _written(db: sqlite3.Connection) -> dict[tuple[str, str], set[str]]:
    """The lines, by file, that the history says were written, and when: before version 5 nothing else tells."""
    found: dict[tuple[str, str], set[str]] = {}
    for at, changed in db.execute("SELECT at, changed FROM history"):
        for one in _lines_of(json.loads(changed)):
            found.setdefault(one, set()).add(at)
    return found


def _lines_of(changed: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The lines, by file, that an entry of the history says were written: "PLACE: + LINE"."""
    for text in changed:
        place, is_new, line = text.rpartition(": + ")
        yield from ((path, line) for path in (SUBUID, SUBGID) if is_new and place.endswith(path))


def _unproven(one: Allocation, written: Mapping_[tuple[str, str], Container[str]]) -> Iterator[tuple[str, str]]:
    """The lines of an allocation of which an older ledger does not prove that we wrote them: they are not taken out.

    Its owner's were written when it was made; what was written later put back what stood there before.
    """
    from usernsplan.planner.grants import holdings  # noqa: PLC0415 - only for an older ledger

    for holding in holdings(one):
        for raw in holding.wanted:
            line = (holding.path, raw.decode().rstrip("\n"))
            at = written.get(line)
            if at is None or (holding.owner == one.owner and one.since not in at):
                yield line


def _not_written(change: LedgerChange, entry: HistoryEntry) -> Iterator[tuple[str, str, str]]:
    """The same of a run that an older version began."""
    lines = dict.fromkeys(_lines_of(entry.changed), ("",))
    return ((a.name, *line) for a in change.add for line in _unproven(a, lines))


def _found(change: LedgerChange) -> Iterator[tuple[str, str, str]]:
    """The adopted lines of which allocation: of the new ones, and of those that stand."""
    yield from ((a.name, *line) for a in change.add for line in a.found)
    yield from change.found


def _ids(ids: IdRange) -> str:
    """A range as IdRange.parse reads it, a single id too."""
    return f"{ids.start}-{ids.last}"


def _held(start: int | None, count: int | None) -> IdRange | None:
    return IdRange(start, count) if start is not None and count is not None else None


def _row(a: Allocation, since: str) -> tuple[object, ...]:
    maps = (json.dumps(a.mapping.uids.triples()), json.dumps(a.mapping.gids.triples()))
    held = (a.held.start, a.held.count) if a.held else (None, None)
    return (a.name, a.owner, a.strategy, *maps, *held, since)


def _also(change: LedgerChange) -> list[tuple[str, str]]:
    """Whom the lines of which allocation are granted to besides: of the new ones, and of those that stand."""
    return [*((a.name, owner) for a in change.add for owner in a.also), *change.also]


def _intent_text(intent: Intent) -> str:
    change = intent.ledger
    return json.dumps(
        {
            "command": intent.command,
            "actor": [intent.actor.uid, intent.actor.sudo_uid, intent.actor.login_uid],
            "add": [_row(a, a.since) for a in change.add],
            "also": _also(change),
            "found": list(_found(change)),
            "remove": change.remove,
            "quarantine": [(name, held.start, held.count) for name, held in change.quarantine],
            "forget": change.forget,
            "unkeep": [(name, held.start, held.count) for name, held in change.unkeep],
            "volumes": [(os.fsencode(v.path).hex(), v.name, v.mode, "", v.user) for v in change.volumes],
            "no_volumes": [os.fsencode(path).hex() for path in change.no_volumes],
            "reserve": [(_ids(r.ids), r.why) for r in change.reserve],
            "unreserve": [_ids(r) for r in change.unreserve],
            "changes": [(c.path, _packed(c.before), _packed(c.after)) for c in intent.changes],
        }
    )


def _intent(text: str) -> Intent:
    content: dict[str, Any] = json.loads(text)
    new = {row[0] for row in content["add"]}
    # An intent of version 2 has none.
    also = tuple((name, owner) for name, owner in content.get("also", ()))
    owners: dict[str, list[str]] = {}
    for name, owner in also:
        owners.setdefault(name, []).append(owner)
    # One of version 4 does not say which lines stood before.
    lines = [(name, path, line) for name, path, line in content.get("found", ())]
    found: dict[str, list[tuple[str, str]]] = {}
    for name, path, line in lines:
        found.setdefault(name, []).append((path, line))
    return Intent(
        content["command"],
        Actor(*content["actor"]),
        LedgerChange(
            add=tuple(
                Allocation(
                    name,
                    owner,
                    strategy,
                    _mapping(uids, gids),
                    _held(start, count),
                    since,
                    tuple(owners.get(name, ())),
                    tuple(found.get(name, ())),
                )
                for name, owner, strategy, uids, gids, start, count, since in content["add"]
            ),
            also=tuple(pair for pair in also if pair[0] not in new),
            found=tuple(line for line in lines if line[0] not in new),
            remove=tuple(content["remove"]),
            quarantine=tuple((name, IdRange(start, count)) for name, start, count in content["quarantine"]),
            forget=tuple(content["forget"]),
            unkeep=tuple((name, IdRange(start, count)) for name, start, count in content.get("unkeep", ())),
            # An intent of version 1 has none.
            volumes=tuple(Volume(_path(raw), *rest) for raw, *rest in content.get("volumes", ())),
            no_volumes=tuple(map(_path, content.get("no_volumes", ()))),
            # One of version 3 has no reservations.
            reserve=tuple(Reservation(IdRange.parse(ids), why) for ids, why in content.get("reserve", ())),
            unreserve=tuple(map(IdRange.parse, content.get("unreserve", ()))),
        ),
        tuple(Change(path, _unpacked(before), _unpacked(after) or b"") for path, before, after in content["changes"]),
    )


def _path(raw: str) -> str:
    return os.fsdecode(bytes.fromhex(raw))


def _packed(content: bytes | None) -> str | None:
    import base64  # noqa: PLC0415 - only where something changes
    import zlib  # noqa: PLC0415

    return None if content is None else base64.b64encode(zlib.compress(content, 1)).decode()


def _unpacked(text: str | None) -> bytes | None:
    import base64  # noqa: PLC0415 - only where something changes
    import zlib  # noqa: PLC0415

    try:
        return None if text is None else zlib.decompress(base64.b64decode(text))
    except zlib.error as error:
        raise ValueError(str(error)) from error
