"""The ways into the volume fixer: here a request meets the host. What it means is decided elsewhere.

The order is the guarantee: finish what was interrupted; look at everything; judge; note in the journal how it was;
carry out, passage by passage; look once more where something moved; the tops last; the end of the run; the ledger.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from usernsplan.errors import (
    HostChangedError,
    InvalidValueError,
    NotPermittedError,
    RefusedError,
    StoppedError,
    UsernsplanError,
    of_place,
    of_system,
    reason_of,
)
from usernsplan.escape import shell, shown_path, utf8
from usernsplan.formats import subid
from usernsplan.host import accounts, files, procfs
from usernsplan.host.mounts import all_mounts, of_others
from usernsplan.ids import IdSet
from usernsplan.layout import RUNS, SUBGID, SUBUID
from usernsplan.ledger import open_ledger
from usernsplan.model import FixReport, FixRequest, Place, Volume
from usernsplan.volume import decide, journal, restore, special, spots, syscalls, targets, walk
from usernsplan.volume.carry import Done, Rules, Seen, kinds_of, merged
from usernsplan.volume.discover import discover
from usernsplan.volume.journal import (
    CHANGING,
    DONE,
    LOOKING,
    UNDOING,
    UNDONE,
    Journal,
    RunState,
    Tree,
)
from usernsplan.volume.workers import MOST, Carry, Crew, Late, Look, Prove, Tops

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.layout import Layout
    from usernsplan.mapping import IdMap
    from usernsplan.volume.carry import Lacking

# The clock that the kernel reads for times of files ticks up to 10 ms behind the one that we read.
_TICK_NS = 50_000_000
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOWN = 10
# How often to look whether an inode carries a staging id, before something that moves files about is given up on.
_LOOKS = 3
_BEFORE = "it failed before, and nothing has changed that"


class Watch(Protocol):
    """Whoever wants to see how far a run is."""

    def begin(self, what: str, total: int | None) -> None:
        """A part of the run begins: ``total`` entries are before it, None where nobody knows."""

    def tick(self, entries: int) -> None:
        """So many entries are behind it; called every tenth of a second."""

    def warn(self, text: str) -> None:
        """Something that the user should know before anything is changed."""


class Unwatched:
    """Nobody is looking."""

    def begin(self, what: str, total: int | None) -> None:
        """See Watch."""

    def tick(self, entries: int) -> None:
        """See Watch."""

    def warn(self, text: str) -> None:
        """See Watch."""


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
    job = _Job(files.layout_at(root), request.jobs, watch or Unwatched(), utf8(command))
    ledger = open_ledger(job.layout)
    state = ledger.state()
    request, notes = discover(job.layout, request, state)
    job.notes += notes
    found = spots.find(job.layout, request)
    spots.refuse_dangerous(job.layout, request, found)
    job.warn_of_users([spot.path for spot in found])
    meant = decide.understood(request, state, (spot.name for spot in found), job.layout.command)
    request, name = meant.request, meant.container
    rule = decide.targets_of(
        request, state, meant.allocation, accounts.of_image(request.passwd), meant.names
    )
    decide.refuse_others(meant)
    decide.refuse_never_given(meant)
    host_ids = _host_ids(job.layout, request)
    rule = replace(rule, same=decide.images_of(request, state, rule, host_ids, meant.allocation))
    if not dry_run and not procfs.may_chown():
        raise NotPermittedError(
            "only root may give files to somebody else", hint="run as root; --dry-run needs less"
        )
    twice = spots.seen_twice(found) if request.cross_mounts else frozenset()
    with _opened([spot.path for spot in found], request, twice) as job.volumes:
        new = RunState(
            journal.new_name(),
            LOOKING,
            job.command,
            tuple(
                _tree(volume, spot.name) for volume, spot in zip(job.volumes, found, strict=True)
            ),
            rule,
            # Where another machine's clock writes the times, no time tells what was seen.
            seen=time.time_ns() - _TICK_NS if all(volume.local for volume in job.volumes) else 0,
            cross_mounts=request.cross_mounts,
            container=name,
            mode="reverse" if request.reverse else rule.mode,
            formerly=decide.formerly(meant),
            keep_power=request.keep_power,
            finish=job.command,
        )
        if _moved_before(job.layout, new):
            new = replace(new, targets=rule.after_it())
        unfinished, repeated = _earlier(job.layout, new, again=request.again)
        if repeated and (repeated.whole or dry_run):
            what = (
                ""
                if repeated.whole
                else f", but for {len(repeated.failed)} that failed and would be tried again"
            )
            job.notes.append(
                f"run {repeated.run} did this already{what}; its map overlaps itself, so that doing it again would move"
                " ids twice; --again does it all the same"
            )
        elif dry_run:
            job.preview(meant, unfinished or new)
        else:
            if unfinished:
                job.notes.append(f"run {unfinished.run} was interrupted; it was finished first")
                job.go_on(unfinished, targets=replace(unfinished.targets, same=rule.same))
                job.try_again(unfinished.run)
            elif repeated:
                job.notes.append(
                    f"run {repeated.run} did this already, but for what failed; only that was tried again"
                )
                job.go_on(repeated, state=CHANGING, stage=1, retried=repeated.failed)
            if not (unfinished or repeated) or not rule.overlaps():
                job.run(meant, new)
            # One whose top failed is nobody's yet.
            failed = {spot.name for spot in found if spot.path in job.failed}
            noted = decide.noted(meant, rule)
            volumes, removed = (
                [one for one in noted if one.path not in failed],
                decide.no_longer(meant, noted),
            )
            if volumes or removed:
                _record(job, volumes, removed)
            if rule.overlaps() and (ended := job.run_name or (repeated and repeated.run)):
                _told(job.layout, ended)
    return job.report(
        FixReport(
            "fix-volume",
            tuple(s.path for s in found),
            {},
            dry_run=dry_run,
            container=name,
            mode=rule.mode,
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
    job = _Job(files.layout_at(root), jobs, watch or Unwatched(), utf8(command))
    state = journal.run(job.layout, run)
    places = state.places(job.layout)
    report = FixReport("undo", places, {}, dry_run=dry_run, container=state.container)
    job.run_name = run
    if journal.is_at_work(job.layout, state):
        raise journal.busy(run)
    if state.state == LOOKING or (state.state == UNDONE and state.whole):
        job.notes.append(
            f"run {run} was taken back already"
            if state.state == UNDONE
            else f"run {run} changed nothing"
        )
        return job.report(report)
    if not dry_run and not procfs.may_chown():
        raise NotPermittedError(
            "only root may give files to somebody else", hint="run as root; --dry-run needs less"
        )
    # No run has changed these, whatever a journal says that came with the root.
    request = FixRequest(places, cross_mounts=state.cross_mounts, protected=True)
    spots.refuse_dangerous(
        job.layout,
        request,
        [spots.VolumePlace(job.layout.place(t.path), t.path) for t in state.trees],
    )
    job.warn_of_users(places)
    with ExitStack() as stack:
        for tree in state.trees:
            job.volumes.append(_still_there(tree, state, job, stack))
        if job.other and all(volume.top < 0 for volume in job.volumes):
            job.notes.append(_copied(state, job.layout))
            return job.report(report)
        job.take_back(state, really=not dry_run, trust=also_changed)
    stands = any(later.state == DONE for later in journal.later(job.layout, state))
    if not dry_run and not stands and not any(path in job.failed for path in places):
        # A run of an older version noted no user.
        formerly = [
            Volume(path, name, mode, user="".join(user))
            for path, (name, mode, *user) in state.formerly.items()
            if name
        ]
        _record(job, formerly, [path for path, was in state.formerly.items() if not was[0]])
    return job.report(report)


@dataclass(slots=True)
class _Job:
    """One command at work: where it works, and what it has seen and done so far."""

    layout: Layout
    jobs: int | None
    watch: Watch
    command: str
    started: float = field(default_factory=time.monotonic)
    volumes: list[walk.OpenVolume] = field(default_factory=list)
    found: Seen = field(default_factory=Seen)
    changed: int = 0
    stragglers: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    skipped: set[Place] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    run_name: str | None = None
    other: int = 0

    def warn_of_users(self, paths: Sequence[str]) -> None:
        """Tell of the running containers that use what lies at these paths."""
        others = of_others()
        for text in chain.from_iterable(spots.users_of(path, others) for path in paths):
            self.watch.warn(text)
            self.notes.append(text)

    def preview(self, meant: decide.Meant, state: RunState) -> None:
        """Look and judge, and count what would be done."""
        if state.state != LOOKING:
            self.notes.append(f"run {state.run} was interrupted; it is finished first")
        with self._crew() as crew:
            self._look(crew, state, None)
        decide.refuse_unseen(self.found, state.targets)
        judgement = self._judge(meant, state)
        losing = [(one, "") for one in decide.losing(self.found.lacking, state.targets)]
        if meant.request.keep_power:
            # A run that is only foreseen has no name yet.
            names, known = (
                [one for one, _ in losing],
                restore.proofs(self.layout, replace(state, run="")),
            )
            losing = list(restore.restore(self.volumes, names, known, None).rest)
        self._drop(losing)
        chosen = [
            linked for key, linked in self.found.linked.items() if key not in judgement.outside
        ]
        kinds = [linked.kinds for linked in chosen if linked.kinds is not None]
        self.changed = self.found.changes + len(kinds)
        self.kinds = self.found.kinds + Counter(chain.from_iterable(kinds))

    def run(self, meant: decide.Meant, new: RunState) -> None:
        """A whole run: look, judge, carry out. One that has nothing to do leaves nothing behind."""

        def check() -> None:
            unfinished, repeated = _earlier(self.layout, new, again=meant.request.again)
            if unfinished or repeated:
                raise HostChangedError("another run on the same volume has come before this one")

        log = journal.begin(self.layout, new, check)
        try:
            with self._crew() as crew:
                self._look(crew, new, log)
                decide.refuse_unseen(self.found, new.targets)
                outside = self._judge(meant, new).outside
                linked = (linked for key, linked in self.found.linked.items() if key not in outside)
                if self.found.changes or any(one.kinds is not None for one in linked):
                    staging = self._staging(new.targets)
                    log.set(
                        state=CHANGING,
                        stage=1 if staging else 0,
                        staging=staging,
                        outside=tuple(outside),
                        special=self.found.special,
                        entries=self.found.entries,
                        sums=log.sums(),
                    )
                    self._prove(crew, log, fresh=True)
                    self._carry(crew, log)
        finally:
            if log.state.state == LOOKING or (log.state.state == DONE and not self.changed):
                log.remove()
                self.run_name = None
            log.close()

    def go_on(self, run: RunState, **changes: Any) -> None:
        """Go on with an earlier run, with these changes. Raises UsernsplanError where it cannot be finished."""
        log = journal.resume(self.layout, run)
        try:
            log.refuse_damaged()
            restore.mend(self.volumes, log)
            log.set(**changes)
            with self._crew() as crew:
                self._prove(crew, log, fresh=False)
                self._carry(crew, log)
        finally:
            log.close()
        if log.state.state == CHANGING:
            places = sorted(
                f"  {shown_path(path)}: {reason}" for path, reason in self.failed.items()
            )
            raise UsernsplanError(
                "\n".join([f"run {run.run} could still not be finished:", *places[:_SHOWN]]),
                hint=f"mend that and run again, or take it back: {self.layout.command(f'undo {shell(run.run)}')}",
            )

    def try_again(self, run: str) -> None:
        """Carry once what failed before the run was interrupted, and may have nothing against it any more."""
        state = journal.run(self.layout, run)
        if state.targets.overlaps() and state.failed:
            self.failed.clear()
            self.go_on(state, state=CHANGING, stage=1, retried=state.failed)

    def take_back(self, state: RunState, *, really: bool, trust: bool) -> None:
        """Carry a run's journal out backwards, or only count what that would change."""
        log = journal.resume(self.layout, state)
        try:
            log.refuse_damaged()
            with self._crew() as crew:
                self.watch.begin(f"Taking back run {state.run}", None)
                if really:
                    restore.mend(self.volumes, log)
                    log.set(state=UNDOING)
                done = self._passage(crew, log, -1, trust=trust, really=really)
                self._add(done)
                lacking = [one for part in done for one in part.lacking]
                journaled = log if really else None
                restored, rest = restore.restore(
                    self.volumes, lacking, lambda one: one.entry.proof, journaled
                )
                self._count(lacking, restored)
                self.fail(
                    (self._path(one), restore.told(one, why, self._path(one))) for one, why in rest
                )
                if really:
                    self._settle(state)
                if really and not any(part.half for part in done):
                    log.set(state=UNDONE, undone=time.time_ns(), whole=not self.failed)
        finally:
            log.close()

    def report(self, report: FixReport) -> FixReport:
        """All of it, told."""
        found = self.found
        wrong = found.changes + sum(
            linked.found for linked in found.linked.values() if linked.kinds is not None
        )
        counts = {
            "entries": found.entries,
            "changed": self.changed,
            # Of a run that was resumed, the look has found right what was changed before.
            "right": max(found.entries - max(wrong, self.changed), 0),
            **{
                kind: self.kinds[kind]
                for kind in ("setuid", "capability", "acl", "device", "hard_link")
            },
            "stragglers": self.stragglers,
        }
        several = len(found.owners) if report.mode == "own" and wrong else 0
        return replace(
            report,
            counts=counts,
            run=self.run_name,
            flattened=several if several > 1 else 0,
            kept_uids=dict(sorted(found.unmapped_uids.items())),
            kept_gids=dict(sorted(found.unmapped_gids.items())),
            skipped=tuple(sorted(self.skipped)),
            failed=tuple(Place(*failed) for failed in sorted(self.failed.items())),
            dropped=tuple(Place(*dropped) for dropped in sorted(self.dropped.items())),
            notes=tuple(self.notes),
            seconds=time.monotonic() - self.started,
        )

    @contextmanager
    def _crew(self) -> Iterator[Crew]:
        """Workers; while they are at work, a signal makes them stop between two folders."""
        if self.jobs is not None and not 1 <= self.jobs <= MOST:
            raise InvalidValueError(f"--jobs {self.jobs}: from 1 to {MOST}")
        crew = Crew(
            self.volumes, self.jobs or min(len(os.sched_getaffinity(0)), MOST), self.watch.tick
        )
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
        self.found = merged(crew.look(orders, len(self.volumes)))
        self.skipped |= {Place(*place) for place in self.found.skipped}
        self.fail(self.found.failed)
        if crew.board.stopped:
            raise StoppedError("stopped; nothing was changed")

    def _judge(self, meant: decide.Meant, state: RunState) -> decide.Judgement:
        judgement = decide.judge(self.found, meant.request, decide.former(meant, self.found))
        # What the journal has is finished by the journal, however much of it is there already.
        if state.state == LOOKING:
            decide.refuse_moved(meant, self.found, state.targets)
        losing = decide.losing(self.found.lacking, state.targets)
        decide.refuse_power(meant, [(self._path(one), one) for one in losing], state.targets)
        lowers = dict.fromkeys(
            chain.from_iterable(walk.lower_folders(volume) for volume in self.volumes)
        )
        decide.refuse_copies(meant, self.found, tuple(lowers))
        self.skipped |= set(judgement.skipped)
        return judgement

    def _staging(self, rule: targets.OwnershipRule) -> tuple[IdMap, IdMap] | None:
        if not rule.overlaps():
            return None
        uids, gids = ({owner[kind] for owner in self.found.owners} for kind in (0, 1))
        return (targets.staging(rule.uids, uids), targets.staging(rule.gids, gids))

    def _carry(self, crew: Crew, log: Journal) -> None:
        """Carry a journal out, from the passage on at which it is."""
        self.run_name = log.state.run
        self.found.entries = self.found.entries or log.state.entries
        last = 2 if log.state.stage else 0
        # Of a passage that a kill has come after: what failed in it is in the journal.
        failed = dict.fromkeys(
            map(self.layout.place, log.state.failed if log.state.stage == last else ()), _BEFORE
        )
        for stage in range(log.state.stage, last + 1):
            if stage != log.state.stage:
                log.set(stage=stage, failed=self._names(failed))
            what = f"Changing, passage {stage} of {last}" if last else "Changing"
            self.watch.begin(what, self.found.changes or None)
            done = self._passage(crew, log, stage)
            if stage == last:
                self._add(done)
            failed |= {path: why for part in done for path, why in part.failed}
            self.fail(chain.from_iterable((*part.failed, *part.named) for part in done))
            self._settle(log.state)
            # An id that was not looked at may be an old one, or in the next passage a new one: nobody could tell then.
            if any(part.half or (stage < last and part.unseen) for part in done):
                self._not_finished(log)
                return
        if last and not self._none_is_staged(crew, log):
            self._not_finished(log)
            return
        lacking = [one for part in done for one in part.lacking]
        rest = tuple((one, "") for one in lacking)
        if log.state.keep_power:
            known = restore.proofs(self.layout, log.state)
            rest = restore.restore(self.volumes, lacking, known, log).rest
        self._drop(rest)
        carried = {path for part in done for path in part.carried}
        left = sorted(
            ({*map(self.layout.place, log.state.retried or ())} | failed.keys()) - carried
        )
        self.fail((path, failed.get(path, _BEFORE)) for path in left)
        whole = not self.failed and not self.stragglers and not self.skipped
        tops = tuple(map(_changed_ns, self.volumes))
        log.set(
            state=DONE,
            end=time.time_ns(),
            whole=whole,
            failed=self._names(left),
            retried=None,
            tops=tops,
        )

    def _none_is_staged(self, crew: Crew, log: Journal) -> bool:
        """Make sure that no inode carries a staging id: what was moved about between two looks is carried on."""
        state = log.state
        if state.staging is None:
            return True
        staged = [IdSet(staging.host_ranges()) for staging in state.staging]
        turn = state.turn(2)
        for _ in range(_LOOKS):
            self.watch.begin("Looking once more", None)
            found = merged(crew.look([Look(turn, 0, None)] * crew.jobs, len(self.volumes)))
            self._check(crew, log, really=True)
            if found.unseen:
                self.fail(found.unseen)
                return False
            if not any(uid in staged[0] or gid in staged[1] for uid, gid in found.owners):
                return True
            rules = Rules(turn, outside=frozenset(state.outside))
            done = crew.each([Late(rules, 0, (), log.path("late", 0), log.folder, deep=True)])
            self._check(crew, log, really=True)
            self._add(done)
            self.fail(chain.from_iterable((*part.failed, *part.named) for part in done))
        why = "something in it still has an id of between the two passages"
        self.fail((path, why) for path in state.places(self.layout))
        return False

    def _not_finished(self, log: Journal) -> None:
        run = log.state
        finish = f"finish it: {run.finish}\n  or " if run.finish else ""
        undo = self.layout.command(f"undo {shell(run.run)}")
        self.notes.append(f"run {run.run} is not finished\n  {finish}take it back: {undo}")

    def _prove(self, crew: Crew, log: Journal, *, fresh: bool) -> None:
        """See whether the file systems of the run take owners, before more than one entry of each is changed.

        Raises RefusedError where one does not; a ``fresh`` run has then changed nothing, and leaves nothing behind.
        """
        mounts = all_mounts()
        known = walk.takes_owners(mounts)
        doubted = [
            volume for volume in self.volumes if volume.top >= 0 and walk.is_doubted(volume, mounts)
        ]
        state = log.state
        # What is tried again was proved by the run before, and may have been moved by it.
        if not doubted or state.retried is not None:
            return
        rules = Rules(state.turn(state.stage), state.seen, outside=frozenset(state.outside))
        whole = any(volume.cross_mounts and volume.mounts.names for volume in self.volumes)
        order = Prove(rules, tuple(log.logs("folders", "late")), log.folder, known, whole)
        done = crew.each([order])
        # They are named by the passages, which meet them again.
        done[0].failed.clear()
        if not done[0].ignored:
            if state.stage != 1:
                self._add(done)
            return
        if fresh:
            if done[0].changed or done[0].linked:
                self._passage(crew, log, -1)
            log.remove()
            hint = "nothing was changed"
        else:
            hint = f"take the run back: {self.layout.command(f'undo {shell(state.run)}')}"
        raise RefusedError(f"{shown_path(done[0].ignored)}: {special.OWN_OWNERS}", hint=hint)

    def _passage(
        self, crew: Crew, log: Journal, stage: int, *, trust: bool = False, really: bool = True
    ) -> list[Done]:
        """One passage over the journal, forwards or (-1) backwards; the tops of the volumes last."""
        state = log.state
        both = zip(state.trees, self.volumes, strict=True)
        rules = Rules(
            state.turn(stage),
            state.seen,
            {tree.device: _device(volume) for tree, volume in both if volume.top >= 0},
            frozenset(state.outside),
            end=state.end if stage < 0 else None,
            until=max((run.undone or 0 for run in journal.later(self.layout, state)), default=0)
            if stage < 0
            else None,
            renewed=restore.renewed(self.layout, state),
            trust=trust,
            really=really,
            # Taken back is all of it, whatever was tried again.
            only=None
            if state.retried is None or stage < 0
            else frozenset(map(self.layout.place, state.retried)),
        )
        logs = log.logs("folders", "late")
        shares = [tuple(logs[number :: crew.jobs]) for number in range(crew.jobs)]
        run = log.folder if really else None
        done = crew.each([Carry(rules, share, run) for share in shares])
        self._check(crew, log, really=really)
        # What is tried again may have been moved by the run before: only what was noted tells what it was.
        if stage >= 0 and rules.only is None:
            late = replace(rules, seen_before=0)
            deep = any(part.lost for part in done)
            done += crew.each(
                [
                    Late(
                        late,
                        state.seen,
                        share,
                        log.path("late", number),
                        log.folder,
                        deep and not number,
                    )
                    for number, share in enumerate(shares)
                ]
            )
            self._check(crew, log, really=really)
        if not any(part.half for part in done):
            tops = {note.tree: note for part in done for note in part.tops}
            done += crew.each([Tops(rules, tuple(tops.values()), run)])
        return done

    def _settle(self, state: RunState) -> None:
        """Have on disk what the journal is about to call done, where the same words could not do it again.

        A power cut may keep a new owner and lose the setuid bit that was put back after it, or keep the note that ids
        are staged and lose that they are. A plain change of owner that is lost is found by the next run.
        """
        if state.cross_mounts:
            os.sync()
        elif state.staging or state.special:
            for volume in self.volumes:
                if volume.top >= 0:
                    _sync(volume)

    def _check(self, crew: Crew, log: Journal, *, really: bool) -> None:
        """Raise StoppedError where a signal stopped the workers."""
        if not crew.board.stopped:
            return
        run = log.state.run
        if not really:
            raise StoppedError("stopped; nothing was changed")
        again = (
            ""
            if log.state.state == UNDOING
            else f"go on: {log.state.finish or 'the same words'}\n  or "
        )
        raise StoppedError(
            f"stopped in the middle of run {run}; what was begun is whole",
            hint=f"{again}take it back: {self.layout.command(f'undo {shell(run)}')}",
        )

    def _names(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Paths in volumes as the journal has them: below the root."""
        return tuple(sorted(self.layout.below(path) or path for path in paths))

    def _path(self, one: Lacking) -> str:
        return self.volumes[one.tree].shown(one.parts, one.name)

    def _drop(self, lost: Iterable[tuple[Lacking, str]]) -> None:
        for one, why in lost:
            path = self._path(one)
            self.dropped[path] = restore.told(one, why, path)

    def _count(self, lacking: Iterable[Lacking], restored: Iterable[Lacking]) -> None:
        """Count what was changed of files that lacked power: each file once."""
        changed = {(one.entry.device, one.entry.inode): one for one in lacking if one.changed}
        changed |= {(one.entry.device, one.entry.inode): one for one in restored}
        self.changed += len(changed)
        self.kinds.update(chain.from_iterable(kinds_of(one.entry) for one in changed.values()))

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
            self.fail(part.named)
            self.skipped |= {Place(*place) for place in part.skipped}
            linked |= part.linked
        self.changed += len(linked)
        self.kinds.update(chain.from_iterable(linked.values()))


def _earlier(
    layout: Layout, new: RunState, *, again: bool
) -> tuple[RunState | None, RunState | None]:
    """The interrupted run that these words go on with, and the run that did the same and must not be repeated.

    Raises LockBusyError or RefusedError where an earlier run stands in the way.
    """
    runs = [run for run in journal.runs(layout, new) if run.overlaps(new)]
    for run in runs:
        if run.state not in {CHANGING, UNDOING}:
            continue
        if journal.is_at_work(layout, run):
            raise journal.busy(run.run)
        if run.state == CHANGING and run.same_work(new):
            journal.refuse_half_known(layout, run)
            return run, None
        first = f"finish it: {run.finish}\n  or " if run.state == CHANGING and run.finish else ""
        raise RefusedError(
            f"run {run.run} on {', '.join(run.places(layout))} was interrupted",
            hint=f"{first}take it back: {layout.command(f'undo {shell(run.run)}')}",
        )
    before = {run.run: run for run in (_moved_by(tree, new, runs) for tree in new.trees) if run}
    if not new.targets.overlaps() or not before:
        return None, None
    run = next(iter(before.values()))
    is_same = len(before) == 1 and run.same_work(new)
    if again and not (is_same and run.command == new.command and not run.told):
        return None, None
    # With --again too where that very command was killed after its last change: it has moved the ids already.
    if is_same:
        return None, run
    raise RefusedError(
        f"run {run.run} has moved these ids already in {', '.join(run.places(layout))}",
        hint="the map overlaps itself, so that they would be moved twice; if you mean it all the same, say --again",
    )


def _moved_by(tree: Tree, new: RunState, runs: Sequence[RunState]) -> RunState | None:
    """The last run that moved the same ids in a tree, or in a part of it, and whose work still stands."""
    for run in reversed(runs):
        if run.state != DONE or not any(
            tree.contains(other) or other.contains(tree) for other in run.trees
        ):
            continue
        if run.same_ids(new):
            return run
        if any(other.contains(tree) for other in run.trees):
            return None
    return None


def _told(layout: Layout, run: str) -> None:
    """Note that the command of a run has come to its end: from now on the same words mean another run."""
    state = journal.run(layout, run)
    if state.state == DONE and not state.told:
        log = journal.resume(layout, state)
        try:
            log.set(told=True)
        finally:
            log.close()


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


def _moved_before(layout: Layout, new: RunState) -> bool:
    """Tell whether a run has moved the same ids in each of these trees, or has begun to, and it still stands."""
    runs = [
        run
        for run in journal.runs(layout, new)
        if run.state in {CHANGING, DONE} and run.overlaps(new)
    ]
    last = [
        next(
            (run for run in reversed(runs) if any(other.contains(tree) for other in run.trees)),
            None,
        )
        for tree in new.trees
    ]
    return all(run is not None and run.same_ids(new) for run in last)


def _verified(layout: Layout, new: RunState, volumes: Sequence[walk.OpenVolume]) -> int:
    """Until when (ns) all attributes in these volumes are known to be right: the end of a run that did the same.

    It has to have ended whole, and each top has to be as that run left it: were the volume another one by now, or
    rolled back to a snapshot, its top would show it.
    """
    earlier = [
        run for run in journal.runs(layout, new) if run.state != LOOKING and run.overlaps(new)
    ]
    before = earlier[-1] if earlier else None
    if not (
        before and before.state == DONE and before.whole and before.end and before.seen and new.seen
    ):
        return 0
    same = before.same_work(new) and before.tops == tuple(map(_changed_ns, volumes))
    return before.end - _TICK_NS if same else 0


def _changed_ns(volume: walk.OpenVolume) -> int:
    try:
        return volume.seen().st_ctime_ns
    except OSError:
        return 0  # a single file that is gone by now


def _device(volume: walk.OpenVolume) -> int:
    with of_place(volume.named):
        return os.fstat(volume.top).st_dev


def _sync(volume: walk.OpenVolume) -> None:
    try:
        syscalls.sync_file_system(volume.top)
    except OSError as error:
        reason = reason_of(error)
        raise UsernsplanError(
            f"{volume.path}: what was changed is not all on the disk: {reason}"
        ) from error


def _tree(volume: walk.OpenVolume, name: str) -> Tree:
    try:
        seen = volume.seen()
    except OSError as error:
        raise of_system(error, volume.named) from error
    return Tree(name, seen.st_dev, seen.st_ino)


def _still_there(tree: Tree, state: RunState, job: _Job, stack: ExitStack) -> walk.OpenVolume:
    """A volume of an earlier run; one without a top where it is gone, which is said."""
    place = job.layout.place(tree.path)
    spots.refuse_idmapped(place)
    try:
        volume = walk.volume(place, cross_mounts=state.cross_mounts)
    except OSError as error:
        why = (
            "it is a symlink now, or one leads to it"
            if error.errno == errno.ELOOP
            else reason_of(error)
        )
        job.fail([(place, why)])
    else:
        stack.callback(os.close, volume.top)
        # Not the device: after a reboot, or mounted elsewhere, it may have another number.
        if _tree(volume, tree.path).inode == tree.inode:
            return volume
        what = "file" if volume.only else "folder"
        job.fail([(place, f"it is another {what} now than the one that run {state.run} changed")])
        job.other += 1
    return walk.OpenVolume(place, -1, walk.Mounts())


def _copied(state: RunState, layout: Layout) -> str:
    """What to do where nothing of what a run has changed lies below this root."""
    folder = f"{RUNS}/{state.run}"
    away = f"{os.path.dirname(RUNS)}/of-another-root-{state.run}"
    return (
        f"nothing was changed: what run {state.run} has changed lies elsewhere, and this may be a copy of it; take the"
        " run back there and copy again, or give the copy to whom it is to belong with fix-volume. If this run is in"
        f" the way here: mv {shell(layout.path(folder))} {shell(layout.path(away))}"
    )


@contextmanager
def _opened(
    paths: Sequence[str], request: FixRequest, twice: frozenset[str]
) -> Iterator[list[walk.OpenVolume]]:
    with ExitStack() as stack:
        volumes = []
        for path in paths:
            volume = _volume(path, request, twice)
            stack.callback(os.close, volume.top)
            volumes.append(volume)
        yield volumes


def _volume(path: str, request: FixRequest, twice: frozenset[str]) -> walk.OpenVolume:
    spots.refuse_idmapped(path)
    try:
        return walk.volume(path, cross_mounts=request.cross_mounts, twice=twice)
    except OSError as error:
        raise of_system(error, path) from error


def _record(job: _Job, volumes: Sequence[Volume], removed: Sequence[str]) -> None:
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
        done = f"run {job.run_name} did its work; " if job.run_name else ""
        error.notes = (*error.notes, f"{done}what could not be noted is whose the volume is now")
        raise
