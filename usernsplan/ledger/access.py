"""Read and write the SQLite file safely: one file below the root, readable only by root.

On this machine, SQLite works in the file. SQLite opens by path and resolves that path itself, even
one in /proc/self/fd. Below another root, a user who may exchange folders could lead it and its
journals out of the root. So SQLite opens nothing there: we read the file like any other, SQLite
works on a copy in memory, and we replace the file whole.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
from contextlib import closing, contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING

from usernsplan.errors import DamagedLedgerError, LedgerError
from usernsplan.host import files, waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from usernsplan.layout import Layout

# What the last step of a run needs on the disk beside its rows: a few pages, and their rollback
# journal.
_ROOM = 131072
# Seconds to wait for another reader or writer of the file. Those who write the host's files have
# already waited for the subid locks.
_PATIENCE = 15
# A larger file is loaded each time: two copies of a ledger of 100,000 would take 140 MB. One of
# 10,000 has 7 MB.
_MOST_HELD = 1 << 24
# As many bytes of the file are compared at once.
_PIECE = 65536
# The files that SQLite makes beside a file that it changes. If one is left, the ledger file without
# it is half a ledger.
_BESIDE = ("-journal", "-wal")
# SQLite's readers lock these bytes of the file, shared; a writer locks them alone before it writes
# (SHARED_FIRST and SHARED_SIZE in SQLite's os.h).
_SHARED_FIRST, _SHARED_COUNT = 0x40000002, 510
# In the file's header: its changes are in a write-ahead log (sqlite.org/fileformat.html).
_IS_WAL = b"\2\2"
# Since Python 3.11, a whole database can be read and written in memory; before, only as a file.
_IN_MEMORY = hasattr(sqlite3.Connection, "deserialize")
# Errors of SQLite that do not mean damage, and their remedies.
_NO_DAMAGE = {
    "database is locked": "another program uses it; run again when it has finished",
    "database or disk is full": "make room and run again",
    "disk I/O error": "the disk failed; 'dmesg' may show why; run again when it works",
    "attempt to write a readonly database": "run as root, on a file system mounted writable",
    "unable to open database file": "run as root; its folder must be readable and writable",
}
# What reading a damaged file raises: errors of SQLite, and those that the codec names.
DAMAGE = (
    sqlite3.Error,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,
)


class LedgerFile:
    """The file at ``path`` below a root. ``create`` fills the empty database of a new file."""

    def __init__(
        self, layout: Layout, path: str, create: Callable[[sqlite3.Connection], None]
    ) -> None:
        self._layout = layout
        self._path = path
        self._create = create
        self.shown = layout.path(path)
        # Below another root: the file's bytes, and the copy of them in memory. A command opens the
        # ledger five times, and nearly always nobody else has changed it meanwhile.
        self._held: tuple[bytes, sqlite3.Connection] | None = None

    def exists(self) -> bool:
        """Tell whether the file exists, damaged or not."""
        return files.exists(self._layout, self._path)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """The ledger at one moment; None without a file. Raises LedgerError, DamagedLedgerError."""
        with self._in_place_to_read() if self._layout.is_host else self._apart() as db:
            if db is not None:
                # Another process may commit between two statements; a transaction reads one moment.
                db.execute("BEGIN")
            yield db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The ledger in one transaction. After an error or a kill, nothing of it is on disk."""
        files.make_folder(self._layout, os.path.dirname(self._path), 0o700)
        with self._in_place() if self._layout.is_host else self._replacing() as db, db:
            yield db

    @contextmanager
    def salvaging(self) -> Iterator[sqlite3.Connection]:
        """A damaged file, opened in memory. Raises LedgerError, DamagedLedgerError."""
        with self._explained():
            yield _loaded(self._content()[0] or b"", {})

    def renew(self, create: Callable[[sqlite3.Connection], None], at: str) -> str | None:
        """Replace a damaged or lost file; returns where the old one is kept, None without one."""
        files.make_folder(self._layout, os.path.dirname(self._path), 0o700)
        new = _made(create)
        with self._folder_lock(), files.explained(self._layout, self._path):
            with files.pinned(self._layout, self._path) as place:
                both = {"src_dir_fd": place.folder, "dst_dir_fd": place.folder}
                aside = _free(place.folder, f"{place.name}.damaged-{at.replace(':', '')}")
                # SQLite would roll these back into the new file.
                for suffix in (*_BESIDE, "-shm"):
                    with suppress(FileNotFoundError):
                        os.rename(place.name + suffix, aside + suffix, **both)
                kept = None
                with suppress(FileNotFoundError):
                    # A link, not a rename: after a kill in between, a host without the file would
                    # count as a host where nothing is allocated.
                    os.link(place.name, aside, follow_symlinks=False, **both)
                    kept = os.path.join(os.path.dirname(self.shown), aside)
            files.write(self._layout, {self._path: new}, mode=0o600)
        return kept

    def reserve(self, content: int) -> None:
        """Reserve disk space to end a run whose intent has ``content`` bytes. Raises LedgerError.

        The host's files change between a run's begin and its end, so a full disk must show before.
        """
        self.unreserve()
        # Its rows, its event, and the journal of both; below another root, also the new file, which
        # is written beside the old one.
        size = _ROOM + 5 * content
        if not self._layout.is_host:
            with suppress(OSError):
                size += files.look(self._layout, self._path).st_size

        with self._reserved() as place:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(place.name, flags, 0o600, dir_fd=place.folder)
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError as error:
                os.unlink(place.name, dir_fd=place.folder)
                # A file system that cannot reserve space still works.
                if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                    raise
            finally:
                os.close(descriptor)

    def unreserve(self) -> None:
        """Free the reserved space."""
        files.make_folder(self._layout, os.path.dirname(self._path), 0o700)
        with self._reserved() as place, suppress(FileNotFoundError):
            os.unlink(place.name, dir_fd=place.folder)

    @contextmanager
    def _reserved(self) -> Iterator[files.Place]:
        """The place of the file that reserves the space."""
        name = f"{self._path}-reserve"
        with files.explained(self._layout, self._path), files.pinned(self._layout, name) as place:
            yield place

    @contextmanager
    def _in_place_to_read(self) -> Iterator[sqlite3.Connection | None]:
        with files.explained(self._layout, self._path):
            path = files.real(self._layout, self._path)
            try:
                # Opened for the error: SQLite's "unable to open database file" does not say why.
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
        # rw, not ro: after a kill in a commit, SQLite must roll back before it can read.
        mode = "rw" if os.access(path, os.W_OK) else "ro&immutable=1"
        with self._explained(), _connected(path, mode) as db:
            self._patiently(db, path, "PRAGMA user_version")
            yield db

    @contextmanager
    def _in_place(self) -> Iterator[sqlite3.Connection]:
        with files.explained(self._layout, self._path):
            path = files.real(self._layout, self._path)
            if not os.path.lexists(path):
                files.write(self._layout, {self._path: _made(self._create)}, mode=0o600)
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            os.fchmod(descriptor, 0o600)
            os.close(descriptor)
        with self._explained(), _connected(path, "rw") as db:
            self._patiently(db, path, "BEGIN IMMEDIATE")
            yield db

    @contextmanager
    def _apart(self) -> Iterator[sqlite3.Connection | None]:
        """A copy of the ledger in memory; changes to it are lost."""
        raw, beside = self._content()
        if raw is None:
            yield None
            return
        with self._copy(raw, beside) as db:
            yield db
            # What is changed in the copy is lost.
            db.rollback()
            if not beside:
                self._hold(raw, db)

    @contextmanager
    def _replacing(self) -> Iterator[sqlite3.Connection]:
        """A copy of the ledger in memory; at the end, it replaces the file."""
        with self._folder_lock():
            raw, beside = self._content()
            with self._copy(raw or b"", beside) as db:
                if beside:
                    # The file first: it now has what its journals held, so they no longer
                    # change it if a kill leaves them behind.
                    self._replace(db)
                    for suffix in beside:
                        files.remove(self._layout, self._path + suffix)
                db.execute("BEGIN IMMEDIATE")
                if raw is None:
                    self._create(db)
                yield db
                self._hold(self._replace(db), db)

    def _hold(self, raw: bytes, db: sqlite3.Connection) -> None:
        if len(raw) <= _MOST_HELD:
            self._held = (raw, db)

    @contextmanager
    def _copy(self, raw: bytes, beside: dict[str, bytes]) -> Iterator[sqlite3.Connection]:
        """The file in memory. After an error, the copy is not held."""
        held, self._held = self._held, None
        with self._explained():
            yield held[1] if held and held[0] == raw and not beside else _loaded(raw, beside)

    def _content(self) -> tuple[bytes | None, dict[str, bytes]]:
        """The file's bytes, and the journals that a kill left beside it, by suffix.

        The next program that opens the file must roll these back. If the root is that of a running
        container, a usernsplan inside it writes the file in place; its lock is waited for.
        """
        unless_missing = suppress(FileNotFoundError, NotADirectoryError)
        with files.explained(self._layout, self._path), unless_missing:
            mode = files.look(self._layout, self._path).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
                raise self._no_file()

        descriptor = files.opened(self._layout, self._path)
        if descriptor is None:
            return None, {}
        with files.explained(self._layout, self._path), open(descriptor, "rb") as file:
            shared = fcntl.LOCK_SH | fcntl.LOCK_NB
            self._wait(
                lambda: fcntl.lockf(file, shared, _SHARED_COUNT, _SHARED_FIRST),
                lambda: os.fstat(file.fileno()),
            )
            raw = self._read(file)
            found = {suffix: files.read(self._layout, self._path + suffix) for suffix in _BESIDE}
            return raw, {suffix: content for suffix, content in found.items() if content}

    def _read(self, file: BinaryIO) -> bytes:
        """The bytes of the file. While they are those that are held, nothing is copied."""
        known = self._held[0] if self._held else b""
        if not known:
            return file.read()
        same = 0
        while piece := file.read(_PIECE):
            if not known.startswith(piece, same):
                return known[:same] + piece + file.read()
            same += len(piece)
        return known[:same]

    def _replace(self, db: sqlite3.Connection) -> bytes:
        """Replace the file with this copy; returns its bytes."""
        raw = _bytes_of(db)
        files.write(self._layout, {self._path: raw}, mode=0o600)
        return raw

    @contextmanager
    def _folder_lock(self) -> Iterator[None]:
        """Keep other processes from replacing the file, as SQLite's lock does if it works in it."""
        with files.explained(self._layout, self._path):
            folder = files.opened_folder(self._layout, os.path.dirname(self._path))
        try:
            with files.explained(self._layout, self._path):
                self._wait(
                    lambda: fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB),
                    lambda: os.fstat(folder),
                )
            yield
        finally:
            os.close(folder)

    def _patiently(self, db: sqlite3.Connection, path: str, statement: str) -> None:
        """Execute the first statement, which takes SQLite's lock of the file."""
        # SQLite's own wait is silent, so we wait here.
        db.execute("PRAGMA busy_timeout = 0")
        self._wait(lambda: db.execute(statement).fetchall(), lambda: os.stat(path))
        db.execute(f"PRAGMA busy_timeout = {int(_PATIENCE * 1000)}")

    def _wait(self, lock: Callable[[], object], seen: Callable[[], os.stat_result]) -> None:
        """Wait until ``lock`` succeeds. Raises LedgerError that names the process with the lock.

        ``seen`` is the stat of the locked file.
        """

        def attempt() -> str:
            try:
                lock()
            except (BlockingIOError, sqlite3.OperationalError) as error:
                if isinstance(error, sqlite3.OperationalError) and "locked" not in str(error):
                    raise
                return f"{self.shown} is locked by {waiting.locker(seen())}"
            return ""

        if holder := waiting.until(attempt, _PATIENCE):
            raise LedgerError(holder, hint=_NO_DAMAGE["database is locked"])

    def _no_file(self) -> LedgerError:
        hint = "put the ledger back in its place"
        return LedgerError(f"{self.shown} is not a regular file", hint=hint)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of SQLite and of the codec into LedgerError or DamagedLedgerError."""
        try:
            yield
        except DAMAGE as error:
            said = str(error) or type(error).__name__
            fact = f"{self.shown}: {said}"
            for text, remedy in _NO_DAMAGE.items():
                if text in said:
                    raise LedgerError(fact, hint=remedy) from error
            rebuild = self._layout.inline("ledger rebuild")
            raise DamagedLedgerError(
                fact,
                hint="restore the file from a backup; "
                f"without one, run {rebuild}: it rebuilds what other files show",
            ) from error


def _connected(path: str, mode: str) -> closing[sqlite3.Connection]:
    """A connection to a file, to be closed at the end of a ``with`` block."""
    # Only these three mean something in the path of SQLite's URI (sqlite.org/uri.html).
    for one in "%?#":
        path = path.replace(one, f"%{ord(one):02X}")
    uri = f"file:{path}?mode={mode}"
    return closing(sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None))


def _in_memory() -> closing[sqlite3.Connection]:
    """A connection to an empty database in memory, to be closed at the end of a ``with`` block."""
    return closing(sqlite3.connect(":memory:", isolation_level=None))


class _Copy(sqlite3.Connection):
    """A ledger in memory. It is closed with the last reference to it."""

    def __del__(self) -> None:
        self.close()


def _loaded(raw: bytes, beside: dict[str, bytes]) -> sqlite3.Connection:
    """A ledger in memory, from the bytes of its file and of its journals."""
    # Whichever thread drops the last reference closes it.
    db = sqlite3.connect(":memory:", isolation_level=None, factory=_Copy, check_same_thread=False)
    # SQLite reads a journal or a write-ahead log only beside a file.
    if beside or raw[18:20] == _IS_WAL or not _IN_MEMORY:
        with _private({"": raw, **beside}) as path, _connected(path, "rw") as file:
            file.execute("PRAGMA journal_mode = DELETE")
            file.backup(db)
    elif raw:
        db.deserialize(raw)
    return db


def _free(folder: int, name: str) -> str:
    """A name that is free in this folder, also with the suffixes that SQLite appends."""
    taken = os.listdir(f"/proc/self/fd/{folder}")
    names = (name if number == 1 else f"{name}.{number}" for number in count(1))
    return next(one for one in names if not any(other.startswith(one) for other in taken))


def _made(create: Callable[[sqlite3.Connection], None]) -> bytes:
    """The bytes of a new ledger. It is made in memory: a kill must not leave an empty file."""
    with _in_memory() as db:
        db.execute("BEGIN")
        create(db)
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
    """The path of a ledger in a private temporary folder; ``content`` is its files by suffix."""
    import tempfile  # noqa: PLC0415 - only after a kill, and with an old Python

    with tempfile.TemporaryDirectory(prefix="usernsplan-") as folder:
        path = os.path.join(folder, "ledger")
        for suffix, raw in content.items():
            with open(path + suffix, "xb") as file:
                file.write(raw)
        yield path
