"""check --fix: restore lines that are missing or in another order, and lost records. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import engine_of_pool
from usernsplan.errors import RefusedError
from usernsplan.escape import shell
from usernsplan.formats import userdb
from usernsplan.layout import USERDB
from usernsplan.model import OWN_PREFIX, ROOT, Change, Plan
from usernsplan.planner import daemon
from usernsplan.planner.directory import with_owners
from usernsplan.planner.grants import Grants
from usernsplan.planner.names import has_default_owner
from usernsplan.planner.publish import changes
from usernsplan.planner.recovery import as_mended, files_of
from usernsplan.planner.stories import advise

if TYPE_CHECKING:
    from usernsplan.model import Allocation, Finding, HostState, Intent, RecordChange


def make_repair(state: HostState) -> Plan:
    """Decide which lines and records are restored; a finding gives the reason for each one that is not."""
    owners = (a.owner for a in state.ledger.allocations if not a.owner.startswith(OWN_PREFIX))
    state = with_owners(state, owners)
    grants, left, restored = Grants(state), [], set()
    # The lowest come first, so that the next useradd, which sorts the file, moves none of ours.
    for allocation in sorted(state.ledger.allocations, key=lambda a: a.mapping.uids[0].host):
        before = len(grants.findings)
        try:
            if not grants.has_exactly(allocation):
                _refuse_orphan(state, allocation)
            grants.restore(allocation)
        except RefusedError as error:
            left.append(advise("USN126", f"not restored: {error}", error.hint))
        if len(grants.findings) > before:
            restored.add(allocation.owner)
    try:
        grants.keep_instances()
    except RefusedError as error:
        return Plan("repair", findings=(advise("USN126", f"not restored: {error}", error.hint),))
    records, foreign = _records(state)
    steps = (daemon.RESTART,) if daemon.remapped_to(state) in restored else ()
    return Plan(
        "repair",
        changes=grants.changes(),
        restored=tuple(grants.restored),
        findings=(*grants.findings, *left, *foreign),
        next_steps=steps,
        records=records,
    )


def _records(state: HostState) -> tuple[tuple[RecordChange, ...], tuple[Finding, ...]]:
    """The records that are restored, and a finding for each that somebody else's takes the place of."""
    lacking = changes(state.userdb, (), state.ledger.allocations)
    files = {one: userdb.in_the_way(one.record, state.userdb.others) for one in lacking}
    return tuple(one for one in lacking if not files[one]), tuple(
        advise(
            "USN126",
            f"not restored: somebody else wrote {state.layout.path(f'{USERDB}/{file}')}, "
            f"where the record of {one.record.name} was",
            "remove it, and run this command again",
        )
        for one, file in files.items()
        if file
    )


def _refuse_orphan(state: HostState, allocation: Allocation) -> None:
    """Raise RefusedError if the account that owned the lines is gone.

    The next account of that name would get the range.
    """
    is_ours = has_default_owner(allocation) or allocation.owner == ROOT
    usual = is_ours or engine_of_pool(allocation)
    if usual or state.accounts.user(allocation.owner):
        return
    if doubt := state.accounts.doubt(allocation.owner):
        raise RefusedError(doubt, hint="run 'usernsplan check --fix' on that host")
    raise RefusedError(
        f"{allocation.owner}, the owner of the lines of '{allocation.name}', is no longer an account",
        hint="create the account, or run "
        f"{state.layout.inline(f'release {shell(allocation.name)}')}",
    )


def after_mending(state: HostState, intent: Intent) -> tuple[Plan, tuple[Change, ...]]:
    """The repair of a host after an interrupted command, and all changes, with its mending."""
    mended = as_mended(state, intent)
    plan = make_repair(mended)
    now, then = files_of(state), files_of(mended)
    then |= {change.path: change.after for change in plan.changes}
    return plan, tuple(
        Change(path, now[path], then[path] or b"") for path in now if now[path] != then[path]
    )
