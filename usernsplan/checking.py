"""Check a host: gather the facts for the audit, as far as they can be read. Decides nothing."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from usernsplan import audit
from usernsplan.audit.base import Attributes, Facts, Lock, Unread
from usernsplan.errors import LedgerError
from usernsplan.formats.subid import PATHS, Grant
from usernsplan.host import accounts, files, locks, namespaces, read
from usernsplan.ledger import open_ledger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import Finding, HostState, Intent

# The NSS services of which getpwent(3) lists all accounts.
_LISTED = {"files", "compat", "systemd"}


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
    state, unread = read.what_can_be_read(layout, ledger.state)
    state = read.looked_at(state)
    return Facts(
        state=state,
        namespaces=namespaces.running() if layout.is_host else (),
        locks=tuple(Lock(*found) for found in locks.left_behind(layout)),
        unread=tuple(Unread(one.path, _fact(layout, one), one.error.hint) for one in unread),
        attributes=tuple(_attributes(layout)),
        image=accounts.of_image(passwd) if passwd is not None else None,
        intent=_intent(ledger) if state.ledger.interrupted else None,
        elsewhere=_elsewhere(state),
    )


def _fact(layout: Layout, one: read.Unread) -> str:
    """The error of a file, without the path: the finding has it as its place."""
    return str(one.error).removeprefix(layout.path(one.path)).lstrip(": ")


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


def _elsewhere(state: HostState) -> frozenset[str]:
    """Owners without a listed account that a directory service knows if it is asked for them."""
    if not state.layout.is_host or _LISTED.issuperset(state.passwd_source.services):
        return frozenset()
    known = {user.name for user in state.accounts.users} | {
        str(user.uid) for user in state.accounts.users
    }
    lines = (line for kind in PATHS for line in state.subid(kind).lines)
    named = {line.owner for line in lines if isinstance(line, Grant)}
    return accounts.known_elsewhere(
        sorted(named - known - {a.owner for a in state.ledger.allocations})
    )
