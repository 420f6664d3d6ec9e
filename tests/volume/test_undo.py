"""What undo puts back, and what it leaves because somebody has changed it since."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.command import usernsplan
from tests.volume.tree import (
    Host,
    Ids,
    Snapshot,
    acl_of,
    capability_v2,
    clocks,
    differences,
    finish,
    flagged,
    maps,
    nasty,
    settled,
    shift,
    simple,
    snapshot,
    write,
)


def left(report: dict[str, Any]) -> set[str]:
    """The names of what a report says was left, each with a reason."""
    found = report["skipped"] + report["failed"]
    assert all(entry["reason"] for entry in found)
    return {Path(entry["path"]).name for entry in found}


@pytest.mark.spread(4)
@pytest.mark.parametrize(
    "words",
    [
        ("--container", "web", "--mode", "shift"),
        ("--container", "web"),
        ("--container", "web", "--user", "33:44"),
        ("--container", "web", "--reverse", "--drop-power"),
        ("--container", "web", "--from", "db", "--drop-power"),
        ("--container", "web", "--mode", "shift", "--unmapped", "keep"),
        ("--uid-map", "0:1000:65536", "--gid-map", "0:5:65536", "--drop-power"),
        (
            *(
                "--uid-map",
                "33:1000:1",
                "--uid-map",
                "1000:33:1",
                "--gid-map",
                "0:5:65536",
                "--unmapped",
                "keep",
            ),
            "--drop-power",
        ),
    ],
    ids=" ".join,
)
def test_undo_puts_everything_back(volumes: Host, words: tuple[str, ...]) -> None:
    web, db = volumes.allocate("web", "db")
    offset = {"--reverse": web, "--from": db}.get(words[2] if len(words) > 2 else "", 0)
    already = {"--reverse": 0, "--uid-map": None}.get(words[2] if offset == web else words[0], web)
    nasty(volumes.volume, volumes.outside, Ids(offset=offset, already=already))
    before, outside = snapshot(volumes.volume), snapshot(volumes.outside)
    done = volumes.fix(*words)
    assert differences(snapshot(volumes.volume), before) != []
    report = volumes.undo(done["run"])
    assert differences(snapshot(volumes.volume), before) == []
    assert snapshot(volumes.outside) == outside
    assert (report["kind"], report["mode"], report["changed"]) == ("undo", None, True)
    assert left(report) == set()
    assert report["counts"]["changed"] == done["counts"]["changed"]


def test_the_words_that_the_report_gives_undo_it(host: Host) -> None:
    host.allocate("web")
    simple(host.volume, 33, 33)
    before = snapshot(host.volume)
    words = host.fix()["undo"].split()
    assert words[:2] == ["usernsplan", "undo"]
    usernsplan(*words[1:])
    assert differences(snapshot(host.volume), before) == []


def test_after_undo_the_same_run_may_be_done_again(host: Host) -> None:
    host.allocate("web")
    nasty(host.volume, host.outside)
    before = snapshot(host.volume)
    host.undo(host.fix("--mode", "shift")["run"])
    again = host.fix("--user", "33")
    assert again["changed"] is True
    host.undo(again["run"])
    assert differences(snapshot(host.volume), before) == []


def test_after_undo_an_overlapping_map_is_not_taken_for_done(host: Host) -> None:
    simple(host.volume, 5, 5)
    before = snapshot(host.volume)
    words = ("--uid-map", "0:33:1000", "--gid-map", "0:33:1000")
    first = host.fix(*words)
    done = snapshot(host.volume)
    host.undo(first["run"])
    assert settled(snapshot(host.volume)) == settled(before)
    assert host.fix(*words)["changed"] is True
    assert settled(snapshot(host.volume)) == settled(done)


def test_two_runs_are_undone_one_after_the_other(host: Host) -> None:
    web, db = host.allocate("web", "db")
    nasty(host.volume, host.outside)
    first = snapshot(host.volume)
    one = host.fix("--container", "web", "--mode", "shift")
    second = snapshot(host.volume)
    two = host.fix("--container", "db", "--from", "web", "--drop-power")
    assert one["run"] != two["run"]
    assert web != db
    host.undo(two["run"])
    assert differences(snapshot(host.volume), second) == []
    host.undo(one["run"])
    assert differences(snapshot(host.volume), first) == []


def changed_since(host: Host) -> tuple[str, Snapshot, Snapshot]:
    """Fix a volume, and then work on it; the run, the tree before it, and the tree to be undone."""
    top = os.fsencode(host.volume) + b"/"
    for name in (
        b"stays",
        b"chown",
        b"chgrp",
        b"chmod",
        b"acl",
        b"capability",
        b"deleted",
        b"replaced",
        b"renamed",
        b"written",
        b"odd\xff\nname",
    ):
        finish(write(top + name), 33, 33, 0o4755)
    finish(write(top + b"plain"), 33, 33)
    simple(host.volume / "folder", 33, 33)
    simple(host.volume / "gone", 33, 33)
    before = snapshot(host.volume)
    [start] = host.starts.values()
    run = host.fix("--mode", "shift")["run"]
    finish(top + b"chown", start + 1, start + 33, 0o4755)
    finish(top + b"odd\xff\nname", start + 1, start + 33, 0o4755)
    finish(top + b"chgrp", start + 33, start + 1, 0o4755)
    os.chmod(top + b"chmod", 0o700)
    finish(top + b"acl", start + 33, start + 33, 0o4755, acl=acl_of(0o755, {start + 5: 7}, {}))
    finish(top + b"capability", start + 33, start + 33, 0o4755, capability=capability_v2())
    os.unlink(top + b"deleted")
    # The old inode is held, so that the new one cannot have its number.
    os.rename(top + b"replaced", os.fsencode(host.outside) + b"/held")
    finish(write(top + b"replaced"), start + 33, start + 33, 0o4755)
    finish(write(top + b"new"), start + 7, start + 7, 0o2755)
    finish(write(top + b"folder/new"), start + 7, start + 7, 0o644)
    (host.volume / "written").write_text("by the container")
    (host.volume / "plain").write_text("by the container")
    for number in range(3):
        (host.volume / f"gone/file-{number}").unlink()
    (host.volume / "gone").rmdir()
    return run, before, snapshot(host.volume)


CHANGED = (
    *(b"chown", b"chgrp", b"chmod", b"acl", b"capability", b"replaced", b"new", b"folder/new"),
    b"odd\xff\nname",
)


def test_what_changed_since_is_named_and_left(volumes: Host) -> None:
    volumes.allocate("web")
    run, before, since = changed_since(volumes)
    report = volumes.undo(run, status=3)
    after = snapshot(volumes.volume)
    same = {path: inode for path, inode in before.items() if path in after and path not in CHANGED}
    # What was put there by the container would be setuid for somebody of the host.
    written = same.pop(b"written")
    assert (after[b"written"].uid, after[b"written"].gid, after[b"written"].mode) == (
        written.uid,
        written.gid,
        0o755,
    )
    for path in (b"plain", b".", b"folder"):
        # Their content is of now; owners and modes are put back.
        was = same.pop(path)
        assert (after[path].uid, after[path].gid, after[path].mode) == (was.uid, was.gid, was.mode)
    assert differences({path: after[path] for path in same}, same) == []
    for path in CHANGED:
        assert after[path] == since[path], path
    # What is gone needs no name.
    assert left(report) >= {
        "chown",
        "chgrp",
        "chmod",
        "acl",
        "capability",
        "replaced",
        "new",
        "written",
    }
    assert left(report).isdisjoint({"stays", "folder", "plain", "vol"})
    assert any("path_b64" in entry for entry in report["skipped"] + report["failed"])


def test_undo_leaves_what_came_since(volumes: Host) -> None:
    [start] = volumes.allocate("web")
    simple(volumes.volume, 33, 33)
    report = volumes.fix("--mode", "shift")
    finish(write(os.fsencode(volumes.volume) + b"/new"), start + 5, start + 6, 0o6755)
    before = snapshot(volumes.volume)[b"new"]
    undone = volumes.undo(report["run"], status=3)
    assert left(undone) == {"new"}
    after = snapshot(volumes.volume)
    assert after[b"new"] == before
    assert after[b"file-0"].uid == 33


def test_undo_does_not_follow_what_became_a_symlink(volumes: Host) -> None:
    volumes.allocate("web")
    simple(volumes.volume, 33, 33)
    simple(volumes.volume / "folder", 33, 33)
    simple(volumes.outside, 0, 0)
    run = volumes.fix("--mode", "shift")["run"]
    os.rename(volumes.volume / "folder", volumes.volume / "was")
    os.symlink(volumes.outside, volumes.volume / "folder")
    (volumes.volume / "file-0").unlink()
    os.symlink(volumes.outside / "file-0", volumes.volume / "file-0")
    outside = snapshot(volumes.outside)
    volumes.undo(run, status=3)
    assert snapshot(volumes.outside) == outside
    assert os.lstat(volumes.volume / "folder").st_uid == 0


def test_undo_of_own_knows_every_owner(volumes: Host) -> None:
    volumes.allocate("web")
    top = os.fsencode(volumes.volume)
    for number in range(300):
        finish(
            write(top + b"/%d" % number, b""),
            number % 7,
            number % 5,
            0o4755 if number % 11 == 0 else 0o640,
        )
    before = snapshot(volumes.volume)
    volumes.undo(volumes.fix("--user", "33")["run"])
    assert differences(snapshot(volumes.volume), before) == []


def test_the_journal_of_folders_of_one_owner_is_compact(host: Host) -> None:
    host.allocate("web")
    top = os.fsencode(host.volume)
    for number in range(3000):
        write(top + b"/a rather long name of a file, number %d" % number, b"")
    run = host.fix("--mode", "shift")["run"]
    size = sum(path.stat().st_size for path in (host.runs / run).rglob("*") if path.is_file())
    assert size < 50 * 3000


def test_undo_twice_changes_nothing_more(volumes: Host) -> None:
    volumes.allocate("web")
    nasty(volumes.volume, volumes.outside)
    run = volumes.fix("--mode", "shift")["run"]
    volumes.undo(run)
    before = clocks(volumes.volume)
    done = volumes.attempt("undo", run)
    after = clocks(volumes.volume)
    assert {path: seen.ctime_ns for path, seen in after.items()} == {
        path: seen.ctime_ns for path, seen in before.items()
    }
    assert done.returncode in {0, 1, 9}
    assert "already" in done.stderr


def test_an_unknown_run_is_an_error(host: Host) -> None:
    host.allocate("web")
    simple(host.volume, 33, 33)
    host.fix()
    before = snapshot(host.volume)
    for run in ("20200101-000000", "nothing", "../runs", "/etc", "", "..", "."):
        done = host.attempt("undo", run)
        assert done.returncode in {1, 2}, run
        assert done.stdout == "", run
        assert run in done.stderr
        assert snapshot(host.volume) == before, run


def test_undo_without_a_run_is_wrong_usage(host: Host) -> None:
    assert host.attempt("undo").returncode == 2


def test_a_dry_run_of_undo_writes_nothing_and_reports_the_very_changes(volumes: Host) -> None:
    volumes.allocate("web")
    nasty(volumes.volume, volumes.outside)
    run = volumes.fix("--mode", "shift")["run"]
    finish(os.fsencode(volumes.volume) + b"/owners/file-0-644", 5, 5, 0o644)
    before, host = clocks(volumes.volume), clocks(volumes.root)
    foretold = volumes.undo(run, "--dry-run", status=3)
    assert clocks(volumes.volume) == before
    assert {path: seen[1:] for path, seen in clocks(volumes.root).items()} == {
        p: seen[1:] for p, seen in host.items()
    }
    assert (foretold["dry_run"], foretold["changed"]) == (True, True)
    done = volumes.undo(run, status=3)
    for key in ("counts", "skipped", "failed", "volumes"):
        assert foretold[key] == done[key], key
    assert left(done) == {"file-0-644"}


def test_undo_says_what_it_did(host: Host) -> None:
    host.allocate("web")
    simple(host.volume, 33, 33, count=41)
    run = host.fix()["run"]
    done = host.attempt("undo", run)
    assert done.returncode == 0
    assert "42" in done.stdout


def test_undo_puts_a_mode_back_that_only_undo_itself_could_lose(host: Host) -> None:
    host.allocate("web")
    top = os.fsencode(host.volume)
    finish(
        write(top + b"/setuid"),
        33,
        33,
        0o6755,
        acl=acl_of(0o755, {5: 7}, {}),
        capability=capability_v2(),
    )
    before = snapshot(host.volume)
    run = host.fix()["run"]
    host.undo(run)
    after = snapshot(host.volume)
    assert differences(after, before) == []
    assert after[b"setuid"].mode & (stat.S_ISUID | stat.S_ISGID)


def test_undo_of_a_volume_that_moved_away_is_an_error(host: Host) -> None:
    host.allocate("web")
    simple(host.volume, 33, 33)
    simple(host.outside, 33, 33)
    run = host.fix()["run"]
    os.rename(host.volume, host.root / "srv/away")
    os.rename(host.outside, host.volume)
    before = snapshot(host.volume)
    done = host.attempt("undo", run)
    assert done.returncode in {1, 3, 9}
    assert snapshot(host.volume) == before


def test_what_could_not_be_taken_back_can_be_later(ext4_host: Host) -> None:
    ext4_host.allocate("web")
    simple(ext4_host.volume, 33, 33)
    before = snapshot(ext4_host.volume)
    run = ext4_host.fix("--mode", "shift")["run"]
    with flagged("i", ext4_host.volume / "file-1"):
        assert left(ext4_host.undo(run, status=3)) == {"file-1"}
    # chattr was a change too: whoever made it has to say that the file may have its setuid bit.
    assert left(ext4_host.undo(run, status=3)) == {"file-1"}
    ext4_host.undo(run, "--also-changed")
    assert differences(snapshot(ext4_host.volume), before) == []


def test_what_is_gone_of_several_volumes_does_not_hold_the_others_back(host: Host) -> None:
    host.allocate("web")
    second = host.root / "srv/two"
    simple(host.volume, 33, 33)
    simple(second, 33, 33)
    before = snapshot(host.volume)
    run = host.fix("--mode", "shift", second)["run"]
    shutil.rmtree(second)
    done = host.attempt("undo", run)
    assert done.returncode in {0, 3}
    assert str(second) in done.stdout + done.stderr
    assert differences(snapshot(host.volume), before) == []


def test_undo_of_explicit_maps_needs_no_ledger(host: Host) -> None:
    simple(host.volume, 33, 33)
    before = snapshot(host.volume)
    host.undo(host.fix(*maps(shift(100000)))["run"])
    assert differences(snapshot(host.volume), before) == []
