"""HostState -> the plan file that describes the host. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.claims.pool import pool_of
from usernsplan.claims.sources import claims_of
from usernsplan.claims.uses import may_stay
from usernsplan.engines import ENGINES, engine_of_pool, verdict
from usernsplan.engines.mounts import given
from usernsplan.formats import passes
from usernsplan.formats.spec import Spec, SpecContainer, SpecEngine, SpecReservation, SpecVolume
from usernsplan.holdings import is_seen_as_account
from usernsplan.ids import IdRange
from usernsplan.model import DEFAULT_NAME
from usernsplan.planner.daemon import remapped_to
from usernsplan.planner.grants import Grants
from usernsplan.planner.mounts import is_ours
from usernsplan.planner.names import owner_of
from usernsplan.planner.publish import can_be
from usernsplan.planner.slices import is_cut
from usernsplan.strategies import SLOT, PerContainer, Shared, named, options_of
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.formats.config import Config
    from usernsplan.formats.spec import Method
    from usernsplan.model import Allocation, HostState, LedgerState, Published, Volume, VolumeMount

# What keeps a request from a range, wherever the containers are that use it.
_FIXED = frozenset({"subid", "reserved", "account", "group"})
# Engines that need lines for a further owner all need the same lines, so the first stands for all.
_ASKING = {it.extra_owners: name for name, it in reversed(ENGINES.items()) if it.extra_owners}


def exported(state: HostState, defaults: Config | None = None) -> Spec:
    """The plan file of a host as it is. Applying it to that host changes nothing.

    It omits options that have their built-in value, unless the host has ``defaults``: these would
    fill in what the file omits.
    """
    options, usual = (defaults.options, defaults.method) if defaults else ({}, None)
    pools = [a for a in state.ledger.allocations if _is_pool(state, a)]
    containers = [a for a in state.ledger.allocations if a not in pools]
    daemon = _pointed_at(state, containers)
    strategy = state.ledger.allocations[0].strategy if state.ledger.allocations else "per-container"

    published = _published(state.ledger.allocations)
    engines = [SpecEngine("docker")] if daemon else []
    engines += [
        replace(_pool_of(state, engine, a.reserved_range), publish=_unlike(published, a))
        for a in pools
        if (engine := engine_of_pool(a)) and a.reserved_range
    ]

    volumes: dict[str, list[SpecVolume]] = {}
    for volume in given(state.ledger).values():
        if (mode := volume.known_mode) and not why_left_out(volume):
            method: Method | None = None if usual in {None, "chown"} else "chown"
            spec = SpecVolume(volume.path, mode, volume.user, 0, method)
            volumes.setdefault(volume.name, []).append(spec)
    for name, mounted in _mounted(state).items():
        volumes.setdefault(name, []).extend(mounted)

    return Spec(
        place="",
        strategy=strategy,
        pool=_pool(state, containers),
        engines=tuple(engines),
        daemon=daemon or (False if any(a.name == DEFAULT_NAME for a in containers) else None),
        containers=tuple(
            replace(
                _container(a, daemon, volumes.get(a.name, ()), complete=bool(options)),
                publish=_unlike(published, a),
            )
            if (is_made_by_options(a) and not engine_of_pool(a) and not _is_contested(state, a))
            or is_cut(state, a)
            else _adopted(a, volumes.get(a.name, ()))
            for a in containers
        ),
        publish=published,
        reservations=tuple(SpecReservation(r.ids, r.why, 0, "") for r in state.ledger.reservations),
    )


def _pool_of(state: HostState, engine: str, held: IdRange) -> SpecEngine:
    """An engine with the pool that it has. What the kubelet gives each pod is in its configuration."""
    pool, usual = ENGINES[engine].pool, state.kubelet.ids_per_pod
    if not (pool and pool.each) or usual == SLOT:
        return SpecEngine(engine, held.count // SLOT, held.start)
    each = usual if held.start % usual == held.count % usual == 0 else SLOT
    return SpecEngine(engine, held.count // each, held.start, each)


def _container(
    a: Allocation, daemon: str | None, volumes: Iterable[SpecVolume], *, complete: bool
) -> SpecContainer:
    # Only Docker's shared map takes a range of its own, the filler.
    starts = a.strategy != Shared.name or a.name in {DEFAULT_NAME, daemon}
    return SpecContainer(
        name=a.name,
        line=0,
        at="",
        owner=a.owner if a.owner != owner_of(a.name) and not a.within else None,
        start=a.reserved_range.start if a.reserved_range and starts else None,
        options=options_of(a.strategy, a.mapping, a.reserved_range, usual=complete),
        engines=tuple(_ASKING[owner] for owner in a.extra_owners if owner in _ASKING),
        volumes=tuple(volumes),
        in_files=None if a.in_files or a.within else False,
        within=a.within,
        passes=passes.written(a.passes),
        map=passes.map_lines(a.mapping) if a.within and not a.reserved_range else (),
        harden=a.policy,
        local=a.local,
    )


def _is_pool(state: HostState, a: Allocation) -> bool:
    """Tell whether an engine and its options make a pool as it is.

    With the engine comes the account that it needs, which an adopted pool may lack.
    """
    engine = engine_of_pool(a)
    pool = ENGINES[engine].pool if engine else None
    if pool is None or not is_made_by_options(a) or _is_contested(state, a):
        return False
    has_account = state.accounts.user(a.owner) and state.accounts.group(a.owner)
    return not pool.account or bool(has_account) or is_seen_as_account(state, a.owner)


def is_made_by_options(a: Allocation) -> bool:
    """Tell whether options make the map of an allocation: if not, it was adopted."""
    if a.strategy != PerContainer.name:
        return True
    held = a.reserved_range
    if held is None or a.within or (held.start % SLOT and not a.in_files):
        return False
    if engine_of_pool(a) and held.count % SLOT:
        return False
    return PerContainer(held.count, passes=a.passes).mapping(held.start) == a.mapping


def _is_contested(state: HostState, a: Allocation) -> bool:
    """Tell whether an adopted range has ids that others have, too: a request would refuse to give it."""
    held = a.reserved_range
    if not (held and a.found):
        return False
    claims = claims_of(state).where(lambda claim: claim.source in _FIXED and claim.allocation != a)
    others = Grants(state).without(claims, a).over(held.start, held.stop)
    return any(not may_stay(claim) for claim in others)


def _adopted(a: Allocation, volumes: Iterable[SpecVolume]) -> SpecContainer:
    """A container whose map stands on the host and is adopted as it is."""
    usual = {owner_of(a.name), a.name if engine_of_pool(a) else None, a.within or None}
    return SpecContainer(
        name=a.name,
        line=0,
        at="",
        owner=a.owner if a.owner not in usual else None,
        within=a.within,
        adopt=True,
        local=a.local,
        map=passes.map_lines(a.mapping),
        volumes=tuple(volumes),
    )


def _mounted(state: HostState) -> dict[str, list[SpecVolume]]:
    """The mounts of each container. One of ours is written without its mount point, if it can be."""
    found: dict[str, list[SpecVolume]] = {}
    for mount in state.ledger.mounts:
        if why_mount_left_out(mount, state.ledger):
            continue
        its = found.setdefault(mount.name, [])
        is_first = not any(one.path == mount.source and not one.at for one in its)
        its.append(
            SpecVolume(
                mount.source,
                mount.mode,
                mount.user,
                0,
                "idmap",
                "" if is_ours(mount.at) and is_first else mount.at,
                persist=bool(mount.lasting),
                read_only="ro" in mount.options,
                # The ledger's codec takes no other word.
                protect=mount.protect,  # type: ignore[arg-type]
                cross_mounts=mount.crosses,
            )
        )
    return found


def why_mount_left_out(mount: VolumeMount, ledger: LedgerState) -> str:
    """Why a plan file cannot describe a mount; "" if it can."""
    if not (mount.source.isprintable() and mount.at.isprintable()):
        return "YAML cannot write its path"
    its = given(ledger).get(mount.source)
    return f"its files were changed for {its.name} too" if its else ""


def _published(allocations: Iterable[Allocation]) -> Published | None:
    """Where the ranges are published, if all are at one place other than the default."""
    found = {a.published for a in allocations if can_be(a)}
    return found.pop() if len(found) == 1 and found != {"userdb"} else None


def _unlike(common: Published | None, a: Allocation) -> Published | None:
    """Where a range is published, if that is another place than that of the file."""
    return a.published if can_be(a) and a.published != (common or "userdb") else None


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
    own = [
        a
        for a in containers
        if a.reserved_range
        and a.strategy != Shared.name
        and is_made_by_options(a)
        and not engine_of_pool(a)
    ]
    usual = [pool_of(state, named(a.strategy, {}), None) for a in own[:1]]
    held = sorted(a.reserved_range for a in own if a.reserved_range)
    if all(usual[0].holds(ids) for ids in held):
        return None
    first, last = held[0].start, max(ids.last for ids in held)
    return IdRange(first, last - first + 1)


def _pointed_at(state: HostState, containers: Iterable[Allocation]) -> str | None:
    """The name of the allocation to which Docker's remap points."""
    user = remapped_to(state)
    is_account = user is not None and (
        is_seen_as_account(state, user)
        or (state.accounts.user(user) and state.accounts.group(user))
    )
    if not is_account:
        # No daemon starts with such a remap, and a plan file that names it would make the account.
        return None
    return next((a.name for a in containers if a.owner == user and verdict("docker", a).can), None)
