"""Plan host ids for containers: ranges, maps, the three strategies, and the files that engines read.

As a library: ``make_plan`` decides, from a ``HostState`` and an ``AllocateRequest``, without touching anything;
``carry_out`` does it. Names are imported when they are first used, so that the commands start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from usernsplan.apply import carry_out, preview
    from usernsplan.engines import render
    from usernsplan.errors import UsernsplanError
    from usernsplan.host.files import layout_at
    from usernsplan.host.read import state
    from usernsplan.ids import IdRange, IdSet
    from usernsplan.layout import Layout
    from usernsplan.ledger import open_ledger
    from usernsplan.mapping import Extent, IdMap, Mapping
    from usernsplan.model import AllocateRequest, Allocation, Finding, HostState, Plan, ReleaseRequest
    from usernsplan.planner import make_plan, make_release
    from usernsplan.strategies import PerContainer, Shared, SingleUid

_HOME = {
    "AllocateRequest": "model",
    "Allocation": "model",
    "Extent": "mapping",
    "Finding": "model",
    "HostState": "model",
    "IdMap": "mapping",
    "IdRange": "ids",
    "IdSet": "ids",
    "Layout": "layout",
    "Mapping": "mapping",
    "PerContainer": "strategies",
    "Plan": "model",
    "ReleaseRequest": "model",
    "Shared": "strategies",
    "SingleUid": "strategies",
    "UsernsplanError": "errors",
    "carry_out": "apply",
    "layout_at": "host.files",
    "make_plan": "planner",
    "make_release": "planner",
    "open_ledger": "ledger",
    "preview": "apply",
    "render": "engines",
    "state": "host.read",
}

__all__ = [
    "AllocateRequest",
    "Allocation",
    "Extent",
    "Finding",
    "HostState",
    "IdMap",
    "IdRange",
    "IdSet",
    "Layout",
    "Mapping",
    "PerContainer",
    "Plan",
    "ReleaseRequest",
    "Shared",
    "SingleUid",
    "UsernsplanError",
    "carry_out",
    "layout_at",
    "make_plan",
    "make_release",
    "open_ledger",
    "preview",
    "render",
    "state",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'usernsplan' has no attribute '{name}'")
    return getattr(import_module(f"usernsplan.{_HOME[name]}"), name)
