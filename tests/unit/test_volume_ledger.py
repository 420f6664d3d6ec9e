"""Whose a volume is: what is noted, what the ledger holds of it, and a ledger from before there were volumes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.command import here
from tests.unit.states import per_container, state
from usernsplan import IdRange, Layout, apply, noting
from usernsplan.host.files import layout_at
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.ledger import open_ledger
from usernsplan.ledger.fold import fold
from usernsplan.model import (
    Actor,
    Change,
    Event,
    HistoryEntry,
    Intent,
    LedgerChange,
    LedgerState,
    ReleaseRequest,
    Volume,
)
from usernsplan.planner.recovery import as_mended
from usernsplan.planner.volumes import record

WEB, DB = per_container("web", 589824), per_container("db", 655360)
NOW = "2026-11-22T05:30:48Z"
ODD = "/srv/\udcff\n'ü"


def volume(path: str, name: str = "web", mode: str = "own", since: str = "") -> Volume:
    return Volume(path, name, mode, since)


def host(*volumes: Volume) -> LedgerState:
    return replace(state(allocations=[WEB, DB]).ledger, volumes=volumes)


def known(ledger: LedgerState) -> list[tuple[str, str, str]]:
    return [(v.path, v.name, v.mode) for v in ledger.volumes]


# What is noted


def test_a_volume_that_was_fixed_is_noted_for_its_container() -> None:
    change = record(host(), [volume("/a"), volume("/b", "db", "shift")])
    assert change == LedgerChange(volumes=(volume("/a"), volume("/b", "db", "shift")))


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
    assert record(host(noted), [fixed]).volumes == ((fixed,) if changed else ())


def test_a_container_that_was_released_meanwhile_gets_no_volume() -> None:
    assert record(host(), [volume("/a", "gone")]) == LedgerChange()
    assert record(host(), [volume("/a", "gone"), volume("/b")]).volumes == (volume("/b"),)


def test_a_volume_that_is_no_container_s_any_more_is_taken_out_where_it_was_noted() -> None:
    assert record(host(volume("/a")), [], ["/a", "/b"]) == LedgerChange(no_volumes=("/a",))
    assert record(host(), [], ["/a"]) == LedgerChange()


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
    folded = fold(before, Event(before.number + 1, NOW, change))
    assert folded == found
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
        layout, LedgerChange(remove=("web",), quarantine=(("web", IdRange(589824, 65536)),))
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
    assert open_ledger(layout).state() == replace(before, number=2)


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
    before = replace(state(), ledger=host(volume("/a"), volume("/gone")))
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
    noting.note(layout, open_ledger(layout), decide, "usernsplan fix-volume")
    history = open_ledger(layout).history()
    noting.note(layout, open_ledger(layout), decide, "usernsplan fix-volume")
    assert open_ledger(layout).history() == history
    assert known(open_ledger(layout).state()) == [(ODD, "web", "own")]
    assert before == {name: (tmp_path / name[1:]).read_bytes() for name in before}
    assert len(json.loads(here("history", "--json", "--root", tmp_path)[0])["entries"]) == 2


def test_a_released_container_keeps_its_volumes_until_its_range_is_forgotten(
    layout: Layout, tmp_path: Path
) -> None:
    here("allocate", "--strategy", "per-container", "web", "db", "--root", tmp_path)
    volumes = [volume("/a"), volume("/b", "db"), volume("/c")]
    noting.note(layout, open_ledger(layout), partial(record, volumes=volumes), "")
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
    noting.note(layout, open_ledger(layout), partial(record, volumes=[volume("/new")]), "")
    apply.release(ReleaseRequest(("web",), forget=True), str(tmp_path))
    found = open_ledger(layout).state()
    assert [a.name for a in found.allocations] == ["web"]
    assert known(found) == [("/new", "web", "own")]
