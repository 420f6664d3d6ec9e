"""The journal of a run: its folder, its lock, its state, and the order of runs."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from usernsplan import IdMap, Mapping
from usernsplan.errors import LockBusyError, NotPermittedError, UnknownNameError
from usernsplan.host.files import layout_at
from usernsplan.layout import RUNS, Layout
from usernsplan.volume import journal, targets
from usernsplan.volume.journal import begin, is_at_work, resume, run, runs
from usernsplan.volume.logs import Folder, Links, Writer, read
from usernsplan.volume.parts import TOP, Parts
from usernsplan.volume.passes import Leg, Pass
from usernsplan.volume.state import CHANGING, DONE, LOOKING, UNDONE, NotedVolume, RunState

WEB = Mapping(IdMap.of((0, 100000, 65536)), IdMap.of((0, 200000, 65536)))
SWAPPED = targets.explicit(IdMap.of((1, 2, 1), (2, 1, 1)), IdMap.of((0, 9, 1)), keep=True)
STAGING = (IdMap.of((1, 3_000_000_000, 2)), IdMap.of((0, 3_000_000_002, 1)))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return layout_at(str(tmp_path))


def planned(name: str, *paths: str, state: str = LOOKING) -> RunState:
    volumes = tuple(
        NotedVolume(path, 5, zlib.crc32(os.fsencode(path))) for path in paths or ("/srv/vol",)
    )
    return RunState(
        name, state, "usernsplan fix-volume /srv/vol", volumes, targets.shift(WEB), seen=1
    )


def made(layout: Layout, name: str, *paths: str, state: str = DONE) -> RunState:
    """A run that is over."""
    journal_of = begin(layout, planned(name, *paths))
    journal_of.set(state=state)
    journal_of.close()
    return journal_of.state


# States


@pytest.mark.parametrize(
    "state",
    [
        planned("a"),
        replace(
            planned("a", "/srv/\udcff\n", "/srv/b"),
            rule=SWAPPED,
            leg=Leg.FROM_STAGING,
            end=1_800_000_000_123_456_789,
            staging=STAGING,
            cross_mounts=True,
            container="web",
            outside=((1, 2), (3, 2**63)),
            formerly={"/srv/\udcff\n": ["db", "own"], "/srv/b": ["", ""]},
            whole=True,
            tops=(1_800_000_000_000_000_001, 5),
            undone=1_800_000_000_123_456_790,
            failed=("/srv/x", "/srv/\udcff"),
            retried=("/srv/x",),
            special=True,
        ),
        replace(planned("a"), rule=targets.shift(WEB, reverse=True), is_reverse=True),
        replace(planned("a"), method="grant"),
        replace(
            planned("a"),
            rule=targets.own(WEB, (33, 44)),
            command="usernsplan fix-volume 'a\\xff\n'",
        ),
    ],
    ids=["the least", "everything", "back to the host", "another method", "own"],
)
def test_a_state_is_the_same_after_it_was_written(layout: Layout, state: RunState) -> None:
    at_work = begin(layout, state)
    assert run(layout, "a") == at_work.state == state
    changes = {"state": CHANGING, "leg": Leg.TO_STAGING, "staging": STAGING, "outside": ((7, 8),)}
    at_work.set(**changes)
    assert run(layout, "a") == replace(state, **changes)  # type: ignore[arg-type]
    assert runs(layout) == [at_work.state]
    at_work.close()


def test_the_turns_of_a_run_know_its_staging_ids(layout: Layout) -> None:
    at_work = begin(layout, replace(planned("a"), rule=SWAPPED, staging=STAGING))
    assert run(layout, "a").pass_of(Leg.TO_STAGING) == Pass(SWAPPED, Leg.TO_STAGING, STAGING)
    assert planned("b").pass_of(Leg.STRAIGHT) == Pass(targets.shift(WEB))
    at_work.close()


def test_two_runs_do_the_same_work_whatever_the_number_of_the_device() -> None:
    one = planned("a", "/srv/a", "/srv/b")
    rebooted = replace(
        one, run="b", volumes=tuple(replace(tree, device=99) for tree in reversed(one.volumes))
    )
    assert one.same_work(replace(rebooted, container="other", command="x", leg=Leg.FROM_STAGING))
    assert not one.same_work(replace(one, cross_mounts=True))
    assert not one.same_work(replace(one, rule=targets.shift(WEB, keep=True)))
    assert not one.same_work(replace(one, rule=targets.shift(WEB, reverse=True)))
    assert not one.same_work(replace(one, volumes=one.volumes[:1]))
    assert not one.same_work(
        replace(one, volumes=(one.volumes[0], replace(one.volumes[1], inode=1)))
    )
    assert not one.same_work(
        replace(one, volumes=(one.volumes[0], replace(one.volumes[1], path="/srv/c")))
    )


@pytest.mark.parametrize(
    ("mine", "others", "overlaps"),
    [
        ("/srv/vol", ["/srv/vol"], True),
        ("/srv/vol", ["/srv"], True),
        ("/srv", ["/srv/vol"], True),
        ("/srv/vol", ["/"], True),
        ("/", ["/srv"], True),
        ("/", ["/"], True),
        ("/srv/vol", ["/srv/volume"], False),
        ("/srv/volume", ["/srv/vol"], False),
        ("/srv/vol", ["/srv/a", "/srv/vol/x"], True),
        ("/srv/vol", ["/srv/a", "/srv/b"], False),
        ("/srv/vol", [], False),
    ],
)
def test_trees_overlap_where_one_is_or_contains_the_other(
    mine: str, others: list[str], overlaps: bool
) -> None:
    other = replace(planned("b"), volumes=planned("b", *others).volumes if others else ())
    assert planned("a", mine).overlaps(other) is overlaps
    assert other.overlaps(planned("a", mine)) is overlaps
    assert planned("a", "/elsewhere", mine).overlaps(other) is (overlaps or "/" in others)


# Runs


def test_runs_are_in_the_order_in_which_they_began(layout: Layout) -> None:
    names = [
        "20261122-053048",
        *(f"20261122-053048.{number}" for number in range(2, 12)),
        "20261122-053049",
    ]
    for _ in range(11):
        made(layout, "20261122-053048")
    made(layout, "20261122-053049")
    assert [state.run for state in runs(layout)] == names


def test_the_name_of_a_run_is_the_time_at_which_it_began() -> None:
    before = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    name = journal.new_name()
    assert re.fullmatch(r"\d{8}-\d{6}", name)
    assert before <= name <= time.strftime("%Y%m%d-%H%M%S", time.gmtime())


def test_without_a_run_there_is_none_and_nothing_is_made(layout: Layout, tmp_path: Path) -> None:
    assert runs(layout) == []
    for name in ("a", "", ".", "..", "lock", "../runs/a"):
        with pytest.raises(UnknownNameError) as raised:
            run(layout, name)
        assert RUNS in raised.value.hint
    assert os.listdir(tmp_path) == []


def test_whoever_may_not_read_the_journals_is_told_so(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(layout, "a")

    def refusing(*_: object) -> list[str]:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(os, "listdir", refusing)
    with pytest.raises(NotPermittedError):
        runs(layout)


@pytest.mark.parametrize("name", ["", ".", "..", "lock", "../runs/a", "a/", "a/run.json", "/"])
def test_only_a_run_s_own_name_names_it(layout: Layout, name: str) -> None:
    made(layout, "a")
    with pytest.raises(UnknownNameError):
        run(layout, name)


def test_a_folder_whose_state_was_never_written_is_no_run(layout: Layout, tmp_path: Path) -> None:
    state = made(layout, "b")
    Path(f"{tmp_path}{RUNS}/a").mkdir()
    assert runs(layout) == [state]
    with pytest.raises(UnknownNameError):
        run(layout, "a")
    # Nor is its name given out again.
    again = begin(layout, planned("a", "/elsewhere"))
    assert again.state.run == "a.2"
    again.close()


def test_nobody_but_root_reads_a_journal(layout: Layout, tmp_path: Path) -> None:
    made(layout, "a")
    for folder in ("var/lib/usernsplan", f".{RUNS}", f".{RUNS}/a"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700


def test_a_run_that_changed_nothing_is_taken_away_whole(layout: Layout, tmp_path: Path) -> None:
    at_work = begin(layout, planned("a"))
    Path(at_work.path("folders", 0)).write_bytes(b"x")
    at_work.remove()
    assert runs(layout) == []
    assert os.listdir(f"{tmp_path}{RUNS}") == ["lock"]


def test_the_logs_of_a_run_are_those_of_its_workers_and_nothing_else(layout: Layout) -> None:
    at_work = begin(layout, planned("a"))
    assert at_work.logs("folders", "late") == []
    paths = [at_work.path(kind, number) for kind in ("folders", "late") for number in (0, 1)]
    for path in (*paths, f"{at_work.folder}/other", f"{at_work.folder}/run.json.new"):
        Path(path).touch()
    assert at_work.logs("folders", "late") == sorted(paths)
    assert at_work.logs("late") == sorted(path for path in paths if "late" in path)
    assert at_work.logs("swaps") == at_work.logs() == []
    at_work.close()


# Beginning and going on


def test_a_run_that_was_killed_while_it_looked_is_forgotten_by_the_next(layout: Layout) -> None:
    begin(layout, planned("a", "/srv/a")).close()
    kept = made(layout, "b", "/srv/b", state=CHANGING)
    at_work = begin(layout, planned("c", "/srv/c"))
    assert [state.run for state in runs(layout)] == ["b", "c"]
    assert run(layout, "b") == kept
    at_work.close()


def test_two_runs_on_one_volume_are_never_at_work_together(layout: Layout) -> None:
    first = begin(layout, planned("a", "/srv/vol"))
    for path in ("/srv/vol", "/srv", "/srv/vol/below"):
        with pytest.raises(LockBusyError, match="run a is at work"):
            begin(layout, planned("b", path))
    assert [state.run for state in runs(layout)] == ["a"]
    second = begin(layout, planned("b", "/srv/volume"))
    assert [is_at_work(layout, state) for state in (first.state, second.state)] == [True, True]
    with pytest.raises(LockBusyError, match="run a is at work"):
        resume(layout, first.state)
    first.close()
    assert is_at_work(layout, first.state) is False
    begin(layout, planned("c", "/srv/vol")).close()
    second.close()


def test_a_run_may_be_gone_on_with_once_at_a_time(layout: Layout) -> None:
    state = made(layout, "a", state=CHANGING)
    again = resume(layout, state)
    assert is_at_work(layout, state) is True
    with pytest.raises(LockBusyError):
        resume(layout, state)
    again.set(leg=Leg.FROM_STAGING)
    again.close()
    again.close()
    assert is_at_work(layout, state) is False
    assert run(layout, "a").leg == Leg.FROM_STAGING


# Another process that begins a run, says so, and works until it is told to end, with or without a worker that lives on.
_OTHER = """
import os, sys, time
from usernsplan.host.files import layout_at
from usernsplan.mapping import IdMap
from usernsplan.volume import journal, targets
root, path, worker = sys.argv[1:]
ids = IdMap.of((0, 1, 1))
state = journal.RunState("a", "changing", "", (journal.NotedVolume(path, 1, 1),), targets.explicit(ids, ids), seen=1)
held = journal.begin(layout_at(root), state)
if worker == "worker" and os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(60)
    os._exit(0)
if worker != "worker":
    print(os.getpid(), flush=True)
sys.stdin.readline()
"""


@contextmanager
def another(
    root: Path, path: str, worker: str = "alone"
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-c", _OTHER, str(root), path, worker]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        try:
            yield process, pid
        finally:
            process.kill()
            if pid != process.pid and Path(f"/proc/{pid}/cmdline").exists():
                os.kill(pid, signal.SIGKILL)


def test_another_process_keeps_us_from_its_volume_until_it_is_killed(
    layout: Layout, tmp_path: Path
) -> None:
    with another(tmp_path, "/srv/vol") as (process, _):
        state = run(layout, "a")
        assert is_at_work(layout, state)
        with pytest.raises(LockBusyError):
            begin(layout, planned("b", "/srv"))
        with pytest.raises(LockBusyError):
            resume(layout, state)
        elsewhere = begin(layout, planned("c", "/mnt"))
        elsewhere.close()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not is_at_work(layout, state)
        resume(layout, state).close()


def gone(process: int) -> bool:
    """Tell whether a process is gone, or dead and only not yet waited for."""
    try:
        return " Z " in Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_run_is_at_work_as_long_as_one_of_its_workers_is(layout: Layout, tmp_path: Path) -> None:
    with another(tmp_path, "/srv/vol", "worker") as (process, worker):
        process.send_signal(signal.SIGKILL)
        process.wait()
        state = run(layout, "a")
        assert is_at_work(layout, state)
        os.kill(worker, signal.SIGKILL)
        until = time.monotonic() + 10
        while not gone(worker) and time.monotonic() < until:
            time.sleep(0.01)
        assert not is_at_work(layout, state)


def test_whoever_begins_waits_for_another_who_is_beginning(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    made(layout, "z", "/mnt", state=UNDONE)
    held = journal._lock(layout)
    command = [sys.executable, "-c", _OTHER, str(tmp_path), "/srv/vol", "alone"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        time.sleep(0.5)
        assert process.poll() is None
        assert [state.run for state in runs(layout)] == ["z"]
        with held:
            pass
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        assert [state.run for state in runs(layout)] == ["a", "z"]
        process.kill()


# Logs


def write(path: Path, *folders: Folder) -> None:
    writer = Writer(str(path))
    for folder in folders:
        writer.write(folder)
    writer.close()


def test_a_chain_of_folders_takes_little_room(tmp_path: Path) -> None:
    depth = 2000
    write(tmp_path / "log", *(Folder(0, Parts.of(["d" * 100] * n), 1, n) for n in range(depth)))
    assert (tmp_path / "log").stat().st_size < depth * 200
    found = list(read(str(tmp_path / "log")))
    assert [[*folder.parts] for folder in found] == [["d" * 100] * n for n in range(depth)]


def test_a_folder_whose_entries_all_had_one_owner_is_one_short_line(tmp_path: Path) -> None:
    write(tmp_path / "log", Folder(0, TOP.below("web"), 64768, 1234567, own=(0, 0), common=(0, 0)))
    raw = (tmp_path / "log").read_bytes()
    assert raw.count(b"\n") == 1
    assert len(raw) < 100


def test_the_same_name_in_two_trees_or_of_another_inode_is_another_folder(tmp_path: Path) -> None:
    folders = [
        Folder(0, TOP.below("a"), 1, 5),
        Folder(1, TOP.below("a"), 1, 5),
        Folder(1, TOP.below("a"), 1, 6),
        Folder(1, TOP, 1, 6),
    ]
    write(tmp_path / "log", *folders)
    assert list(read(str(tmp_path / "log"))) == folders


def test_what_was_synced_is_on_the_disk_before_the_log_is_closed(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path / "log"))
    writer.write(Folder(0, TOP.below("a"), 1, 1))
    writer.sync()
    assert len(list(read(str(tmp_path / "log")))) == 1
    writer.close()


def test_a_log_can_be_gone_on_with_where_a_kill_or_a_full_disk_cut_it_short(tmp_path: Path) -> None:
    log = tmp_path / "late.0"
    write(
        log,
        Folder(0, TOP.below("a"), 1, 1, common=(0, 0)),
        Folder(0, TOP.below("b"), 1, 2, common=(0, 0)),
    )
    os.truncate(log, log.stat().st_size - 5)
    write(log, Folder(0, TOP.below("c"), 1, 3, common=(0, 0)))
    assert [[*folder.parts] for folder in read(str(log))] == [["a"], ["c"]]


def test_two_notes_of_one_folder_in_a_row_lose_nothing(tmp_path: Path) -> None:
    """The last pass notes a folder that got stragglers, is killed, and the next one notes it again for others."""
    log = tmp_path / "late.0"
    write(log, Folder(0, TOP.below("a"), 1, 1, common=(5, 5)))
    write(log, Folder(0, TOP.below("a"), 1, 1, own=(7, 7), common=(6, 6)))
    found = list(read(str(log)))
    assert {(5, 5), (6, 6)} <= {
        owner
        for folder in found
        for owner in [folder.common, *(owner for owner, _ in folder.others)]
    }
    assert (7, 7) in {folder.own for folder in found}


def test_a_second_writer_cuts_what_a_kill_left_of_a_line_and_nothing_else(tmp_path: Path) -> None:
    log = tmp_path / "late.0"
    write(
        log,
        Folder(0, TOP.below("a"), 1, 1, common=(0, 0)),
        Folder(0, TOP.below("b"), 1, 2, common=(0, 0)),
    )
    raw = log.read_bytes()
    first = raw.index(b"\n") + 1
    for size in range(first, len(raw)):
        log.write_bytes(raw[:size])
        Writer(str(log)).close()
        assert log.read_bytes() == raw[:first]
    log.write_bytes(raw)
    Writer(str(log)).close()
    assert log.read_bytes() == raw
    log.write_bytes(raw[: first - 1])
    Writer(str(log)).close()
    assert log.read_bytes() == b""


# Inodes with several names


def test_an_inode_with_several_names_is_changed_by_one_worker_at_a_time(tmp_path: Path) -> None:
    one, other = Links(str(tmp_path)), Links(str(tmp_path))
    inside = threading.Event()

    def enter() -> None:
        with other.alone():
            inside.set()

    thread = threading.Thread(target=enter)
    with one.alone():
        thread.start()
        assert not inside.wait(0.2)
    assert inside.wait(10)
    thread.join()


# Trees


@pytest.mark.parametrize(
    ("outer", "inner", "contains"),
    [
        (NotedVolume("/a", 1, 1), NotedVolume("/a", 1, 1), True),
        (NotedVolume("/a", 1, 1), NotedVolume("/a", 2, 2), True),
        (NotedVolume("/a", 1, 1), NotedVolume("/a/b", 1, 2), True),
        (NotedVolume("/a", 1, 1), NotedVolume("/ab", 1, 2), False),
        (NotedVolume("/a/b", 1, 2), NotedVolume("/a", 1, 1), False),
        (NotedVolume("/", 1, 1), NotedVolume("/a", 1, 2), True),
        # By another name.
        (NotedVolume("/a", 1, 1), NotedVolume("/b", 1, 1), True),
        (NotedVolume("/a", 1, 1), NotedVolume("/b", 2, 1), False),
        (NotedVolume("/a", 1, 1), NotedVolume("/b", 1, 2), False),
    ],
)
def test_a_tree_contains_itself_by_any_name_and_what_lies_in_it(
    outer: NotedVolume, inner: NotedVolume, contains: bool
) -> None:
    assert outer.contains(inner) is contains


def test_the_same_ids_are_moved_whatever_becomes_of_others() -> None:
    one = planned("a")
    assert one.same_ids(replace(planned("b", "/elsewhere"), cross_mounts=True))
    assert one.same_ids(replace(one, rule=targets.shift(WEB, keep=True)))
    assert not one.same_ids(replace(one, rule=targets.shift(WEB, reverse=True)))
    assert not one.same_ids(replace(one, rule=targets.own(WEB, (0, 0))))
    assert not one.same_ids(replace(one, rule=SWAPPED))
