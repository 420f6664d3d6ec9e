"""What another version left in the folder of runs: it is finished, refused with words, or named; never misread."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.volume.tree import Host

ACL = "system.posix_acl_access"
RUN = "20261129-071316"
SWAP = (
    "--uid-map",
    "1000:1001:1",
    "--uid-map",
    "1001:1000:1",
    "--gid-map",
    "1000:1001:1",
    "--gid-map",
    "1001:1000:1",
)
PLAIN = ("--uid-map", "1000:101000:2", "--gid-map", "1000:101000:2")
# As format 1 wrote them; only path, device and inodes are put in.
FOLDERS = """\
{"p":[0],"i":[0,DEVICE,TOP],"own":[1000,1000],"common":[1001,1001],"others":[[[1000,1000],["a"]]]}
{"p":[0,"sub"],"i":[0,DEVICE,SUB],"own":[1000,1000],"common":[1001,1001]}
"""
SWAPPED = """\
{"format": 1, "run": "20261129-071316", "state": "changing", "command": "usernsplan fix-volume /srv/vol",
 "trees": [{"path": "PATH", "device": DEVICE, "inode": TOP}],
 "targets": {
  "uids": {"source": [[1000, 1001, 1], [1001, 1000, 1]], "source_first": true, "keep": false},
  "gids": {"source": [[1000, 1001, 1], [1001, 1000, 1]], "source_first": true, "keep": false},
  "root": null, "owner": null},
 "seen": 1795936396503802855, "stage": 2, "end": null,
 "staging": [[[1000, 3000000000, 2]], [[1000, 3000000000, 2]]],
 "cross_mounts": false, "container": null, "mode": "shift", "outside": [], "formerly": {"/srv/vol": ["", "", ""]},
 "whole": false, "tops": [], "undone": null, "failed": [], "retried": null, "special": false}
"""
SHIFTED = """\
{"format": 1, "run": "20261129-071316", "state": "changing", "command": "usernsplan fix-volume /srv/vol",
 "trees": [{"path": "PATH", "device": DEVICE, "inode": TOP}],
 "targets": {
  "uids": {"source": [[1000, 101000, 2]], "source_first": true, "keep": false},
  "gids": {"source": [[1000, 101000, 2]], "source_first": true, "keep": false},
  "root": null, "owner": null},
 "seen": 1795936397123580871, "stage": 0, "end": null, "staging": null,
 "cross_mounts": false, "container": null, "mode": "shift", "outside": [], "formerly": {"/srv/vol": ["", "", ""]},
 "whole": false, "tops": [], "undone": null, "failed": [], "retried": null, "special": false}
"""
BEFORE = {"": 1000, "a": 1000, "b": 1001, "sub": 1000, "sub/c": 1001}


def volume(host: Host, ids: dict[str, int]) -> None:
    """Make the tree of the fixtures, each entry with this uid and gid."""
    (host.volume / "sub").mkdir()
    for path, number in ids.items():
        place = host.volume / path
        if path and path != "sub":
            place.write_text(path)
        os.chown(place, number, number)


def owners(host: Host) -> dict[str, int]:
    found = {path: os.lstat(host.volume / path) for path in BEFORE}
    assert all(seen.st_uid == seen.st_gid for seen in found.values())
    return {path: seen.st_uid for path, seen in found.items()}


def left(host: Host, state: str, **changed: Any) -> Path:
    """Lay the folder of a run of format 1 there, with some fields changed; where its run.json is."""
    place = host.runs / RUN
    place.mkdir(parents=True)
    top, sub = os.lstat(host.volume), os.lstat(host.volume / "sub")
    folders, numbers = (
        FOLDERS,
        {"DEVICE": top.st_dev, "TOP": top.st_ino, "SUB": sub.st_ino, "PATH": host.volume},
    )
    for word, number in numbers.items():
        folders, state = folders.replace(word, str(number)), state.replace(word, str(number))
    (place / "folders.0").write_text(folders)
    (place / "lock").touch()
    content = {**json.loads(state), **changed}
    (place / "run.json").write_text(json.dumps(content))
    return place / "run.json"


def test_a_disjoint_run_of_version_1_is_finished(host: Host) -> None:
    volume(host, {**BEFORE, "b": 101001})
    left(host, SHIFTED)
    assert "was interrupted; it was finished first" in host.told(*PLAIN)
    assert owners(host) == {path: number + 100000 for path, number in BEFORE.items()}


def test_what_older_versions_noted_one_by_one_is_carried_there_and_back(host: Host) -> None:
    """Up to format 3, each entry that needs care has a list of its own in the logs."""
    volume(host, BEFORE)
    os.link(host.volume / "a", host.volume / "sub/d")
    (host.volume / "b").chmod(0o755)
    os.setxattr(host.volume / "b", ACL, acl(1001))
    place = left(host, SHIFTED, special=True).parent / "folders.0"
    top, sub = map(json.loads, place.read_text().splitlines())
    del top["common"], top["others"]
    top["special"] = [special(host, "a", "a"), [*special(host, "b", "b"), 1, "0" * 64]]
    sub["special"] = [special(host, "d", "sub/d")]
    place.write_text(f"{json.dumps(top)}\n{json.dumps(sub)}\n")

    host.told(*PLAIN)
    assert owners(host) == {path: number + 100000 for path, number in BEFORE.items()}
    assert os.getxattr(host.volume / "b", ACL) == acl(101001)
    host.undo(RUN)
    assert owners(host) == BEFORE
    assert os.getxattr(host.volume / "b", ACL) == acl(1001)


def special(host: Host, name: str, path: str) -> list[Any]:
    """An entry as these versions wrote it."""
    seen, has_acl = os.lstat(host.volume / path), path == "b"
    numbers = [seen.st_dev, seen.st_ino, seen.st_mode, seen.st_nlink, seen.st_ctime_ns]
    return [
        name,
        *numbers,
        seen.st_uid,
        seen.st_gid,
        acl(1001).hex() if has_acl else None,
        None,
        None,
    ]


def acl(uid: int) -> bytes:
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (2, 4, uid), (4, 5, nobody), (0x10, 5, nobody), (0x20, 5, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_an_overlapping_run_of_version_1_in_which_nothing_failed_is_finished(host: Host) -> None:
    # It was killed in its second pass: some wait at staging ids, one is through.
    volume(
        host,
        {**{path: number + 3_000_000_000 - 1000 for path, number in BEFORE.items()}, "b": 1000},
    )
    left(host, SWAPPED)
    host.told(*SWAP)
    assert owners(host) == {path: 2001 - number for path, number in BEFORE.items()}


@pytest.mark.parametrize(
    "changed",
    [{"failed": ["PATH/b"]}, {"retried": ["PATH/b"]}, {"failed": ["x"], "retried": ["x"]}],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--yes",)])
def test_an_overlapping_run_of_version_1_in_which_something_failed_is_refused_and_can_be_undone(
    host: Host, changed: dict[str, list[str]], more: tuple[str, ...]
) -> None:
    staged = {**{path: number + 3_000_000_000 - 1000 for path, number in BEFORE.items()}, "b": 1001}
    volume(host, staged)
    left(host, SWAPPED, **changed)
    said = host.refusal(*SWAP, *more, status=9)
    assert "an older usernsplan began it" in said
    assert f"usernsplan undo {RUN} --root {host.root}" in said
    assert owners(host) == staged
    if not more:
        host.undo(RUN)
        assert owners(host) == BEFORE


def test_a_run_of_a_newer_version_stops_every_run_and_is_named(host: Host) -> None:
    volume(host, BEFORE)
    place = left(host, SHIFTED, format=5)
    for words in (
        ("fix-volume", host.volume, *PLAIN),
        ("fix-volume", host.volume, *PLAIN, "--dry-run"),
        ("undo", RUN),
    ):
        done = host.attempt(*words)
        assert done.returncode == 9, done
        assert f"{place} was written by a newer usernsplan (format 5)" in done.stderr
        assert f"usernsplan undo {RUN} --root {host.root}" in done.stderr
    assert owners(host) == BEFORE


def test_fields_that_are_added_are_no_trouble(host: Host) -> None:
    volume(host, BEFORE)
    place = left(host, SHIFTED, format=2, new_field={"a": 1}, failed=[])
    content = json.loads(place.read_text())
    content["trees"][0]["new"] = 5
    place.write_text(json.dumps(content))
    host.told(*PLAIN)
    assert owners(host) == {path: number + 100000 for path, number in BEFORE.items()}
    now = json.loads(place.read_text())
    assert (now["format"], now["trees"][0]["path"], now["failed"]) == (4, "/srv/vol", [])


@pytest.mark.spread(4)
@pytest.mark.parametrize(
    "raw",
    [
        *(
            "",
            "{",
            "[]",
            "null",
            "7",
            "\udcff",
            '{"format": 1}',
            '{"format": 1, "state": "changing"}',
        ),
        *(
            '{"format": 0, "state": "done"}',
            '{"format": "1", "state": "done"}',
            '{"format": 1, "state": "odd"}',
        ),
        '{"format": 2, "state": "changing", "trees": 5}',
        "[" * 100_000,
    ],
    ids=lambda raw: raw[:30].encode("ascii", "backslashreplace").decode() or "empty",
)
def test_a_damaged_run_is_named_with_its_place_and_never_ignored(host: Host, raw: str) -> None:
    volume(host, BEFORE)
    place = left(host, SHIFTED)
    place.write_bytes(os.fsencode(raw))
    for words in (("fix-volume", host.volume, *PLAIN), ("undo", RUN)):
        done = host.attempt(*words)
        assert done.returncode == 9, done
        assert f"{place} is damaged" in done.stderr
        assert f"mv {place.parent} {host.root}/var/lib/usernsplan/damaged-{RUN}" in done.stderr
    assert owners(host) == BEFORE
    # The remedy works.
    place.parent.rename(host.root / f"var/lib/usernsplan/damaged-{RUN}")
    host.told(*PLAIN)


def test_a_run_that_is_cut_short_is_damaged_at_whatever_byte(host: Host) -> None:
    volume(host, BEFORE)
    place = left(host, SHIFTED)
    whole = place.read_bytes()
    for stop in range(0, len(whole), 97):
        place.write_bytes(whole[:stop])
        assert "is damaged" in host.refusal(*PLAIN, status=9)


def test_a_folder_without_run_json_was_killed_before_anything_was_changed(host: Host) -> None:
    volume(host, BEFORE)
    left(host, SHIFTED).unlink()
    host.told(*PLAIN)
    assert owners(host) == {path: number + 100000 for path, number in BEFORE.items()}
