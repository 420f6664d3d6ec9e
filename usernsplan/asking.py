"""Ask other hosts of a fleet to allocate or release names: the hands of ``--on`` and ``--everywhere``.

The ids are claimed for every host at once, and each host's next ``sync`` does what it was asked, by
its own rules. This host, if it is one of them, does its part now.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan import apply
from usernsplan.errors import InvalidValueError, UnknownNameError, did_you_mean
from usernsplan.ledger import asks
from usernsplan.ledger.fleet import of_fleet
from usernsplan.model import AllocateRequest, Asked, LedgerState
from usernsplan.planner import of_hosts
from usernsplan.planner.allocate import make_plan
from usernsplan.strategies import named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.layout import Layout
    from usernsplan.ledger.fleet import FleetLedger
    from usernsplan.model import ReleaseRequest
    from usernsplan.planfile import PlanFile


def allocate(  # noqa: PLR0913 - the options of the command
    layout: Layout,
    request: AllocateRequest,
    hosts: Sequence[str],
    command: str = "",
    *,
    really: bool = True,
    here_too: bool = True,
) -> Asked:
    """Give names the same ids on these hosts; on all of the fleet, if there are none.

    ``here_too`` False: only others are asked. The ids are free on this host and on those, as far as
    they have published theirs. Raises InvalidValueError for a host that is unknown, and for a request
    that other hosts cannot be asked for; NotPermittedError unless the role is an operator's, and what
    apply.carry_out raises.
    """
    of_hosts.refuse_unaskable(request)
    ledger, here, others = _opened(layout, request.names, hosts)
    here = here and here_too
    ledger.avoid(others)
    decide = partial(make_plan, request=request)
    plan = apply.preview(layout, ledger, decide)
    made = [a for a in plan.allocations if a.name in request.names]
    strategy, options = of_hosts.options_of(made)
    state = LedgerState(allocations=tuple(made))

    def ask(*, keep: bool) -> list[tuple[str, str]]:
        with ledger.server.together(keep=keep):
            return asks.ask(ledger.server, others, request.names, strategy, options, state)

    # What they refuse is known before this host changes anything.
    new = ask(keep=False)
    if really and here:
        plan = apply.carry_out(layout, ledger, decide, command, agreed=request.yes)
        state = LedgerState(allocations=plan.allocations)
    if really:
        new = ask(keep=True)
    return Asked(
        "allocate", request.names, tuple(others), tuple(new), tuple(made), plan if here else None
    )


def of_plan(layout: Layout, plan: PlanFile, *, really: bool) -> list[Asked]:
    """Ask for what a plan file has for other hosts. Raises as ``allocate`` does."""
    found = []
    for one in plan.elsewhere:
        options: dict[str, int | str] = {**plan.spec.options, **dict(one.options)}
        request = AllocateRequest(
            one.names,
            strategy=named(plan.spec.strategy, options),
            options=options,
            start=one.start,
            pool=plan.spec.pool,
        )
        found.append(allocate(layout, request, one.hosts, really=really, here_too=False))
    return found


def release(
    layout: Layout,
    request: ReleaseRequest,
    hosts: Sequence[str],
    command: str = "",
    *,
    really: bool = True,
) -> Asked:
    """Release names on these hosts; on all of the fleet, if there are none.

    Raises as ``allocate`` does. A name that a host lacks is no error, unless nobody has
    or quarantines it: UnknownNameError.
    """
    ledger, here, others = _opened(layout, request.names, hosts)
    if unknown := asks.unknown(ledger.server, request.names):
        raise UnknownNameError(
            f"no host has anything under the name '{unknown[0]}'",
            hint=f"{layout.inline('list --fleet')} shows what is allocated",
        )
    decide = partial(of_hosts.released, request=request)
    plan = apply.preview(layout, ledger, decide)
    with ledger.server.together(keep=False):
        new = asks.ask_release(ledger.server, others, request.names)
    if really and here:
        plan = apply.carry_out(layout, ledger, decide, command)
    if really:
        new = asks.ask_release(ledger.server, others, request.names)
    return Asked("release", request.names, tuple(others), tuple(new), (), plan if here else None)


def _opened(
    layout: Layout, names: Sequence[str], hosts: Sequence[str]
) -> tuple[FleetLedger, bool, list[str]]:
    """The ledger, whether this host is one of those asked, and the others."""
    ledger = of_fleet(layout, "there are no other hosts to ask", asked=names)
    every = asks.hosts(ledger.server)
    for host in hosts:
        if host not in every:
            raise InvalidValueError(
                f"the fleet has no host '{host}'",
                hint=did_you_mean(host, every, f"its hosts are {', '.join(every)}"),
                option="on",
            )
    wanted = list(dict.fromkeys(hosts)) or every
    mine = ledger.member.host
    return ledger, mine in wanted, [host for host in wanted if host != mine]
