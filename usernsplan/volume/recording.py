"""Record in the ledger what a run has done, once it has done it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan.errors import UsernsplanError
from usernsplan.ledger import name_now, open_ledger
from usernsplan.model import Plan
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from usernsplan.ledger import Ledger
    from usernsplan.model import LedgerChange, LedgerState, Volume, VolumeMount
    from usernsplan.volume.job import Job
    from usernsplan.volume.state import RunState


def record_volumes(job: Job, volumes: Sequence[Volume], removed: Sequence[str], event: int) -> None:
    """Record in the ledger whose the volumes are. Most runs find it recorded, and need no lock.

    The names of the containers are those after the ``event`` of this number.
    """
    ledger = open_ledger(job.layout)
    # A run with an explicit map records nothing and needs neither import.
    from usernsplan.planner.volumes import not_noted  # noqa: PLC0415 - not always needed

    state = ledger.state()
    if volumes and state.number != event:
        renames = ledger.renames()
        volumes = [replace(v, name=name_now(v.name, renames, event)) for v in volumes]
    if not not_noted(state, volumes) and not {v.path for v in state.volumes} & set(removed):
        return
    from usernsplan.planner.volumes import record  # noqa: PLC0415

    _note(job, ledger, partial(record, volumes=volumes, removed=removed))


def record_mounts(
    job: Job, mounts: Sequence[VolumeMount], removed: Sequence[str], event: int
) -> None:
    """Record in the ledger which mounts were made, and that those at ``removed`` are gone.

    The names of the containers are those after the ``event`` of this number.
    """
    ledger = open_ledger(job.layout)
    state = ledger.state()
    if state.number != event:
        renames = ledger.renames()
        mounts = [replace(m, name=name_now(m.name, renames, event)) for m in mounts]
    from usernsplan.planner.mounts import not_noted, record  # noqa: PLC0415 - see above

    if not_noted(state, mounts) or {m.at for m in state.mounts} & set(removed):
        _note(job, ledger, partial(record, mounts=mounts, removed=removed))


def record_undone(job: Job, state: RunState) -> None:
    """Record in the ledger that the mounts of a run are gone, unless they failed or are another's."""
    from usernsplan.planner.mounts import present  # noqa: PLC0415 - see above

    ledger = open_ledger(job.layout).state()
    gone = [
        mount.at
        for mount, taken in present(ledger, state.mounts, state.run)
        if not taken and job.layout.place(mount.at) not in job.outcome.failed
    ]
    record_mounts(job, (), gone, state.event)


def _note(job: Job, ledger: Ledger, decide: Callable[[LedgerState], LedgerChange]) -> None:
    from usernsplan import noting  # noqa: PLC0415 - most runs do without

    try:
        if not noting.note(job.layout, ledger, decide, job.command):
            # A command was interrupted; to repair it takes the whole host.
            from usernsplan import apply  # noqa: PLC0415 - half of the start-up

            apply.carry_out(
                job.layout,
                ledger,
                lambda state: Plan("volume", ledger=decide(state.ledger)),
                job.command,
            )
    except UsernsplanError as error:
        done = f"run {job.outcome.run_name} did its work; " if job.outcome.run_name else ""
        error.notes = (*error.notes, f"{done}the ledger does not show yet whose the volume is")
        raise
