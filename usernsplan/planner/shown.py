"""Do exactly what was shown, or nothing. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import HostChangedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.model import HostState, Plan


def exactly(shown: Plan, decide: Callable[[HostState], Plan]) -> Callable[[HostState], Plan]:
    """A decision that equals the shown one; it raises HostChangedError if ``decide`` differs."""

    def decided(state: HostState) -> Plan:
        now = decide(state)
        # Accounts are created first, so the second decision may not need them any more.
        accounts = set(now.account_commands) - set(shown.account_commands)
        if accounts or _done(now) != _done(shown):
            raise changed()
        return now

    return decided


def _done(plan: Plan) -> tuple[object, ...]:
    return plan.changes, plan.ledger, plan.records, plan.accounts_gone


def changed() -> HostChangedError:
    """The error for a decision that is no longer possible as it was shown."""
    return HostChangedError(
        "the host has changed since the plan was shown; nothing was changed",
        hint="run the command again and look at the new plan",
    )
