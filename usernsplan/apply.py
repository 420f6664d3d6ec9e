"""Plan -> the host: all or nothing, and after a kill at any point the next run puts things right.

The order is the guarantee: locks; the ledger's intent, on disk; the files, each replaced whole; the ledger's changes
and the end of the intent, in one step. What a leftover intent means is decided in planner.recovery.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from usernsplan.errors import HostChangedError, LedgerError, UsernsplanError
from usernsplan.formats.subid import added_lines
from usernsplan.host import accounts, files, locks, log, procfs, read
from usernsplan.layout import DAEMON_JSON, SUBGID, SUBUID
from usernsplan.model import Finding, HistoryEntry, Intent
from usernsplan.planner.recovery import mend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import Change, HostState, Plan


def preview(layout: Layout, ledger: Ledger, decide: Callable[[HostState], Plan]) -> Plan:
    """What would be done now. Nothing is written, no lock is taken."""
    state = read.state(layout, ledger)
    plan = decide(state)
    if state.ledger.interrupted:
        note = Finding(
            "USN114",
            "warning",
            "a run was interrupted between its files: what is shown may differ from what will be done",
            "the next run that changes something completes it or puts it back first",
        )
        plan = replace(plan, findings=(note, *plan.findings))
    return plan


def carry_out(layout: Layout, ledger: Ledger, decide: Callable[[HostState], Plan]) -> Plan:
    """Decide and do it: where nothing is to change, nothing is locked or touched.

    The decision is made anew under the locks, from what the host holds then, so that runs at the same time follow one
    another instead of failing. Raises what ``decide`` raises, LockBusyError, and the errors of files and ledger; the
    host is then as it was.
    """
    findings: list[Finding] = []
    try:
        if ledger.pending():
            with locks.subid_locks(layout):
                findings += recover(layout, ledger)
        plan = decide(read.state(layout, ledger))
        if plan.changed:
            # Before the locks, which useradd takes itself. If we fail after it, an account without a range is harmless.
            for command in plan.account_commands:
                accounts.add(layout, command)
                made = f"made the account that Docker's remap needs: {' '.join(command)}"
                findings.append(Finding("USN115", "info", made))
            with locks.subid_locks(layout):
                findings += recover(layout, ledger)
                plan = decide(read.state(layout, ledger))
                if plan.account_commands:
                    raise HostChangedError(f"the account {plan.account_commands[0][-1]} went away meanwhile")
                if plan.changed:
                    commit(layout, ledger, plan)
    except UsernsplanError as error:
        error.notes = tuple(finding.message for finding in findings)
        raise
    return replace(plan, findings=(*findings, *plan.findings))


def commit(layout: Layout, ledger: Ledger, plan: Plan) -> None:
    """Carry out a plan, under the locks. Raises HostChangedError where a file is not what the plan was made from."""
    for change in plan.changes:
        if _now(layout, change.path) != change.before:
            raise HostChangedError(f"{layout.path(change.path)} was changed by somebody else meanwhile")
    intent = Intent(shlex.join(sys.argv), procfs.actor(), plan.ledger, plan.changes)
    ledger.begin(intent)
    try:
        files.write(layout, {change.path: change.after for change in plan.changes}, backup=(SUBUID, SUBGID))
    except BaseException:
        recover(layout, ledger)
        raise
    entry = _entry(intent, layout)
    try:
        ledger.complete(entry)
    except LedgerError as error:
        later = "the files are written; the next usernsplan that can write its ledger takes them over"
        raise LedgerError(str(error), hint=later) from error
    log.changed(layout, (f"{line} (uid {entry.actor.uid}: {entry.command})" for line in entry.changed))


def recover(layout: Layout, ledger: Ledger) -> tuple[Finding, ...]:
    """Under the locks: complete a run that was interrupted, or put back what it had done. Says which."""
    intent = ledger.pending()
    if intent is None:
        return ()
    paths = tuple(change.path for change in intent.changes)
    mended = mend(intent, {path: _now(layout, path) for path in paths})
    files.write(layout, {change.path: change.after for change in mended.changes})
    for path in mended.removals:
        files.remove(layout, path)
    files.discard_unfinished(layout, paths)
    entry = _entry(intent, layout)
    what = "completed" if mended.completed else "put back"
    if mended.completed:
        ledger.complete(entry)
    else:
        ledger.put_back(replace(entry, changed=("interrupted, and put back",)))
    log.changed(layout, [f"an interrupted run was {what}: {intent.command}"])
    return (Finding("USN114", "warning", f"a run was interrupted ('{intent.command}'); it is now {what}"),)


def _now(layout: Layout, path: str) -> bytes | None:
    return files.read(layout, path, follow=path == DAEMON_JSON)


def _entry(intent: Intent, layout: Layout) -> HistoryEntry:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    changed = tuple(line for change in intent.changes for line in _lines(layout, change))
    changed += tuple(f"forgot the released range of {name}" for name in intent.ledger.forget)
    return HistoryEntry(at, intent.actor, intent.command, changed)


def _lines(layout: Layout, change: Change) -> Iterable[str]:
    """A file's change in words: the lines that went and came."""
    before, place = change.before or b"", layout.path(change.path)
    for sign, lines in (("-", added_lines(change.after, before)), ("+", added_lines(before, change.after))):
        for line in lines:
            yield f"{place}: {sign} {line.decode('utf-8', 'backslashreplace').strip()}"
