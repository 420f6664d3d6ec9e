"""A damaged or lost ledger is reported with a remedy; no command uses it; it can be rebuilt."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.command import files_of, here, needs_root
from usernsplan.ledger import codec
from usernsplan.model import Actor, LedgerChange

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLACE = "var/lib/usernsplan/ledger.sqlite3"
WEB, DB = "usernsplan-web:589824:65536\n", "usernsplan-db:655360:65536\n"


def host(root: Path) -> Path:
    (root / "etc").mkdir()
    here("allocate", "--strategy", "per-container", "web", "db", "old", "--root", root)
    here("release", "old", "--root", root)
    return root / PLACE


def changed(ledger: Path, *statements: str) -> None:
    with closing(sqlite3.connect(ledger)) as db, db:
        for statement in statements:
            db.execute(statement)


def _sql(statement: str) -> Callable[[Path], object]:
    return lambda path: changed(path, statement)


NOTHING = codec.change_text(LedgerChange())


def changed_intent(ledger: Path, change: str = NOTHING, files: str = "[]") -> None:
    with closing(sqlite3.connect(ledger)) as db, db:
        row = ("", codec.actor_text(Actor(0)), change, files)
        db.execute("INSERT INTO intent VALUES (1, ?, ?, ?, ?)", row)


DEEP = "UPDATE allocation SET uid_map = '" + "[" * 100_000 + "' WHERE name = 'web'"
DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "cut": lambda path: os.truncate(path, 4096),
    "no database": lambda path: path.write_text("x" * 5000),
    "no version": _sql("PRAGMA user_version = 0"),
    "no table": _sql("DROP TABLE quarantine"),
    "no column": _sql("ALTER TABLE volume DROP COLUMN mode"),
    "bytes for a name": _sql("UPDATE allocation SET name = x'ff00' WHERE name = 'web'"),
    "bytes for a date": _sql("UPDATE allocation SET since = x'00'"),
    "a number for an owner": _sql("UPDATE allocation SET owner = x'31'"),
    "a line in an owner": _sql(
        "UPDATE allocation SET owner = 'a:0:99' || char(10) || 'b' WHERE name = 'web'"
    ),
    "deep JSON": _sql(DEEP),
    "an infinite map": _sql("UPDATE allocation SET uid_map = '[[0, 1e999, 1]]'"),
    "half an id": _sql("UPDATE allocation SET gid_map = '[[0, 589824.5, 65536]]'"),
    "no numbers": _sql("UPDATE quarantine SET held_start = 'x'"),
    "half a range": _sql("UPDATE allocation SET held_count = NULL"),
    "history": _sql("UPDATE event SET changed = '[[1, 2]]'"),
    "an actor": _sql(
        """UPDATE event SET actor = '{"uid": "x", "sudo_uid": null, "login_uid": null}'"""
    ),
    "an intent": partial(changed_intent, change='{"add": 1e999}'),
    "an intent on another file": partial(
        changed_intent, files='[["/etc/shadow", null, "eJwDAAAAAAE="]]'
    ),
}
READERS = (
    ("list",),
    ("history",),
    ("check",),
    ("whois", "589824"),
    ("allocate", "more", "--strategy", "per-container"),
)


@pytest.mark.spread(6)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger_is_named_with_a_remedy_and_nothing_is_done_by_it(
    tmp_path: Path, damage: str
) -> None:
    ledger = host(tmp_path)
    DAMAGES[damage](ledger)
    before = files_of(tmp_path)
    told = 0
    for words in READERS:
        out, said = here(*words, "--root", tmp_path, status=None)
        if "ledger rebuild" in out + said:
            told += 1
            assert str(ledger) in out + said
            assert "backup" in out + said
    assert told, "nobody says it"
    # A damaged history does not stop a command; all other damage does.
    if damage not in {"history", "an actor"}:
        assert [file[2] for file in before.values()] == [
            file[2] for file in files_of(tmp_path).values()
        ]
    shown = json.loads(here("ledger", "rebuild", "--dry-run", "--json", "--root", tmp_path)[0])
    assert [a["name"] for a in shown["allocations"]][:2] == ["web", "db"]


def test_a_rebuilt_ledger_holds_what_is_sure_and_names_the_rest(tmp_path: Path) -> None:
    ledger = host(tmp_path)
    listed = json.loads(here("list", "--json", "--root", tmp_path)[0])
    with (
        (tmp_path / "etc/subuid").open("a") as subuid,
        (tmp_path / "etc/subgid").open("a") as subgid,
    ):
        for file in (subuid, subgid):
            file.write("alice:100000:65536\nusernsplan-one:1000000000:1\nroot:589824:65536\n")
        subuid.write("usernsplan-half:1000000:65536\n")
    changed(ledger, "UPDATE allocation SET owner = x'00' WHERE name = 'web'")
    damaged = ledger.read_bytes()
    before = files_of(tmp_path)
    # With --dry-run, and without a terminal, it is only shown.
    out, _ = here("ledger", "rebuild", "--dry-run", "--root", tmp_path)
    assert files_of(tmp_path) == before
    _, said = here("ledger", "rebuild", "--root", tmp_path, status=2)
    assert "use --yes" in said
    assert files_of(tmp_path) == before
    for fact in (
        "usernsplan-one: its lines do not show",
        "usernsplan-half",
        "alice",
        "root's lines for web",
        "history",
    ):
        assert fact in out
    assert "allocate one --owner usernsplan-one --start 1000000000" in out

    done = json.loads(here("ledger", "rebuild", "--yes", "--json", "--root", tmp_path)[0])
    assert ledger.stat().st_mode & 0o7777 == 0o600
    [kept] = ledger.parent.glob("ledger.sqlite3.damaged-*")
    assert (str(kept), kept.read_bytes()) == (done["damaged"]["path"], damaged)
    assert {path.name for path in ledger.parent.iterdir()} == {ledger.name, kept.name}
    again = json.loads(here("list", "--json", "--root", tmp_path)[0])
    for now, was in zip(again["allocations"], listed["allocations"], strict=True):
        assert {**now, "since": ""} == {**was, "since": ""}
    # The damaged ledger still showed it: no container may get a quarantined range.
    assert [q["name"] for q in again["quarantined"]] == ["old"]
    assert "ledger rebuild --yes" in here("history", "--root", tmp_path)[0]
    assert {n: f for n, f in files_of(tmp_path).items() if n.startswith("etc/sub")} == {
        n: f for n, f in before.items() if n.startswith("etc/sub")
    }
    _, said = here("ledger", "rebuild", "--yes", "--root", tmp_path, status=9)
    assert "can be read" in said
    # The command that made the rest adopts it, as the remedy says.
    here("release", "web", "db", "--root", tmp_path)
    here("allocate", "one", "--strategy", "single-uid", "--start", "1000000000", "--root", tmp_path)


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (("shared", "--dockerroot", "400"), ["app"]),
        (("shared", "--identity"), ["app"]),
        (("per-container", "--size", "1000"), ["app"]),
        (("per-container", "--size", "1"), []),
        (("single-uid",), []),
        (("single-uid", "--block", "1"), []),
        (("shared", "--max", "100000"), []),
    ],
)
def test_of_each_strategy_what_its_lines_tell(
    tmp_path: Path, words: tuple[str, ...], lines: list[str]
) -> None:
    (tmp_path / "etc").mkdir()
    here("allocate", "app", "--strategy", *words, "--root", tmp_path)
    listed = json.loads(here("list", "--json", "--root", tmp_path)[0])["allocations"]
    (tmp_path / PLACE).unlink()
    done = json.loads(here("ledger", "rebuild", "--yes", "--json", "--root", tmp_path)[0])
    assert done["damaged"] is None
    again = json.loads(here("list", "--json", "--root", tmp_path)[0])["allocations"]
    assert [a["name"] for a in again] == lines
    if lines:
        assert [{**a, "since": ""} for a in again] == [{**a, "since": ""} for a in listed]


@pytest.mark.parametrize("size", ["1000", "65536", "70000"])
def test_lines_of_roots_are_adopted_again_by_the_command_that_check_names(
    tmp_path: Path, size: str
) -> None:
    (tmp_path / "etc").mkdir()
    words = ("allocate", "--strategy", "per-container", "box", "--size", size, "--engine", "lxc")
    here(*words, "--root", tmp_path)
    lines = (tmp_path / "etc/subuid").read_text()
    (tmp_path / PLACE).unlink()
    here("ledger", "rebuild", "--yes", "--root", tmp_path)

    found = json.loads(here("check", "--json", "--root", tmp_path, status=1)[0])["findings"]
    [hint] = {one["hint"] for one in found if one["code"] == "USN002"}
    [command] = re.findall("'usernsplan (.*?)'", hint)
    here(*shlex.split(command))
    found = json.loads(here("check", "--json", "--root", tmp_path, status=None)[0])["findings"]
    assert {one["code"] for one in found} <= {"USN024"}
    assert (tmp_path / "etc/subuid").read_text() == lines


def test_after_a_rebuild_adopt_is_the_way_back_for_what_was_adopted(tmp_path: Path) -> None:
    """As its words say: all but slices that no configuration shows."""
    for name, text in {
        "etc/passwd": "root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n",
        "etc/subuid": "alice:100000:65536\nroot:200000:65536\ncore:300000:500\ncore:400000:500\n",
        "etc/subgid": "root:200000:65536\ncore:300000:500\ncore:400000:500\nalice:100000:65536\n",
        "var/lib/lxc/gpu/config": "lxc.idmap = u 0 200000 9\nlxc.idmap = g 0 200000 9\n",
        "etc/containers/systemd/db.container": "[Container]\nUIDMap=0:7000000:1000\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    here("adopt", "--all", "--root", tmp_path)
    # The history says that nothing was allocated.
    history, _ = here("history", "--root", tmp_path)
    assert "adopted db as it stands: uids 7000000-7000999, gids 7000000-7000999" in history
    assert "adopted gpu as it stands: uids 200000-200008, gids 200000-200008" in history
    assert "allocated" not in history
    here("allocate", "cut", "--within", "alice", "--size", "1000", "--root", tmp_path)
    here("allocate", "ours", "--root", tmp_path)
    history, _ = here("history", "--root", tmp_path)
    assert "allocated cut within alice: uids 164536-165535" in history
    assert "without lines" not in history

    def listed() -> dict[str, object]:
        found = json.loads(here("list", "--json", "--root", tmp_path)[0])["allocations"]
        return {a["name"]: {**a, "since": ""} for a in found}

    was = listed()
    (tmp_path / PLACE).unlink()
    out, _ = here("ledger", "rebuild", "--yes", "--root", tmp_path)
    assert listed().keys() == {"ours"}
    assert "quarantined ranges, reservations, slices" in out
    for words in ("adopt", "adopt NAME"):
        assert f"'usernsplan {words} --root {tmp_path}'" in out
    here("adopt", "--all", "--root", tmp_path)
    here(
        "allocate",
        "cut",
        "--within",
        "alice",
        "--size",
        "1000",
        "--start",
        "164536",
        "--root",
        tmp_path,
    )
    assert listed() == was


def test_a_line_of_ours_that_the_ledger_lost_is_adopted_by_the_command_of_check(
    tmp_path: Path,
) -> None:
    (tmp_path / "etc").mkdir()
    words = ("--pass", "g:104:107", "--root", tmp_path)
    here("allocate", "box", "--size", "70000", *words)
    ledger = tmp_path / PLACE
    kept = ledger.read_bytes()
    here("allocate", "web", "--size", "300", *words)
    ledger.write_bytes(kept)
    found = json.loads(here("check", "--json", "--root", tmp_path, status=None)[0])["findings"]
    hints = {one["hint"] for one in found if one["code"] == "USN053"}
    [command] = re.findall("'usernsplan (.*?)'", " ".join(hints))
    here(*shlex.split(command))
    [_, web] = json.loads(here("list", "--json", "--root", tmp_path)[0])["allocations"]
    assert web["name"] == "web"
    assert web["passes"] == [{"kind": "gid", "container": 107, "host": 104, "count": 1}]

    # After a useradd the lines are sorted. Then nothing shows which container id has gid 104.
    ledger.write_bytes(kept)
    subgid = tmp_path / "etc/subgid"
    lines = sorted(subgid.read_text().splitlines(True), key=lambda line: int(line.split(":")[1]))
    subgid.write_text("".join(lines))
    _, told = here("adopt", "web", "--root", tmp_path, status=9)
    assert "a useradd may have sorted them" in told


@needs_root
def test_runs_tell_whose_the_volumes_are(tmp_path: Path) -> None:
    ledger = host(tmp_path)
    for name in ("shifted", "owned", "taken", "undone", "reversed", "gone"):
        (tmp_path / "srv" / name / "sub").mkdir(parents=True)
    fix = ("fix-volume", "--jobs", "1", "--root", tmp_path)
    here(*fix, "/srv/shifted", "--container", "web", "--mode", "shift")
    here(*fix, "/srv/owned", "--container", "db", "--user", "33:34")
    here(*fix, "/srv/taken", "--container", "db")
    here(*fix, "/srv/taken", "--container", "web", "--take")
    run = json.loads(here(*fix, "/srv/undone", "--container", "web", "--json")[0])["run"]
    here("undo", run, "--root", tmp_path)
    here(*fix, "/srv/reversed", "--container", "web", "--mode", "shift")
    here(*fix, "/srv/reversed", "--container", "web", "--mode", "shift", "--reverse")
    here(
        "allocate", "late", "--strategy", "per-container", "--owner", "somebody", "--root", tmp_path
    )
    here(*fix, "/srv/gone", "--container", "late", "--mode", "shift")

    def volumes() -> list[tuple[str, ...]]:
        found = json.loads(here("list", "--json", "--root", tmp_path)[0])["volumes"]
        return [(v["path"], v["name"], v["mode"], v["user"]) for v in found]

    was = volumes()
    assert len(was) >= 4
    ledger.write_bytes(bytes(8192))
    here("ledger", "rebuild", "--yes", "--root", tmp_path)
    assert volumes() == [v for v in was if v[0] != "/srv/reversed"]
    # A run shows the container of lines whose owner usernsplan did not name. Without its lines, its
    # ids are quarantined.
    assert (
        json.loads(here("show", "late", "--json", "--root", tmp_path)[0])["allocations"][0]["owner"]
        == "somebody"
    )
    # Nothing proves that we wrote these, so release leaves them, except with --with-lines.
    for words, goes in (((), False), (("--with-lines",), True)):
        assert (
            "-somebody:" in here("release", "late", "--dry-run", *words, "--root", tmp_path)[0]
        ) == goes
    assert "-usernsplan-web:" in here("release", "web", "--dry-run", "--root", tmp_path)[0]
    for name in ("subuid", "subgid"):
        text = (tmp_path / "etc" / name).read_text()
        (tmp_path / "etc" / name).write_text(
            "".join(x for x in text.splitlines(keepends=True) if "somebody" not in x)
        )
    ledger.unlink()
    done = json.loads(here("ledger", "rebuild", "--yes", "--json", "--root", tmp_path)[0])
    assert [q["name"] for q in done["quarantined"]] == ["late"]
    assert here("check", "--root", tmp_path, status=None)[1] == ""
