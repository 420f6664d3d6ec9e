"""What engines want besides a container's own lines: root's lines for LXC, a pool for those that divide one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from usernsplan.engines import ENGINES, known, pool_of, verdict
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.escape import shell
from usernsplan.formats.subid import Grant
from usernsplan.layout import PASSWD, SUBUID
from usernsplan.model import DEFAULT_NAME, ROOT, Finding
from usernsplan.planner.stories import advise
from usernsplan.strategies import SLOT, PerContainer, in_subid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from usernsplan.engines import Pool
    from usernsplan.model import AllocateRequest, Allocation, HostState

_TAKE_ROOTS = tuple(name for name, it in ENGINES.items() if it.takes_roots)


def chosen(state: HostState, request: AllocateRequest) -> tuple[str, ...]:
    """The engines that are to be served: those named, else those that the host has, else Docker.

    Those that want root's lines are left out, unless they were named, where LXD or Incus runs: these hand out what root
    is granted.
    """
    if request.engines is not None:
        for name in request.engines:
            known(name)
        return tuple(dict.fromkeys(request.engines))
    found = tuple(name for name in ENGINES if name in state.engines) or ("docker",)
    return tuple(
        name
        for name in found
        if not ENGINES[name].extra_owners or not state.engines.intersection(_TAKE_ROOTS)
    )


def pools(
    state: HostState, request: AllocateRequest, engines: Collection[str]
) -> tuple[AllocateRequest, ...]:
    """A request for each pool that these engines want.

    Raises RefusedError under another strategy than per-container, where the engine was named.
    """
    sizes, found = dict(request.pools), []
    wanted = [name for name in engines if ENGINES[name].pool]
    for name in wanted:
        pool = cast("Pool", ENGINES[name].pool)
        if request.strategy.name != PerContainer.name:
            if request.engines is None:
                continue
            raise RefusedError(
                f"{name} gives each container a range of its own, and this is the strategy {request.strategy.name}",
                hint=f"one host has one strategy: say --strategy {PerContainer.name}, or leave --engine {name} out",
            )
        if not pool.account and state.accounts.user(pool.owner):
            raise RefusedError(
                f"{state.layout.path(PASSWD)}: '{pool.owner}' is an account: whoever logs in as it could map the pool",
                hint=f"rename the account: {name} takes the lines of this owner and of no other",
            )
        count = sizes.pop(name, None)
        stands = next(
            (a for a in state.ledger.allocations if a.name == a.owner == pool.owner), None
        )
        lines = state.subuid.by_owner().keys() | state.subgid.by_owner().keys()
        if request.engines is None and not stands and pool.owner in lines:
            # Somebody else's arrangement; an engine that is merely installed is no reason to object to it.
            continue
        if stands and stands.reserved_range and count is None:
            size = stands.reserved_range.count
        else:
            size = SLOT * (pool.containers if count is None else count)
        try:
            strategy = PerContainer(size)
        except InvalidValueError as error:
            raise InvalidValueError(
                f"{pool.option} {count}: no such pool, {size} ids", hint=error.hint
            ) from error
        # --start is about one allocation: that of the one pool where no container is named.
        alone = (
            wanted == [name]
            and not request.names
            and request.engines is not None
            and "docker" not in engines
        )
        start = request.start if alone else dict(request.pool_starts).get(name)
        # The pool's own words, whatever a plan file says of containers.
        alike = replace(
            request, names=(pool.owner,), daemon=None, each={}, from_file=False, pool_starts=()
        )
        words = replace(alike, strategy=strategy, owner=pool.owner, start=start)
        found.append(words if request.engines is not None else replace(words, pool=None))
    for name in sizes:
        option = ENGINES[name].pool
        if option is None:
            raise InvalidValueError(
                f"{name} has no pool of its own", hint="leave the number of containers out"
            )
        raise InvalidValueError(f"{option.option} without its engine", hint=f"say --engine {name}")
    return tuple(found)


def pool_named(name: str) -> str | None:
    """The engine whose pool has this name."""
    return next(
        (engine for engine, it in ENGINES.items() if it.pool and it.pool.owner == name), None
    )


def accounts(engines: Iterable[str], allocations: Iterable[Allocation]) -> tuple[str, ...]:
    """Who has to be an account: the kubelet's user, and each remap user of a Docker daemon of its own."""
    found = []
    for allocation in allocations:
        pool = ENGINES[engine].pool if (engine := pool_of(allocation)) else None
        is_remap = (
            pool is None
            and "docker-instance" in engines
            and verdict("docker-instance", allocation).can
        )
        if is_remap or (pool and pool.account):
            found.append(allocation.owner)
    return tuple(dict.fromkeys(found))


def further_owners(engines: Iterable[str], allocation: Allocation) -> tuple[str, ...]:
    """Who is to have a container's lines besides their owner; a pool is granted to its engine alone."""
    if (
        allocation.name == DEFAULT_NAME
        or pool_of(allocation)
        or not in_subid(allocation.strategy, allocation.mapping)
    ):
        return ()
    also = (ENGINES[name].extra_owners for name in engines)
    return tuple(sorted({owner for owner in also if owner and owner != allocation.owner}))


def findings(
    state: HostState,
    request: AllocateRequest,
    engines: Collection[str],
    allocations: Collection[Allocation],
) -> Iterator[Finding]:
    """What cannot be had of the engines that were named, and which were passed over."""
    for allocation in allocations:
        for name in engines if request.engines is not None else ():
            # A pool is its engine's, whatever the containers have.
            if not ENGINES[name].pool and not (found := verdict(name, allocation)).can:
                yield advise(
                    "USN120",
                    f"{name} cannot express '{allocation.name}': {found.why}",
                    f"{state.layout.inline(f'render --list {shell(allocation.name)}')} shows which engines can",
                )
    for name in engines if request.engines is not None else ():
        if ENGINES[name].extra_owners and any(a.name == DEFAULT_NAME for a in allocations):
            message = f"{name} is for containers that have a name: nothing is granted to root for '{DEFAULT_NAME}'"
            yield advise("USN120", message, "name the container")
    takers = takers_of_roots(state, engines)
    if not takers:
        return
    granted = any(
        ROOT in {a.owner, *a.extra_owners} for a in (*state.ledger.allocations, *allocations)
    )
    if request.engines is None and not granted:
        yield advise(
            "USN121",
            f"{takers[0]} takes ids for its containers out of root's lines: nothing was granted to root",
            f"for a container of {takers[0]} or LXC, say --engine {takers[0]} or --engine lxc",
        )
    elif granted and not has_own_range(state):
        yield advise("USN123", *no_own_range(state, takers[0]))


def takers_of_roots(state: HostState, engines: Collection[str] = ()) -> tuple[str, ...]:
    """The engines, of the host's and these, that give their containers ids out of root's lines."""
    return tuple(name for name in _TAKE_ROOTS if name in state.engines or name in engines)


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
