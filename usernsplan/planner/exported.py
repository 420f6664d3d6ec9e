"""A host -> the plan file that describes it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.claims.pool import pool_of
from usernsplan.engines import ENGINES, engine_of_pool, verdict
from usernsplan.engines.mounts import standing
from usernsplan.formats.spec import Spec, SpecContainer, SpecReservation, SpecVolume
from usernsplan.ids import IdRange
from usernsplan.model import DEFAULT_NAME
from usernsplan.planner.daemon import remapped_to
from usernsplan.planner.names import owner_of
from usernsplan.strategies import SLOT, Shared, named, options_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from usernsplan.model import Allocation, HostState, Volume

# The first engine that wants lines to be granted to an owner stands for all: they ask for the same.
_ASKING = {it.extra_owners: name for name, it in reversed(ENGINES.items()) if it.extra_owners}


def exported(state: HostState, defaults: Mapping[str, int] | None = None) -> Spec:
    """The plan file of a host as it is: planning by it changes nothing there.

    Where the host has ``defaults`` for options, what is left out would not be as it usually is: nothing is.
    """
    containers = [a for a in state.ledger.allocations if not engine_of_pool(a)]
    pools = [
        (engine, a.reserved_range)
        for a in state.ledger.allocations
        if (engine := engine_of_pool(a)) and a.reserved_range
    ]
    daemon = _pointed_at(state, containers)
    strategy = state.ledger.allocations[0].strategy if state.ledger.allocations else "per-container"
    engines = ["docker"] if daemon else []
    volumes: dict[str, list[SpecVolume]] = {}
    for volume in standing(state.ledger).values():
        if (mode := volume.known_mode) and not why_left_out(volume):
            spec = SpecVolume(volume.path, mode, volume.user, 0)
            volumes.setdefault(volume.name, []).append(spec)

    return Spec(
        place="",
        strategy=strategy,
        pool=_pool(state, containers),
        engines=(*engines, *(engine for engine, _ in pools)),
        pools=tuple((engine, held.count // SLOT) for engine, held in pools),
        pool_starts=tuple((engine, held.start) for engine, held in pools),
        daemon=daemon or (False if any(a.name == DEFAULT_NAME for a in containers) else None),
        containers=tuple(
            _container(a, daemon, volumes.get(a.name, ()), usual=bool(defaults)) for a in containers
        ),
        reservations=tuple(SpecReservation(r.ids, r.why, 0, "") for r in state.ledger.reservations),
    )


def _container(
    a: Allocation, daemon: str | None, volumes: Iterable[SpecVolume], *, usual: bool
) -> SpecContainer:
    # A shared map takes ids of its own only for Docker.
    starts = a.strategy != Shared.name or a.name in {DEFAULT_NAME, daemon}
    return SpecContainer(
        name=a.name,
        line=0,
        at="",
        owner=a.owner if a.owner != owner_of(a.name) else None,
        start=a.reserved_range.start if a.reserved_range and starts else None,
        options=options_of(a.strategy, a.mapping, a.reserved_range, usual=usual),
        engines=tuple(_ASKING[owner] for owner in a.extra_owners if owner in _ASKING),
        volumes=tuple(volumes),
    )


def why_left_out(volume: Volume) -> str:
    """Why a plan file cannot say of a volume what the ledger does; "" where it can.

    YAML has no way of writing some paths, and an older version did not note to which user a volume was given.
    """
    if volume.known_mode is None:
        return f"its mode {volume.mode!r} is unknown to this usernsplan"
    if not volume.path.isprintable():
        return "YAML cannot write its path"
    return "its user was not noted" if volume.mode == "own" and not volume.user else ""


def _pool(state: HostState, containers: Iterable[Allocation]) -> IdRange | None:
    """From where to where ranges were taken, where that is not the pool that goes without saying."""
    own = [a for a in containers if a.reserved_range and a.strategy != Shared.name]
    usual = [pool_of(state, named(a.strategy, {}), None) for a in own[:1]]
    held = sorted(a.reserved_range for a in own if a.reserved_range)
    if all(ids.start in usual[0] and ids.last in usual[0] for ids in held):
        return None
    first, last = held[0].start, max(ids.last for ids in held)
    return IdRange(first, last - first + 1)


def _pointed_at(state: HostState, containers: Iterable[Allocation]) -> str | None:
    """The allocation that Docker's remap points at."""
    user = remapped_to(state)
    if user is None or not (state.accounts.user(user) and state.accounts.group(user)):
        # No daemon starts from it; a file that says so would make the account.
        return None
    return next((a.name for a in containers if a.owner == user and verdict("docker", a).can), None)
