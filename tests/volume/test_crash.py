"""Killed at any system call that changes something, or failing there: the same words again, or undo, put all right.

Each blow falls on a volume of its own. Then every inode is compared with what a whole run makes of it, or with what it
was; so one that was shifted twice, or lost its setuid bit, capability or ACL between two calls, is seen.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.command import slow
from tests.prefork import Prefork, prefork
from tests.volume.struck import (
    CASES,
    INODES,
    LOOKS,
    READS,
    Ground,
    Grounds,
    Place,
    Traced,
    broad,
    finished,
    half_way,
    owners,
    places,
    run_of,
    sample,
    share_out,
    shifted,
    strike,
    strike_all,
    trace,
    undone,
    was_killed,
)
from tests.volume.tree import clocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.volume.struck import Words

# Of each kind of call that changes a volume, so many places are struck: all where it matters most, else a sample; by
# default a few.
ALL = 10_000
KILLS = [
    *(("shift", 2, 1, "tmpfs"), ("overlap", 1, 2, "tmpfs")),
    *slow(
        *(("shift", 1, ALL, "tmpfs"), ("shift", 2, 6, "tmpfs"), ("shift", 2, 2, "ext4")),
        *(
            ("own", 1, 6, "tmpfs"),
            ("own", 2, 3, "tmpfs"),
            ("reverse", 1, 6, "tmpfs"),
            ("reverse", 2, 3, "tmpfs"),
        ),
        *(
            ("overlap", 1, ALL, "tmpfs"),
            ("overlap", 2, 6, "tmpfs"),
            ("holes", 1, 6, "tmpfs"),
            ("from-map", 2, 6, "tmpfs"),
            ("swap", 1, 6, "tmpfs"),
            ("swap", 2, 3, "tmpfs"),
        ),
    ),
]


def stays_so(server: Prefork, ground: Ground) -> None:
    """Once more changes nothing, not even a ctime."""
    before = clocks(ground.host.volume)
    assert json.loads(server.run(*ground.words, "--json").out)["changed"] is False
    assert {path: c.ctime_ns for path, c in clocks(ground.host.volume).items()} == {
        path: c.ctime_ns for path, c in before.items()
    }


@pytest.mark.parametrize(("name", "jobs", "most", "file_system"), KILLS)
def test_after_a_kill_anywhere_the_same_words_or_undo_put_all_right(
    request: pytest.FixtureRequest, name: str, jobs: int, most: int, file_system: str
) -> None:
    where: Path = request.getfixturevalue(file_system)
    grounds = Grounds(where / f"kills-{name}-{jobs}-{most}", CASES[name], jobs)
    with prefork() as server:
        every = sample(places(server, grounds.new("whole").words), most)
    hits: Counter[str] = Counter()
    runs: Counter[bool] = Counter()

    def check(server: Prefork, number: int, place: Place) -> None:
        ground = grounds.new(str(place))
        struck = strike(server, ground.words, place, "signal=KILL")
        if was_killed(struck):
            hits[place.call] += 1
        runs[run_of(ground) is not None] += 1
        if number % 3 == 1:
            undone(server, ground)
        if number % 3 != 1 or number % 2:
            finished(server, ground)
            if number % 5 == 0:
                stays_so(server, ground)
        shutil.rmtree(ground.host.root)

    share_out(every, check)
    # What strikes in every whole run strikes here as often, but for the races of several workers.
    assert sum(hits.values()) > len(every) * 0.6, (hits, len(every))
    assert hits.keys() & set(INODES)
    assert hits.keys() & {"rename", "renameat", "renameat2", "unlink", "unlinkat"}
    # Some kills come before anything is written down.
    assert runs[True]


@pytest.mark.parametrize(("name", "most"), [("overlap", 1), *slow(("shift", 4), ("overlap", 4))])
def test_after_a_kill_of_all_processes_at_once_the_same_words_or_undo_put_all_right(
    tmpfs: Path, name: str, most: int
) -> None:
    grounds = Grounds(tmpfs / f"power-{name}-{most}", CASES[name], 2)
    with prefork() as server:
        every = [place for place in places(server, grounds.new("whole").words) if not place.alone]

    def check(server: Prefork, number: int, place: Place) -> None:
        ground = grounds.new(str(place))
        struck = strike_all(server, ground.words, place)
        assert "Traceback" not in struck.ended.err
        assert struck.left == []
        (undone if number % 2 else finished)(server, ground)
        shutil.rmtree(ground.host.root)

    share_out(sample(every, most), check)


@pytest.mark.parametrize(
    ("name", "most"), [("shift", 1), *slow(("shift", 5), ("own", 2), ("overlap", 3))]
)
def test_after_a_kill_of_undo_anywhere_undo_puts_back_all(
    tmpfs: Path, name: str, most: int
) -> None:
    grounds = Grounds(tmpfs / f"undo-{name}-{most}", CASES[name], 2)

    def done(server: Prefork, ground: Ground) -> Words:
        finished(server, ground)
        return ("undo", str(run_of(ground)), "--root", ground.host.root)

    with prefork() as server:
        ground = grounds.new("whole")
        every = sample(places(server, done(server, ground)), most)
        assert ground.other() == []
    hits: Counter[str] = Counter()

    def check(server: Prefork, number: int, place: Place) -> None:
        ground = grounds.new(str(place))
        words = done(server, ground)
        if was_killed(strike(server, words, place, "signal=KILL")):
            hits[place.call] += 1
        undone(server, ground)
        if number % 4 == 0:
            finished(server, ground)
        shutil.rmtree(ground.host.root)

    share_out(every, check)
    assert hits.keys() & set(INODES)


def is_in(name: str, above: str) -> bool:
    above = above.removesuffix("/.").removesuffix(".")
    return not above or name == above or name.startswith(above + "/")


def failed(name: str, ground: Ground, struck: Traced) -> int:
    """Look at what was said of an error; the status with which the run ended."""
    status, said = struck.ended.status, struck.ended.out + struck.ended.err
    assert "Traceback" not in said, struck
    assert struck.left == [], struck
    assert status >= 0, struck
    if status == 0:
        # Tried again, or done another way.
        assert ground.wrong() == [], struck
    elif status == 3 and not (name == "overlap" and "not finished" in said):
        # What failed is named, and the rest is done; only a run that goes through staging ids may stop there.
        # Where a folder cannot be read, it stands for what is in it; and the top waits until nothing is half done.
        left = {
            inode.names for path, inode in ground.seen().items() if not ground.is_right(path, inode)
        } - {(b".",)}
        named = re.findall(rf"failed: {re.escape(str(ground.host.volume))}/?(.*?): ", said)
        assert all(
            any(is_in(os.fsdecode(name), above) for name in names for above in named)
            for names in left
        ), struck
    else:
        assert said.strip(), struck
    return status


@pytest.mark.parametrize(
    ("name", "jobs", "error"), slow(("shift", 2, "EPERM"), ("overlap", 1, "EIO"))
)
def test_an_error_of_any_change_is_said_and_the_same_words_put_all_right(
    tmpfs: Path, name: str, jobs: int, error: str
) -> None:
    grounds = Grounds(tmpfs / f"errors-{name}-{jobs}", CASES[name], jobs)
    with prefork() as server:
        every = sample(places(server, grounds.new("whole").words), 3)
    endings: Counter[int] = Counter()

    def check(server: Prefork, number: int, place: Place) -> None:
        ground = grounds.new(str(place))
        endings[failed(name, ground, strike(server, ground.words, place, f"error={error}"))] += 1
        finished(server, ground)
        if number % 4 == 0:
            stays_so(server, ground)
        shutil.rmtree(ground.host.root)

    share_out(every, check)
    assert endings[3], endings


@pytest.mark.parametrize(("name", "jobs"), [("shift", 1), *slow(("own", 2))])
def test_what_cannot_be_read_is_never_passed_over_in_silence(
    tmpfs: Path, name: str, jobs: int
) -> None:
    grounds = Grounds(tmpfs / f"reads-{name}-{jobs}", CASES[name], jobs)
    with prefork() as server:
        every = sample(places(server, grounds.new("whole").words, READS), 3)
    endings: Counter[int] = Counter()

    def check(server: Prefork, _: int, place: Place) -> None:
        ground = grounds.new(str(place))
        endings[failed(name, ground, strike(server, ground.words, place, "error=EIO"))] += 1
        finished(server, ground)
        shutil.rmtree(ground.host.root)

    share_out(every, check)
    assert endings[3], endings


@pytest.mark.parametrize("entry", ["deep/locked/inner", *slow("same/2")])
def test_an_entry_at_which_any_call_fails_is_named_and_the_rest_is_done(
    tmpfs: Path, entry: str
) -> None:
    """Calls too that nearly all of a run makes, such as stat and open: struck at this entry alone.

    Others may exchange the names of one of the folders, so its entries are pinned.
    """
    grounds = Grounds(tmpfs / f"entry-{entry.replace('/', '-')}", CASES["shift"], 1)
    with prefork() as server:
        ground = grounds.new("whole")
        whole = trace(server, ground.words, "all", *at_entry(ground, entry))
        assert whole.ended.status == 0, whole
        counts = Counter(re.findall(r"^\d+ +(\w+)\(", "\n".join(whole.trace), re.MULTILINE))
        counts.pop("close", 0)
        assert len(counts) > 2, whole
        assert any("chown" in call for call in counts), whole

        endings: Counter[int] = Counter()
        for call, count in counts.items():
            for number in {1, count}:
                ground = grounds.new(f"{call}-{number}")
                inject = f"inject={call}:error=EIO:when={number}"
                words = (*at_entry(ground, entry), "-e", inject)
                struck = trace(server, ground.words, call, *words)
                endings[failed("shift", ground, struck)] += 1
                finished(server, ground)
                shutil.rmtree(ground.host.root)
    assert endings[3], endings


def at_entry(ground: Ground, entry: str) -> tuple[str, ...]:
    """The options of strace for calls at one entry: by its name, or by a descriptor of it."""
    path = ground.host.volume / entry
    return ("-P", path.name, "-P", str(path))


def killed_half_way(server: Prefork, grounds: Grounds, name: str) -> Ground:
    """A ground on which a run was killed after it had given several entries their owner, and before the last."""
    ground = grounds.new(name)
    every = [
        place
        for place in places(server, grounds.new(f"{name}-whole").words)
        if "chown" in place.call
    ]
    assert was_killed(strike(server, ground.words, every[len(every) // 2], "signal=KILL"))
    assert ground.other()
    assert ground.wrong()
    return ground


def test_other_words_after_a_kill_are_refused_with_both_remedies_which_work(tmpfs: Path) -> None:
    grounds = Grounds(tmpfs / "refused", CASES["shift"], 1)
    with prefork() as server:
        ground = killed_half_way(server, grounds, "one")
        volume, root = ground.host.volume, ground.host.root
        run = run_of(ground)
        assert run
        others: list[Words] = [
            (volume, "--container", "web"),
            (volume, "--container", "web", "--mode", "shift", "--reverse"),
            (volume / "both", "--container", "web", "--mode", "shift"),
            (volume, "--uid-map", "0:765536:65536", "--gid-map", "0:765536:65536"),
        ]
        half_way = clocks(volume)
        for words in others:
            refused = server.run("fix-volume", *words, "--root", root, status=9)
            assert run in refused.err
            assert f"usernsplan undo {run}" in refused.err
            assert "usernsplan fix-volume" in refused.err
        now = clocks(volume)
        assert {path: c.ctime_ns for path, c in now.items()} == {
            path: c.ctime_ns for path, c in half_way.items()
        }
        # Elsewhere one may go on.
        (volume.parent / "another").mkdir()
        server.run("fix-volume", volume.parent / "another", "--container", "web", "--root", root)
        finished(server, ground)

        ground = killed_half_way(server, grounds, "two")
        undone(server, ground)
        server.run("fix-volume", *others[3][1:], ground.host.volume, "--root", ground.host.root)


def test_the_commands_that_a_refusal_prints_finish_the_run_and_take_it_back(tmpfs: Path) -> None:
    grounds = Grounds(tmpfs / "pasted", CASES["overlap"], 1)
    with prefork() as server:
        ground = killed_half_way(server, grounds, "one")
        words = ("fix-volume", ground.host.volume, "--container", "web", "--root", ground.host.root)
        refused = server.run(*words, status=9).err
        [pasted] = re.findall(r"usernsplan (fix-volume .*)", refused)
        server.run(*shlex.split(pasted))
        assert ground.wrong() == []

        ground = killed_half_way(server, grounds, "two")
        words = ("fix-volume", ground.host.volume, "--container", "web", "--root", ground.host.root)
        [pasted] = re.findall(r"usernsplan (undo .*)", server.run(*words, status=9).err)
        server.run(*shlex.split(pasted))
        assert ground.other() == []


def test_a_preview_after_a_kill_changes_nothing_and_counts_what_is_left(tmpfs: Path) -> None:
    grounds = Grounds(tmpfs / "preview", CASES["shift"], 1)
    with prefork() as server:
        ground = killed_half_way(server, grounds, "one")
        before = {path: c.ctime_ns for path, c in clocks(ground.host.volume).items()}
        foretold = json.loads(server.run(*ground.words, "--dry-run", "--json").out)
        assert foretold["dry_run"]
        assert {path: c.ctime_ns for path, c in clocks(ground.host.volume).items()} == before
        finished(server, ground)


# Asked to stop.


def to_all(pid: int, number: signal.Signals) -> None:
    os.killpg(pid, number)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("number", "send"),
    [
        (signal.SIGINT, to_all),
        *slow((signal.SIGTERM, to_all), (signal.SIGINT, os.kill)),
        (signal.SIGTERM, os.kill),
    ],
)
def test_asked_to_stop_it_stops_soon_says_how_to_go_on_and_then_ends_right(
    tmpfs: Path,
    number: signal.Signals,
    send: Callable[[int, signal.Signals], None],
    jobs: int,
) -> None:
    case = CASES["shift"]
    grounds = Grounds(tmpfs / f"stop-{number}-{send.__name__}-{jobs}", case, jobs)
    ground = grounds.new("one")
    volume = ground.host.volume / "broad"
    volume.mkdir()
    broad(volume, 40, 25)
    wanted = shifted(owners(volume))
    words: Words = (
        "fix-volume",
        volume,
        *case.words,
        "--jobs",
        str(jobs),
        "--root",
        ground.host.root,
    )
    with prefork() as server:
        stopped = half_way(server, words, 200, lambda run: send(run.pid, number))
        ended = stopped.ended
        assert ended.status == 130, ended
        assert stopped.left == []
        assert "Traceback" not in ended.err, ended
        assert owners(volume) != wanted, "it did not stop"
        # How to go on.
        assert "fix-volume" in ended.err, ended
        assert str(volume) in ended.err, ended
        server.run(*words)
        assert owners(volume) == wanted
    shutil.rmtree(ground.host.root)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_while_it_looks_it_has_changed_nothing(
    tmpfs: Path, number: signal.Signals
) -> None:
    grounds = Grounds(tmpfs / f"look-{number}", CASES["shift"], 2)
    ground = grounds.new("one")
    broad(ground.host.volume, 20, 25)
    before = clocks(ground.host.volume)
    with prefork() as server:
        stopped = half_way(server, ground.words, 100, lambda run: os.killpg(run.pid, number), LOOKS)
        assert stopped.ended.status == 130, stopped.ended
        assert stopped.left == []
        assert "Traceback" not in stopped.ended.err
        assert {path: c.ctime_ns for path, c in clocks(ground.host.volume).items()} == {
            path: c.ctime_ns for path, c in before.items()
        }
        assert run_of(ground) is None
        server.run(*ground.words)


def test_undo_that_is_asked_to_stop_goes_on_when_asked_again(tmpfs: Path) -> None:
    grounds = Grounds(tmpfs / "stop-undo", CASES["shift"], 2)
    ground = grounds.new("one")
    broad(ground.host.volume, 40, 25)
    before = owners(ground.host.volume)
    with prefork() as server:
        server.run(*ground.words)
        words: Words = ("undo", str(run_of(ground)), "--root", ground.host.root)
        stopped = half_way(server, words, 200, lambda run: os.killpg(run.pid, signal.SIGINT))
        assert stopped.ended.status == 130, stopped.ended
        assert "Traceback" not in stopped.ended.err
        assert owners(ground.host.volume) != before
        server.run(*words)
        assert owners(ground.host.volume) == before


def test_workers_whose_parent_was_killed_stop_and_the_next_run_ends_right(tmpfs: Path) -> None:
    grounds = Grounds(tmpfs / "orphans", CASES["shift"], 2)
    ground = grounds.new("one")
    broad(ground.host.volume, 40, 25)
    wanted = shifted(owners(ground.host.volume))
    with prefork() as server:
        killed = half_way(server, ground.words, 100, lambda run: os.kill(run.pid, signal.SIGKILL))
        assert killed.ended.status == -signal.SIGKILL
        assert killed.left == []
        assert owners(ground.host.volume) != wanted, "they went on to the end"
        server.run(*ground.words)
        assert owners(ground.host.volume) == wanted
