"""A request and a host -> what each name becomes. Pure.

This module answers every question of a request once: owner, strategy, place, further owners,
engines, and whether Docker uses it. The later steps (choose, plan, apply) only read the answers.
"""

from __future__ import annotations

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
from usernsplan.formats.passes import written
from usernsplan.layout import NSSWITCH
from usernsplan.model import DEFAULT_NAME, ROOT, ContainerOptions, Finding, PoolOptions
from usernsplan.planner import slices
from usernsplan.planner.daemon import not_here
from usernsplan.planner.dockerroot import dockerroot_of, first_free
from usernsplan.planner.in_fleet import as_in_fleet
from usernsplan.planner.names import (
    check_name,
    check_owner,
    former_owners,
    other_owner,
    owner_of,
    place_of_account,
    refuse_account,
)
from usernsplan.planner.passes import Passes, refuse_own_id
from usernsplan.planner.roots import TAKE_ROOTS
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
from usernsplan.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from usernsplan.engines import Pool
    from usernsplan.ids import IdRange
    from usernsplan.mapping import Mapping, Pass
    from usernsplan.model import AllocateRequest, Allocation, HostState, Published
    from usernsplan.strategies import Strategy

# README explains the strategies; this is the short form.
_WHICH = """\
per-container  each container has a range of its own: the strongest separation, the usual choice
  single-uid     each container is one uid and one gid, numbered as OpenShift does
  shared         container root is one id, and every other id is the host's own: for volumes that
                 containers share with people of this host
  For example: """
_SHOWN = 5
_NEED_NO_LINE = "engines that need no line (Podman as root, crun, runc, nspawn, containerd) can use"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One allocation as the request wants it on this host. Only its ids are still open.

    ``strategy`` makes the final map: DOCKERROOT is a number, and a shared map for Docker has its
    filler. ``start`` is the first host id and ``pool`` the range to take ids from, if the request
    names them. ``known`` is the existing allocation of this name: it fits the request and needs no
    ids. ``extra_owners`` get the same lines; owners that have them already are not included.
    ``in_files`` is False if only the ledger has it. ``publish`` is where the request publishes it.
    ``within`` is the owner of whose lines it is a slice, and ``map`` the map that such a slice is
    to have; None: the strategy makes it. ``local``: in a fleet, it is this host's alone.
    ``is_of_fleet``: other hosts have the name, and so ``start`` is theirs.
    """

    name: str
    owner: str
    strategy: Strategy
    start: int | None = None
    pool: IdRange | None = None
    extra_owners: tuple[str, ...] = ()
    known: Allocation | None = None
    in_files: bool = True
    publish: Published | None = None
    within: str = ""
    map: Mapping | None = None
    local: bool = False
    is_of_fleet: bool = False

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The host ids that its map shows."""
        return self.strategy.passes if isinstance(self.strategy, PerContainer) else ()

    @property
    def has_lines(self) -> bool:
        """Tell whether lines of subuid and subgid grant it; see holdings.has_lines."""
        return self.in_files and not _is_past_subid(self.strategy)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A whole request: containers, and the pools of engines that divide a range themselves.

    ``are_named``: the request names the ``engines``. If not, they are the installed ones; a pool that
    is impossible is then left out, and ``findings`` say so. ``docker`` is the name of the allocation
    for Docker's remap; None: daemon.json stays as it is. ``replace_remap`` permits replacing another
    remap. ``from_file``: a plan file asks.
    """

    containers: tuple[Wanted, ...]
    pools: tuple[Wanted, ...]
    engines: tuple[str, ...]
    are_named: bool
    docker: str | None
    replace_remap: bool
    findings: tuple[Finding, ...]
    from_file: bool = False

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
    options = _with_passes(state, options, existing)
    former = former_owners(state)
    containers = tuple(
        as_in_fleet(
            state,
            _container(
                request,
                engines,
                name,
                one,
                existing.get(name),
                usual=former.get(name) or owner_of(name),
            ),
        )
        for name, one in options.items()
    )
    _refuse_past_docker(state, containers)
    _refuse_bypassed_files(state, containers)
    with concerning(option="strategy"):
        _refuse_other_strategy(state, strategy)

    owners = {a.owner: a.name for a in state.ledger.allocations if a.owner != ROOT and not a.within}
    accounts = {user.name for user in state.accounts.users}
    # An engine that starts a daemon for each owner needs an account of that name.
    are_meant = any(ENGINES[engine].owner_is_account for engine in engines)
    for one in containers:
        is_meant = are_meant or options[one.name].owner or _is_dockers(request, one.name)
        with concerning(one.name):
            if one.has_lines and not (is_meant or one.known):
                if one.owner in accounts:
                    refuse_account(state, one.owner, place_of_account(state, one.owner))
                if state.accounts.elsewhere(one.owner):
                    refuse_account(state, one.owner, NSSWITCH)
            if one.has_lines and not (one.known or _is_dockers(request, one.name)):
                refuse_own_id(state, one.name, one.owner, one.strategy)
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
        from_file=request.from_file,
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
    # No other strategy has passes or slices.
    is_meant = request.passes or request.within
    if not (state.ledger.allocations or is_meant):
        words = shell(*request.names[:3]) or "--docker"
        command = state.layout.command(f"allocate --strategy {PerContainer.name} {words}")
        raise InvalidValueError(
            "the strategy is missing, and this host has no allocation yet that defines it",
            hint=_WHICH + command,
        )
    there = state.ledger.allocations
    strategy = there[0].strategy if there else PerContainer.name
    try:
        return named(strategy, with_defaults(strategy, request.options, request.defaults))
    except InvalidValueError as error:
        error.hint = (
            error.hint or f"this host's strategy is {strategy}, and a host has only one strategy"
        )
        raise


def _engines(state: HostState, request: AllocateRequest) -> tuple[str, ...]:
    """The engines to serve: those of the request, else the installed ones, else Docker.

    If LXD or Incus is installed, engines that need root's lines are served only on request: on such
    a host, most containers are instances with ids of their own.
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
    if request.within and not request.names:
        raise InvalidValueError("--within needs a name to allocate", hint="name the containers")
    if len(set(request.names)) > 1 and (request.owner is not None or request.start is not None):
        raise InvalidValueError(
            "--owner and --start are for one name, and there are several",
            hint="allocate them one at a time",
        )
    if request.names or request.engines is None or "docker" in engines:
        return tuple(dict.fromkeys(request.names or (DEFAULT_NAME,)))
    if request.passes:
        raise InvalidValueError(
            f"the pool of {engines[0]} is for many containers, and ids pass through to one",
            hint="name the container",
            option="pass",
        )
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
    usual = ContainerOptions(
        strategy,
        request.owner,
        request.start,
        in_files=request.in_files,
        within=request.within,
        passes=request.passes,
        pass_privileged=request.pass_privileged,
    )
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


def _with_passes(
    state: HostState, options: dict[str, ContainerOptions], existing: Collection[str]
) -> dict[str, ContainerOptions]:
    """The options of each name, with its passes in the strategy.

    What an existing allocation has was permitted when it was made. Raises what Passes raises, and
    InvalidValueError if the strategy has no passes.
    """
    asked = Passes(state)
    found = dict(options)
    for name, one in options.items():
        if not one.passes:
            continue
        with concerning(name, "pass"):
            if not isinstance(one.strategy, PerContainer):
                raise _no_passes(one.strategy)
            passes = asked.of(one.passes)
            if name not in existing:
                asked.refuse(passes, permitted=one.pass_privileged)
        found[name] = replace(one, strategy=replace(one.strategy, passes=passes))
    return found


def _no_passes(strategy: Strategy) -> InvalidValueError:
    """The error if a strategy has no passes, with what it has instead."""
    why = (
        "every id of the host passes through already, but container root's"
        if isinstance(strategy, Shared)
        else "a container is one id of its own"
    )
    return InvalidValueError(
        f"with the strategy {strategy.name} {why}",
        hint=f"leave it out; only the strategy {PerContainer.name} has passes",
    )


def _container(  # noqa: PLR0913 - the request, and what the host has of one name
    request: AllocateRequest,
    engines: Iterable[str],
    name: str,
    options: ContainerOptions,
    existing: Allocation | None,
    *,
    usual: str,
) -> Wanted:
    owner = options.within or options.owner or (existing.owner if existing else usual)
    strategy = options.strategy
    if isinstance(strategy, Shared) and _is_dockers(request, name):
        # Docker lays its ranges end to end, so its map must not have a gap.
        strategy = replace(strategy, filler=True)

    in_files = existing is None or existing.in_files
    if options.in_files is not None:
        in_files = options.in_files
    in_files = in_files and not options.within
    with concerning(name, "within"):
        slices.refuse_contradictions(request, name, options)
    with concerning(name, "lines"):
        _refuse_without_lines(request, name, options)

    # Docker's own allocation has no container, and a map that is in no file cannot be granted.
    is_granted = name != DEFAULT_NAME and in_files and not _is_past_subid(strategy)
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
        in_files=in_files,
        publish=options.publish or request.publish,
        within=options.within,
        map=slices.map_of(options),
        local=request.local or options.local,
    )


def _refuse_without_lines(request: AllocateRequest, name: str, options: ContainerOptions) -> None:
    """Raise InvalidValueError if an allocation shall have no lines, and something else needs them."""
    if options.in_files is not False:
        return
    if _is_dockers(request, name):
        raise InvalidValueError(
            "Docker takes its map from subuid and subgid, so its allocation needs lines",
            hint="leave out --no-lines",
            in_file="leave it out for this one",
        )
    if options.owner is not None:
        raise InvalidValueError(
            "an allocation without lines has no owner of lines",
            hint="leave out --owner or --no-lines",
            in_file="leave out this key or the owner",
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


def _refuse_bypassed_files(state: HostState, wanted: Iterable[Wanted]) -> None:
    """Raise RefusedError if one of these needs lines and the host does not read the files."""
    if state.subid_source.reads_files:
        return
    services, plugin = " ".join(state.subid_source.services), state.subid_source.plugin
    for one in wanted:
        if not one.has_lines:
            continue
        hint = "grant ranges in that service, or write 'subid: files' there"
        alone = "" if one.name == DEFAULT_NAME or pool_named(one.name) else f"; {_NEED_NO_LINE} "
        with concerning(one.name):
            raise RefusedError(
                f"{state.layout.path(NSSWITCH)}:{state.subid_source.number}: 'subid: {services}', "
                f"and {state.layout.path(plugin)} is installed: newuidmap and Podman take "
                "subordinate ids from there and do not read subuid and subgid",
                hint=hint + (alone and f"{alone}--no-lines"),
                in_file=hint + (alone and f"{alone}'lines: false'"),
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
        if one.within or one.known.within:
            from usernsplan.planner.remap import command_for  # noqa: PLC0415 - slow to load

            remap = command_for(state.layout, one.known, one.strategy, one.start)
            slices.refuse_other(state, one, one.known, remap)
        else:
            _refuse_other_request(state, one, one.known)
        return
    if one.within:
        return
    if one.owner in owners:
        other = other_owner(one.name, owners)
        allocate = state.layout.command(f"allocate {shell(one.name)} --owner {shell(other)}")
        raise RefusedError(
            f"the owner {one.owner} has the allocation '{owners[one.owner]}': "
            "readers would join a second one to it",
            hint=f"give '{one.name}' another owner: {allocate}",
            in_file=f"give '{one.name}' another owner: 'owner: {other}'",
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
        option = differing(one.strategy, existing.mapping, held) or "pass"
        passes = ", ".join(written(existing.passes)) or "none"
        what = (
            f"with other passes: {passes}"
            if option == "pass"
            else f"with other options, as host uids {ids}"
        )
    elif one.owner != existing.owner:
        what, option = f"to the owner {existing.owner}", "owner"
    elif one.start is not None and not (held and held.start == one.start):
        what, option = f"as host uids {ids}", "start"
    elif one.in_files != existing.in_files:
        what, option = "with lines" if existing.in_files else "without lines", "lines"
    else:
        return
    from usernsplan.planner.remap import command_for  # noqa: PLC0415 - only after a mistake

    release = state.layout.inline(f"release {shell(one.name)}")
    hint = f"to change it, run {release} and allocate it again; then fix its volumes"
    is_same = one.owner == existing.owner and one.in_files == existing.in_files
    if is_same and (remap := command_for(state.layout, existing, one.strategy, one.start)):
        hint = f"to change it, with its volumes: {remap}"
    raise RefusedError(
        f"'{one.name}' is allocated already, {what}",
        hint=hint,
        option=option,
    )


def _has_shape(existing: Allocation, strategy: Strategy) -> bool:
    held, need = existing.reserved_range, strategy.need
    passes = strategy.passes if isinstance(strategy, PerContainer) else ()
    return (
        existing.passes == passes
        and (held.count if held else None) == (need.count if need else None)
        and (strategy.mapping(held.start if held else None) == existing.mapping)
    )


def _engines_with_pools(
    request: AllocateRequest, strategy: Strategy, engines: Iterable[str]
) -> dict[str, Pool]:
    """The pools that these engines need, by the engine's name.

    Raises RefusedError if the request names an engine with a pool and the strategy is not
    per-container, and InvalidValueError for options of a pool that the request does not make.
    """
    wanted = {name: pool for name in engines if (pool := ENGINES[name].pool)}
    if request.within and request.engines is None:
        # Slices change no file, so nothing else does.
        wanted = {}
    if request.in_files is False:
        for name in wanted if request.engines is not None else ():
            raise InvalidValueError(
                f"{name} takes the ids of its containers from lines", hint="leave out --no-lines"
            )
        wanted = {}
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
        option = pool.option if request.pools[name].containers is not None else pool.each
        raise InvalidValueError(f"{option} needs its engine", hint=f"add --engine {name}")
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
        is_known = any(a.name == a.owner == pool.owner for a in state.ledger.allocations)
        user = state.accounts.user(pool.owner)
        names = {pool.owner, str(user.uid)} if user else {pool.owner}
        has_lines = any(names & file.by_owner().keys() for file in (state.subuid, state.subgid))
        if request.engines is None and not is_known and has_lines:
            # The owner has lines of another origin, and nobody asked for the pool: leave them.
            continue
        try:
            if request.engines is None:
                _refuse_to_stop(state, engine, pool)
            one = _pool(state, request, engine, pool, start)
            if not (one.known and request.pools.get(engine) is None and one.start is None):
                _admit(state, owners, one)
            _refuse_bypassed_files(state, (one,))
        except UsernsplanError as error:
            if request.engines is not None:
                raise
            left.append(not_done(pool.owner, error))
            continue
        found.append(one)
    return found, left


def _refuse_to_stop(state: HostState, engine: str, pool: Pool) -> None:
    """Raise RefusedError if the account of a pool that nobody asked for would stop its engine."""
    is_account = state.accounts.user(pool.owner) is not None
    if engine == "kubernetes" and not is_account and not state.kubelet.has_getsubids:
        raise RefusedError(
            f"the program getsubids is missing, and a kubelet with the account {pool.owner} does "
            "not start without it",
            hint="install uidmap (Debian, Ubuntu) or shadow-utils (Fedora)",
        )


def _pool(
    state: HostState, request: AllocateRequest, engine: str, pool: Pool, start: int | None
) -> Wanted:
    """The pool of one engine. An existing pool keeps its size unless the request names another."""
    if not pool.account and state.accounts.user(pool.owner):
        raise RefusedError(
            f"{state.layout.path(place_of_account(state, pool.owner))}: '{pool.owner}' is an account: "
            "its processes could map the pool",
            hint=f"rename the account: {engine} uses only the lines of this owner",
        )
    existing = next((a for a in state.ledger.allocations if a.name == a.owner == pool.owner), None)
    said = request.pools.get(engine, PoolOptions())
    if existing and existing.reserved_range and (said.containers, said.ids_each) == (None, None):
        each, size = SLOT, existing.reserved_range.count
    else:
        each = _ids_each(state, engine, pool, said)
        size = each * (_containers(state, pool) if said.containers is None else said.containers)
    try:
        strategy = PerContainer(size, each)
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
        publish=said.publish or request.publish,
        # Each host gives the ids of its pool to containers of its own.
        local=True,
    )


def _containers(state: HostState, pool: Pool) -> int:
    """How many containers the pool of an engine has room for, if the request does not say."""
    return state.kubelet.max_pods if pool.each else pool.containers


def _ids_each(state: HostState, engine: str, pool: Pool, said: PoolOptions) -> int:
    """How many ids each container of a pool gets; the kubelet's own configuration may say it.

    Raises InvalidValueError for a number that the engine cannot use, and RefusedError if its
    configuration cannot be read.
    """
    if not pool.each:
        if said.ids_each is not None:
            raise InvalidValueError(
                f"{engine} gives each of its containers {SLOT} ids", hint="leave out the number"
            )
        return SLOT
    if said.ids_each is None:
        if state.kubelet.problem:
            raise RefusedError(
                f"the number of ids of each pod is unknown: {state.kubelet.problem}",
                hint=f"correct the file, or name the number: {pool.each} {SLOT}",
                in_file=f"correct the file, or name the number: 'ids-per-pod: {SLOT}'",
            )
        return state.kubelet.ids_per_pod
    if said.ids_each < SLOT or said.ids_each % SLOT:
        raise InvalidValueError(
            f"{said.ids_each} ids for each pod: the kubelet wants a multiple of {SLOT}",
            hint=f"use {SLOT} or {2 * SLOT}",
        )
    return said.ids_each


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
