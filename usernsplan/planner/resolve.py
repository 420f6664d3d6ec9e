"""A request and a host -> what each name becomes. Pure.

This module answers every question of a request once: owner, strategy, place, further owners,
engines, and whether Docker uses it. The later steps (choose, plan, apply) only read the answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from usernsplan.engines import ENGINES, known, pool_named
from usernsplan.errors import (
    InvalidValueError,
    RefusedError,
    UsernsplanError,
    concerning,
    did_you_mean,
)
from usernsplan.escape import shell
from usernsplan.layout import NSSWITCH, PASSWD
from usernsplan.model import DEFAULT_NAME, ROOT, ContainerOptions, Finding, PoolOptions
from usernsplan.planner.daemon import not_here
from usernsplan.planner.dockerroot import dockerroot_of, first_free
from usernsplan.planner.names import check_name, check_owner, owner_of, refuse_account
from usernsplan.planner.needs import TAKE_ROOTS
from usernsplan.planner.stories import advise
from usernsplan.strategies import (
    SHARED_SUBID_LAST,
    SLOT,
    PerContainer,
    Shared,
    differing,
    named,
    with_defaults,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from usernsplan.engines import Pool
    from usernsplan.ids import IdRange
    from usernsplan.model import AllocateRequest, Allocation, HostState
    from usernsplan.strategies import Strategy

# README explains the strategies; this is the short form.
_WHICH = """\
per-container  each container has a range of its own: the strongest separation, the usual choice
  single-uid     each container is one uid and one gid, numbered as OpenShift does
  shared         container root is one id, and every other id is the host's own: for volumes that
                 containers share with people of this host
  For example: """
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """One allocation as the request wants it on this host. Only its ids are still open.

    ``strategy`` makes the final map: DOCKERROOT is a number, and a shared map for Docker has its
    filler. ``start`` is the first host id and ``pool`` the range to take ids from, if the request
    names them. ``known`` is the existing allocation of this name: it fits the request and needs no
    ids. ``extra_owners`` get the same lines; owners that have them already are not included.
    """

    name: str
    owner: str
    strategy: Strategy
    start: int | None = None
    pool: IdRange | None = None
    extra_owners: tuple[str, ...] = ()
    known: Allocation | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """A whole request: containers, and the pools of engines that divide a range themselves.

    ``are_named``: the request names the ``engines``. If not, they are the installed ones; a pool that
    is impossible is then left out, and ``findings`` say so. ``docker`` is the name of the allocation
    for Docker's remap; None: daemon.json stays as it is. ``replace_remap`` permits replacing another
    remap.
    """

    containers: tuple[Wanted, ...]
    pools: tuple[Wanted, ...]
    engines: tuple[str, ...]
    are_named: bool
    docker: str | None
    replace_remap: bool
    findings: tuple[Finding, ...]

    @property
    def named(self) -> tuple[str, ...]:
        """The engines that the request names."""
        return self.engines if self.are_named else ()


def resolve(state: HostState, request: AllocateRequest) -> Resolved:
    """Answer everything that a request leaves open.

    Raises InvalidValueError for options that are impossible or contradict each other, RefusedError
    if they contradict the host, and PoolExhaustedError if no DOCKERROOT is free.
    """
    with concerning(option="strategy"):
        strategy = _strategy(state, request)
    with concerning(option="engines"):
        engines = _engines(state, request)

    names = _names(request, engines)
    options = _options(request, names, strategy, state)
    existing = {a.name: a for a in state.ledger.allocations}
    containers = tuple(
        _container(request, engines, name, one, existing.get(name)) for name, one in options.items()
    )
    _refuse_past_docker(state, containers)
    _refuse_bypassed_files(state)
    with concerning(option="strategy"):
        _refuse_other_strategy(state, strategy)

    owners = {a.owner: a.name for a in state.ledger.allocations if a.owner != ROOT}
    accounts = {user.name for user in state.accounts.users}
    # An engine that starts a daemon for each owner needs an account of that name.
    if any(ENGINES[engine].owner_is_account for engine in engines):
        accounts.clear()
    for one in containers:
        is_meant = options[one.name].owner or _is_dockers(request, one.name)
        with concerning(one.name):
            if one.owner in accounts and not (is_meant or one.known):
                refuse_account(state, one.owner)
            _admit(state, owners, one)

    with concerning(option="engines"):
        wanted = _engines_with_pools(request, strategy, engines)
        # --start is for one allocation. Without a container that is the pool, if there is only one.
        start = request.start if len(wanted) == 1 and not names else None
        pools, left_out = _pools(state, request, wanted, start, owners)
    with concerning(option="daemon"):
        docker, not_pointed = _docker(state, request, engines, [*names, *(p.name for p in pools)])
    return Resolved(
        containers=containers,
        pools=tuple(pools),
        engines=engines,
        are_named=request.engines is not None,
        docker=docker,
        replace_remap=request.replace_remap,
        findings=(*left_out, *not_pointed),
    )


def not_done(name: str, error: UsernsplanError) -> Finding:
    """The finding on a pool that is left out because the request does not name its engine."""
    message = f"the engine of the pool {name} is installed, but the pool is left out: {error}"
    hint = f"to get it, solve this and use --engine {pool_named(name)}"
    return advise("USN124", message, hint)


def _strategy(state: HostState, request: AllocateRequest) -> Strategy:
    """The strategy of the request, or else that of this host."""
    if request.strategy is not None:
        return request.strategy
    if not state.ledger.allocations:
        words = shell(*request.names[:3]) or "--docker"
        command = state.layout.command(f"allocate --strategy {PerContainer.name} {words}")
        raise InvalidValueError(
            "the strategy is missing, and this host has no allocation yet that defines it",
            hint=_WHICH + command,
        )
    strategy = state.ledger.allocations[0].strategy
    try:
        return named(strategy, with_defaults(strategy, request.options, request.defaults))
    except InvalidValueError as error:
        error.hint = (
            error.hint or f"this host's strategy is {strategy}, and a host has only one strategy"
        )
        raise


def _engines(state: HostState, request: AllocateRequest) -> tuple[str, ...]:
    """The engines to serve: those of the request, else the installed ones, else Docker.

    If LXD or Incus is installed, engines that need root's lines are served only on request: these
    two give the ids of root's lines to other instances.
    """
    if request.engines is not None:
        for name in request.engines:
            known(name)
        return tuple(dict.fromkeys(request.engines))
    found = tuple(name for name in ENGINES if name in state.engines) or ("docker",)
    return tuple(
        name
        for name in found
        if not ENGINES[name].extra_owners or not state.engines.intersection(TAKE_ROOTS)
    )


def _names(request: AllocateRequest, engines: tuple[str, ...]) -> tuple[str, ...]:
    """The containers. Without a name: Docker's own allocation, unless only other engines are named."""
    for name in request.names:
        with concerning(name):
            _check_container(request, name)
    if request.from_file:
        return tuple(dict.fromkeys(request.names))
    _check_daemon_and_owner(request)
    if len(set(request.names)) > 1 and (request.owner is not None or request.start is not None):
        raise InvalidValueError(
            "--owner and --start are for one name, and there are several",
            hint="allocate them one at a time",
        )
    if request.names or request.engines is None or "docker" in engines:
        return tuple(dict.fromkeys(request.names or (DEFAULT_NAME,)))
    if not any(ENGINES[engine].pool for engine in engines):
        hint = "name the containers; only Docker has an allocation without a name"
        raise InvalidValueError(f"--engine {engines[0]} needs a name to allocate", hint=hint)
    if request.owner is not None:
        raise InvalidValueError(
            "--owner needs a name to allocate", hint="the engine defines the owner of its pool"
        )
    return ()


def _check_container(request: AllocateRequest, name: str) -> None:
    """Raise InvalidValueError for an impossible name or owner of a container."""
    if not (request.from_file and name == DEFAULT_NAME):
        check_name(name)
    if engine := pool_named(name):
        hint = f"the engine {engine} makes it; give the container another name"
        raise InvalidValueError(f"'{name}' is the name of the pool of {engine}", hint=hint)
    if name in request.each:
        with concerning(option="engines"):
            for engine in request.each[name].engines:
                known(engine)
        if (owner := request.each[name].owner) is not None:
            with concerning(option="owner"):
                check_owner(owner)


def _check_daemon_and_owner(request: AllocateRequest) -> None:
    """Raise InvalidValueError for an impossible --daemon or --owner."""
    if request.daemon is not None:
        if request.daemon != DEFAULT_NAME:
            check_name(request.daemon)
        if not request.names:
            again = f"allocate {shell(request.daemon)} --daemon {shell(request.daemon)}"
            raise InvalidValueError("--daemon needs a name to allocate", hint=f"use '{again}'")
        if not request.daemon_config:
            raise InvalidValueError(
                "--daemon and --no-daemon-config exclude each other", hint="use one of the two"
            )
    if request.owner is not None:
        check_owner(request.owner)


def _options(
    request: AllocateRequest, names: Iterable[str], strategy: Strategy, state: HostState
) -> dict[str, ContainerOptions]:
    """The options of each name, with a number for each DOCKERROOT that is ``auto``.

    An existing allocation keeps its own. Raises PoolExhaustedError if no id is free.
    """
    usual = ContainerOptions(strategy, request.owner, request.start)
    found = {name: request.each.get(name, usual) for name in names}
    shapes = {name: one.strategy for name, one in found.items()}
    autos = {name: it for name, it in shapes.items() if isinstance(it, Shared) and it.auto}
    if not autos:
        return found
    with concerning(option="dockerroot"):
        first = first_free(state)
    existing = {a.name: root for a in state.ledger.allocations if (root := dockerroot_of(a))}
    return found | {
        name: replace(
            found[name],
            strategy=replace(shape, dockerroot=existing.get(name, first), auto=False),
        )
        for name, shape in autos.items()
    }


def _container(
    request: AllocateRequest,
    engines: Iterable[str],
    name: str,
    options: ContainerOptions,
    existing: Allocation | None,
) -> Wanted:
    owner = options.owner or (existing.owner if existing else owner_of(name))
    strategy = options.strategy
    if isinstance(strategy, Shared) and _is_dockers(request, name):
        # Docker lays its ranges end to end, so its map must not have a gap.
        strategy = replace(strategy, filler=True)

    # Docker's own allocation has no container, and a map that is in no file cannot be granted.
    is_granted = name != DEFAULT_NAME and not _is_past_subid(strategy)
    also = {ENGINES[e].extra_owners for e in (*engines, *options.engines) if is_granted}
    have = {None, owner, *(existing.extra_owners if existing else ())}
    return Wanted(
        name=name,
        owner=owner,
        strategy=strategy,
        start=options.start,
        pool=request.pool,
        extra_owners=tuple(sorted(o for o in also - have if o)),
        known=existing,
    )


def _is_dockers(request: AllocateRequest, name: str) -> bool:
    """Tell whether Docker makes this map: only --daemon, or no name at all, points its remap to it."""
    return name in {DEFAULT_NAME, request.daemon}


def _is_past_subid(strategy: Strategy) -> bool:
    """Tell whether subuid cannot hold a map of this strategy; see strategies.in_subid."""
    return isinstance(strategy, Shared) and strategy.max - strategy.identity > SHARED_SUBID_LAST


def _refuse_past_docker(state: HostState, containers: Iterable[Wanted]) -> None:
    """Raise InvalidValueError for a map of Docker that subuid cannot hold."""
    for one in containers:
        name, strategy = one.name, one.strategy
        if not (isinstance(strategy, Shared) and strategy.filler and _is_past_subid(strategy)):
            continue
        root = "--identity" if strategy.identity else f"--dockerroot {strategy.dockerroot}"
        other = name if name != DEFAULT_NAME else "web"
        words = f"allocate --strategy {strategy.name} {root} --max {strategy.max} {other}"
        made = state.layout.command(words)
        shown = state.layout.command(f"render podman {other}")
        with concerning(name):
            raise InvalidValueError(
                f"{strategy.max} is too large: Docker reads its map from subuid, "
                f"where a shared one ends at {SHARED_SUBID_LAST}",
                hint="leave --max out; with Podman or OCI a container can have a larger map: "
                f"'{made}', then '{shown}'",
                in_file="leave max out for this one; "
                "with Podman or OCI a container can have a larger map",
                option="max",
            )


def _refuse_bypassed_files(state: HostState) -> None:
    if not state.subid_source.reads_files:
        services = " ".join(state.subid_source.services)
        raise RefusedError(
            f"{state.layout.path(NSSWITCH)}:{state.subid_source.number}: 'subid: {services}': "
            "newuidmap and Podman take subordinate ids from there and do not read subuid and subgid",
            hint="grant ranges in that service, or write 'subid: files' there",
        )


def _refuse_other_strategy(state: HostState, strategy: Strategy) -> None:
    others = [a.name for a in state.ledger.allocations if a.strategy != strategy.name]
    if others:
        few, more = others[:_SHOWN], len(others) - _SHOWN
        names = ", ".join(few) + (f" and {more} more" if more > 0 else "")
        theirs = state.ledger.allocations[0].strategy
        release = state.layout.inline(f"release {shell(*few)}")
        raise RefusedError(
            f"this host's strategy is {theirs}, and a host has only one strategy: {names}",
            hint=f"use the strategy {theirs}, or run {release} first",
        )


def _admit(state: HostState, owners: dict[str, str], one: Wanted) -> None:
    """Note the owner of a new name. Every owner except root has at most one allocation.

    Raises RefusedError if this owner has another one, or if the name exists and the request differs
    from it.
    """
    if one.known:
        _refuse_other_request(state, one, one.known)
        return
    if one.owner in owners:
        raise RefusedError(
            f"the owner {one.owner} has the allocation '{owners[one.owner]}': "
            "readers would join a second one to it",
            hint=f"give '{one.name}' another owner",
        )
    if one.owner != ROOT:
        owners[one.owner] = one.name


def _refuse_other_request(state: HostState, one: Wanted, existing: Allocation) -> None:
    """Raise RefusedError unless the request describes the existing allocation."""
    shapes = [one.strategy]
    if isinstance(one.strategy, Shared):
        # A request that names it again need not repeat --daemon.
        fillers = {False, not _is_past_subid(one.strategy)}
        shapes = [replace(one.strategy, filler=filler) for filler in fillers]
    held = existing.reserved_range
    ids = ", ".join(map(str, existing.mapping.uids.host_ranges()))
    if not any(_has_shape(existing, shape) for shape in shapes):
        what = f"with other options, as host uids {ids}"
        option = differing(one.strategy, existing.mapping, held)
    elif one.owner != existing.owner:
        what, option = f"to the owner {existing.owner}", "owner"
    elif one.start is not None and not (held and held.start == one.start):
        what, option = f"as host uids {ids}", "start"
    else:
        return
    release = state.layout.inline(f"release {shell(one.name)}")
    raise RefusedError(
        f"'{one.name}' is allocated already, {what}",
        hint=f"to change it, run {release} and allocate it again; then fix its volumes",
        option=option,
    )


def _has_shape(existing: Allocation, strategy: Strategy) -> bool:
    held, need = existing.reserved_range, strategy.need
    return (held.count if held else None) == (need.count if need else None) and (
        strategy.mapping(held.start if held else None) == existing.mapping
    )


def _engines_with_pools(
    request: AllocateRequest, strategy: Strategy, engines: Iterable[str]
) -> dict[str, Pool]:
    """The pools that these engines need, by the engine's name.

    Raises RefusedError if the request names an engine with a pool and the strategy is not
    per-container, and InvalidValueError for options of a pool that the request does not make.
    """
    wanted = {name: pool for name in engines if (pool := ENGINES[name].pool)}
    if strategy.name != PerContainer.name:
        for name in wanted if request.engines is not None else ():
            raise RefusedError(
                f"{name} gives each container a range of its own, "
                f"but the strategy is {strategy.name}",
                hint=f"use the strategy {PerContainer.name}, or leave the engine {name} out",
            )
        wanted = {}
    for name in (name for name in request.pools if name not in wanted):
        if (pool := known(name).pool) is None:
            raise InvalidValueError(
                f"{name} has no pool of its own",
                hint="leave out the number of containers and the start of its pool",
            )
        raise InvalidValueError(f"{pool.option} needs its engine", hint=f"add --engine {name}")
    return wanted


def _pools(
    state: HostState,
    request: AllocateRequest,
    wanted: dict[str, Pool],
    start: int | None,
    owners: dict[str, str],
) -> tuple[list[Wanted], list[Finding]]:
    """The pools of these engines, and the findings on those that are left out."""
    found: list[Wanted] = []
    left: list[Finding] = []
    for engine, pool in wanted.items():
        one = _pool(state, request, engine, pool, start)
        has_lines = any(one.owner in file.by_owner() for file in (state.subuid, state.subgid))
        if request.engines is None and not one.known and has_lines:
            # The owner has lines of another origin, and nobody asked for the pool: leave them.
            continue
        try:
            _admit(state, owners, one)
        except UsernsplanError as error:
            if request.engines is not None:
                raise
            left.append(not_done(one.name, error))
            continue
        found.append(one)
    return found, left


def _pool(
    state: HostState, request: AllocateRequest, engine: str, pool: Pool, start: int | None
) -> Wanted:
    """The pool of one engine. An existing pool keeps its size unless the request names another."""
    if not pool.account and state.accounts.user(pool.owner):
        raise RefusedError(
            f"{state.layout.path(PASSWD)}: '{pool.owner}' is an account: "
            "its processes could map the pool",
            hint=f"rename the account: {engine} uses only the lines of this owner",
        )
    existing = next((a for a in state.ledger.allocations if a.name == a.owner == pool.owner), None)
    said = request.pools.get(engine, PoolOptions())
    if existing and existing.reserved_range and said.containers is None:
        size = existing.reserved_range.count
    else:
        size = SLOT * (pool.containers if said.containers is None else said.containers)
    try:
        strategy = PerContainer(size)
    except InvalidValueError as error:
        raise InvalidValueError(
            f"a pool for {said.containers} containers of {engine} is impossible: {error}",
            hint=error.hint,
        ) from error
    return Wanted(
        name=pool.owner,
        owner=pool.owner,
        strategy=strategy,
        start=start if said.start is None else said.start,
        # --pool is for the containers and for named engines; other engines use the default pool.
        pool=request.pool if request.engines is not None else None,
        known=existing,
    )


def _docker(
    state: HostState, request: AllocateRequest, engines: Collection[str], names: Collection[str]
) -> tuple[str | None, tuple[Finding, ...]]:
    """The name for Docker's remap; None if daemon.json stays as it is, with findings on that."""
    target = request.daemon or (DEFAULT_NAME if DEFAULT_NAME in names else None)
    if target is None or not request.daemon_config:
        return None, ()
    if request.daemon is None and "docker" not in engines:
        return None, not_here(state) if request.engines is None else ()
    if target not in names and all(target != a.name for a in state.ledger.allocations):
        how = (
            "'allocate' without a name makes it"
            if target == DEFAULT_NAME
            else f"allocate it, too: 'allocate {shell(target)} …'"
        )
        known_names = [*names, *(a.name for a in state.ledger.allocations)]
        raise InvalidValueError(
            f"there is no allocation '{target}'", hint=did_you_mean(target, known_names, how)
        )
    if engine := pool_named(target):
        raise InvalidValueError(
            f"'{target}' is the pool of {engine}", hint="name a container's allocation"
        )
    return target, ()
