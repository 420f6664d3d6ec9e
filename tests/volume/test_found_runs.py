"""Runs are found again: listed, shown with their container, and the last one is taken back without its number."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import files_of, here
from tests.documents import document_in
from tests.volume.tree import Host, differences, simple, snapshot
from usernsplan.host.files import layout_at
from usernsplan.volume import journal

if TYPE_CHECKING:
    from pathlib import Path


def fixed(host: Host, *names: str) -> list[str]:
    """A volume for each of these containers; what the runs are called."""
    host.allocate(*names)
    for name in names:
        simple(host.root / "srv" / name, 33, 33)
    return [host.fix("--container", name, path=f"/srv/{name}")["run"] for name in names]


def noted(host: Host, name: str, /, **changed: Any) -> Path:
    """Change what a run.json says."""
    place = host.runs / name / "run.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **changed}))
    return place


def listed(host: Host, *words: str, status: int = 0) -> list[dict[str, Any]]:
    document = document_in(
        here(*(words or ("history", "--runs")), "--json", "--root", host.root, status=status)[0]
    )
    runs: list[dict[str, Any]] = document["runs"]
    return runs


def test_runs_are_listed_with_what_one_looks_for(host: Host) -> None:
    web, db = fixed(host, "web", "db")
    before = files_of(host.root)
    found = listed(host)
    assert [(one["run"], one["container"], one["mode"], one["state"]) for one in found] == [
        (web, "web", "own", "done"),
        (db, "db", "own", "done"),
    ]
    assert [one["volumes"] for one in found] == [
        [{"path": f"{host.root}/srv/{name}"}] for name in ("web", "db")
    ]
    for one in found:
        stamp = one["at"].replace("-", "").replace(":", "").replace("T", "-").removesuffix("Z")
        assert one["run"].partition(".")[0] == stamp
        size = sum(path.stat().st_size for path in (host.runs / one["run"]).iterdir())
        assert (one["bytes"], one["can_undo"], one["at_work"]) == (size, True, False)
        assert one["undo"] == f"usernsplan undo {one['run']} --root {host.root}"
    text, said = here("history", "--runs", "--root", host.root)
    assert said == ""
    lines = text.splitlines()
    for word in (
        web,
        "web",
        "own",
        "done",
        f"{host.root}/srv/web",
        found[0]["at"],
        f"{found[0]['bytes']} bytes",
    ):
        assert any(word in line for line in lines if web in line)
    assert files_of(host.root) == before


def test_a_run_that_nobody_can_read_is_listed_with_its_reason(host: Host) -> None:
    web, db = fixed(host, "web", "db")
    (host.runs / web / "run.json").write_text("{")
    first, second = listed(host)
    assert (first["run"], first["state"], first["can_undo"], first["undo"]) == (
        web,
        None,
        False,
        None,
    )
    assert "is damaged" in first["problem"]
    assert "mv " in first["hint"]
    assert second["run"] == db
    assert "is damaged" in here("history", "--runs", "--root", host.root)[0]


def test_what_a_planted_run_says_is_shown_on_one_line(host: Host) -> None:
    [run] = fixed(host, "web")
    noted(host, run, container="a\x1b[2J\nb", mode="\x1b[31m")
    printed, _ = here("history", "--runs", "--root", host.root)
    assert "\x1b" not in printed
    assert len(printed.splitlines()) == 3


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("changing", "changing, interrupted"),
        ("undoing", "undoing, interrupted"),
        ("undone", "undone in part"),
    ],
)
def test_a_run_that_is_half_way_is_listed_so(host: Host, state: str, shown: str) -> None:
    [run] = fixed(host, "web")
    noted(host, run, state=state, whole=False)
    assert [(one["state"], one["can_undo"]) for one in listed(host)] == [(state, True)]
    assert shown in here("history", "--runs", "--root", host.root)[0]


def test_a_run_at_work_is_listed_so_and_not_taken_back(host: Host) -> None:
    [run] = fixed(host, "web")
    layout = layout_at(str(host.root))
    at_work = journal.resume(layout, journal.run(layout, run))
    before = snapshot(host.root / "srv")
    try:
        assert [one["at_work"] for one in listed(host)] == [True]
        assert "done, at work" in here("history", "--runs", "--root", host.root)[0]
        assert f"run {run} is at work" in here("undo", "--last", "--root", host.root, status=5)[1]
    finally:
        at_work.close()
    assert differences(snapshot(host.root / "srv"), before) == []


def test_without_any_run_there_is_nothing_to_list_or_to_undo_and_nothing_is_made(
    host: Host,
) -> None:
    assert listed(host) == []
    assert "no run" in here("history", "--runs", "--root", host.root)[0]
    assert "no run can be undone" in here("undo", "--last", "--root", host.root, status=1)[1]
    assert "no run can be undone" in here("undo", "--root", host.root, status=2)[1]
    assert not (host.root / "var").exists()


@pytest.mark.parametrize("words", [("history", "--runs"), ("undo",), ("undo", "--last")])
def test_a_root_that_is_not_there_is_no_root_without_runs(
    host: Host, words: tuple[str, ...]
) -> None:
    assert "does not exist" in here(*words, "--root", host.root / "nothing", status=2)[1]


@pytest.mark.parametrize(
    "words",
    [
        ("history", "--runs", "--dry-run"),
        ("history", "--runs", "--older-than", "3d"),
        ("history", "--runs", "--prune-runs", "--older-than", "3d"),
        ("undo", "x", "--last"),
    ],
)
def test_words_that_do_not_go_together(host: Host, words: tuple[str, ...]) -> None:
    fixed(host, "web")
    before = files_of(host.root)
    here(*words, "--root", host.root, status=2)
    assert files_of(host.root) == before


# undo without a number


def test_the_last_run_is_taken_back_and_then_the_one_before(host: Host) -> None:
    host.allocate("web", "db")
    simple(host.root / "srv/web", 33, 33)
    simple(host.root / "srv/db", 33, 33)
    first, between = snapshot(host.root / "srv"), None
    runs = []
    for name in ("web", "db"):
        between = snapshot(host.root / "srv")
        runs.append(host.fix("--container", name, path=f"/srv/{name}")["run"])
    last = snapshot(host.root / "srv")
    printed, said = here("undo", "--last", "--dry-run", "--root", host.root)
    assert f"the last run is {runs[1]}, on {host.root}/srv/db" in said
    assert "would restore" in printed
    assert differences(snapshot(host.root / "srv"), last) == []
    out, said = here("undo", "--last", "--json", "--root", host.root)
    assert json.loads(out)["run"] == runs[1]
    assert f"the last run is {runs[1]}" in said
    assert differences(snapshot(host.root / "srv"), between or {}) == []
    _, said = here("undo", "--last", "--root", host.root)
    assert f"the last run is {runs[0]}, on {host.root}/srv/web" in said
    assert differences(snapshot(host.root / "srv"), first) == []
    assert "no run can be undone" in here("undo", "--last", "--root", host.root, status=1)[1]


def test_what_only_looked_is_not_the_last_run(host: Host) -> None:
    web, db = fixed(host, "web", "db")
    noted(host, db, state="looking")
    assert f"the last run is {web}," in here("undo", "--last", "--root", host.root)[1]


def test_the_last_run_is_not_guessed_where_a_later_one_cannot_be_read(host: Host) -> None:
    _, db = fixed(host, "web", "db")
    (host.runs / db / "run.json").write_text("{")
    before = snapshot(host.root / "srv"), files_of(host.root)
    said = here("undo", "--last", "--root", host.root, status=9)[1]
    assert "it is unknown which run was the last" in said
    assert f"{host.runs}/{db}/run.json is damaged" in said
    assert (snapshot(host.root / "srv"), files_of(host.root)) == before


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--yes",), ("--json",)])
def test_undo_without_a_run_lists_them_and_does_nothing(host: Host, more: tuple[str, ...]) -> None:
    web, db, gone = fixed(host, "web", "db", "gone")
    host.undo(gone)
    before = snapshot(host.root / "srv"), files_of(host.root)
    printed, said = here("undo", *more, "--root", host.root, status=2)
    assert (web in printed, db in printed, gone in printed) == (True, True, False)
    if more == ("--json",):
        assert [one["run"] for one in json.loads(printed)["runs"]] == [web, db]
    assert "RUN is missing" in said
    assert f"usernsplan undo --last --root {host.root}" in said
    assert (snapshot(host.root / "srv"), files_of(host.root)) == before


def test_an_undo_tells_what_it_restored(host: Host) -> None:
    web, db = fixed(host, "web", "db")
    entries = len(os.listdir(host.root / "srv/web")) + 1
    printed, _ = here("undo", web, "--root", host.root)
    assert f"restored {entries}" in printed
    assert "changed" not in printed
    counts = host.undo(db)["counts"]
    assert counts["changed"] == entries
    assert (
        "restored" not in here("fix-volume", "/srv/db", "--container", "db", "--root", host.root)[0]
    )


# show


def test_a_container_is_shown_with_its_volumes_and_runs(host: Host) -> None:
    web, db = fixed(host, "web", "db")
    host.undo(web)
    again = host.fix("--container", "web", "--user", "5", path="/srv/web")["run"]
    document = json.loads(here("show", "web", "--json", "--root", host.root)[0])
    assert [(one["run"], one["state"]) for one in document["runs"]] == [
        (web, "undone"),
        (again, "done"),
    ]
    assert [one["path"] for one in document["volumes"]] == ["/srv/web"]
    printed, _ = here("show", "web", "--root", host.root)
    assert f"{web} (undone)" in printed
    assert f"{again} (done)" in printed
    assert f"{host.root}/srv/web" in printed
    assert f"{db} (" not in printed
    shutil.rmtree(host.runs)
    assert json.loads(here("show", "web", "--json", "--root", host.root)[0])["runs"] == []
