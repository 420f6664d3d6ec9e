"""What engines need in addition to a container's lines: root's lines for LXC, accounts, and pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import ENGINES, engine_of_pool, pool_named, verdict
from usernsplan.escape import shell
from usernsplan.layout import KUBELET_CONFIG
from usernsplan.mapping import KINDS
from usernsplan.model import DEFAULT_NAME, ROOT, Finding
from usernsplan.planner import roots
from usernsplan.planner.stories import advise
from usernsplan.strategies import SLOT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from usernsplan.model import Allocation, HostState
    from usernsplan.planner.resolve import Resolved, Wanted


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
    granted = any(
        ROOT in {a.owner, *a.extra_owners} for a in (*state.ledger.allocations, *allocations)
    )
    here = [name for name in roots.TAKE_ROOTS if name in state.engines]
    has_lines = any(not one.within for one in allocations)
    if here and has_lines and not resolved.are_named and not granted:
        yield advise(
            "USN121",
            f"nothing was granted to root, because {here[0]} is installed, and its instances have "
            "ids of their own",
            f"for a container of {here[0]} or LXC, use --engine {here[0]} or --engine lxc",
        )
    elif granted:
        yield from _trouble(state, roots.needing(state, resolved.engines), allocations)


def of_kubelet(state: HostState, pools: Iterable[Wanted]) -> Iterator[Finding]:
    """What the kubelet still lacks to use a new pool as it is."""
    kubelet = state.kubelet
    for one in pools:
        if one.known or pool_named(one.name) != "kubernetes":
            continue
        each = one.strategy.need.align if one.strategy.need else SLOT
        if each != kubelet.ids_per_pod or kubelet.problem:
            configured = kubelet.place or state.layout.path(KUBELET_CONFIG)
            message = f"the pool is for pods of {each} ids, but {configured} " + (
                f"says {kubelet.ids_per_pod}" if kubelet.place else "does not say so"
            )
            hint = f"set userNamespaces.idsPerPod to {each} there, and restart the kubelet"
            yield advise("USN147", message, hint)
        if not kubelet.has_getsubids:
            message = (
                f"the program getsubids is missing: a kubelet with the account {one.owner} does not "
                "start without it"
            )
            hint = "install uidmap (Debian, Ubuntu) or shadow-utils (Fedora)"
            yield advise("USN148", message, hint)


def _trouble(
    state: HostState, takers: Collection[str], allocations: Iterable[Allocation]
) -> Iterator[Finding]:
    """A finding if LXD or Incus cannot take ids for its instances from root's lines."""
    ours = {
        (ids.start, ids.stop)
        for allocation in allocations
        for kind in KINDS
        for ids in allocation.mapping[kind].host_ranges()
    }
    found = [one for engine in takers for one in roots.none_large(state, engine)]
    if "incus" in takers:
        found += [one for one, _ in roots.several_large(state, ours)]
    for one in found[:1]:
        place = state.layout.path(one.path) + (f":{one.number}" if one.number else "")
        yield advise("USN123", f"{place}: {one.fact}", one.remedy)
