"""Each error at each call of each pass: then the same command finishes the run, or says how to undo it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import PROGRAM, missing, slow
from tests.prefork import prefork
from tests.volume.struck import (
    CASES,
    INODES,
    OWNERS,
    READS,
    RECORDS,
    Grounds,
    Place,
    places,
    sample,
    share_out,
    trace,
)
from tests.volume.tree import (
    Host,
    differences,
    expected,
    finish,
    maps,
    over,
    simple,
    snapshot,
    write,
)

if TYPE_CHECKING:
    from tests.prefork import Prefork
    from tests.volume.struck import Ground

# One call, all from one on, every third from one on.
WHEN = ("{}", "{}+", "{}+3")
BASE = 1 << 20
# Of each kind of call so many, the first and the last among them.
MOST = 3


def all_is_well(server: Prefork, ground: Ground) -> str:
    """Run the same command again until it is done, or take the run back as it says; which of both it was."""
    again = server.run(*ground.words, status=None)
    said = again.out + again.err
    assert "Traceback" not in said, again
    if again.status == 0:
        assert ground.wrong() == [], again
        return "finished"
    runs = [path.parent.name for path in ground.host.runs.glob("*/run.json")]
    assert all(f"usernsplan undo {run}" in said for run in runs), again
    for run in runs:
        server.run("undo", run, "--root", ground.host.root)
    assert ground.other() == [], again
    return "undone"


def struck_everywhere(
    tmpfs: Path, name: str, calls: tuple[str, ...], errors: tuple[str, ...], most: int
) -> None:
    grounds = Grounds(tmpfs / f"errors-{name}-{calls[0]}-{errors[0]}-{most}", CASES[name], 1)
    with prefork() as server:
        every = sample(places(server, grounds.new("whole").words, calls), most)
    endings: Counter[str] = Counter()

    def check(server: Prefork, number: int, place: Place) -> None:
        for turn, error in enumerate(errors):
            when = WHEN[(number + turn) % len(WHEN)].format(place.number)
            ground = grounds.new(f"{place}-{error}")
            inject = f"inject={place.call}:error={error}:when={when}"
            struck = trace(
                server, ground.words, place.call, "-e", inject, follow=not place.alone
            ).ended
            said = struck.out + struck.err
            assert "Traceback" not in said, struck
            assert struck.status >= 0, struck
            if struck.status == 0:
                assert ground.wrong() == [], (when, error, struck)
            # Where every write fails, nothing can be said either.
            elif place.call != "write":
                assert said.strip(), struck
            endings[all_is_well(server, ground)] += 1
            shutil.rmtree(ground.host.root)

    share_out(every, check)
    assert endings["finished"], endings


@pytest.mark.parametrize("name", ["shift", "overlap"])
def test_after_an_error_of_a_change_all_can_be_put_right(tmpfs: Path, name: str) -> None:
    struck_everywhere(tmpfs, name, INODES, ("EDQUOT",), 1)


@pytest.mark.parametrize("name", ["shift", "overlap"])
def test_after_an_error_of_a_look_all_can_be_put_right(tmpfs: Path, name: str) -> None:
    struck_everywhere(tmpfs, name, READS, ("EMFILE",), 1)


@pytest.mark.slow
@pytest.mark.parametrize("error", ["EIO", "EMFILE", "ENOMEM", "EACCES", "EDQUOT", "ENOSPC"])
@pytest.mark.parametrize("name", ["shift", "overlap"])
def test_after_each_error_at_each_call_all_can_be_put_right(
    tmpfs: Path, name: str, error: str
) -> None:
    struck_everywhere(tmpfs, name, (*INODES, *READS, *RECORDS), (error,), MOST)


OVER = over(BASE, BASE + 500, 1000, images=True)


def many(host: Host, count: int) -> list[Path]:
    simple(host.volume, BASE + 7, BASE + 7)
    folder = host.volume / "many"
    folder.mkdir()
    for number in range(count):
        finish(write(os.fsencode(folder) + b"/%d" % number, b""), BASE + number % 900, BASE + 3)
    finish(os.fsencode(folder), BASE, BASE, 0o755)
    return sorted(folder.iterdir())


def test_of_very_many_that_failed_each_is_moved_later_and_once(ext4_host: Host) -> None:
    """More than any list for readers holds: every one is in the journal."""
    paths = many(ext4_host, 11_000)
    before = snapshot(ext4_host.volume)
    if shutil.which("chattr") is None:
        missing("chattr")
    # By their names: with a long path before each, they are more than execve(2) takes.
    folder, names = paths[0].parent, [path.name for path in paths]
    subprocess.run(["chattr", "+i", *names], check=True, cwd=folder)
    try:
        report = ext4_host.fix(*maps(OVER), status=3)
        assert len(report["failed"]) == len(paths)
        assert len(ext4_host.fix(*maps(OVER), status=3)["failed"]) == len(paths)
    finally:
        subprocess.run(["chattr", "-i", *names], check=True, cwd=folder)
    report = ext4_host.fix(*maps(OVER))
    assert report["failed"] == []
    assert differences(snapshot(ext4_host.volume), expected(before, OVER)) == []
    assert ext4_host.fix(*maps(OVER))["changed"] is False


def strace(host: Host, *blow: str, status: int | None = None) -> str:
    if shutil.which("strace") is None:
        missing("strace")
    words = [
        *PROGRAM,
        "fix-volume",
        str(host.volume),
        *maps(OVER),
        "--jobs",
        "1",
        "--root",
        str(host.root),
    ]
    done = subprocess.run(
        ["strace", "-f", "-qq", *blow, *words], capture_output=True, text=True, check=False
    )
    if status is not None:
        assert done.returncode == status, done
    return done.stdout + done.stderr


def test_a_look_that_failed_somewhere_refuses_an_overlapping_map_before_anything_is_written(
    host: Host,
) -> None:
    many(host, 20)
    before = snapshot(host.volume)
    sick = str(host.volume / "many")
    blow = (
        "-o",
        "/dev/null",
        "-P",
        sick,
        "-e",
        "trace=getdents64",
        "-e",
        "inject=getdents64:error=EIO",
    )
    said = strace(host, *blow, status=9)
    assert "many: input/output error" in said
    assert "nothing was changed" in said
    assert snapshot(host.volume) == before
    assert host.run_names() == []
    host.fix(*maps(OVER))
    assert differences(snapshot(host.volume), expected(before, OVER)) == []


@pytest.mark.spread(2)
@pytest.mark.parametrize("when", range(3, 9))
def test_a_folder_that_does_not_open_in_one_pass_is_carried_with_all_that_is_in_it(
    host: Host, when: int
) -> None:
    many(host, 20)
    before = snapshot(host.volume)
    said = strace(
        host,
        "-o",
        "/dev/null",
        "-e",
        "trace=openat2",
        "-e",
        f"inject=openat2:error=EACCES:when={when}",
    )
    after = snapshot(host.volume)
    assert "permission denied" in said or differences(after, expected(before, OVER)) == [], said
    host.fix(*maps(OVER))
    assert differences(snapshot(host.volume), expected(before, OVER)) == []


def test_what_is_moved_about_between_the_looks_carries_no_staging_id_in_the_end(host: Host) -> None:
    """A run of which something keeps an id of between the passes is not done, and says so."""
    many(host, 5)
    before = snapshot(host.volume)
    said = strace(
        host,
        "-o",
        "/dev/null",
        "-e",
        f"trace={OWNERS}",
        "-e",
        f"inject={OWNERS}:error=EIO:when=8+",
        status=3,
    )
    owners = {inode.uid for inode in snapshot(host.volume).values()}
    if any(uid >= 3_000_000_000 for uid in owners):
        assert "is not finished" in said
        assert "usernsplan undo" in said
        assert "usernsplan fix-volume" in said
    # It finishes what was staged first, and then carries what failed before that.
    host.fix(*maps(OVER))
    assert differences(snapshot(host.volume), expected(before, OVER)) == []


def kill_at(host: Host, call: str, number: int, *words: str) -> bool:
    run = [
        *PROGRAM,
        "fix-volume",
        str(host.volume),
        *words,
        "--jobs",
        "1",
        "--root",
        str(host.root),
    ]
    blow = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
    done = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", *blow, *run], capture_output=True, check=False
    )
    return done.returncode != 0


@pytest.mark.parametrize("words", [("--again",), *slow(((),), (("--yes",),))])
def test_a_run_that_was_killed_after_it_was_done_is_not_done_again(
    host: Host, words: tuple[str, ...]
) -> None:
    simple(host.volume, 1001, 1001)
    shift_by = (
        "--uid-map",
        "1000:31000:60000",
        "--gid-map",
        "1000:31000:60000",
        "--unmapped",
        "keep",
        *words,
    )
    killed = 0
    for number in range(1, 60):
        shutil.rmtree(host.runs, ignore_errors=True)
        for path in (host.volume, *host.volume.iterdir()):
            os.chown(path, 1001, 1001)
        was_killed = kill_at(host, "renameat", number, *shift_by)
        owners = {path.stat().st_uid for path in host.volume.iterdir()}
        assert owners <= {1001, 31001} or not owners.isdisjoint(
            {*range(3_000_000_000, 3_001_000_000)}
        ), owners
        if was_killed and '"told": true' in "".join(
            path.read_text() for path in host.runs.glob("*/run.json")
        ):
            # It had come to its end: --again would mean again.
            killed += 1
            break
        if not was_killed:
            break
        # The very same words, which the journal has.
        assert not kill_at(host, "renameat", 10_000, *shift_by)
        assert {path.stat().st_uid for path in (host.volume, *host.volume.iterdir())} == {31001}, (
            number
        )
        killed += was_killed
        if not was_killed:
            break
    assert killed > 3


def test_with_again_ids_are_moved_again_once_the_command_has_come_to_its_end(host: Host) -> None:
    simple(host.volume, 1001, 1001)
    shift_by = ("--uid-map", "1000:31000:60000", "--gid-map", "1000:31000:60000")
    host.fix(*shift_by)
    assert host.fix(*shift_by, "--yes")["changed"] is False
    assert host.fix(*shift_by, "--again")["changed"] is True
    assert {path.stat().st_uid for path in host.volume.iterdir()} == {61001}


def test_a_run_that_is_resumed_counts_what_is_right_already(host: Host) -> None:
    many(host, 30)
    entries = len(snapshot(host.volume))
    strace(
        host,
        "-o",
        "/dev/null",
        "-e",
        f"trace={OWNERS}",
        "-e",
        f"inject={OWNERS}:signal=KILL:when=20",
    )
    report = host.fix(*maps(OVER))
    counts = report["counts"]
    assert counts["entries"] == entries
    assert 0 < counts["changed"] <= entries
    assert counts["right"] == entries - counts["changed"]
