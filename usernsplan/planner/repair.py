"""check --fix: restore lines that are missing or in another order. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import engine_of_pool
from usernsplan.errors import RefusedError
from usernsplan.escape import shell
from usernsplan.model import ROOT, Change, Plan
from usernsplan.planner import daemon
from usernsplan.planner.grants import Grants
from usernsplan.planner.names import owner_of
from usernsplan.planner.recovery import as_mended, files_of
from usernsplan.planner.stories import advise

if TYPE_CHECKING:
    from usernsplan.model import Allocation, HostState, Intent


def make_repair(state: HostState) -> Plan:
    """Decide which lines are restored; a finding gives the reason for each one that is not."""
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
    steps = (daemon.RESTART,) if daemon.remapped_to(state) in restored else ()
    return Plan(
        "repair",
        changes=grants.changes(),
        restored=tuple(grants.restored),
        findings=(*grants.findings, *left),
        next_steps=steps,
    )


def _refuse_orphan(state: HostState, allocation: Allocation) -> None:
    """Raise RefusedError if the account that owned the lines is gone.

    The next account of that name would get the range.
    """
    usual = allocation.owner in {owner_of(allocation.name), ROOT} or engine_of_pool(allocation)
    if not usual and state.accounts.user(allocation.owner) is None:
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
