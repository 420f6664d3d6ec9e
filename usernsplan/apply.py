"""Carry out a plan on the host: all or nothing.

After a kill at any point the next command repairs the host. The order of the steps guarantees this:
take the locks; write the intent to the ledger, on disk; replace each file whole; write the ledger's
changes and remove the intent, in one transaction. planner.recovery decides what a leftover intent
means.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from usernsplan.errors import (
    DamagedLedgerError,
    HostChangedError,
    LedgerError,
    RefusedError,
    UsernsplanError,
)
from usernsplan.escape import file_line, in_words, shell, shown_path, utf8
from usernsplan.formats.subid import added_lines
from usernsplan.host import accounts, files, locks, log, procfs, read, signals
from usernsplan.layout import DAEMON_JSON, LEDGER, SUBGID, SUBUID
from usernsplan.ledger import open_ledger
from usernsplan.model import Finding, HistoryEntry, Intent, LedgerState
from usernsplan.planner import make_plan, make_release
from usernsplan.planner.recovery import as_mended, mend, undo
from usernsplan.planner.stories import advise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import AllocateRequest, Change, HostState, Plan, ReleaseRequest
    from usernsplan.planner.rebuild import Rebuilt
    from usernsplan.planner.recovery import Mended

T = TypeVar("T")


def allocate(request: AllocateRequest, root: str = "/", command: str = "") -> Plan:
    """Give containers their ids on the host below ``root``. See ``carry_out``.

    ``command`` is the command that the history will show.
    """
    layout = files.layout_at(root)
    decide = partial(make_plan, request=request)
    return carry_out(layout, open_ledger(layout), decide, command, agreed=request.yes)


def release(request: ReleaseRequest, root: str = "/", command: str = "") -> Plan:
    """Release allocations or forget quarantined ranges below ``root``. See ``carry_out``.

    This does not check whether files carry the ids of a forgotten range; volume.forget does.
    """
    layout = files.layout_at(root)
    return carry_out(layout, open_ledger(layout), partial(make_release, request=request), command)


def preview(layout: Layout, ledger: Ledger, decide: Callable[[HostState], Plan]) -> Plan:
    """The plan that would be carried out now. Writes nothing and takes no lock."""
    plan, notes = foreseen(layout, ledger, decide)
    return replace(plan, findings=(*notes, *plan.findings))


def foreseen(
    layout: Layout, ledger: Ledger, decide: Callable[[HostState], T]
) -> tuple[T, tuple[Finding, ...]]:
    """Decide on the host as it will be after the repair of an interrupted command.

    Returns the decision, and a finding about that repair; errors get the same note.
    """
    return twice(partial(_foreseen, layout, ledger, decide))


def _foreseen(
    layout: Layout, ledger: Ledger, decide: Callable[[HostState], T]
) -> tuple[T, tuple[Finding, ...]]:
    state = read.looked_at(read.state(layout, ledger.state))
    intent = ledger.pending() if state.ledger.interrupted else None
    if intent is None:
        return decide(state), ()

    message = (
        f"{_interrupted(intent)}, or is still running; it is repaired before anything else is done"
    )
    try:
        return decide(as_mended(state, intent)), (advise("USN114", message),)
    except UsernsplanError as error:
        error.notes = (message,)
        raise


def carry_out(
    layout: Layout,
    ledger: Ledger,
    decide: Callable[[HostState], Plan],
    command: str = "",
    *,
    agreed: bool = False,
) -> Plan:
    """Decide and carry out. If nothing changes, no lock is taken and no file is written.

    If the host has changed until the locks are held, ``decide`` runs again on the host as it is
    then, so that commands at the same time follow one another instead of failing.

    Raises RefusedError for a plan with consequences unless the user ``agreed``, what ``decide``
    raises, LockBusyError, and the errors of files and ledger. After an error the files are as
    before; if even that could not be written, the next command repairs them.
    """
    findings: list[Finding] = []
    try:
        seen, plan = twice(partial(_decided, layout, ledger, decide, findings))
        _refuse_unasked(plan, command, agreed=agreed)
        if plan.changed:
            # Before the locks, because useradd takes them itself. If a later step fails, an account
            # without a range is harmless.
            for words in plan.account_commands:
                accounts.add(layout, words)
                made = f"created a required account: {shell(*layout.account_command(words))}"
                findings.append(advise("USN115", made))
            with _locked(layout, ledger, findings) as state:
                if state != seen:
                    plan = decide(state)
                    _refuse_unasked(plan, command, agreed=agreed)
                if plan.account_commands:
                    raise HostChangedError(
                        f"another program removed the account {plan.account_commands[0][-1]}"
                    )
                if plan.changed:
                    commit(layout, ledger, plan, command)
    except UsernsplanError as error:
        error.notes = tuple(finding.message for finding in findings)
        raise
    return replace(plan, findings=(*findings, *plan.findings))


def _decided(
    layout: Layout,
    ledger: Ledger,
    decide: Callable[[HostState], Plan],
    findings: list[Finding],
) -> tuple[HostState, Plan]:
    state = read.state(layout, ledger.state)
    if state.ledger.interrupted:
        # A command was killed or is still running, so the state may be half of its change.
        with _locked(layout, ledger, findings) as state:
            pass
    return state, decide(state)


def twice(attempt: Callable[[], T]) -> T:
    """Attempt again what failed without locks.

    The files are read before the ledger. If another command reverts its change in between, there
    are lines that the ledger never had, and the error would blame the user for them.
    """
    try:
        return attempt()
    except UsernsplanError:
        return attempt()


def _refuse_unasked(plan: Plan, command: str, *, agreed: bool) -> None:
    """Raise RefusedError for a plan with consequences to which the user did not agree."""
    if plan.changed and plan.consequences and not agreed:
        again = in_words(f"{command} --yes") if command else "yes=True"
        raise RefusedError(
            "; ".join(one.message for one in plan.consequences),
            hint=f"{again} accepts this; --no-daemon-config, or naming containers, "
            "leaves daemon.json unchanged",
        )


@contextmanager
def _locked(layout: Layout, ledger: Ledger, findings: list[Finding]) -> Iterator[HostState]:
    """Take the locks, repair an interrupted command, and read the host again."""
    with locks.subid_locks(layout):
        findings += recover(layout, ledger)
        yield read.state(layout, ledger.state)


def commit(layout: Layout, ledger: Ledger, plan: Plan, command: str) -> None:
    """Carry out a plan, under the locks.

    Raises HostChangedError if a file differs from the one that the plan was made from, and the
    errors of files and ledger.
    """
    for change in plan.changes:
        if _now(layout, change.path) != change.before:
            raise HostChangedError(
                f"another program changed {layout.path(change.path)} at the same time"
            )

    intent = Intent(utf8(command), procfs.actor(), plan.ledger, plan.changes)
    entry = _entry(intent, layout)
    with signals.held():
        ledger.begin(intent)
        try:
            files.write(
                layout,
                {change.path: change.after for change in plan.changes},
                backup=(SUBUID, SUBGID),
            )
        except BaseException:
            # If this fails too, the next command repairs the files. Report the first error.
            with suppress(UsernsplanError):
                _put_back(layout, ledger, intent)
            raise
        try:
            ledger.complete(entry)
        except UsernsplanError as error:
            later = (
                "everything else is done; the next usernsplan command that can write the ledger "
                "completes it"
            )
            raise LedgerError(str(error), hint=later) from error
        _log(layout, entry)


def _put_back(layout: Layout, ledger: Ledger, intent: Intent) -> None:
    _write(layout, undo(intent, _all_now(layout, intent)), intent)
    entry = replace(_entry(intent, layout), changed=("failed, and put back",))
    ledger.put_back(entry)
    _log(layout, entry)


def recover(layout: Layout, ledger: Ledger) -> tuple[Finding, ...]:
    """Under the locks: complete an interrupted command or restore the files; return a finding."""
    intent = ledger.pending()
    if intent is None:
        return ()
    with signals.held():
        mended = mend(intent, _all_now(layout, intent))
        _write(layout, mended, intent)
        entry = _entry(intent, layout)
        if mended.completed:
            ledger.complete(entry)
        else:
            entry = replace(entry, changed=("interrupted, and put back",))
            ledger.put_back(entry)
        _log(layout, entry)
    what = "completed" if mended.completed else "put back"
    return (advise("USN114", f"{_interrupted(intent)}; it is now {what}"),)


def rebuild(  # noqa: PLR0913 - what is shown, and how it is done
    layout: Layout,
    ledger: Ledger,
    decide: Callable[[HostState], Rebuilt],
    command: str = "",
    *,
    expected: Rebuilt | None = None,
    really: bool,
) -> tuple[Rebuilt, str | None]:
    """Replace a lost ledger with a new one; unless ``really``, only return what it would hold.

    Also returns the path to which the old ledger was moved, or None. Raises RefusedError if the
    ledger can be read, and HostChangedError if the result differs from ``expected``, which the
    user was shown.
    """
    _refuse_readable(layout, ledger)
    if not really:
        return decide(_without_ledger(layout, ledger)), None
    with locks.subid_locks(layout), signals.held():
        _refuse_readable(layout, ledger)
        rebuilt = decide(_without_ledger(layout, ledger))
        if expected not in {None, rebuilt}:
            raise HostChangedError("the host changed since this was shown")
        names = ", ".join(a.name for a in rebuilt.change.add) or "nothing"
        changed = (f"the ledger was lost, and rebuilt from other files: {names}",)
        intent = Intent(utf8(command), procfs.actor(), rebuilt.change, ())
        entry = _entry(intent, layout)
        entry = replace(entry, changed=(*changed, *entry.changed))
        kept = ledger.rebuild(rebuilt.change, entry)
        _log(layout, entry)
    return rebuilt, kept


def _refuse_readable(layout: Layout, ledger: Ledger) -> None:
    try:
        ledger.state()
        ledger.pending()
        ledger.history()
    except DamagedLedgerError:
        return
    if ledger.exists():
        raise RefusedError(
            f"{ledger.place} can be read: there is nothing to rebuild",
            hint=f"{layout.inline('list')} shows what it holds, and {layout.inline('check')} "
            "what is wrong with it",
        )


def _without_ledger(layout: Layout, ledger: Ledger) -> HostState:
    """The host without its ledger. Raises the error of any other file that cannot be read."""
    state, unread = read.what_can_be_read(layout, ledger.state)
    # A ledger that is rebuilt from only some of the files would be wrong.
    for one in unread:
        if one.path != LEDGER:
            raise one.error
    return replace(state, ledger=ledger.salvage() if ledger.exists() else LedgerState())


def _interrupted(intent: Intent) -> str:
    shown = f" ({in_words(intent.command)})" if intent.command else ""
    return f"a command was interrupted{shown}"


def _write(layout: Layout, mended: Mended, intent: Intent) -> None:
    files.write(layout, {change.path: change.after for change in mended.changes})
    for path in mended.removals:
        files.remove(layout, path)
    files.discard_unfinished(layout, tuple(change.path for change in intent.changes))


def _all_now(layout: Layout, intent: Intent) -> dict[str, bytes | None]:
    return {change.path: _now(layout, change.path) for change in intent.changes}


def _now(layout: Layout, path: str) -> bytes | None:
    return files.read(layout, path, follow=path == DAEMON_JSON)


def _entry(intent: Intent, layout: Layout) -> HistoryEntry:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    changed = tuple(utf8(line) for change in intent.changes for line in _lines(layout, change))
    if not intent.changes:
        changed += tuple(f"released {name}; no line was removed" for name in intent.ledger.remove)
    changed += tuple(f"forgot the quarantined range of {name}" for name in intent.ledger.forget)
    back = {a.name for a in intent.ledger.add}
    changed += tuple(
        f"{name} has {ids} again" if name in back else f"forgot {ids}, quarantined for {name}"
        for name, ids in intent.ledger.unkeep
    )
    changed += tuple(
        f"volume {shown_path(v.path)} now belongs to {v.name} ({v.mode})"
        for v in intent.ledger.volumes
    )
    changed += tuple(f"reserved {r.ids}: {shown_path(r.why)}" for r in intent.ledger.reserve)
    changed += tuple(f"no longer reserved: {ids}" for ids in intent.ledger.unreserve)
    changed += tuple(
        f"volume {shown_path(path)} no longer belongs to a container"
        for path in intent.ledger.no_volumes
    )
    return HistoryEntry(at, intent.actor, intent.command, changed)


def _lines(layout: Layout, change: Change) -> Iterable[str]:
    """The lines that a change removes ("-") and adds ("+"), with the file's path in front."""
    before, place = change.before or b"", layout.path(change.path)
    for sign, lines in (
        ("-", added_lines(change.after, before)),
        ("+", added_lines(before, change.after)),
    ):
        for line in lines:
            yield f"{place}: {sign} {file_line(line)}"


def _log(layout: Layout, entry: HistoryEntry) -> None:
    log.changed(
        layout, (f"{line} (uid {entry.actor.uid}: {entry.command})" for line in entry.changed)
    )
