"""What --fix does: restore lines of ours, finish an interrupted run, remove stale locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.formats.subid import PATHS
from usernsplan.layout import LEDGER
from usernsplan.planner.repair import after_mending, make_repair
from usernsplan.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.audit.base import Facts
    from usernsplan.model import Change, Finding, Plan, RecordChange


@dataclass(frozen=True, slots=True)
class Repair:
    """The plan that restores our lines, and all changes of files, an interrupted run's included.

    ``plan`` is None if there is nothing to restore and no run to finish. ``locks`` are the files
    to remove. ``hindered_by`` is a file that has to be repaired by hand first, "" for none.
    """

    plan: Plan | None = None
    changes: tuple[Change, ...] = ()
    mends: bool = False
    locks: tuple[str, ...] = ()
    hindered_by: str = ""

    @property
    def needed(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.changes or self.locks or self.mends or self.records)

    @property
    def records(self) -> tuple[RecordChange, ...]:
        """The records of systemd that are restored."""
        return self.plan.records if self.plan else ()


def repair_of(facts: Facts, found: Iterable[Finding]) -> Repair:
    """What --fix does about these findings."""
    codes = {finding.code for finding in found}
    locks = (
        tuple(lock.path for lock in facts.locks if lock.alive is False) if "USN064" in codes else ()
    )
    if codes.isdisjoint({"USN050", "USN051", "USN054", "USN076"}):
        return Repair(locks=locks)
    # usernsplan does not write through a symlink, and only the ledger says which lines are ours.
    broken = [one.path for one in facts.unread if one.path in {*PATHS.values(), LEDGER}]
    if broken:
        return Repair(locks=locks, hindered_by=broken[0])
    if facts.intent:
        plan, changes = after_mending(facts.state, facts.intent)
        return Repair(plan, changes, mends=True, locks=locks)
    plan = make_repair(facts.state)
    return Repair(plan, plan.changes, locks=locks)
