"""Make a host of a fleet what the fleet's ledger says of it: the hands of ``sync``.

Whatever the server says, this host decides by its own rules. A wish is a request like that of a
user, and what stands in the way of one stops no other.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan import apply
from usernsplan.audit import check
from usernsplan.audit.base import Facts
from usernsplan.errors import LedgerUnreachableError, LockBusyError, RefusedError, UsernsplanError
from usernsplan.escape import line
from usernsplan.host import config, locks, read
from usernsplan.ledger import open_ledger
from usernsplan.ledger.fleet import of_fleet
from usernsplan.model import AllocateRequest, Plan, Refused, ReleaseRequest, Synced
from usernsplan.planner.allocate import make_plan
from usernsplan.planner.defaults import of_request
from usernsplan.planner.of_hosts import released
from usernsplan.planner.repair import make_repair
from usernsplan.strategies import named

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.layout import Layout
    from usernsplan.ledger.fleet import FleetLedger
    from usernsplan.model import Finding, HostState, Wish

# What a repair leaves to people: other lines of owners of ours, lines that no ledger knows, and Docker's part.
_DRIFT = {"USN052", "USN053", "USN040", "USN041", "USN042", "USN043", "USN044", "USN046"}


def sync(layout: Layout, command: str = "", *, really: bool = True) -> Synced:
    """Bring both ledgers to one state, do what operators ask, and restore lines that are missing.

    Without ``really``, nothing is written, neither here nor on the server. Raises RefusedError on a
    host that is in no fleet or whose ledger comes back with what it refuses, and
    LedgerUnreachableError.
    """
    ledger = of_fleet(layout, "there is nothing to sync")
    seen = ledger.deciding()
    found: list[Finding] = []
    if really and seen.interrupted:
        with locks.subid_locks(layout):
            found += apply.recover(layout, ledger)

    answers = [
        _answered(layout, ledger, wish, command, really=really)
        for wish in (seen.fleet.wishes if seen.fleet else ())
    ]
    done = tuple((wish, one) for wish, one in answers if isinstance(one, Plan))
    refused = tuple(one for _, one in answers if isinstance(one, Refused))

    repair, drift = _repaired(layout, ledger, command, really=really)
    return Synced(done, refused, repair, seen.interrupted, (*found, *drift))


def _answered(
    layout: Layout, ledger: FleetLedger, wish: Wish, command: str, *, really: bool
) -> tuple[Wish, Plan | Refused]:
    """Carry out a wish, or say why not; the server hears it if it is new."""
    try:
        plan = _granted(layout, wish, command, really=really)
    except (LedgerUnreachableError, LockBusyError):
        raise
    except UsernsplanError as error:
        # Names of others are in it, and the server takes no NUL.
        why = line("; ".join(one.strip() for one in error.lines or (str(error),)))
        if really and why != wish.refused:
            ledger.answer(wish, why)
        return wish, Refused(wish, why, error.hint)
    if really:
        ledger.answer(wish)
    return wish, plan


def _granted(layout: Layout, wish: Wish, command: str, *, really: bool) -> Plan:
    """Carry out one wish, or plan it. Raises the error that a user would get who asked for it."""
    if wish.fault:
        raise RefusedError(wish.fault)
    ledger = open_ledger(layout, asked=(wish.name,))
    decide = _decision(layout, wish)
    if really:
        return apply.carry_out(layout, ledger, decide, command)
    return apply.preview(layout, ledger, decide)


def _decision(layout: Layout, wish: Wish) -> Callable[[HostState], Plan]:
    if not wish.strategy:
        return partial(released, request=ReleaseRequest((wish.name,)))
    options: dict[str, int | str] = dict(wish.options)
    request = AllocateRequest(
        (wish.name,), strategy=named(wish.strategy, options), options=options, start=wish.start
    )
    defaults = config.load(layout, None)
    request = of_request(request, defaults) if defaults else request
    return partial(make_plan, request=request)


def _repaired(
    layout: Layout, ledger: FleetLedger, command: str, *, really: bool
) -> tuple[Plan, tuple[Finding, ...]]:
    """The repair of lines and records, and what it leaves for people, as ``check`` finds it."""
    seen: list[HostState] = []

    def decide(state: HostState) -> Plan:
        seen.append(state)
        return make_repair(state)

    if not really:
        plan = apply.preview(layout, ledger, decide)
    else:
        plan = apply.carry_out(layout, ledger, decide, command, look=read.compared)
    is_changed = really and plan.changed
    state = read.state(layout, ledger.state) if is_changed else seen[-1]
    return plan, check(Facts(state=state), _DRIFT)
