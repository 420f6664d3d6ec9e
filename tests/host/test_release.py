"""release removes only our lines, and frees no range that files carry."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

import usernsplan
from tests.command import files_of, here, ids, needs_root
from usernsplan import ReleaseRequest
from usernsplan.errors import RefusedError
from usernsplan.layout import LEDGER, SUBGID, SUBUID

ALICE = "alice:100000:65536\n"
USERS = "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/bash\n"
GROUPS = "root:x:0:\nalice:x:1000:\n"
WEB = ("allocate", "--strategy", "per-container", "web")
PLAN = "version: 1\nstrategy: per-container\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host on which useradd gave alice a range that podman uses."""
    for name, text in (("passwd", USERS), ("group", GROUPS), ("subuid", ALICE), ("subgid", ALICE)):
        put(tmp_path, f"/etc/{name}", text)
    return tmp_path


def put(root: Path, name: str, text: str) -> Path:
    path = Path(f"{root}{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def lines(root: Path) -> tuple[str, str]:
    uids, gids = (Path(f"{root}{name}").read_text() for name in (SUBUID, SUBGID))
    return uids, gids


def ran(root: Path, *words: str | Path, status: int = 0) -> tuple[dict[str, Any], str]:
    """Run a command with --json. Return its document and its messages."""
    out, err = here(*words, "--json", "--root", root, status=status)
    return json.loads(out) if out else {}, err


def listed(root: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """The allocated names, and the quarantined ranges with their first ids."""
    found, _ = ran(root, "list")
    return [a["name"] for a in found["allocations"]], [
        (q["name"], q["range"]["start"]) for q in found["quarantined"]
    ]


def adopt(root: Path) -> None:
    here(
        "allocate",
        "alice",
        "--strategy",
        "per-container",
        "--owner",
        "alice",
        "--start",
        "100000",
        "--root",
        root,
    )
    assert lines(root) == (ALICE, ALICE)


# Which lines are removed


def test_an_adopted_line_stays_when_its_allocation_is_released(root: Path) -> None:
    adopt(root)
    found, _ = ran(root, "release", "alice")
    assert lines(root) == (ALICE, ALICE)
    assert (found["changed"], found["changes"]) == (True, [])
    said = [f for f in found["findings"] if f["code"] == "USN111"]
    assert [f["message"].split(": ")[0] for f in said] == [
        f"{root}/etc/subuid:1",
        f"{root}/etc/subgid:1",
    ]
    assert "--with-lines" in said[0]["hint"]
    assert f"usermod --prefix {root} --del-subuids 100000-165535 alice" in said[0]["hint"]
    # The line itself protects the range; check finds nothing to complain about.
    assert listed(root) == ([], [])
    assert "USN010" not in here("check", "--root", root, status=None)[0]
    adopt(root)


def test_with_lines_takes_an_adopted_line_out_and_keeps_its_range_back(root: Path) -> None:
    adopt(root)
    here("release", "alice", "--with-lines", "--root", root)
    assert lines(root) == ("", "")
    assert listed(root) == ([], [("alice", 100000)])


def test_only_what_was_written_goes_where_half_of_it_stood(root: Path) -> None:
    line = "bob:655360:65536\n"
    put(root, SUBUID, ALICE + line)
    words = ("--owner", "bob", "--start", "655360", "--root", root)
    here("allocate", "box", "--strategy", "per-container", *words)
    assert lines(root) == (ALICE + line, ALICE + line)
    here("release", "box", "--root", root)
    assert lines(root) == (ALICE + line, ALICE)


@pytest.mark.parametrize("later", [False, True], ids=["at once", "when LXC came"])
def test_a_line_of_roots_that_stood_stays_and_one_that_we_wrote_goes(
    root: Path, later: bool
) -> None:
    roots = "root:589824:65536\n"
    put(root, SUBUID, roots)
    put(root, SUBGID, "")
    box = ("allocate", "box", "--strategy", "per-container")
    if later:
        put(root, SUBUID, "")
        here(*box, "--root", root)
        put(root, SUBUID, "usernsplan-box:589824:65536\n" + roots)
        here(*box, "--engine", "lxc", "--root", root)
    else:
        here(*box, "--engine", "lxc", "--owner", "root", "--start", "589824", "--root", root)
    assert "root:589824:65536\n" in lines(root)[1]
    here("release", "box", "--root", root)
    assert lines(root) == (roots, "")


def test_a_line_of_roots_that_another_allocation_wrote_goes_with_the_last_of_them(
    root: Path,
) -> None:
    words = ("--strategy", "shared", "--dockerroot", "400", "--owner", "root", "--root", root)
    before = lines(root)
    here("allocate", "one", *words)
    here("allocate", "two", *words)
    here("release", "one", "--root", root)
    assert lines(root)[0].count("root:") > 0
    here("release", "two", "--root", root)
    assert lines(root) == before


def test_apply_prune_leaves_an_adopted_line_too(root: Path) -> None:
    adopt(root)
    here(*WEB, "--root", root)
    plan = put(root, "/plan.yaml", PLAN + "containers: []\n")
    found, _ = ran(root, "apply", plan, "--prune", "--yes")
    assert lines(root) == (ALICE, ALICE)
    assert {f["code"] for f in found["findings"]} >= {"USN111"}
    assert listed(root) == ([], [("web", 589824)])


def test_docker_keeps_its_remap_where_it_keeps_its_lines(root: Path) -> None:
    line = "dockremap:165536:65536\n"
    put(root, "/etc/passwd", USERS + "dockremap:x:990:990::/:/bin/false\n")
    put(root, "/etc/group", GROUPS + "dockremap:x:990:\n")
    put(root, SUBUID, line)
    put(root, SUBGID, line)
    daemon = put(root, "/etc/docker/daemon.json", '{"userns-remap": "default"}')
    here(
        "allocate",
        "--strategy",
        "per-container",
        "--start",
        "165536",
        "--replace-remap",
        "--root",
        root,
    )
    here("release", "default", "--with-lines", "--root", root, status=9)
    here("release", "default", "--root", root)
    assert (lines(root), daemon.read_text()) == ((line, line), '{"userns-remap": "default"}')


def test_a_line_that_was_lost_and_put_back_is_still_not_ours(root: Path) -> None:
    adopt(root)
    put(root, SUBUID, "")
    here("check", "--fix", "--yes", "--root", root, status=None)
    assert lines(root) == (ALICE, ALICE)
    here("release", "alice", "--root", root)
    assert lines(root) == (ALICE, ALICE)


def older(root: Path) -> None:
    """Make the ledger one of version 4, which did not record which lines were adopted."""
    db = sqlite3.connect(f"{root}{LEDGER}")
    db.executescript(
        """
        CREATE TABLE history AS SELECT at, actor, command, changed FROM event ORDER BY number;
        ALTER TABLE allocation DROP COLUMN event;
        ALTER TABLE allocation DROP COLUMN extra_owners;
        ALTER TABLE allocation DROP COLUMN found;
        ALTER TABLE volume DROP COLUMN event;
        ALTER TABLE quarantine DROP COLUMN event;
        ALTER TABLE quarantine DROP COLUMN was;
        DROP TABLE event;
        DROP TABLE mount;
        DROP TABLE intent;
        CREATE TABLE intent (only INTEGER PRIMARY KEY, content TEXT);
        CREATE TABLE also (name TEXT, owner TEXT);
        PRAGMA user_version = 4;
        """
    )
    db.close()


@pytest.mark.parametrize("names", [("web", "alice"), ("alice", "web")], ids=" first, then ".join)
def test_of_an_older_ledger_only_what_its_history_proves_goes(
    root: Path, names: tuple[str, ...]
) -> None:
    adopt(root)
    here(*WEB, "--root", root)
    older(root)
    for name in names:
        here("release", name, "--root", root)
    assert lines(root) == (ALICE, ALICE)


def test_a_line_is_not_taken_out_where_the_history_of_an_older_ledger_is_lost(root: Path) -> None:
    here(*WEB, "--root", root)
    older(root)
    db = sqlite3.connect(f"{root}{LEDGER}")
    db.execute("UPDATE history SET changed = '[]'")
    db.commit()
    db.close()
    before = lines(root)
    found, _ = ran(root, "release", "web")
    assert lines(root) == before
    assert "USN111" in {f["code"] for f in found["findings"]}


# Volumes of a released container


def volume(root: Path, name: str = "/srv/web") -> Path:
    """A volume of web with a file of container uid 33."""
    file = put(root, f"{name}/index.html", "hello")
    os.chown(file, 33, 33)
    here("fix-volume", name, "--container", "web", "--mode", "shift", "--root", root)
    assert file.lstat().st_uid == 589824 + 33
    return file


@pytest.mark.parametrize(
    "words", [(), ("--start", "589824")], ids=["anywhere", "with its first id"]
)
def test_the_same_name_gets_its_released_range_back(root: Path, words: tuple[str, ...]) -> None:
    here(*WEB, "db", "--root", root)
    before = lines(root)
    here("release", "web", "db", "--root", root)
    found, _ = ran(root, *WEB, *words)
    assert [a["reserved_range"] for a in found["allocations"]] == [ids(589824, 65536)]
    assert [f["message"] for f in found["findings"] if f["code"] == "USN131"] == [
        "'web' has 589824-655359 again, its range before the release"
    ]
    assert listed(root) == (["web"], [("db", 655360)])
    here("allocate", "new", "db", "--strategy", "per-container", "--root", root)
    assert listed(root) == (["db", "new", "web"], [])
    assert set(before[0].splitlines()) < set(lines(root)[0].splitlines())
    assert json.loads(here("history", "--json", "--root", root)[0])["entries"][-2]["lines"][-1] == (
        "web has 589824-655359 again"
    )


@needs_root
def test_with_its_range_a_name_has_its_volumes_back(root: Path) -> None:
    here(*WEB, "--root", root)
    file = volume(root)
    here("release", "web", "--root", root)
    here(*WEB, "--root", root)
    [known] = ran(root, "list")[0]["volumes"]
    assert (known["name"], known["right"]) == ("web", True)
    assert file.lstat().st_uid == 589824 + 33
    here("fix-volume", "/srv/web", "--container", "web", "--mode", "shift", "--root", root)
    assert file.lstat().st_uid == 589824 + 33


@needs_root
def test_the_command_that_brings_it_back_can_be_pasted_after_a_rename_and_a_remap(
    root: Path,
) -> None:
    here(
        "allocate",
        "old",
        "--strategy",
        "per-container",
        "--pass",
        "u:4242",
        "--engine",
        "lxc",
        "--root",
        root,
    )
    file = put(root, "/srv/web/index.html", "hello")
    os.chown(file, 33, 33)
    here("fix-volume", "/srv/web", "--container", "old", "--mode", "shift", "--root", root)
    here("rename", "old", "new", "--root", root)
    here("remap", "new", "--size", "131072", "--yes", "--root", root)
    before = lines(root)
    [hint] = [
        f["hint"] for f in ran(root, "release", "new")[0]["findings"] if f["code"] == "USN133"
    ]
    words = shlex.split(hint.partition(": usernsplan ")[2])
    here(*words)
    assert [sorted(text.splitlines()) for text in lines(root)] == [
        sorted(text.splitlines()) for text in before
    ]
    [known] = ran(root, "list")[0]["volumes"]
    assert (known["name"], known["right"]) == ("new", True)
    assert file.lstat().st_uid == 589824 + 33


@needs_root
@pytest.mark.parametrize("is_old", [False, True])
def test_a_plan_file_brings_a_pruned_container_back_as_it_was(root: Path, is_old: bool) -> None:
    text = PLAN + "containers:\n  - name: web\n    volumes: [{path: /srv/web, mode: shift}]\n"
    plan, empty = put(root, "/plan.yaml", text), put(root, "/empty.yaml", PLAN + "containers: []\n")
    os.chown(put(root, "/srv/web/index.html", "hello"), 33, 33)
    here("apply", plan, "--yes", "--fix-volumes", "--root", root)
    before = lines(root)
    here("apply", empty, "--prune", "--yes", "--root", root)
    assert listed(root) == ([], [("web", 589824)])
    if is_old:
        older(root)
    assert (len(ran(root, "plan", plan)[0]["steps"]) == 1) is not is_old
    here("apply", plan, "--yes", "--fix-volumes", "--root", root)
    assert (listed(root), lines(root)) == ((["web"], []), before)
    assert (root / "srv/web/index.html").lstat().st_uid == 589824 + 33
    assert ran(root, "plan", plan)[0]["pending"] is False


def test_a_range_that_is_somebody_elses_by_now_does_not_come_back_and_that_is_said(
    root: Path,
) -> None:
    here(*WEB, "--root", root)
    here("release", "web", "--root", root)
    put(root, SUBUID, ALICE + "bob:615536:10\n")
    found, _ = ran(root, *WEB)
    assert [a["reserved_range"] for a in found["allocations"]] == [ids(655360, 65536)]
    [said] = [f for f in found["findings"] if f["code"] == "USN132"]
    assert "615536-615545 is now granted by a line of" in said["message"]
    assert f"usernsplan find-owned 589824-655359 / --root {root}" in said["hint"]
    assert listed(root) == (["web"], [("web", 589824)])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--size", "1000"), "the request is for 1000 ids"),
        (("--owner", "carl"), "its owner was usernsplan-web"),
        (("--start", "720896"), "the request is for other ids"),
        (("--pool", "765536-965536"), "the request is for other ids"),
    ],
)
def test_by_other_words_a_name_gets_another_range_and_that_is_said(
    root: Path, words: tuple[str, ...], why: str
) -> None:
    here(*WEB, "--root", root)
    here("release", "web", "--root", root)
    found, _ = ran(root, *WEB, *words)
    assert found["allocations"][0]["reserved_range"]["start"] > 589824
    assert [why in f["message"] for f in found["findings"] if f["code"] == "USN132"] == [True]
    assert listed(root) == (["web"], [("web", 589824)])


def test_another_name_does_not_get_it_by_its_first_id(root: Path) -> None:
    here(*WEB, "--root", root)
    here("release", "web", "--root", root)
    before = files_of(root)
    here(
        "allocate",
        "new",
        "--strategy",
        "per-container",
        "--start",
        "589824",
        "--root",
        root,
        status=9,
    )
    assert files_of(root) == before


def test_an_adopted_range_that_was_released_with_its_lines_comes_back_where_it_was(
    root: Path,
) -> None:
    adopt(root)
    here("release", "alice", "--with-lines", "--root", root)
    here("allocate", "alice", "--strategy", "per-container", "--owner", "alice", "--root", root)
    assert lines(root) == (ALICE, ALICE)
    # This time usernsplan wrote it.
    here("release", "alice", "--root", root)
    assert lines(root) == ("", "")


# The output of release


@needs_root
def test_release_says_what_it_released_where_the_volumes_are_and_how_to_find_files(
    root: Path,
) -> None:
    here(*WEB, "db", "--root", root)
    volume(root, "/srv/a web")
    out, err = here("release", "web", "--root", root)
    assert "Released: web. Quarantined until forgotten: 589824-655359 (web)." in out
    assert "the volumes of 'web' stay as they are, with its ids: /srv/a web" in err
    find, forget = (
        line.partition("  #")[0].strip() for line in out.partition("Next:\n")[2].splitlines()
    )
    assert find == f"usernsplan find-owned web / '/srv/a web' --root {root}"
    assert forget == f"usernsplan release --forget web --root {root}"
    found, _ = here(*shlex.split(find)[1:])
    assert found.splitlines() == [f"{root}/srv/a web", f"{root}/srv/a web/index.html"]
    out, _ = here("release", "db", "--dry-run", "--root", root)
    assert "Would be released: db." in out
    assert listed(root) == (["db"], [("web", 589824)])


@needs_root
def test_apply_prune_says_it_too(root: Path) -> None:
    here(*WEB, "--root", root)
    volume(root)
    plan = put(root, "/plan.yaml", PLAN + "containers: []\n")
    found, _ = ran(root, "apply", plan, "--prune", "--yes")
    assert (
        f"usernsplan find-owned web / /srv/web --root {root}  # lists the files that carry its ids"
        in (found["next_steps"])
    )
    assert "USN133" in {f["code"] for f in found["findings"]}


# Forgetting


def refused(root: Path, *words: str | Path) -> str:
    """The error of a --forget that changes nothing."""
    before = files_of(root)
    _, said = here("release", "--forget", *words, "--root", root, status=9)
    assert files_of(root) == before
    return said


def chown_all(top: Path, number: int) -> None:
    for path in (top, *top.rglob("*")):
        os.chown(path, number, number, follow_symlinks=False)


@needs_root
def test_a_range_is_not_forgotten_while_a_volume_carries_it(root: Path) -> None:
    here(*WEB, "--root", root)
    file = volume(root)
    here("release", "web", "--root", root)
    said = refused(root, "web")
    assert f"{root}/srv/web: 'web' (589824-655359): {file.parent}, {file}\n" in said
    assert f"usernsplan find-owned 589824-655359 {root}/srv/web --root {root}" in said
    # The same with --unseen and in a preview.
    refused(root, "web", "--unseen")
    refused(root, "web", "--dry-run")
    chown_all(root / "srv/web", 0)
    found, _ = ran(root, "release", "--forget", "web", "--dry-run")
    assert found["freed"] == [{"name": "web", "range": ids(589824, 65536)}]
    assert listed(root) == ([], [("web", 589824)])
    out, _ = here("release", "--forget", "web", "--root", root)
    assert "Forgotten: web (589824-655359)." in out
    assert listed(root) == ([], [])
    assert ran(root, "list")[0]["volumes"] == []


@needs_root
@pytest.mark.parametrize("what", ["group", "ACL", "symlink", "another's volume", "a single file"])
@pytest.mark.usefixtures("volume_step")
def test_whatever_carries_it_and_in_whosever_volume(root: Path, what: str) -> None:
    here(*WEB, "db", "--root", root)
    file = volume(root)
    single = put(root, "/srv/one", "x")
    os.chown(single, 1, 1)
    here("fix-volume", "/srv/one", "--container", "web", "--mode", "shift", "--root", root)
    here("release", "web", "--root", root)
    chown_all(root / "srv/web", 0)
    os.chown(single, 0, 0)
    place = file
    if what == "group":
        os.chown(file, -1, 589824 + 7)
    elif what == "ACL":
        entries = ((1, 6, -1), (2, 4, 589824 + 5), (4, 4, -1), (16, 4, -1), (32, 4, -1))
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
        os.setxattr(file, "system.posix_acl_access", acl)
    elif what == "symlink":
        place = file.with_name("link")
        place.symlink_to("nowhere")
        os.chown(place, 589824, 0, follow_symlinks=False)
    elif what == "another's volume":
        os.chown(put(root, "/srv/db/file", "x"), 1, 1)
        here("fix-volume", "/srv/db", "--container", "db", "--mode", "shift", "--root", root)
        place = root / "srv/db/file"
        os.chown(place, 589824 + 9, 0)
    else:
        place = single
        os.chown(single, 589824, 0)
    assert str(place) in refused(root, "web")


@needs_root
@pytest.mark.usefixtures("volume_step")
def test_folders_that_are_named_are_looked_at_too(root: Path) -> None:
    here(*WEB, "--root", root)
    here("release", "web", "--root", root)
    one, two = put(root, "/data/one/file", "x"), put(root, "/home/two/file", "x")
    os.chown(one, 589824, 0)
    os.chown(two, 0, 655359)
    said = refused(root, "web", "--scan", "/data", "--scan", root / "home")
    assert str(one) in said
    assert str(two) in said
    os.chown(one, 0, 0)
    assert str(two) in refused(root, "web", "--scan", "/data", "--scan", "/home")
    here("release", "--forget", "web", "--scan", "/nowhere", "--root", root, status=2)
    here("release", "web", "--scan", "/data", "--root", root, status=2)
    os.chown(two, 0, 0)
    here("release", "--forget", "web", "--scan", "/data", "--scan", "/home", "--root", root)
    assert listed(root) == ([], [])


@needs_root
@pytest.mark.parametrize("what", ["gone", "moved behind a symlink", "a mount in it"])
@pytest.mark.usefixtures("volume_step")
def test_what_cannot_be_looked_at_may_carry_it(root: Path, what: str) -> None:
    here(*WEB, "--root", root)
    top = volume(root).parent
    here("release", "web", "--root", root)
    chown_all(top, 0)
    mount = top / "mount"
    if what == "a mount in it":
        mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mount], check=True)
        place = mount
    else:
        place = top
        top.rename(root / "elsewhere")
        if what != "gone":
            top.symlink_to(root / "elsewhere")
    try:
        assert str(place) in refused(root, "web")
        _, said = here("release", "--forget", "web", "--unseen", "--root", root)
        assert f"not looked at: {place}" in said
        assert listed(root) == ([], [])
    finally:
        if mount.is_mount():
            subprocess.run(["umount", mount], check=True)


def test_of_several_released_ranges_one_is_forgotten(root: Path) -> None:
    here(*WEB, "--root", root)
    here("release", "web", "--root", root)
    here(*WEB, "--size", "1000", "--root", root)
    here("release", "web", "--root", root)
    both = [("web", 589824), ("web", 655360)]
    assert listed(root) == ([], both)
    before = files_of(root)
    _, said = here("release", "--forget", "web", "--root", root, status=2)
    assert "589824-655359" in said
    assert "655360-656359" in said
    assert f"usernsplan release --forget web --range 589824-655359 --root {root}" in said
    here("release", "--forget", "web", "--range", "589824-589825", "--root", root, status=1)
    here("release", "--forget", "web", "web2", "--range", "589824-655359", "--root", root, status=2)
    here("release", "--forget", "web", "--range", "x", "--root", root, status=2)
    assert files_of(root) == before
    here("release", "--forget", "web", "--range", "589824-655359", "--root", root)
    assert listed(root) == ([], both[1:])
    here("release", "--forget", "web", "--root", root)
    assert listed(root) == ([], [])
    changed = [
        e["lines"] for e in json.loads(here("history", "--json", "--root", root)[0])["entries"][-2:]
    ]
    assert changed == [
        ["forgot 589824-655359, quarantined for web"],
        ["forgot the quarantined range of web"],
    ]


@needs_root
def test_the_library_looks_too(root: Path) -> None:
    here(*WEB, "--root", root)
    file = volume(root)
    usernsplan.release(ReleaseRequest(("web",)), str(root))
    before = files_of(root)
    with pytest.raises(RefusedError, match="still carry"):
        usernsplan.release(ReleaseRequest(("web",), forget=True), str(root))
    assert files_of(root) == before
    chown_all(file.parent, 0)
    os.chown(put(root, "/data/file", ""), 589824, 0)
    with pytest.raises(RefusedError, match="/data/file"):
        usernsplan.release(ReleaseRequest(("web",), forget=True), str(root), scan=["/data"])
    usernsplan.release(ReleaseRequest(("web",), forget=True), str(root))
    assert listed(root) == ([], [])
