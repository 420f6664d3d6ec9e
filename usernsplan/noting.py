"""Change the ledger alone: no file of the host, and so none of what a plan for one has to look at.

It takes the same locks and leaves the same intent as apply does, so a kill is repaired like any.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from usernsplan.escape import utf8
from usernsplan.host import locks, log, procfs, signals
from usernsplan.model import HistoryEntry, Intent, LedgerChange
from usernsplan.planner import changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import LedgerState


def note(
    layout: Layout, ledger: Ledger, decide: Callable[[LedgerState], LedgerChange], command: str
) -> bool:
    """Record a change of volumes or mounts. False, and nothing is recorded, if a repair is due.

    Raises LockBusyError and LedgerError.
    """
    with locks.subid_locks(layout):
        ledger.agree()
        state = ledger.deciding()
        if state.interrupted:
            return False
        change = decide(state)
        if change != LedgerChange():
            record(layout, ledger, change, changes.of_volumes(change), command)
    return True


def record(
    layout: Layout, ledger: Ledger, change: LedgerChange, lines: Iterable[str], command: str
) -> None:
    """Record a change under the locks; ``lines`` are what the history says of it."""
    actor, words = procfs.actor(), utf8(command)
    with signals.held():
        ledger.begin(Intent(words, actor, change, ()))
        entry = HistoryEntry(now(), actor, words, tuple(map(utf8, lines)))
        ledger.complete(entry)
        logged(layout, entry)


def now() -> str:
    """The time of an entry of the history."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def logged(layout: Layout, entry: HistoryEntry) -> None:
    """Write an entry of the history to the system log, too."""
    log.changed(
        layout, (f"{line} (uid {entry.actor.uid}: {entry.command})" for line in entry.changed)
    )
