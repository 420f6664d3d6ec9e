"""For which container a volume is fixed, and that the ledger remembers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.command import json_of, usernsplan
from tests.volume.tree import Host, differences, expected, finish, own, shift, simple, snapshot


def command_lines(host: Host) -> list[str]:
    """The commands that the history has."""
    return [entry["command"] for entry in json_of("history", "--root", host.root)["entries"]]


def owner(path: Path) -> int:
    """Who owns it."""
    return path.lstat().st_uid


def test_the_only_container_is_meant_where_none_is_said(host: Host) -> None:
    [start] = host.allocate("web")
    simple(host.volume, 33, 33)
    report = host.fix()
    assert report["container"] == "web"
    assert owner(host.volume) == owner(host.volume / "file-0") == start


@pytest.mark.parametrize("number", [0, 1])
def test_the_container_that_is_said_is_meant(host: Host, number: int) -> None:
    names = ("web", "db")
    starts = host.allocate(*names)
    simple(host.volume, 33, 33)
    report = host.fix("--container", names[number], "--mode", "shift")
    assert report["container"] == names[number]
    assert owner(host.volume) == starts[number] + 33


def test_among_several_one_has_to_be_said(host: Host) -> None:
    host.allocate("web", "db", "cache")
    simple(host.volume, 33, 33)
    before = snapshot(host.volume)
    done = host.attempt("fix-volume", host.volume)
    assert done.returncode in {1, 2}
    for name in ("web", "db", "cache", "--container"):
        assert name in done.stderr
    assert snapshot(host.volume) == before
    assert host.run_names() == []


def test_where_nothing_is_allocated_there_is_no_container(host: Host) -> None:
    simple(host.volume, 33, 33)
    before = snapshot(host.volume)
    done = host.attempt("fix-volume", host.volume)
    assert done.returncode in {1, 2}
    assert "usernsplan allocate" in done.stderr
    assert snapshot(host.volume) == before


@pytest.mark.parametrize(
    "spelling", ["whole", "from the root", "relative", "with a slash", "for podman"]
)
def test_a_volume_is_remembered_with_its_container(host: Host, spelling: str) -> None:
    _, start = host.allocate("web", "db")
    simple(host.volume, 33, 33)
    host.fix("--container", "db", "--mode", "shift")
    assert any("fix-volume" in line and "--container db" in line for line in command_lines(host))
    # A file that came later.
    simple(host.volume, 33, 33, count=0)
    finish(os.fsencode(host.volume / "file-1"), 44, 44)
    path = {
        "whole": str(host.volume),
        "from the root": "/srv/vol",
        "relative": "vol",
        "with a slash": "/srv/vol/",
        "for podman": "/srv/vol:/data:U",
    }[spelling]
    words = ("--json", "--root", host.root)
    report = json.loads(usernsplan("fix-volume", path, *words, cwd=host.root / "srv").stdout)
    assert report["container"] == "db"
    assert owner(host.volume / "file-1") == start + 44


def test_what_the_history_shows_is_which_volume(host: Host) -> None:
    host.allocate("web")
    simple(host.volume, 33, 33)
    host.fix()
    said = usernsplan("history", "--root", host.root).stdout
    assert "fix-volume" in said
    assert "srv/vol" in said


def test_the_container_that_is_said_goes_before_the_one_remembered(host: Host) -> None:
    web, db = host.allocate("web", "db")
    simple(host.volume, 33, 33)
    host.fix("--container", "web", "--mode", "shift")
    report = host.fix("--from", "web", "--container", "db")
    assert report["container"] == "db"
    assert owner(host.volume) == db + 33 != web + 33
    # Now it is the other's.
    assert host.fix("--mode", "shift")["container"] == "db"


def test_another_volume_is_not_remembered_for_its_name_alone(host: Host) -> None:
    host.allocate("web", "db")
    simple(host.volume, 33, 33)
    host.fix("--container", "db")
    second = host.root / "srv/volume-two"
    simple(second, 33, 33)
    done = host.attempt("fix-volume", second)
    assert done.returncode in {1, 2}
    assert owner(second) == 33


def test_a_dry_run_remembers_nothing(host: Host) -> None:
    host.allocate("web", "db")
    simple(host.volume, 33, 33)
    lines = command_lines(host)
    host.fix("--container", "db", "--dry-run")
    assert command_lines(host) == lines
    assert host.attempt("fix-volume", host.volume).returncode in {1, 2}


def test_a_refused_run_remembers_nothing(host: Host) -> None:
    host.allocate("web", "db")
    simple(host.volume, 700_000_000, 33)
    assert (
        host.attempt("fix-volume", host.volume, "--container", "db", "--mode", "shift").returncode
        == 9
    )
    assert host.attempt("fix-volume", host.volume, "--mode", "shift").returncode in {1, 2}


def test_a_container_that_was_released_is_not_meant(host: Host) -> None:
    web, _ = host.allocate("web", "db")
    simple(host.volume, 33, 33)
    host.fix("--container", "db", "--mode", "shift")
    usernsplan("release", "db", "--yes", "--root", host.root)
    simple(host.volume / "new", 5, 5)
    done = host.attempt("fix-volume", host.volume / "new", "--mode", "shift", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["container"] == "web"
    assert owner(host.volume / "new/file-0") == web + 5


def test_explicit_maps_need_no_ledger(host: Host) -> None:
    simple(host.volume, 33, 33)
    report = host.fix("--uid-map", "0:1000:100", "--gid-map", "0:2000:100")
    assert report["container"] is None
    assert (host.volume / "file-0").stat()[4:6] == (1033, 2033)


def test_several_paths_are_one_run(host: Host) -> None:
    [start] = host.allocate("web")
    more = [host.root / "srv" / name for name in ("two", "three words")]
    before = []
    for number, path in enumerate([host.volume, *more]):
        simple(path, 33 + number, 33)
        before.append(snapshot(path))
    report = host.fix("--mode", "shift", *more)
    assert [Path(volume["path"]).name for volume in report["volumes"]] == [
        "vol",
        "two",
        "three words",
    ]
    assert host.run_names() == [report["run"]]
    assert report["counts"]["changed"] == 12
    for path, was in zip([host.volume, *more], before, strict=True):
        assert differences(snapshot(path), expected(was, shift(start))) == []
    host.undo(report["run"])
    for path, was in zip([host.volume, *more], before, strict=True):
        assert differences(snapshot(path), was) == []


def test_several_paths_remembered_are_found_one_by_one(host: Host) -> None:
    host.allocate("web", "db")
    second = host.root / "srv/two"
    simple(host.volume, 33, 33)
    simple(second, 33, 33)
    host.fix("--container", "db", second)
    for path in (host.volume, second):
        assert host.fix("--dry-run", path=path)["container"] == "db"


def test_volumes_of_two_containers_are_not_one_run(host: Host) -> None:
    host.allocate("web", "db")
    second = host.root / "srv/two"
    simple(host.volume, 33, 33)
    simple(second, 33, 33)
    host.fix("--container", "web")
    host.fix("--container", "db", path=second)
    done = host.attempt("fix-volume", host.volume, second)
    assert done.returncode in {1, 2, 9}
    assert "web" in done.stderr
    assert "db" in done.stderr


@pytest.mark.parametrize("other", ["/srv/vol", "/srv/vol/below", "/srv"])
def test_paths_that_hold_each_other_are_moved_once_or_refused(host: Host, other: str) -> None:
    # 5 -> 1005 lies in the range that is moved: whoever moves it twice makes 2005 of it.
    simple(host.volume, 5, 5)
    simple(host.volume / "below", 5, 5)
    finish(os.fsencode(host.root / "srv"), 5, 5, 0o755)
    done = host.attempt(
        "fix-volume", host.volume, other, "--uid-map", "0:1000:5000", "--gid-map", "0:1000:5000"
    )
    assert done.returncode in {0, 2, 9}
    seen = {inode.uid for inode in snapshot(host.volume).values()}
    assert seen == ({1005} if done.returncode == 0 else {5})


def test_one_path_that_is_refused_refuses_all(host: Host) -> None:
    host.allocate("web")
    second = host.root / "srv/two"
    simple(host.volume, 33, 33)
    simple(second, 700_000_000, 33)
    before = snapshot(host.volume), snapshot(second)
    assert host.attempt("fix-volume", host.volume, second, "--mode", "shift").returncode == 9
    assert (snapshot(host.volume), snapshot(second)) == before


def test_a_single_uid_container_owns_all_with_its_one_id(host: Host) -> None:
    words = (
        "allocate",
        "--strategy",
        "single-uid",
        "app",
        "--block",
        "1",
        "--json",
        "--root",
        host.root,
    )
    [found] = json.loads(usernsplan(*words).stdout)["allocations"]
    [start] = [extent["host"] for extent in found["uid_map"] if extent["container"] == 0]
    simple(host.volume, 33, 33)
    before = snapshot(host.volume)
    host.fix()
    assert differences(snapshot(host.volume), expected(before, own(start))) == []
