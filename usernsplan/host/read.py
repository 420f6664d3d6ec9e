"""Read the host into one value: every file that a decision may depend on, once."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from usernsplan.errors import NotPermittedError, UsernsplanError
from usernsplan.formats import nsswitch, subid
from usernsplan.host import accounts, docker, files, namespaces, programs, volumes
from usernsplan.ids import IdSet
from usernsplan.layout import (
    DAEMON_JSON,
    GROUP,
    LEDGER,
    LOGIN_DEFS,
    NSSWITCH,
    PASSWD,
    SUBGID,
    SUBUID,
)
from usernsplan.model import HostState, LedgerState

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.layout import Layout

T = TypeVar("T")


class _Attempt(Protocol):
    """How to read a file: raise its error, or note it and go on with another value."""

    def __call__(self, path: str, read: Callable[[], T], otherwise: T) -> T:
        """Return ``read()`` for the file at ``path``, or ``otherwise`` if it fails."""


class Unread(NamedTuple):
    """A file that could not be read, and the error."""

    path: str
    error: UsernsplanError


def state(layout: Layout, ledger: Callable[[], LedgerState]) -> HostState:
    """Read the host below ``layout.root``; ``ledger`` reads the ledger.

    Nothing is written, and nothing outside the root is read. Raises RefusedError if subuid or
    subgid is a symlink, and the errors of reading a file.
    """
    return _state(layout, ledger, _or_fail)


def looked_at(state: HostState) -> HostState:
    """The same state, with the recorded volumes as they look now.

    This is a step of its own because decisions under the locks do not need the volumes.
    """
    found = volumes.recorded(state.layout, state.ledger)
    return replace(state, volumes=found.volumes, runs=found.runs)


def what_can_be_read(
    layout: Layout, ledger: Callable[[], LedgerState]
) -> tuple[HostState, tuple[Unread, ...]]:
    """Like ``state``, for a check: a file that cannot be read counts as empty and is listed.

    If subuid or subgid is a symlink, its target is read. Raises NotPermittedError.
    """
    unread: list[Unread] = []

    def attempt(path: str, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except NotPermittedError:
            raise
        except UsernsplanError as error:
            unread.append(Unread(path, error))
            return otherwise

    found = _state(layout, ledger, attempt)
    through = {
        path: subid.parse(attempt(path, partial(files.read, layout, path, follow=True), None))
        for path in (SUBUID, SUBGID)
        if any(one.path == path for one in unread)
    }
    found = replace(
        found, subuid=through.get(SUBUID, found.subuid), subgid=through.get(SUBGID, found.subgid)
    )
    # If a file could not be read either way, the first error is the one to report.
    return found, tuple({one.path: one for one in reversed(unread)}.values())


def _or_fail(path: str, read: Callable[[], T], otherwise: T) -> T:  # noqa: ARG001 - an _Attempt
    return read()


def _state(layout: Layout, ledger: Callable[[], LedgerState], attempt: _Attempt) -> HostState:
    def raw(path: str, *, follow: bool = True) -> bytes | None:
        return attempt(path, partial(files.read, layout, path, follow=follow), None)

    switch = raw(NSSWITCH) or b""
    daemon = raw(DAEMON_JSON)
    return HostState(
        layout=layout,
        subuid=subid.parse(raw(SUBUID, follow=False)),
        subgid=subid.parse(raw(SUBGID, follow=False)),
        daemon_json=daemon,
        daemon_json_is_symlink=attempt(
            DAEMON_JSON, partial(files.is_symlink, layout, DAEMON_JSON), otherwise=False
        ),
        login_defs=raw(LOGIN_DEFS) or b"",
        subid_source=nsswitch.source(switch, "subid"),
        passwd_source=nsswitch.source(switch, "passwd"),
        accounts=accounts.of_files(layout, raw(PASSWD) or b"", raw(GROUP) or b""),
        ledger=attempt(LEDGER, ledger, LedgerState()),
        namespaces=namespaces.host_ids() if layout.is_host else IdSet(),
        can_add_accounts=accounts.can_add(),
        engines=programs.engines(layout),
        docker=docker.look(layout, daemon),
    )
