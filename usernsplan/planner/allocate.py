"""allocate: resolve the request, choose the ids, and put everything into one plan. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import concerning, placed
from usernsplan.model import LedgerChange, Plan
from usernsplan.planner import advice, daemon, needs
from usernsplan.planner.choose import choose
from usernsplan.planner.directory import with_owners
from usernsplan.planner.grants import Grants
from usernsplan.planner.publish import publish
from usernsplan.planner.resolve import resolve
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from usernsplan.model import AllocateRequest, Allocation, Finding, HostState
    from usernsplan.planner.choose import Chosen
    from usernsplan.planner.resolve import Resolved


def make_plan(state: HostState, request: AllocateRequest) -> Plan:
    """Decide one ``allocate``: all the names or none.

    A name that has the requested allocation stays as it is; its missing lines are added again.
    Raises RefusedError, InvalidValueError, InvalidFileError or PoolExhaustedError.
    """
    with placed(request.places):
        resolved = resolve(state, request)
        state = with_owners(state, (one.owner for one in resolved.containers))
        lines = Grants(state, resolved.engines)
        chosen = choose(state, resolved, lines)
        return _plan(state, resolved, chosen, lines)


def _plan(state: HostState, resolved: Resolved, chosen: Chosen, lines: Grants) -> Plan:
    """The plan, out of the lines, Docker's part, the accounts, and the findings on them."""
    wanted = (*resolved.containers, *chosen.pools)
    new, known = _granted(lines, resolved, chosen)
    if resolved.docker not in {one.name for one in wanted}:
        for allocation in state.ledger.allocations:
            if allocation.name == resolved.docker:
                # The request does not name it, but Docker needs its lines, too.
                lines.restore(allocation)
    names = {one.name for one in wanted}
    more = [(one.name, owner) for one in wanted if one.known for owner in one.extra_owners]
    for name, owner in more:
        known[name] = lines.split(lines.widen(known[name], owner), names)
    lines.keep_instances()

    granted = known | new
    allocations = [granted[one.name] for one in wanted]
    containers = allocations[: len(resolved.containers)]
    with concerning(option="daemon"):
        docker = _docker(state, resolved, allocations, chosen, lines)
    logins = needs.accounts(resolved.engines, allocations)
    made = daemon.with_accounts(state, logins)
    logins += tuple(a.owner for a in allocations if a.name == resolved.docker)
    places = {one.name: one.publish for one in wanted}
    published = publish(state, allocations, places, logins, from_file=resolved.from_file)
    return Plan(
        kind="allocate",
        allocations=published.allocations,
        changes=lines.changes() + docker.changes,
        restored=tuple(lines.restored),
        ledger=_ledger(published.allocations, resolved, chosen),
        account_commands=tuple(dict.fromkeys(docker.commands + made.commands + published.commands)),
        findings=(
            *advice.findings(state, allocations, resolved.docker),
            *lines.findings,
            *chosen.notes,
            *needs.findings(state, resolved, containers),
            *needs.of_kubelet(state, chosen.pools),
            *chosen.left_out,
            *resolved.findings,
            *_unfinished(state, containers),
            *docker.findings,
            *made.findings,
            *published.findings,
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
        records=published.records,
        accounts_gone=published.gone,
    )


def _unfinished(state: HostState, allocations: Collection[Allocation]) -> Iterator[Finding]:
    """A finding for each allocation whose remap is not finished."""
    if any(volume.former is not None for volume in state.ledger.volumes):
        from usernsplan.planner.remap import unfinished  # noqa: PLC0415 - seldom

        yield from unfinished(state, allocations)


def _ledger(allocations: Iterable[Allocation], resolved: Resolved, chosen: Chosen) -> LedgerChange:
    """What the ledger gains: ``allocations`` as they will be, new ones and existing ones."""
    wanted = (*resolved.containers, *chosen.pools)
    final = {a.name: a for a in allocations}
    changed = [(one.known, final[one.name]) for one in wanted if one.known]
    return LedgerChange(
        add=tuple(final[one.name] for one in wanted if not one.known),
        update=tuple(now for was, now in changed if _is_granted_or_published_anew(was, now)),
        extra_owners=tuple(
            (one.name, owner) for one in wanted if one.known for owner in one.extra_owners
        ),
        found=tuple(
            (now.name, *line) for was, now in changed for line in now.found if line not in was.found
        ),
        unkeep=(
            *((name, former.reserved_range) for name, former in chosen.back.items()),
            *chosen.unkeep,
        ),
    )


def _is_granted_or_published_anew(was: Allocation, now: Allocation) -> bool:
    return (was.split_owners, was.published, was.unpublished) != (
        now.split_owners,
        now.published,
        now.unpublished,
    )


def _granted(
    lines: Grants, resolved: Resolved, chosen: Chosen
) -> tuple[dict[str, Allocation], dict[str, Allocation]]:
    """Restore missing lines, and add the new ones: the new allocations, and the existing, by name."""
    new, known = {}, {}
    # Existing allocations come first, so that new lines follow theirs.
    several = (*sorted(resolved.containers, key=lambda one: not one.known), *chosen.pools)
    names = {one.name for one in several}
    for one in several:
        with concerning(one.name, "engines" if one in chosen.pools else ""):
            if one.known:
                known[one.name] = lines.split(one.known, names)
                lines.restore(known[one.name])
            else:
                new[one.name] = lines.split(lines.add(chosen.new[one.name]), names)
    return new, known


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
