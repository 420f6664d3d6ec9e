"""Plan host ids for containers: ranges, maps, the three strategies, and the files of engines.

As a library: ``allocate``, ``adopt``, ``release``, ``rename``, ``remap``, ``fix_volume``, ``undo``
and ``check`` do what the commands do; ``set_policy`` does what harden does, with a policy of
``policy_of``. ``make_plan`` and ``make_release`` make the same decisions
from a ``HostState`` and change nothing. A name is imported when it is first used, so that commands
start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from usernsplan.apply import adopt, allocate, carry_out, preview, rename
    from usernsplan.apply import harden as set_policy
    from usernsplan.checking import check
    from usernsplan.engines import render
    from usernsplan.engines.base import RenderContext
    from usernsplan.errors import (
        DamagedLedgerError,
        HostChangedError,
        InvalidFileError,
        InvalidValueError,
        LedgerError,
        LedgerUnreachableError,
        LockBusyError,
        MeanwhileTakenError,
        NotPermittedError,
        PoolExhaustedError,
        RefusedError,
        StoppedError,
        UnknownNameError,
        UsageError,
        UsernsplanError,
    )
    from usernsplan.fixing import FixReport, FixRequest
    from usernsplan.harden.policy import Policy, policy_of
    from usernsplan.host.files import layout_at
    from usernsplan.ids import IdRange, IdSet
    from usernsplan.layout import Layout
    from usernsplan.ledger import open_ledger
    from usernsplan.mapping import Extent, IdMap, Mapping
    from usernsplan.model import (
        AdoptRequest,
        AllocateRequest,
        Allocation,
        Finding,
        HostState,
        Mount,
        Plan,
        ReleaseRequest,
        RemapRequest,
    )
    from usernsplan.planner.allocate import make_plan
    from usernsplan.planner.release import make_release
    from usernsplan.remapping import remap
    from usernsplan.strategies import PerContainer, Shared, SingleUid
    from usernsplan.volume.fix import fix_volume, undo
    from usernsplan.volume.forget import release

__all__ = [
    "AdoptRequest",
    "AllocateRequest",
    "Allocation",
    "DamagedLedgerError",
    "Extent",
    "Finding",
    "FixReport",
    "FixRequest",
    "HostChangedError",
    "HostState",
    "IdMap",
    "IdRange",
    "IdSet",
    "InvalidFileError",
    "InvalidValueError",
    "Layout",
    "LedgerError",
    "LedgerUnreachableError",
    "LockBusyError",
    "Mapping",
    "MeanwhileTakenError",
    "Mount",
    "NotPermittedError",
    "PerContainer",
    "Plan",
    "Policy",
    "PoolExhaustedError",
    "RefusedError",
    "ReleaseRequest",
    "RemapRequest",
    "RenderContext",
    "Shared",
    "SingleUid",
    "StoppedError",
    "UnknownNameError",
    "UsageError",
    "UsernsplanError",
    "adopt",
    "allocate",
    "carry_out",
    "check",
    "fix_volume",
    "layout_at",
    "make_plan",
    "make_release",
    "open_ledger",
    "policy_of",
    "preview",
    "release",
    "remap",
    "rename",
    "render",
    "set_policy",
    "undo",
]

_HOMES = {
    "apply": ("adopt", "allocate", "carry_out", "preview", "rename", "set_policy"),
    "checking": ("check",),
    "engines": ("render",),
    "engines.base": ("RenderContext",),
    "fixing": ("FixReport", "FixRequest"),
    "harden.policy": ("Policy", "policy_of"),
    "host.files": ("layout_at",),
    "ids": ("IdRange", "IdSet"),
    "layout": ("Layout",),
    "ledger": ("open_ledger",),
    "mapping": ("Extent", "IdMap", "Mapping"),
    "model": (
        "AdoptRequest",
        "AllocateRequest",
        "Allocation",
        "Finding",
        "HostState",
        "Mount",
        "Plan",
        "ReleaseRequest",
        "RemapRequest",
    ),
    "planner.allocate": ("make_plan",),
    "planner.release": ("make_release",),
    "remapping": ("remap",),
    "strategies": ("PerContainer", "Shared", "SingleUid"),
    "volume.fix": ("fix_volume", "undo"),
    "volume.forget": ("release",),
}

# usernsplan.harden is a package, which would hide a function of that name once it is imported.
_THERE = {"set_policy": "harden"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'usernsplan' has no attribute '{name}'")
    home = next((home for home, names in _HOMES.items() if name in names), "errors")
    return getattr(import_module(f"usernsplan.{home}"), _THERE.get(name, name))
