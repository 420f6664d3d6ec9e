"""Whose a volume is, how it was fixed before, and which ids are the container's: on real file systems."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.command import extents, here, usernsplan
from tests.volume.tree import (
    Host,
    acl_of,
    differences,
    finish,
    folder,
    maps,
    shift,
    simple,
    snapshot,
    write,
)
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger

# shared, DOCKERROOT 2: container root is host id 2, ids from 3 on are themselves.
DOCKERROOT = 2


def owners(top: Path) -> set[tuple[int, int]]:
    return {(inode.uid, inode.gid) for inode in snapshot(top).values()}


def file(path: Path, uid: int, gid: int | None = None, mode: int = 0o644) -> Path:
    finish(write(os.fsencode(path)), uid, uid if gid is None else gid, mode)
    return path


def allocated(host: Host, *words: str) -> dict[str, Any]:
    document = json.loads(here("allocate", *words, "--json", "--root", host.root)[0])
    found: dict[str, Any] = document["allocations"][0]
    return found


def docker(host: Host) -> int:
    """Allocate what Docker makes of DOCKERROOT, whose ids 1 and 2 are two of nobody else; the first of them."""
    found = allocated(host, "--strategy", "shared", "--dockerroot", "2", "app", "--daemon", "app")
    root, filler = found["uid_map"][:2]
    start: int = filler["host"]
    assert [root, filler] == extents((0, 2, 1), (1, start, 2))
    return start


def podman(host: Host) -> None:
    """The same for engines that can leave ids out: there is no container id 1, and no 2."""
    found = allocated(host, "--strategy", "shared", "--dockerroot", "2", "app")
    assert found["uid_map"][:2] == extents((0, 2, 1), (3, 3, 65533))


def ledger_volumes(host: Host) -> dict[str, str]:
    """The volumes that the ledger has, by path: whose each is."""
    return {
        volume.path: volume.name
        for volume in open_ledger(layout_at(str(host.root))).state().volumes
    }


def planned(host: Host, name: str, path: str, mode: str) -> int:
    """With which status a plan of just this volume ends: 0 where nothing is to be done."""
    names = "".join(f"  - name: {one}\n" for one in ("web", "db") if one != name)
    volume = f"  - name: {name}\n    volumes: [{{path: {path}, mode: {mode}}}]\n"
    plan = host.root / "plan.yaml"
    plan.write_text(f"version: 1\nstrategy: per-container\ncontainers:\n{volume}{names}")
    return host.attempt("plan", plan, "--check").returncode


def pasted(host: Host, said: str) -> list[str]:
    """The command of a remedy, as a shell would take it apart, without its first word and the root."""
    line = next(line for line in said.splitlines() if "usernsplan fix-volume" in line)
    words = shlex.split(line[line.index("usernsplan fix-volume") :])
    assert words[-2:] == ["--root", str(host.root)]
    return words[1:-2]


# An id on both sides of the map


def test_an_id_on_both_sides_is_an_old_one_and_comes_back_exactly(volumes: Host) -> None:
    filler = docker(volumes)
    for number in (0, 1, 2, 3, 33):
        file(volumes.volume / f"of-{number}", number)
    finish(os.fsencode(volumes.volume), 0, 0, 0o755)
    before = snapshot(volumes.volume)
    volumes.fix("--mode", "shift")
    found = {path.decode(): inode.uid for path, inode in snapshot(volumes.volume).items()}
    assert found == {".": 2, "of-0": 2, "of-1": filler, "of-2": filler + 1, "of-3": 3, "of-33": 33}
    volumes.fix("--reverse")
    assert differences(snapshot(volumes.volume), before) == []


def test_a_host_id_that_the_container_does_not_have_is_not_container_root(volumes: Host) -> None:
    podman(volumes)
    simple(volumes.volume, 0, 0)
    file(volumes.volume / "of-bin", 2)
    before = snapshot(volumes.volume)
    said = volumes.refusal("--mode", "shift", status=9)
    assert "uid 2" in said
    assert "gid 2" in said
    assert snapshot(volumes.volume) == before
    report = volumes.fix("--mode", "shift", "--unmapped", "keep")
    assert report["kept"] == {"uids": {"2": 1}, "gids": {"2": 1}}


def test_an_acl_that_names_such_an_id_is_refused_and_counted(volumes: Host) -> None:
    podman(volumes)
    simple(volumes.volume, 0, 0)
    acl = acl_of(0o644, {2: 6, 3: 4}, {1: 4, 2: 4})
    finish(write(os.fsencode(volumes.volume) + b"/acl"), 0, 0, 0o644, acl=acl)
    said = volumes.refusal("--mode", "shift", status=9)
    assert "uid 2 " in said
    assert "gid 1 " in said
    assert "gid 2 " in said
    assert volumes.fix("--mode", "shift", "--unmapped", "keep")["kept"] == {
        "uids": {"2": 1},
        "gids": {"1": 1, "2": 1},
    }


def test_in_a_volume_that_was_shifted_it_is_right_already(volumes: Host) -> None:
    podman(volumes)
    simple(volumes.volume, 0, 0)
    volumes.fix("--mode", "shift")
    assert owners(volumes.volume) == {(2, 2)}
    file(volumes.volume / "late", 0)
    # By the ledger, where no journal tells it, and by the journal, where the ledger lost it.
    shutil.rmtree(volumes.runs)
    volumes.fix("--mode", "shift")
    assert owners(volumes.volume) == {(2, 2)}
    volumes.fix("--reverse")
    assert owners(volumes.volume) == {(0, 0)}


def test_the_journal_tells_it_where_the_ledger_has_not_noted_it_yet(volumes: Host) -> None:
    podman(volumes)
    simple(volumes.volume, 0, 0)
    ledger = volumes.root / "var/lib/usernsplan/ledger.sqlite3"
    before = ledger.read_bytes()
    volumes.fix("--mode", "shift")
    # As after a kill between the end of the run and the note.
    ledger.write_bytes(before)
    assert volumes.fix("--mode", "shift")["changed"] is False
    assert owners(volumes.volume) == {(2, 2)}


def test_with_identity_nothing_is_to_be_done(host: Host) -> None:
    allocated(host, "--strategy", "shared", "--identity", "app")
    simple(host.volume, 0, 0)
    file(host.volume / "of-2", 2)
    for words in (("--mode", "shift"), ("--mode", "shift"), ("--reverse",)):
        assert host.fix(*words)["changed"] is False
    assert owners(host.volume) == {(0, 0), (2, 2)}


# Shifted already


def test_an_overlapping_map_whose_journal_was_pruned_is_not_done_twice(volumes: Host) -> None:
    docker(volumes)
    simple(volumes.volume, 0, 0)
    file(volumes.volume / "of-2", 2)
    ledger = volumes.root / "var/lib/usernsplan/ledger.sqlite3"
    was = ledger.read_bytes()
    volumes.fix("--mode", "shift")
    shutil.rmtree(volumes.runs)
    before = snapshot(volumes.volume)
    # The ledger tells it: 2 is container root, not bin.
    assert volumes.fix("--mode", "shift")["changed"] is False
    assert snapshot(volumes.volume) == before
    # What was added is moved, and told where it leaves doubt; a volume that was replaced is refused.
    file(volumes.volume / "of-0", 0)
    doubt = "that is 2 not moved yet, or 0 that was moved already"
    assert doubt in str(volumes.fix("--mode", "shift"))
    (volumes.volume / "of-0").unlink()
    finish(os.fsencode(volumes.volume), 0, 0, 0o755)
    assert doubt in volumes.refusal("--mode", "shift", status=9)
    finish(os.fsencode(volumes.volume), 2, 2, 0o755)
    shutil.rmtree(volumes.runs)
    before = snapshot(volumes.volume)
    # Where the ledger does not tell it, the owners do.
    ledger.write_bytes(was)
    for words in ((), ("--dry-run",)):
        said = volumes.refusal("--mode", "shift", *words, status=9)
        assert "twice" in said
        assert pasted(volumes, said) == [
            "fix-volume",
            "/srv/vol",
            "--container",
            "app",
            "--mode",
            "shift",
            "--again",
        ]
    assert snapshot(volumes.volume) == before
    volumes.fix("--mode", "shift", "--again")
    assert snapshot(volumes.volume) != before


def test_a_run_that_an_older_version_left_is_finished_by_its_own_rule_and_not_done_again(
    volumes: Host,
) -> None:
    filler = docker(volumes)
    for number in (0, 1, 3):
        file(volumes.volume / f"of-{number}", number)
    finish(os.fsencode(volumes.volume), 0, 0, 0o755)
    ledger = volumes.root / "var/lib/usernsplan/ledger.sqlite3"
    was = ledger.read_bytes()
    run = volumes.fix("--mode", "shift")["run"]
    ledger.write_bytes(was)
    # As the older one had it: one pass, and an id on both sides is a new one. It was killed before its last file.
    path = volumes.runs / run / "run.json"
    content = json.loads(path.read_text())
    content |= {
        "state": "changing",
        "stage": 0,
        "staging": None,
        "end": None,
        "whole": False,
        "tops": [],
    }
    for kind in ("uids", "gids"):
        content["targets"][kind]["source_first"] = False
    path.write_text(json.dumps(content))
    os.chown(volumes.volume / "of-0", 0, 0)
    for _ in range(2):
        volumes.fix("--mode", "shift")
        found = {path.decode(): inode.uid for path, inode in snapshot(volumes.volume).items()}
        assert found == {".": 2, "of-0": 2, "of-1": filler, "of-3": 3}
    assert volumes.run_names() == [run]


def test_an_explicit_overlapping_map_whose_journal_was_pruned_is_refused(host: Host) -> None:
    simple(host.volume, 0, 0)
    file(host.volume / "of-33", 33)
    words = ("--uid-map", "0:1000:5000", "--gid-map", "0:1000:5000")
    host.fix(*words)
    shutil.rmtree(host.runs)
    assert owners(host.volume) == {(1000, 1000), (1033, 1033)}
    assert "--again" in host.refusal(*words, status=9)
    # One file that is not of the target is a sign that it was not done.
    file(host.volume / "new", 5)
    host.fix(*words, "--dry-run")


def test_a_disjoint_map_is_right_already(host: Host) -> None:
    host.allocate("web")
    simple(host.volume, 33, 33)
    host.fix("--mode", "shift")
    shutil.rmtree(host.runs)
    report = host.fix("--mode", "shift")
    assert report["changed"] is False
    assert report["counts"]["right"] == report["counts"]["entries"] == 4


def test_owners_of_another_range_are_told_with_the_command_that_carries_them(host: Host) -> None:
    web, db = host.allocate("web", "db")
    volume = host.root / "srv/my vol"
    simple(volume, db, db)
    file(volume / "of-33", db + 33)
    said = host.refusal("--container", "web", "--mode", "shift", status=9, path=volume)
    words = pasted(host, said)
    assert words == ["fix-volume", "/srv/my vol", "--container", "web", "--from", "db"]
    here(*words, "--root", host.root)
    assert owners(volume) == {(web, web), (web + 33, web + 33)}


def test_owners_of_a_released_range_are_told_with_the_command_that_carries_them(host: Host) -> None:
    _, old = host.allocate("web", "old")
    usernsplan("release", "old", "--yes", "--root", host.root)
    simple(host.volume, old, old)
    words = pasted(host, host.refusal("--container", "web", "--mode", "shift", status=9))
    here(*words, "--root", host.root)
    assert owners(host.volume) == {(host.starts["web"],) * 2}


# Another container's volume


@pytest.mark.spread(5)
@pytest.mark.parametrize("path", ["/srv/vol", "/srv/vol/its", "/srv/vol/its/inner"])
@pytest.mark.parametrize(
    "words",
    [
        ("--container", "web"),
        ("--container", "web", "--mode", "shift"),
        ("--container", "web", "--reverse"),
        ("--uid-map", "0:1000:5", "--gid-map", "0:1000:5"),
        ("--container", "web", "--dry-run"),
    ],
    ids=" ".join,
)
def test_another_container_s_volume_its_parent_and_its_child_are_refused(
    host: Host, path: str, words: tuple[str, ...]
) -> None:
    host.allocate("web", "db")
    simple(host.volume, 33, 33)
    simple(host.volume / "its/inner", 33, 33)
    host.fix("--container", "db", "--mode", "shift", path="/srv/vol/its")
    before = snapshot(host.root / "srv")
    said = host.refusal(*words, status=9, path=path)
    assert "belongs to 'db'" in said
    assert "/srv/vol/its" in said
    assert "--take" in said
    assert snapshot(host.root / "srv") == before


def test_a_volume_that_was_taken_is_the_other_container_s_with_all_that_is_in_it(
    host: Host,
) -> None:
    web, _ = host.allocate("web", "db")
    simple(host.volume, 33, 33)
    simple(host.volume / "inner", 33, 33)
    host.fix("--container", "db", path="/srv/vol/inner")
    run = host.fix("--container", "web", "--take")["run"]
    assert owners(host.volume) == {(web, web)}
    assert ledger_volumes(host) == {"/srv/vol": "web"}
    assert host.fix("--dry-run")["container"] == "web"
    assert planned(host, "web", "/srv/vol", "own") == 0
    assert planned(host, "db", "/srv/vol/inner", "own") != 0
    host.undo(run)
    assert ledger_volumes(host) == {"/srv/vol/inner": "db"}


def test_a_part_that_was_taken_leaves_the_rest_with_its_container(host: Host) -> None:
    web, db = host.allocate("web", "db")
    simple(host.volume, 33, 33)
    simple(host.volume / "inner", 33, 33)
    host.fix("--container", "db", "--mode", "shift")
    host.fix("--container", "web", "--from", "db", path="/srv/vol/inner")
    assert owners(host.volume / "inner") == {(web + 33, web + 33)}
    assert ledger_volumes(host) == {"/srv/vol": "db", "/srv/vol/inner": "web"}
    # Now the outer one holds another's: it is not taken back in passing.
    assert "/srv/vol/inner" in host.refusal("--container", "db", status=9)
    assert owners(host.volume) == {(web + 33, web + 33), (db + 33, db + 33)}


def test_a_volume_that_was_taken_by_a_map_is_nobody_s(host: Host) -> None:
    _, db = host.allocate("web", "db")
    simple(host.volume, 33, 33)
    host.fix("--container", "db", "--mode", "shift")
    words = ("--uid-map", f"0:{db}:100", "--gid-map", f"0:{db}:100", "--reverse")
    host.refusal(*words, status=9)
    host.fix(*words, "--take")
    assert owners(host.volume) == {(33, 33)}
    assert ledger_volumes(host) == {}


def test_a_plan_file_takes_no_volume_either(host: Host) -> None:
    host.allocate("web", "db")
    simple(host.volume, 33, 33)
    host.fix("--container", "db", "--mode", "shift")
    plan = host.root / "plan.yaml"
    plan.write_text(
        "version: 1\nstrategy: per-container\ncontainers:\n"
        "  - name: web\n    volumes: [{path: /srv/vol, mode: shift}]\n  - name: db\n"
    )
    before = snapshot(host.volume)
    done = host.attempt("apply", plan, "--fix-volumes", "--yes")
    assert done.returncode != 0
    assert "belongs to 'db'" in done.stderr + done.stdout
    assert snapshot(host.volume) == before


def test_reverse_without_a_container_is_that_of_the_recorded_one(host: Host) -> None:
    host.allocate("web", "db")
    simple(host.volume, 33, 33)
    host.fix("--container", "db", "--mode", "shift")
    assert host.fix("--reverse")["container"] == "db"
    assert owners(host.volume) == {(33, 33)}
    # Once it is the host's again, nobody is in the way.
    host.fix("--container", "web")


# As it was fixed before


def test_without_options_what_was_shifted_stays_shifted(volumes: Host) -> None:
    [start] = volumes.allocate("web")
    simple(volumes.volume, 33, 33)
    simple(volumes.volume / "inner", 7, 7)
    volumes.fix("--mode", "shift")
    for path, number in ((None, 44), ("/srv/vol/inner", 55)):
        file((volumes.volume / "inner" if path else volumes.volume) / "late", number)
        report = volumes.fix(path=path)
        assert report["mode"] == "shift"
    assert owners(volumes.volume) == {(start + n, start + n) for n in (33, 7, 44, 55)}


def test_without_options_what_is_one_user_s_stays_that_user_s(host: Host) -> None:
    [start] = host.allocate("web")
    simple(host.volume, 5, 5)
    host.fix("--user", "33:44")
    file(host.volume / "late", 5)
    assert host.fix()["mode"] == "own"
    assert owners(host.volume) == {(start + 33, start + 44)}
    # What was reversed has no record, and gets the usual owner.
    host.fix("--reverse")
    host.fix()
    assert owners(host.volume) == {(start, start)}


def test_a_folder_that_holds_what_was_shifted_is_not_flattened_unasked(host: Host) -> None:
    [start] = host.allocate("web")
    simple(host.volume, 33, 33)
    simple(host.volume / "inner", 7, 7)
    host.fix("--mode", "shift", path="/srv/vol/inner")
    before = snapshot(host.volume)
    for words in ((), ("--user", "33")):
        assert "/srv/vol/inner" in host.refusal(*words, status=9)
    assert snapshot(host.volume) == before
    host.fix("--mode", "shift")
    assert owners(host.volume) == {(start + 33, start + 33), (start + 7, start + 7)}


def test_volumes_that_were_fixed_in_different_ways_are_not_one_run(host: Host) -> None:
    host.allocate("web")
    simple(host.volume, 33, 33)
    simple(host.root / "srv/two", 33, 33)
    host.fix("--mode", "shift")
    host.fix("--user", "5:5", path="/srv/two")
    said = host.refusal("/srv/two", status=2)
    assert "/srv/vol (shift), /srv/two (own 5:5)" in said


# A map and a user; kept ids of an ACL; links


def test_a_user_of_a_typed_map_owns_everything(volumes: Host) -> None:
    simple(volumes.volume, 5, 6)
    words = ("--uid-map", "0:1000:50", "--gid-map", "0:2000:50", "--user", "33:44")
    assert volumes.fix(*words)["mode"] == "own"
    assert owners(volumes.volume) == {(1033, 2044)}
    assert volumes.fix(*words)["changed"] is False


@pytest.mark.parametrize("overlapping", [False, True])
def test_kept_ids_of_an_acl_are_counted(volumes: Host, overlapping: bool) -> None:
    simple(volumes.volume, 5, 5)
    inner = folder(os.fsencode(volumes.volume) + b"/folder")
    named = acl_of(0o755, {5: 7, 700: 4}, {6: 5, 800: 4})
    finish(write(inner + b"/of-700"), 700, 5)
    finish(inner, 5, 5, 0o755, acl=named, default_acl=acl_of(0o755, {700: 7}, {}))
    words = maps(shift(50 if overlapping else 1000, 100))
    refused = volumes.refusal(*words, status=9)
    assert "uid 700        3 entries" in refused
    report = volumes.fix(*words, "--unmapped", "keep")
    assert report["kept"] == {"uids": {"700": 3}, "gids": {"800": 1}}
    start = 50 if overlapping else 1000
    found = snapshot(volumes.volume)[b"folder"]
    assert {number for tag, _, number in found.acl if tag == 2} == {start + 5, 700}
    assert {number for tag, _, number in found.default_acl if tag == 2} == {700}


def test_the_ids_of_an_acl_that_become_one_are_refused_in_an_overlapping_map_too(
    volumes: Host,
) -> None:
    simple(volumes.volume, 5, 5)
    path = write(os.fsencode(volumes.volume) + b"/acl")
    # 700 is kept, and 5 becomes it.
    finish(path, 5, 5, 0o644, acl=acl_of(0o644, {5: 6, 700: 4}, {}))
    before = snapshot(volumes.volume)
    words = (
        "--uid-map",
        "5:700:1",
        "--uid-map",
        "700:701:1",
        "--uid-map",
        "6:6:1",
        "--gid-map",
        "0:1:50",
    )
    volumes.fix(*words, "--dry-run")
    # 700 moves on to 701: no two are one. Without that, they are.
    said = volumes.refusal(
        *words[:2], "--uid-map", "701:5:1", *words[-2:], "--unmapped", "keep", status=9
    )
    assert "two entries for user 700" in said
    assert snapshot(volumes.volume) == before


def test_own_leaves_the_ids_of_an_acl_and_counts_none(host: Host) -> None:
    host.allocate("web", size=100)
    path = write(os.fsencode(host.volume) + b"/acl")
    finish(path, 5, 5, 0o644, acl=acl_of(0o644, {700: 6}, {}))
    assert host.fix("--unmapped", "keep")["kept"] == {"uids": {}, "gids": {}}


def test_links_into_a_sibling_are_solved_by_naming_both(volumes: Host) -> None:
    [start] = volumes.allocate("web")
    simple(volumes.volume, 0, 0)
    simple(volumes.root / "srv/two", 0, 0)
    os.link(volumes.volume / "file-0", volumes.root / "srv/two/link")
    said = volumes.refusal(status=9)
    assert "name both folders in one command" in said
    volumes.fix("/srv/two")
    assert owners(volumes.volume) | owners(volumes.root / "srv/two") == {(start, start)}


# Back from a map that has ids of the host


def test_what_was_never_given_is_not_taken_from_the_host(volumes: Host) -> None:
    podman(volumes)
    simple(volumes.volume, DOCKERROOT, DOCKERROOT)
    said = volumes.refusal("--reverse", status=9)
    assert "the ledger does not show that" in said
    assert owners(volumes.volume) == {(DOCKERROOT, DOCKERROOT)}
    # Whoever knows it better has the command.
    here(*pasted(volumes, said), "--root", volumes.root)
    assert owners(volumes.volume) == {(0, 0)}


def test_a_range_of_its_own_comes_back_without_a_record(host: Host) -> None:
    [start] = host.allocate("web")
    simple(host.volume, start, start)
    host.fix("--reverse")
    assert owners(host.volume) == {(0, 0)}
