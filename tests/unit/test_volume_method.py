"""The seam between a run and its method: whatever gives the volumes, the journal goes the same way."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from usernsplan import IdMap
from usernsplan.errors import RefusedError
from usernsplan.fixing import FixRequest
from usernsplan.layout import RUNS
from usernsplan.model import LedgerState
from usernsplan.volume import journal, lifecycle, targets
from usernsplan.volume.decide import Meant
from usernsplan.volume.job import Job
from usernsplan.volume.method import NotTakenError
from usernsplan.volume.state import LOOKING, NotedVolume, RunState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from usernsplan.volume.journal import Journal

IDS = IdMap.of((0, 100000, 65536))
NEW = RunState(
    "a",
    LOOKING,
    "usernsplan fix-volume /srv/vol",
    (NotedVolume("/srv/vol", 5, 7),),
    targets.explicit(IDS, IDS),
    seen=1,
    method="mount",
)
MEANT = Meant(FixRequest(("/srv/vol",)), LedgerState(), None, ("/srv/vol",), "usernsplan {}".format)


@dataclass
class Mounting:
    """A method that changes no inode: it only shows a volume, until it is undone."""

    job: Job
    calls: list[tuple[str, str]] = field(default_factory=list)
    shown: bool = False
    is_right: bool = False
    ends: bool = True
    holds: bool = True
    taken: NotTakenError | None = None

    def mend(self, log: Journal) -> None:
        self.calls.append(("mend", log.state.state))

    def decide(self, meant: Meant, log: Journal) -> dict[str, Any] | None:
        assert meant is MEANT
        self.calls.append(("decide", log.state.state))
        return None if self.is_right else {"entries": 1}

    def describe(self, meant: Meant, state: RunState) -> None:
        assert meant is MEANT
        self.calls.append(("describe", state.state))
        self.job.outcome.changed = 1

    def apply(self, log: Journal) -> bool:
        self.calls.append(("apply", log.state.state))
        if self.taken:
            raise self.taken
        self.shown = self.ends
        self.job.outcome.changed += 1
        return self.ends

    def verify(self, log: Journal) -> dict[str, Any] | None:
        self.calls.append(("verify", log.state.state))
        return {"whole": True} if self.holds else None

    def undo(self, log: Journal, *, also_changed: bool = False) -> bool:
        self.calls.append(("undo", log.state.state))
        self.shown = also_changed
        return self.ends

    def describe_undo(self, log: Journal, *, also_changed: bool) -> None:
        assert not also_changed
        self.calls.append(("describe_undo", log.state.state))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job.at(str(tmp_path), None, None, "")


@pytest.fixture
def mounting(job: Job, monkeypatch: pytest.MonkeyPatch) -> Mounting:
    method = Mounting(job)

    @contextmanager
    def at_work(_: Job) -> Iterator[Mounting]:
        yield method

    monkeypatch.setitem(lifecycle.METHODS, "mount", at_work)
    return method


def left(job: Job) -> list[tuple[str, str, bool]]:
    """The runs that have a journal: method, state, and whether all was right."""
    return [(run.method, run.state, run.whole) for run in journal.runs(job.layout)]


def test_a_run_decides_then_notes_it_then_applies_and_verifies(
    job: Job, mounting: Mounting
) -> None:
    lifecycle.whole(job, MEANT, NEW)
    assert mounting.calls == [("decide", "looking"), ("apply", "changing"), ("verify", "changing")]
    assert mounting.shown
    assert left(job) == [("mount", "done", True)]
    assert (job.outcome.run_name, job.outcome.notes) == ("a", [])
    assert journal.run(job.layout, "a").entries == 1


def test_what_is_right_already_and_what_is_only_foreseen_leave_no_run(
    job: Job, mounting: Mounting
) -> None:
    lifecycle.preview(job, MEANT, NEW)
    assert (mounting.calls, job.outcome.changed) == ([("describe", "looking")], 1)
    assert not os.path.lexists(job.layout.place(RUNS))
    mounting.is_right = True
    lifecycle.whole(job, MEANT, NEW)
    assert (left(job), job.outcome.run_name) == ([], None)
    assert not mounting.shown


@pytest.mark.parametrize("fails", ["ends", "holds"])
def test_what_is_not_finished_is_finished_by_the_next(
    job: Job, mounting: Mounting, fails: str
) -> None:
    setattr(mounting, fails, False)
    lifecycle.whole(job, MEANT, NEW)
    assert left(job) == [("mount", "changing", False)]
    assert job.outcome.notes[0].startswith("run a is not finished\n")
    setattr(mounting, fails, True)
    lifecycle.finish(job, journal.run(job.layout, "a"))
    assert left(job) == [("mount", "done", True)]


@pytest.mark.parametrize("changed", [False, True])
def test_what_the_volumes_do_not_take_leaves_nothing(
    job: Job, mounting: Mounting, *, changed: bool
) -> None:
    mounting.taken = NotTakenError("/srv/vol: no", changed=changed)
    with pytest.raises(RefusedError, match="/srv/vol: no") as raised:
        lifecycle.whole(job, MEANT, NEW)
    assert raised.value.hint == "nothing was changed"
    assert (("undo", "changing") in mounting.calls) is changed
    assert left(job) == []


def test_a_run_is_taken_back_by_its_own_method(job: Job, mounting: Mounting) -> None:
    lifecycle.whole(job, MEANT, NEW)
    done = journal.run(job.layout, "a")
    lifecycle.preview_undo(job, done, also_changed=False)
    assert (mounting.calls[-1], mounting.shown) == (("describe_undo", "done"), True)
    assert journal.run(job.layout, "a") == done
    mounting.ends = False
    lifecycle.undo(job, done, also_changed=False)
    assert (mounting.calls[-1], left(job)[0][1]) == (("undo", "undoing"), "undoing")
    mounting.ends = True
    lifecycle.undo(job, journal.run(job.layout, "a"), also_changed=False)
    assert (mounting.shown, left(job)) == (False, [("mount", "undone", True)])


def test_a_method_that_is_unknown_is_refused_before_anything_is_written(job: Job) -> None:
    with pytest.raises(RefusedError, match="'mount', which this usernsplan does not know"):
        lifecycle.preview(job, MEANT, NEW)
    with pytest.raises(RefusedError, match="'mount', which this usernsplan does not know"):
        lifecycle.whole(job, MEANT, NEW)
    assert left(job) == []
