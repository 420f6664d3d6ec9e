"""Carry out a plan on the host: all or nothing.

After a kill at any point the next command repairs the host. The order of the steps guarantees this:
take the locks; write the intent to the ledger, on disk; replace each file whole; write the ledger's
changes and remove the intent, in one transaction. planner.recovery decides what a leftover intent
means.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from usernsplan import noting
from usernsplan.errors import (
    DamagedLedgerError,
    HostChangedError,
    LedgerError,
    MeanwhileTakenError,
    NotPermittedError,
    RefusedError,
    UsernsplanError,
)
from usernsplan.escape import file_line, in_words, shell, shown_path, utf8
from usernsplan.formats.accounts import Accounts
from usernsplan.formats.subid import added_lines
from usernsplan.holdings import has_lines
from usernsplan.host import accounts, files, locks, procfs, read, runs, signals, userdb
from usernsplan.host.unread import homes_unseen
from usernsplan.layout import DAEMON_JSON, LEDGER, SUBGID, SUBUID, USERDB
from usernsplan.ledger import open_ledger
from usernsplan.ledger.fold import fold
from usernsplan.model import (
    DEFAULT_NAME,
    Event,
    Finding,
    HistoryEntry,
    Intent,
    LedgerChange,
    LedgerState,
)
from usernsplan.planner import changes
from usernsplan.planner.publish import records_of
from usernsplan.planner.recovery import as_mended, files_of, mend, undo
from usernsplan.planner.stories import advise
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from usernsplan.harden.policy import Policy
    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.mapping import IdMap
    from usernsplan.model import (
        AdoptRequest,
        AllocateRequest,
        Change,
        HostState,
        Plan,
        Record,
        RecordChange,
        ReleaseRequest,
    )
    from usernsplan.planner.rebuild import Rebuilt
    from usernsplan.planner.recovery import Mended

    Look = Callable[[Layout, Callable[[], LedgerState]], HostState]

T = TypeVar("T")
# Other hosts of a fleet can take the ids of a plan this often before it fails: each time, this host sees what they took.
_ATTEMPTS = 10
# At most this many records are named in one line of the history.
_FEW = 3


def allocate(request: AllocateRequest, root: str = "/", command: str = "") -> Plan:
    """Give containers their ids on the host below ``root``. See ``carry_out``.

    ``command`` is the command that the history will show.
    """
    from usernsplan.planner.allocate import make_plan  # noqa: PLC0415 - most of a start-up

    layout = files.layout_at(root)
    decide = partial(make_plan, request=request)
    ledger = open_ledger(layout, asked=request.names or (DEFAULT_NAME,))
    return carry_out(layout, ledger, decide, command, agreed=request.yes)


def release(request: ReleaseRequest, root: str = "/", command: str = "") -> Plan:
    """Release allocations or forget quarantined ranges below ``root``. See ``carry_out``.

    This does not check whether files carry the ids of a forgotten range; volume.forget does.
    """
    from usernsplan.planner.release import make_release  # noqa: PLC0415 - see above

    layout = files.layout_at(root)
    ledger = open_ledger(layout, asked=request.names if request.forget else ())
    return carry_out(layout, ledger, partial(make_release, request=request), command)


def rename(old: str, new: str, root: str = "/", command: str = "") -> Plan:
    """Give an allocation below ``root`` another name. See ``carry_out`` and planner.rename."""
    layout = files.layout_at(root)
    ledger = open_ledger(layout, asked=(old, new))
    return carry_out(layout, ledger, renaming(layout, ledger, old, new), command)


def harden(name: str, policy: Policy | None, root: str = "/", command: str = "") -> Plan:
    """Give an allocation below ``root`` a policy; None takes it away. See ``carry_out``.

    Only the ledger changes: what enforces a policy is in what ``render`` makes for an engine.
    """
    from usernsplan.planner.harden import make_harden  # noqa: PLC0415 - see above

    layout = files.layout_at(root)
    decide = partial(make_harden, name=name, policy=policy)
    return carry_out(layout, open_ledger(layout), decide, command)


def renaming(layout: Layout, ledger: Ledger, old: str, new: str) -> Callable[[HostState], Plan]:
    """The decision to rename. It looks at the runs of fix-volume whenever it is asked."""
    from usernsplan.planner.rename import make_rename  # noqa: PLC0415 - most commands rename nothing

    def decide(state: HostState) -> Plan:
        renames = (*ledger.renames(), *foreseen_event(state, ledger))
        return make_rename(state, old, new, runs.every(layout), renames)

    return decide


def foreseen_event(state: HostState, ledger: Ledger) -> tuple[Event, ...]:
    """The event that the repair of an interrupted command will note, for a state that has it already.

    Only previews have such a state: see ``foreseen``.
    """
    intent = None if state.ledger.interrupted else ledger.pending()
    if intent is None or not mend(intent, files_of(state)).completed:
        return ()
    return (Event(state.ledger.number, "", intent.ledger),)


def adopt(request: AdoptRequest, root: str = "/", command: str = "") -> Plan:
    """Take over what stands below ``root``; only the ledger changes. See ``carry_out``."""
    layout = files.layout_at(root)
    return carry_out(layout, open_ledger(layout), partial(adopting, request=request), command)


def adopting(state: HostState, request: AdoptRequest) -> Plan:
    """Decide one ``adopt`` on the host together with the configurations of its containers."""
    from usernsplan.planner.adopt import make_adopt  # noqa: PLC0415 - most commands adopt nothing

    seen, missed = read.with_configs(state)
    plan = make_adopt(seen, request)
    notes = tuple(advise("USN165", note) for note in homes_unseen(missed))
    return replace(plan, findings=(*notes, *plan.findings))


def preview(layout: Layout, ledger: Ledger, decide: Callable[[HostState], Plan]) -> Plan:
    """The plan that would be carried out now. Writes nothing and takes no lock."""
    plan, notes, unseen = foreseen(layout, ledger, decide)
    refuse_clashes(layout, ledger, plan.ledger)
    return replace(plan, findings=(*notes, *plan.findings), unseen=unseen)


def foreseen(
    layout: Layout, ledger: Ledger, decide: Callable[[HostState], T]
) -> tuple[T, tuple[Finding, ...], tuple[str, ...]]:
    """Decide on the host as it will be after the repair of an interrupted command.

    Returns the decision, a finding about that repair, and notes about what only root may read;
    errors get the same note.
    """
    return twice(partial(_foreseen, layout, ledger, decide))


def _foreseen(
    layout: Layout, ledger: Ledger, decide: Callable[[HostState], T]
) -> tuple[T, tuple[Finding, ...], tuple[str, ...]]:
    state = read.looked_at(read.previewed(layout, ledger.deciding))
    unseen = tuple(one.note for one in state.unseen)
    intent = ledger.pending() if state.ledger.interrupted else None
    if intent is None:
        return decide(state), (), unseen

    message = (
        f"{_interrupted(intent)}, or is still running; it is repaired before anything else is done"
    )
    try:
        return decide(as_mended(state, intent)), (advise("USN114", message),), unseen
    except UsernsplanError as error:
        error.notes = (message,)
        raise


def carry_out(  # noqa: PLR0913 - what is decided, and what it is decided from
    layout: Layout,
    ledger: Ledger,
    decide: Callable[[HostState], Plan],
    command: str = "",
    *,
    agreed: bool = False,
    look: Look = read.state,
) -> Plan:
    """Decide and carry out. If nothing changes, no lock is taken and no file is written.

    If the host has changed until the locks are held, ``decide`` runs again on the host as it is
    then, so that commands at the same time follow one another instead of failing. ``look`` reads
    the host; a repair has to see more of it.

    Raises RefusedError for a plan with consequences unless the user ``agreed``, what ``decide``
    raises, LockBusyError, and the errors of files and ledger. After an error the files are as
    before; if even that could not be written, the next command repairs them.
    """
    findings: list[Finding] = []
    try:
        seen, plan = twice(partial(_decided, layout, ledger, decide, findings, look))
        _refuse_unasked(plan, command, agreed=agreed)
        if plan.changed:
            # Before the locks, because useradd takes them itself. If a later step fails, an account
            # without a range is harmless.
            for words in plan.account_commands:
                accounts.add(layout, words)
                made = f"created a required account: {shell(*layout.account_command(words))}"
                findings.append(advise("USN115", made))
            with _locked(layout, ledger, findings, look) as state:
                if state != seen:
                    plan = decide(state)
                    _refuse_unasked(plan, command, agreed=agreed)
                if plan.account_commands:
                    raise HostChangedError(
                        f"another program removed the account {plan.account_commands[0][-1]}"
                    )
                if plan.changed:
                    plan = _committed(layout, ledger, plan, command, decide, look)
                seen = state
            # After the locks, because userdel takes them itself.
            findings += _without_accounts(layout, plan)
        publish(ledger, seen)
    except UsernsplanError as error:
        error.notes = tuple(finding.message for finding in findings)
        raise
    return replace(plan, findings=(*findings, *plan.findings))


def _committed(  # noqa: PLR0913, PLR0917 - as carry_out
    layout: Layout,
    ledger: Ledger,
    plan: Plan,
    command: str,
    decide: Callable[[HostState], Plan],
    look: Look,
) -> Plan:
    """Carry a plan out; returns it. If another host of the fleet takes its ids, decide again."""
    for left in reversed(range(_ATTEMPTS)):
        try:
            commit(layout, ledger, plan, command)
            break
        except MeanwhileTakenError:
            again = decide(look(layout, ledger.deciding))
            if not left or not again.changed or again.consequences != plan.consequences:
                raise
            plan = again
    return plan


def _decided(
    layout: Layout,
    ledger: Ledger,
    decide: Callable[[HostState], Plan],
    findings: list[Finding],
    look: Look,
) -> tuple[HostState, Plan]:
    state = look(layout, ledger.deciding)
    if state.ledger.interrupted:
        # A command was killed or is still running, so the state may be half of its change.
        with _locked(layout, ledger, findings, look) as state:
            pass
    plan = decide(state)
    refuse_clashes(layout, ledger, plan.ledger)
    return state, plan


def publish(ledger: Ledger, state: HostState) -> None:
    """Tell the fleet which ids the host has of its own. What cannot be told now, the next run tells."""
    if state.ledger.fleet is not None:
        from usernsplan.claims.of_host import own  # noqa: PLC0415 - only in a fleet

        with suppress(UsernsplanError):
            ledger.publish(own(state))


def refuse_clashes(layout: Layout, ledger: Ledger, change: LedgerChange) -> None:
    """Raise RefusedError if a change gives this host names or ids that other hosts of its fleet have.

    A decision avoids what others have where it chooses; a new name for old ids, or lines that stand,
    leave no choice. What others take meanwhile, ``begin`` finds.
    """
    if change != LedgerChange() and (clashes := ledger.clashes(change)):
        from usernsplan.planner.in_fleet import refused  # noqa: PLC0415 - only in a fleet

        raise refused(clashes, layout)


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
        keep = "; --no-daemon-config, or naming containers, leaves daemon.json unchanged"
        keep = "" if plan.kind == "remap" else keep
        raise RefusedError(
            "; ".join(one.message for one in plan.consequences),
            hint=f"{again} accepts this{keep}",
        )


@contextmanager
def _locked(
    layout: Layout, ledger: Ledger, findings: list[Finding], look: Look
) -> Iterator[HostState]:
    """Take the locks, repair an interrupted command, and read the host again."""
    with locks.subid_locks(layout):
        findings += recover(layout, ledger)
        yield look(layout, ledger.deciding)


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
    entry = _entry(intent, layout, plan.records, ledger, plan.adopted)
    with signals.held():
        ledger.begin(intent)
        try:
            # A range is seen before it is granted, and until it is granted no more.
            userdb.publish(layout, _records(plan, "+"))
            files.write(
                layout,
                {change.path: change.after for change in plan.changes},
                backup=(SUBUID, SUBGID),
            )
            userdb.withdraw(layout, _records(plan, "-"), _records(plan, "+"))
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
            failed = type(error) if isinstance(error, LedgerError) else LedgerError
            raise failed(str(error), hint=later) from error
        noting.logged(layout, entry)


def _records(plan: Plan, sign: str) -> Iterator[Record]:
    return (one.record for one in plan.records if one.sign == sign)


def _without_accounts(layout: Layout, plan: Plan) -> Iterator[Finding]:
    """Remove the accounts that publish nothing any more; a finding for each that stays."""
    for record in plan.accounts_gone:
        try:
            accounts.remove(layout, record)
        except UsernsplanError as error:  # noqa: PERF203 - the others go nevertheless
            yield advise("USN153", f"the account {record.name} stays: {error}", error.hint)


def _put_back(layout: Layout, ledger: Ledger, intent: Intent) -> None:
    _write(layout, undo(intent, _all_now(layout, intent)), intent)
    _mend_records(layout, ledger, intent, completed=False)
    entry = replace(_entry(intent, layout), changed=("failed, and put back",))
    ledger.put_back(entry)
    noting.logged(layout, entry)


def recover(layout: Layout, ledger: Ledger) -> tuple[Finding, ...]:
    """Under the locks: complete an interrupted command or restore the files; return a finding."""
    with signals.held():
        agreed = tuple(advise("USN114", note) for note in ledger.agree())
    intent = ledger.pending()
    if intent is None:
        return agreed
    with signals.held():
        mended = mend(intent, _all_now(layout, intent))
        _write(layout, mended, intent)
        _mend_records(layout, ledger, intent, completed=mended.completed)
        entry = _entry(intent, layout, ledger=ledger)
        if mended.completed:
            ledger.complete(entry)
        else:
            entry = replace(entry, changed=("interrupted, and put back",))
            ledger.put_back(entry)
        noting.logged(layout, entry)
    what = "completed" if mended.completed else "put back"
    return (*agreed, advise("USN114", f"{_interrupted(intent)}; it is now {what}"))


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
        noting.logged(layout, entry)
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
    for closed in state.unseen:
        raise NotPermittedError(closed.note)
    return replace(state, ledger=ledger.salvage() if ledger.exists() else LedgerState())


def _interrupted(intent: Intent) -> str:
    shown = f" ({in_words(intent.command)})" if intent.command else ""
    return f"a command was interrupted{shown}"


def _write(layout: Layout, mended: Mended, intent: Intent) -> None:
    files.write(layout, {change.path: change.after for change in mended.changes})
    for path in mended.removals:
        files.remove(layout, path)
    files.discard_unfinished(layout, tuple(change.path for change in intent.changes))


def _mend_records(layout: Layout, ledger: Ledger, intent: Intent, *, completed: bool) -> None:
    """Bring the records that an intent changes to their state after it, or before it."""
    state = ledger.state()
    done = fold(state, Event(state.number + 1, "", intent.ledger))
    before, after = {*records_of(state.allocations)}, {*records_of(done.allocations)}
    come, gone = sorted(after - before), sorted(before - after)
    stay, go = (come, gone) if completed else (gone, come)
    userdb.publish(layout, stay, strict=False)
    userdb.withdraw(layout, go, stay)
    userdb.discard_unfinished(layout)


def _all_now(layout: Layout, intent: Intent) -> dict[str, bytes | None]:
    return {change.path: _now(layout, change.path) for change in intent.changes}


def _now(layout: Layout, path: str) -> bytes | None:
    return files.read(layout, path, follow=path == DAEMON_JSON)


def _entry(
    intent: Intent,
    layout: Layout,
    records: Sequence[RecordChange] = (),
    ledger: Ledger | None = None,
    adopted: Collection[str] = (),
) -> HistoryEntry:
    """The entry of the history; ``ledger`` is as it is before the event.

    ``adopted`` are the names of those that stood before, as far as that is known.
    """
    # The lines of files are many, and the first lines are read.
    told = _told(intent, layout, ledger) if ledger and changes.is_told(intent.ledger) else ()
    changed = tuple(map(utf8, told))
    changed += tuple(utf8(line) for change in intent.changes for line in _lines(layout, change))
    changed += tuple(shown_records(records, layout))
    if not (intent.changes or records):
        changed += tuple(f"released {name}; no line was removed" for name in intent.ledger.remove)
    is_silent = not (intent.changes or records)
    for a in intent.ledger.add:
        ids = f"uids {_ids(a.mapping.uids)}, gids {_ids(a.mapping.gids)}"
        if a.name in adopted or (is_silent and has_lines(a)):
            changed += (f"adopted {a.name} as it stands: {ids}",)
        elif a.within:
            changed += (f"allocated {a.name} within {utf8(a.within)}: {ids}",)
        elif not has_lines(a):
            changed += (f"allocated {a.name} without lines: {ids}",)
    changed += tuple(f"forgot the quarantined range of {name}" for name in intent.ledger.forget)
    back = {a.name for a in intent.ledger.add}
    changed += tuple(
        f"{name} has {ids} again" if name in back else f"forgot {ids}, quarantined for {name}"
        for name, ids in intent.ledger.unkeep
    )
    changed += tuple(map(utf8, changes.of_volumes(intent.ledger)))
    changed += tuple(f"reserved {r.ids}: {shown_path(r.why)}" for r in intent.ledger.reserve)
    changed += tuple(f"no longer reserved: {ids}" for ids in intent.ledger.unreserve)
    return HistoryEntry(noting.now(), intent.actor, intent.command, changed)


def _told(intent: Intent, layout: Layout, ledger: Ledger) -> Iterable[str]:
    """What neither a file nor a command says: new names and maps, and whose ids pass."""
    known = Accounts()
    shown = [one for a in (*intent.ledger.add, *intent.ledger.update) for one in a.passes]
    # The event counts, whether its ids have names or not.
    with suppress(UsernsplanError):
        known = accounts.naming(layout, shown) if shown else known
    return changes.lines(intent.ledger, ledger.state(), known)


def shown_records(records: Sequence[RecordChange], layout: Layout) -> Iterator[str]:
    """One line for all records that come, and one for all that go."""
    for sign in ("+", "-"):
        names = [utf8(one.record.name) for one in records if one.sign == sign]
        more = f" and {len(names) - _FEW} more" if names[_FEW:] else ""
        if names:
            yield f"{layout.path(USERDB)}: {sign} {', '.join(names[:_FEW])}{more}"


def _ids(ids: IdMap) -> str:
    return ", ".join(map(str, ids.host_ranges()))


def _lines(layout: Layout, change: Change) -> Iterable[str]:
    """The lines that a change removes ("-") and adds ("+"), with the file's path in front."""
    before, place = change.before or b"", layout.path(change.path)
    for sign, lines in (
        ("-", added_lines(change.after, before)),
        ("+", added_lines(before, change.after)),
    ):
        for line in lines:
            yield f"{place}: {sign} {file_line(line)}"
