"""What fix-volume carries: every hazard, inode by inode, against what the documentation promises."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.command import PROGRAM, missing
from tests.volume.tree import (
    USER,
    Clocks,
    Extents,
    Host,
    Ids,
    Rule,
    Snapshot,
    acl_of,
    age,
    busy,
    capability_v2,
    capability_v3,
    changed,
    clocks,
    counted,
    deep,
    differences,
    expected,
    finish,
    flagged,
    folder,
    maps,
    mounted,
    nasty,
    over,
    own,
    reverse,
    rootid_of,
    settled,
    shift,
    simple,
    snapshot,
    write,
)

CHANGES = r"/chown|chmod|setxattr|removexattr|utime"


def nasty_snapshot(host: Host, ids: Ids | None = None) -> Snapshot:
    """Build the nasty tree in the volume; what it looks like."""
    nasty(host.volume, host.outside, ids)
    return snapshot(host.volume)


@contextmanager
def nothing_outside_changes(host: Host) -> Iterator[None]:
    """Hold what lies beside the volume against itself, ctimes too."""
    before = snapshot(host.outside)
    yield
    assert snapshot(host.outside) == before


def issued(host: Host, *words: str | Path) -> list[str]:
    """Every call of a run that would change an inode of the volume, workers and all; the ledger's own apart."""
    if shutil.which("strace") is None:
        missing("strace")
    trace = host.root.parent / f"{host.root.name}.trace"
    run = [
        "strace",
        "--seccomp-bpf",
        "-f",
        "-qq",
        "-y",
        "-o",
        str(trace),
        "-e",
        f"trace={CHANGES}",
        *PROGRAM,
    ]
    run += ["fix-volume", *map(str, (host.volume, *words)), "--root", str(host.root)]
    subprocess.run(run, capture_output=True, check=True)
    return [
        line
        for line in trace.read_text().splitlines()
        if "(" in line and "/var/lib/usernsplan/" not in line
    ]


# The tests themselves.


def test_the_tree_has_every_hazard(volumes: Host) -> None:
    seen = nasty_snapshot(volumes, Ids(already=565536)).values()
    regular = [inode for inode in seen if inode.kind == stat.S_IFREG]
    folders = [inode for inode in seen if inode.kind == stat.S_IFDIR]
    assert {inode.kind for inode in seen} == {
        stat.S_IFREG,
        stat.S_IFDIR,
        stat.S_IFLNK,
        stat.S_IFIFO,
        stat.S_IFSOCK,
        stat.S_IFCHR,
        stat.S_IFBLK,
    }
    for some in (regular, folders):
        assert {
            bits for inode in some for bits in (0o4000, 0o2000, 0o1000) if inode.mode & bits
        } == {
            0o4000,
            0o2000,
            0o1000,
        }
        assert any(inode.mode == 0 for inode in some)
    assert any(inode.mode & 0o2010 == 0o2000 for inode in regular)
    assert {rootid_of(inode.capability) for inode in regular if inode.capability} >= {
        None,
        1000,
        65535,
        565536,
        565578,
    }
    assert any(inode.capability and inode.mode & 0o4000 for inode in regular)
    assert any(inode.acl and inode.mode & 0o4000 for inode in regular)
    assert any(sum(tag == USER for tag, _, _ in inode.acl) >= 40 for inode in regular)
    assert any(inode.acl and inode.default_acl for inode in folders)
    assert any(inode.links == 3 and inode.mode & 0o4000 for inode in regular)
    assert any(inode.links == 2 and inode.kind == stat.S_IFLNK for inode in seen)
    assert any(inode.rdev == 0 and inode.kind == stat.S_IFCHR for inode in seen)
    assert any("trusted.overlay.opaque" in dict(inode.xattrs) for inode in folders)
    assert any(
        inode.size > 1 << 22 and sum(end - start for start, end in inode.data) < 1 << 20
        for inode in regular
    )
    assert len({inode.mtime_ns for inode in seen}) == len({inode.names for inode in seen})
    assert {inode.uid for inode in seen} > {0, 33, 1000, 65534, 65535, 565541}


@pytest.mark.parametrize("jobs", [None, 1, 3])
def test_shift_carries_everything(volumes: Host, jobs: int | None) -> None:
    start, _ = volumes.allocate("web", "db")
    before = nasty_snapshot(volumes, Ids(already=start))
    with nothing_outside_changes(volumes):
        words = ["--jobs", str(jobs)] if jobs else []
        report = volumes.fix("--container", "web", "--mode", "shift", *words)
    after = snapshot(volumes.volume)
    assert differences(after, expected(before, shift(start))) == []
    counts = counted(before, after)
    assert counts["changed"] > 150
    assert counts["right"] > 3
    assert {key: report["counts"][key] for key in counts} == counts
    assert report["counts"]["stragglers"] == 0
    assert (report["kind"], report["container"], report["mode"]) == ("fix-volume", "web", "shift")
    assert (report["changed"], report["dry_run"], report["flattened"]) == (True, False, 0)
    assert (report["skipped"], report["failed"], report["kept"]) == (
        [],
        [],
        {"uids": {}, "gids": {}},
    )
    assert [Path(volume["path"]).name for volume in report["volumes"]] == ["vol"]
    assert report["run"] in report["undo"]
    assert (volumes.runs / report["run"]).is_dir()


@pytest.mark.spread(3)
@pytest.mark.parametrize(
    ("words", "user", "group"),
    [
        ([], 0, 0),
        (["--mode", "own"], 0, 0),
        (["--user", "33"], 33, 0),
        (["--user", "33:44"], 33, 44),
        (["--user", "65535:1"], 65535, 1),
        (["--user", "www-data", "--passwd"], 33, 35),
        (["--user", "33", "--passwd"], 33, 35),
        (["--user", "34", "--passwd"], 34, 0),
        (["--user", "www-data:44", "--passwd"], 33, 44),
    ],
)
def test_own_gives_everything_to_one_user(
    host: Host, words: list[str], user: int, group: int
) -> None:
    [start] = host.allocate("web")
    before = nasty_snapshot(host, Ids(already=start))
    passwd = host.root / "etc/passwd-of-the-image"
    passwd.write_text("root:x:0:0::/:/bin/sh\nwww-data:x:33:35::/:/usr/sbin/nologin\n")
    with nothing_outside_changes(host):
        report = host.fix(*words, *([passwd] if "--passwd" in words else []))
    after = snapshot(host.volume)
    assert differences(after, expected(before, own(start, user, group))) == []
    counts = counted(before, after)
    assert {key: report["counts"][key] for key in counts} == counts
    assert report["mode"] == "own"
    assert report["flattened"] > 10


def test_own_on_ext4_loses_nothing_either(ext4_host: Host) -> None:
    [start] = ext4_host.allocate("web")
    before = nasty_snapshot(ext4_host, Ids(already=start))
    with nothing_outside_changes(ext4_host):
        ext4_host.fix("--user", "33:33")
    assert differences(snapshot(ext4_host.volume), expected(before, own(start, 33, 33))) == []


def test_reverse_brings_everything_back(volumes: Host) -> None:
    [start] = volumes.allocate("web")
    before = nasty_snapshot(volumes, Ids(offset=start, already=0))
    with nothing_outside_changes(volumes):
        assert "--drop-power" in volumes.refusal("--reverse", status=9)
        assert snapshot(volumes.volume) == before
        report = volumes.fix("--reverse", "--drop-power")
    after = snapshot(volumes.volume)
    assert differences(after, expected(before, reverse(start))) == []
    counts = counted(before, after)
    assert {key: report["counts"][key] for key in counts} == counts
    assert report["mode"] == "shift"


def test_from_moves_it_from_one_container_to_another(volumes: Host) -> None:
    old, new = volumes.allocate("old", "new")
    before = nasty_snapshot(volumes, Ids(offset=old, already=new))
    with nothing_outside_changes(volumes):
        assert "--drop-power" in volumes.refusal("--from", "old", "--container", "new", status=9)
        assert snapshot(volumes.volume) == before
        report = volumes.fix("--from", "old", "--container", "new", "--drop-power")
    after = snapshot(volumes.volume)
    assert differences(after, expected(before, over(old, new, images=False))) == []
    counts = counted(before, after)
    assert {key: report["counts"][key] for key in counts} == counts
    assert report["container"] == "new"


SEVERAL: Extents = (
    (0, 100000, 1000),
    (1000, 300000, 1),
    (1001, 200000, 64000),
    (65001, 400000, 600),
)


@pytest.mark.parametrize(
    "rule",
    [
        Rule(((0, 100000, 65536),), ((0, 765536, 65536),), 100000),
        Rule(SEVERAL, ((0, 100000, 65536),), 100000),
        Rule(((0, 100000, 65536),), SEVERAL, 100000),
        Rule(((0, 2_000_000_000, 65536),), ((0, 4_294_900_000, 65536),), 2_000_000_000),
    ],
    ids=[
        "another range of groups",
        "several ranges of users",
        "several ranges of groups",
        "ids beyond 31 bits",
    ],
)
def test_explicit_maps_carry_users_and_groups_apart(volumes: Host, rule: Rule) -> None:
    before = nasty_snapshot(volumes)
    with nothing_outside_changes(volumes):
        report = volumes.fix(*maps(rule))
    after = snapshot(volumes.volume)
    assert differences(after, expected(before, rule)) == []
    counts = counted(before, after)
    assert {key: report["counts"][key] for key in counts} == counts
    assert (report["mode"], report["container"]) == ("shift", None)


OVERLAPPING = {
    "moved up by half its size": Rule(
        ((0, 32768, 65536),), ((0, 32768, 65536),), 32768, source_wins=True
    ),
    "moved down by half its size": Rule(
        ((32768, 0, 98304),), ((32768, 0, 98304),), None, source_wins=True, keep=True
    ),
    "two swapped": Rule(
        ((0, 0, 33), (33, 1000, 1), (34, 34, 966), (1000, 33, 1), (1001, 1001, 64535)),
        ((0, 0, 65536),),
        0,
        source_wins=True,
    ),
    "three in a ring": Rule(
        ((0, 1, 1), (1, 33, 1), (33, 0, 1)),
        ((0, 5, 1), (5, 42, 1), (42, 0, 1)),
        1,
        source_wins=True,
        keep=True,
    ),
    "users overlap, groups do not": Rule(
        ((0, 1000, 65536),), ((0, 200000, 65536),), 1000, source_wins=True
    ),
    "by one": Rule(((0, 1, 65536),), ((0, 1, 65536),), 1, source_wins=True),
}


@pytest.mark.spread(4)
@pytest.mark.parametrize("name", OVERLAPPING)
def test_overlapping_maps_move_each_id_once(volumes: Host, name: str) -> None:
    rule = OVERLAPPING[name]
    before = nasty_snapshot(volumes, Ids(offset=32768) if "down" in name else None)
    keep = ["--unmapped", "keep"] if rule.keep else []
    with nothing_outside_changes(volumes):
        volumes.fix(*maps(rule), *keep, "--drop-power")
    after = snapshot(volumes.volume)
    assert differences(after, expected(before, rule)) == []
    # The very same once more: it was done, and is not done again.
    report = volumes.fix(*maps(rule), *keep)
    assert report["changed"] is False
    assert report["notes"]
    assert snapshot(volumes.volume) == after


@pytest.mark.parametrize("name", OVERLAPPING)
def test_a_folder_that_is_looked_at_once_more_is_not_moved_once_more(host: Host, name: str) -> None:
    rule = OVERLAPPING[name]
    nasty(host.volume, host.outside, Ids(offset=32768) if "down" in name else None)
    busy(host.volume)
    before = snapshot(host.volume)
    report = host.fix(*maps(rule), *(["--unmapped", "keep"] if rule.keep else []), "--drop-power")
    after = snapshot(host.volume)
    assert differences(after, expected(before, rule)) == []
    assert report["counts"]["stragglers"] == 0
    assert report["counts"]["changed"] == len(changed(before, after))


def test_a_folder_that_is_looked_at_once_more_is_right(volumes: Host) -> None:
    [start] = volumes.allocate("web")
    nasty(volumes.volume, volumes.outside, Ids(already=start))
    busy(volumes.volume)
    before = snapshot(volumes.volume)
    report = volumes.fix("--mode", "shift")
    after = snapshot(volumes.volume)
    assert differences(after, expected(before, shift(start))) == []
    counts = counted(before, after)
    assert {key: report["counts"][key] for key in counts} == counts
    assert report["counts"]["stragglers"] == 0


def test_overlapping_maps_done_again_with_again_move_each_id_once_more(host: Host) -> None:
    simple(host.volume, 33, 1000)
    swap = Rule(
        ((33, 1000, 1), (1000, 33, 1)), ((33, 1000, 1), (1000, 33, 1)), None, source_wins=True
    )
    before = snapshot(host.volume)
    host.fix(*maps(swap))
    once = snapshot(host.volume)
    assert differences(once, expected(before, swap)) == []
    assert host.fix(*maps(swap), "--yes")["changed"] is False
    report = host.fix(*maps(swap), "--again")
    assert report["changed"] is True
    assert settled(snapshot(host.volume)) == settled(before)


def test_unmapped_ids_are_kept_where_one_says_so(volumes: Host) -> None:
    [start] = volumes.allocate("web", size=1000)
    before = nasty_snapshot(volumes)
    with nothing_outside_changes(volumes):
        report = volumes.fix("--mode", "shift", "--unmapped", "keep")
    after = snapshot(volumes.volume)
    rule = shift(start, 1000, keep=True)
    assert differences(after, expected(before, rule)) == []
    counts = counted(before, after)
    assert {key: report["counts"][key] for key in counts} == counts


def test_kept_ids_are_counted(host: Host) -> None:
    host.allocate("web", size=1000)
    simple(host.volume, 0, 0)
    finish(os.fsencode(host.volume / "file-0"), 2000, 7)
    finish(os.fsencode(host.volume / "file-1"), 2000, 3000)
    finish(os.fsencode(host.volume / "file-2"), 2001, 0)
    report = host.fix("--mode", "shift", "--unmapped", "keep")
    assert report["kept"] == {"uids": {"2000": 2, "2001": 1}, "gids": {"3000": 1}}
    # Still changed: the group of one was mapped, and so on.
    assert report["counts"]["changed"] == 3
    assert report["counts"]["right"] == 1


def test_ids_already_there_stay_and_are_not_shifted_twice(host: Host) -> None:
    [start] = host.allocate("web")
    simple(host.volume, 33, 33)
    finish(os.fsencode(host.volume / "file-0"), start + 33, start + 33)
    host.fix("--mode", "shift")
    owners = {(inode.uid, inode.gid) for inode in snapshot(host.volume).values()}
    assert owners == {(start + 33, start + 33)}


def test_what_was_own_and_is_shifted_stays(host: Host) -> None:
    [start] = host.allocate("web")
    nasty(host.volume, host.outside)
    host.fix("--user", "33:33")
    after = snapshot(host.volume)
    report = host.fix("--mode", "shift")
    # Only ids in ACLs are left to be mapped.
    acls = changed(after, expected(after, shift(start)))
    assert acls
    assert report["counts"]["changed"] == len(acls)
    assert differences(snapshot(host.volume), expected(after, shift(start))) == []


@pytest.mark.parametrize(
    "words", [("--mode", "shift"), ("--user", "33:33"), ("--reverse",), ("--from", "old")]
)
def test_a_second_run_changes_nothing(volumes: Host, words: tuple[str, ...]) -> None:
    old, web = volumes.allocate("old", "web")
    words = (
        "--container",
        "web",
        *words,
        *(["--drop-power"] if words[0] in {"--reverse", "--from"} else []),
    )
    nasty(
        volumes.volume,
        volumes.outside,
        Ids(offset={"--reverse": web, "--from": old}.get(words[2], 0)),
    )
    assert volumes.fix(*words)["changed"] is True
    before, moved, runs = snapshot(volumes.volume), clocks(volumes.volume), volumes.run_names()
    report = volumes.fix(*words)
    assert clocks(volumes.volume) == moved
    assert snapshot(volumes.volume) == before
    assert report["changed"] is False
    assert (report["run"], report["undo"]) == (None, None)
    assert report["counts"]["changed"] == 0
    assert report["counts"]["right"] == report["counts"]["entries"] == len(before)
    # Not even a folder for a run that was none.
    assert volumes.run_names() == runs


@pytest.mark.parametrize("words", [("--mode", "shift"), ("--user", "33:33")])
def test_a_second_run_issues_no_call_that_changes(host: Host, words: tuple[str, ...]) -> None:
    host.allocate("web")
    nasty(host.volume, host.outside)
    # So that an empty list means something.
    assert len(issued(host, *words)) > 100
    assert issued(host, *words) == []


def test_no_call_is_issued_where_none_is_needed(host: Host) -> None:
    [start] = host.allocate("web")
    simple(host.volume, start + 33, start + 33, count=20)
    finish(os.fsencode(host.volume / "file-7"), 33, 33)
    host.fix("--mode", "shift", "--dry-run")
    before = clocks(host.volume)
    report = host.fix("--mode", "shift")
    after = clocks(host.volume)
    assert [path for path in before if before[path].ctime_ns != after[path].ctime_ns] == [b"file-7"]
    assert (report["counts"]["changed"], report["counts"]["right"]) == (1, 20)


def without_atimes(found: dict[bytes, Clocks]) -> dict[bytes, Clocks]:
    return {path: moved._replace(atime_ns=0) for path, moved in found.items()}


@pytest.mark.parametrize(
    "words",
    [
        ("--mode", "shift"),
        ("--user", "33:33"),
        ("--mode", "shift", "--unmapped", "keep"),
        (*maps(OVERLAPPING["by one"]), "--drop-power"),
    ],
    ids=["shift", "own", "keep", "overlapping"],
)
def test_a_dry_run_writes_nothing_and_reports_the_very_changes(
    volumes: Host, words: tuple[str, ...]
) -> None:
    [start] = volumes.allocate("web")
    nasty(volumes.volume, volumes.outside, None if "--uid-map" in words else Ids(already=start))
    before, moved, host = snapshot(volumes.volume), clocks(volumes.volume), clocks(volumes.root)
    foretold = volumes.fix(*words, "--dry-run")
    # Nothing was read so that its atime moved, though this file system notes every time.
    assert clocks(volumes.volume) == moved
    assert without_atimes(clocks(volumes.root)) == without_atimes(host)
    assert snapshot(volumes.volume) == before
    assert foretold["dry_run"] is True
    assert (foretold["run"], foretold["undo"]) == (None, None)
    done = volumes.fix(*words)
    for key in (
        "counts",
        "flattened",
        "kept",
        "skipped",
        "failed",
        "mode",
        "container",
        "volumes",
        "changed",
        "dropped",
    ):
        assert foretold[key] == done[key], key
    assert done["counts"]["changed"] == len(changed(before, snapshot(volumes.volume))) > 150


@pytest.mark.parametrize("place", ["volume", "root"])
def test_a_dry_run_on_a_read_only_mount_foretells_that_nothing_is_changed(
    volumes: Host, place: str
) -> None:
    volumes.allocate("web")
    nasty(volumes.volume, volumes.outside)
    top = getattr(volumes, place)
    with mounted("--bind", top, top):
        subprocess.run(["mount", "-o", "remount,bind,ro", top], check=True)
        foretold = volumes.fix("--mode", "shift", "--dry-run", status=3)
    assert foretold["failed"] == [{"path": str(volumes.volume), "reason": "it is read-only"}]
    assert foretold["counts"]["changed"] == 0
    assert foretold["counts"]["entries"] == volumes.fix("--mode", "shift")["counts"]["entries"]


def test_a_run_on_a_read_only_mount_says_so_and_changes_nothing(host: Host) -> None:
    host.allocate("web")
    simple(host.volume, 33, 33)
    before = snapshot(host.volume)
    with mounted("--bind", host.volume, host.volume):
        subprocess.run(["mount", "-o", "remount,bind,ro", host.volume], check=True)
        done = host.attempt("fix-volume", host.volume, "--mode", "shift")
    assert done.returncode in {3, 9}
    assert "read-only" in (done.stdout + done.stderr).lower()
    assert snapshot(host.volume) == before


def test_shift_then_reverse_is_where_one_began(volumes: Host) -> None:
    volumes.allocate("web")
    before = nasty_snapshot(volumes)
    volumes.fix("--mode", "shift")
    assert differences(snapshot(volumes.volume), before) != []
    report = volumes.fix("--reverse", "--keep-power")
    assert report["dropped"] == []
    assert differences(snapshot(volumes.volume), before) == []


@pytest.mark.parametrize(
    ("name", "levels"), [(b"n" * 255, 40), (b"d", 1500)], ids=["beyond PATH_MAX", "1500 folders"]
)
def test_no_depth_is_too_deep(volumes: Host, name: bytes, levels: int) -> None:
    [start] = volumes.allocate("web")
    deep(volumes.volume, name, levels)
    before = snapshot(volumes.volume)
    assert len(before) == levels + 2
    report = volumes.fix("--mode", "shift")
    after = snapshot(volumes.volume)
    assert differences(after, expected(before, shift(start))) == []
    assert report["counts"]["changed"] == report["counts"]["entries"] == levels + 2
    volumes.undo(report["run"])
    assert differences(snapshot(volumes.volume), before) == []


def test_many_folders_and_files_are_shared_among_the_workers(host: Host) -> None:
    [start] = host.allocate("web")
    top = os.fsencode(host.volume)
    for number in range(60):
        below = folder(top + b"/%d" % number)
        for inner in range(60):
            finish(
                write(below + b"/%d" % inner, b""), number, inner, 0o4755 if inner == 7 else 0o644
            )
    # One name of each of these is in another folder, and so perhaps in the hands of another worker.
    for number in range(59):
        os.link(top + b"/%d/7" % number, top + b"/%d/linked" % (number + 1))
    before = snapshot(host.volume)
    report = host.fix("--mode", "shift", "--jobs", "4")
    after = snapshot(host.volume)
    assert differences(after, expected(before, shift(start))) == []
    counts = counted(before, after)
    assert {key: report["counts"][key] for key in counts} == counts
    assert counts["hard_link"] == 59


@pytest.mark.slow
def test_one_very_large_folder_is_shared_too_and_is_undone(host: Host) -> None:
    [start] = host.allocate("web")
    below = folder(os.fsencode(host.volume) + b"/below")
    # 20 bytes for each on tmpfs: more than are noted together.
    for number in range(53_000):
        path = below + b"/%d" % number
        os.close(os.open(path, os.O_CREAT))
        if number % 1000 < 4:
            finish(path, number % 1000, 7, 0o2644 if number % 1000 == 3 else 0o644)
    os.mkdir(below + b"/inner")
    before = snapshot(host.volume)
    report = host.fix("--mode", "shift", "--jobs", "3")
    assert differences(snapshot(host.volume), expected(before, shift(start))) == []
    assert report["counts"]["changed"] == report["counts"]["entries"] == len(before)
    assert host.fix("--mode", "shift", "--jobs", "2")["counts"]["changed"] == 0
    host.undo(report["run"])
    assert differences(snapshot(host.volume), before) == []


def test_a_folder_bind_mounted_onto_another_path_is_the_same_volume(host: Host) -> None:
    # As PATH itself: what is mounted there is what is meant.
    [start] = host.allocate("web")
    simple(host.outside, 33, 33)
    with mounted("--bind", host.outside, host.volume):
        before = snapshot(host.volume)
        host.fix("--mode", "shift")
        assert differences(snapshot(host.volume), expected(before, shift(start))) == []


def test_a_file_system_without_xattrs_is_carried(host: Host) -> None:
    [start] = host.allocate("web")
    with mounted("-t", "ramfs", "ramfs", host.volume):
        simple(host.volume, 33, 33)
        finish(os.fsencode(host.volume) + b"/file-1", 33, 33, 0o6755)
        before = snapshot(host.volume)
        host.fix("--mode", "shift")
        assert differences(snapshot(host.volume), expected(before, shift(start))) == []


def test_an_empty_folder_is_a_volume(host: Host) -> None:
    [start] = host.allocate("web")
    report = host.fix()
    assert report["counts"] == {**dict.fromkeys(report["counts"], 0), "entries": 1, "changed": 1}
    assert (host.volume.stat().st_uid, host.volume.stat().st_gid) == (start, start)


def test_the_report_says_what_was_flattened_and_what_would_have_kept_it(host: Host) -> None:
    host.allocate("web")
    simple(host.volume, 0, 0)
    finish(os.fsencode(host.volume / "file-0"), 33, 33)
    finish(os.fsencode(host.volume / "file-1"), 1000, 1000)
    assert host.fix("--dry-run")["flattened"] == 3
    said = host.told()
    assert re.search(r"\b3\b[^\n]*owners", said)
    assert "--mode shift" in said


def test_one_owner_is_no_flattening(host: Host) -> None:
    host.allocate("web")
    simple(host.volume, 33, 33)
    assert host.fix("--dry-run")["flattened"] <= 1
    assert "flattened" not in host.told()


def test_the_report_counts_by_kind_and_names_the_undo(host: Host) -> None:
    host.allocate("web")
    top = os.fsencode(host.volume)
    finish(write(top + b"/setuid"), 33, 33, 0o4755)
    finish(write(top + b"/capable"), 33, 33, 0o755, capability=capability_v2())
    finish(write(top + b"/listed"), 33, 33, 0o644, acl=acl_of(0o644, {5: 7}, {}))
    finish(write(top + b"/linked"), 33, 33)
    os.link(top + b"/linked", top + b"/linked too")
    os.mknod(top + b"/device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    for number in range(11):
        write(top + b"/%d" % number)
    foretold = host.told("--mode", "shift", "--dry-run")
    said = host.told("--mode", "shift")
    kinds = ("setuid", "capabilit", "acl", "hard-link", "device")
    for text in (foretold, said):
        assert re.search(r"\b17\b", text)
        for kind in kinds:
            assert kind in text.lower().replace("hard link", "hard-link"), kind
    [run] = host.run_names()
    assert f"usernsplan undo {run}" in said
    assert f"usernsplan undo {run}" not in foretold
    assert "usernsplan undo" not in host.told("--mode", "shift")


def test_what_no_text_can_say_is_said_in_base64(ext4_host: Host) -> None:
    ext4_host.allocate("web")
    top = os.fsencode(ext4_host.volume)
    path = Path(os.fsdecode(write(top + b"/odd\xff\nname")))
    with flagged("i", path):
        report = ext4_host.fix("--mode", "shift", status=3)
        said = ext4_host.told("--mode", "shift", status=3)
    [failed] = report["failed"]
    assert failed["path_b64"]
    assert base64.b64decode(failed["path_b64"]).endswith(b"odd\xff\nname")
    # A name may not write lines of its own into a report.
    assert "odd" in said
    assert "\nname" not in said


def test_v3_of_another_container_is_kept_apart_from_ours(host: Host) -> None:
    [start] = host.allocate("web")
    top = os.fsencode(host.volume)
    for rootid in (0, 1000, start, start + 1000):
        finish(write(top + b"/%d" % rootid), 0, 0, 0o755, capability=capability_v3(rootid))
    report = host.fix()
    assert [Path(place["path"]).name for place in report["dropped"]] == ["1000"]
    seen = snapshot(host.volume)
    roots = {path: rootid_of(inode.capability) for path, inode in seen.items() if inode.capability}
    assert roots == {
        b"0": start,
        # Not that of 1000: whoever is root there was not root here.
        b"%d" % start: start,
        b"%d" % (start + 1000): start + 1000,
    }


def test_old_mtimes_and_content_are_untouched(volumes: Host) -> None:
    volumes.allocate("web")
    simple(volumes.volume, 33, 33)
    age(volumes.volume)
    before = clocks(volumes.volume)
    volumes.fix()
    after = clocks(volumes.volume)
    # No file was read either; only the folder may have been, to be listed.
    assert {path: c[:2] for path, c in after.items() if path != b"."} == {
        path: c[:2] for path, c in before.items() if path != b"."
    }
    assert after[b"."].mtime_ns == before[b"."].mtime_ns


def test_json_is_the_only_thing_on_standard_output(host: Host) -> None:
    host.allocate("web")
    simple(host.volume, 33, 33)
    done = host.attempt("fix-volume", host.volume, "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    assert document.keys() >= {
        "format_version",
        "kind",
        "run",
        "dry_run",
        "changed",
        "container",
        "mode",
        "volumes",
        "seconds",
        "undo",
        "counts",
        "flattened",
        "kept",
        "skipped",
        "failed",
        "notes",
    }
    assert document["seconds"] > 0
