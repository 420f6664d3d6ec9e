"""Which volume is whose: what the ledger notes after a tree was fixed for a container. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.model import LedgerChange, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.model import HostState, Volume


def record(state: HostState, volumes: Iterable[Volume], removed: Iterable[str] = ()) -> Plan:
    """Note these volumes, and that those at ``removed`` are no container's; nothing where it is noted already.

    A container that was released meanwhile gets none.
    """
    names = {a.name for a in state.ledger.allocations}
    noted = {v.path: (v.name, v.mode, v.user) for v in state.ledger.volumes}
    new = tuple(v for v in volumes if v.name in names and noted.get(v.path) != (v.name, v.mode, v.user))
    gone = tuple(path for path in removed if path in noted)
    return Plan("volume", ledger=LedgerChange(volumes=new, no_volumes=gone))


def after(volumes: Iterable[Volume], change: LedgerChange, names: Iterable[str]) -> tuple[Volume, ...]:
    """The volumes that the ledger holds after a change; ``names`` are those that are allocated then.

    A name that is forgotten takes its volumes with it, unless a new container has it.
    """
    replaced, gone = {*change.no_volumes, *(v.path for v in change.volumes)}, {*change.forget} - {*names}
    kept = (v for v in volumes if v.path not in replaced and v.name not in gone)
    return tuple(sorted([*kept, *change.volumes], key=lambda v: v.path))
