"""history --prune-runs: journals of runs that ended long ago go, and nothing that is still needed."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import here
from tests.each import each
from usernsplan.host.files import layout_at
from usernsplan.host.runs import FORMAT
from usernsplan.volume import journal

if TYPE_CHECKING:
    from tests.volume.tree import Host

DAY = 86400
SWAP = ("--uid-map", "0:1:1", "--uid-map", "1:0:1", "--gid-map", "0:1:1", "--gid-map", "1:0:1")


def ended(host: Host, *words: str, days: float, state: str = "done", **more: str) -> str:
    """A run of one file that ended so many days ago."""
    (host.volume / "file").touch()
    os.chown(host.volume / "file", 0, 0)
    run: str = host.fix(*(words or ("--uid-map", "0:100000:1", "--gid-map", "0:100000:1")))["run"]
    place = host.runs / run / "run.json"
    content = json.loads(place.read_text())
    content.update(state=state, end=time.time_ns() - int(days * DAY) * 10**9, **more)
    place.write_text(json.dumps(content))
    os.chown(host.volume, 0, 0)
    return run


def pruned(host: Host, *words: str, older: str = "30d") -> dict[str, Any]:
    out, _ = here(
        "history", "--prune-runs", "--older-than", older, *words, "--json", "--root", host.root
    )
    document: dict[str, Any] = json.loads(out)
    return document


def size(host: Host, run: str) -> int:
    return sum(path.stat().st_size for path in (host.runs / run).iterdir())


def test_old_runs_go_and_young_ones_stay(host: Host) -> None:
    old, undone = ended(host, days=31), ended(host, days=40, state="undone")
    young = ended(host, days=29)
    sizes = {run: size(host, run) for run in (old, undone)}
    seen = pruned(host, "--dry-run")
    assert host.run_names() == sorted([old, undone, young])
    assert (seen["kind"], seen["dry_run"]) == ("prune-runs", True)
    assert {one["run"]: one["bytes"] for one in seen["removed"]} == sizes
    assert seen["bytes"] == sum(sizes.values())
    done = pruned(host)
    assert (done["removed"], done["dry_run"], done["kept"]) == (seen["removed"], False, [])
    assert host.run_names() == [young]
    assert pruned(host)["removed"] == []


def test_it_says_how_many_and_how_large(host: Host) -> None:
    run = ended(host, days=31)
    bytes_ = size(host, run)
    words = ("history", "--prune-runs", "--older-than", "4w", "--root", host.root)
    assert (
        here(*words, "--dry-run")[0]
        == f"would remove run {run} ({bytes_} bytes)\nWould remove 1 run, {bytes_} bytes.\n"
    )
    assert (
        here(*words)[0] == f"removed run {run} ({bytes_} bytes)\nRemoved 1 run, {bytes_} bytes.\n"
    )
    assert here(*words)[0] == "Removed 0 runs, 0 bytes.\n"


@pytest.mark.parametrize("state", ["changing", "undoing"])
def test_a_run_that_is_unfinished_stays_however_old(host: Host, state: str) -> None:
    run = ended(host, days=400, state=state)
    done = pruned(host)
    assert (done["removed"], [one["run"] for one in done["kept"]]) == ([], [run])
    assert "unfinished" in done["kept"][0]["reason"]
    assert host.run_names() == [run]


def test_a_run_at_work_stays(host: Host) -> None:
    run = ended(host, days=400)
    layout = layout_at(str(host.root))
    at_work = journal.resume(layout, journal.run(layout, run))
    try:
        assert pruned(host)["kept"] == [{"run": run, "reason": "it is at work"}]
    finally:
        at_work.close()
    assert host.run_names() == [run]


@pytest.mark.parametrize("raw", ["{", f'{{"format": {FORMAT + 1}, "state": "done"}}'])
def test_a_run_that_nobody_can_read_stays(host: Host, raw: str) -> None:
    run = ended(host, days=400)
    place = host.runs / run / "run.json"
    place.write_text(raw)
    os.utime(place, (1, 1))
    os.utime(place.parent, (1, 1))
    assert "cannot be read" in pruned(host)["kept"][0]["reason"]
    assert host.run_names() == [run]


def test_a_run_of_an_unknown_method_stays(host: Host) -> None:
    run = ended(host, days=400, method="grant")
    assert "does not know its method, 'grant'" in pruned(host)["kept"][0]["reason"]
    assert host.run_names() == [run]


def test_what_keeps_ids_from_being_moved_twice_stays_with_its_volume(host: Host) -> None:
    run = ended(host, *SWAP, days=400)
    assert "move ids twice" in pruned(host)["kept"][0]["reason"]
    assert host.run_names() == [run]
    host.volume.rename(host.root / "srv/elsewhere")
    assert [one["run"] for one in pruned(host)["removed"]] == [run]


def test_what_a_kill_left_half_removed_goes_and_is_no_run(host: Host) -> None:
    run = ended(host, days=400)
    (host.runs / run / "run.json").unlink()
    assert here("undo", run, "--root", host.root, status=1)
    assert pruned(host, older="1h")["removed"] == []
    os.utime(host.runs / run, (1, 1))
    assert [one["run"] for one in pruned(host)["removed"]] == [run]


@pytest.mark.parametrize("words", [("--prune-runs",), ("--older-than", "30d"), ("--dry-run",)])
def test_words_that_belong_together(host: Host, words: tuple[str, ...]) -> None:
    here("history", *words, "--root", host.root, status=2)


@each("age", ["", "30", "d", "-1d", "1.5d", "30m", "30 d", "٣d", "999999d"])
def test_what_is_no_age(host: Host, age: str) -> None:
    _, said = here("history", "--prune-runs", f"--older-than={age}", "--root", host.root, status=2)
    assert "12h, 30d or 4w" in said


@pytest.mark.parametrize(
    ("age", "goes"), [("25h", False), ("23h", True), ("1d", True), ("1w", False)]
)
def test_units(host: Host, age: str, goes: bool) -> None:
    ended(host, days=1.01)
    assert bool(pruned(host, older=age)["removed"]) is goes


def test_without_runs_nothing_is_made(host: Host) -> None:
    assert pruned(host)["removed"] == []
    assert not host.runs.exists()
