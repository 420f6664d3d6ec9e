"""allocate: which name gets which ids. The lines are put together in grants, Docker's part in daemon."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from usernsplan.claims.pool import pool_of
from usernsplan.claims.sources import claims_of
from usernsplan.engines import known as known_engine
from usernsplan.engines import pool_of as pool_of_engine
from usernsplan.errors import InvalidValueError, RefusedError, UsernsplanError, about
from usernsplan.escape import shell
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import NSSWITCH
from usernsplan.model import DEFAULT_NAME, ROOT, Allocation, Finding, LedgerChange, Plan
from usernsplan.planner import advice, daemon, needs, returning
from usernsplan.planner.grants import Grants
from usernsplan.planner.names import check_name, check_owner, owner_of, refuse_account
from usernsplan.planner.taken import holders, is_taken, take
from usernsplan.planner.unsaid import settled
from usernsplan.strategies import SHARED_SUBID_LAST, Shared, Strategy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.claims.index import Claims
    from usernsplan.model import AllocateRequest, HostState, Quarantined
    from usernsplan.strategies import Need


@dataclass(slots=True)
class _Draft:
    """A plan while it is made: the host, the engines to be served, the lines and the allocations that are to come."""

    state: HostState
    claims: Claims
    engines: tuple[str, ...]
    grants: Grants
    known: dict[str, Allocation]
    new: dict[str, Allocation] = field(default_factory=dict)
    # Lines that stood before, of allocations that are widened.
    found: list[tuple[str, str, str]] = field(default_factory=list)
    # By name, what comes back of what it had until it was released; and what is to be said of that.
    back: dict[str, Quarantined] = field(default_factory=dict)
    notes: list[Finding] = field(default_factory=list)

    def of(self, names: Iterable[str]) -> list[Allocation]:
        """The allocations of these names, which are known or new."""
        return [self.known.get(name) or self.new[name] for name in names]


def make_plan(state: HostState, request: AllocateRequest) -> Plan:
    """Decide one ``allocate``: all the names or none.

    A name that is allocated already, by the same words, stays as it is; lines that it lost are put back. Raises
    RefusedError, InvalidValueError, InvalidFileError or PoolExhaustedError, and says what stands in the way.
    """
    request = settled(state, request)
    with about(option="engines"):
        engines = needs.chosen(state, request)
        pools = needs.pools(state, request, engines)
    names = _names(request, engines, has_pools=bool(pools))
    _refuse_past_docker(state, request, names)
    _refuse_bypassed_files(state)
    with about(option="strategy"):
        _refuse_other_strategy(state, request.strategy)
    claims = claims_of(state).where(is_taken)
    known = {a.name: a for a in state.ledger.allocations}
    draft = _Draft(state, claims, engines, Grants(state), known)
    _take(draft, request, names)
    with about(option="engines"):
        left_out = [_take_pool(draft, pool, named=request.engines is not None) for pool in pools]
    if request.daemon in draft.known and request.daemon not in names:
        # What Docker is to be pointed at needs its lines too, named again or not.
        draft.grants.restore(draft.known[request.daemon])
    containers = draft.of(names)
    also = {a.name: more for a in containers if (more := _widen(draft, request, a))}
    with about(option="daemon"):
        docker = _docker(draft, request)
    allocations = [
        replace(a, extra_owners=(*a.extra_owners, *also.get(a.name, ()))) for a in containers
    ]
    allocations += draft.of(
        name for pool in pools for name in pool.names if name in draft.known | draft.new
    )
    made = daemon.with_accounts(state, needs.accounts(engines, allocations))
    return Plan(
        kind="allocate",
        allocations=tuple(allocations),
        changes=draft.grants.changes() + docker.changes,
        restored=tuple(draft.grants.restored),
        ledger=LedgerChange(
            add=tuple(draft.new.values()),
            extra_owners=tuple((name, owner) for name, more in also.items() for owner in more),
            found=tuple(draft.found),
            unkeep=tuple((name, former.reserved_range) for name, former in draft.back.items()),
        ),
        account_commands=tuple(dict.fromkeys(docker.commands + made.commands)),
        findings=(
            *advice.findings(state, allocations),
            *draft.grants.findings,
            *draft.notes,
            *needs.findings(state, request, engines, containers),
            *chain(*left_out),
            *docker.findings,
            *made.findings,
        ),
        next_steps=tuple(
            dict.fromkeys(
                docker.next_steps
                + made.next_steps
                + advice.next_steps(state, request, draft.new.values())
            )
        ),
        unfinished=docker.unfinished or made.unfinished,
        consequences=docker.consequences,
    )


def _take(draft: _Draft, request: AllocateRequest, names: Iterable[str]) -> None:
    """Put the lines of the names that are known back where they went, and make the others."""
    for name in names:
        if name in draft.known:
            with about(name):
                _refuse_other_words(draft.state, draft.known[name], request)
                draft.grants.restore(draft.known[name])
    _allocate(draft, request, [name for name in names if name not in draft.known])


def _take_pool(draft: _Draft, pool: AllocateRequest, *, named: bool) -> tuple[Finding, ...]:
    """The same for a pool. An engine that is merely installed stands in nobody's way: what it cannot have is told."""
    if not named:
        try:
            # On a draft that is thrown away: half of what was tried is not to stay.
            tried = replace(
                draft,
                grants=Grants(draft.state),
                new=dict(draft.new),
                back=dict(draft.back),
                notes=[],
            )
            _take(tried, pool, pool.names)
        except UsernsplanError as error:
            message = f"nothing is done for the pool of {pool.names[0]}, whose engine is installed here: {error}"
            hint = f"--engine {needs.pool_named(pool.names[0])} asks for it, and says what stands in the way"
            return (Finding("USN124", "warning", message, hint),)
    _take(draft, pool, pool.names)
    return ()


def _widen(draft: _Draft, request: AllocateRequest, allocation: Allocation) -> tuple[str, ...]:
    """Grant the lines of an allocation to whom else an engine wants them granted, and say to whom."""
    engines = (*draft.engines, *request.words(allocation.name).engines)
    more = tuple(
        o for o in needs.further_owners(engines, allocation) if o not in allocation.extra_owners
    )
    for owner in more:
        draft.found += [(allocation.name, *line) for line in draft.grants.widen(allocation, owner)]
    return more


def _names(
    request: AllocateRequest, engines: tuple[str, ...], *, has_pools: bool
) -> tuple[str, ...]:
    """The containers. Without a name it is Docker's own allocation, unless other engines were named."""
    for name in request.names:
        with about(name):
            _check_container(request, name)
    names = tuple(dict.fromkeys(request.names))
    if request.from_file:
        return names
    names = names or (DEFAULT_NAME,)
    if not request.names and request.engines is not None and "docker" not in engines:
        if not has_pools:
            hint = "name the containers; only Docker has an allocation without a name"
            raise InvalidValueError(f"--engine {engines[0]} without a name to allocate", hint=hint)
        if request.owner is not None:
            raise InvalidValueError(
                "--owner without a name to allocate", hint="a pool's owner is its engine's own"
            )
        names = ()
    _check_words(request)
    if len(names) > 1 and (request.owner is not None or request.start is not None):
        raise InvalidValueError(
            "--owner and --start are about one name, and several are given",
            hint="allocate them one at a time",
        )
    return names


def _check_container(request: AllocateRequest, name: str) -> None:
    """Raise InvalidValueError for a name that no container can have, or an owner that no line can."""
    if not (request.from_file and name == DEFAULT_NAME):
        check_name(name)
    if engine := needs.pool_named(name):
        hint = f"--engine {engine} makes it; give the container another name"
        raise InvalidValueError(f"'{name}' is the name of the pool of {engine}", hint=hint)
    with about(option="engines"):
        for engine in request.words(name).engines:
            known_engine(engine)
    if name in request.each and (owner := request.words(name).owner) is not None:
        with about(option="owner"):
            check_owner(owner)


def _check_words(request: AllocateRequest) -> None:
    """Raise InvalidValueError for a --daemon or --owner that cannot be."""
    if request.daemon is not None:
        if request.daemon != DEFAULT_NAME:
            check_name(request.daemon)
        if not request.names:
            again = f"allocate {shell(request.daemon)} --daemon {shell(request.daemon)}"
            raise InvalidValueError("--daemon without a name to allocate", hint=f"say '{again}'")
        if not request.daemon_config:
            raise InvalidValueError("--daemon with --no-daemon-config", hint="one of the two")
    if request.owner is not None:
        check_owner(request.owner)


def _refuse_past_docker(state: HostState, request: AllocateRequest, names: Iterable[str]) -> None:
    """Raise InvalidValueError for a map of Docker's own that subuid cannot carry."""
    for name in names:
        strategy = _variant(request, name)
        if not (isinstance(strategy, Shared) and strategy.filler):
            continue
        last = strategy.max - 1 if strategy.identity else strategy.max
        if last > SHARED_SUBID_LAST:
            if request.from_file:
                hint = "leave --max out for this one; Podman and OCI runtimes take other containers past it"
            else:
                root = "--identity" if strategy.identity else f"--dockerroot {strategy.dockerroot}"
                other = name if name != DEFAULT_NAME else "web"
                words = f"allocate --strategy {strategy.name} {root} --max {strategy.max} {other}"
                made, shown = (
                    state.layout.command(words),
                    state.layout.command(f"render podman {other}"),
                )
                hint = f"leave --max out; for Podman or OCI a container has a larger one: '{made}', then '{shown}'"
            with about(name, "max"):
                raise InvalidValueError(
                    f"--max {strategy.max}: Docker's own map comes from subuid, "
                    f"where a shared one ends at {SHARED_SUBID_LAST}",
                    hint=hint,
                )


def _refuse_bypassed_files(state: HostState) -> None:
    if not state.subid_source.reads_files:
        services = " ".join(state.subid_source.services)
        raise RefusedError(
            f"{state.layout.path(NSSWITCH)}:{state.subid_source.number}: 'subid: {services}': newuidmap and Podman "
            "take subordinate ids from there and do not read subuid and subgid",
            hint="grant ranges in that service, or say 'subid: files'",
        )


def _refuse_other_strategy(state: HostState, strategy: Strategy) -> None:
    others = [a.name for a in state.ledger.allocations if a.strategy != strategy.name]
    if others:
        names = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if others[5:] else "")
        theirs = state.ledger.allocations[0].strategy
        raise RefusedError(
            f"this host's strategy is {theirs}, and one host has one strategy: {names}",
            hint=f"use --strategy {theirs}, or {state.layout.inline('release ' + shell(*others[:5]))} first",
        )


def _docker_target(request: AllocateRequest) -> str | None:
    """The name that Docker is to use. Naming containers never switches its remap on: only --daemon or no name does.

    A plan file names Docker's own allocation where it wants it.
    """
    means_default = DEFAULT_NAME in request.names if request.from_file else not request.names
    return request.daemon or (DEFAULT_NAME if means_default else None)


def _docker(draft: _Draft, request: AllocateRequest) -> daemon.Pointed:
    target, state, known = _docker_target(request), draft.state, draft.known | draft.new
    if target is None or not request.daemon_config:
        return daemon.Pointed()
    if request.daemon is None and "docker" not in draft.engines:
        return daemon.Pointed(findings=daemon.not_here(state) if request.engines is None else ())
    if target not in known:
        how = (
            "'allocate' without a name makes it"
            if target == DEFAULT_NAME
            else f"name it too: 'allocate {shell(target)} …'"
        )
        raise InvalidValueError(f"--daemon {target}: no such allocation", hint=how)
    if engine := pool_of_engine(known[target]):
        raise InvalidValueError(
            f"--daemon {target}: that is the pool of {engine}", hint="name a container's allocation"
        )
    pointed = daemon.point_at(state, known[target], replace_remap=request.replace_remap)
    lines_change = target in draft.grants.restored or target in draft.new
    if lines_change and not pointed.changes and not pointed.unfinished:
        return replace(pointed, next_steps=(daemon.RESTART,))
    return pointed


def _variant(request: AllocateRequest, name: str) -> Strategy:
    """The strategy as this name gets it: a shared map that Docker is to make must be without a gap."""
    strategy = request.words(name).strategy
    if isinstance(strategy, Shared) and name in {DEFAULT_NAME, _docker_target(request)}:
        return replace(strategy, filler=True)
    return strategy


def _refuse_other_words(state: HostState, known: Allocation, request: AllocateRequest) -> None:
    """Raise RefusedError unless the request describes the allocation that stands."""
    words = request.words(known.name)
    shapes = [words.strategy]
    if (
        isinstance(words.strategy, Shared)
        and words.strategy.max <= SHARED_SUBID_LAST + words.strategy.identity
    ):
        # Whether Docker was to use it is not repeated by words that only name it again.
        shapes.append(replace(words.strategy, filler=True))
    release = state.layout.inline(f"release {shell(known.name)}")
    anew = f"{release} first, then allocate it anew; its files need their owners shifted"
    ids = ", ".join(map(str, known.mapping.uids.host_ranges()))
    if not any(_has_shape(known, shape) for shape in shapes):
        raise RefusedError(
            f"'{known.name}' is allocated already, by other words, as host uids {ids}", hint=anew
        )
    if words.owner not in {None, known.owner}:
        raise RefusedError(
            f"'{known.name}' is allocated already, to the owner {known.owner}", hint=anew
        )
    if words.start is not None and not (
        known.reserved_range and known.reserved_range.start == words.start
    ):
        raise RefusedError(f"'{known.name}' is allocated already, as host uids {ids}", hint=anew)


def _has_shape(known: Allocation, strategy: Strategy) -> bool:
    base, count = (
        (known.reserved_range.start, known.reserved_range.count)
        if known.reserved_range
        else (None, None)
    )
    return (
        count == (strategy.need.count if strategy.need else None)
        and strategy.mapping(base) == known.mapping
    )


def _allocate(draft: _Draft, request: AllocateRequest, names: Iterable[str]) -> None:
    """Add the allocations that are yet to be made to the draft, and their lines."""
    owners = _owners(draft, request, names)
    # Those that want one place first: it may be where the others would come to lie.
    placed = {name: start for name in owners if (start := request.words(name).start) is not None}
    former = returning.of(
        draft.state, {name: (owner, _variant(request, name)) for name, owner in owners.items()}
    )
    made = []
    for name, start in placed.items():
        with about(name, "start"):
            made.append(_made(draft, request, name, owners[name], start))
        if back := next(
            (one for one in former.get(name, ()) if one.reserved_range == made[-1].reserved_range),
            None,
        ):
            draft.back[name] = back
    _check_starts(draft, request, made)
    bases = placed | _again(draft, request, owners, former, made)
    bases |= _first_fit(draft, request, [name for name in owners if name not in bases], made)
    for name, owner in owners.items():
        with about(name):
            allocation = _made(draft, request, name, owner, bases.get(name))
        with about(name):
            draft.new[name] = draft.grants.add(
                returning.since_then(allocation, draft.back.get(name))
            )
    draft.notes += returning.told(
        draft.state, {name: one for name, one in draft.back.items() if name in owners}
    )
    draft.notes += returning.missed(
        draft.state, (draft.new[name] for name in owners if name not in draft.back)
    )


def _again(
    draft: _Draft,
    request: AllocateRequest,
    owners: dict[str, str],
    former: dict[str, tuple[Quarantined, ...]],
    placed: Iterable[Allocation],
) -> dict[str, int]:
    """The first ids of the names whose former range comes back, the latest that nobody else has by now.

    What runs in it may be the very container, so that it is no hindrance.
    """
    wanted = {
        (name, one.reserved_range.start): one
        for name, found in former.items()
        for one in found
        if request.words(name).start is None and _is_in(one.reserved_range, request.pool)
    }
    if not wanted:
        return {}
    made = [_made(draft, request, name, owners[name], start) for name, start in wanted]
    others = returning.without(draft.grants.without(draft.claims, *made), wanted.values())
    taken = others.where(lambda claim: claim.source != "namespace").ids
    taken |= IdSet(a.reserved_range for a in (*draft.new.values(), *placed) if a.reserved_range)
    found = dict[str, int]()
    for (name, start), one in wanted.items():
        if name not in found and not taken.meets(one.reserved_range.start, one.reserved_range.stop):
            found[name], draft.back[name] = start, one
            taken |= IdSet((one.reserved_range,))
    return found


def _is_in(held: IdRange, pool: IdRange | None) -> bool:
    return pool is None or (held.start in pool and held.last in pool)


def _owners(draft: _Draft, request: AllocateRequest, names: Iterable[str]) -> dict[str, str]:
    """Who owns the lines of each new name: an owner other than root holds one allocation, and is nobody by chance."""
    accounts = {user.name for user in draft.state.accounts.users}
    held = {
        a.owner: a.name for a in (*draft.known.values(), *draft.new.values()) if a.owner != ROOT
    }
    owners = {}
    for name in names:
        said = request.words(name).owner
        owner = owners[name] = said or owner_of(name)
        meant = (
            said
            or name in {DEFAULT_NAME, _docker_target(request)}
            or "docker-instance" in draft.engines
        )
        with about(name):
            if owner in accounts and not meant:
                refuse_account(draft.state, owner)
            if owner in held:
                raise RefusedError(
                    f"the owner {owner} has the allocation '{held[owner]}': readers would join a second one to it",
                    hint=f"give '{name}' another --owner",
                )
        if owner != ROOT:
            held[owner] = name
    return owners


def _made(
    draft: _Draft, request: AllocateRequest, name: str, owner: str, base: int | None
) -> Allocation:
    strategy = _variant(request, name)
    held = IdRange(base, strategy.need.count) if base is not None and strategy.need else None
    made = Allocation(name, owner, strategy.name, strategy.mapping(base), held)
    return replace(
        made,
        extra_owners=needs.further_owners((*draft.engines, *request.words(name).engines), made),
    )


def _first_fit(
    draft: _Draft, request: AllocateRequest, names: Iterable[str], placed: Iterable[Allocation]
) -> dict[str, int]:
    """The first id of each name that takes a range from the pool; ``placed`` have theirs, and are not lines yet."""
    wanted: dict[Need, list[str]] = {}
    for name in names:
        if need := _variant(request, name).need:
            wanted.setdefault(need, []).append(name)
    found = dict[str, int]()
    new = IdSet(a.reserved_range for a in (*draft.new.values(), *placed) if a.reserved_range)
    for need, group in wanted.items():
        with about(option="pool"):
            pool = pool_of(draft.state, request.strategy, request.pool)
            bases = take(pool, draft.claims.ids | new, need, len(group))
        found |= zip(group, bases, strict=True)
        new |= IdSet(IdRange(base, need.count) for base in bases)
    return found


def _check_starts(draft: _Draft, request: AllocateRequest, asked: Sequence[Allocation]) -> None:
    """Raise an error where a first id that was named cannot be had."""
    grants = draft.grants
    for one in asked:
        with about(one.name, "start"):
            _check_start(draft, request, one)
    leave = "leave --start out: we find one"
    for (held, name), (following, other) in pairwise(_held([*draft.new.values(), *asked])):
        if held.overlaps(following):
            with about(other, "start"):
                raise RefusedError(
                    f"--start: {held} of '{name}' and {following} of '{other}' overlap", hint=leave
                )
    # Almost always nothing is in the way of any; only where something is, it is looked at whose it is.
    adopted = [one for one in asked if grants.stands(one)]
    claims = returning.without(draft.claims, draft.back.values())
    taken = grants.without(claims, *adopted).ids if asked else IdSet()
    for held, name in _held(asked):
        if taken.meets(held.start, held.stop):
            [one] = (a for a in asked if a.name == name)
            others = grants.without(claims, one)
            if one in adopted or name in draft.back:
                others = others.where(lambda claim: claim.source != "namespace")
            for whose, overlap in holders(held, others, draft.state.layout):
                with about(name, "start"):
                    raise RefusedError(
                        f"--start: {held} is not free: {overlap} is {whose}", hint=leave
                    )


def _check_start(draft: _Draft, request: AllocateRequest, one: Allocation) -> None:
    """Raise an error where an allocation cannot lie where it was asked for, whoever has what."""
    need = _variant(request, one.name).need
    if one.reserved_range is None or need is None:
        raise InvalidValueError("--start: this allocation takes no range of its own")
    draft.grants.refuse_other_lines(one)
    # Lines that stand are adopted where somebody put them; containers may well be running in them. And a range that
    # the name had before was good enough then.
    if draft.grants.stands(one) or one.name in draft.back:
        return
    pool = pool_of(draft.state, request.strategy, request.pool)
    if one.reserved_range.start % need.align:
        raise InvalidValueError(
            f"--start {one.reserved_range.start} is not a multiple of {need.align}"
        )
    if not _is_in(one.reserved_range, pool):
        hint = "widen it with --pool FIRST-LAST"
        raise InvalidValueError(
            f"--start: {one.reserved_range} lies outside the pool {pool}", hint=hint
        )


def _held(allocations: Iterable[Allocation]) -> list[tuple[IdRange, str]]:
    """What they hold, and their names, in the order of the ids."""
    return sorted((a.reserved_range, a.name) for a in allocations if a.reserved_range)
