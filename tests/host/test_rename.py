"""rename: the ids, the lines and the volumes stay, and everything knows them by the new name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import here, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = needs_root

FIRST = 589824
LINES = "usernsplan-db:589824:65536\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "srv/db/inner").mkdir(parents=True)
    (root / "srv/db/file").touch()
    here("allocate", "--strategy", "per-container", "db", "--root", root)
    return root


@pytest.fixture
def run(root: Path) -> Callable[..., tuple[str, str]]:
    def run(words: str, status: int | None = 0) -> tuple[str, str]:
        typed = [word.replace("ROOT", str(root)) for word in words.split()]
        return here(*typed, "--root", root, status=status)

    return run


def of(run: Callable[..., tuple[str, str]], words: str) -> Any:  # noqa: ANN401 - a document
    return json.loads(run(f"{words} --json")[0])


def owners(root: Path) -> set[tuple[int, int]]:
    tree = root / "srv/db"
    return {(p.lstat().st_uid, p.lstat().st_gid) for p in (tree, *tree.rglob("*"))}


def test_nothing_but_the_name_changes(root: Path, run: Callable[..., tuple[str, str]]) -> None:
    run("fix-volume ROOT/srv/db --container db --mode shift")
    before = {p: p.read_bytes() for p in (root / "etc").rglob("*") if p.is_file()}
    [was] = of(run, "list")["allocations"]

    foretold = of(run, "rename db db2 --dry-run")
    assert of(run, "list")["allocations"] == [was]
    said = of(run, "rename db db2")
    assert (said["kind"], said["changed"], said["changes"]) == ("rename", True, [])
    assert foretold["allocations"] == said["allocations"]
    assert [finding["code"] for finding in said["findings"]] == ["USN170"]

    assert {p: p.read_bytes() for p in (root / "etc").rglob("*") if p.is_file()} == before
    [now] = of(run, "list")["allocations"]
    assert now == {**was, "name": "db2"}
    shown = of(run, "show db2")
    assert [v["path"] for v in shown["volumes"]] == ["/srv/db"]
    # The run began under the old name.
    assert [r["container"] for r in shown["runs"]] == ["db"]
    assert "renamed db to db2" in run("history")[0]
    assert "USN05" not in run("check", None)[0]


def test_the_same_command_again_changes_nothing(run: Callable[..., tuple[str, str]]) -> None:
    run("rename db db2")
    events = run("history")[0]
    out, _ = run("rename db db2")
    assert "Already up to date" in out
    assert run("history")[0] == events
    # That is not said of what never was: a slip in the old name is an error.
    assert "nothing was renamed" in run("rename dbb db2", 1)[1]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("rename dbb db2", 1, "did you mean db?"),
        ("rename db web", 9, "'web' is allocated already"),
        ("rename db old", 9, "release --forget old"),
        ("rename db db", 2, "this name already"),
        ("rename db x", 2, "not a container name"),
        ("rename db ../x", 2, "not a container name"),
        ("rename db default", 2, "Docker's own"),
        ("rename db containers", 2, "pool of podman-auto"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    run: Callable[..., tuple[str, str]], words: str, status: int, said: str
) -> None:
    run("allocate web old")
    run("release old")
    before = run("list")[0], run("history")[0]
    assert said in run(words, status)[1]
    assert (run("list")[0], run("history")[0]) == before


def test_runs_and_volumes_follow_the_name(root: Path, run: Callable[..., tuple[str, str]]) -> None:
    run("fix-volume ROOT/srv/db --container db --mode shift")
    run("rename db db2")
    again = of(run, "fix-volume ROOT/srv/db")
    assert (again["container"], again["counts"]["changed"]) == ("db2", 0)
    found = of(run, "find-owned db2 ROOT/srv --count")
    assert found["count"] == 3
    # The run noted the old name; undone, the volume is nobody's again, and the report says whose it was.
    undone = of(run, "undo --last")
    assert (undone["container"], owners(root)) == ("db2", {(0, 0)})
    assert of(run, "show db2")["volumes"] == []


@pytest.mark.usefixtures("volume_step")
def test_an_undo_gives_a_volume_back_to_a_container_by_its_new_name(
    root: Path, run: Callable[..., tuple[str, str]]
) -> None:
    run("allocate web")
    run("fix-volume ROOT/srv/db --container db --mode shift")
    run("fix-volume ROOT/srv/db --container web --from db")
    run("rename db db2")
    # Another container has the old name now.
    run("allocate db --owner someone")
    run("undo --last")
    assert owners(root) == {(FIRST, FIRST)}
    assert [v["path"] for v in of(run, "show db2")["volumes"]] == ["/srv/db"]
    assert of(run, "show db")["volumes"] == []


def test_the_old_name_is_free_but_its_owner_is_not(run: Callable[..., tuple[str, str]]) -> None:
    run("rename db db2")
    _, said = run("allocate db", 9)
    assert "usernsplan-db has the allocation 'db2'" in said
    remedy = said[said.index("usernsplan allocate db") :].split(" --root")[0]
    run(remedy.removeprefix("usernsplan "))
    assert {(a["name"], a["owner"]) for a in of(run, "list")["allocations"]} == {
        ("db", "usernsplan-db-2"),
        ("db2", "usernsplan-db"),
    }


def test_a_released_one_gets_its_range_and_owner_back_under_its_new_name(
    root: Path, run: Callable[..., tuple[str, str]]
) -> None:
    run("fix-volume ROOT/srv/db --container db --mode shift")
    run("rename db db2")
    run("release db2")
    assert (root / "etc/subuid").read_text() == ""
    run("allocate --strategy per-container other db2")
    assert LINES in (root / "etc/subuid").read_text()
    [volume] = of(run, "show db2")["volumes"]
    assert volume["path"] == "/srv/db"
    assert "looks right" in run("show db2")[0]


@pytest.mark.usefixtures("volume_step")
def test_a_run_that_is_half_way_comes_first(
    root: Path, run: Callable[..., tuple[str, str]]
) -> None:
    run("fix-volume ROOT/srv/db --container db --mode shift")
    [journal] = (root / "var/lib/usernsplan/runs").glob("2*/run.json")
    journal.write_text(journal.read_text().replace('"state": "done"', '"state": "changing"'))
    assert "was interrupted; nothing was renamed" in run("rename db db2", 9)[1]
    plan = root / "plan.yaml"
    plan.write_text("strategy: per-container\ncontainers: [{name: db2, was: db}]\n")
    assert "was interrupted; nothing was renamed" in run("plan ROOT/plan.yaml", 9)[1]
    run("fix-volume ROOT/srv/db --container db --mode shift")
    run("rename db db2")


def test_a_lost_ledger_is_rebuilt_with_the_name_that_the_last_run_has(
    root: Path, run: Callable[..., tuple[str, str]]
) -> None:
    run("fix-volume ROOT/srv/db --container db --mode shift")
    run("rename db db2")
    (root / "srv/db/new").touch()
    run("fix-volume ROOT/srv/db")
    ledger = root / "var/lib/usernsplan/ledger.sqlite3"
    ledger.unlink()
    run("ledger rebuild --yes")
    [made] = of(run, "list")["allocations"]
    assert (made["name"], made["owner"]) == ("db2", "usernsplan-db")
    assert [v["path"] for v in of(run, "show db2")["volumes"]] == ["/srv/db"]


def test_without_such_a_run_it_has_the_name_of_its_owner_and_that_is_said(
    root: Path, run: Callable[..., tuple[str, str]]
) -> None:
    run("rename db db2")
    (root / "var/lib/usernsplan/ledger.sqlite3").unlink()
    out, _ = run("ledger rebuild --yes")
    assert "new names" in out
    assert [a["name"] for a in of(run, "list")["allocations"]] == ["db"]


def test_a_plan_file_renames_once(root: Path, run: Callable[..., tuple[str, str]]) -> None:
    run("fix-volume ROOT/srv/db --container db --mode shift")
    plan = root / "plan.yaml"
    said = "{name: db2, was: db, volumes: [{path: /srv/db, mode: shift}]}"
    plan.write_text(f"strategy: per-container\ncontainers: [{said}]\n")
    shown = of(run, "plan ROOT/plan.yaml --prune")
    assert [(s["action"], s["kind"], s["name"], s["text"]) for s in shown["steps"]] == [
        ("change", "container", "db2", "renamed from db")
    ]
    run("apply ROOT/plan.yaml --prune --yes")
    assert (root / "etc/subuid").read_text() == LINES
    # 'was' may stay in the file.
    assert of(run, "plan ROOT/plan.yaml --prune")["pending"] is False
    assert owners(root) == {(FIRST, FIRST)}

    exported = run("export")[0]
    assert "owner: usernsplan-db" in exported
    assert "was" not in exported
    plan.write_text(exported)
    assert of(run, "plan ROOT/plan.yaml --prune")["pending"] is False


def test_a_file_in_which_only_a_name_changed_says_so(
    root: Path, run: Callable[..., tuple[str, str]]
) -> None:
    plan = root / "plan.yaml"
    plan.write_text("strategy: per-container\ncontainers: [db2]\n")
    for more in ("", " --prune"):
        [found] = [
            f for f in of(run, f"plan ROOT/plan.yaml{more}")["findings"] if f["code"] == "USN171"
        ]
        assert "{name: db2, was: db}" in found["hint"]
        assert "plan.yaml:2" in found["message"]
    # Another size is another container.
    plan.write_text("strategy: per-container\ncontainers: [{name: db2, size: 1000}]\n")
    assert "USN171" not in str(of(run, "plan ROOT/plan.yaml")["findings"])


@pytest.mark.parametrize(
    ("containers", "said"),
    [
        ("[{name: db2, was: db}, {name: db3, was: db}]", "former name of 'db2', too"),
        ("[{name: db2, was: db}, db]", "has a container 'db', too"),
        ("[{name: web, was: db}]", "'web' is allocated already"),
        ("[{name: db2, was: old}]", "'old' was released"),
    ],
)
def test_a_wrong_former_name_is_an_error_at_its_line(
    root: Path, run: Callable[..., tuple[str, str]], containers: str, said: str
) -> None:
    run("allocate web old")
    run("release old")
    (root / "plan.yaml").write_text(f"strategy: per-container\ncontainers: {containers}\n")
    _, told = run("plan ROOT/plan.yaml", None)
    assert said in told
    assert "plan.yaml:2" in told
    assert ".was" in told


def test_on_a_host_that_never_had_the_old_name_it_is_new(
    root: Path, run: Callable[..., tuple[str, str]]
) -> None:
    run("release db")
    run("release --forget db")
    (root / "plan.yaml").write_text("strategy: per-container\ncontainers: [{name: db2, was: db}]\n")
    run("apply ROOT/plan.yaml --yes")
    assert [a["name"] for a in of(run, "list")["allocations"]] == ["db2"]


def test_a_container_of_lxc_with_the_old_name_is_named(
    root: Path, run: Callable[..., tuple[str, str]]
) -> None:
    run("allocate db --engine lxc")
    config = root / "var/lib/lxc/db/config"
    config.parent.mkdir(parents=True)
    config.write_text(f"lxc.idmap = u 0 {FIRST} 65536\nlxc.idmap = g 0 {FIRST} 65536\n")
    _, said = run("rename db db2")
    assert "lxc/db/config" in said
    assert "rename the container of LXC, too" in said
