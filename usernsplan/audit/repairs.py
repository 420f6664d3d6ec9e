"""What --fix would do about findings: lines of ours, an interrupted run, locks that nobody holds. Nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from usernsplan.formats.subid import PATHS
from usernsplan.layout import LEDGER
from usernsplan.planner.repair import after_mending, make_repair

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.audit.base import Facts
    from usernsplan.model import Change, Finding, Plan


@dataclass(frozen=True, slots=True)
class Repair:
    """What would be done: the plan of what is put back, and the files' whole changes, those of mending a run too.

    ``plan`` is None where nothing is to be put back or mended, ``locks`` are to be removed. ``hindered_by`` is a file
    that has to be put in order first, "" for none.
    """

    plan: Plan | None = None
    changes: tuple[Change, ...] = ()
    mends: bool = False
    locks: tuple[str, ...] = ()
    hindered_by: str = ""

    @property
    def needed(self) -> bool:
        """Tell whether anything would be done."""
        return bool(self.changes or self.locks or self.mends)


def repair_of(facts: Facts, found: Iterable[Finding]) -> Repair:
    """What is to be done about these findings."""
    codes = {finding.code for finding in found}
    locks = (
        tuple(lock.path for lock in facts.locks if lock.alive is False) if "USN064" in codes else ()
    )
    if codes.isdisjoint({"USN050", "USN051", "USN054"}):
        return Repair(locks=locks)
    # Behind a symlink nothing is written, and without its ledger nobody knows what is ours.
    broken = [one.path for one in facts.unread if one.path in {*PATHS.values(), LEDGER}]
    if broken:
        return Repair(locks=locks, hindered_by=broken[0])
    if facts.intent:
        plan, changes = after_mending(facts.state, facts.intent)
        return Repair(plan, changes, mends=True, locks=locks)
    plan = make_repair(facts.state)
    return Repair(plan, plan.changes, locks=locks)
