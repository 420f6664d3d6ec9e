"""Check a host: gather what the audit looks at, as far as it can be read. Decides nothing."""

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

# Where accounts come from that getpwent(3) lists whole.
_LISTED = {"files", "compat", "systemd"}


def check(root: str = "/", codes: Collection[str] | None = None) -> tuple[Finding, ...]:
    """What the audit finds on the host below ``root``, by these rules (USN001 …; None: all); errors come first.

    Nothing is written. Raises NotPermittedError, and InvalidValueError where ``root`` is not there.
    """
    layout = files.layout_at(root, exists=True)
    return audit.check(gather(layout, open_ledger(layout)), codes)


def gather(layout: Layout, ledger: Ledger, *, passwd: str | None = None) -> Facts:
    """The facts of the host below ``layout.root``; of another root than "/" no process of this machine is looked at.

    ``passwd`` is the passwd of an image. Raises NotPermittedError, and InvalidValueError for --passwd.
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
    """What is wrong with a file, which the place in front of it need not name again."""
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
    """Owners without an account here whom a directory service knows, though it does not list them."""
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
