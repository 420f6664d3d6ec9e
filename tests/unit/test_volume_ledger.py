"""Whose a volume is: what is noted, what the ledger holds of it, and a ledger from before there were volumes."""

from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.command import here
from tests.unit.states import per_container, state
from usernsplan import HostState, IdRange, Layout, apply
from usernsplan.errors import LedgerError
from usernsplan.host.files import layout_at
from usernsplan.layout import LEDGER, SUBGID, SUBUID
from usernsplan.ledger import open_ledger
from usernsplan.model import (
    Actor,
    Change,
    HistoryEntry,
    Intent,
    LedgerChange,
    LedgerState,
    Quarantined,
    ReleaseRequest,
    Volume,
)
from usernsplan.planner.recovery import as_mended
from usernsplan.planner.volumes import after, record

WEB, DB = per_container("web", 524288), per_container("db", 589824)
NOW = "2026-11-22T05:30:48Z"
ODD = "/srv/\udcff\n'ü"


def volume(path: str, name: str = "web", mode: str = "own", since: str = "") -> Volume:
    return Volume(path, name, mode, since)


def host(*volumes: Volume) -> HostState:
    found = state(allocations=[WEB, DB])
    return replace(found, ledger=replace(found.ledger, volumes=volumes))


def known(ledger: LedgerState) -> list[tuple[str, str, str]]:
    return [(v.path, v.name, v.mode) for v in ledger.volumes]


# What is noted


def test_a_volume_that_was_fixed_is_noted_for_its_container() -> None:
    plan = record(host(), [volume("/a"), volume("/b", "db", "shift")])
    assert plan.kind == "volume"
    assert plan.changed
    assert plan.ledger == LedgerChange(volumes=(volume("/a"), volume("/b", "db", "shift")))


@pytest.mark.parametrize(
    ("noted", "fixed", "changed"),
    [
        (volume("/a", since=NOW), volume("/a"), False),
        (volume("/a", since=NOW), volume("/a", mode="shift"), True),
        (volume("/a", "db", since=NOW), volume("/a"), True),
        (volume("/a/b", since=NOW), volume("/a"), True),
        (volume("/b", since=NOW), volume("/a"), True),
    ],
)
def test_what_is_noted_already_is_no_change(noted: Volume, fixed: Volume, changed: bool) -> None:
    plan = record(host(noted), [fixed])
    assert plan.changed is changed
    assert plan.ledger.volumes == ((fixed,) if changed else ())


def test_a_container_that_was_released_meanwhile_gets_no_volume() -> None:
    assert record(host(), [volume("/a", "gone")]).changed is False
    assert record(host(), [volume("/a", "gone"), volume("/b")]).ledger.volumes == (volume("/b"),)


def test_a_volume_that_is_no_container_s_any_more_is_taken_out_where_it_was_noted() -> None:
    assert record(host(volume("/a")), [], ["/a", "/b"]).ledger == LedgerChange(no_volumes=("/a",))
    assert record(host(), [], ["/a"]).changed is False


def test_what_the_ledger_holds_after_a_change() -> None:
    before = [volume("/a"), volume("/b", "db"), volume("/c"), volume("/d", "gone")]
    change = LedgerChange(
        volumes=(volume("/b", "web", "shift"), volume("/0")), no_volumes=("/c",), forget=("gone",)
    )
    assert after(before, change, ("web", "db")) == (
        volume("/0"),
        volume("/a"),
        volume("/b", "web", "shift"),
    )
    assert after(before, LedgerChange(), ()) == tuple(before)
    released = LedgerChange(remove=("web",), quarantine=(("web", IdRange(1, 1)),))
    assert after(before, released, ("db",)) == tuple(before)


def test_a_forgotten_name_takes_its_volumes_with_it_unless_a_new_container_has_it() -> None:
    before = [volume("/a"), volume("/b", "db")]
    assert after(before, LedgerChange(forget=("web",)), ("db",)) == (volume("/b", "db"),)
    assert after(before, LedgerChange(forget=("web",)), ("db", "web")) == tuple(before)
    assert after(before, LedgerChange(forget=("web", "db")), ("web",)) == (volume("/a"),)
    assert after(before, LedgerChange(forget=("web",), volumes=(volume("/c"),)), ("db",)) == (
        *(volume("/b", "db"), volume("/c")),
    )


# On disk


def changed(layout: Layout, change: LedgerChange, *changes: Change) -> LedgerState:
    """The ledger after a change, as another process reads it; and the same as the change says."""
    ledger = open_ledger(layout)
    before = ledger.state()
    ledger.begin(Intent("usernsplan", Actor(0), change, changes))
    pending = open_ledger(layout).pending()
    assert pending is not None
    assert pending.ledger == change
    ledger.complete(HistoryEntry(NOW, Actor(0), "usernsplan", ("something",)))
    found = open_ledger(layout).state()
    assert ledger.state() == found
    names = [a.name for a in found.allocations]
    assert {(v.path, v.name, v.mode) for v in after(before.volumes, change, names)} == set(
        known(found)
    )
    return found


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return layout_at(str(tmp_path))


def test_volumes_stay_until_something_else_is_said_of_them(layout: Layout) -> None:
    found = changed(
        layout, LedgerChange(add=(WEB, DB), volumes=(volume("/b"), volume(ODD), volume("/a", "db")))
    )
    assert known(found) == [("/a", "db", "own"), ("/b", "web", "own"), (ODD, "web", "own")]
    assert {v.since for v in found.volumes} == {NOW}
    found = changed(layout, LedgerChange(volumes=(volume("/b", "db", "shift"),)))
    assert known(found) == [("/a", "db", "own"), ("/b", "db", "shift"), (ODD, "web", "own")]
    found = changed(
        layout, LedgerChange(remove=("web",), quarantine=(("web", IdRange(524288, 65536)),))
    )
    assert known(found) == [("/a", "db", "own"), ("/b", "db", "shift"), (ODD, "web", "own")]
    found = changed(layout, LedgerChange(no_volumes=(ODD, "/nowhere")))
    assert known(found) == [("/a", "db", "own"), ("/b", "db", "shift")]
    found = changed(layout, LedgerChange(volumes=(volume("/a"),)))
    assert known(found) == [("/a", "web", "own"), ("/b", "db", "shift")]
    # db has its ids still: what is forgotten of it is an older range.
    found = changed(layout, LedgerChange(forget=("web", "db"), volumes=(volume("/c", "db"),)))
    assert known(found) == [("/b", "db", "shift"), ("/c", "db", "own")]


def test_a_change_that_is_put_back_changes_no_volume(layout: Layout) -> None:
    before = changed(layout, LedgerChange(add=(WEB,), volumes=(volume("/a"),)))
    ledger = open_ledger(layout)
    ledger.begin(
        Intent("", Actor(0), LedgerChange(volumes=(volume("/b"),), no_volumes=("/a",)), ())
    )
    assert open_ledger(layout).state().interrupted is True
    ledger.put_back(HistoryEntry(NOW, Actor(0), "", ()))
    assert open_ledger(layout).state() == before


def test_an_interrupted_note_is_finished_by_the_next_run_and_shown_before_by_a_preview(
    layout: Layout,
) -> None:
    changed(layout, LedgerChange(add=(WEB,), volumes=(volume("/a"), volume("/gone"))))
    ledger = open_ledger(layout)
    intent = Intent(
        "fix",
        Actor(0),
        LedgerChange(volumes=(volume(ODD, mode="shift"),), no_volumes=("/gone",)),
        (),
    )
    ledger.begin(intent)
    expected = [("/a", "web", "own"), (ODD, "web", "shift")]
    before = host(volume("/a"), volume("/gone"))
    assert known(as_mended(before, intent).ledger) == expected
    [finding] = apply.recover(layout, open_ledger(layout))
    assert finding.code == "USN114"
    found = open_ledger(layout).state()
    assert (known(found), found.interrupted) == (expected, False)
    lines = open_ledger(layout).history()[-1].changed
    assert len(lines) == 2
    assert all(line.isprintable() or "\n" in line for line in lines)
    for line in lines:
        line.encode()


def test_recording_changes_the_ledger_and_no_other_file(layout: Layout, tmp_path: Path) -> None:
    here("allocate", "--strategy", "per-container", "web", "--root", tmp_path)
    before = {name: (tmp_path / name[1:]).read_bytes() for name in (SUBUID, SUBGID)}
    decide = partial(record, volumes=[volume(ODD)])
    apply.carry_out(layout, open_ledger(layout), decide, "usernsplan fix-volume")
    history = open_ledger(layout).history()
    apply.carry_out(layout, open_ledger(layout), decide, "usernsplan fix-volume")
    assert open_ledger(layout).history() == history
    assert known(open_ledger(layout).state()) == [(ODD, "web", "own")]
    assert before == {name: (tmp_path / name[1:]).read_bytes() for name in before}
    assert len(json.loads(here("history", "--json", "--root", tmp_path)[0])["entries"]) == 2


def test_a_released_container_keeps_its_volumes_until_its_range_is_forgotten(
    layout: Layout, tmp_path: Path
) -> None:
    here("allocate", "--strategy", "per-container", "web", "db", "--root", tmp_path)
    volumes = [volume("/a"), volume("/b", "db"), volume("/c")]
    apply.carry_out(layout, open_ledger(layout), partial(record, volumes=volumes))
    apply.release(ReleaseRequest(("web",)), str(tmp_path))
    assert [v.path for v in open_ledger(layout).state().volumes] == ["/a", "/b", "/c"]
    apply.release(ReleaseRequest(("web",), forget=True), str(tmp_path))
    assert known(open_ledger(layout).state()) == [("/b", "db", "own")]


def test_forgetting_an_old_range_keeps_the_volumes_of_a_new_container_of_that_name(
    layout: Layout, tmp_path: Path
) -> None:
    for words in (
        ("allocate", "--strategy", "per-container"),
        ("release",),
        ("allocate", "--strategy", "per-container", "--size", "65535"),
    ):
        here(*words, "web", "--root", tmp_path)
    apply.carry_out(layout, open_ledger(layout), partial(record, volumes=[volume("/new")]))
    apply.release(ReleaseRequest(("web",), forget=True), str(tmp_path))
    found = open_ledger(layout).state()
    assert [a.name for a in found.allocations] == ["web"]
    assert known(found) == [("/new", "web", "own")]


# A ledger of version 1, as 0.1 made it


VERSION_1 = """
CREATE TABLE allocation (
    name TEXT PRIMARY KEY, owner TEXT NOT NULL, strategy TEXT NOT NULL,
    uid_map TEXT NOT NULL, gid_map TEXT NOT NULL, held_start INTEGER, held_count INTEGER, since TEXT NOT NULL
);
CREATE TABLE quarantine (name TEXT NOT NULL, held_start INTEGER NOT NULL, held_count INTEGER NOT NULL,
    since TEXT NOT NULL);
CREATE TABLE history (at TEXT NOT NULL, actor TEXT NOT NULL, command TEXT NOT NULL, changed TEXT NOT NULL);
CREATE TABLE intent (only INTEGER PRIMARY KEY CHECK (only = 1), content TEXT NOT NULL);
PRAGMA user_version = 1;
"""
OLD_MAP = json.dumps([[0, 524288, 65536]])
OLD_ROW = [
    "web",
    "usernsplan-web",
    "per-container",
    OLD_MAP,
    OLD_MAP,
    524288,
    65536,
    "2026-01-01T00:00:00Z",
]
OLD_ACTOR = json.dumps({"uid": 0, "sudo_uid": 1000, "login_uid": None})
# As 0.1 wrote it: without volumes.
OLD_INTENT = {
    "command": "usernsplan allocate db",
    "actor": [0, None, None],
    "add": [
        [
            "db",
            "usernsplan-db",
            "per-container",
            "[[0, 589824, 65536]]",
            "[[0, 589824, 65536]]",
            589824,
            65536,
            "",
        ]
    ],
    "remove": [],
    "quarantine": [],
    "forget": [],
    "changes": [],
}


def tables(path: Path) -> dict[str, list[Any]]:
    db = sqlite3.connect(path)
    names = [
        name
        for (name,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        )
    ]
    found = {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in names}  # noqa: S608 - names of ours
    found["version"] = db.execute("PRAGMA user_version").fetchall()
    db.close()
    return found


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = Path(f"{tmp_path}{LEDGER}")
    path.parent.mkdir(parents=True)
    db = sqlite3.connect(path)
    db.executescript(VERSION_1)
    db.execute("INSERT INTO allocation VALUES (?, ?, ?, ?, ?, ?, ?, ?)", OLD_ROW)
    db.execute("INSERT INTO quarantine VALUES ('gone', 655360, 65536, '2026-01-02T00:00:00Z')")
    db.execute(
        "INSERT INTO history VALUES ('2026-01-01T00:00:00Z', ?, 'usernsplan allocate web', '[\"+\"]')",
        [OLD_ACTOR],
    )
    db.commit()
    db.close()
    return path


def test_an_old_ledger_is_read_and_not_written_for_it(layout: Layout, old: Path) -> None:
    before, stamp = old.read_bytes(), old.stat().st_mtime_ns
    ledger = open_ledger(layout)
    found = ledger.state()
    assert [(a.name, a.mapping, a.reserved_range, a.since) for a in found.allocations] == [
        ("web", WEB.mapping, IdRange(524288, 65536), "2026-01-01T00:00:00Z")
    ]
    assert found.quarantined == (
        Quarantined("gone", IdRange(655360, 65536), "2026-01-02T00:00:00Z"),
    )
    assert (found.volumes, found.interrupted, ledger.pending()) == ((), False, None)
    assert ledger.history() == (
        HistoryEntry("2026-01-01T00:00:00Z", Actor(0, 1000), "usernsplan allocate web", ("+",)),
    )
    assert (old.read_bytes(), old.stat().st_mtime_ns) == (before, stamp)
    assert tables(old)["version"] == [(1,)]


def test_an_old_ledger_is_of_the_new_kind_after_the_next_write_and_keeps_what_it_has(
    layout: Layout, old: Path
) -> None:
    before = tables(old)
    found = changed(layout, LedgerChange(volumes=(volume(ODD),)))
    assert known(found) == [(ODD, "web", "own")]
    now = tables(old)
    assert now["version"] == [(5,)]
    assert now["volume"] == [(os.fsencode(ODD), "web", "own", NOW, "")]
    assert now["history"][:-1] == before["history"]
    assert {name: now[name] for name in ("allocation", "intent")} == {
        name: before[name] for name in ("allocation", "intent")
    }
    # What a released range was, nobody noted then.
    assert now["quarantine"] == [(*row, "", "", "", "", "") for row in before["quarantine"]]
    assert known(changed(layout, LedgerChange(volumes=(volume("/b"),)))) == [
        ("/b", "web", "own"),
        (ODD, "web", "own"),
    ]


def test_a_command_that_changes_nothing_leaves_an_old_ledger_old(old: Path, tmp_path: Path) -> None:
    before = old.read_bytes()
    for words in (("list",), ("show", "web"), ("history",)):
        here(*words, "--root", tmp_path)
    assert old.read_bytes() == before


def test_forgetting_and_putting_back_upgrade_an_old_ledger_too(layout: Layout, old: Path) -> None:
    found = changed(layout, LedgerChange(forget=("gone",)))
    assert (found.quarantined, found.volumes) == ((), ())
    assert tables(old)["volume"] == []


def test_a_run_that_the_old_version_left_behind_is_finished_by_the_new_one(
    layout: Layout, old: Path
) -> None:
    db = sqlite3.connect(old)
    db.execute("INSERT INTO intent VALUES (1, ?)", [json.dumps(OLD_INTENT)])
    db.commit()
    db.close()
    ledger = open_ledger(layout)
    assert ledger.state().interrupted is True
    pending = ledger.pending()
    assert pending is not None
    assert pending.ledger == LedgerChange(add=(per_container("db", 589824),))
    apply.recover(layout, ledger)
    found = open_ledger(layout).state()
    assert [a.name for a in found.allocations] == ["db", "web"]
    # It changed no file, so that these lines stood before.
    assert found.allocations[0].found == tuple(
        (path, "usernsplan-db:589824:65536") for path in (SUBGID, SUBUID)
    )
    assert (found.volumes, found.interrupted) == ((), False)
    assert tables(old)["version"] == [(5,)]


def test_a_ledger_of_a_later_version_is_left_alone(layout: Layout, old: Path) -> None:
    db = sqlite3.connect(old)
    db.execute("PRAGMA user_version = 6")
    db.commit()
    db.close()
    before = old.read_bytes()
    ledger = open_ledger(layout)
    with pytest.raises(LedgerError, match="version 6"):
        ledger.state()
    with pytest.raises(LedgerError, match="version 6"):
        ledger.begin(Intent("", Actor(0), LedgerChange(volumes=(volume("/a"),)), ()))
    assert old.read_bytes() == before
