"""The life cycle of a run, whatever the method: its journal, and what happens to it when something goes wrong.

The order is the guarantee: look at everything; judge; note in the journal how it was; apply; verify; the end of the
run. A run that has nothing to do leaves nothing behind.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from usernsplan.errors import HostChangedError, RefusedError, UsernsplanError
from usernsplan.escape import shell, shown_path
from usernsplan.volume import chown, earlier, journal, restore
from usernsplan.volume.method import Method, NotTakenError
from usernsplan.volume.passes import Leg
from usernsplan.volume.state import CHANGING, CHOWN, DONE, LOOKING, UNDOING, UNDONE, RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from usernsplan.volume.decide import Meant
    from usernsplan.volume.job import Job

# How volumes can be given, by the word of run.json.
METHODS: Mapping[str, Callable[[Job], AbstractContextManager[Method]]] = {CHOWN: chown.at_work}
# Of what failed, as many places as fit on a screen.
_SHOWN = 10


def whole(job: Job, meant: Meant, new: RunState) -> None:
    """Make a new run. Raises RefusedError for what would not end well; then nothing was changed."""

    def check() -> None:
        if any(earlier.find(job.layout, new, again=meant.request.again)):
            raise HostChangedError("another run on the same volume has come before this one")

    log = journal.begin(job.layout, new, check)
    try:
        with _method(job, new) as method:
            noted = method.decide(meant, log)
            if noted is not None:
                log.set(state=CHANGING, **noted)
                _carry_out_first(job, method, log)
    finally:
        if log.state.state == LOOKING or (log.state.state == DONE and not job.outcome.changed):
            log.remove()
            job.outcome.run_name = None
        log.close()


def preview(job: Job, meant: Meant, state: RunState) -> None:
    """Foresee a run, and change nothing. ``state``: a new one, or one that was interrupted."""
    if state.state != LOOKING:
        job.outcome.notes.append(f"run {state.run} was interrupted; it is finished first")
    with _method(job, state) as method:
        method.describe(meant, state)


def finish(job: Job, run: RunState, **changes: Any) -> None:
    """Finish an interrupted run, with these changes, and try once more what had failed before it was interrupted."""
    _go_on(job, run, **changes)
    state = journal.run(job.layout, run.run)
    if state.rule.overlaps() and state.failed:
        job.outcome.failed.clear()
        retry(job, state)


def retry(job: Job, run: RunState) -> None:
    """Carry out once more what failed in a run that moved ids: it may have nothing against it any more."""
    _go_on(job, run, state=CHANGING, leg=Leg.TO_STAGING, retried=run.failed)


def take_back(job: Job, state: RunState, *, also_changed: bool) -> None:
    """Undo what a run did."""
    log = journal.resume(job.layout, state)
    try:
        log.refuse_damaged()
        with _method(job, state) as method:
            restore.mend(job.volumes, log)
            log.set(state=UNDOING)
            if method.undo(log, also_changed=also_changed):
                log.set(state=UNDONE, undone=time.time_ns(), whole=not job.outcome.failed)
    finally:
        log.close()


def preview_undo(job: Job, state: RunState, *, also_changed: bool) -> None:
    """Count what ``take_back`` would change, and change nothing."""
    log = journal.resume(job.layout, state)
    try:
        log.refuse_damaged()
        with _method(job, state) as method:
            method.describe_undo(log, also_changed=also_changed)
    finally:
        log.close()


def _method(job: Job, state: RunState) -> AbstractContextManager[Method]:
    """The method of a run at work. Raises RefusedError for one that this version does not know."""
    at_work = METHODS.get(state.method)
    if at_work is None:
        undo = job.layout.command(f"undo {shell(state.run)}")
        raise RefusedError(
            f"run {state.run} gave its volumes by {state.method!r:.40}, which this usernsplan does not know",
            hint=f"take it back with the version that made it: {undo}",
        )
    return at_work(job)


def _go_on(job: Job, run: RunState, **changes: Any) -> None:
    """Go on with an earlier run. Raises UsernsplanError where it cannot be finished."""
    undo = job.layout.command(f"undo {shell(run.run)}")
    log = journal.resume(job.layout, run)
    try:
        log.refuse_damaged()
        restore.mend(job.volumes, log)
        log.set(**changes)
        with _method(job, run) as method:
            _carry_out(job, method, log)
    except NotTakenError as error:
        raise RefusedError(str(error), hint=f"take the run back: {undo}") from error
    finally:
        log.close()
    if log.state.state == CHANGING:
        failed = job.outcome.failed.items()
        places = sorted(f"  {shown_path(path)}: {reason}" for path, reason in failed)
        raise UsernsplanError(
            "\n".join([f"run {run.run} could still not be finished:", *places[:_SHOWN]]),
            hint=f"mend that and run again, or take it back: {undo}",
        )


def _carry_out_first(job: Job, method: Method, log: journal.Journal) -> None:
    """Carry a new run out; one that the volumes do not take leaves nothing behind."""
    try:
        _carry_out(job, method, log)
    except NotTakenError as error:
        if error.changed:
            method.undo(log)
        log.remove()
        raise RefusedError(str(error), hint="nothing was changed") from error


def _carry_out(job: Job, method: Method, log: journal.Journal) -> None:
    outcome = job.outcome
    outcome.run_name = log.state.run
    outcome.found.entries = outcome.found.entries or log.state.entries
    if method.apply(log) and (ending := method.verify(log)) is not None:
        log.set(state=DONE, end=time.time_ns(), **ending)
        return
    run = log.state
    first = f"finish it: {run.finish}\n  or " if run.finish else ""
    undo = job.layout.command(f"undo {shell(run.run)}")
    outcome.notes.append(f"run {run.run} is not finished\n  {first}take it back: {undo}")
