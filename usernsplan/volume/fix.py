"""The ways into the volume fixer: here a request meets the host. What it means is decided elsewhere.

The order is the guarantee: finish what was interrupted; make the run, see run; note in the ledger whose the volumes are.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from usernsplan.errors import NotPermittedError, UsernsplanError, of_system, reason_of
from usernsplan.escape import shell
from usernsplan.formats import subid
from usernsplan.host import accounts, files, procfs
from usernsplan.ids import IdSet
from usernsplan.layout import RUNS, SUBGID, SUBUID, Layout
from usernsplan.ledger import open_ledger
from usernsplan.model import FixReport, FixRequest, LedgerState, Volume
from usernsplan.volume import decide, earlier, journal, judge, lifecycle, spots, walk
from usernsplan.volume.discover import discover
from usernsplan.volume.job import Job, Watch
from usernsplan.volume.state import DONE, LOOKING, UNDONE, NotedVolume, RunState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.volume.targets import OwnershipRule


def fix_volume(
    request: FixRequest,
    root: str = "/",
    *,
    dry_run: bool = False,
    command: str = "",
    watch: Watch | None = None,
) -> FixReport:
    """Carry volumes into a container's range, as the request says.

    ``command`` is what the history will say, and what to type again after a kill. Raises InvalidValueError,
    RefusedError and NotPermittedError before anything is written, LockBusyError where another run is at work on the
    same volume, StoppedError where a signal asked us to stop. What failed entry by entry is in the report.
    """
    job = Job.at(root, request.jobs, watch, command)
    state = open_ledger(job.layout).state()
    meant, places = _understood(job, request, state)
    rule = _rule(job, meant, state)
    if not dry_run:
        _refuse_powerless()

    twice = spots.seen_twice(places) if meant.request.cross_mounts else frozenset[str]()
    with ExitStack() as stack:
        for place in places:
            volume = _volume(place, meant.request, twice)
            stack.callback(os.close, volume.top)
            job.volumes.append(volume)
        new = _planned(job, meant, rule)
        before = earlier.find(job.layout, new, again=meant.request.again)

        if before.repeated and (dry_run or before.repeated.whole):
            _note_repeated(job, before.repeated)
        elif dry_run:
            lifecycle.preview(job, meant, before.unfinished or new)
        else:
            _carry_out(job, meant, new, before)
            _note_given(job, meant, places, new.rule)
            ended = job.outcome.run_name or (before.repeated and before.repeated.run)
            if rule.overlaps() and ended:
                earlier.note_told(job.layout, ended)
    return job.outcome.report(
        FixReport(
            "fix-volume", places, {}, dry_run=dry_run, container=meant.container, mode=rule.mode
        )
    )


def undo(  # noqa: PLR0913 - the words of the command
    run: str,
    root: str = "/",
    *,
    jobs: int | None = None,
    dry_run: bool = False,
    also_changed: bool = False,
    command: str = "",
    watch: Watch | None = None,
) -> FixReport:
    """Take a run back: owners, modes, ACLs and capabilities as they were. What has changed since is named and left.

    Setuid bits, setgid bits and capabilities go only to content that is proved to be what it was; the other files stay
    without, and are named. With ``also_changed``, plain files that were moved or changed since are taken back too.
    Raises UnknownNameError, and what ``fix_volume`` raises.
    """
    job = Job.at(root, jobs, watch, command)
    state = journal.run(job.layout, run)
    places = state.places(job.layout)
    report = FixReport("undo", places, {}, dry_run=dry_run, container=state.container)
    job.outcome.run_name = run
    if journal.is_at_work(job.layout, state):
        raise journal.busy(run)
    if state.state == LOOKING or (state.state == UNDONE and state.whole):
        what = "was taken back already" if state.state == UNDONE else "changed nothing"
        job.outcome.notes.append(f"run {run} {what}")
        return job.outcome.report(report)
    if not dry_run:
        _refuse_powerless()

    # No run has changed these, whatever a journal says that came with the root.
    request = FixRequest(places, cross_mounts=state.cross_mounts, protected=True)
    spots.refuse_dangerous(job.layout, request, places)
    job.warn_of_users(places)
    with ExitStack() as stack:
        others = [_open_again(noted, state, job, stack) for noted in state.volumes]
        if any(others) and all(volume.top < 0 for volume in job.volumes):
            job.outcome.notes.append(_copied(state, job.layout))
            return job.outcome.report(report)
        if dry_run:
            lifecycle.preview_undo(job, state, also_changed=also_changed)
        else:
            lifecycle.take_back(job, state, also_changed=also_changed)
            _note_taken_back(job, state, places)
    return job.outcome.report(report)


def _understood(
    job: Job, request: FixRequest, state: LedgerState
) -> tuple[decide.Meant, tuple[str, ...]]:
    """What a request means on this host, and where its volumes really lie."""
    request, notes = discover(job.layout, request, state)
    job.outcome.notes += notes
    places = spots.find(job.layout, request)
    spots.refuse_dangerous(job.layout, request, places)
    job.warn_of_users(places)
    names = [spots.name_of(job.layout, place) for place in places]
    return decide.understood(request, state, names, job.layout.command), places


def _rule(job: Job, meant: decide.Meant, state: LedgerState) -> OwnershipRule:
    """Which owner each inode gets. Raises RefusedError where the volumes are not the container's to have."""
    request, allocation = meant.request, meant.allocation
    passwd = accounts.of_image(request.passwd)
    rule = decide.targets_of(request, state, allocation, passwd, meant.names)
    judge.refuse_others(meant)
    judge.refuse_never_given(meant)
    host_ids = _host_ids(job.layout, request)
    return replace(rule, same=decide.images_of(request, state, rule, host_ids, allocation))


def _planned(job: Job, meant: decide.Meant, rule: OwnershipRule) -> RunState:
    """The run that the request means, before it has looked at anything."""
    request = meant.request
    is_local = all(volume.local for volume in job.volumes)
    new = RunState(
        journal.new_name(),
        LOOKING,
        job.command,
        tuple(map(_noted, job.volumes, meant.names)),
        rule,
        # Where another machine's clock writes the times, no time tells what was seen.
        seen=time.time_ns() - earlier.TICK_NS if is_local else 0,
        cross_mounts=request.cross_mounts,
        container=meant.container,
        is_reverse=request.reverse,
        formerly=decide.formerly(meant),
        keep_power=request.keep_power,
        finish=job.command,
    )
    return replace(new, rule=rule.after_it()) if earlier.has_moved(job.layout, new) else new


def _carry_out(job: Job, meant: decide.Meant, new: RunState, before: earlier.Earlier) -> None:
    """Finish what was interrupted; then make the new run, where that does not move ids twice."""
    notes = job.outcome.notes
    if unfinished := before.unfinished:
        notes.append(f"run {unfinished.run} was interrupted; it was finished first")
        lifecycle.finish(job, unfinished, rule=replace(unfinished.rule, same=new.rule.same))
    if repeated := before.repeated:
        notes.append(
            f"run {repeated.run} did this already, but for what failed; only that was tried again"
        )
        lifecycle.retry(job, repeated)
    if not any(before) or not new.rule.overlaps():
        lifecycle.whole(job, meant, new)


def _note_repeated(job: Job, repeated: RunState) -> None:
    left = len(repeated.failed)
    what = "" if repeated.whole else f", but for {left} that failed and would be tried again"
    job.outcome.notes.append(
        f"run {repeated.run} did this already{what}; its map overlaps itself, so that doing it again would move ids"
        " twice; --again does it all the same"
    )


def _note_given(job: Job, meant: decide.Meant, places: Sequence[str], rule: OwnershipRule) -> None:
    """Note in the ledger whose the volumes are; one whose top failed is nobody's yet."""
    failed = {
        name for place, name in zip(places, meant.names, strict=True) if place in job.outcome.failed
    }
    noted = decide.noted(meant, rule)
    volumes = [one for one in noted if one.path not in failed]
    removed = decide.no_longer(meant, noted)
    if volumes or removed:
        _record(job, volumes, removed)


def _note_taken_back(job: Job, state: RunState, places: Sequence[str]) -> None:
    """Note in the ledger whose the volumes were, where no later run stands."""
    stands = any(later.state == DONE for later in journal.later(job.layout, state))
    if stands or any(path in job.outcome.failed for path in places):
        return
    # A run of an older version noted no user.
    formerly = [
        Volume(path, name, mode, user="".join(user))
        for path, (name, mode, *user) in state.formerly.items()
        if name
    ]
    _record(job, formerly, [path for path, was in state.formerly.items() if not was[0]])


def _refuse_powerless() -> None:
    if not procfs.may_chown():
        raise NotPermittedError(
            "only root may give files to somebody else", hint="run as root; --dry-run needs less"
        )


def _host_ids(layout: Layout, request: FixRequest) -> decide.HostIds:
    """Whose ids the host's are; the owners of lines count only where no allocation says whose a range is."""
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
    try:
        seen = volume.seen()
    except OSError as error:
        raise of_system(error, volume.named) from error
    return NotedVolume(name, seen.st_dev, seen.st_ino)


def _open_again(noted: NotedVolume, state: RunState, job: Job, stack: ExitStack) -> bool:
    """Open a volume of an earlier run, without a top where it is gone; True where it is another one now."""
    place = job.layout.place(noted.path)
    spots.refuse_idmapped(place)
    job.volumes.append(walk.OpenVolume(place, -1, walk.Mounts()))
    try:
        volume = walk.volume(place, cross_mounts=state.cross_mounts)
    except OSError as error:
        is_link = error.errno == errno.ELOOP
        why = "it is a symlink now, or one leads to it" if is_link else reason_of(error)
        job.outcome.fail([(place, why)])
        return False

    stack.callback(os.close, volume.top)
    # Not the device: after a reboot, or mounted elsewhere, it may have another number.
    if _noted(volume, noted.path).inode == noted.inode:
        job.volumes[-1] = volume
        return False
    what = "file" if volume.only else "folder"
    why = f"it is another {what} now than the one that run {state.run} changed"
    job.outcome.fail([(place, why)])
    return True


def _copied(state: RunState, layout: Layout) -> str:
    """What to do where nothing of what a run has changed lies below this root."""
    folder = f"{RUNS}/{state.run}"
    away = f"{os.path.dirname(RUNS)}/of-another-root-{state.run}"
    return (
        f"nothing was changed: what run {state.run} has changed lies elsewhere, and this may be a copy of it; take the"
        " run back there and copy again, or give the copy to whom it is to belong with fix-volume. If this run is in"
        f" the way here: mv {shell(layout.path(folder))} {shell(layout.path(away))}"
    )


def _volume(path: str, request: FixRequest, twice: frozenset[str]) -> walk.OpenVolume:
    spots.refuse_idmapped(path)
    try:
        return walk.volume(path, cross_mounts=request.cross_mounts, twice=twice)
    except OSError as error:
        raise of_system(error, path) from error


def _record(job: Job, volumes: Sequence[Volume], removed: Sequence[str]) -> None:
    """Note in the ledger whose the volumes are. Most runs find it noted, and then nothing is locked or read for it."""
    ledger = open_ledger(job.layout)
    from usernsplan.planner.volumes import not_noted, record  # noqa: PLC0415 - a volume by a map of its own needs no ledger

    state = ledger.state()
    if not not_noted(state, volumes) and not {v.path for v in state.volumes} & set(removed):
        return
    from usernsplan import apply  # noqa: PLC0415 - half of the start-up, and most runs end above

    try:
        apply.carry_out(
            job.layout, ledger, partial(record, volumes=volumes, removed=removed), job.command
        )
    except UsernsplanError as error:
        done = f"run {job.outcome.run_name} did its work; " if job.outcome.run_name else ""
        error.notes = (*error.notes, f"{done}what could not be noted is whose the volume is now")
        raise
