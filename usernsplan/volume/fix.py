"""The ways into the volume fixer: here a request meets the host. What it means is decided elsewhere.

The order is the guarantee: finish what was interrupted; look at everything; judge; note in the journal how it was;
carry out, passage by passage; look once more where something moved; the tops last; the end of the run; the ledger.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from usernsplan.errors import InvalidValueError, NotPermittedError, RefusedError, StoppedError, UsernsplanError
from usernsplan.host import files, procfs
from usernsplan.ledger import open_ledger
from usernsplan.model import FixReport, LedgerState, Place, Volume
from usernsplan.volume import decide, journal, spots, syscalls, targets, walk
from usernsplan.volume.carry import Done, Found, merged
from usernsplan.volume.journal import CHANGING, DONE, LOOKING, UNDOING, UNDONE, Journal, RunState, Tree
from usernsplan.volume.workers import MOST, Carry, Crew, Late, Look, Tops

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.layout import Layout
    from usernsplan.mapping import IdMap
    from usernsplan.model import FixRequest

# The clock that the kernel reads for times of files ticks up to 10 ms behind the one that we read.
_TICK_NS = 50_000_000
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOWN = 10


class Watch(Protocol):
    """Whoever wants to see how far a run is."""

    def begin(self, what: str, total: int | None) -> None:
        """A part of the run begins: ``total`` entries are before it, None where nobody knows."""

    def tick(self, entries: int) -> None:
        """So many entries are behind it; called every tenth of a second."""


class Unwatched:
    """Nobody is looking."""

    def begin(self, what: str, total: int | None) -> None:
        """See Watch."""

    def tick(self, entries: int) -> None:
        """See Watch."""


def fix_volume(
    request: FixRequest, root: str = "/", *, dry_run: bool = False, command: str = "", watch: Watch | None = None
) -> FixReport:
    """Carry volumes into a container's range, as the request says.

    ``command`` is what the history will say, and what to type again after a kill. Raises InvalidValueError,
    RefusedError and NotPermittedError before anything is written, LockBusyError where another run is at work on the
    same volume, StoppedError where a signal asked us to stop. What failed entry by entry is in the report.
    """
    job = _Job(files.layout_at(root), request.jobs, watch or Unwatched(), _printable(command))
    ledger = open_ledger(job.layout)
    state = LedgerState() if request.uid_map else ledger.state()
    found = spots.find(job.layout, request)
    spots.refuse_dangerous(job.layout, request, found)
    allocation = decide.container_of(request, state, [spot.name for spot in found])
    rule = decide.targets_of(request, state, allocation, spots.passwd(request.passwd))
    name = allocation.name if allocation else None
    if not dry_run and not procfs.may_chown():
        raise NotPermittedError("only root may give files to somebody else", hint="run as root; --dry-run needs less")
    with _opened([spot.path for spot in found], cross_mounts=request.cross_mounts) as job.volumes:
        formerly = {volume.path: [volume.name, volume.mode] for volume in state.volumes}
        new = RunState(
            journal.new_name(),
            LOOKING,
            job.command,
            tuple(_tree(volume) for volume in job.volumes),
            rule,
            # Where another machine's clock writes the times, no time tells what was seen.
            seen=time.time_ns() - _TICK_NS if all(volume.local for volume in job.volumes) else 0,
            cross_mounts=request.cross_mounts,
            container=name,
            mode="reverse" if request.reverse else rule.mode,
            formerly={spot.name: formerly.get(spot.name, ["", ""]) for spot in found},
        )
        unfinished = _unfinished(job.layout, new)
        done_before = None if unfinished or request.yes else _repeated(job.layout, new)
        if done_before and (done_before.whole or dry_run):
            job.notes.append(
                f"run {done_before.run} did this already, and its map overlaps itself: doing it again would move ids"
                " twice; --yes does it all the same"
            )
        elif dry_run:
            job.preview(request, unfinished or new)
        else:
            if unfinished:
                job.notes.append(f"run {unfinished.run} was interrupted; it was finished first")
                job.resume(unfinished)
            elif done_before:
                job.notes.append(
                    f"run {done_before.run} did this already, but for what failed; only that was tried again"
                )
                job.resume(replace(done_before, state=CHANGING, stage=1, repeated=True))
            if not (unfinished or done_before) or not rule.overlaps():
                job.run(request, new)
            if name:
                volumes = [] if request.reverse else [Volume(spot.name, name, new.mode) for spot in found]
                _record(job, volumes, [spot.name for spot in found] if request.reverse else [])
    return job.report(
        FixReport("fix-volume", tuple(s.path for s in found), {}, dry_run=dry_run, container=name, mode=rule.mode)
    )


def undo(  # noqa: PLR0913 - the words of the command
    run: str,
    root: str = "/",
    *,
    jobs: int | None = None,
    dry_run: bool = False,
    yes: bool = False,
    command: str = "",
    watch: Watch | None = None,
) -> FixReport:
    """Take a run back: owners, modes, ACLs and capabilities as they were. What has changed since is named and left.

    With ``yes``, files that were changed since get their setuid bits and capabilities back all the same. Raises
    UnknownNameError, and what ``fix_volume`` raises.
    """
    job = _Job(files.layout_at(root), jobs, watch or Unwatched(), _printable(command))
    state = journal.run(job.layout, run)
    report = FixReport("undo", state.paths, {}, dry_run=dry_run, container=state.container)
    job.run_name = run
    if state.state == LOOKING or (state.state == UNDONE and state.whole):
        job.notes.append(f"run {run} was taken back already" if state.state == UNDONE else f"run {run} changed nothing")
        return job.report(report)
    if not dry_run and not procfs.may_chown():
        raise NotPermittedError("only root may give files to somebody else", hint="run as root; --dry-run needs less")
    with ExitStack() as stack:
        for tree in state.trees:
            job.volumes.append(_still_there(tree, state, job, stack))
        job.take_back(state, really=not dry_run, trust=yes)
    if dry_run:
        return job.report(report)
    formerly = [Volume(path, name, mode) for path, (name, mode) in state.formerly.items() if name]
    _record(job, formerly, [path for path, (name, _) in state.formerly.items() if not name])
    return job.report(report)


@dataclass(slots=True)
class _Job:
    """One command at work: where it works, and what it has seen and done so far."""

    layout: Layout
    jobs: int | None
    watch: Watch
    command: str
    started: float = field(default_factory=time.monotonic)
    volumes: list[walk.Volume] = field(default_factory=list)
    found: Found = field(default_factory=Found)
    changed: int = 0
    stragglers: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    skipped: set[Place] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    run_name: str | None = None

    def preview(self, request: FixRequest, state: RunState) -> None:
        """Look and judge, and count what would be done."""
        if state.state != LOOKING:
            self.notes.append(f"run {state.run} was interrupted; it is finished first")
        with self._crew() as crew:
            self._look(crew, state, None)
        judgement = self._judge(request)
        chosen = [linked for key, linked in self.found.linked.items() if key not in judgement.outside]
        kinds = [linked.kinds for linked in chosen if linked.kinds is not None]
        self.changed = self.found.changes + len(kinds)
        self.kinds = self.found.kinds + Counter(chain.from_iterable(kinds))

    def run(self, request: FixRequest, new: RunState) -> None:
        """A whole run: look, judge, carry out. One that has nothing to do leaves nothing behind."""
        log = journal.begin(self.layout, new)
        try:
            with self._crew() as crew:
                self._look(crew, new, log)
                outside = self._judge(request).outside
                linked = (linked for key, linked in self.found.linked.items() if key not in outside)
                if self.found.changes or any(one.kinds is not None for one in linked):
                    staging = self._staging(new.targets)
                    stage = 1 if staging else 0
                    log.set(state=CHANGING, stage=stage, staging=staging, outside=tuple(outside))
                    self._carry(crew, log)
        finally:
            if log.state.state == LOOKING or (log.state.state == DONE and not self.changed):
                log.remove()
                self.run_name = None
            log.close()

    def resume(self, state: RunState) -> None:
        """Go on with a run from where ``state`` says. Raises UsernsplanError where it cannot be finished."""
        log = journal.resume(self.layout, state)
        try:
            log.set()
            with self._crew() as crew:
                self._carry(crew, log)
        finally:
            log.close()
        if log.state.state == CHANGING:
            places = sorted(f"  {decide.printable(path)}: {reason}" for path, reason in self.failed.items())
            raise UsernsplanError(
                "\n".join([f"run {state.run} could still not be finished:", *places[:_SHOWN]]),
                hint=f"mend that and run again, or take it back: {self.layout.command(f'undo {state.run}')}",
            )

    def take_back(self, state: RunState, *, really: bool, trust: bool) -> None:
        """Carry a run's journal out backwards, or only count what that would change."""
        log = journal.resume(self.layout, state)
        try:
            with self._crew() as crew:
                self.watch.begin(f"Taking back run {state.run}", None)
                if really:
                    log.set(state=UNDOING)
                done = self._passage(crew, log, -1, trust=trust, really=really)
                self._add(done)
                self._settle(done, state)
                if really and not any(part.half for part in done):
                    log.set(state=UNDONE, undone=time.time_ns(), whole=not self.failed)
        finally:
            log.close()

    def report(self, report: FixReport) -> FixReport:
        """All of it, told."""
        found = self.found
        wrong = found.changes + sum(linked.found for linked in found.linked.values() if linked.kinds is not None)
        counts = {
            "entries": found.entries,
            "changed": self.changed,
            "right": max(found.entries - wrong, 0),
            **{kind: self.kinds[kind] for kind in ("setuid", "capability", "acl", "device", "hard_link")},
            "stragglers": self.stragglers,
        }
        several = len(found.owners) if report.mode == "own" else 0
        return replace(
            report,
            counts=counts,
            run=self.run_name,
            flattened=several if several > 1 else 0,
            kept_uids=dict(sorted(found.unmapped_uids.items())),
            kept_gids=dict(sorted(found.unmapped_gids.items())),
            skipped=tuple(sorted(self.skipped)),
            failed=tuple(Place(*failed) for failed in sorted(self.failed.items())),
            notes=tuple(self.notes),
            seconds=time.monotonic() - self.started,
        )

    @contextmanager
    def _crew(self) -> Iterator[Crew]:
        """Workers; while they are at work, a signal makes them stop between two folders."""
        if self.jobs is not None and not 1 <= self.jobs <= MOST:
            raise InvalidValueError(f"--jobs {self.jobs}: from 1 to {MOST}")
        crew = Crew(self.volumes, self.jobs or min(len(os.sched_getaffinity(0)), MOST), self.watch.tick)
        before = {name: signal.getsignal(name) for name in _INTERRUPTS}
        try:
            for name in _INTERRUPTS:
                if before[name] is not signal.SIG_IGN:
                    signal.signal(name, lambda *_: crew.board.stop())
            with crew:
                yield crew
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)

    def _look(self, crew: Crew, state: RunState, log: Journal | None) -> None:
        self.watch.begin("Looking", None)
        seen_before = _verified(self.layout, state, self.volumes)
        orders = [
            Look(state.turn(state.stage), seen_before, log.path("folders", number) if log else None)
            for number in range(crew.jobs)
        ]
        self.found = merged(crew.look(orders, [(tree, ()) for tree in range(len(self.volumes))]))
        self.skipped |= {Place(*place) for place in self.found.skipped}
        self.fail(self.found.failed)
        if crew.board.stopped:
            raise StoppedError("stopped; nothing was changed")

    def _judge(self, request: FixRequest) -> decide.Judgement:
        judgement = decide.judge(self.found, request)
        self.skipped |= set(judgement.skipped)
        return judgement

    def _staging(self, rule: targets.Targets) -> tuple[IdMap, IdMap] | None:
        if not rule.overlaps():
            return None
        uids, gids = ({owner[kind] for owner in self.found.owners} for kind in (0, 1))
        return (targets.staging(rule.uids, uids), targets.staging(rule.gids, gids))

    def _carry(self, crew: Crew, log: Journal) -> None:
        """Carry a journal out, from the passage on at which it is."""
        self.run_name = log.state.run
        last = 2 if log.state.stage else 0
        for stage in range(log.state.stage, last + 1):
            if stage != log.state.stage:
                log.set(stage=stage)
            what = f"Changing, passage {stage} of {last}" if last else "Changing"
            self.watch.begin(what, self.found.entries or None)
            done = self._passage(crew, log, stage)
            if stage == last:
                self._add(done)
            self.fail(place for part in done for place in part.failed)
            self._settle(done, log.state)
            if any(part.half for part in done):
                self.notes.append(f"run {log.state.run} is not finished; run again with the same words")
                return
        whole = not self.failed and not self.stragglers
        log.set(state=DONE, end=time.time_ns(), whole=whole, tops=tuple(map(_changed_ns, self.volumes)))

    def _passage(self, crew: Crew, log: Journal, stage: int, *, trust: bool = False, really: bool = True) -> list[Done]:
        """One passage over the journal, forwards or (-1) backwards; the tops of the volumes last."""
        state, turn = log.state, log.state.turn(stage)
        end = state.end if stage < 0 else None
        logs = log.logs()
        shares = [tuple(logs[number :: crew.jobs]) for number in range(crew.jobs)]
        both = zip(state.trees, self.volumes, strict=True)
        devices = {tree.device: _tree(volume).device for tree, volume in both if volume.top >= 0}
        outside = frozenset(state.outside)
        vouched = _vouched(self.layout, state) if end else {}
        done = crew.each(
            [Carry(turn, state.seen, share, devices, outside, end, vouched, trust, really) for share in shares]
        )
        self._check(crew, log)
        # A straggler of an overlapping map that was followed before is what that run made of it.
        if stage >= 0 and not state.repeated:
            done += crew.each(
                [
                    Late(turn, state.seen, share, outside, log.path("late", number))
                    for number, share in enumerate(shares)
                ]
            )
            self._check(crew, log)
        if not any(part.half for part in done):
            tops = {note.tree: note for part in done for note in part.tops}
            done += crew.each([Tops(turn, tuple(tops.values()), end, trust, really)])
        return done

    def _settle(self, done: Sequence[Done], state: RunState) -> None:
        """Have on disk what the journal is about to call done, where the same words could not do it again.

        A power cut may keep a new owner and lose the setuid bit that was put back after it, or keep the note that
        ids are staged and lose that they are. A plain change of owner that is lost is found by the next run.
        """
        if state.staging or any(part.kinds or part.linked for part in done):
            for volume in self.volumes:
                if volume.top >= 0:
                    _sync(volume)

    def _check(self, crew: Crew, log: Journal) -> None:
        """Raise StoppedError where a signal stopped the workers."""
        if crew.board.stopped:
            run = log.state.run
            again = "" if log.state.state == UNDOING else f"go on: {log.state.command or 'the same words'}\n  or "
            raise StoppedError(
                f"stopped in the middle of run {run}; what was begun is whole",
                hint=f"{again}take it back: {self.layout.command(f'undo {run}')}",
            )

    def fail(self, places: Iterable[tuple[str, str]]) -> None:
        """Note what failed: of one entry, the first reason."""
        for path, reason in places:
            self.failed.setdefault(path, reason)

    def _add(self, done: Sequence[Done]) -> None:
        linked: dict[tuple[int, int], tuple[str, ...]] = {}
        for part in done:
            self.changed += part.changed
            self.stragglers += part.stragglers
            self.kinds.update(part.kinds)
            self.fail(part.failed)
            self.skipped |= {Place(*place) for place in part.skipped}
            linked |= part.linked
        self.changed += len(linked)
        self.kinds.update(chain.from_iterable(linked.values()))


def _unfinished(layout: Layout, new: RunState) -> RunState | None:
    """The interrupted run that these words go on with. Raises RefusedError where one stands in the way."""
    for run in journal.runs(layout):
        if run.state not in {CHANGING, UNDOING} or not run.overlaps(new.paths):
            continue
        if journal.is_at_work(layout, run):
            raise journal.busy(run.run)
        if run.state == CHANGING and run.same_work(new):
            return run
        first = f"finish it: {run.command}\n  or " if run.state == CHANGING and run.command else ""
        raise RefusedError(
            f"run {run.run} on {', '.join(run.paths)} was interrupted",
            hint=f"{first}take it back: {layout.command(f'undo {run.run}')}",
        )
    return None


def _last(layout: Layout, new: RunState) -> RunState | None:
    """The last run that changed something in these volumes, where it ended and did the same as this one would."""
    earlier = [run for run in journal.runs(layout) if run.state != LOOKING and run.overlaps(new.paths)]
    return earlier[-1] if earlier and earlier[-1].state == DONE and earlier[-1].same_work(new) else None


def _repeated(layout: Layout, new: RunState) -> RunState | None:
    """The run that did the same already, with a map that must not be followed twice."""
    return _last(layout, new) if new.targets.overlaps() else None


def _vouched(layout: Layout, state: RunState) -> dict[int, int]:
    """Inodes that nobody but us has changed since a run, though their ctime is later; and until when (ns) that holds.

    Later runs carried them away and were taken back: their journals say that they found them as this run had left them.
    """
    found: dict[int, int] = {}
    runs = journal.runs(layout)
    for later in runs[[run.run for run in runs].index(state.run) + 1 :]:
        if later.undone is None or state.end is None or not later.overlaps(state.paths):
            continue
        for note in chain.from_iterable(map(journal.read, Journal(layout, later).logs())):
            found |= {entry.inode: later.undone for entry in note.special if entry.changed_ns <= state.end}
    return found


def _verified(layout: Layout, new: RunState, volumes: Sequence[walk.Volume]) -> int:
    """Until when (ns) all attributes in these volumes are known to be right: the end of a run that did the same.

    It has to have ended whole, and each top has to be as that run left it: were the volume another one by now, or
    rolled back to a snapshot, its top would show it.
    """
    before = _last(layout, new) if new.seen else None
    if before is None or not before.whole or before.end is None or before.tops != tuple(map(_changed_ns, volumes)):
        return 0
    return before.end - _TICK_NS


def _changed_ns(volume: walk.Volume) -> int:
    return os.fstat(volume.top).st_ctime_ns


def _sync(volume: walk.Volume) -> None:
    try:
        syscalls.sync_file_system(volume.top)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsernsplanError(f"{volume.path}: what was changed is not all on the disk: {reason}") from error


def _tree(volume: walk.Volume) -> Tree:
    seen = os.fstat(volume.top)
    return Tree(volume.path, seen.st_dev, seen.st_ino)


def _still_there(tree: Tree, state: RunState, job: _Job, stack: ExitStack) -> walk.Volume:
    """A volume of an earlier run; one without a top where it is gone, which is said."""
    try:
        volume = walk.volume(tree.path, cross_mounts=state.cross_mounts)
    except OSError as error:
        job.fail([(tree.path, (error.strerror or str(error)).lower())])
    else:
        stack.callback(os.close, volume.top)
        if _tree(volume).inode == tree.inode:
            return volume
        job.fail([(tree.path, f"it is another folder now than the one that run {state.run} changed")])
    return walk.Volume(tree.path, -1, walk.Mounts())


@contextmanager
def _opened(paths: Sequence[str], *, cross_mounts: bool) -> Iterator[list[walk.Volume]]:
    with ExitStack() as stack:
        volumes = []
        for path in paths:
            volume = _volume(path, cross_mounts=cross_mounts)
            stack.callback(os.close, volume.top)
            volumes.append(volume)
        yield volumes


def _volume(path: str, *, cross_mounts: bool) -> walk.Volume:
    try:
        return walk.volume(path, cross_mounts=cross_mounts)
    except PermissionError as error:
        raise NotPermittedError(f"{path}: {(error.strerror or '').lower()}") from error
    except OSError as error:
        raise UsernsplanError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def _record(job: _Job, volumes: Sequence[Volume], removed: Sequence[str]) -> None:
    """Note in the ledger whose the volumes are. Most runs find it noted, and then nothing is locked or read for it."""
    ledger = open_ledger(job.layout)
    noted = {(volume.path, volume.name, volume.mode) for volume in ledger.state().volumes}
    if {(v.path, v.name, v.mode) for v in volumes} <= noted and not {path for path, *_ in noted} & set(removed):
        return
    from usernsplan import apply  # noqa: PLC0415 - half of the start-up, and most runs end above
    from usernsplan.planner.volumes import record  # noqa: PLC0415

    try:
        apply.carry_out(job.layout, ledger, partial(record, volumes=volumes, removed=removed), job.command)
    except UsernsplanError as error:
        done = f"run {job.run_name} did its work; " if job.run_name else ""
        error.notes = (*error.notes, f"{done}what could not be noted is whose the volume is now")
        raise


def _printable(text: str) -> str:
    """Words that may hold bytes which are not UTF-8, so that the journal takes them."""
    return text.encode("utf-8", "backslashreplace").decode()
