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
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from usernsplan.errors import DamagedLedgerError, LedgerError
from usernsplan.formats import subid
from usernsplan.host import files, waiting
from usernsplan.ids import IdRange
from usernsplan.layout import DAEMON_JSON, LEDGER, SUBGID, SUBUID
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
# What plans change, and what an interrupted run is therefore put back in.
_FILES = {SUBUID, SUBGID, DAEMON_JSON}
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


# What SQLite says of a file that need not be damaged, and what helps.
_NO_DAMAGE = {
    "database is locked": "another program reads or writes it; try again when it has finished",
    "database or disk is full": "make room and run again",
    "disk I/O error": "the disk failed, and 'dmesg' may say how; when it works again, run again",
    "attempt to write a readonly database": "run as root, on a file system that is mounted writable",
    "unable to open database file": "run as root; the folder of the ledger has to be readable and writable",
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
            stamp = db.execute(
                "SELECT max(rowid), (SELECT count(*) FROM intent) FROM history"
            ).fetchone()
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
                reservations=tuple(
                    r for r in _reservations(db, version) if ids.meets(r.ids.start, r.ids.stop)
                ),
            )

    def history(self, at: Container[str] | None = None) -> tuple[HistoryEntry, ...]:
        """What was done, oldest first; with ``at``, at these moments only."""
        with self._reading() as db:
            rows = (
                db.execute("SELECT at, actor, command, changed FROM history ORDER BY rowid")
                if db
                else ()
            )
            return tuple(
                HistoryEntry(then, _actor(actor), command, _texts(json.loads(changed)))
                for then, actor, command, changed in _typed(rows, str, str, str, str)
                if at is None or then in at
            )

    def pending(self) -> Intent | None:
        """The intent of a run that did not finish."""
        with self._reading() as db:
            rows = db.execute("SELECT content FROM intent") if db else ()
            return next((_intent(content) for (content,) in _typed(rows, str)), None)

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
            [[content]] = _typed(db.execute("SELECT content FROM intent"), str)
            change = _intent(content).ledger
            found = (
                _found(change) if "found" in json.loads(content) else _not_written(change, entry)
            )
            _take_over(db, change, entry, found)
            _close(db, entry)

    def put_back(self, entry: HistoryEntry) -> None:
        """Drop the pending intent without its changes, and note that."""
        self._reserve(0)
        with self._writing() as db:
            _close(db, entry)

    def rebuild(self, change: LedgerChange, entry: HistoryEntry) -> str | None:
        """Put a new ledger in the place of one that cannot be read, or is gone: see the protocol."""
        files.make_folder(self._layout, os.path.dirname(LEDGER), 0o700)
        new = _fresh(change, entry)
        with self._folder_lock(), files.explained(self._layout, LEDGER):
            with files.pinned(self._layout, LEDGER) as place:
                at = {"src_dir_fd": place.folder, "dst_dir_fd": place.folder}
                aside = _free(place.folder, f"{place.name}.damaged-{entry.at.replace(':', '')}")
                # What SQLite would roll back into the new one.
                for suffix in (*_BESIDE, "-shm"):
                    with suppress(FileNotFoundError):
                        os.rename(place.name + suffix, aside + suffix, **at)
                kept = None
                with suppress(FileNotFoundError):
                    # Its name stays until the new one has it: no kill leaves a host without a ledger, which is empty.
                    os.link(place.name, aside, follow_symlinks=False, **at)
                    kept = os.path.join(os.path.dirname(self._shown), aside)
            files.write(self._layout, {LEDGER: new}, mode=0o600)
        self._known = None
        return kept

    def kept_back(self) -> LedgerState:
        """Of a ledger that cannot be read, what is quarantined or reserved as far as it goes; nothing is written."""
        quarantined: list[Quarantined] = []
        reservations: list[Reservation] = []
        with (
            suppress(LedgerError),
            self._explained(),
            closing(_loaded(self._content()[0] or b"", {})) as db,
        ):
            for rows, found in (
                (_quarantined(db), quarantined),
                (_reservations(db, _VERSION), reservations),
            ):
                with suppress(sqlite3.Error, ValueError, LookupError, TypeError):
                    found.extend(rows)  # type: ignore[arg-type]
        return LedgerState(quarantined=tuple(quarantined), reservations=tuple(reservations))

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
            self._version(db)
            # One moment for everything that is read: a writer may finish between two statements.
            db.execute("BEGIN")
            yield db

    @contextmanager
    def _in_place_to_read(self) -> Iterator[sqlite3.Connection | None]:
        with files.explained(self._layout, LEDGER):
            path = files.real(self._layout, LEDGER)
            try:
                # SQLite's own "unable to open database file" does not say why.
                descriptor = os.open(
                    path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                )
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
            if not os.path.lexists(path):
                files.write(self._layout, {LEDGER: _fresh()}, mode=0o600)
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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
                if raw is None:
                    _upgrade(db, 0)
                yield db
                self._replace(db)

    def _content(self) -> tuple[bytes | None, dict[str, bytes]]:
        """The file's bytes; and what a kill left beside it, which whoever opens it next has to take back.

        Where this root is a running container's, who works in it writes the file in place: he is waited for.
        """
        with files.explained(self._layout, LEDGER), suppress(FileNotFoundError, NotADirectoryError):
            if stat.S_IFMT(files.look(self._layout, LEDGER).st_mode) not in {
                stat.S_IFREG,
                stat.S_IFLNK,
            }:
                raise self._no_file()
        descriptor = files.opened(self._layout, LEDGER)
        if descriptor is None:
            return None, {}
        with files.explained(self._layout, LEDGER), open(descriptor, "rb") as file:
            self._wait(
                file.fileno(),
                lambda: fcntl.lockf(
                    file, fcntl.LOCK_SH | fcntl.LOCK_NB, _SHARED_COUNT, _SHARED_FIRST
                ),
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
            with files.explained(self._layout, LEDGER):
                self._wait(folder, lambda: fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB))
            yield
        finally:
            os.close(folder)

    def _wait(self, descriptor: int, lock: Callable[[], None]) -> None:
        def attempt() -> str:
            return (
                ""
                if _got(lock)
                else f"{self._shown} is locked by {waiting.locker(os.fstat(descriptor))}"
            )

        if holder := waiting.until(attempt, _PATIENCE):
            raise LedgerError(holder)

    def _no_file(self) -> LedgerError:
        return LedgerError(
            f"{self._shown} is not a regular file", hint="put the ledger back in its place"
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        files.make_folder(self._layout, os.path.dirname(LEDGER), 0o700)
        with self._in_place() if self._layout.is_host else self._replacing() as db, db:
            _upgrade(db, self._version(db))
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
        """The version of the file's tables. Raises LedgerError for one from the future, or without any."""
        [version] = db.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise LedgerError(
                f"{self._shown} has version {version}, and this usernsplan knows {_VERSION}",
                hint="use the newer usernsplan that wrote it",
            )
        if version < 1:
            raise ValueError("it is empty, or holds no ledger")
        return int(version)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (
            *(
                sqlite3.Error,
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                RecursionError,
                OverflowError,
            ),
        ) as error:
            said = str(error) or type(error).__name__
            if remedy := next(
                (remedy for words, remedy in _NO_DAMAGE.items() if words in said), ""
            ):
                raise LedgerError(f"{self._shown}: {said}", hint=remedy) from error
            raise DamagedLedgerError(
                f"{self._shown}: {said}",
                hint="where the file itself is damaged, put back a copy of it from a backup; without one, "
                f"{self._layout.inline('ledger rebuild')} shows what can be told from other files",
            ) from error


@contextmanager
def _connected(path: str, mode: str) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        timeout=_PATIENCE,
        isolation_level=None,
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


def _free(folder: int, name: str) -> str:
    """A name that nothing has in this folder, nor with what SQLite appends."""
    taken = os.listdir(f"/proc/self/fd/{folder}")
    names = (name if number == 1 else f"{name}.{number}" for number in count(1))
    return next(one for one in names if not any(other.startswith(one) for other in taken))


def _fresh(change: LedgerChange | None = None, entry: HistoryEntry | None = None) -> bytes:
    """A whole ledger, made in memory: no kill leaves one on the disk that says that nothing is held."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute("BEGIN")
        _upgrade(db, 0)
        if change and entry:
            _take_over(db, change, entry, _found(change))
            _close(db, entry)
        db.execute("COMMIT")
        return _bytes_of(db)


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


def _upgrade(db: sqlite3.Connection, version: int) -> None:
    for step in range(version + 1, _VERSION + 1):
        # Not executescript, which would end the transaction.
        for statement in filter(str.strip, _STEPS[step].split(";")):
            db.execute(statement)
        if step == 5:  # noqa: PLR2004 - see _STEPS
            rows = [(a.name, *line) for a in _allocations(db, step - 1) for line in a.found]
            db.executemany("INSERT INTO found VALUES (?, ?, ?)", rows)
    if version < _VERSION:
        db.execute(f"PRAGMA user_version = {_VERSION}")


def _take_over(
    db: sqlite3.Connection,
    change: LedgerChange,
    entry: HistoryEntry,
    found: Iterable[tuple[str, str, str]],
) -> None:
    db.executemany("DELETE FROM quarantine WHERE name = ?", ((name,) for name in change.forget))
    db.executemany(
        "DELETE FROM quarantine WHERE name = ? AND held_start = ? AND held_count = ?",
        ((name, held.start, held.count) for name, held in change.unkeep),
    )
    rows = db.execute("SELECT * FROM allocation") if change.quarantine else ()
    was = {
        name: (owner, strategy, u, g, since) for name, owner, strategy, u, g, _, _, since in rows
    }
    db.executemany(
        "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (n, held.start, held.count, entry.at, *was.get(n, ("",) * 5))
            for n, held in change.quarantine
        ),
    )
    for table in ("allocation", "also", "found"):
        db.executemany(f"DELETE FROM {table} WHERE name = ?", ((name,) for name in change.remove))  # noqa: S608
    db.executemany(
        "INSERT INTO allocation VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        # One that has its former range again has it since then.
        (_row(a, a.since or entry.at) for a in change.add),
    )
    db.executemany("INSERT OR IGNORE INTO also VALUES (?, ?)", _also(change))
    db.executemany("INSERT OR IGNORE INTO found VALUES (?, ?, ?)", found)
    db.executemany(
        "DELETE FROM volume WHERE name = ?1 AND NOT EXISTS (SELECT * FROM allocation WHERE name = ?1)",
        ((name,) for name in change.forget),
    )
    db.executemany(
        "DELETE FROM volume WHERE path = ?", ((os.fsencode(path),) for path in change.no_volumes)
    )
    db.executemany(
        "INSERT OR REPLACE INTO volume (path, name, mode, since, user) VALUES (?, ?, ?, ?, ?)",
        ((os.fsencode(v.path), v.name, v.mode, entry.at, v.user) for v in change.volumes),
    )
    db.executemany("DELETE FROM reservation WHERE ids = ?", ((_ids(r),) for r in change.unreserve))
    db.executemany(
        "INSERT OR REPLACE INTO reservation VALUES (?, ?, ?)",
        ((_ids(r.ids), r.why, entry.at) for r in change.reserve),
    )


def _close(db: sqlite3.Connection, entry: HistoryEntry) -> None:
    actor = json.dumps(
        {
            "uid": entry.actor.uid,
            "sudo_uid": entry.actor.sudo_uid,
            "login_uid": entry.actor.login_uid,
        }
    )
    row = (entry.at, actor, entry.command, json.dumps(entry.changed))
    db.execute("INSERT INTO history VALUES (?, ?, ?, ?)", row)
    db.execute("DELETE FROM intent")


def _typed(rows: Iterable[tuple[Any, ...]], *kinds: type) -> Iterator[tuple[Any, ...]]:
    """Rows as they are; ValueError for one in which something else stands than was written there.

    SQLite keeps a text in a column of numbers and bytes in one of texts; a file that was damaged has both.
    """
    for row in rows:
        for value, kind in zip(row, kinds, strict=True):
            if type(value) is not kind and not (value is None and kind is _MaybeInt):
                if kind is _MaybeInt and type(value) is int:
                    continue
                raise ValueError(f"{value!r:.40} stands where {_WORDS[kind]} is to stand")
        yield row


class _MaybeInt:
    """A number, or none: a kind of column."""


_WORDS = {str: "a text", int: "a number", bytes: "a path", _MaybeInt: "a number, or none"}


def _texts(found: Any) -> tuple[str, ...]:  # noqa: ANN401 - what the JSON says
    if not isinstance(found, list):
        raise TypeError("a list of texts is to stand there")
    return tuple(text for (text,) in _typed(((one,) for one in found), str))


def _actor(text: str) -> Actor:
    found = json.loads(text)
    [[uid, sudo_uid, login_uid]] = _typed(
        [(found["uid"], found["sudo_uid"], found["login_uid"])], int, _MaybeInt, _MaybeInt
    )
    return Actor(uid, sudo_uid, login_uid)


def _map(text: str) -> IdMap:
    triples = json.loads(text)
    return IdMap.of(*_typed(map(tuple, triples), int, int, int))


def _mapping(uids: str, gids: str) -> Mapping:
    """Texts of maps to values; both are mostly the same text, and then one value."""
    uid_map = _map(uids)
    return Mapping(uid_map, uid_map if uids == gids else _map(gids))


def _allocation(row: tuple[Any, ...], also: tuple[str, ...] = ()) -> Allocation:
    """One row to a value. Whoever could write a name or an owner into a line would write other lines with it."""
    [[name, owner, strategy, uids, gids, start, count, since]] = _typed(
        [row], str, str, str, str, str, _MaybeInt, _MaybeInt, str
    )
    for one in (owner, *also):
        subid.line(one, IdRange(0, 1))
    for one in (name, owner, *also):
        if not one or not one.isprintable():
            raise ValueError(f"{one!r:.40} is no name")
    return Allocation(name, owner, strategy, _mapping(uids, gids), _held(start, count), since, also)


def _allocations(db: sqlite3.Connection, version: int, where: str = "1") -> Iterator[Allocation]:
    extra_owners: dict[str, list[str]] = {}
    more = db.execute("SELECT name, owner FROM also ORDER BY owner") if version > 2 else ()  # noqa: PLR2004
    for name, owner in _typed(more, str, str):
        extra_owners.setdefault(name, []).append(owner)
    found: dict[str, list[tuple[str, str]]] = {}
    lines = (
        db.execute("SELECT name, path, line FROM found ORDER BY path, line") if version > 4 else ()  # noqa: PLR2004
    )
    for name, *line in _stood(lines):
        found.setdefault(name, []).append((line[0], line[1]))
    written = _written(db) if version < 5 else {}  # noqa: PLR2004
    for row in db.execute(
        "SELECT name, owner, strategy, uid_map, gid_map, held_start, held_count, since FROM allocation "  # noqa: S608
        f"WHERE {where} ORDER BY name"  # our own words
    ):
        one = _allocation(row, tuple(extra_owners.get(row[0], ())))
        stood = found.get(one.name, ()) if version > 4 else _unproven(one, written)  # noqa: PLR2004
        yield replace(one, found=tuple(stood)) if stood else one


def _quarantined(db: sqlite3.Connection, where: str = "1") -> Iterator[Quarantined]:
    for row in db.execute(f"SELECT * FROM quarantine WHERE {where} ORDER BY name, held_start"):  # noqa: S608
        # Before version 5 nobody noted what it was.
        [[name, start, count, since, *was]] = _typed(
            [row], str, int, int, str, *(str,) * (len(row) - 4)
        )
        former = None
        if was and was[0]:
            owner, strategy, uids, gids, made = was
            former = _allocation((name, owner, strategy, uids, gids, start, count, made))
        yield Quarantined(name, IdRange(start, count), since, former)


def _volumes(db: sqlite3.Connection, version: int) -> Iterator[Volume]:
    if version < 2:  # noqa: PLR2004 - see _STEPS
        return
    # Since version 4 the user stands there too.
    user = "user" if version > 3 else "''"  # noqa: PLR2004
    rows = db.execute(f"SELECT path, name, mode, since, {user} FROM volume ORDER BY path")  # noqa: S608 - our own words
    for path, *rest in _typed(rows, bytes, str, str, str, str):
        yield Volume(_absolute(path), *rest)


def _stood(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[str, str, str]]:
    """Whose lines stood before, in which file, as the ledger notes it."""
    for name, path, line in _typed(rows, str, str, str):
        if path not in {SUBUID, SUBGID}:
            raise ValueError(f"{path!r:.40} has no lines of anybody")
        yield name, path, line


def _absolute(path: bytes) -> str:
    if not path.startswith(b"/") or b"\0" in path:
        raise ValueError(f"{path!r:.40} is no path")
    return os.fsdecode(path)


def _reservations(db: sqlite3.Connection, version: int) -> Iterator[Reservation]:
    if version < 4:  # noqa: PLR2004 - see _STEPS
        return
    rows = db.execute("SELECT ids, why, since FROM reservation ORDER BY rowid")
    for ids, why, since in _typed(rows, str, str, str):
        yield Reservation(IdRange.parse(ids), why, since)


def _written(db: sqlite3.Connection) -> dict[tuple[str, str], set[str]]:
    """The lines, by file, that the history says were written, and when: before version 5 nothing else tells."""
    found: dict[tuple[str, str], set[str]] = {}
    for at, changed in _typed(db.execute("SELECT at, changed FROM history"), str, str):
        for one in _lines_of(_texts(json.loads(changed))):
            found.setdefault(one, set()).add(at)
    return found


def _lines_of(changed: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The lines, by file, that an entry of the history says were written: "PLACE: + LINE"."""
    for text in changed:
        place, is_new, line = text.rpartition(": + ")
        yield from ((path, line) for path in (SUBUID, SUBGID) if is_new and place.endswith(path))


def _unproven(
    one: Allocation, written: Mapping_[tuple[str, str], Container[str]]
) -> Iterator[tuple[str, str]]:
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
    if (start is None) != (count is None):
        raise ValueError("half of a range")
    return IdRange(start, count) if start is not None and count is not None else None


def _row(a: Allocation, since: str) -> tuple[object, ...]:
    maps = (json.dumps(a.mapping.uids.triples()), json.dumps(a.mapping.gids.triples()))
    held = (a.reserved_range.start, a.reserved_range.count) if a.reserved_range else (None, None)
    return (a.name, a.owner, a.strategy, *maps, *held, since)


def _also(change: LedgerChange) -> list[tuple[str, str]]:
    """Whom the lines of which allocation are granted to besides: of the new ones, and of those that stand."""
    return [
        *((a.name, owner) for a in change.add for owner in a.extra_owners),
        *change.extra_owners,
    ]


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
            "volumes": [
                (os.fsencode(v.path).hex(), v.name, v.mode, "", v.user) for v in change.volumes
            ],
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
    extra_owners = tuple(_typed(map(tuple, content.get("also", ())), str, str))
    owners: dict[str, list[str]] = {}
    for name, owner in extra_owners:
        owners.setdefault(name, []).append(owner)
    # One of version 4 does not say which lines stood before.
    lines = tuple(_stood(map(tuple, content.get("found", ()))))
    found: dict[str, list[tuple[str, str]]] = {}
    for name, path, line in lines:
        found.setdefault(name, []).append((path, line))
    quarantine = _typed(map(tuple, content["quarantine"]), str, int, int)
    unkeep = _typed(map(tuple, content.get("unkeep", ())), str, int, int)
    # An intent of version 1 has no volumes, one of version 3 no reservations, nor users of volumes.
    volumes = (
        (*row, "") if len(row) == 4 else row  # noqa: PLR2004
        for row in map(tuple, content.get("volumes", ()))
    )
    reserve = _typed(map(tuple, content.get("reserve", ())), str, str)
    [command] = _texts([content["command"]])
    uid, sudo_uid, login_uid = content["actor"]
    list(_typed([(uid, sudo_uid, login_uid)], int, _MaybeInt, _MaybeInt))
    return Intent(
        command,
        Actor(uid, sudo_uid, login_uid),
        LedgerChange(
            add=tuple(
                replace(
                    _allocation(tuple(row), tuple(owners.get(row[0], ()))),
                    found=tuple(found.get(row[0], ())),
                )
                for row in content["add"]
            ),
            extra_owners=tuple(pair for pair in extra_owners if pair[0] not in new),
            found=tuple(line for line in lines if line[0] not in new),
            remove=_texts(content["remove"]),
            quarantine=tuple((name, IdRange(start, count)) for name, start, count in quarantine),
            forget=_texts(content["forget"]),
            unkeep=tuple((name, IdRange(start, count)) for name, start, count in unkeep),
            volumes=tuple(
                Volume(_path(raw), *rest) for raw, *rest in _typed(volumes, str, str, str, str, str)
            ),
            no_volumes=tuple(map(_path, _texts(content.get("no_volumes", [])))),
            reserve=tuple(Reservation(IdRange.parse(ids), why) for ids, why in reserve),
            unreserve=tuple(map(IdRange.parse, _texts(content.get("unreserve", [])))),
        ),
        tuple(_change(*change) for change in content["changes"]),
    )


def _change(path: str, before: str | None, after: str) -> Change:
    """One file of an intent; ValueError for one that no plan changes."""
    if path not in _FILES:
        raise ValueError(f"{path!r:.40} is no file that is changed")
    return Change(path, _unpacked(before), _unpacked(after) or b"")


def _path(raw: str) -> str:
    return _absolute(bytes.fromhex(raw))


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
