"""What engines want besides a container's own lines: root's lines for LXC, a pool for those that divide one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import ENGINES, engine_of_pool, verdict
from usernsplan.escape import shell
from usernsplan.formats.subid import Grant
from usernsplan.layout import SUBUID
from usernsplan.model import DEFAULT_NAME, ROOT, Finding
from usernsplan.planner.stories import advise
from usernsplan.strategies import SLOT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from usernsplan.model import Allocation, HostState
    from usernsplan.planner.resolve import Resolved

TAKE_ROOTS = tuple(name for name, it in ENGINES.items() if it.takes_roots)


def accounts(engines: Iterable[str], allocations: Iterable[Allocation]) -> tuple[str, ...]:
    """Who has to be an account: the kubelet's user, and each remap user of a Docker daemon of its own."""
    daemons = [name for name in engines if ENGINES[name].owner_is_account]
    found = []
    for allocation in allocations:
        pool = ENGINES[engine].pool if (engine := engine_of_pool(allocation)) else None
        is_login = pool.account if pool else any(verdict(e, allocation).can for e in daemons)
        if is_login:
            found.append(allocation.owner)
    return tuple(dict.fromkeys(found))


def findings(
    state: HostState, resolved: Resolved, allocations: Collection[Allocation]
) -> Iterator[Finding]:
    """What cannot be had of the engines that were named, and which were passed over."""
    for allocation in allocations:
        for name in resolved.named:
            # A pool is its engine's, whatever the containers have.
            if not ENGINES[name].pool and not (found := verdict(name, allocation)).can:
                yield advise(
                    "USN120",
                    f"{name} cannot express '{allocation.name}': {found.why}",
                    f"{state.layout.inline(f'render --list {shell(allocation.name)}')} shows which engines can",
                )
    for name in resolved.named:
        if ENGINES[name].extra_owners and any(a.name == DEFAULT_NAME for a in allocations):
            message = f"{name} is for containers that have a name: nothing is granted to root for '{DEFAULT_NAME}'"
            yield advise("USN120", message, "name the container")
    takers = takers_of_roots(state, resolved.engines)
    if not takers:
        return
    granted = any(
        ROOT in {a.owner, *a.extra_owners} for a in (*state.ledger.allocations, *allocations)
    )
    if not resolved.are_named and not granted:
        yield advise(
            "USN121",
            f"{takers[0]} takes ids for its containers out of root's lines: nothing was granted to root",
            f"for a container of {takers[0]} or LXC, say --engine {takers[0]} or --engine lxc",
        )
    elif granted and not has_own_range(state):
        yield advise("USN123", *no_own_range(state, takers[0]))


def takers_of_roots(state: HostState, engines: Collection[str] = ()) -> tuple[str, ...]:
    """The engines, of the host's and these, that give their containers ids out of root's lines."""
    return tuple(name for name in TAKE_ROOTS if name in state.engines or name in engines)


def no_own_range(state: HostState, taker: str) -> tuple[str, str]:
    """What to say where such an engine has no line of its own, and what to do about it."""
    message = (
        f"root has no range of its own in {state.layout.path(SUBUID)} that comes first and starts lowest: "
        f"{taker} gives other instances the whole of root's first line, a container's, now or after the next useradd"
    )
    return (
        message,
        f"put a line such as root:100000:{SLOT} before the others, in subgid too, and restart {taker}",
    )


def has_own_range(state: HostState) -> bool:
    """Tell whether root's first line that LXD takes is none of ours, in the file and when useradd has sorted it.

    LXD takes lines of 65536 ids or more.
    """
    ours = {
        (r.start, r.stop) for a in state.ledger.allocations for r in a.mapping.uids.host_ranges()
    }
    spans = [
        (line.start, line.stop)
        for line in state.subuid.lines
        if isinstance(line, Grant) and line.owner == ROOT and line.stop - line.start >= SLOT
    ]
    return bool(spans) and spans[0] not in ours and min(spans) not in ours
