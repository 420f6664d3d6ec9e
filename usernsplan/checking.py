"""Check a host: gather the facts for the audit, as far as they can be read. Decides nothing."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan import audit
from usernsplan.audit.base import Attributes, Facts, Lock, Unread
from usernsplan.engines.hardened import filter_path
from usernsplan.errors import LedgerError, UsernsplanError
from usernsplan.formats.subid import PATHS, Grant
from usernsplan.host import accounts, files, locks, namespaces, process, read
from usernsplan.host.unread import homes_unseen, is_closed
from usernsplan.ledger import open_ledger
from usernsplan.model import OWN_PREFIX
from usernsplan.planner.daemon import remapped_to
from usernsplan.planner.directory import with_owners
from usernsplan.planner.mounts import LASTING_VOLUMES, VOLUMES
from usernsplan.reached import reached
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from usernsplan.formats.proc_status import Status
    from usernsplan.host import unread
    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import Finding, HistoryEntry, HostState, Intent, Namespace


def check(root: str = "/", codes: Collection[str] | None = None) -> tuple[Finding, ...]:
    """The findings of the audit on the host below ``root``, errors first; it writes nothing.

    ``codes`` are the rules to check (USN001, …), None all of them. Raises NotPermittedError, and
    InvalidValueError if ``root`` does not exist.
    """
    layout = files.layout_at(root, exists=True)
    return audit.check(gather(layout, open_ledger(layout)), codes)


def gather(layout: Layout, ledger: Ledger, *, passwd: str | None = None) -> Facts:
    """The facts of the host below ``layout.root``; the processes of this machine only if it is "/".

    ``passwd`` is the path of an image's passwd. Raises NotPermittedError, and InvalidValueError for
    ``passwd``.
    """
    state, missed = read.what_can_be_read(layout, ledger.state)
    state = with_owners(read.looked_at(state), _owners(state))
    state, homes = read.with_configs(state)
    # The units of root were read before.
    homes = tuple(one for one in homes if one.path not in {known.path for known in missed})
    state = replace(state, mounts=reached(state.layout, state.ledger, state.mounts, state.accounts))
    passes = [one for a in state.ledger.allocations for one in a.passes]
    if passes:
        named = accounts.naming(layout, passes, state.accounts)
        state = replace(state, accounts=named)
    running = namespaces.running() if layout.is_host else ()
    closed = [home for home in homes if is_closed(home.error)]
    return Facts(
        state=state,
        namespaces=running,
        statuses=dict(_statuses(running)),
        filters=dict(_filters(state)),
        machine=os.uname().machine,
        locks=tuple(Lock(*found) for found in locks.left_behind(layout)),
        unread=_told(layout, missed),
        homes=_told(layout, (home for home in homes if home not in closed)),
        unseen=(*(one.note for one in state.unseen), *homes_unseen(closed)),
        attributes=tuple(_attributes(layout)),
        image=accounts.of_image(passwd) if passwd is not None else None,
        intent=_intent(ledger) if state.ledger.interrupted else None,
        history=_history(ledger) if passes else (),
        strays=_strays(state),
    )


def _statuses(running: Iterable[Namespace]) -> Iterator[tuple[int, Status]]:
    """The states of the first processes of namespaces: one that is gone or closed has none."""
    for namespace in running:
        for pid in namespace.pids[:1]:
            with suppress(UsernsplanError):
                yield pid, process.status(pid)


def _filters(state: HostState) -> Iterator[tuple[str, bytes]]:
    """The filters of allocations with a policy, by path, as far as they can be read."""
    for allocation in state.ledger.allocations:
        if allocation.policy:
            path = filter_path(allocation)
            with suppress(UsernsplanError):
                if (raw := files.read(state.layout, path, largest=files.LARGEST)) is not None:
                    yield path, raw


def _told(layout: Layout, several: Iterable[unread.Unread]) -> tuple[Unread, ...]:
    return tuple(Unread(one.path, _fact(layout, one), one.error.hint) for one in several)


def _fact(layout: Layout, one: unread.Unread) -> str:
    """The error of a file, without the path: the finding has it as its place.

    The path stays where a file in a folder failed, and the place is the folder.
    """
    text = str(one.error)
    rest = text.removeprefix(layout.path(one.path))
    return text if rest.startswith("/") else rest.lstrip(": ")


def _attributes(layout: Layout) -> Iterator[Attributes]:
    for path in PATHS.values():
        with files.explained(layout, path):
            try:
                seen = files.look(layout, path)
            except (FileNotFoundError, NotADirectoryError):
                continue
        kinds = {stat.S_IFREG: "regular", stat.S_IFLNK: "symlink", stat.S_IFDIR: "a folder"}
        kind = kinds.get(stat.S_IFMT(seen.st_mode), "a device or a pipe")
        yield Attributes(path, kind, stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid)


def _intent(ledger: Ledger) -> Intent | None:
    try:
        return ledger.pending()
    except LedgerError:
        return None


def _history(ledger: Ledger) -> tuple[HistoryEntry, ...]:
    try:
        return ledger.history()
    except LedgerError:
        return ()


def _owners(state: HostState) -> Iterator[str]:
    """The owners that may be accounts: of lines, of allocations, and Docker's remap user.

    No directory service is asked for names that usernsplan made up: there may be thousands.
    """
    lines = (line for kind in PATHS for line in state.subid(kind).lines)
    named = [line.owner for line in lines if isinstance(line, Grant)]
    named += [a.owner for a in state.ledger.allocations]
    yield from (owner for owner in named if not owner.startswith(OWN_PREFIX))
    if user := remapped_to(state):
        yield user


def _strays(state: HostState) -> tuple[str, ...]:
    from usernsplan.host import standing  # noqa: PLC0415 - loads ctypes

    return standing.strays(
        state.layout, (VOLUMES, LASTING_VOLUMES), (mount.at for mount in state.ledger.mounts)
    )
