"""--root is a boundary, even if a process exchanges its folders: nothing outside is touched."""

from __future__ import annotations

import copy
import fcntl
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import files_of, here, json_of, needs_root, slow
from usernsplan.errors import RefusedError
from usernsplan.host import files, locks
from usernsplan.layout import LEDGER, SUBUID, Layout
from usernsplan.ledger import open_ledger
from usernsplan.model import Actor, HistoryEntry, Intent, LedgerChange, Volume
from usernsplan.volume import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.usefixtures("volume_step")

ALLOCATE = ("allocate", "--strategy", "per-container")
STATE = "var/lib/usernsplan"
MAPS = ("--uid-map", "0:100000:65536", "--gid-map", "0:100000:65536")
OUTSIDE = "mallory:589824:65536\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "host"
    (root / "etc").mkdir(parents=True)
    (root / "etc/subuid").write_text("alice:100000:65536\n")
    (root / "etc/subgid").write_text("alice:100000:65536\n")
    (root / "srv/vol").mkdir(parents=True)
    (root / "srv/vol/file").touch()
    here(*ALLOCATE, "old", "--root", root)
    return root


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A host like ours, whose files show whether they were read."""
    outside = tmp_path / "outside"
    (outside / "etc").mkdir(parents=True)
    for name in ("subuid", "subgid"):
        (outside / "etc" / name).write_text(OUTSIDE)
    (outside / "etc/passwd").write_text("mallory:x:4242:4242::/:/bin/sh\n")
    (outside / STATE / "runs").mkdir(parents=True)
    (outside / "srv/vol").mkdir(parents=True)
    (outside / "srv/vol/file").touch()
    return outside


def everything(folder: Path) -> dict[str, tuple[int, ...]]:
    """All entries below a folder with change times: a lock that came and went changes its folder."""
    found: dict[str, tuple[int, ...]] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        seen = path.lstat()
        found[str(path)] = (
            seen.st_ino,
            seen.st_mode,
            seen.st_uid,
            seen.st_size,
            seen.st_mtime_ns,
            seen.st_ctime_ns,
        )
    return found


@contextmanager
def exchanging(
    root: Path, outside: Path, names: Sequence[str], *, relative: bool
) -> Iterator[None]:
    """In the body, a process keeps exchanging each folder with a symlink to the one outside."""
    pairs = []
    for name in names:
        trap = root / f"{name}.trap"
        target = str(outside / name)
        trap.symlink_to(os.path.relpath(target, trap.parent) if relative else target)
        handle = os.open(trap.parent, os.O_RDONLY | os.O_DIRECTORY)
        pairs.append((handle, trap.name.removesuffix(".trap"), trap.name))
    child = os.fork()
    if child == 0:
        try:
            parent = os.getppid()
            for turn, pair in enumerate(itertools.cycle(pairs)):
                syscalls.exchange(*pair)
                time.sleep((0, 0.0003, 0, 0.001)[turn % 4])
                if os.getppid() != parent:
                    break
        finally:
            os._exit(1)
    try:
        yield
    finally:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the attacker has given up"
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for handle, name, link in pairs:
            if os.path.islink(f"/proc/self/fd/{handle}/{name}"):
                syscalls.exchange(handle, name, link)
            os.close(handle)


PLACES = {
    "etc": ("etc",),
    "state": (STATE,),
    "lib": ("var/lib",),
    "var": ("var",),
    "runs": (f"{STATE}/runs",),
    "all": ("etc", "var", "var/lib", STATE),
}


COMMANDS = (
    (*ALLOCATE, "web"),
    ("list", "--json"),
    ("check", "--json"),
    ("history", "--json"),
    ("whois", "589824"),
    ("release", "web"),
    ("release", "--forget", "web"),
)
FIXING = (
    ("fix-volume", "/srv/vol", *MAPS, "--yes", "--json"),
    ("check", "--json"),
    ("prune", "--older-than", "0d"),
)


def attacked(
    root: Path,
    outside: Path,
    names: Sequence[str],
    commands: Sequence[tuple[str, ...]],
    turns: int,
    *,
    relative: bool,
) -> None:
    """Run commands while folders are exchanged; everything outside stays the same."""
    (root / STATE / "runs").mkdir(exist_ok=True)
    before = everything(outside)
    with exchanging(root, outside, names, relative=relative):
        for _ in range(turns):
            for words in commands:
                out, err = here(*words, "--root", root, status=None)
                assert "Traceback" not in out + err
                assert "mallory" not in out + err
    assert everything(outside) == before


@pytest.mark.parametrize("relative", [False, *slow(True)], ids=["absolute", "relative"])
@pytest.mark.parametrize("place", ["etc", "all", *slow("state", "lib", "var", "runs")])
def test_nothing_outside_changes_while_folders_are_exchanged_with_symlinks(
    root: Path, outside: Path, place: str, relative: bool
) -> None:
    turns = 15 if os.environ.get("CI") == "true" else 4
    attacked(root, outside, PLACES[place], COMMANDS, turns, relative=relative)
    # After that, the host works.
    here("check", "--root", root, status=None)
    # Exchanging the folders of the ledger may leave halves of two ledgers; a command reports that.
    _, err = here(*ALLOCATE, "after", "--root", root, status=0 if place == "etc" else None)
    assert "Traceback" not in err


@needs_root
@pytest.mark.parametrize(
    "names", [(f"{STATE}/runs",), *slow((("srv", "srv/vol"),), ((STATE, "var"),))]
)
def test_no_journal_is_written_outside_and_no_volume_there_is_fixed(
    root: Path, outside: Path, names: Sequence[str]
) -> None:
    turns = 15 if os.environ.get("CI") == "true" else 3
    attacked(root, outside, names, FIXING, turns, relative=True)


# What usernsplan creates in the root, by command.
MADE = {
    "etc/.pwd.lock": (*ALLOCATE, "web"),
    "etc/subuid.lock": (*ALLOCATE, "web"),
    "etc/subuid.usernsplan-lock": (*ALLOCATE, "web"),
    "etc/subuid.usernsplan-new": (*ALLOCATE, "web"),
    "etc/subuid-.usernsplan-new": (*ALLOCATE, "web"),
    "etc/subuid-": (*ALLOCATE, "web"),
    f"{STATE}/ledger.sqlite3": (*ALLOCATE, "web"),
    f"{STATE}/ledger.sqlite3-journal": (*ALLOCATE, "web"),
    f"{STATE}/ledger.sqlite3-wal": (*ALLOCATE, "web"),
    f"{STATE}/ledger.sqlite3-shm": (*ALLOCATE, "web"),
    f"{STATE}/ledger.sqlite3-reserve": (*ALLOCATE, "web"),
    f"{STATE}/ledger.sqlite3.usernsplan-new": (*ALLOCATE, "web"),
    f"{STATE}/runs/lock": FIXING[0],
    f"{STATE}/runs": FIXING[0],
}


@needs_root
@pytest.mark.parametrize("place", ["state", *slow("all", "lib", "var")])
def test_no_ledger_is_rebuilt_outside(root: Path, outside: Path, place: str) -> None:
    """The ledger is rebuilt, and the damaged one kept, in the folder that was opened."""
    turns = 15 if os.environ.get("CI") == "true" else 10
    here(*ALLOCATE, "web", "--root", root)
    before = everything(outside)
    state = os.open(root / STATE, os.O_RDONLY)
    try:
        with exchanging(root, outside, PLACES[place], relative=False):
            for _ in range(turns):
                ledger = os.open(os.path.basename(LEDGER), os.O_WRONLY | os.O_TRUNC, dir_fd=state)
                os.write(ledger, b"no ledger")
                os.close(ledger)
                out, err = here("ledger", "rebuild", "--yes", "--root", root, status=None)
                assert "Traceback" not in out + err
                assert "mallory" not in out + err
    finally:
        os.close(state)
    assert everything(outside) == before


@pytest.mark.spread(5)
@pytest.mark.parametrize("name", MADE)
def test_a_symlink_where_something_is_made_makes_and_changes_nothing_outside(
    root: Path, tmp_path: Path, name: str
) -> None:
    place, words = root / name, MADE[name]
    place.parent.mkdir(parents=True, exist_ok=True)
    for target in (tmp_path / "victim", tmp_path / "new"):
        place.unlink(missing_ok=True)
        place.symlink_to(os.path.relpath(target, place.parent))
        (tmp_path / "victim").write_text("mine")
        here(*words, "--root", root, status=None)
        assert (tmp_path / "victim").read_text() == "mine"
        assert not (tmp_path / "new").exists()


def test_another_folder_with_the_name_of_the_root_is_not_taken_for_it(
    root: Path, tmp_path: Path
) -> None:
    layout = files.layout_at(str(root))
    root.rename(tmp_path / "away")
    for kind in ("symlink", "folder"):
        if kind == "symlink":
            root.symlink_to(tmp_path / "away")
        else:
            root.unlink()
            root.mkdir()
        for use in (
            lambda: files.read(layout, SUBUID),
            lambda: files.write(layout, {SUBUID: b""}),
            lambda: open_ledger(layout).state(),
            lambda: locks.subid_locks(layout).__enter__(),
        ):
            with pytest.raises(RefusedError, match="not the same folder"):
                use()
    assert list(root.iterdir()) == []


def test_folders_are_read_as_a_chroot_reads_them(tmp_path: Path) -> None:
    """NixOS has absolute symlinks to /etc/static; other links go above the root."""
    root = tmp_path / "host"
    (root / "nix/store/etc").mkdir(parents=True)
    (root / "nix/store/etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "etc").mkdir()
    (root / "etc/static").symlink_to("/nix/store/etc")
    (root / "etc/passwd").symlink_to("/etc/static/passwd")
    (root / "etc/group").symlink_to("../../../../etc/static/passwd")
    (root / "etc/up").symlink_to("..")
    layout = files.layout_at(str(root))
    for name in ("/etc/passwd", "/etc/group", "/etc/up/etc/passwd", "/../etc/static/../etc/passwd"):
        assert files.read(layout, name, follow=True) == b"root:x:0:0::/:/bin/sh\n", name
    assert files.real(layout, "/etc/up/etc/group", follow=True) == f"{root}/nix/store/etc/passwd"
    assert files.real(layout, "/etc/up/etc/group") == f"{root}/etc/group"
    assert files.real(layout, "/etc/up", follow=True) == str(root)
    assert files.real(layout, "/etc/none/../passwd/none") == f"{root}/nix/store/etc/passwd/none"
    assert files.read(layout, "/etc/passwd/none") is None
    with pytest.raises(RefusedError, match="is a symlink"):
        files.read(layout, "/etc/passwd")


@needs_root
def test_a_journal_that_names_a_volume_outside_is_not_taken_back(root: Path, outside: Path) -> None:
    here(*FIXING[0], "--root", root)
    [run] = (root / STATE / "runs").glob("2*")
    inside = json.loads((run / "run.json").read_text())
    for path in (outside / "srv/vol", root / "../outside/srv/vol"):
        seen = os.lstat(path)
        content = copy.deepcopy(inside)
        # As in older formats: a path of the machine.
        content["format"] = 2
        content["trees"] = [{"path": str(path), "device": seen.st_dev, "inode": seen.st_ino}]
        (run / "run.json").write_text(json.dumps(content))
        before = everything(outside)
        for more in ((), ("--dry-run",), ("--also-changed",)):
            _, err = here("undo", run.name, *more, "--root", root, status=9)
            assert f"which is not below --root {root}" in err or "is damaged" in err
        assert everything(outside) == before
    (run / "run.json").write_text(json.dumps(inside))
    here("undo", run.name, "--root", root)


@needs_root
def test_a_recorded_volume_behind_a_symlink_is_looked_for_in_the_root(
    root: Path, outside: Path
) -> None:
    (outside / "srv/vol/mallory").touch()
    here("fix-volume", "/srv/vol", "--container", "old", "--root", root)
    (root / "srv").rename(root / "data")
    (root / "srv").symlink_to(outside / "srv")
    out, err = here("check", "--volumes", "--root", root, status=None)
    assert "mallory" not in out + err
    (root / "srv").unlink()
    (root / "srv").symlink_to("/data")
    os.chown(root / "data/vol/file", 7, 7)
    assert "data/vol/file" in here("check", "--volumes", "--root", root, status=None)[0].replace(
        "srv/", "data/"
    )


@needs_root
@pytest.mark.parametrize(
    ("name", "uid", "gid", "mode"),
    [("", 4242, 0, 0o755), ("etc", 0, 0, 0o777), ("etc", 0, 7, 0o775)],
)
def test_useradd_is_not_run_where_others_may_exchange_what_it_opens(
    root: Path, name: str, uid: int, gid: int, mode: int
) -> None:
    os.chown(root / name, uid, gid)
    (root / name).chmod(mode)
    before = files_of(root)
    _, err = here("allocate", "--strategy", "per-container", "--root", root, status=9)
    assert "others could make" in err
    assert files_of(root) == before


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for words in (*COMMANDS, ("list", "--root-does-not-exist")):
        here(*words, "--root", root, status=None)
    assert sorted(os.listdir("/proc/self/fd")) == before


# The ledger.


def interrupted(ledger: Path, mode: str) -> None:
    """Leave a ledger as after a kill during SQLite's commit: half written, with its journal."""
    original = ledger.with_name("original")
    ledger.rename(original)
    db = sqlite3.connect(original, isolation_level=None)
    db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN")
    db.execute("DELETE FROM allocation")
    db.executemany(
        "INSERT INTO quarantine (name, held_start, held_count, since, event, was) VALUES (?, 1, 1, '', 1, '')",
        ((f"{n:0200}",) for n in range(500)),
    )
    if mode == "WAL":
        db.execute("ROLLBACK")
        db.execute(
            "INSERT INTO quarantine (name, held_start, held_count, since, event, was) VALUES ('committed', 1, 1, '', 1, '')"
        )
    for path in ledger.parent.glob("original*"):
        ledger.with_name(path.name.replace("original", ledger.name)).write_bytes(path.read_bytes())
    db.close()
    for path in ledger.parent.glob("original*"):
        path.unlink()
    ledger.with_name(f"{ledger.name}-shm").unlink(missing_ok=True)


@pytest.mark.parametrize("python", ["this", "3.10"])
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_what_a_kill_left_beside_the_ledger_of_a_host_is_taken_back_first(
    root: Path, mode: str, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk of a crashed machine is mounted elsewhere and read with --root."""
    if python == "3.10":
        monkeypatch.setattr("usernsplan.ledger.access._IN_MEMORY", False)
    ledger = root / STATE / "ledger.sqlite3"
    interrupted(ledger, mode)
    [beside] = [path.name for path in ledger.parent.iterdir() if path != ledger]
    assert beside == f"{ledger.name}-{'journal' if mode == 'DELETE' else 'wal'}"
    left = [] if mode == "DELETE" else ["committed"]
    before = files_of(ledger.parent)
    listed = json_of("list", "--root", root)
    assert [one["name"] for one in listed["allocations"]] == ["old"]
    assert [one["name"] for one in listed["quarantined"]] == left
    assert files_of(ledger.parent) == before
    here(*ALLOCATE, "web", "--root", root)
    assert [path.name for path in ledger.parent.iterdir()] == [ledger.name]
    assert [one["name"] for one in json_of("list", "--root", root)["allocations"]] == ["old", "web"]
    db = sqlite3.connect(ledger)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


def test_sqlite_opens_no_path_below_another_root(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, opened = sqlite3.connect, []

    def connect(path: str, *words: object, **more: object) -> sqlite3.Connection:
        opened.append(path)
        return really(path, *words, **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(sqlite3, "connect", connect)
    for words in COMMANDS:
        here(*words, "--root", root)
    (root / LEDGER.lstrip("/")).write_bytes(b"")
    here("ledger", "rebuild", "--yes", "--root", root)
    here("list", "--root", root)
    assert set(opened) == {":memory:"}


def test_two_who_write_the_ledger_of_another_root_follow_one_another(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("usernsplan.ledger.access._PATIENCE", 0.1)
    before = files_of(root / STATE)
    folder = os.open(root / STATE, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        _, err = here(*ALLOCATE, "web", "--root", root, status=1)
    finally:
        os.close(folder)
    assert "is locked by process" in err
    assert files_of(root / STATE) == before
    here(*ALLOCATE, "web", "--root", root)


def test_a_ledger_that_somebody_writes_in_place_is_not_read_half(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the root is that of a running container, usernsplan in it uses the same file."""
    monkeypatch.setattr("usernsplan.ledger.access._PATIENCE", 0.1)
    code = (
        "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('BEGIN EXCLUSIVE')\nprint(flush=True)\nsys.stdin.read()\ndb.execute('COMMIT')"
    )
    words = [sys.executable, "-c", code, str(root / STATE / "ledger.sqlite3")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        assert "is locked by process" in here("list", "--root", root, status=1)[1]
        writer.communicate(b"")
    assert [one["name"] for one in json_of("list", "--root", root)["allocations"]] == ["old"]


@pytest.mark.parametrize(
    "root_of", [lambda path: Layout("/", str(path)), lambda path: files.layout_at(str(path))]
)
def test_the_ledger_of_this_machine_and_of_another_root_are_the_same(
    tmp_path: Path, root_of: object
) -> None:
    """On this machine SQLite works in the file; both ways read what the file holds."""
    assert callable(root_of)
    tmp_path.joinpath("host/etc").mkdir(parents=True)
    layout = root_of(tmp_path / "host")
    change = LedgerChange(volumes=(Volume("/srv/a", "web", "own", "", "0:0"),))
    ledger = open_ledger(layout)
    ledger.begin(Intent("fix", Actor(0), change, ()))
    assert sorted(os.listdir(tmp_path / f"host{os.path.dirname(LEDGER)}")) == [
        "ledger.sqlite3",
        "ledger.sqlite3-reserve",
    ]
    for other in (Layout("/", str(tmp_path / "host")), files.layout_at(str(tmp_path / "host"))):
        assert open_ledger(other).state().interrupted
        assert open_ledger(other).pending() == Intent("fix", Actor(0), change, ())
    ledger.complete(HistoryEntry("2026-01-01T00:00:00Z", Actor(0), "fix", ()))
    for other in (Layout("/", str(tmp_path / "host")), files.layout_at(str(tmp_path / "host"))):
        assert [one.path for one in open_ledger(other).state().volumes] == ["/srv/a"]
    path = tmp_path / f"host{LEDGER}"
    assert path.stat().st_mode & 0o7777 == 0o600
    assert os.listdir(path.parent) == [path.name]
