"""Which earlier run is gone on with, which one did the same already, and which one stands in the way."""

from __future__ import annotations

import os
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from usernsplan import IdMap
from usernsplan.errors import HostChangedError, LockBusyError, RefusedError
from usernsplan.host import runs as read_runs
from usernsplan.host.files import layout_at
from usernsplan.volume import earlier, targets
from usernsplan.volume.journal import begin, resume, run, runs
from usernsplan.volume.passes import Leg
from usernsplan.volume.state import CHANGING, DONE, UNDOING, UNDONE, NotedVolume, RunState

if TYPE_CHECKING:
    from pathlib import Path

    from usernsplan.layout import Layout
    from usernsplan.volume.targets import OwnershipRule

UP, GIDS = IdMap.of((0, 5, 10)), IdMap.of((0, 7, 10))
# Ids move up by a few: done twice, they would move twice.
MOVES = targets.explicit(UP, GIDS)
BACK = targets.explicit(UP, GIDS, reverse=True)
OTHER = targets.explicit(IdMap.of((0, 6, 10)), GIDS)
ONCE = targets.explicit(IdMap.of((0, 100, 10)), IdMap.of((0, 100, 10)))
Decision = tuple[str | None, str | None]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return layout_at(str(tmp_path))


def planned(*paths: str, rule: OwnershipRule = MOVES) -> RunState:
    volumes = tuple(NotedVolume(path, 5, zlib.crc32(os.fsencode(path))) for path in paths)
    return RunState("run", "looking", "usernsplan fix-volume x", volumes, rule, seen=1)


def ran(layout: Layout, *paths: str, rule: OwnershipRule = MOVES, state: str = DONE) -> str:
    log = begin(layout, planned(*paths, rule=rule))
    log.set(state=state)
    log.close()
    return log.state.run


def decided(
    layout: Layout, *paths: str, rule: OwnershipRule = MOVES, again: bool = False
) -> Decision:
    unfinished, repeated = earlier.find(layout, planned(*paths, rule=rule), again=again)
    return (unfinished.run if unfinished else None, repeated.run if repeated else None)


NOTHING: Decision = (None, None)


def test_the_maps_of_these_tests_are_what_they_are_taken_for() -> None:
    assert [rule.overlaps() for rule in (MOVES, BACK, OTHER, ONCE)] == [True, True, True, False]


@pytest.mark.parametrize("rule", [MOVES, ONCE])
def test_the_first_run_has_nothing_before_it(layout: Layout, rule: OwnershipRule) -> None:
    assert decided(layout, "/a", rule=rule) == NOTHING
    ran(layout, "/ab", rule=rule)
    ran(layout, "/b/a", rule=rule)
    assert decided(layout, "/a", rule=rule) == NOTHING


def test_the_same_overlapping_map_on_the_same_volumes_was_done_already(layout: Layout) -> None:
    before = ran(layout, "/a", "/b")
    assert decided(layout, "/b", "/a") == (None, before)
    # The very command that was killed after its last change, too, though it asks to move ids again.
    assert decided(layout, "/b", "/a", again=True) == (None, before)
    assert decided(layout, "/c") == NOTHING


def test_once_a_command_has_come_to_its_end_again_means_again(layout: Layout) -> None:
    before = ran(layout, "/a", "/b")
    earlier.note_told(layout, before)
    assert decided(layout, "/b", "/a") == (None, before)
    assert decided(layout, "/b", "/a", again=True) == NOTHING


def test_a_map_that_does_not_overlap_itself_may_be_repeated(layout: Layout) -> None:
    ran(layout, "/a", rule=ONCE)
    for paths in (("/a",), ("/a", "/b"), ("/a/b",), ("/",)):
        assert decided(layout, *paths, rule=ONCE) == NOTHING


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (("/a",), ("/a", "/b")),
        (("/a", "/b"), ("/b",)),
        (("/a",), ("/a/b",)),
        (("/a/b",), ("/a",)),
        (("/a/b",), ("/",)),
        (("/x", "/a/b"), ("/y", "/a")),
    ],
)
def test_the_same_ids_of_a_part_are_not_moved_twice(
    layout: Layout, before: tuple[str, ...], now: tuple[str, ...]
) -> None:
    name = ran(layout, *before)
    with pytest.raises(RefusedError, match=f"run {name} already moved these ids") as raised:
        decided(layout, *now)
    assert "--again" in raised.value.hint
    assert decided(layout, *now, again=True) == NOTHING


def test_the_same_ids_are_the_same_whatever_is_done_with_others_and_with_mounts(
    layout: Layout,
) -> None:
    ran(layout, "/a")
    with pytest.raises(RefusedError, match="already"):
        decided(layout, "/a", rule=targets.explicit(UP, GIDS, keep=True))
    with pytest.raises(RefusedError, match="already"):
        earlier.find(layout, replace(planned("/a"), cross_mounts=True), again=False)


def test_two_volumes_that_two_runs_moved_are_not_moved_twice(layout: Layout) -> None:
    ran(layout, "/a")
    ran(layout, "/b")
    with pytest.raises(RefusedError, match="already"):
        decided(layout, "/a", "/b")


def test_what_was_taken_back_may_be_done_again(layout: Layout) -> None:
    ran(layout, "/a", state=UNDONE)
    assert decided(layout, "/a") == NOTHING
    before = ran(layout, "/a")
    ran(layout, "/a", state=UNDONE)
    assert decided(layout, "/a") == (None, before)


def test_after_a_reverse_or_another_move_of_it_all_the_same_may_be_done_again(
    layout: Layout,
) -> None:
    for later, path in ((BACK, "/a"), (OTHER, "/a"), (BACK, "/")):
        ran(layout, "/a")
        ran(layout, path, rule=later)
        assert decided(layout, "/a") == NOTHING
        assert decided(layout, "/a/b") == NOTHING


def test_after_a_reverse_of_a_part_only_that_part_may_be_moved_again(layout: Layout) -> None:
    before = ran(layout, "/a")
    ran(layout, "/a/b", rule=BACK)
    assert decided(layout, "/a") == (None, before)
    assert decided(layout, "/a/b") == NOTHING
    with pytest.raises(RefusedError):
        decided(layout, "/a/c")


def test_the_volume_is_known_by_its_inode_under_another_name(layout: Layout) -> None:
    ran(layout, "/a")
    [volume] = planned("/a").volumes
    elsewhere = replace(planned("/mnt"), volumes=(replace(volume, path="/mnt"),))
    with pytest.raises(RefusedError, match="already"):
        earlier.find(layout, elsewhere, again=False)


# What was interrupted


def test_an_interrupted_run_is_gone_on_with_by_the_same_words(layout: Layout) -> None:
    for rule in (MOVES, ONCE):
        name = ran(layout, "/a", rule=rule, state=CHANGING)
        assert decided(layout, "/a", rule=rule) == (name, None)
        assert decided(layout, "/a", rule=rule, again=True) == (name, None)
        log = resume(layout, run(layout, name))
        log.set(state=UNDONE)
        log.close()


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("paths", "rule", "state"),
    [
        (("/a",), OTHER, CHANGING),
        (("/a", "/b"), MOVES, CHANGING),
        (("/a/b",), MOVES, CHANGING),
        (("/",), ONCE, CHANGING),
        (("/a",), MOVES, UNDOING),
    ],
)
def test_an_interrupted_run_of_other_work_has_to_be_finished_first(
    layout: Layout, paths: tuple[str, ...], rule: OwnershipRule, state: str, again: bool
) -> None:
    name = ran(layout, *paths, rule=rule, state=state)
    with pytest.raises(RefusedError, match=f"run {name} .* was interrupted") as raised:
        decided(layout, "/a", again=again)
    assert f"undo {name}" in raised.value.hint
    # What an undo began can only be taken back.
    assert ("finish it" in raised.value.hint) is (state == CHANGING)


def test_a_run_that_is_at_work_is_waited_for(layout: Layout) -> None:
    log = begin(layout, planned("/a"))
    log.set(state=CHANGING)
    for path in ("/a", "/a/b", "/"):
        with pytest.raises(LockBusyError):
            decided(layout, path)
    assert decided(layout, "/b") == NOTHING
    log.close()
    assert decided(layout, "/a") == (log.state.run, None)


# What comes between the decision and the lock


def test_whoever_checks_as_a_run_begins_keeps_it_from_beginning(layout: Layout) -> None:
    ran(layout, "/a")
    before = runs(layout)

    def check(_: object) -> None:
        raise HostChangedError("something came before")

    with pytest.raises(HostChangedError):
        begin(layout, planned("/a"), check)
    assert runs(layout) == before
    again = begin(layout, planned("/a"))
    again.close()


def test_a_run_is_gone_on_with_only_as_it_was_seen(layout: Layout) -> None:
    name = ran(layout, "/a", state=CHANGING)
    seen = run(layout, name)
    log = resume(layout, seen)
    log.set(leg=Leg.FROM_STAGING)
    log.close()
    with pytest.raises(HostChangedError, match="another process resumed run"):
        resume(layout, seen)
    resume(layout, run(layout, name)).close()


@pytest.mark.parametrize("state", [CHANGING, UNDOING])
def test_a_run_is_not_gone_on_with_past_another_that_is_unfinished(
    layout: Layout, state: str
) -> None:
    first = ran(layout, "/a")
    later = ran(layout, "/a/b", state=state)
    ran(layout, "/c", state=state)
    with pytest.raises(RefusedError, match=f"run {later} on the same volume is unfinished"):
        resume(layout, run(layout, first))
    log = resume(layout, run(layout, later))
    log.set(state=UNDONE)
    log.close()
    resume(layout, run(layout, first)).close()


def test_a_run_is_not_gone_on_with_while_another_is_at_work_on_a_part(layout: Layout) -> None:
    first = ran(layout, "/a")
    later = begin(layout, planned("/a/b"))
    with pytest.raises(LockBusyError, match=later.state.run):
        resume(layout, run(layout, first))
    later.close()


@pytest.fixture
def ends(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that is read half-way, and ends before somebody looks at its lock."""
    log = begin(layout, planned("/a", rule=ONCE))
    log.set(state=CHANGING)
    look = read_runs.is_at_work

    def is_at_work(where: Layout, name: str) -> bool:
        if log.state.state == CHANGING:
            log.set(state=DONE)
            log.close()
        return look(where, name)

    monkeypatch.setattr(read_runs, "is_at_work", is_at_work)
    return log.state.run


def test_a_run_that_ends_in_that_moment_was_not_interrupted(layout: Layout, ends: str) -> None:
    assert decided(layout, "/a", rule=OTHER) == NOTHING
    assert run(layout, ends).state == DONE


def test_nor_for_a_run_that_begins(layout: Layout, ends: str) -> None:
    begin(layout, planned("/a", rule=OTHER)).close()
    assert [one.state for one in runs(layout) if one.run == ends] == [DONE]


def test_nor_for_one_that_is_gone_on_with(
    layout: Layout, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(read_runs, "is_at_work", lambda *_: False)
        before.setattr("usernsplan.volume.journal.at_rest", lambda *_: None)
        other = ran(layout, "/a", rule=OTHER, state=UNDOING)
    resume(layout, run(layout, other)).close()
    assert run(layout, ends).state == DONE


def test_nor_for_those_who_list_the_runs(layout: Layout, ends: str) -> None:
    [seen] = read_runs.every(layout)
    assert (seen.run, seen.state) == (ends, DONE)


def test_nor_for_those_who_look_for_unfinished_ones(layout: Layout, ends: str) -> None:
    assert read_runs.look(layout).unfinished == ()
    assert run(layout, ends).state == DONE
