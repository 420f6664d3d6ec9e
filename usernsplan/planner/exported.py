"""HostState -> the plan file that describes the host. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.claims.pool import pool_of
from usernsplan.engines import ENGINES, engine_of_pool, verdict
from usernsplan.engines.mounts import standing
from usernsplan.formats.spec import Spec, SpecContainer, SpecEngine, SpecReservation, SpecVolume
from usernsplan.ids import IdRange
from usernsplan.model import DEFAULT_NAME
from usernsplan.planner.daemon import remapped_to
from usernsplan.planner.names import owner_of
from usernsplan.strategies import SLOT, Shared, named, options_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from usernsplan.model import Allocation, HostState, Volume

# Engines that need lines for a further owner all need the same lines, so the first stands for all.
_ASKING = {it.extra_owners: name for name, it in reversed(ENGINES.items()) if it.extra_owners}


def exported(state: HostState, defaults: Mapping[str, int] | None = None) -> Spec:
    """The plan file of a host as it is. Applying it to that host changes nothing.

    It omits options that have their built-in value, unless the host has ``defaults``: these would
    fill in what the file omits.
    """
    containers = [a for a in state.ledger.allocations if not engine_of_pool(a)]
    daemon = _pointed_at(state, containers)
    strategy = state.ledger.allocations[0].strategy if state.ledger.allocations else "per-container"

    engines = [SpecEngine("docker")] if daemon else []
    for a in state.ledger.allocations:
        if (engine := engine_of_pool(a)) and a.reserved_range:
            size = a.reserved_range.count // SLOT
            engines.append(SpecEngine(engine, size, a.reserved_range.start))

    volumes: dict[str, list[SpecVolume]] = {}
    for volume in standing(state.ledger).values():
        if (mode := volume.known_mode) and not why_left_out(volume):
            spec = SpecVolume(volume.path, mode, volume.user, 0)
            volumes.setdefault(volume.name, []).append(spec)

    return Spec(
        place="",
        strategy=strategy,
        pool=_pool(state, containers),
        engines=tuple(engines),
        daemon=daemon or (False if any(a.name == DEFAULT_NAME for a in containers) else None),
        containers=tuple(
            _container(a, daemon, volumes.get(a.name, ()), complete=bool(defaults))
            for a in containers
        ),
        reservations=tuple(SpecReservation(r.ids, r.why, 0, "") for r in state.ledger.reservations),
    )


def _container(
    a: Allocation, daemon: str | None, volumes: Iterable[SpecVolume], *, complete: bool
) -> SpecContainer:
    # Only Docker's shared map takes a range of its own, the filler.
    starts = a.strategy != Shared.name or a.name in {DEFAULT_NAME, daemon}
    return SpecContainer(
        name=a.name,
        line=0,
        at="",
        owner=a.owner if a.owner != owner_of(a.name) else None,
        start=a.reserved_range.start if a.reserved_range and starts else None,
        options=options_of(a.strategy, a.mapping, a.reserved_range, usual=complete),
        engines=tuple(_ASKING[owner] for owner in a.extra_owners if owner in _ASKING),
        volumes=tuple(volumes),
    )


def why_left_out(volume: Volume) -> str:
    """Why a plan file cannot describe a volume as the ledger does; "" if it can.

    YAML cannot write some paths, and an older version did not note the user of a volume.
    """
    if volume.known_mode is None:
        return f"its mode {volume.mode!r} is unknown to this usernsplan"
    if not volume.path.isprintable():
        return "YAML cannot write its path"
    return "its user was not noted" if volume.mode == "own" and not volume.user else ""


def _pool(state: HostState, containers: Iterable[Allocation]) -> IdRange | None:
    """The smallest pool that has every range given out; None if the default pool has them all."""
    own = [a for a in containers if a.reserved_range and a.strategy != Shared.name]
    usual = [pool_of(state, named(a.strategy, {}), None) for a in own[:1]]
    held = sorted(a.reserved_range for a in own if a.reserved_range)
    if all(ids.start in usual[0] and ids.last in usual[0] for ids in held):
        return None
    first, last = held[0].start, max(ids.last for ids in held)
    return IdRange(first, last - first + 1)


def _pointed_at(state: HostState, containers: Iterable[Allocation]) -> str | None:
    """The name of the allocation to which Docker's remap points."""
    user = remapped_to(state)
    if user is None or not (state.accounts.user(user) and state.accounts.group(user)):
        # No daemon starts with such a remap, and a plan file that names it would make the account.
        return None
    return next((a.name for a in containers if a.owner == user and verdict("docker", a).can), None)
