"""Do what was shown, or nothing. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import HostChangedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.model import HostState, Plan


def exactly(shown: Plan, decide: Callable[[HostState], Plan]) -> Callable[[HostState], Plan]:
    """A decision that is the one that was shown. It raises HostChangedError where ``decide`` comes to another one."""

    def decided(state: HostState) -> Plan:
        now = decide(state)
        # Accounts are made before the rest, and are there when it is decided anew.
        accounts = set(now.account_commands) - set(shown.account_commands)
        if accounts or (now.changes, now.ledger) != (shown.changes, shown.ledger):
            raise changed()
        return now

    return decided


def changed() -> HostChangedError:
    """The error to raise where what was shown can no longer be done."""
    return HostChangedError(
        "the host is no longer what was shown; nothing was changed", hint="look at it again"
    )
