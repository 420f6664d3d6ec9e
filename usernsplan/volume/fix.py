"""The entry points of the volume fixer. They read the host; other modules decide.

The order is the guarantee: finish an interrupted run; make the new run (see lifecycle); record
in the ledger whose the volumes are.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from usernsplan.errors import NotPermittedError, of_place, reason_of
from usernsplan.escape import shell
from usernsplan.fixing import FixReport, FixRequest
from usernsplan.formats import subid
from usernsplan.host import accounts, files, procfs
from usernsplan.ids import IdSet
from usernsplan.layout import RUNS, SUBGID, SUBUID, Layout
from usernsplan.ledger import name_now, open_ledger
from usernsplan.planner.mounts import present
from usernsplan.values import replace
from usernsplan.volume import (
    decide,
    earlier,
    journal,
    judge,
    lifecycle,
    mounting,
    options,
    records,
    spots,
    walk,
)
from usernsplan.volume.discover import discover
from usernsplan.volume.job import Job, Watch
from usernsplan.volume.recording import record_undone, record_volumes
from usernsplan.volume.state import CHOWN, DONE, IDMAP, LOOKING, UNDONE, NotedVolume, RunState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.model import LedgerState, VolumeMount
    from usernsplan.volume.targets import OwnershipRule


def fix_volume(  # noqa: PLR0913 - the options of the command
    request: FixRequest,
    root: str = "/",
    *,
    dry_run: bool = False,
    command: str = "",
    watch: Watch | None = None,
    ledger: LedgerState | None = None,
) -> FixReport:
    """Move volumes into a container's id range, as the request says.

    ``ledger`` is the state to decide by instead of the ledger's own, for a preview of what is not
    written yet. ``command`` is recorded in the history, and is the command to repeat after a kill.
    Raises InvalidValueError, RefusedError and NotPermittedError before anything is written,
    LockBusyError if another run works on the same volume, StoppedError if a signal stopped the run.
    Failures of single entries are in the report.
    """
    job = Job.at(root, request.jobs, watch, command)
    if ledger is not None and not dry_run:
        raise ValueError("another state than the ledger's is for a preview only")
    state = open_ledger(job.layout).state() if ledger is None else ledger
    settled = mounting.settled(request)
    if settled != request:
        job.outcome.notes.append("--method auto changes the disk: another option says so")
    meant, places = _understood(job, settled, state)
    meant = mounting.understood(job, meant, places)
    if meant.request.method == CHOWN:
        job.warn_of_users(places)
    rule = _rule(job, meant, state)
    if not dry_run:
        _refuse_powerless()

    twice = spots.seen_twice(places) if meant.request.cross_mounts else frozenset[str]()
    with ExitStack() as stack:
        for place in places:
            mounting.refuse_shown(job, meant, place)
            volume = _volume(place, meant.request, twice)
            stack.callback(os.close, volume.top)
            job.volumes.append(volume)
        mounts = mounting.asked(job, meant, rule)
        mounting.refuse_others(job.layout, meant, mounts)
        new = _planned(job, meant, rule, mounts)
        before = earlier.find(job.layout, new, again=meant.request.again)

        if before.repeated and (dry_run or before.repeated.whole):
            _note_repeated(job, before.repeated)
        elif dry_run:
            lifecycle.preview(job, meant, before.unfinished or new)
        else:
            _carry_out(job, meant, new, before)
            if mounts:
                mounting.note(job, meant, mounts)
            else:
                _note_given(job, meant, places, new.rule)
            ended = job.outcome.run_name or (before.repeated and before.repeated.run)
            if rule.overlaps() and ended:
                earlier.note_told(job.layout, ended)
    return job.outcome.report(
        FixReport(
            "fix-volume",
            places,
            {},
            dry_run=dry_run,
            container=meant.container,
            mode=rule.mode,
            mounts=mounts,
        )
    )


def undo(  # noqa: PLR0913 - the options of the command
    run: str,
    root: str = "/",
    *,
    jobs: int | None = None,
    dry_run: bool = False,
    also_changed: bool = False,
    command: str = "",
    watch: Watch | None = None,
) -> FixReport:
    """Undo a run: restore owners, modes, ACLs and capabilities. Report and keep later changes.

    ``run`` may be the mount point of a volume: then the run that mounted it is undone.
    Setuid bits, setgid bits and capabilities return only to files whose content is proved
    unchanged; the other files stay without them and are reported. With ``also_changed``, plain
    files that were moved or changed since the run are restored too. Raises UnknownNameError, and
    what ``fix_volume`` raises.
    """
    job = Job.at(root, jobs, watch, command)
    run = mounting.run_at(job, run) if "/" in run else run
    state = journal.run(job.layout, run)
    places = state.places(job.layout)
    container = state.container
    if container is not None:
        container = name_now(container, open_ledger(job.layout).renames(), state.event)
    report = FixReport("undo", places, {}, dry_run=dry_run, container=container)
    job.outcome.run_name = run
    if journal.is_at_work(job.layout, state):
        raise journal.busy(run)

    if state.state == LOOKING or (state.state == UNDONE and state.whole):
        what = "is already undone" if state.state == UNDONE else "changed nothing"
        job.outcome.notes.append(f"run {run} {what}")
        if state.state == UNDONE and not dry_run:
            # It may have been killed before it noted the end.
            record_undone(job, state)
        return job.outcome.report(report)
    if not dry_run:
        _refuse_powerless()
    ledger = open_ledger(job.layout).state()
    if state.method == IDMAP:
        made = present(ledger, state.mounts, state.run)
        mounts = tuple(mount for mount, taken in made if not taken)
        mounting.refuse_needed(job, state, mounts)
        if dry_run:
            lifecycle.preview_undo(job, state, also_changed=also_changed)
        else:
            lifecycle.undo(job, state, also_changed=also_changed)
        return job.outcome.report(replace(report, mounts=mounts))

    judge.refuse_mounted(ledger, (one.path for one in state.volumes), job.layout)
    # The journal may come from elsewhere with the root. It cannot make us change protected folders.
    request = FixRequest(places, cross_mounts=state.cross_mounts, protected=True)
    spots.refuse_dangerous(job.layout, request, places)
    job.warn_of_users(places)
    with ExitStack() as stack:
        replaced = [_reopen(noted, state, job, stack) for noted in state.volumes]
        if any(replaced) and all(volume.top < 0 for volume in job.volumes):
            job.outcome.notes.append(_copied(state, job.layout))
            return job.outcome.report(report)
        if dry_run:
            lifecycle.preview_undo(job, state, also_changed=also_changed)
        else:
            lifecycle.undo(job, state, also_changed=also_changed)
            _note_undone(job, state, places)
    return job.outcome.report(report)


def _understood(
    job: Job, request: FixRequest, state: LedgerState
) -> tuple[decide.Meant, tuple[str, ...]]:
    """What a request means on this host, and the real paths of its volumes."""
    request, notes = discover(job.layout, request, state)
    job.outcome.notes += notes
    places = spots.find(job.layout, request)
    spots.refuse_dangerous(job.layout, request, places)
    names = [spots.name_of(job.layout, place) for place in places]
    return decide.understood(request, state, names, job.layout.command), places


def _rule(job: Job, meant: decide.Meant, state: LedgerState) -> OwnershipRule:
    """The owner of each inode. Raises RefusedError if the volumes are another container's."""
    request, allocation = meant.request, meant.allocation
    passwd = accounts.of_image(request.passwd)
    rule = options.targets_of(request, state, allocation, passwd, meant.names, former=meant.former)

    if request.method != IDMAP:
        judge.refuse_mounted(meant.ledger, meant.names, job.layout)
        judge.refuse_others(meant)
    judge.refuse_never_given(meant)

    host_ids = _host_ids(job.layout, request)
    return replace(rule, same=decide.images_of(request, state, rule, host_ids, allocation))


def _planned(
    job: Job, meant: decide.Meant, rule: OwnershipRule, mounts: tuple[VolumeMount, ...]
) -> RunState:
    """The run that the request means, before it looks at anything."""
    request = meant.request
    is_local = all(volume.local for volume in job.volumes)
    new = RunState(
        journal.new_name(),
        LOOKING,
        job.command,
        tuple(map(_noted, job.volumes, meant.names)),
        rule,
        # On a network file system another machine's clock sets ctime, so times prove nothing.
        seen=time.time_ns() - earlier.TICK_NS if is_local else 0,
        cross_mounts=request.cross_mounts,
        container=meant.container,
        event=meant.ledger.number,
        is_reverse=request.reverse,
        formerly=records.formerly(meant),
        keep_power=request.keep_power,
        method=IDMAP if mounts else CHOWN,
        mounts=mounts,
        finish=job.command,
    )
    if mounts:
        return new
    settled = rule.overlaps() and decide.is_settled(meant)
    if settled and not earlier.is_left(job.layout, new):
        return replace(new, rule=rule.trusting())
    return replace(new, rule=rule.after_it()) if earlier.has_moved(job.layout, new) else new


def _carry_out(job: Job, meant: decide.Meant, new: RunState, before: earlier.Earlier) -> None:
    """Finish an interrupted run; then make the new run, unless that would move ids twice."""
    notes = job.outcome.notes
    if unfinished := before.unfinished:
        notes.append(f"run {unfinished.run} was interrupted; it was finished first")
        lifecycle.finish(job, unfinished, rule=replace(unfinished.rule, same=new.rule.same))
    if repeated := before.repeated:
        notes.append(
            f"run {repeated.run} already did this; only the entries that failed were tried again"
        )
        lifecycle.retry(job, repeated)
    if not any(before) or not new.rule.overlaps():
        lifecycle.whole(job, meant, new)


def _note_repeated(job: Job, repeated: RunState) -> None:
    left = len(repeated.failed)
    what = "" if repeated.whole else f", except for {left} that failed and would be tried again"
    job.outcome.notes.append(
        f"run {repeated.run} already did this{what}; its map overlaps itself, so repeating it would"
        " move ids twice; --again repeats it anyway"
    )


def _note_given(job: Job, meant: decide.Meant, places: Sequence[str], rule: OwnershipRule) -> None:
    """Record in the ledger whose the volumes are. If a top failed, its volume is not recorded."""
    if meant.former is not None and not rule.is_own and job.outcome.failed:
        # What failed has its former id, which may be another one's in the present map.
        return
    failed = {
        name for place, name in zip(places, meant.names, strict=True) if place in job.outcome.failed
    }
    noted = records.noted(meant, rule)
    volumes = [one for one in noted if one.path not in failed]
    removed = records.no_longer(meant, noted)
    if volumes or removed:
        record_volumes(job, volumes, removed, meant.ledger.number)


def _note_undone(job: Job, state: RunState, places: Sequence[str]) -> None:
    """Record in the ledger whose the volumes were before, unless a later run is still in effect."""
    stands = any(later.state == DONE for later in journal.later(job.layout, state))
    if stands or any(path in job.outcome.failed for path in places):
        return
    ledger = open_ledger(job.layout)
    renames, now = ledger.renames(), ledger.state()
    was = {
        path: [name and name_now(name, renames, state.event), *how]
        for path, (name, *how) in state.formerly.items()
    }
    gone = [path for path, (name, *_) in was.items() if not name]
    record_volumes(job, records.restored(was, now), gone, now.number)


def _refuse_powerless() -> None:
    if not procfs.may_chown():
        raise NotPermittedError(
            "only root may change the owner of files", hint="run as root, or use --dry-run"
        )


def _host_ids(layout: Layout, request: FixRequest) -> decide.HostIds:
    """Which ids the host uses. Subid owners count only if no allocation says whose a range is."""
    known = accounts.read(layout).ids()
    if not request.uid_map:
        return decide.HostIds(known)
    owners: dict[str, list[tuple[int, int]]] = {}
    for path in (SUBUID, SUBGID):
        for line in subid.parse(files.read(layout, path, follow=True)).lines:
            if isinstance(line, subid.Grant):
                owners.setdefault(line.owner, []).append((line.start, line.stop))
    return decide.HostIds(known, tuple(map(IdSet.clipped, owners.values())))


def _noted(volume: walk.OpenVolume, name: str) -> NotedVolume:
    with of_place(volume.named):
        seen = volume.seen()
    return NotedVolume(name, seen.st_dev, seen.st_ino)


def _reopen(noted: NotedVolume, state: RunState, job: Job, stack: ExitStack) -> bool:
    """Open a volume of an earlier run. Tell whether something else is at its path now.

    If the volume is gone or replaced, add it to the job without a top (-1).
    """
    place = job.layout.place(noted.path)
    spots.refuse_idmapped(place)
    job.volumes.append(walk.OpenVolume(place, -1, walk.Mounts()))
    try:
        volume = walk.volume(place, cross_mounts=state.cross_mounts)
    except OSError as error:
        is_link = error.errno == errno.ELOOP
        why = "it is now a symlink, or its path contains one" if is_link else reason_of(error)
        job.outcome.fail([(place, why)])
        return False

    stack.callback(os.close, volume.top)
    # Compare the inode only: after a reboot or a new mount the device can have another number.
    if _noted(volume, noted.path).inode == noted.inode:
        job.volumes[-1] = volume
        return False
    what = "file" if volume.only else "folder"
    why = f"it is not the {what} that run {state.run} changed"
    job.outcome.fail([(place, why)])
    return True


def _copied(state: RunState, layout: Layout) -> str:
    """The note for an undo that finds none of the run's files below this root."""
    folder = f"{RUNS}/{state.run}"
    away = f"{os.path.dirname(RUNS)}/of-another-root-{state.run}"
    return (
        f"nothing was changed: the files that run {state.run} changed are elsewhere, and this may"
        " be a copy of them; undo the run there and copy again, or give the copy to its container"
        f" with fix-volume. If this run is in the way here: mv {shell(layout.path(folder))}"
        f" {shell(layout.path(away))}"
    )


def _volume(path: str, request: FixRequest, twice: frozenset[str]) -> walk.OpenVolume:
    spots.refuse_idmapped(path)
    with of_place(path):
        return walk.volume(path, cross_mounts=request.cross_mounts, twice=twice)
