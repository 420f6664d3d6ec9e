"""The life cycle of a run, whatever the method: its journal, its order, and its end after an error.

The order is the guarantee: keep the other hosts of a fleet away; look at everything; judge it;
record the old state in the journal; apply; verify; record the end. A run that has nothing to do
leaves nothing behind.
"""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from usernsplan.errors import HostChangedError, RefusedError, UsernsplanError
from usernsplan.escape import shell, shown_path
from usernsplan.volume import earlier, journal, leasing
from usernsplan.volume.method import Method, NotTakenError
from usernsplan.volume.passes import Leg
from usernsplan.volume.state import CHANGING, CHOWN, DONE, IDMAP, LOOKING, UNDOING, UNDONE, RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from usernsplan.ledger.leases import Leases
    from usernsplan.volume.decide import Meant
    from usernsplan.volume.job import Job


def _chown(job: Job) -> AbstractContextManager[Method]:
    from usernsplan.volume import chown  # noqa: PLC0415 - a run needs one of the methods

    return chown.at_work(job)


def _idmap(job: Job) -> AbstractContextManager[Method]:
    from usernsplan.volume import idmap  # noqa: PLC0415 - see above

    return idmap.at_work(job)


# The methods, by their names in run.json.
METHODS: Mapping[str, Callable[[Job], AbstractContextManager[Method]]] = {
    CHOWN: _chown,
    IDMAP: _idmap,
}
# So many failed places fit on a screen.
_SHOWN = 10


def whole(job: Job, meant: Meant, new: RunState) -> None:
    """Make a new run. Raises RefusedError, before any change, for what would not end well."""

    def check(runs: Sequence[RunState]) -> None:
        if any(earlier.find(job.layout, new, again=meant.request.again, among=runs)):
            raise HostChangedError("another run changed the same volume first")

    # First: "begin" forgets a run that was killed before it changed anything, and its lease would stay.
    leases = leasing.settled(job.layout)
    log = journal.begin(job.layout, new, check)
    try:
        # Before the look: what another host is changing would look half-way.
        with _leased(job, log, leases):
            moved = "" if meant.request.again else job.lease.moved_by(log.state)
            if moved:
                job.outcome.notes.append(moved)
                return
            with _method(job, new) as method:
                noted = method.decide(meant, log)
                if noted is not None:
                    log.set(state=CHANGING, **noted)
                    _carry_out_first(job, method, log)
    finally:
        # While the fleet does not know of its end, the journal of a run is what tells it.
        is_idle = log.state.state == DONE and not job.outcome.changed and not job.lease.leases
        if log.state.state == LOOKING or is_idle:
            log.remove()
            job.outcome.run_name = None
        log.close()


def preview(job: Job, meant: Meant, state: RunState) -> None:
    """Count what a run would do. ``state`` is a new run or an interrupted one. Change nothing."""
    if state.state != LOOKING:
        job.outcome.notes.append(f"run {state.run} was interrupted; it is finished first")
    with _method(job, state) as method:
        method.describe(meant, state)


def finish(job: Job, run: RunState, **changes: Any) -> None:
    """Finish an interrupted run with these changes, then retry what failed before."""
    _go_on(job, run, **changes)
    state = journal.run(job.layout, run.run)
    if state.rule.overlaps() and state.failed:
        job.outcome.failed.clear()
        retry(job, state)


def retry(job: Job, run: RunState) -> None:
    """Retry what failed in a run that moved ids: the cause may be gone."""
    _go_on(job, run, state=CHANGING, leg=Leg.TO_STAGING, retried=run.failed)


def undo(job: Job, state: RunState, *, also_changed: bool) -> None:
    """Undo what a run did."""
    with closing(journal.resume(job.layout, state)) as log:
        log.refuse_damaged()
        with _leased(job, log, leasing.settled(job.layout)), _method(job, state) as method:
            job.lease.check()
            method.mend(log)
            log.set(state=UNDOING)
            if method.undo(log, also_changed=also_changed):
                log.set(state=UNDONE, undone=time.time_ns(), whole=not job.outcome.failed)


def preview_undo(job: Job, state: RunState, *, also_changed: bool) -> None:
    """Count what ``undo`` would change. Change nothing."""
    with closing(journal.resume(job.layout, state)) as log:
        log.refuse_damaged()
        with _method(job, state) as method:
            method.describe_undo(log, also_changed=also_changed)


@contextmanager
def _leased(job: Job, log: journal.Journal, leases: Leases | None) -> Iterator[None]:
    """Keep the other hosts of a fleet away. If the run does not come to its end, they stay away."""
    job.lease = leasing.take(leases, job.layout, log.state, job.volumes)
    try:
        yield
    finally:
        if untold := job.lease.end(log.state):
            job.outcome.notes.append(untold)
        else:
            job.lease = leasing.FREE


def _method(job: Job, state: RunState) -> AbstractContextManager[Method]:
    """The method of a run, with its workers. Raises RefusedError for an unknown method."""
    at_work = METHODS.get(state.method)
    if at_work is None:
        undo_command = job.layout.command(f"undo {shell(state.run)}")
        raise RefusedError(
            f"run {state.run} used the method {state.method!r:.40}, which this usernsplan does not"
            " know",
            hint=f"undo it with the version that made it: {undo_command}",
        )
    return at_work(job)


def _go_on(job: Job, run: RunState, **changes: Any) -> None:
    """Continue an earlier run. Raises UsernsplanError if it still cannot be finished."""
    undo_command = job.layout.command(f"undo {shell(run.run)}")
    with closing(journal.resume(job.layout, run)) as log:
        log.refuse_damaged()
        try:
            with _leased(job, log, leasing.settled(job.layout)), _method(job, run) as method:
                job.lease.check()
                method.mend(log)
                log.set(**changes)
                _carry_out(job, method, log)
        except NotTakenError as error:
            raise RefusedError(str(error), hint=f"undo the run: {undo_command}") from error

    if log.state.state == CHANGING:
        failed = job.outcome.failed.items()
        places = sorted(f"  {shown_path(path)}: {reason}" for path, reason in failed)
        raise UsernsplanError(
            "\n".join([f"run {run.run} still cannot be finished:", *places[:_SHOWN]]),
            hint=f"fix the cause and run the command again, or undo the run: {undo_command}",
        )


def _carry_out_first(job: Job, method: Method, log: journal.Journal) -> None:
    """Apply a new run. If the volumes do not accept the method, it has changed nothing."""
    try:
        job.lease.check()
    except UsernsplanError:
        log.set(state=LOOKING)
        raise
    try:
        _carry_out(job, method, log)
    except NotTakenError as error:
        if error.changed:
            method.undo(log)
        log.set(state=LOOKING)
        raise RefusedError(str(error), hint=error.hint) from error


def _carry_out(job: Job, method: Method, log: journal.Journal) -> None:
    outcome = job.outcome
    outcome.run_name = log.state.run
    outcome.found.entries = outcome.found.entries or log.state.entries
    if method.apply(log) and (ending := method.verify(log)) is not None:
        log.set(state=DONE, end=time.time_ns(), **ending)
        return
    remedy = earlier.finish_or_undo(job.layout, log.state)
    outcome.notes.append(f"run {log.state.run} is not finished\n  {remedy}")
