"""The method ``chown``: change owners on disk, and keep what a change of owner would destroy.

A run looks at everything before it changes anything. The journal records the old state of every
inode: applying it again after a kill finishes the run, applying it backwards undoes it. Worker
processes do both, see crew.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from usernsplan.errors import InvalidValueError, StoppedError, UsernsplanError, of_place, reason_of
from usernsplan.escape import shown_path
from usernsplan.host.mounts import all_mounts
from usernsplan.ids import IdSet
from usernsplan.values import replace
from usernsplan.volume import (
    earlier,
    journal,
    judge,
    restore,
    special,
    syscalls,
    targets,
    walk,
)
from usernsplan.volume.carry import Rules
from usernsplan.volume.crew import Crew
from usernsplan.volume.forked import MOST, default_jobs
from usernsplan.volume.method import NotTakenError
from usernsplan.volume.passes import Leg
from usernsplan.volume.seen import Done, Lacking, merged
from usernsplan.volume.state import LOOKING, RunState
from usernsplan.volume.workers import Carry, Late, Look, Prove, Tops

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.mapping import IdMap
    from usernsplan.volume.decide import Meant
    from usernsplan.volume.job import Job

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How often to look for staging ids before giving up on a volume in which files keep moving.
_LOOKS = 3
_BEFORE = "it failed before and was not fixed since"


@contextmanager
def at_work(job: Job) -> Iterator[Chown]:
    """The method with its workers. While they run, a signal stops them between two folders."""
    if job.jobs is not None and not 1 <= job.jobs <= MOST:
        raise InvalidValueError(f"--jobs {job.jobs}: expected 1 to {MOST}")
    workers = job.jobs or default_jobs()
    crew = Crew(job.volumes, workers, job.watch.tick)
    before = {name: signal.getsignal(name) for name in _INTERRUPTS}
    try:
        for name in _INTERRUPTS:
            if before[name] is not signal.SIG_IGN:
                signal.signal(name, lambda *_: crew.board.stop())
        with crew:
            yield Chown(job, crew)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


class Chown:
    """See Method.

    ``_done`` is what the last pass of ``apply`` did; ``_failed`` has the failures of all passes,
    by path.
    """

    def __init__(self, job: Job, crew: Crew) -> None:
        self._job = job
        self._outcome = job.outcome
        self._volumes = job.volumes
        self._crew = crew
        self._done: list[Done] = []
        self._failed: dict[str, str] = {}

    def decide(self, meant: Meant, log: journal.Journal) -> dict[str, Any] | None:
        """Look and judge. None if every owner is right."""
        state = log.state
        outside = self._judge(meant, state, log).outside
        found = self._outcome.found
        if not found.changes and not found.linked.changes(outside):
            return None

        staging = self._staging(state.rule)
        return {
            "leg": Leg.TO_STAGING if staging else Leg.STRAIGHT,
            "staging": staging,
            "outside": tuple(outside),
            "special": found.special,
            "entries": found.entries,
            "sums": log.sums(),
        }

    def describe(self, meant: Meant, state: RunState) -> None:
        """Look and judge, and count what a run would do."""
        judgement = self._judge(meant, state, None)
        found = self._outcome.found
        losing = [(one, "") for one in judge.losing(found.lacking, state.rule)]
        if meant.request.keep_power:
            # A previewed run has no name yet.
            names = [one for one, _ in losing]
            known = restore.proofs(self._job.layout, replace(state, run=""))
            losing = list(restore.restore(self._volumes, names, known, None).rest)
        self._drop(losing)

        self._outcome.changed, self._outcome.kinds = found.changes, +found.kinds
        for kinds, inodes in found.linked.changing(judgement.outside).items():
            self._outcome.changed += inodes
            self._outcome.kinds.update(dict.fromkeys(kinds, inodes))

    def mend(self, log: journal.Journal) -> None:
        """Finish or undo swaps of inodes that a kill interrupted."""
        restore.mend(self._volumes, log)

    def apply(self, log: journal.Journal) -> bool:
        """Apply the journal, from the pass that it has reached."""
        self._prove(log)
        state = log.state
        last = Leg.FROM_STAGING if state.leg else Leg.STRAIGHT
        # After a kill, the journal has what failed before in the last pass.
        before = state.failed if state.leg == last else ()
        self._failed = dict.fromkeys(map(self._job.layout.place, before), _BEFORE)

        for leg in map(Leg, range(state.leg, last + 1)):
            if leg != log.state.leg:
                log.set(leg=leg, failed=self._job.names(self._failed))
            what = f"Changing, pass {leg} of {last}" if last else "Changing"
            self._job.watch.begin(what, self._outcome.found.changes or None)
            self._done = done = self._forward(log, leg)
            if leg == last:
                self._outcome.add(done)
            self._failed |= {path: why for part in done for path, why in part.failed}
            self._outcome.fail(chain.from_iterable((*part.failed, *part.named) for part in done))
            self._settle(log.state)

            # An unseen id may be old, or new in the next pass; after that nobody could tell which.
            if any(part.half or (leg < last and part.unseen) for part in done):
                return False
        return True

    def verify(self, log: journal.Journal) -> dict[str, Any] | None:
        """Make sure that no inode has a staging id, and restore power where content is proved."""
        if not self._none_is_staged(log):
            return None

        state = log.state
        lacking = [one for part in self._done for one in part.lacking]
        rest = tuple((one, "") for one in lacking)
        if state.keep_power:
            known = restore.proofs(self._job.layout, state)
            self._job.lease.check()
            rest = restore.restore(self._volumes, lacking, known, log).rest
        self._drop(rest)

        # A retried entry still counts as failed unless this run changed it.
        carried = {path for part in self._done for path in part.carried}
        retried = map(self._job.layout.place, state.retried or ())
        left = sorted({*retried, *self._failed} - carried)
        self._outcome.fail((path, self._failed.get(path, _BEFORE)) for path in left)
        return {
            "whole": not (
                self._outcome.failed or self._outcome.stragglers or self._outcome.skipped
            ),
            "failed": self._job.names(left),
            "retried": None,
            "tops": earlier.tops_changed(self._volumes),
        }

    def undo(self, log: journal.Journal, *, also_changed: bool = False) -> bool:
        """Apply the journal backwards: owners, modes, ACLs and capabilities."""
        rules = self._undo_rules(log.state, also_changed=also_changed)
        done = self._back(log, rules, log)
        self._settle(log.state)
        return not any(part.half for part in done)

    def describe_undo(self, log: journal.Journal, *, also_changed: bool) -> None:
        """Count what ``undo`` would change."""
        rules = self._undo_rules(log.state, also_changed=also_changed)
        self._back(log, rules._replace(preview=True), None)

    def _look(self, state: RunState, log: journal.Journal | None) -> None:
        self._job.watch.begin("Looking", None)
        seen_before = earlier.right_until(self._job.layout, state, self._volumes)
        pass_, jobs = state.pass_of(state.leg), self._crew.jobs
        orders = [
            Look(pass_, seen_before, log.path("folders", number) if log else None, jobs)
            for number in range(jobs)
        ]
        self._outcome.found = found = merged(self._crew.look(orders))
        self._outcome.skip(found.skipped)
        self._outcome.fail(found.failed)
        self._heed(None)

    def _judge(self, meant: Meant, state: RunState, log: journal.Journal | None) -> judge.Judgement:
        self._look(state, log)
        found = self._outcome.found
        judge.refuse_unseen(found, state.rule)
        judge.refuse_lost(found, state.rule)
        outside = found.linked.outside()
        if outside:
            self._job.watch.begin("Looking for hard links", None)
            order = Look(state.pass_of(state.leg), 0, None, outside=outside)
            found.outside = merged(self._crew.look([order] * self._crew.jobs)).outside
            self._heed(None)
        judgement = judge.weigh(found, outside, meant.request, judge.former(meant, found))
        # A run that has begun is finished by its journal, even if part of the volume is done.
        if state.state == LOOKING:
            judge.refuse_moved(meant, found, state.rule)
            if unclear := judge.unclear_now(meant, found, state.rule):
                self._outcome.notes.append(f"{unclear}; the latter was left")

        losing = judge.losing(found.lacking, state.rule)
        judge.refuse_power(meant, [(self._job.shown(one), one) for one in losing], state.rule)

        lowers = dict.fromkeys(chain.from_iterable(map(walk.lower_folders, self._volumes)))
        judge.refuse_copies(meant, found, tuple(lowers))

        self._outcome.skipped |= set(judgement.skipped)
        return judgement

    def _staging(self, rule: targets.OwnershipRule) -> tuple[IdMap, IdMap] | None:
        if not rule.overlaps():
            return None
        uids, gids = ({owner[kind] for owner in self._outcome.found.owners} for kind in (0, 1))
        return (targets.staging(rule.uids, uids), targets.staging(rule.gids, gids))

    def _change(self, orders: Sequence[Carry | Prove | Late | Tops]) -> list[Done]:
        """Let the workers do what changes the volumes, if no other host works there."""
        self._job.lease.check()
        return self._crew.each(orders)

    def _prove(self, log: journal.Journal) -> None:
        """Change one entry of each file system, to see whether it accepts owners.

        Raises NotTakenError if one does not.
        """
        mounts = all_mounts()
        known = walk.takes_owners(mounts)
        is_doubted = any(one.top >= 0 and walk.is_doubted(one, mounts) for one in self._volumes)
        state = log.state
        # A retry: the run before has proved this already, and may have moved the entries.
        if not is_doubted or state.retried is not None:
            return

        rules = Rules(state.pass_of(state.leg), state.seen, outside=frozenset(state.outside))
        # A mount may come up only at the end of the logs, so with mounts read them completely.
        whole = any(volume.cross_mounts and volume.mounts.names for volume in self._volumes)
        logs = tuple(log.logs("folders", "late"))
        [done] = self._change([Prove(rules, logs, log.folder, known, whole)])
        # The passes meet these entries again and report them then.
        done.failed.clear()
        if done.ignored:
            raise NotTakenError(
                f"{shown_path(done.ignored)}: {special.OWN_OWNERS}",
                changed=bool(done.changed or done.linked),
            )
        # A staged inode is not at its new owner yet; the last pass counts it.
        if state.leg != Leg.TO_STAGING:
            self._outcome.add([done])

    def _forward(self, log: journal.Journal, leg: Leg) -> list[Done]:
        """One pass forward, a second look at what was not as recorded, and the tops last."""
        retried = log.state.retried
        only = None if retried is None else frozenset(map(self._job.layout.place, retried))
        rules = self._shared_rules(log.state, leg)._replace(only=only)
        done = self._carry(log, rules, log)
        # The run before may have moved the retried entries, so only the records tell their old ids.
        if retried is None:
            late = rules._replace(seen_before=0)
            deep = any(part.lost for part in done)
            orders = [
                Late(
                    late,
                    log.state.seen,
                    share,
                    log.path("late", number),
                    log.folder,
                    deep and not number,
                )
                for number, share in enumerate(self._shares(log))
            ]
            done += self._change(orders)
            self._heed(log)
        return self._with_tops(done, rules, log)

    def _back(
        self, log: journal.Journal, rules: Rules, writing: journal.Journal | None
    ) -> list[Done]:
        """The pass back, and power for proved content. ``writing`` is None for a preview."""
        self._job.watch.begin(f"Undoing run {log.state.run}", None)
        done = self._with_tops(self._carry(log, rules, writing), rules, writing)
        self._outcome.add(done)

        lacking = [one for part in done for one in part.lacking]
        self._job.lease.check()
        restored, rest = restore.restore(
            self._volumes, lacking, lambda one: one.entry.proof, writing
        )
        self._outcome.add_powerful(lacking, restored)
        named = ((one, why, self._job.shown(one)) for one, why in rest)
        self._outcome.fail((path, restore.told(one, why, path)) for one, why, path in named)
        return done

    def _carry(
        self, log: journal.Journal, rules: Rules, writing: journal.Journal | None
    ) -> list[Done]:
        run = writing.folder if writing else None
        done = self._change([Carry(rules, share, run) for share in self._shares(log)])
        # What follows counts anew, and few.
        self._job.watch.begin("Finishing", None)
        self._heed(writing)
        return done

    def _with_tops(
        self, done: list[Done], rules: Rules, writing: journal.Journal | None
    ) -> list[Done]:
        """Do the tops of the volumes last: a top that is done tells that all the rest is done."""
        if any(part.half for part in done):
            return done
        tops = {note.volume: note for part in done for note in part.tops}
        run = writing.folder if writing else None
        return done + self._change([Tops(rules, tuple(tops.values()), run)])

    def _shares(self, log: journal.Journal) -> list[tuple[str, ...]]:
        """The logs of each worker."""
        logs = log.logs("folders", "late")
        return [tuple(logs[number :: self._crew.jobs]) for number in range(self._crew.jobs)]

    def _shared_rules(self, state: RunState, leg: Leg) -> Rules:
        """The rules that both directions share."""
        both = zip(state.volumes, self._volumes, strict=True)
        return Rules(
            state.pass_of(leg),
            state.seen,
            {noted.device: _device(volume) for noted, volume in both if volume.top >= 0},
            frozenset(state.outside),
            restore.renewed(self._job.layout, state),
            threads=self._crew.jobs,
        )

    def _undo_rules(self, state: RunState, *, also_changed: bool) -> Rules:
        later = journal.later(self._job.layout, state)
        return self._shared_rules(state, Leg.BACK)._replace(
            end=state.end,
            until=max((run.undone or 0 for run in later), default=0),
            also_changed=also_changed,
        )

    def _none_is_staged(self, log: journal.Journal) -> bool:
        """Make sure that no inode has a staging id; finish files that moved between two looks."""
        state, outcome = log.state, self._outcome
        if state.staging is None:
            return True
        staged = [IdSet(ids.host_ranges()) for ids in state.staging]
        pass_ = state.pass_of(Leg.FROM_STAGING)
        rules = Rules(pass_, outside=frozenset(state.outside))
        for _ in range(_LOOKS):
            self._job.watch.begin("Looking again", None)
            found = merged(self._crew.look([Look(pass_, 0, None)] * self._crew.jobs))
            self._heed(log)
            if found.unseen:
                outcome.fail(found.unseen)
                return False
            if not any(uid in staged[0] or gid in staged[1] for uid, gid in found.owners):
                return True
            outcome.add(
                self._change([Late(rules, 0, (), log.path("late", 0), log.folder, deep=True)])
            )
            self._heed(log)

        why = "some of its files still have a staging id"
        outcome.fail((path, why) for path in state.places(self._job.layout))
        return False

    def _settle(self, state: RunState) -> None:
        """Sync to disk what a later run could not repair, before the journal calls it done.

        A power cut can keep a new owner and lose the setuid bit that was set after it. It can
        keep the journal's record that ids are staged and lose the staged ids. A plain change of
        owner needs no sync: the next run finds it missing.
        """
        if state.cross_mounts:
            os.sync()
        elif state.staging or state.special:
            for volume in self._volumes:
                if volume.top >= 0:
                    _sync(volume)

    def _heed(self, log: journal.Journal | None) -> None:
        """Raise StoppedError if a signal stopped the workers. ``log``: the run has changes."""
        if not self._crew.board.stopped:
            return
        if log is None:
            raise StoppedError("stopped; nothing was changed")
        raise StoppedError(
            f"stopped in the middle of run {log.state.run}; each change so far is complete",
            hint=earlier.finish_or_undo(self._job.layout, log.state),
        )

    def _drop(self, lost: Iterable[tuple[Lacking, str]]) -> None:
        for one, why in lost:
            path = self._job.shown(one)
            self._outcome.dropped[path] = restore.told(one, why, path)


def _device(volume: walk.OpenVolume) -> int:
    with of_place(volume.named):
        return os.fstat(volume.top).st_dev


def _sync(volume: walk.OpenVolume) -> None:
    try:
        syscalls.sync_file_system(volume.top)
    except OSError as error:
        raise UsernsplanError(
            f"{volume.path}: not all changes are on disk yet: {reason_of(error)}"
        ) from error
