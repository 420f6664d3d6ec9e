"""harden: what a container may do, besides its map. The policy is kept with its allocation. Pure."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from usernsplan.engines import engine_of_pool
from usernsplan.errors import InvalidValueError, UnknownNameError, did_you_mean
from usernsplan.escape import shell
from usernsplan.model import LedgerChange, Plan
from usernsplan.planner.stories import advise
from usernsplan.strategies import PerContainer
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from usernsplan.harden.policy import Policy
    from usernsplan.model import Allocation, Finding, HostState

# SELinux's policies for containers have the categories c0 to c1023.
_CATEGORIES = 1024
# What each of these gives is as much as the host's root has, if the container finds a bug.
_GREAT = frozenset(
    {"all", "sys_admin", "sys_module", "sys_ptrace", "sys_rawio", "bpf", "net_admin"}
)


def make_harden(state: HostState, name: str, policy: Policy | None) -> Plan:
    """Decide one ``harden``: None takes the policy away. Only the ledger changes.

    Raises UnknownNameError, and InvalidValueError for a pool, from which an engine gives several
    containers their ids.
    """
    known = {a.name: a for a in state.ledger.allocations}
    if name not in known:
        raise UnknownNameError(
            f"nothing is allocated under the name '{name}'",
            hint=did_you_mean(name, known, UnknownNameError.hint),
        )
    check(known[name], policy)
    [policy] = _levelled({name: policy}, known, known).values()
    now = replace(known[name], policy=policy)
    render = state.layout.command(f"render --list {shell(name)}")
    return Plan(
        "harden",
        allocations=(now,),
        ledger=LedgerChange(update=() if now == known[name] else (now,)),
        findings=tuple(findings(name, policy)),
        next_steps=(f"{render}  # which engines can enforce it",) if policy else (),
    )


def check(allocation: Allocation, policy: Policy | None) -> None:
    """Raise InvalidValueError for an allocation that is not one container's."""
    if policy and (engine := engine_of_pool(allocation)):
        raise InvalidValueError(
            f"'{allocation.name}' is the pool of {engine}: its containers have no policy here",
            hint="name a container's allocation",
        )


def findings(name: str, policy: Policy | None) -> Iterator[Finding]:
    """What a policy gives the container that most containers do without."""
    if policy is None:
        return
    given = [f"the capability {one}" for one in policy.cap_add if one in _GREAT]
    given += [f"the system call {one}" for one in policy.allow_syscalls]
    if policy.new_privileges:
        given.append("setuid programs that raise its privileges")
    if given:
        yield advise(
            "USN182",
            f"the policy of '{name}' allows {', '.join(given)}",
            "leave it out unless the container's program needs it",
        )


def _levelled(
    wanted: Mapping[str, Policy | None],
    allocations: Mapping[str, Allocation],
    known: Mapping[str, Allocation],
) -> dict[str, Policy | None]:
    """The policies, with an SELinux level for each container that has a range of its own.

    By a pair of categories that no other has, SELinux keeps it apart even where ids do not. A
    container keeps the level that it has. Of single-uid, OpenShift chooses the level.
    """
    used = {a.policy.selinux_level for a in allocations.values() if a.policy}
    used |= {policy.selinux_level for policy in wanted.values() if policy}
    free = (
        level
        for first, second in combinations(range(_CATEGORIES), 2)
        if (level := f"s0:c{first},c{second}") not in used
    )

    found: dict[str, Policy | None] = {}
    for name, policy in wanted.items():
        one = allocations.get(name)
        if policy and not policy.selinux_level and one and one.strategy == PerContainer.name:
            was = known[name].policy if name in known else one.policy
            level = was.selinux_level if was and was.selinux_level else next(free, "")
            found[name] = replace(policy, selinux_level=level)
        else:
            found[name] = policy
    return found


def with_policies(
    plan: Plan, known: Mapping[str, Allocation], wanted: Mapping[str, Policy | None]
) -> Plan:
    """The plan, with these policies in the allocations of these names."""
    after = {a.name: a for a in plan.allocations}
    for name in wanted.keys() & after.keys():
        check(after[name], wanted[name])
    wanted = _levelled(wanted, {**known, **after}, known)

    def hardened(one: Allocation) -> Allocation:
        return replace(one, policy=wanted[one.name]) if one.name in wanted else one

    update = {a.name: a for a in plan.ledger.update}
    new = {a.name for a in plan.ledger.add}
    for name, one in known.items():
        if name in wanted and name not in new and one.policy != wanted[name]:
            update.setdefault(name, after.get(name, one))
    return replace(
        plan,
        allocations=tuple(map(hardened, plan.allocations)),
        ledger=replace(
            plan.ledger,
            add=tuple(map(hardened, plan.ledger.add)),
            update=tuple(map(hardened, update.values())),
        ),
        findings=(
            *plan.findings,
            *(one for name in sorted(wanted) for one in findings(name, wanted[name])),
        ),
    )
