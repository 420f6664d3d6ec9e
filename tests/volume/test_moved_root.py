"""Roots that were moved or copied since a run, and journals that somebody else wrote: nothing outside is touched."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import pytest

from tests.command import files_of, here, slow, usernsplan
from tests.volume.tree import Host, clocks, differences, mounted, simple, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.volume.tree import Snapshot

SHIFT = ("--container", "web", "--mode", "shift")
MAP = ("--uid-map", "0:100000:65536", "--gid-map", "0:100000:65536")
# It overlaps itself: its run notes what failed, and is finished only by its own words.
UP = ("--uid-map", "0:5:65536", "--gid-map", "0:5:65536")
OTHER = ("fix-volume", "/srv/vol", *UP, "--take")


class Tried(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def tried(host: Host, *words: str | Path) -> Tried:
    """Run it within this process; a traceback would come out of it."""
    with mock.patch.object(sys, "exit", wraps=sys.exit) as ended:
        printed = here(*words, "--root", host.root, status=None)
    return Tried(ended.call_args.args[0] if ended.call_args else 0, *printed)


def fixed(host: Host, *words: str) -> tuple[Snapshot, str]:
    """A volume that was fixed: how it was, and what the run is called."""
    host.allocate("web")
    simple(host.volume, 33, 33)
    before = snapshot(host.volume)
    return before, host.fix(*(words or SHIFT))["run"]


def run_json(host: Host, name: str, /, **changed: Any) -> dict[str, Any]:
    """What a run.json says, after some of its fields were changed."""
    place = host.runs / name / "run.json"
    content: dict[str, Any] = {**json.loads(place.read_text()), **changed}
    place.write_text(json.dumps(content))
    return content


def renamed(host: Host) -> Host:
    return Host(host.root.rename(f"{host.root}-moved"), host.file_system)


def copied(host: Host) -> Host:
    subprocess.run(["cp", "-a", host.root, f"{host.root}-copy"], check=True)
    return Host(Path(f"{host.root}-copy"), host.file_system)


def everything(host: Host) -> tuple[Any, ...]:
    """Every file below a root with its content, and every change time."""
    return files_of(host.root), {path: clock.ctime_ns for path, clock in clocks(host.root).items()}


def test_the_journal_names_what_lies_below_the_root_and_never_the_root(host: Host) -> None:
    _, run = fixed(host)
    content = run_json(host, run)
    assert content["format"] == 4
    assert [tree["path"] for tree in content["trees"]] == ["/srv/vol"]
    for log in (host.runs / run).glob("folders*"):
        assert str(host.root) not in log.read_text()
    assert "finish" not in content


def test_a_root_that_was_moved_is_taken_back_where_it_lies_now(volumes: Host) -> None:
    before, run = fixed(volumes)
    moved = renamed(volumes)
    moved.undo(run)
    assert differences(snapshot(moved.volume), before) == []
    assert not volumes.root.exists()


def test_a_disk_that_is_mounted_elsewhere_is_taken_back_there(host: Host, tmp_path: Path) -> None:
    before, run = fixed(host)
    with mounted("--bind", host.root, tmp_path):
        Host(tmp_path, host.file_system).undo(run)
    assert differences(snapshot(host.volume), before) == []


@pytest.mark.parametrize("words", [SHIFT, UP, MAP], ids=" ".join)
def test_what_was_interrupted_is_finished_where_the_root_lies_now(
    host: Host, words: tuple[str, ...]
) -> None:
    _, run = fixed(host, *words)
    after = snapshot(host.volume)
    run_json(host, run, state="changing", end=None, whole=False, stage=2 if words == UP else 0)
    moved = renamed(host)
    report = moved.fix(*words)
    assert any("was interrupted; it was finished first" in note for note in report["notes"])
    assert differences(snapshot(moved.volume), after) == []


def test_the_command_that_finishes_it_is_of_the_root_as_it_lies_now(host: Host) -> None:
    _, run = fixed(host)
    run_json(host, run, state="changing", end=None)
    for now in (copied(host), renamed(host)):
        listed = tried(now, "list").stderr
        assert (
            f"finish it: usernsplan fix-volume {now.volume} --container web --mode shift --root {now.root};"
            in listed
        )
        said = tried(now, *OTHER).stderr
        assert (
            f"finish it: usernsplan fix-volume {now.volume} --container web --mode shift --root {now.root}\n"
            in said
        )
        assert f"{host.root}/" not in said.replace(f"{now.root}", "")


@pytest.mark.parametrize("more", [("--also-changed",), *slow(((),), (("--dry-run",),))])
@pytest.mark.parametrize("state", ["done", "changing"])
def test_a_copy_of_a_root_never_touches_the_original(
    volumes: Host, more: tuple[str, ...], state: str
) -> None:
    _, run = fixed(volumes)
    run_json(volumes, run, state=state)
    copy = copied(volumes)
    original, of_copy = everything(volumes), snapshot(copy.volume)
    report = copy.undo(run, *more, status=3)
    assert everything(volumes) == original
    assert differences(snapshot(copy.volume), of_copy) == []
    [failed] = report["failed"]
    assert failed["path"] == str(copy.volume)
    assert f"not the folder that run {run} changed" in failed["reason"]
    [note] = report["notes"]
    assert "copy" in note
    # It is as if nobody had asked; and the remedy for a run that is in the way works.
    assert run_json(copy, run)["state"] == state
    subprocess.run(note[note.index("mv ") :].split(), check=True)
    copy.fix(*SHIFT, "--mode", "own")
    assert everything(volumes) == original


@pytest.mark.parametrize("number", [1, 2])
def test_journals_of_before_that_have_paths_of_the_machine_still_work_below_the_root(
    host: Host, number: int
) -> None:
    before, run = fixed(host)
    content = run_json(host, run)
    trees = [{**content["trees"][0], "path": str(host.volume)}]
    run_json(host, run, format=number, trees=trees, failed=[f"{host.volume}/file-1"])
    assert host.fix(*SHIFT)["changed"] is False
    host.undo(run)
    assert differences(snapshot(host.volume), before) == []
    content = run_json(host, run)
    assert (content["format"], content["trees"][0]["path"], content["failed"]) == (
        4,
        "/srv/vol",
        ["/srv/vol/file-1"],
    )


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("move", [renamed, copied])
def test_journals_of_before_are_refused_where_they_tell_of_another_root(
    host: Host, number: int, move: Callable[[Host], Host]
) -> None:
    _, run = fixed(host)
    trees = [{**run_json(host, run)["trees"][0], "path": str(host.volume)}]
    run_json(host, run, format=number, trees=trees)
    now = move(host)
    before = everything(now), everything(host) if host.root.exists() else None
    for words in (("undo", run), ("fix-volume", "/srv/vol", *SHIFT)):
        done = tried(now, *words)
        assert done.returncode == 9
        assert (
            f"{now.runs}/{run}/run.json: the run changed {host.volume}, which is not below --root {now.root}"
            in done.stderr
        )
        assert f"mv {now.runs}/{run} {now.root}/var/lib/usernsplan/damaged-{run}" in done.stderr
    assert tried(now, "check", "--select", "USN071").returncode == 1
    assert (everything(now), everything(host) if host.root.exists() else None) == before


# What somebody wrote who owns the root, and means to reach out of it

OUTSIDE = (
    "/srv/../../outside",
    "/..",
    "srv/vol",
    "..",
    "",
    "/srv/vol/",
    "//srv/vol",
    "/srv//vol",
    "/srv/\0",
    "/srv/.",
    5,
)


@pytest.mark.spread(5)
@pytest.mark.parametrize("path", OUTSIDE, ids=repr)
@pytest.mark.parametrize("state", ["done", *slow("changing", "undoing")])
def test_a_planted_path_is_refused_whatever_it_is(host: Host, path: object, state: str) -> None:
    _, run = fixed(host)
    trees = [{**run_json(host, run)["trees"][0], "path": path}]
    run_json(host, run, trees=trees, state=state)
    before = snapshot(host.volume)
    done = tried(host, "undo", run)
    assert (done.returncode, "is damaged" in done.stderr) == (9, True)
    run_json(host, run, trees=trees, format=2)
    assert tried(host, "undo", run).returncode == 9
    run_json(host, run, format=3)
    assert snapshot(host.volume) == before


@pytest.mark.parametrize("path", ["/srv/link", "/srv/link/vol", "/srv/absolute"])
def test_a_planted_symlink_leads_nowhere(host: Host, path: str, tmp_path: Path) -> None:
    _, run = fixed(host)
    simple(tmp_path / "vol", 7, 7)
    (host.root / "srv/link").symlink_to(tmp_path)
    (host.root / "srv/absolute").symlink_to(tmp_path / "vol")
    for target in (tmp_path, tmp_path / "vol"):
        tree = {"path": path, "device": os.stat(target).st_dev, "inode": os.stat(target).st_ino}
        run_json(host, run, trees=[tree])
        before = snapshot(tmp_path)
        report = host.undo(run, status=3)
        assert "symlink" in report["failed"][0]["reason"]
        assert differences(snapshot(tmp_path), before) == []


@pytest.mark.parametrize("name", ["/", "/etc", "/proc", "/usr"])
def test_a_planted_run_on_what_no_run_may_change_is_refused(host: Host, name: str) -> None:
    _, run = fixed(host)
    place = Path(f"{host.root}{name}")
    place.mkdir(exist_ok=True)
    tree = {"path": name, "device": place.stat().st_dev, "inode": place.stat().st_ino}
    run_json(host, run, trees=[tree])
    before = snapshot(host.root)
    done = tried(host, "undo", run, "--also-changed")
    assert done.returncode == 9
    assert str(place) in done.stderr
    assert differences(snapshot(host.root), before) == []


def planted(host: Host, run: str, line: dict[str, Any]) -> None:
    """Add a line to the first log of folders."""
    log = min((host.runs / run).glob("folders.*"))
    top = host.volume.stat()
    content = {"p": [0], "i": [0, top.st_dev, top.st_ino], **line}
    log.write_bytes(log.read_bytes() + json.dumps(content).encode() + b"\n")


@pytest.mark.spread(4)
@pytest.mark.parametrize(
    "line",
    [
        {"others": [[[33, 33], ["../outside/file"]]]},
        {"others": [[[33, 33], [".."]]]},
        {"p": [0, "..", "outside"], "common": [33, 33]},
        {"p": [0, "../outside"], "common": [33, 33]},
        {"others": [[[33, 33], ["/etc/passwd"]]]},
        {"others": [[[33, 33], ["a\0b"]]]},
        {"others": [[[33, 33], [5]]]},
        {"own": ["x", 5]},
        {"i": [7, 1, 1], "own": [5, 5]},
        {"i": [0, 1]},
        {"p": "x"},
        {"special": [["../outside/file", 1, 1, 0o104755, 1, 1, 0, 0, None, None, None]]},
        {"special": [["a"]]},
    ],
    ids=str,
)
def test_a_planted_line_leads_out_of_no_volume_and_is_seen_before_anything_is_changed(
    host: Host, line: dict[str, Any]
) -> None:
    _, run = fixed(host)
    (host.outside / "file").touch()
    planted(host, run, line)
    before = everything(host)
    done = tried(host, "undo", run)
    assert done.returncode == 9, done
    assert "damaged" in done.stderr
    assert everything(host) == before


@pytest.mark.parametrize("name", ["late.9", "folders.9", "swaps.0", "links", "odd"])
def test_a_planted_symlink_in_a_run_s_folder_is_refused(
    host: Host, name: str, tmp_path: Path
) -> None:
    _, run = fixed(host)
    target = tmp_path / "target"
    target.write_text("mine\n")
    (host.runs / run / name).symlink_to(target)
    before = snapshot(host.volume)
    assert "damaged" in tried(host, "undo", run).stderr
    assert differences(snapshot(host.volume), before) == []
    assert target.read_text() == "mine\n"


@pytest.mark.spread(4)
@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("rm -rf /", None),
        (
            "usernsplan fix-volume / --yes --root /",
            "usernsplan fix-volume {volume} --container web --root {root}",
        ),
        (
            "usernsplan fix-volume '/x; reboot' --mode shift",
            "{volume} --mode shift --container web --root {root}",
        ),
        (
            "usernsplan fix-volume x --container 'a; reboot'",
            "{volume} --container 'a; reboot' --root {root}",
        ),
        (
            "usernsplan fix-volume x --container 'a\x1b[2J'",
            r"""{volume} --container "`printf 'a\033\1332J'`" --root {root}""",
        ),
        ("usernsplan --root=/ fix-volume /", None),
        ("usernsplan release --all", None),
        ("usernsplan fix-volume / ; reboot", "{volume} --container web --root {root}"),
        ("usernsplan fix-volume --unheard-of /", None),
        ("usernsplan fix-volume 'x", None),
        ("\n\x1b[2J", None),
        (
            "usernsplan apply /tmp/x --prune --root / --yes",
            "usernsplan apply /tmp/x --prune --root {root}",
        ),
    ],
)
def test_a_planted_command_is_not_repeated(host: Host, command: str, shown: str | None) -> None:
    _, run = fixed(host)
    run_json(host, run, state="changing", command=command)
    for words in (("list",), ("show", "web"), OTHER, ("check",)):
        done = tried(host, *words)
        said = done.stdout + done.stderr
        if shown:
            assert shown.format(volume=host.volume, root=host.root) in said.replace("\n", " "), said
        assert f"usernsplan undo {run} --root {host.root}" in said
        assert "\x1b" not in said
        assert command not in said or "reboot" not in command
        assert "rm -rf" not in said
        assert "release --all" not in said


@pytest.mark.parametrize("name", ["a;reboot", "$(reboot)", "a b", "-x", "a\x1b[2J"])
def test_a_planted_name_of_a_run_is_no_part_of_a_command(host: Host, name: str) -> None:
    _, run = fixed(host)
    run_json(host, run, state="changing", run=name)
    (host.runs / run).rename(host.runs / name)
    for words in (("list",), OTHER):
        done = tried(host, *words)
        assert "is damaged" in done.stderr
        assert "undo" not in done.stderr
        assert "\x1b" not in done.stderr
    assert tried(host, *OTHER).returncode == 9


@pytest.mark.spread(5)
@pytest.mark.parametrize(
    "changed",
    [
        *(
            {"seen": "x"},
            {"seen": None},
            {"stage": "1"},
            {"end": "x"},
            {"trees": []},
            {"trees": {}},
            {"tops": ["x"]},
        ),
        *(
            {"failed": [1]},
            {"outside": [[1, "x"]]},
            {"formerly": {"/srv/../..": ["a", "own"]}},
            {"formerly": [5]},
        ),
        *(
            {"formerly": {"/srv/vol": [1, 2, 3]}},
            {"container": 5},
            {"mode": 5},
            {"command": None},
            {"run": "other"},
        ),
        *(
            {"cross_mounts": "yes"},
            {"undone": "now"},
            {"targets": {}},
            {"staging": 5},
            {"retried": 5},
        ),
    ],
    ids=str,
)
def test_a_planted_value_is_no_traceback(host: Host, changed: dict[str, Any]) -> None:
    _, run = fixed(host)
    run_json(host, run, **changed)
    before = everything(host)
    done = tried(host, "undo", run)
    assert done.returncode == 9, done
    assert "is damaged" in done.stderr
    tried(host, "list")
    assert everything(host) == before


def test_a_planted_symlink_is_no_run_and_what_it_leads_to_is_not_removed(host: Host) -> None:
    _, run = fixed(host)
    content = run_json(host, run)
    shutil.rmtree(host.runs / run)
    (host.runs / run).symlink_to("/srv")
    (host.root / "srv/run.json").write_text(json.dumps({**content, "state": "looking"}))
    os.utime(host.root / "srv", (1, 1))
    os.utime(host.root / "srv/run.json", (1, 1))
    before = snapshot(host.root / "srv")
    for words in (OTHER, ("fix-volume", "/srv/outside", "--container", "web"), ("undo", run)):
        assert tried(host, *words).returncode == 9
    tried(host, "history", "--prune-runs", "--older-than", "1h")
    assert "is damaged" in tried(host, "history", "--runs").stdout
    assert differences(snapshot(host.root / "srv"), before) == []


@pytest.mark.parametrize("name", ["lock", "folders.0", "late.9", "swaps.0", "links"])
def test_a_planted_pipe_holds_nobody_up(host: Host, name: str) -> None:
    _, run = fixed(host)
    (host.runs / run / name).unlink(missing_ok=True)
    os.mkfifo(host.runs / run / name)
    before = snapshot(host.volume)
    for words in (("history", "--runs"), ("list",), ("undo", run)):
        done = usernsplan(*words, "--root", host.root, status=9 if words[0] == "undo" else 0)
        assert ("is damaged" in done.stderr) is (words[0] == "undo")
    assert differences(snapshot(host.volume), before) == []


def test_a_planted_volume_in_the_ledger_is_not_looked_at_outside_of_the_root(host: Host) -> None:
    fixed(host)
    with sqlite3.connect(host.root / "var/lib/usernsplan/ledger.sqlite3") as db:
        db.execute("UPDATE volume SET path = ?, user = ?", (b"/../outside; reboot", "0; reboot"))
        db.execute(
            "INSERT INTO event SELECT number + 1000, at, actor, command, changed, change FROM event LIMIT 1"
        )
    db.close()
    outside = host.root.parent / "outside; reboot"
    outside.mkdir()
    for words in (("list",), ("show", "web"), ("check",)):
        said = tried(host, *words).stdout
        assert "this is not a path below the root" in said
        assert "--user '0; reboot'" in said
    outside.rmdir()
