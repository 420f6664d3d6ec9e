"""Plan files against hosts that are values: decided, and carried out by exchanging bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.states import carried_out
from usernsplan.errors import UsernsplanError
from usernsplan.formats.spec import Spec, parse
from usernsplan.formats.spec_writer import text
from usernsplan.model import LedgerChange, VolumeMount
from usernsplan.planner.desired import make_desired
from usernsplan.planner.exported import exported
from usernsplan.planner.mounts import owned
from usernsplan.planner.recovery import as_changed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from usernsplan import HostState
    from usernsplan.mapping import Mapping as IdMaps
    from usernsplan.planner.desired import PlanDiff
    from usernsplan.planner.wanted import ToMount

PER_CONTAINER = "strategy: per-container\n"


def file(said: str) -> Spec:
    return parse(said.encode(), "p.yaml")


def decided(host: HostState, said: str, *, prune: bool = False) -> PlanDiff:
    return make_desired(host, file(said), prune=prune)


def steps(host: HostState, said: str, *, prune: bool = False) -> list[str]:
    return [f"{s.sign} {s.kind} {s.name}: {s.text}" for s in decided(host, said, prune=prune).steps]


def refused(host: HostState, said: str, *, prune: bool = False) -> str:
    with pytest.raises(UsernsplanError) as caught:
        decided(host, said, prune=prune)
    return str(caught.value)


def applied(host: HostState, desired: PlanDiff, *, fix: bool = True) -> HostState:
    """The host once all of it was carried out, and the volumes were fixed, one event after the other.

    A volume is given by one method: what the other method had made of it was taken back before.
    """
    host = without(carried_out(host, desired.allocate), {m.at for m in desired.unmount})
    host = carried_out(host, desired.prune)
    if not fix:
        return host
    fixed = {v.path for v in desired.volumes}
    host = without(host, {m.at for m in host.ledger.mounts if m.source in fixed})
    host = without(host, {m.at for one in desired.mounts for m in one.instead})
    maps = {a.name: a.mapping for a in host.ledger.allocations}
    mounts = tuple(mounted(one, maps) for one in desired.mounts)
    sources = tuple(m.source for m in mounts)
    return as_changed(
        host, {}, LedgerChange(volumes=desired.volumes, mounts=mounts, no_volumes=sources)
    )


def without(host: HostState, points: set[str]) -> HostState:
    """The host once the mounts at these points are gone."""
    return as_changed(host, {}, LedgerChange(no_mounts=tuple(points))) if points else host


def mounted(made: ToMount, maps: Mapping[str, IdMaps]) -> VolumeMount:
    """What a run records of a mount. The owner on disk is 0:0."""
    one, mapping = made.wanted, maps[made.wanted.name]
    if one.mode == "own":
        uid, gid = (int(word) for word in one.user.split(":"))
        hosts = (mapping.uids.to_host(uid) or 0, mapping.gids.to_host(gid) or 0)
        mapping = owned(hosts, (0, 0))
    options = ("ro",) if one.read_only else ()
    lasting = "mount" if one.persist else ""
    return VolumeMount(
        made.at,
        one.source,
        one.name,
        one.mode,
        mapping,
        one.user,
        options,
        one.crosses,
        lasting,
        one.protect,
        "20261130-100000",
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
