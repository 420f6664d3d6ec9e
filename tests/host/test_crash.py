"""A kill at every system call that changes something: the next run completes or puts back, and says so.

strace kills the process on entry to its n-th call of each kind, for every n until a run gets through, so that every
boundary between two changes of the disk is visited once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
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
    "allocate": Case(
        ("allocate", "--strategy", "per-container", "web"), ("allocate", "--strategy", "per-container", "db")
    ),
    "docker": Case((), ("allocate", "--strategy", "shared", "--dockerroot", "7")),
    "release": Case(("allocate", "--strategy", "shared"), ("release", "default", "--yes")),
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


def traced(root: Path, case: Case, calls: str, *more: str) -> int:
    """Run the command on ``root`` under strace; its exit status."""
    words = ["strace", "-f", "-qq", "-o", f"{root}.trace", "-e", f"trace={calls}", *more]
    run = [*words, *PROGRAM, *case.command, "--root", str(root)]
    return subprocess.run(run, capture_output=True, check=False, timeout=120).returncode


def places(template: Path, case: Case) -> list[tuple[str, int]]:
    """Every call of a run that gets through, by kind and number."""
    root = template.parent / "whole"
    shutil.copytree(template, root)
    assert traced(root, case, ",".join(CALLS)) == 0
    names = [line.split()[1].split("(")[0] for line in Path(f"{root}.trace").read_text().splitlines()]
    counts = Counter(name for name in names if name in CALLS)
    return [(call, number) for call, count in counts.items() for number in range(1, count + 1)]


def killed_everywhere(template: Path, case: Case) -> Iterator[tuple[str, Path]]:
    """Yield a root for each place at which the command was killed."""

    def kill(place: tuple[str, int]) -> tuple[str, Path]:
        call, number = place
        root = template.parent / f"{call}{number}"
        shutil.copytree(template, root)
        status = traced(root, case, call, "-e", f"inject={call}:signal=KILL:when={number}")
        assert status in {-9, 137}, f"{place}: {status}"
        return f"{call} {number}", root

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(kill, places(template, case))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_after_a_kill_anywhere_the_next_run_leaves_all_or_nothing(case: Case, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("strace is missing")
        pytest.skip("strace is not installed")
    host(tmp_path / "before", case)
    before = seen(tmp_path / "before")
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    here(*case.command, "--root", tmp_path / "after")
    after = seen(tmp_path / "after")
    assert before != after
    (tmp_path / "kills").mkdir()
    shutil.copytree(tmp_path / "before", tmp_path / "kills/template")
    kills, outcomes = 0, set()
    words = case.before or case.command
    strategy = words[words.index("--strategy") + 1]
    for place, root in killed_everywhere(tmp_path / "kills/template", case):
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
