"""Make a host of a fleet what the fleet's ledger says of it: the hands of ``sync``.

Whatever the server says, this host decides by its own rules. A wish is a request like that of a
user, and what stands in the way of one stops no other.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan import apply
from usernsplan.errors import LedgerUnreachableError, LockBusyError, RefusedError, UsernsplanError
from usernsplan.host import locks, read
from usernsplan.ledger import open_ledger
from usernsplan.ledger.fleet import FleetLedger
from usernsplan.model import AllocateRequest, Refused, ReleaseRequest, Synced
from usernsplan.planner.allocate import make_plan
from usernsplan.planner.release import make_release
from usernsplan.planner.repair import make_repair
from usernsplan.strategies import named

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.layout import Layout
    from usernsplan.model import Finding, HostState, Plan, Wish


def sync(layout: Layout, command: str = "", *, really: bool = True) -> Synced:
    """Bring both ledgers to one state, do what operators ask, and restore lines that are missing.

    Without ``really``, nothing is written. Raises RefusedError on a host that is in no fleet, and
    LedgerUnreachableError.
    """
    ledger = _of_fleet(layout)
    seen = ledger.deciding()
    found: list[Finding] = []
    if really and seen.interrupted:
        with locks.subid_locks(layout):
            found += apply.recover(layout, ledger)

    done, refused = [], []
    for wish in seen.fleet.wishes if seen.fleet else ():
        try:
            done.append((wish, _granted(layout, wish, command, really=really)))
            if really:
                ledger.answer(wish)
        except (LedgerUnreachableError, LockBusyError):
            raise
        except UsernsplanError as error:
            refused.append(Refused(wish, str(error), error.hint))
            if really:
                ledger.answer(wish, str(error))

    look = read.compared
    if really:
        repair = apply.carry_out(layout, ledger, make_repair, command, look=look)
    else:
        repair = apply.preview(layout, ledger, make_repair)
    return Synced(tuple(done), tuple(refused), repair, seen.interrupted, tuple(found))


def _granted(layout: Layout, wish: Wish, command: str, *, really: bool) -> Plan:
    """Carry out one wish, or plan it. Raises the error that a user would get who asked for it."""
    ledger = open_ledger(layout, asked=(wish.name,))
    decide = _decision(wish)
    if really:
        return apply.carry_out(layout, ledger, decide, command)
    return apply.preview(layout, ledger, decide)


def _decision(wish: Wish) -> Callable[[HostState], Plan]:
    if not wish.strategy:
        return partial(_released, name=wish.name)
    options: dict[str, int | str] = dict(wish.options)
    request = AllocateRequest((wish.name,), strategy=named(wish.strategy, options), options=options)
    return partial(make_plan, request=request)


def _released(state: HostState, name: str) -> Plan:
    """The release of a name; nothing if this host does not have it."""
    known = {a.name for a in state.ledger.allocations}
    from usernsplan.model import Plan  # noqa: PLC0415 - a value, for a host that has nothing to do

    return make_release(state, ReleaseRequest((name,))) if name in known else Plan("release")


def _of_fleet(layout: Layout) -> FleetLedger:
    ledger = open_ledger(layout)
    if not isinstance(ledger, FleetLedger):
        raise RefusedError(
            "this host is in no fleet, so there is nothing to sync",
            hint=f"{layout.inline('ledger join URL')} joins one",
        )
    return ledger
