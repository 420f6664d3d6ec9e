"""fix-volume --explain on real file systems: what it says is what a run then does, and it changes nothing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import PROGRAM, here
from tests.volume import grounds
from tests.volume.tree import Host, clocks, finish, flagged, mounted, simple, snapshot, write
from usernsplan.volume import census, walk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.volume.grounds import Ground

START = 589824
CONTAINER = ("--container", "web")


@pytest.fixture
def web(host: Host) -> Host:
    """A host with two allocations, a volume with two owners, and a folder beside it."""
    assert host.allocate("web", "db") == [START, START + 65536]
    simple(host.outside, 7, 7)
    return host


def explained(web: Host, *words: str | Path, path: Path | None = None) -> dict[str, Any]:
    asked = ("fix-volume", path or web.volume, *CONTAINER, *words, "--explain", "--json")
    document = json.loads(here(*asked, "--root", web.root)[0])
    [volume] = document["volumes"]
    volume["methods"] = {one.pop("method"): one for one in volume["methods"]}
    return dict(volume)


def obstacles(volume: dict[str, Any], method: str) -> str:
    return " | ".join(one["message"] for one in volume["methods"][method]["obstacles"])


GROUNDS: list[tuple[Any, str, str, str]] = [
    (grounds.plain, "tmpfs", "", ""),
    (grounds.fuse, "fuse", "is a program that does not permit it", ""),
    (grounds.overlay, "overlay", "its layers can: {srv}/lower, {srv}/upper", ""),
    (grounds.read_only, "tmpfs", "", "{srv}/vol is mounted read-only"),
    (grounds.idmapped, "tmpfs", "on an idmapped mount", "on an idmapped mount"),
]


@pytest.mark.parametrize(
    ("ground", "kind", "idmap", "chown"),
    [
        *GROUNDS,
        *(
            pytest.param(ground, kind, "", "", marks=pytest.mark.slow)
            for ground, kind in ((grounds.xfs, "xfs"), (grounds.btrfs, "btrfs"))
        ),
    ],
)
def test_what_works_here_is_what_a_run_can_do(
    web: Host, ground: Ground, kind: str, idmap: str, chown: str
) -> None:
    srv = web.volume.parent
    with ground(web.volume):
        found = explained(web)
        assert found["file_system"] == kind
        for method, why in (("idmap", idmap), ("chown", chown)):
            said = obstacles(found, method)
            assert why.format(srv=srv) in said
            assert bool(said) is bool(why), said
            assert found["methods"][method]["works"] is not bool(why)
            # The dry run of the method itself agrees; what is read-only is done in part.
            words = (*CONTAINER, "--method", method, "--mode", "own", "--dry-run")
            done = web.attempt("fix-volume", web.volume, *words)
            assert (done.returncode == 0) is not bool(why), done.stderr


def test_it_changes_nothing_and_writes_nothing(web: Host) -> None:
    simple(web.volume / "a", 33, 33)
    os.link(web.volume / "a/file-0", web.volume / "a/link")
    before = snapshot(web.root), web.run_names()
    times = clocks(web.volume)
    text = here("fix-volume", web.volume, *CONTAINER, "--explain", "--root", web.root)[0]
    assert "mode that fits   shift: 2 owners" in text
    explained(web, "--user", "33:33")
    here("mount-volume", web.volume, *CONTAINER, "--explain", "--root", web.root)
    assert clocks(web.volume) == times
    assert before == (snapshot(web.root), web.run_names())


def test_its_commands_are_those_that_it_means(web: Host) -> None:
    simple(web.volume / "a", 33, 33)
    methods = explained(web)["methods"]
    for method in ("idmap", "chown"):
        words = methods[method]["command"].split()
        assert words[0] == "usernsplan"
        report = json.loads(here(*words[1:], "--json")[0])
        assert bool(report["mounts"]) is (method == "idmap")
        assert report["changed"]
        web.undo(report["run"])


def test_owners_links_and_immutable_files_are_counted(web: Host) -> None:
    simple(web.volume, 5, 6, count=2)
    finish(write(os.fsencode(web.volume / "strange")), 70000, 6)
    inside, outside = web.volume / "inside", web.volume / "leads-out"
    finish(write(os.fsencode(inside)), 5, 6)
    os.link(inside, web.volume / "inside-too")
    finish(write(os.fsencode(outside)), 5, 6)
    os.link(outside, web.root / "srv/elsewhere")
    found = explained(web, "--mode", "shift")
    assert (found["entries"], found["whole"], found["at_most"]) == (7, True, 7)
    assert found["owners"] == [
        {"uid": 5, "gid": 6, "entries": 6},
        {"uid": 70000, "gid": 6, "entries": 1},
    ]
    assert found["outside_links"] == 1
    said = obstacles(found, "chown")
    assert "the map lacks 70000:6 (1 entry)" in said
    assert "1 file with hard links elsewhere" in said
    assert found["methods"]["idmap"]["works"]
    assert "70000:6 (1 entry) would appear as 65534" in found["methods"]["idmap"]["notes"][0]


def test_immutable_files_are_seen(ext4_host: Host) -> None:
    ext4_host.allocate("web")
    simple(ext4_host.volume)
    with flagged("i", ext4_host.volume / "file-0"), flagged("a", ext4_host.volume / "file-1"):
        found = explained(ext4_host)
    assert found["fixed"] == 2
    assert "2 entries immutable or append-only" in obstacles(found, "chown")
    [obstacle] = found["methods"]["chown"]["obstacles"]
    assert obstacle["hint"] == f"chattr -R -ia {ext4_host.volume}"
    assert found["file_system"] == "ext4"


def test_a_single_file_and_mounts_inside(web: Host) -> None:
    simple(web.volume, 33, 33)
    found = explained(web, path=web.volume / "file-0")
    assert (found["entries"], found["mode"]) == (1, "own")
    (web.volume / "in").mkdir()
    os.chown(web.volume / "in", 33, 33)
    with mounted("--bind", web.outside, web.volume / "in"):
        found = explained(web)
        assert [one["path"] for one in found["mounts"]] == [str(web.volume / "in")]
        # The top, and its three files; the mount point counts with --cross-mounts.
        assert found["entries"] == 4
        assert explained(web, "--cross-mounts")["entries"] == 8


def test_a_mount_inside_that_is_dead_is_not_touched(web: Host) -> None:
    (web.volume / "in").mkdir()
    with grounds.dead(web.volume / "in"):
        assert explained(web)["entries"] == 1


@pytest.mark.parametrize(
    ("most", "seconds", "entries", "whole"),
    [(100, 60.0, 9, True), (9, 60.0, 9, True), (8, 60.0, 8, False), (100, 0.0, 1, False)],
)
def test_the_look_ends_at_its_bounds(
    web: Host, most: int, seconds: float, entries: int, whole: bool
) -> None:
    for name in ("a", "b"):
        simple(web.volume / name)
    opened = walk.volume(str(web.volume))
    try:
        found = census.take(opened, most=most, seconds=seconds)
    finally:
        os.close(opened.top)
    assert (found.entries, found.is_whole) == (entries, whole)
    if not whole:
        # What its file system tells.
        assert found.at_most is not None
        assert found.at_most >= 9


def test_who_else_has_it(web: Host) -> None:
    web.fix("--container", "db", "--mode", "own")
    found = explained(web)
    assert found["users"] == ["/srv/vol has the ids of db on the disk"]
    for method in ("idmap", "chown"):
        assert "belongs to 'db'" in obstacles(found, method)


def test_a_volume_that_others_can_reach_is_told_with_what_protects_it(web: Host) -> None:
    with grounds.reachable(web.volume) as place:
        found = explained(web, "--mode", "shift")
        assert obstacles(found, "idmap").startswith(
            "through the mount, web could make files with the power of root (uid 0)"
        )
        assert str(place) in obstacles(found, "idmap")
        [why] = found["methods"]["idmap"]["obstacles"]
        assert why["hint"]
        assert found["methods"]["chown"]["works"]
        assert explained(web, "--mode", "shift", "--read-only")["methods"]["idmap"]["works"]
        text = here("fix-volume", web.volume, *CONTAINER, "--explain", "--root", web.root)[0]
        assert any(str(place) in one for one in text.splitlines())


@pytest.mark.parametrize("answer", [errno.ENOSYS, errno.EPERM])
def test_a_filter_of_system_calls_is_told(web: Host, answer: int) -> None:
    words = ("fix-volume", web.volume, *CONTAINER, "--explain", "--root", web.root)
    done = subprocess.run(
        [*PROGRAM, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=grounds.filtering(grounds.MOUNT_SETATTR, answer),
    )
    assert "\nidmap            does not work: a filter of system calls (seccomp)" in done.stdout


def test_in_a_containers_user_namespace_it_says_so(web: Host) -> None:
    words = ("fix-volume", web.volume, *CONTAINER, "--explain", "--root", web.root)
    grounds.need("unshare")
    inside = ["unshare", "--user", "--map-root-user", *PROGRAM, *map(str, words)]
    done = subprocess.run(inside, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the user namespace of this process lacks ids of the map" in " ".join(
        done.stdout.split()
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--reverse",), "these options are about a change of the disk"),
        (("--from", "db"), "these options are about a change of the disk"),
    ],
)
def test_what_only_a_change_of_the_disk_does_is_explained_as_one(
    web: Host, words: tuple[str, ...], told: str
) -> None:
    assert told in obstacles(explained(web, *words), "idmap")


def test_options_that_contradict_each_other_are_refused(web: Host) -> None:
    for words in (("--reverse", "--at", "/mnt"), ("--mode", "shift", "--user", "1:1")):
        web.refusal(*CONTAINER, *words, "--explain", status=2)


def test_what_a_mount_that_stands_forbids_is_said_with_its_undo(web: Host) -> None:
    mount = ("mount-volume", web.volume, *CONTAINER, "--root", web.root)
    here(*mount, "--mode", "own")
    asked = explained(web, "--mode", "own")
    assert asked["methods"]["idmap"]["works"]
    assert "is mounted for 'web'" in obstacles(asked, "chown")
    assert "(own 0:0) already" in obstacles(explained(web, "--mode", "shift"), "idmap")

    undo = asked["methods"]["chown"]["obstacles"][0]["hint"].partition("first: usernsplan ")[2]
    here(*undo.split())
    assert explained(web)["methods"]["chown"]["works"]
