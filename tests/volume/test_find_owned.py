"""find-owned on real file systems, beside find, getfacl and getfattr of the same tree."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import PROGRAM, json_of, open_to_others, usernsplan
from usernsplan.errors import UsernsplanError
from usernsplan.ids import IdRange, IdSet
from usernsplan.volume import forked, owned, search

if TYPE_CHECKING:
    from tests.volume.tree import Host
    from usernsplan.fixing import Place

FIRST, LAST = 3_000_000, 3_065_535
RANGE = f"{FIRST}-{LAST}"


def capability(rootid: int) -> bytes:
    """Version 3, cap_chown permitted: linux/capability.h."""
    return b"\x01\x00\x00\x03" + b"\x01\x00\x00\x00" + bytes(12) + rootid.to_bytes(4, "little")


@pytest.fixture
def tree(volumes: Host) -> Path:
    """A tree in which some carry ids of the range, each in another way, and some nearly do."""
    top = volumes.root / "srv/vol"
    for number in range(20):
        folder = top / f"d{number}"
        folder.mkdir()
        for name in ("plain", "owner", "group", "acl", "last", "beyond"):
            (folder / name).touch()
        os.chown(folder / "owner", FIRST + number, 0)
        os.chown(folder / "group", 5, FIRST)
        os.chown(folder / "last", LAST, LAST)
        os.chown(folder / "beyond", FIRST - 1, LAST + 1)
        os.symlink("/etc", folder / "link")
        os.lchown(folder / "link", FIRST, 0)
        os.symlink(top / "d0", folder / "to-a-folder")
        os.mkfifo(folder / "pipe")
        os.chown(folder / "pipe", FIRST, FIRST)
        (folder / os.fsdecode(b"odd\n\xff name")).touch()
        os.chown(folder / os.fsdecode(b"odd\n\xff name"), FIRST, 0)
        subprocess.run(
            ["setfacl", "-m", f"u:{FIRST + 7}:r,g:{FIRST - 1}:r", folder / "acl"], check=True
        )
    subprocess.run(["setfacl", "-m", f"d:g:{LAST}:r", top / "d3"], check=True)
    (top / "capable").touch()
    os.setxattr(top / "capable", "security.capability", capability(FIRST))
    (top / "other").touch()
    os.setxattr(top / "other", "security.capability", capability(FIRST - 1))
    os.link(top / "d0/owner", top / "second-name")
    os.chown(top / "d5", FIRST, 0)
    return top


def by_find(top: Path) -> set[bytes]:
    """What find, getfacl and getfattr say carries the range."""
    is_in = f"( -uid +{FIRST - 1} -uid -{LAST + 1} -o -gid +{FIRST - 1} -gid -{LAST + 1} )"
    found = set(
        subprocess.check_output(["find", top, "-xdev", *is_in.split(), "-print0"]).split(b"\0")[:-1]
    )
    listed = subprocess.check_output(
        ["getfacl", "-RPnp", "--skip-base", top], text=True, errors="surrogateescape"
    )
    for block in listed.split("\n\n"):
        path = next((line[8:] for line in block.splitlines() if line.startswith("# file: ")), "")
        ids = [
            line.removeprefix("default:").split(":")[1]
            for line in block.splitlines()
            if ":" in line and line[0] != "#"
        ]
        if any(one.isdigit() and FIRST <= int(one) <= LAST for one in ids):
            found.add(path.encode())
    found.add(os.fsencode(top / "capable"))
    return found


def paths(*words: str | Path) -> set[bytes]:
    done = subprocess.run(
        [*PROGRAM, "find-owned", *map(str, words), "--null"], capture_output=True, check=True
    )
    listed = done.stdout.split(b"\0")
    assert listed.pop() == b""
    assert len(set(listed)) == len(listed)
    return set(listed)


def test_the_list_is_that_of_find_and_getfacl(tree: Path) -> None:
    found = paths(RANGE, tree)
    assert found == by_find(tree)
    assert os.fsencode(tree / "second-name") in found
    assert os.fsencode(tree / "other") not in found
    assert os.fsencode(tree / "d3") in found


def test_text_and_json_tell_the_same_one_a_line(tree: Path) -> None:
    text = usernsplan("find-owned", RANGE, tree).stdout.splitlines()
    document = json_of("find-owned", RANGE, tree)
    assert len(text) == len(document["entries"]) == len(paths(RANGE, tree))
    assert sum(line.startswith("'") and "\\n" in line for line in text) == 20
    assert document["missed"] == []
    [capable] = [one for one in document["entries"] if one["path"].endswith("/capable")]
    assert capable["roles"] == [{"role": "capability", "id": FIRST}]
    assert sum("path_b64" in one for one in document["entries"]) == 20


def test_the_count_is_by_role_and_by_id(tree: Path) -> None:
    document = json_of("find-owned", RANGE, tree, "--count")
    # Of each folder: owner, last, link, pipe and the odd name; of d5 itself; the second name of one.
    assert document["by_role"] == {
        "owner": 5 * 20 + 1 + 1,
        "group": 3 * 20,
        "ACL user": 20,
        "ACL group": 1,
        "capability": 1,
    }
    assert document["count"] == len(paths(RANGE, tree)) == 7 * 20 + 4
    rows: list[dict[str, Any]] = document["by_id"]
    assert {(row["role"], row["id"]): row["entries"] for row in rows}["owner", LAST] == 20
    assert str(document["count"]) in usernsplan("find-owned", RANGE, tree, "--count").stdout


def test_one_id_and_a_container_with_its_container_ids(volumes: Host) -> None:
    usernsplan("allocate", "--strategy", "per-container", "web", "old", "--root", volumes.root)
    usernsplan("release", "old", "--root", volumes.root)
    top = volumes.root / "srv/vol"
    for name, owner in (("a", 589824), ("b", 589857), ("c", 655360), ("d", 1)):
        (top / name).touch()
        os.chown(top / name, owner, owner)
    words = ("--root", volumes.root)
    assert paths("web", "/srv", *words) == {os.fsencode(top / "a"), os.fsencode(top / "b")}
    assert paths("old", "/srv/vol", *words) == {os.fsencode(top / "c")}
    assert paths("589857", "/srv/vol", *words) == {os.fsencode(top / "b")}
    rows = json_of("find-owned", "web", "/srv", "--count", *words)["by_id"]
    assert {(row["role"], row["container_id"], row["entries"]) for row in rows} == {
        ("owner", 0, 1),
        ("owner", 33, 1),
        ("group", 0, 1),
        ("group", 33, 1),
    }
    assert usernsplan("find-owned", "nobody", "/srv", *words, status=1).stderr
    usernsplan("find-owned", "9-5", "/srv", *words, status=2)
    usernsplan("find-owned", "web", "/nowhere", *words, status=2)
    usernsplan("find-owned", "web", "/srv", "--null", "--json", *words, status=2)


def test_mounts_are_entered_only_when_that_is_said(host: Host) -> None:
    top = host.root / "srv/vol"
    inside, file = top / "inside", top / "file"
    inside.mkdir()
    file.touch()
    other = host.root / "srv/outside/file"
    other.touch()
    os.chown(other, FIRST, 0)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", inside], check=True)
    subprocess.run(["mount", "--bind", other, file], check=True)
    try:
        (inside / "there").touch()
        os.chown(inside / "there", FIRST, 0)
        assert paths(RANGE, top) == set()
        for words in ((), ("--count",)):
            assert json_of("find-owned", RANGE, top, *words)["left_out"] == [
                {"path": str(p)} for p in (file, inside)
            ]
        assert "--cross-mounts" in usernsplan("find-owned", RANGE, top, "--count").stderr
        # Named itself, it is not left out; and what one walk meets is told once.
        assert json_of("find-owned", RANGE, top, inside)["left_out"] == [{"path": str(file)}]
        assert json_of("find-owned", RANGE, top, inside, "--count")["count"] == 1
        assert json_of("find-owned", RANGE, top, inside, "--count", "--cross-mounts")["count"] == 2
        assert paths(RANGE, top, "--cross-mounts") == {
            os.fsencode(inside / "there"),
            os.fsencode(file),
        }
    finally:
        subprocess.run(["umount", inside, file], check=True)


def test_a_scan_that_leaves_a_mount_out_calls_no_range_free(host: Host) -> None:
    usernsplan("allocate", "--strategy", "per-container", "gone", "--root", host.root)
    usernsplan("release", "gone", "--root", host.root)
    start = json_of("list", "--root", host.root)["quarantined"][0]["range"]["start"]
    inside = host.root / "srv/vol/inside"
    inside.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", inside], check=True)
    try:

        def told(*folders: str) -> list[str]:
            words = [word for folder in folders for word in ("--scan", folder)]
            found = json_of("check", *words, "--root", host.root)["findings"]
            return [one["code"] for one in found if one["code"] in {"USN056", "USN057"}]

        assert told("/srv") == []
        # Named too, it is looked at, though it lies in the other folder.
        assert told("/srv", "/srv/vol/inside") == ["USN057"]
        (inside / "there").touch()
        os.chown(inside / "there", start + 33, 0)
        assert told("/srv", "/srv/vol/inside") == ["USN056"]
    finally:
        subprocess.run(["umount", inside], check=True)


def test_what_is_named_twice_is_told_once(tree: Path) -> None:
    once = json_of("find-owned", RANGE, tree, "--count")
    assert json_of("find-owned", RANGE, tree, tree / "d0", tree, "--count") == once
    assert json_of("find-owned", RANGE, tree / "d0", tree, "--count") == once
    assert once["left_out"] == []


def test_for_a_single_file_there_is_whois(tree: Path) -> None:
    assert "whois --file" in usernsplan("find-owned", RANGE, tree / "other", status=2).stderr


def test_a_deep_tree_of_long_names_is_walked_to_its_end(host: Host) -> None:
    top = host.root / "srv/vol"
    here = os.getcwd()
    try:
        os.chdir(top)
        for _ in range(40):
            os.mkdir("n" * 200)
            os.chdir("n" * 200)
        os.chown(".", FIRST, 0)
    finally:
        os.chdir(here)
    assert json_of("find-owned", RANGE, top, "--count")["count"] == 1


def test_a_reader_that_leaves_stops_it_quietly(tree: Path) -> None:
    script = '"$@" | head -n 1'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script, "sh", *PROGRAM, "find-owned", RANGE, tree],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_what_cannot_be_looked_at_is_named_and_the_rest_is_told(host: Host) -> None:
    top = host.root / "srv/vol"
    top.chmod(0o755)
    for name, mode in (("open", 0o755), ("closed", 0o700)):
        (top / name).mkdir()
        (top / name).chmod(mode)
        (top / name / "file").touch()
        os.chown(top / name / "file", FIRST, 0)
    code = (
        "import os, sys\n"
        "from usernsplan.cli import commands, find_owned, main, refusal\n"
        "from usernsplan.report import owned\n"
        "from usernsplan.ledger import sqlite\n"
        "os.setgroups([]); os.setresgid(9, 9, 9); os.setresuid(9, 9, 9)\n"
        f"sys.argv = ['usernsplan', 'find-owned', '{RANGE}', sys.argv[1], '--json']\n"
        "main()"
    )
    with open_to_others(top):
        done = subprocess.run(
            [PROGRAM[0], "-c", code, top], capture_output=True, text=True, check=False
        )
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert [one["path"] for one in document["entries"]] == [f"{top}/open/file"]
    assert [one["path"] for one in document["missed"]] == [f"{top}/closed"]
    assert "denied" in document["missed"][0]["reason"]


def test_the_audits_count_tells_which_ranges_files_carry(tree: Path) -> None:
    ranges = IdSet((IdRange(FIRST, 1), IdRange(FIRST + 7, 1), IdRange(FIRST + 500, 100)))
    found = search.count([str(tree), str(tree / "nowhere")], ranges)
    # Of each folder: group, link, pipe, the odd name; d0/owner by two names, d5, the capable one.
    # And of each folder the ACL, and d7/owner.
    assert [found.among(IdSet((one,))).entries for one in ranges] == [4 * 20 + 4, 20 + 1, 0]
    assert found.by_role["ACL user"] == {FIRST + 7: 20}
    assert found.by_role["capability"] == {FIRST: 1}
    assert found.example.startswith(str(tree))
    assert [place.path for place in found.missed] == [str(tree / "nowhere")]


def test_the_folder_itself_is_told_and_a_symlink_is_refused(host: Host) -> None:
    top = host.root / "srv/vol"
    os.chown(top, FIRST, 0)
    (host.root / "srv/link").symlink_to(top)
    assert paths(RANGE, top) == {os.fsencode(top)}
    usernsplan("find-owned", RANGE, host.root / "srv/link", status=9)
    usernsplan("find-owned", RANGE, top / "nothing", status=2)


def test_a_tree_that_changes_meanwhile_disturbs_nothing(host: Host) -> None:
    top = host.root / "srv/vol"
    storm = "while :; do mkdir -p a/b/c; touch a/b/c/d; mv a e 2>/dev/null; rm -rf e a; done"
    with subprocess.Popen(["sh", "-c", storm], cwd=top, stderr=subprocess.DEVNULL) as writer:
        try:
            for _ in range(200):
                assert search.count([str(top)], IdSet((IdRange(FIRST, 10),))).missed == []
        finally:
            writer.kill()


# Workers


def random_tree(top: Path, seed: int) -> None:
    """Folders in folders, some of them long, and owners of which about half are in the range."""
    rolls = random.Random(seed)  # noqa: S311 - not for secrets
    folders = [top]
    for number in range(60):
        folder = rolls.choice(folders[-6:]) / f"d{number}"
        folder.mkdir()
        folders.append(folder)
        for name in range(rolls.choice((0, 1, 3, 40))):
            (folder / f"{name}").touch()
            of = (rolls.choice((0, FIRST - 1, FIRST, FIRST + number)) for _ in "ug")
            os.chown(folder / f"{name}", *of)
        if not number % 7:
            os.chown(folder, LAST, LAST + 1)
        if not number % 5 and (folder / "0").exists():
            os.link(folder / "0", rolls.choice(folders) / f"again{number}")
            subprocess.run(["setfacl", "-m", f"u:{LAST}:r", folder / "0"], check=True)


@pytest.mark.parametrize("seed", range(3))
def test_workers_find_what_find_finds_in_the_order_of_one_process(
    host: Host, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    top = host.root / "srv/vol"
    random_tree(top, seed)
    ids = IdSet((IdRange(FIRST, LAST - FIRST + 1),))
    missed: list[Place] = []

    def found() -> list[tuple[str, tuple[tuple[str, int], ...]]]:
        pieces = search.find(str(top), str(top), owned.Wanted(ids, ids), miss=missed.append)
        return [(path, one.roles) for one in pieces for path in one.paths()]

    alone = found()
    assert {os.fsencode(path) for path, _ in alone} == by_find(top) - {os.fsencode(top / "capable")}
    # Each worker tells each folder at once, gives away half of the others, and waits for its turn.
    monkeypatch.setattr(forked.Board, "asked", lambda *_: True)
    monkeypatch.setattr(search, "ALONE", 3)
    monkeypatch.setattr(search, "_TOLD", 1)
    monkeypatch.setattr(search, "_HELD", 1)
    monkeypatch.setattr(forked, "default_jobs", lambda: 3)
    assert found() == alone
    assert missed == []


def test_workers_end_with_their_reader_and_the_death_of_one_is_an_error(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = str(host.root / "srv/vol")
    random_tree(Path(top), 4)
    ids = IdSet((IdRange(FIRST, 1),))
    started: list[int] = []
    fork = os.fork

    def noted() -> int:
        started.append(fork())
        return started[-1]

    monkeypatch.setattr(os, "fork", noted)
    monkeypatch.setattr(search, "ALONE", 0)
    monkeypatch.setattr(forked, "default_jobs", lambda: 2)
    missed: list[Place] = []
    found = search.find(top, "/shown", owned.Wanted(ids, ids), miss=missed.append)
    assert next(next(found).paths()).startswith("/shown/")
    del found
    assert (len(started), missed) == (2, [])
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(search._Search, "_serve", killed)
    with pytest.raises(UsernsplanError, match="was killed"):
        list(search.find(top, top, owned.Wanted(ids, ids), miss=missed.append))
    # For whoever counts, a part that nobody looked at is a place that was missed.
    assert [one.path for one in search.count([top], ids).missed] == [top]


def test_without_a_second_process_the_first_does_it_all(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> int:
        raise BlockingIOError

    monkeypatch.setattr(search, "ALONE", 1)
    monkeypatch.setattr(os, "fork", refused)
    assert search.count([str(tree)], IdSet((IdRange(FIRST + 7, 1),))).entries == 21
