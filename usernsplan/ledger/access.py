"""Reading and writing the SQLite file safely: one file below the root, readable by root alone.

On this machine SQLite works in the file. SQLite opens by path, and resolves that path itself,
/proc/self/fd too: below another root, who may exchange folders could lead it out, and its journals.
There it never opens anything: the file is read as any other, SQLite works on a copy in memory, and
the file is replaced whole.
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
from urllib.parse import quote

from usernsplan.errors import DamagedLedgerError, LedgerError
from usernsplan.host import files, waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from usernsplan.layout import Layout

# What the last step of a run needs on the disk besides its rows: a few pages, and their rollback
# journal.
_ROOM = 131072
# Seconds to wait for another reader or writer of the file itself; writers of the host wait on the
# subid locks before.
_PATIENCE = 15
# What SQLite makes beside a file that it changes: where one is left, the file alone is half a
# ledger.
_BESIDE = ("-journal", "-wal")
# The bytes of the file on which SQLite's readers have a lock, and that a writer locks alone before
# it writes (os.h).
_SHARED_FIRST, _SHARED_COUNT = 0x40000002, 510
# In a file's header: its changes are in a write-ahead log (sqlite.org/fileformat.html).
_IS_WAL = b"\2\2"
# Python 3.11 reads and writes a whole database in memory; an older one makes files of its own for
# it.
_IN_MEMORY = hasattr(sqlite3.Connection, "deserialize")
# What SQLite says of a file that need not be damaged, and what helps.
_NO_DAMAGE = {
    "database is locked": "another program reads or writes it; try again when it has finished",
    "database or disk is full": "make room and run again",
    "disk I/O error": "the disk failed, and 'dmesg' may say how; when it works again, run again",
    "attempt to write a readonly database": "run as root, on a file system that is mounted writable",
    "unable to open database file": "run as root; the folder of the ledger has to be readable and writable",
}
# What reading a damaged file raises: see the codec.
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
    """The file at ``path`` below a root. ``create`` fills an empty database, where the file is made anew."""

    def __init__(
        self, layout: Layout, path: str, create: Callable[[sqlite3.Connection], None]
    ) -> None:
        self._layout = layout
        self._path = path
        self._create = create
        self.shown = layout.path(path)

    def exists(self) -> bool:
        """Tell whether there is such a file, damaged or not."""
        return files.exists(self._layout, self._path)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """The ledger at one moment; None where there is no file. Raises LedgerError, DamagedLedgerError."""
        with self._in_place_to_read() if self._layout.is_host else self._apart() as db:
            if db is not None:
                # One moment for everything that is read: a writer may finish between two
                # statements.
                db.execute("BEGIN")
            yield db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The ledger in one transaction: all of it is on disk at the end, or nothing after an error or a kill."""
        files.make_folder(self._layout, os.path.dirname(self._path), 0o700)
        with self._in_place() if self._layout.is_host else self._replacing() as db, db:
            yield db

    @contextmanager
    def salvaging(self) -> Iterator[sqlite3.Connection]:
        """What can be opened of a damaged file, in memory. Raises LedgerError, DamagedLedgerError."""
        with self._explained(), closing(_loaded(self._content()[0] or b"", {})) as db:
            yield db

    def renew(self, create: Callable[[sqlite3.Connection], None], at: str) -> str | None:
        """Put a new file in the place of one that cannot be read, or is gone; where the old one is kept now."""
        files.make_folder(self._layout, os.path.dirname(self._path), 0o700)
        new = _made(create)
        with self._folder_lock(), files.explained(self._layout, self._path):
            with files.pinned(self._layout, self._path) as place:
                both = {"src_dir_fd": place.folder, "dst_dir_fd": place.folder}
                aside = _free(place.folder, f"{place.name}.damaged-{at.replace(':', '')}")
                # What SQLite would roll back into the new one.
                for suffix in (*_BESIDE, "-shm"):
                    with suppress(FileNotFoundError):
                        os.rename(place.name + suffix, aside + suffix, **both)
                kept = None
                with suppress(FileNotFoundError):
                    # Its name stays until the new one has it: no kill leaves a host without a
                    # ledger, which is empty.
                    os.link(place.name, aside, follow_symlinks=False, **both)
                    kept = os.path.join(os.path.dirname(self.shown), aside)
            files.write(self._layout, {self._path: new}, mode=0o600)
        return kept

    def reserve(self, content: int) -> None:
        """Keep room on the disk for the end of a run with so many bytes of ``content``.

        Between its begin and its end the files change; a full disk must be met before. Raises
        LedgerError.
        """
        # Its rows, its event, and the journal for both; below another root, the whole file beside
        # the old one.
        self._keep(_ROOM + 5 * content + self._size())

    def unreserve(self) -> None:
        """Give that room back."""
        self._keep(0)

    def _keep(self, size: int) -> None:
        files.make_folder(self._layout, os.path.dirname(self._path), 0o700)
        name = f"{self._path}-reserve"
        with files.explained(self._layout, self._path), files.pinned(self._layout, name) as place:
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
            return files.look(self._layout, self._path).st_size
        except OSError:
            return 0

    @contextmanager
    def _in_place_to_read(self) -> Iterator[sqlite3.Connection | None]:
        with files.explained(self._layout, self._path):
            path = files.real(self._layout, self._path)
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
                    # First the file as it is without them, which they leave as it is: a kill may
                    # come in between.
                    self._replace(db)
                    for suffix in beside:
                        files.remove(self._layout, self._path + suffix)
                db.execute("BEGIN IMMEDIATE")
                if raw is None:
                    self._create(db)
                yield db
                self._replace(db)

    def _content(self) -> tuple[bytes | None, dict[str, bytes]]:
        """The file's bytes; and what a kill left beside it, which whoever opens it next has to take back.

        Where this root is a running container's, who works in it writes the file in place: he is
        waited for.
        """
        with (
            files.explained(self._layout, self._path),
            suppress(FileNotFoundError, NotADirectoryError),
        ):
            if stat.S_IFMT(files.look(self._layout, self._path).st_mode) not in {
                stat.S_IFREG,
                stat.S_IFLNK,
            }:
                raise self._no_file()
        descriptor = files.opened(self._layout, self._path)
        if descriptor is None:
            return None, {}
        with files.explained(self._layout, self._path), open(descriptor, "rb") as file:
            self._wait(
                file.fileno(),
                lambda: fcntl.lockf(
                    file, fcntl.LOCK_SH | fcntl.LOCK_NB, _SHARED_COUNT, _SHARED_FIRST
                ),
            )
            raw = file.read()
            found = {suffix: files.read(self._layout, self._path + suffix) for suffix in _BESIDE}
            return raw, {suffix: content for suffix, content in found.items() if content}

    def _replace(self, db: sqlite3.Connection) -> None:
        files.write(self._layout, {self._path: _bytes_of(db)}, mode=0o600)

    @contextmanager
    def _folder_lock(self) -> Iterator[None]:
        """Keep others from replacing the file meanwhile, as SQLite's own lock does where it works in the file."""
        with files.explained(self._layout, self._path):
            folder = files.opened_folder(self._layout, os.path.dirname(self._path))
        try:
            with files.explained(self._layout, self._path):
                self._wait(folder, lambda: fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB))
            yield
        finally:
            os.close(folder)

    def _wait(self, descriptor: int, lock: Callable[[], None]) -> None:
        def attempt() -> str:
            return (
                ""
                if _got(lock)
                else f"{self.shown} is locked by {waiting.locker(os.fstat(descriptor))}"
            )

        if holder := waiting.until(attempt, _PATIENCE):
            raise LedgerError(holder)

    def _no_file(self) -> LedgerError:
        return LedgerError(
            f"{self.shown} is not a regular file", hint="put the ledger back in its place"
        )

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
                return f"{self.shown} is locked by {waiting.locker(os.stat(path))}"
            return ""

        # SQLite's own patience is silent.
        db.execute("PRAGMA busy_timeout = 0")
        if waiting.until(attempt, _PATIENCE):
            raise busy[0]
        db.execute(f"PRAGMA busy_timeout = {int(_PATIENCE * 1000)}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            said = str(error) or type(error).__name__
            if remedy := next(
                (remedy for words, remedy in _NO_DAMAGE.items() if words in said), ""
            ):
                raise LedgerError(f"{self.shown}: {said}", hint=remedy) from error
            raise DamagedLedgerError(
                f"{self.shown}: {said}",
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


def _made(create: Callable[[sqlite3.Connection], None]) -> bytes:
    """A whole ledger, made in memory: no kill leaves one on the disk that says that nothing is held."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
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
    """A ledger's files (by what their names end in) in a folder that is nobody else's, for as long as this lasts."""
    import tempfile  # noqa: PLC0415 - only after a kill, and with an old Python

    with tempfile.TemporaryDirectory(prefix="usernsplan-") as folder:
        path = os.path.join(folder, "ledger")
        for suffix, raw in content.items():
            with open(path + suffix, "xb") as file:
                file.write(raw)
        yield path
