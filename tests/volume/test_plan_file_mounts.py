"""Plan files that mount volumes, on a real kernel: plan, apply, export, prune, and a ledger that was lost."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import here, slow
from tests.documents import document_in
from tests.prefork import prefork
from tests.volume.bystanders import open_ground
from tests.volume.struck import CALLS, places, sample, share_out, strike, was_killed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.prefork import Prefork
    from tests.volume.struck import Place
    from tests.volume.tree import Host

FILE = """\
strategy: per-container
engines: []
containers:
- name: web
  volumes:
  - {path: /srv/web, mode: shift, method: idmap}
  - {path: /srv/web, mode: shift, method: idmap, at: /mnt/ro, read-only: true}
- name: db
  user: '999:998'
  volumes: [{path: /srv/db, method: idmap, at: /mnt/db}]
"""
PLAIN = "strategy: per-container\nengines: []\n"
OURS = "run/usernsplan/volumes/web/srv-web"
# What a kill has to hit at least.
MOUNTING = ("move_mount", "umount2")
LEDGER = "var/lib/usernsplan/ledger.sqlite3"


def prepared(root: Path) -> Path:
    """A host with two volumes, which nobody but root reaches."""
    root.chmod(0o700)
    for name, owner in (("web", (33, 34)), ("db", (0, 0))):
        volume = root / "srv" / name
        volume.mkdir()
        (volume / "file").touch()
        os.chown(volume / "file", *owner)
    (root / "mnt").mkdir()
    return root


@pytest.fixture
def root(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Such a host; whatever is mounted in it goes with the test."""
    monkeypatch.chdir(tmp_path)
    yield prepared(host.root)
    take_down(host.root)


def take_down(root: Path) -> None:
    for point in reversed(points(root)):
        subprocess.run(["umount", root / point], check=True)


def points(root: Path) -> list[str]:
    """Where something is mounted in a host, in the order of the mounts."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return [
            point.removeprefix(f"{root}/")
            for point in (line.split(" ")[4] for line in file)
            if point.startswith(f"{root}/")
        ]


def owner(path: Path) -> tuple[int, int]:
    seen = path.stat()
    return seen.st_uid, seen.st_gid


def run(*words: str, root: Path, status: int = 0) -> str:
    return "".join(here(*words, "--root", root, status=status))


def told(*words: str, root: Path, status: int = 0) -> dict[str, Any]:
    return document_in(here(*words, "--json", "--root", root, status=status)[0])


def write(said: str) -> None:
    with open("usernsplan.yaml", "w", encoding="utf-8") as file:
        file.write(said)


def applied(root: Path, said: str = FILE) -> None:
    write(said)
    run("apply", "--yes", "--fix-volumes", root=root)


def test_what_the_file_names_is_mounted_and_once_only(root: Path, host: Host) -> None:
    write(FILE)
    out = run("plan", "--check", root=root, status=4)
    assert "  + mount /mnt/ro" in out
    assert out.endswith("Plan: 2 to add, 0 to change, 0 to remove, 3 volumes to fix.\n")
    # Without --fix-volumes only ids are allocated.
    assert "The volumes are not fixed yet" in run("apply", "--yes", root=root)
    assert points(root) == []

    done = told("apply", "--yes", "--fix-volumes", root=root)
    assert [(v["path"], v["error"]) for v in done["volumes"]] == [
        ("/srv/web", None),
        ("/srv/web", None),
        ("/srv/db", None),
    ]
    assert sorted(points(root)) == ["mnt/db", "mnt/ro", OURS]
    assert owner(root / OURS / "file") == (589824 + 33, 589824 + 34)
    assert owner(root / "mnt/db/file") == (655360 + 999, 655360 + 998)
    with pytest.raises(OSError, match="Read-only"):
        (root / "mnt/ro/new").touch()
    # Nothing on the disk has changed.
    assert (owner(root / "srv/web/file"), owner(root / "srv/db/file")) == ((33, 34), (0, 0))

    ledger = (root / LEDGER).read_bytes()
    for words in (("plan", "--check", "--prune"), ("apply", "--fix-volumes", "--prune", "--yes")):
        assert "Already up to date" in run(*words, root=root)
    assert (root / LEDGER).read_bytes() == ledger
    assert len(points(root)) == 3
    assert host.root == root


def test_the_export_makes_the_same_on_a_fresh_host(root: Path, tmpfs: Path) -> None:
    applied(root)
    file = run("export", root=root)
    write(file)
    run("plan", "--check", "--prune", root=root)

    fresh = tmpfs / f"{root.name}-fresh"
    (fresh / "srv").mkdir(parents=True)
    (fresh / "etc").mkdir()
    prepared(fresh)
    try:
        run("apply", "--yes", "--fix-volumes", root=fresh)
        assert sorted(points(fresh)) == sorted(points(root))
        assert run("export", root=fresh) == file
        run("plan", "--check", "--prune", root=fresh)
    finally:
        take_down(fresh)


def test_a_mount_that_the_file_changes_is_replaced(root: Path) -> None:
    applied(root)
    for old, new, there, ids in (
        ("at: /mnt/db", "at: /mnt/else", "mnt/else", (999, 998)),
        ("at: /mnt/db", "at: /mnt/db, read-only: true", "mnt/db", (999, 998)),
        (", at: /mnt/db", "", "run/usernsplan/volumes/db/srv-db", (999, 998)),
        ("999:998", "5:6", "mnt/db", (5, 6)),
        ("{path: /srv/db, ", "{path: /srv/db, mode: shift, ", "mnt/db", (0, 0)),
    ):
        write(FILE.replace(old, new))
        [step] = told("plan", "--check", root=root, status=4)["steps"]
        assert (step["action"], step["kind"], step["name"]) == ("change", "mount", f"/{there}")
        run("apply", "--yes", "--fix-volumes", root=root)
        assert sorted(points(root)) == sorted({"mnt/ro", OURS, there})
        assert owner(root / there / "file") == (655360 + ids[0], 655360 + ids[1])
        run("plan", "--check", "--prune", root=root)


@pytest.mark.parametrize("at", ["/etc", "/mnt/none/db", "/mnt/full"])
def test_a_mount_stays_if_the_place_that_is_to_have_it_is_refused(root: Path, at: str) -> None:
    applied(root)
    before = points(root)
    (root / "mnt/full/of").mkdir(parents=True)
    write(FILE.replace("at: /mnt/db", f"at: {at}"))
    for _ in range(2):
        out = run("apply", "--yes", "--fix-volumes", root=root, status=3)
        assert "not fixed: " in out
        assert points(root) == before
    write(FILE)
    run("plan", "--check", root=root)


def test_two_mounts_change_places(root: Path) -> None:
    said = FILE.replace("idmap, at: /mnt/ro", "idmap, at: /mnt/db").replace(
        "[{path: /srv/db, method: idmap, at: /mnt/db}]",
        "[{path: /srv/db, method: idmap, at: /mnt/ro}]",
    )
    applied(root)
    applied(root, said)
    assert owner(root / "mnt/ro/file") == (655360 + 999, 655360 + 998)
    assert owner(root / "mnt/db/file") == (589824 + 33, 589824 + 34)
    run("plan", "--check", "--prune", root=root)


def test_a_mount_that_is_gone_or_changed_is_made_again(root: Path) -> None:
    applied(root)
    for command in (
        ("umount", root / "mnt/db"),
        ("mount", "-o", "remount,bind,ro", root / "mnt/db"),
    ):
        subprocess.run(command, check=True)
        [step] = told("plan", "--check", root=root, status=4)["steps"]
        assert step["name"] == "/mnt/db"
        run("apply", "--yes", "--fix-volumes", root=root)
        (root / "mnt/db/file").write_text(str(command))
        run("plan", "--check", "--prune", root=root)
    assert len(points(root)) == 3


def test_a_lasting_mount_returns_or_the_plan_says_so(root: Path) -> None:
    lasting = FILE.replace("idmap, at: /mnt/db", "idmap, at: /mnt/db, persist: true")
    units = root / "etc/systemd/system"
    applied(root)
    applied(root, lasting)
    [unit] = units.glob("*mnt-db*")
    run("plan", "--check", "--prune", root=root)
    assert "persist: true" in run("export", root=root)
    unit.unlink()
    [step] = told("plan", "--check", root=root, status=4)["steps"]
    assert "does not return at boot" in step["text"]
    run("apply", "--yes", "--fix-volumes", root=root)
    assert unit.exists()
    run("plan", "--check", "--prune", root=root)
    # Without the key it returns no more.
    applied(root)
    assert not list(units.glob("*mnt-db*"))
    assert "mnt/db" in points(root)
    run("plan", "--check", "--prune", root=root)


@pytest.fixture
def open_root(
    private_mounts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A host that everybody can enter, with a volume in /srv/own."""
    assert private_mounts is None
    monkeypatch.chdir(tmp_path)
    with open_ground() as ground:
        (ground / "srv/own/web").mkdir(parents=True)
        (ground / "etc").mkdir()
        yield ground
        take_down(ground)


@pytest.mark.parametrize("protect", ["nosuid", "parent"])
def test_a_source_that_others_reach_is_mounted_only_with_protection(
    open_root: Path, protect: str
) -> None:
    volume = "{path: /srv/own/web, mode: shift, method: idmap}"
    file = f"{PLAIN}containers: [{{name: web, volumes: [{volume}]}}]\n"
    at = f"{OURS}".replace("srv-web", "srv-own-web")
    write(file)
    out = run("apply", "--yes", "--fix-volumes", root=open_root, status=3)
    assert "/srv/own/web: not fixed: " in out
    assert "\n  make setuid files not count there: usernsplan mount-volume " in out
    assert at not in points(open_root)

    applied(open_root, file.replace("idmap}", f"idmap, protect: {protect}}}"))
    assert at in points(open_root)
    run("plan", "--check", "--prune", root=open_root)
    write(run("export", root=open_root))
    run("plan", "--check", "--prune", root=open_root)
    # Without the key the protection goes, and the mount with it.
    write(file)
    [step] = told("plan", "--check", root=open_root, status=4)["steps"]
    assert step["text"].endswith(f"its source is protected by {protect}")
    run("apply", "--yes", "--fix-volumes", root=open_root, status=3)
    assert points(open_root) == []
    assert (open_root / "srv/own").stat().st_mode & 0o777 == 0o755


def test_only_prune_takes_away_what_the_file_does_not_name(root: Path) -> None:
    applied(root)
    said = FILE.replace("{path: /srv/web, mode: shift, method: idmap}", "/srv/none", 1)
    write("\n".join(line for line in said.splitlines() if "/srv/none" not in line))
    out = run("apply", "--yes", "--fix-volumes", root=root)
    assert f"kept (--prune releases them): mount /{OURS}" in out
    assert len(points(root)) == 3
    run("plan", "--check", root=root)
    run("plan", "--check", "--prune", root=root, status=4)
    assert f"- mount /{OURS}" in run("apply", "--yes", "--prune", root=root)
    assert sorted(points(root)) == ["mnt/db", "mnt/ro"]
    # A container goes with its mounts: first they, then it.
    write("strategy: per-container\nengines: []\n")
    gone = told("apply", "--yes", "--prune", root=root)
    assert (points(root), gone["counts"]["remove"]) == ([], 4)
    assert told("list", root=root)["allocations"] == []
    run("plan", "--check", "--prune", root=root)


def test_what_is_in_use_stays_and_so_does_its_container(root: Path) -> None:
    applied(root)
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=root / "mnt/db",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as user:
        assert user.stdout
        user.stdout.readline()
        write(FILE.replace("at: /mnt/db", "at: /mnt/else"))
        assert "in use" in run("apply", "--yes", "--fix-volumes", root=root, status=3)
        assert sorted(points(root)) == ["mnt/db", "mnt/ro", OURS]
        write("strategy: per-container\nengines: []\n")
        run("apply", "--yes", "--prune", root=root, status=3)
        assert [a["name"] for a in told("list", root=root)["allocations"]] == ["db", "web"]
        assert points(root) == ["mnt/db"]
        user.communicate()
    run("apply", "--yes", "--prune", root=root)
    assert points(root) == []
    assert told("list", root=root)["allocations"] == []


def test_a_saved_plan_is_applied_as_it_was_shown(root: Path) -> None:
    write(FILE)
    run("plan", "--out", "saved", root=root)
    applied(root)
    run("apply", "--plan", "saved", "--yes", "--fix-volumes", root=root, status=6)
    write(FILE.replace("at: /mnt/db", "at: /mnt/else"))
    run("plan", "--out", "saved", root=root)
    run("apply", "--plan", "saved", "--yes", "--fix-volumes", root=root)
    assert sorted(points(root)) == ["mnt/else", "mnt/ro", OURS]


def test_an_undo_that_would_take_away_more_is_left_to_the_user(root: Path) -> None:
    write("strategy: per-container\nengines: []\ncontainers: [web]\n")
    run("apply", "--yes", root=root)
    mount = ("mount-volume", "/srv/web", "/srv/db", "--container", "web", "--mode", "shift")
    made = told(*mount, root=root)["run"]
    volume = "{path: /srv/web, mode: shift, method: idmap}"
    write(
        f"strategy: per-container\nengines: []\ncontainers: [{{name: web, volumes: [{volume}]}}]\n"
    )
    out = run("apply", "--yes", "--prune", root=root, status=3)
    assert f"run {made} mounted" in out
    assert len(points(root)) == 2
    run("undo", made, root=root)
    run("apply", "--yes", "--prune", "--fix-volumes", root=root)
    assert points(root) == [OURS]


def test_the_method_of_the_config_is_that_of_the_file(root: Path) -> None:
    (root / "etc/usernsplan").mkdir()
    (root / "etc/usernsplan/config.yaml").write_text("method: idmap\n")
    said = "containers: [{name: web, volumes: [{path: /srv/web, mode: shift}, {path: /srv/db, method: chown}]}]\n"
    applied(root, "strategy: per-container\nengines: []\n" + said)
    assert points(root) == [OURS]
    assert (owner(root / "srv/web/file"), owner(root / "srv/db/file")) == (
        (33, 34),
        (589824, 589824),
    )
    write(run("export", root=root))
    run("plan", "--check", "--prune", root=root)


def test_auto_mounts_where_that_is_possible(root: Path) -> None:
    volume = "{path: /srv/web, mode: shift, method: auto}"
    applied(
        root,
        f"strategy: per-container\nengines: []\ncontainers: [{{name: web, volumes: [{volume}]}}]\n",
    )
    assert points(root) == [OURS]
    run("plan", "--check", "--prune", root=root)


# A kill.


@pytest.mark.parametrize("calls", [MOUNTING, *slow(((*CALLS, *MOUNTING),))], ids=["few", "all"])
def test_after_a_kill_anywhere_the_same_command_makes_all_right(
    tmpfs: Path, tmp_path: Path, calls: tuple[str, ...]
) -> None:
    first, then = tmp_path / "first.yaml", tmp_path / "then.yaml"
    first.write_text(FILE)
    # One mount moves, one goes, and one stays.
    kept = [line for line in FILE.splitlines() if "/mnt/ro" not in line]
    then.write_text("\n".join(kept).replace("/mnt/db", "/mnt/else"))
    fix = ("--yes", "--fix-volumes", "--prune")

    def ground(server: Prefork, name: str) -> tuple[Path, tuple[str, ...]]:
        root = tmpfs / f"apply-{len(calls)}-{name}"
        (root / "srv").mkdir(parents=True)
        (root / "etc").mkdir()
        prepared(root)
        assert server.run("apply", str(first), *fix, "--root", str(root)).status == 0
        return root, ("apply", str(then), *fix, "--root", str(root))

    def check(server: Prefork, number: int, place: Place) -> None:
        root, words = ground(server, f"{place}-{number}")
        try:
            if was_killed(strike(server, words, place, "signal=KILL")):
                killed.append(place)
            done = server.run(*words)
            assert done.status == 0, done
            assert sorted(points(root)) == ["mnt/else", OURS]
            planned = ("plan", str(then), "--check", "--prune", "--root", str(root))
            assert server.run(*planned).status == 0
        finally:
            take_down(root)

    killed: list[Place] = []
    with prefork() as server:
        whole, words = ground(server, "whole")
        every = sample(places(server, words, calls), 3)
        take_down(whole)
    share_out(every, check)
    assert {place.call for place in killed} >= {*MOUNTING}


# A lost ledger.


def mounts_of(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(m["path"], m["source"]["path"], m["container"]) for m in document["mounts"]]


def test_a_rebuilt_ledger_has_the_mounts_that_the_last_runs_made(root: Path) -> None:
    applied(root)
    # Made, gone with a boot, made again, and moved: the last run at a place counts.
    subprocess.run(["umount", root / "mnt/ro"], check=True)
    applied(root)
    applied(root, FILE.replace("at: /mnt/db", "at: /mnt/else"))
    (root / LEDGER).unlink()
    expected = [
        (f"{root}/mnt/else", f"{root}/srv/db", "db"),
        (f"{root}/mnt/ro", f"{root}/srv/web", "web"),
        (f"{root}/{OURS}", f"{root}/srv/web", "web"),
    ]
    shown = told("ledger", "rebuild", "--dry-run", root=root)
    assert mounts_of(shown) == expected
    assert (shown["volumes"], points(root)) == ([], points(root))
    text = run("ledger", "rebuild", "--yes", root=root)
    assert "/mnt/else" in text
    run("plan", "--check", "--prune", root=root)
    # Each can be taken away again, and a rebuilt ledger does not have it then.
    write("strategy: per-container\nengines: []\ncontainers: [web, db]\n")
    run("apply", "--yes", "--prune", root=root)
    assert points(root) == []
    (root / LEDGER).unlink()
    assert mounts_of(told("ledger", "rebuild", "--yes", root=root)) == []
