"""Make recorded mounts again, such as at boot: exactly as they are recorded, and without a run."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from usernsplan.errors import (
    NotPermittedError,
    UnknownNameError,
    UsernsplanError,
    did_you_mean,
    of_place,
)
from usernsplan.escape import shown_path
from usernsplan.fixing import FixReport
from usernsplan.host import procfs, runs
from usernsplan.ledger import open_ledger
from usernsplan.volume import idmap, journal, spots, walk
from usernsplan.volume.job import Job, Watch
from usernsplan.volume.method import NotTakenError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.model import LedgerState, VolumeMount


def restore(
    names: Sequence[str], root: str = "/", *, command: str = "", watch: Watch | None = None
) -> FixReport:
    """Make the recorded mounts that are missing.

    ``names`` are names of containers, or mount points; none means all. What cannot be mounted is in
    the report, and does not stop the others. Raises UnknownNameError for a name without a mount,
    and NotPermittedError.
    """
    job = Job.at(root, None, watch, command)
    if not procfs.may_chown():
        raise NotPermittedError("only root can mount a volume")

    # Two at once would mount one on the other.
    with journal.alone(job.layout):
        ledger = open_ledger(job.layout).state()
        mounts = tuple(_named(job, ledger, names))
        for mount in mounts:
            _restore(job, ledger, mount)
    job.outcome.found.entries = len(mounts)
    places = tuple(job.layout.place(mount.source) for mount in mounts)
    return job.outcome.report(FixReport("restore", places, {}, mounts=mounts))


def _named(job: Job, ledger: LedgerState, names: Sequence[str]) -> list[VolumeMount]:
    """The recorded mounts of these containers, or at these mount points."""
    if not names:
        return list(ledger.mounts)
    found = {mount.at: mount for mount in ledger.mounts}
    chosen = []
    for name in names:
        if "/" in name:
            at = spots.point_of(job.layout, name)
            these = [found[at]] if at in found else []
        else:
            these = [mount for mount in ledger.mounts if mount.name == name]
        if not these:
            known = (*found, *(mount.name for mount in ledger.mounts))
            hint = did_you_mean(name, known, f"{job.layout.inline('volumes')} lists the mounts")
            raise UnknownNameError(f"no mount of {shown_path(name)} is recorded", hint=hint)
        chosen += these
    return chosen


def _restore(job: Job, ledger: LedgerState, mount: VolumeMount) -> None:
    try:
        if not any(allocation.name == mount.name for allocation in ledger.allocations):
            raise UsernsplanError(f"the container {mount.name} was released")
        if mount.run and runs.is_at_work(job.layout, mount.run):
            raise journal.busy(mount.run)
        place = spots.place_of(job.layout, mount.source)
        spots.refuse_idmapped(place)
        with ExitStack() as stack, of_place(place):
            volume = walk.volume(place, cross_mounts=mount.crosses)
            stack.callback(os.close, volume.top)
            job.volumes[:] = [volume]
            stack.enter_context(idmap.at_work(job)).restore([mount])
    except (UsernsplanError, NotTakenError) as error:
        job.outcome.fail([(job.layout.place(mount.at), str(error))])
