"""Plan files against hosts that are values: decided, and carried out by exchanging bytes."""

from __future__ import annotations

from dataclasses import replace
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
    """The host once all of it was carried out, and the volumes were fixed, one moment after the other."""
    host = dated(carried_out(dated(carried_out(host, desired.allocate)), desired.prune))
    return dated(as_changed(host, {}, LedgerChange(volumes=desired.volumes))) if fix else host


def dated(host: HostState) -> HostState:
    """The host with a moment at all that is new in its ledger, later than all that is old."""
    ledger = host.ledger
    moments = [a.since for a in ledger.allocations] + [q.since for q in ledger.quarantined]
    last = max((*moments, *(v.since for v in ledger.volumes)), default="")
    now = f"{int(last or 0) + 1:06}"
    return replace(
        host,
        ledger=replace(
            ledger,
            allocations=tuple(replace(a, since=a.since or now) for a in ledger.allocations),
            quarantined=tuple(replace(q, since=q.since or now) for q in ledger.quarantined),
            volumes=tuple(replace(v, since=v.since or now) for v in ledger.volumes),
        ),
    )


def again(host: HostState) -> Spec:
    """The plan file of a host as a reader of what is printed has it."""
    return parse(text(exported(host)).encode(), "p.yaml")


def ids(host: HostState) -> dict[str, tuple[str, str, str]]:
    """Who has which host ids, and who owns their lines."""
    return {
        a.name: (str(a.mapping.uids), str(a.reserved_range), a.owner)
        for a in host.ledger.allocations
    }
