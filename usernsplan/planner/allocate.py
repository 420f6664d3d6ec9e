"""allocate: resolve the request, choose the ids, and put everything into one plan. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from usernsplan.errors import concerning, placed
from usernsplan.model import LedgerChange, Plan
from usernsplan.planner import advice, daemon, needs
from usernsplan.planner.choose import choose
from usernsplan.planner.grants import Grants
from usernsplan.planner.resolve import resolve

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.model import AllocateRequest, Allocation, HostState
    from usernsplan.planner.choose import Chosen
    from usernsplan.planner.resolve import Resolved


def make_plan(state: HostState, request: AllocateRequest) -> Plan:
    """Decide one ``allocate``: all the names or none.

    A name that has the requested allocation stays as it is; its missing lines are added again.
    Raises RefusedError, InvalidValueError, InvalidFileError or PoolExhaustedError.
    """
    with placed(request.places):
        resolved = resolve(state, request)
        lines = Grants(state)
        chosen = choose(state, resolved, lines)
        return _plan(state, resolved, chosen, lines)


def _plan(state: HostState, resolved: Resolved, chosen: Chosen, lines: Grants) -> Plan:
    """The plan, out of the lines, Docker's part, the accounts, and the findings on them."""
    new = _granted(lines, resolved, chosen)
    wanted = (*resolved.containers, *chosen.pools)
    if resolved.docker not in {one.name for one in wanted}:
        for allocation in state.ledger.allocations:
            if allocation.name == resolved.docker:
                # The request does not name it, but Docker needs its lines, too.
                lines.restore(allocation)
    more = [(one.known, owner) for one in wanted if one.known for owner in one.extra_owners]
    found = tuple((a.name, *line) for a, owner in more for line in lines.widen(a, owner))

    allocations = [
        replace(a, extra_owners=(*a.extra_owners, *one.extra_owners))
        if (a := one.known)
        else new[one.name]
        for one in wanted
    ]
    containers = allocations[: len(resolved.containers)]
    with concerning(option="daemon"):
        docker = _docker(state, resolved, allocations, chosen, lines)
    made = daemon.with_accounts(state, needs.accounts(resolved.engines, allocations))
    return Plan(
        kind="allocate",
        allocations=tuple(allocations),
        changes=lines.changes() + docker.changes,
        restored=tuple(lines.restored),
        ledger=LedgerChange(
            add=tuple(new.values()),
            extra_owners=tuple((a.name, owner) for a, owner in more),
            found=found,
            unkeep=tuple((name, former.reserved_range) for name, former in chosen.back.items()),
        ),
        account_commands=tuple(dict.fromkeys(docker.commands + made.commands)),
        findings=(
            *advice.findings(state, allocations),
            *lines.findings,
            *chosen.notes,
            *needs.findings(state, resolved, containers),
            *chosen.left_out,
            *resolved.findings,
            *docker.findings,
            *made.findings,
        ),
        next_steps=tuple(
            dict.fromkeys(
                docker.next_steps
                + made.next_steps
                + advice.next_steps(state, resolved, new.values())
            )
        ),
        unfinished=docker.unfinished or made.unfinished,
        consequences=docker.consequences,
    )


def _granted(lines: Grants, resolved: Resolved, chosen: Chosen) -> dict[str, Allocation]:
    """Restore missing lines, add the new ones, and return the new allocations by name."""
    new = {}
    # Existing allocations come first, so that new lines follow theirs.
    for one in (*sorted(resolved.containers, key=lambda one: not one.known), *chosen.pools):
        with concerning(one.name, "engines" if one in chosen.pools else ""):
            if one.known:
                lines.restore(one.known)
            else:
                new[one.name] = lines.add(chosen.new[one.name])
    return new


def _docker(
    state: HostState,
    resolved: Resolved,
    allocations: Iterable[Allocation],
    chosen: Chosen,
    lines: Grants,
) -> daemon.Pointed:
    """Point Docker's remap at the allocation that the request chooses for it, if any."""
    if resolved.docker is None:
        return daemon.Pointed()
    target = next(a for a in (*allocations, *state.ledger.allocations) if a.name == resolved.docker)
    pointed = daemon.point_at(state, target, replace_remap=resolved.replace_remap)
    lines_change = target.name in lines.restored or target.name in chosen.new
    if lines_change and not pointed.changes and not pointed.unfinished:
        return replace(pointed, next_steps=(daemon.RESTART,))
    return pointed
