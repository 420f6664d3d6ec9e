"""Which volume is whose: what the ledger notes after a tree was fixed for a container. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from usernsplan.engines.mounts import standing
from usernsplan.model import LedgerChange, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.model import HostState, LedgerState, Volume


def record(state: HostState, volumes: Iterable[Volume], removed: Iterable[str] = ()) -> Plan:
    """Note these volumes, and that those at ``removed`` are no container's; nothing where it is noted already.

    A container that was released meanwhile gets none.
    """
    names, noted = {a.name for a in state.ledger.allocations}, {v.path for v in state.ledger.volumes}
    new = tuple(v for v in not_noted(state.ledger, volumes) if v.name in names)
    gone = tuple(path for path in removed if path in noted)
    return Plan("volume", ledger=LedgerChange(volumes=new, no_volumes=gone))


def not_noted(ledger: LedgerState, volumes: Iterable[Volume]) -> tuple[Volume, ...]:
    """Those that the ledger does not have just so, fixed for the range that their container has now."""
    now = standing(ledger)
    return tuple(v for v in volumes if v.path not in now or replace(now[v.path], since=v.since) != v)


def has_moved(ledger: LedgerState, volume: Volume) -> bool:
    """Tell whether a volume still carries the ids that its container had before it was released and allocated anew."""
    found = next((v for v in ledger.volumes if v.path == volume.path and v.name == volume.name), None)
    return found is not None and found.mode == "shift" and found.path not in standing(ledger)


def after(volumes: Iterable[Volume], change: LedgerChange, names: Iterable[str]) -> tuple[Volume, ...]:
    """The volumes that the ledger holds after a change; ``names`` are those that are allocated then.

    A name that is forgotten takes its volumes with it, unless a new container has it.
    """
    replaced, gone = {*change.no_volumes, *(v.path for v in change.volumes)}, {*change.forget} - {*names}
    kept = (v for v in volumes if v.path not in replaced and v.name not in gone)
    return tuple(sorted([*kept, *change.volumes], key=lambda v: v.path))
