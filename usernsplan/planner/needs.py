"""What engines need in addition to a container's lines: root's lines for LXC, accounts, and pools."""

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
    """The owners that must be accounts: the kubelet's user, and the user of each Docker instance."""
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
    """Findings on named engines that cannot express an allocation, and on engines left out."""
    for allocation in allocations:
        for name in resolved.named:
            # An engine with a pool does not use the allocations of containers.
            if not ENGINES[name].pool and not (found := verdict(name, allocation)).can:
                yield advise(
                    "USN120",
                    f"{name} cannot express '{allocation.name}': {found.why}",
                    f"{state.layout.inline(f'render --list {shell(allocation.name)}')} shows which engines can",
                )
    for name in resolved.named:
        if ENGINES[name].extra_owners and any(a.name == DEFAULT_NAME for a in allocations):
            message = (
                f"{name} runs only containers with a name: nothing is granted to root for "
                f"'{DEFAULT_NAME}'"
            )
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
            f"nothing was granted to root, because {takers[0]} takes ids for its containers from "
            "root's lines",
            f"for a container of {takers[0]} or LXC, use --engine {takers[0]} or --engine lxc",
        )
    elif granted and not has_own_range(state):
        yield advise("USN123", *no_own_range(state, takers[0]))


def takers_of_roots(state: HostState, engines: Collection[str] = ()) -> tuple[str, ...]:
    """The engines, on the host or among these, that take ids for containers from root's lines."""
    return tuple(name for name in TAKE_ROOTS if name in state.engines or name in engines)


def no_own_range(state: HostState, taker: str) -> tuple[str, str]:
    """The message and the hint if such an engine has no line of its own."""
    message = (
        f"root has no range of its own in {state.layout.path(SUBUID)} that comes first and starts "
        f"lowest: {taker} gives other instances the whole of root's first line, which is a "
        "container's now or after the next useradd"
    )
    hint = (
        f"put a line such as root:100000:{SLOT} before the others, also in subgid, and restart "
        f"{taker}"
    )
    return message, hint


def has_own_range(state: HostState) -> bool:
    """Whether the first of root's lines that LXD takes is not one of our lines.

    It must hold for the file as it is and once useradd has sorted it. LXD takes lines of 65536 ids
    or more.
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
