"""Read the host into one value: every file that a decision may depend on, once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from usernsplan.errors import NotPermittedError, UsernsplanError
from usernsplan.formats import nsswitch, subid
from usernsplan.host import (
    accounts,
    docker,
    files,
    kubelet,
    libraries,
    namespaces,
    procfs,
    programs,
    unlisted,
    userdb,
    volumes,
)
from usernsplan.host.unlisted import lxc
from usernsplan.host.unread import Unread, fail, is_closed, unseen_at
from usernsplan.ids import EVERY_ID, IdSet
from usernsplan.layout import (
    DAEMON_JSON,
    GROUP,
    LEDGER,
    LOGIN_DEFS,
    NSSWITCH,
    PASSWD,
    SUBGID,
    SUBUID,
    USERDB,
)
from usernsplan.model import HostState, LedgerState, Unseen
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.host.unread import Miss
    from usernsplan.layout import Layout
    from usernsplan.model import MountSeen

T = TypeVar("T")


def state(layout: Layout, ledger: Callable[[], LedgerState]) -> HostState:
    """Read the host below ``layout.root``; ``ledger`` reads the ledger.

    Nothing is written, and nothing outside the root is read. Raises RefusedError if subuid or
    subgid is a symlink, and the errors of reading a file.
    """
    return _state(layout, ledger, fail, fail)


def shown(layout: Layout, ledger: Callable[[], LedgerState]) -> HostState:
    """Like ``state``, for a command that only shows: what others have that cannot be read is ``unseen``."""
    return _without(layout, ledger, lambda _: True)


def previewed(layout: Layout, ledger: Callable[[], LedgerState]) -> HostState:
    """Like ``state``, for a preview: only what is closed to this user, but not to root, is ``unseen``.

    Root's own preview fails where the run would.
    """
    return _without(layout, ledger, is_closed)


def _without(
    layout: Layout,
    ledger: Callable[[], LedgerState],
    is_dispensable: Callable[[UsernsplanError], bool],
) -> HostState:
    unseen: list[Unseen] = []

    def miss(path: str, error: UsernsplanError) -> None:
        if not is_dispensable(error):
            raise error
        unseen.append(unseen_at(path, error))

    found = _state(layout, ledger, fail, miss)
    return replace(found, unseen=tuple(dict.fromkeys(unseen)))


def compared(layout: Layout, ledger: Callable[[], LedgerState]) -> HostState:
    """The same state, and which of our records have another content, as ``what_can_be_read`` has it.

    A repair needs it; for other decisions it would take too long.
    """
    return _state(layout, ledger, fail, fail, compare=True)


def looked_at(state: HostState) -> HostState:
    """The same state, with the recorded volumes as they look now.

    This is a step of its own because decisions under the locks do not need the volumes.
    """
    found = volumes.recorded(state.layout, state.ledger)
    return replace(state, volumes=found.volumes, runs=found.runs)


def with_homes(state: HostState) -> tuple[HostState, tuple[Unread, ...]]:
    """The same state, with the containers in the homes of accounts, and the homes that were missed.

    This is a step of its own because decisions do not need them: an account has only the ids of
    its lines. So no home that hangs or fails can stop a decision.
    """
    missed: list[Unread] = []
    found = lxc.of_accounts(
        state.layout,
        state.accounts,
        subid.owners(state.subuid, state.subgid),
        lambda *one: missed.append(Unread(*one)),
        local=True,
    )
    return replace(state, unlisted=(*state.unlisted, *found)), tuple(missed)


def with_configs(state: HostState) -> tuple[HostState, tuple[Unread, ...]]:
    """The same state, with all configurations of containers that name ids, and what was missed.

    These are LXC's in the homes of accounts, and Podman's .container files.
    """
    from usernsplan.host import quadlets  # noqa: PLC0415 - only adopting needs them

    found, missed = with_homes(state)
    more: list[Unread] = []
    units = quadlets.read(
        state.layout,
        state.accounts,
        subid.owners(state.subuid, state.subgid),
        lambda *one: more.append(Unread(*one)),
    )
    return replace(found, quadlets=units), (*missed, *more)


def what_can_be_read(
    layout: Layout, ledger: Callable[[], LedgerState]
) -> tuple[HostState, tuple[Unread, ...]]:
    """Like ``state``, for a check: a file that cannot be read counts as empty and is listed.

    Folders of other programs are often root's alone. To another user they are ``unseen``, and the
    rest is checked. If subuid or subgid is a symlink, its target is read. Raises NotPermittedError.
    """
    unread: list[Unread] = []
    unseen: list[Unseen] = []

    def miss(path: str, error: UsernsplanError) -> None:
        if isinstance(error, NotPermittedError):
            raise error
        miss_of_others(path, error)

    def miss_of_others(path: str, error: UsernsplanError) -> None:
        if is_closed(error):
            unseen.append(unseen_at(path, error))
        # daemon.json and /var/lib/machines are read for two facts.
        elif all(str(error) != str(known.error) for known in unread):
            unread.append(Unread(path, error))

    found = _state(layout, ledger, miss, miss_of_others, compare=True)
    through = {
        path: subid.parse(
            _attempt(miss, path, partial(files.read, layout, path, follow=True), None)
        )
        for path in (SUBUID, SUBGID)
        if any(one.path == path for one in unread)
    }
    found = replace(
        found,
        subuid=through.get(SUBUID, found.subuid),
        subgid=through.get(SUBGID, found.subgid),
        unseen=tuple(dict.fromkeys(unseen)),
    )
    # If a file could not be read either way, the first error is the one to report.
    return found, tuple({one.path: one for one in reversed(unread)}.values())


def _attempt(miss: Miss, path: str, read: Callable[[], T], otherwise: T) -> T:
    """``read()``, or ``otherwise`` if it fails and ``miss`` lets the command go on."""
    try:
        return read()
    except UsernsplanError as error:
        miss(path, error)
        return otherwise


def _state(
    layout: Layout,
    ledger: Callable[[], LedgerState],
    miss: Miss,
    miss_of_others: Miss,
    *,
    compare: bool = False,
) -> HostState:
    def attempt(path: str, read: Callable[[], T], otherwise: T) -> T:
        return _attempt(miss, path, read, otherwise)

    def raw(path: str, *, follow: bool = True) -> bytes | None:
        return attempt(path, partial(files.read, layout, path, follow=follow), None)

    switch = raw(NSSWITCH) or b""
    daemon = raw(DAEMON_JSON)
    subids = nsswitch.source(switch, "subid")
    # An error leaves open whether the files are read: allocate fails, and check lists it.
    plugin = attempt(NSSWITCH, partial(libraries.find, layout, subids.library), "")
    known = attempt(LEDGER, ledger, LedgerState())
    found = _attempt(
        miss_of_others,
        USERDB,
        partial(userdb.read, layout, userdb.of_allocations(known.allocations), compare=compare),
        userdb.NOTHING,
    )
    return HostState(
        layout=layout,
        mounts=_mounts(layout, known),
        subuid=subid.parse(raw(SUBUID, follow=False)),
        subgid=subid.parse(raw(SUBGID, follow=False)),
        daemon_json=daemon,
        daemon_json_is_symlink=attempt(
            DAEMON_JSON, partial(files.is_symlink, layout, DAEMON_JSON), otherwise=False
        ),
        login_defs=raw(LOGIN_DEFS) or b"",
        subid_source=subids._replace(plugin=plugin),
        passwd_source=nsswitch.source(switch, "passwd"),
        accounts=accounts.of_files(layout, raw(PASSWD) or b"", raw(GROUP) or b"", switch, found),
        ledger=known,
        namespaces=namespaces.host_ids() if layout.is_host else IdSet(),
        can_add_accounts=accounts.can_add(),
        engines=programs.engines(layout),
        owners_need_accounts=programs.owners_need_accounts(layout),
        docker=docker.look(layout, daemon),
        unlisted=unlisted.everything(layout, miss_of_others),
        userdb=found.userdb,
        kubelet=kubelet.read(layout),
        exists=procfs.own_ids() if layout.is_host else (EVERY_ID, EVERY_ID),
    )


def _mounts(layout: Layout, ledger: LedgerState) -> tuple[MountSeen, ...]:
    """The recorded mounts as they look. A host without mounts does not pay for those of others."""
    if not ledger.mounts:
        return ()
    from usernsplan.host import standing  # noqa: PLC0415 - loads ctypes

    return standing.look(layout, ledger.mounts)
