"""Plan files against hosts that are values: decided, and carried out by exchanging bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.states import carried_out
from usernsplan.formats.spec import Spec, parse
from usernsplan.formats.spec_writer import text
from usernsplan.model import LedgerChange
from usernsplan.planner.desired import make_desired
from usernsplan.planner.exported import exported
from usernsplan.planner.recovery import as_changed

if TYPE_CHECKING:
    from usernsplan import HostState
    from usernsplan.planner.desired import PlanDiff

PER_CONTAINER = "strategy: per-container\n"


def file(said: str) -> Spec:
    return parse(said.encode(), "p.yaml")


def decided(host: HostState, said: str, *, prune: bool = False) -> PlanDiff:
    return make_desired(host, file(said), prune=prune)


def applied(host: HostState, desired: PlanDiff, *, fix: bool = True) -> HostState:
    """The host once all of it was carried out, and the volumes were fixed, one event after the other."""
    host = carried_out(carried_out(host, desired.allocate), desired.prune)
    return as_changed(host, {}, LedgerChange(volumes=desired.volumes)) if fix else host


def again(host: HostState) -> Spec:
    """The plan file of a host as a reader of what is printed has it."""
    return parse(text(exported(host)).encode(), "p.yaml")


def ids(host: HostState) -> dict[str, tuple[str, str, str]]:
    """Who has which host ids, and who owns their lines."""
    return {
        a.name: (str(a.mapping.uids), str(a.reserved_range), a.owner)
        for a in host.ledger.allocations
    }
