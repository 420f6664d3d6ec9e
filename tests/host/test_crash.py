"""A kill at every system call that changes something: the next run completes or puts back, and says so.

strace kills the process on entry to its n-th call of each kind, for every n until a run gets through, so that every
boundary between two changes of the disk is visited once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.command import PROGRAM, here

if TYPE_CHECKING:
    from collections.abc import Iterator

# Every call by which a run changes a name, or the ledger's pages; what it writes before has no name yet that is read.
CALLS = ("link", "unlink", "rename", "pwrite64", "ftruncate")
PLAIN = {"subuid", "subgid", "docker", "passwd", "group"}
OTHERS = "# people\nalice:100000:65536\nbroken\nbob:200000:65536"


class Case(NamedTuple):
    """A command, and the words that made the host on which it is killed."""

    before: tuple[str, ...]
    command: tuple[str, ...]


CASES = {
    "allocate": Case((), ("allocate", "--strategy", "per-container", "web", "db")),
    "second": Case(
        ("allocate", "--strategy", "per-container", "web"), ("allocate", "--strategy", "per-container", "db")
    ),
    "docker": Case((), ("allocate", "--strategy", "shared", "--dockerroot", "7")),
    "undocker": Case(("allocate", "--strategy", "shared"), ("release", "default", "--yes")),
    "release": Case(("allocate", "--strategy", "per-container", "web"), ("release", "web")),
}


def host(root: Path, case: Case) -> None:
    (root / "etc/docker").mkdir(parents=True)
    (root / "etc/subuid").write_text(OTHERS)
    (root / "etc/subgid").write_text(OTHERS + "\n")
    (root / "etc/docker/daemon.json").write_text('{"debug": true}')
    (root / "etc/passwd").write_text("dockremap:x:990:990::/:/usr/sbin/nologin\n")
    (root / "etc/group").write_text("dockremap:x:990:\n")
    if case.before:
        here(*case.before, "--root", root)


class Seen(NamedTuple):
    """What a host says, apart from when it was said."""

    subuid: str
    subgid: str
    daemon: str
    names: tuple[str, ...]
    quarantined: tuple[str, ...]


def seen(root: Path) -> Seen:
    listed = json.loads(here("list", "--json", "--root", root)[0])
    return Seen(
        (root / "etc/subuid").read_text(),
        (root / "etc/subgid").read_text(),
        (root / "etc/docker/daemon.json").read_text(),
        tuple(entry["name"] for entry in listed["allocations"]),
        tuple(entry["name"] for entry in listed["quarantined"]),
    )


def killed_everywhere(case: Case, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Yield a root for each place at which the command was killed."""
    template = tmp_path / "template"
    host(template, case)
    for call in CALLS:
        for number in range(1, 60):
            root = tmp_path / f"{call}{number}"
            shutil.copytree(template, root, symlinks=True)
            words = [*PROGRAM, *case.command, "--root", str(root)]
            inject = f"inject={call}:signal=KILL:when={number}"
            traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, *words]
            status = subprocess.run(traced, capture_output=True, check=False, timeout=60).returncode
            if status == 0:
                shutil.rmtree(root)
                break
            assert status in {-9, 137}, status
            yield f"{call} {number}", root


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_after_a_kill_anywhere_the_next_run_leaves_all_or_nothing(case: Case, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("strace is missing")
        pytest.skip("strace is not installed")
    (tmp_path / "before").mkdir()
    host(tmp_path / "before", case)
    before = seen(tmp_path / "before")
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    here(*case.command, "--root", tmp_path / "after")
    after = seen(tmp_path / "after")
    assert before != after
    (tmp_path / "kills").mkdir()
    kills, outcomes = 0, set()
    words = case.before or case.command
    strategy = words[words.index("--strategy") + 1]
    for place, root in killed_everywhere(case, tmp_path / "kills"):
        kills += 1
        # Never half a file, at any moment.
        assert (root / "etc/subuid").read_text() in {before.subuid, after.subuid}, place
        assert (root / "etc/subgid").read_text() in {before.subgid, after.subgid}, place
        assert (root / "etc/docker/daemon.json").read_text() in {before.daemon, after.daemon}, place
        # The next run wants something that cannot be; it mends all the same, and says so.
        _, said = here("release", "--forget", "nothing", "--root", root, status=1)
        now = seen(root)
        assert now in {before, after}, place
        if "interrupted" in said:
            outcomes.add("completed" if "is now completed" in said else "put back")
            assert now == (after if "is now completed" in said else before), place
        if now == before:
            here(*case.command, "--root", root)
            assert seen(root) == after, place
        # Whatever a killed run left beside the files is gone when another has written them.
        here("allocate", "--strategy", strategy, "another", "--root", root)
        left = {p.name for p in (root / "etc").iterdir()} - PLAIN
        assert left == {"subuid-", "subgid-", ".pwd.lock"}, place
        shutil.rmtree(root)
    assert kills > 20
    assert outcomes == ({"completed"} if case.command[0] == "release" else {"completed", "put back"})
