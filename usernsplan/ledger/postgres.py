"""Talk to the PostgreSQL server of a fleet: connect, call the functions of fleet.sql, and never hang.

This module knows the server's functions and nothing of what they mean; fleet.py does. psycopg is
imported for the first question, because a host without a fleet does not have it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from usernsplan.errors import (
    InvalidValueError,
    LedgerError,
    LedgerUnreachableError,
    MeanwhileTakenError,
    NotPermittedError,
    RefusedError,
    UnknownNameError,
    UsernsplanError,
)
from usernsplan.escape import line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import psycopg

VERSION = 1
# Seconds. No answer may take longer: neither a lost network nor a stopped server answers with an error.
PATIENCE = 10.0
_CONNECT = 5
# What libpq and the server do by themselves. The server cancels before we give up, so that nothing
# of ours is left at work there.
_SETTINGS: dict[str, Any] = {
    "application_name": "usernsplan",
    "connect_timeout": _CONNECT,
    "tcp_user_timeout": int(PATIENCE * 1000),
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "options": "-c statement_timeout=8000 -c lock_timeout=6000 -c search_path=pg_catalog "
    "-c idle_in_transaction_session_timeout=30000 -c client_min_messages=warning",
}
# SQLSTATEs that mean that the server cannot be had now: it stops, is a standby, or has no room for us.
_AWAY = ("08", "57P", "53300", "25006", "25P03", "57014", "55P03")
# What libpq takes in a place, and nobody else may read.
_SECRETS = {"password", "sslpassword", "oauth_client_secret"}
_NO_DRIVER = (
    "the ledger of the fleet is on PostgreSQL, and psycopg is not installed: {reason}",
    "python3 -m pip install 'usernsplan[postgresql]'",
)


class Server:
    """The server at a libpq ``url``, which has no password. Every method raises errors of ours.

    LedgerUnreachableError: it gave no answer in time. What was asked may still be done there.
    LedgerError: its schema has another version than VERSION, unless it may have ``any_version``.
    """

    def __init__(self, url: str, *, any_version: bool = False) -> None:
        self._open: psycopg.Connection | None = None
        # A list, because the connection must not refer to us: it ends when nobody does.
        self._notices: list[psycopg.errors.Diagnostic] = []
        self._any_version = self._is_known = any_version
        # Nothing is imported for a command that asks nothing.
        self.url = url

    def __del__(self) -> None:
        """A command opens the ledger at many places; the connection ends with its user."""
        self.close()

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of one statement, which is a transaction of its own."""
        with self._explained(), self._in_time() as db:
            # No prepared statements: a pooler between us and the server may not keep them.
            found = db.execute(statement, values, prepare=False)
            rows = found.fetchall() if found.description else []
        if unsafe := self._unconfirmed():
            raise LedgerUnreachableError(unsafe, hint="run the same command again")
        return rows

    def script(self, statements: str) -> None:
        """Several statements, all or none of them."""
        with self._explained(), self._in_time() as db:
            db.execute(statements)

    @contextmanager
    def together(self, *, keep: bool = True) -> Iterator[None]:
        """What is asked in the body is one transaction. Without ``keep``, nothing of it stays."""
        self.rows("BEGIN")
        try:
            yield
        except BaseException:
            # Without a connection, the server has forgotten it already.
            if self._open is not None:
                with suppress(UsernsplanError):
                    self.rows("ROLLBACK")
            raise
        self.rows("COMMIT" if keep else "ROLLBACK")

    def ping(self) -> bool:
        """Tell whether a server answers, whoever asks."""
        psycopg = _driver()
        from psycopg.conninfo import make_conninfo  # noqa: PLC0415 - see the top

        place = make_conninfo(checked(self.url), connect_timeout=_CONNECT)
        return bool(psycopg.pq.PGconn.ping(place.encode()) == psycopg.pq.Ping.OK)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._open is not None:
            self._open.close()
            self._open = None
        self._is_known = self._any_version

    @contextmanager
    def _in_time(self) -> Iterator[psycopg.Connection]:
        """The connection; after PATIENCE its socket is shut down, which ends any wait for an answer."""
        import socket  # noqa: PLC0415 - see the top
        import threading  # noqa: PLC0415 - see the top

        db = self._connected()
        # A copy of its own: the number of a descriptor may soon be that of another file.
        with socket.socket(fileno=os.dup(db.fileno())) as copy:

            def shut() -> None:
                with suppress(OSError):
                    copy.shutdown(socket.SHUT_RDWR)

            lost = threading.Timer(PATIENCE, shut)
            lost.daemon = True
            lost.start()
            try:
                self._know_version(db)
                yield db
            finally:
                lost.cancel()
                lost.join()

    def _know_version(self, db: psycopg.Connection) -> None:
        """Ask once for each connection which version the schema has: another may mean other things."""
        if self._is_known:
            return
        [[version]] = db.execute("SELECT version FROM usernsplan.meta").fetchall()
        if version != VERSION:
            raise other_version(self.url, version)
        self._is_known = True

    def _connected(self) -> psycopg.Connection:
        if self._open is not None and not self._open.closed:
            return self._open
        psycopg = _driver()
        self._open = psycopg.connect(checked(self.url), autocommit=True, **_SETTINGS)
        self._open.add_notice_handler(self._notices.append)
        return self._open

    def _unconfirmed(self) -> str:
        """A commit that no standby confirmed is not durable, although the server says it is done."""
        texts = (n.message_primary or "" for n in self._notices if n.sqlstate == "01000")
        found = next((text for text in texts if "replication" in text), "")
        return f"{shown(self.url)}: {found}" if found else ""

    @contextmanager
    def _explained(self) -> Iterator[None]:
        psycopg = _driver()
        self._notices.clear()
        try:
            yield
        except psycopg.Error as error:
            if self._open is not None and self._open.broken:
                self.close()
            raise self._ours(error) from error
        except UnicodeError as error:
            raise LedgerError(f"{shown(self.url)}: {error}") from error

    def _ours(self, error: psycopg.Error) -> Exception:
        state = error.sqlstate or ""
        primary = error.diag.message_primary or " ".join(str(error).split())
        text = f"{shown(self.url)}: {line(primary)}"
        made = _OF_STATE.get(state)
        if made:
            return made(text)
        psycopg = _driver()
        is_lost = not state and isinstance(
            error, (psycopg.OperationalError, psycopg.InterfaceError)
        )
        if is_lost or state.startswith(_AWAY):
            return LedgerUnreachableError(text)
        if state.startswith("53"):
            return LedgerError(text, hint="make room on the server and run again")
        return LedgerError(text, hint="'usernsplan ledger status' shows the server's state")


def _noticed(unsafe: list[str], notice: psycopg.errors.Diagnostic) -> None:
    """A commit that no standby confirmed is not durable, although the server says it is done."""
    if notice.sqlstate == "01000" and "replication" in (notice.message_primary or ""):
        unsafe.append(str(notice.message_primary))


def _no_ledger(text: str) -> LedgerError:
    return LedgerError(text, hint="make the ledger first: usernsplan ledger init URL")


_OF_STATE: dict[str, Callable[[str], Exception]] = {
    "UP001": MeanwhileTakenError,
    "UP002": lambda text: LedgerError(text, hint="join the fleet: usernsplan ledger join"),
    "UP003": lambda text: LedgerError(
        text,
        hint="another machine uses this host's name, or a backup was restored; run 'usernsplan sync'",
    ),
    "UP004": lambda text: RefusedError(
        text, hint="a name has the same ids on every host; use another name, or --local"
    ),
    "UP005": lambda text: RefusedError(text, hint="give this host a name of its own: --name"),
    "UP006": lambda text: RefusedError(
        text,
        hint="'usernsplan ledger status' lists the hosts; whois --fleet shows who has which ids",
    ),
    "UP011": lambda text: RefusedError(
        text, hint="'usernsplan volumes --fleet' shows who ended it; ask them before anything else"
    ),
    "UP012": lambda text: UnknownNameError(
        text,
        hint="'usernsplan ledger status' shows the hosts; 'usernsplan volumes --fleet' their runs",
    ),
    "UP010": lambda text: RefusedError(text, hint="run it again when that has ended"),
    "23505": lambda text: LedgerError(
        text, hint="a run of this host is at work, or was interrupted; the next one completes it"
    ),
    "42501": lambda text: NotPermittedError(
        text,
        hint="use the role of this host, which is a member of usernsplan_host, or an operator's",
    ),
    # No schema, no function and no table of ours.
    **dict.fromkeys(("3F000", "42883", "42P01"), _no_ledger),
}


def _driver() -> Any:  # noqa: ANN401 - the module psycopg
    try:
        import psycopg  # noqa: PLC0415 - see the top
    except ImportError as error:
        fact, remedy = _NO_DRIVER
        raise LedgerUnreachableError(fact.format(reason=error), hint=remedy) from error
    return psycopg


def other_version(url: str, version: int) -> LedgerError:
    """The error for a schema of another version than ours."""
    remedy = (
        "install the newer usernsplan on this host"
        if version > VERSION
        else "bring it up to date, as the role that owns it: usernsplan ledger init URL"
    )
    return LedgerError(
        f"{shown(url)}: the ledger has version {version}, and this usernsplan knows {VERSION}",
        hint=remedy,
    )


def checked(url: str) -> str:
    """The place of a fleet's ledger. Raises InvalidValueError if it has a password, or is none.

    A password would be in argv, in the history and in config.yaml. No message repeats a place that
    libpq cannot read: a part of it may be one.
    """
    try:
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - see the top
    except ImportError:
        has_password, is_place = may_have_password(url), True
    else:
        try:
            has_password, is_place = not _SECRETS.isdisjoint(conninfo_to_dict(url)), True
        except _driver().Error:
            has_password, is_place = may_have_password(url), False
    if has_password:
        raise InvalidValueError(
            "the place of a ledger has no password in it",
            hint="put it into a password file or a service file: "
            "https://www.postgresql.org/docs/current/libpq-pgpass.html",
        )
    if not (is_place and url.strip() and url.isprintable()):
        raise InvalidValueError(
            "libpq cannot read this place of a ledger",
            hint="such as postgresql://ledger.example/usernsplan, or service=usernsplan",
        )
    return url


def may_have_password(url: str) -> bool:
    """Tell whether there may be a password in a text that libpq cannot read. Pure."""
    import re  # noqa: PLC0415 - only in a fleet

    return bool(re.search(r"(password|secret)\s*=|%|:[^/]*@|//[^/@]*:.*@", url, re.IGNORECASE))


def shown(url: str) -> str:
    """A place for messages. One that may have a password, which ``checked`` refuses, is not shown."""
    return "the place in config.yaml" if may_have_password(url) else line(url)


def arrays(rows: Sequence[Sequence[object]], width: int) -> list[list[object]]:
    """Rows as one list for each column, as unnest takes them."""
    return [[row[at] for row in rows] for at in range(width)]
