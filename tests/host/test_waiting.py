"""Whoever waits for a lock for longer than a second says for which, and who has it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import files_of, here, needs_root, slow
from usernsplan.host import waiting
from usernsplan.layout import LEDGER, RUNS

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLD = {
    "flock": "import fcntl, sys\nfile = open(sys.argv[1], 'a')\nfcntl.flock(file, fcntl.LOCK_EX)\n",
    "fcntl": "import fcntl, sys\nfile = open(sys.argv[1], 'a')\nfcntl.lockf(file, fcntl.LOCK_EX)\n",
    "pid": "import os, sys\nopen(sys.argv[1], 'w').write(str(os.getpid()))\n",
    "ledger": "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\ndb.execute('BEGIN EXCLUSIVE')\n",
}


@contextmanager
def held(how: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds a lock until its standard input is closed, here or at the end."""
    code = f"{HOLD[how]}import os\nprint('held', flush=True)\nsys.stdin.read()\n"
    code += "os.unlink(sys.argv[1])\n" if how == "pid" else ""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        yield holder


def release(holder: subprocess.Popen[str]) -> None:
    assert holder.stdin
    holder.stdin.close()


def made(root: Path) -> Path:
    """A root with an allocation and a volume that was fixed."""
    (root / "srv/vol").mkdir(parents=True)
    (root / "etc").mkdir(exist_ok=True)
    here("allocate", "--strategy", "per-container", "web", "--root", root)
    here("fix-volume", "/srv/vol", "--container", "web", "--root", root)
    return root


@needs_root
@pytest.mark.parametrize(
    ("how", "name", "words"),
    [
        ("fcntl", "/etc/.pwd.lock", ("allocate", "--strategy", "per-container", "db")),
        ("flock", f"{RUNS}/lock", ("undo", "--last")),
        ("ledger", LEDGER, ("list",)),
        *slow(
            ("pid", "/etc/subuid.lock", ("allocate", "--strategy", "per-container", "db")),
            (
                "flock",
                f"{RUNS}/lock",
                ("fix-volume", "/srv/vol", "--container", "web", "--user", "5"),
            ),
            ("flock", f"{RUNS}/lock", ("history", "--prune-runs", "--older-than", "1d")),
            ("ledger", LEDGER, ("release", "web", "--dry-run")),
        ),
    ],
)
def test_a_wait_is_told_after_a_second_with_the_lock_and_its_holder(
    tmp_path: Path,
    how: str,
    name: str,
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = made(tmp_path)
    with held(how, Path(f"{root}{name}")) as holder:
        # Held until the wait is told, however long that takes on a busy machine.
        monkeypatch.setattr(
            waiting,
            "listen",
            lambda listener: waiting._listeners.extend([listener, lambda _: release(holder)]),
        )
        monkeypatch.setattr(waiting, "_listeners", [])
        _, said = here(*words, "--root", root)
    [line] = [line for line in said.splitlines() if "waiting" in line]
    assert line.startswith(f"usernsplan: waiting: {root}{name} is ")
    assert f"process {holder.pid} (python" in line


def test_a_short_wait_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path
    (root / "etc").mkdir()
    # Longer than a busy machine takes for the rest.
    monkeypatch.setattr(waiting, "_AFTER", 60)
    with held("fcntl", root / "etc/.pwd.lock") as holder:
        threading.Timer(0.3, release, [holder]).start()
        _, said = here("allocate", "--strategy", "per-container", "db", "--root", root)
    assert "waiting" not in said


def test_who_gives_up_waiting_names_the_holder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    here("allocate", "--strategy", "per-container", "web", "--root", tmp_path)
    before = files_of(tmp_path / "etc")
    monkeypatch.setattr("usernsplan.host.locks.subid_locks.__wrapped__.__defaults__", (0.1,))
    with held("fcntl", tmp_path / "etc/.pwd.lock") as holder:
        _, said = here(
            "allocate", "--strategy", "per-container", "db", "--root", tmp_path, status=5
        )
    assert f"{tmp_path}/etc/.pwd.lock is locked by process {holder.pid}" in said
    assert files_of(tmp_path / "etc") == before


def test_a_ledger_that_stays_locked_is_an_error_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here("allocate", "--strategy", "per-container", "web", "--root", tmp_path)
    monkeypatch.setattr("usernsplan.ledger.access._PATIENCE", 0.2)
    with held("ledger", Path(f"{tmp_path}{LEDGER}")) as holder:
        _, said = here("list", "--root", tmp_path, status=1)
        assert f"is locked by process {holder.pid}" in said
    assert "web" in here("list", "--root", tmp_path)[0]


def test_a_process_that_nobody_can_see_is_told_so(tmp_path: Path) -> None:
    assert waiting.locker(os.stat(tmp_path)) == "an unknown process"


def test_to_ask_for_the_holder_drops_no_lock(tmp_path: Path) -> None:
    place = tmp_path / "lock"
    with place.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert f"process {os.getpid()}" in waiting.locker(os.stat(place))
        assert f"process {os.getpid()}" in waiting.locker(os.stat(place))


def test_what_is_waited_for_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(waiting, "_AFTER", 0.02)
    monkeypatch.setattr(waiting, "_listeners", [told.append])
    began = time.monotonic()
    assert waiting.until(lambda: "it is locked", 0.1) == "it is locked"
    assert time.monotonic() - began < 30
    assert told == ["waiting: it is locked"]
    assert waiting.until(lambda: "", 0) == ""
