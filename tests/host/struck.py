"""A command that changes /etc and the ledger, struck at any system call that changes something.

strace strikes the process at its n-th call of each kind, for every n that a whole run has.
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

from tests.command import PROGRAM, here

if TYPE_CHECKING:
    from collections.abc import Iterator


# Every call by which a run changes a name, or the ledger's pages; what it writes before has no name yet that is read.
CALLS = ("linkat", "unlinkat", "renameat", "pwrite64", "ftruncate")
OTHERS = "# people\nalice:100000:65536\nbroken\nbob:200000:65536"


class Case(NamedTuple):
    """A command, and the words that made the host on which it is killed."""

    before: tuple[str, ...]
    command: tuple[str, ...]


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


def traced(root: Path, case: Case, calls: str, *more: str) -> tuple[int, str]:
    """Run the command on ``root`` under strace; its exit status, and what it said."""
    words = ["strace", "-f", "-qq", "-o", f"{root}.trace", "-e", f"trace={calls}", *more]
    run = [*words, *PROGRAM, *case.command, "--root", str(root)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stderr


def places(template: Path, case: Case) -> list[tuple[str, int]]:
    """Every call of a run that gets through, by kind and number."""
    root = template.parent / "whole"
    shutil.copytree(template, root)
    assert traced(root, case, ",".join(CALLS))[0] == 0
    names = [
        line.split()[1].split("(")[0] for line in Path(f"{root}.trace").read_text().splitlines()
    ]
    counts = Counter(name for name in names if name in CALLS)
    return [(call, number) for call, count in counts.items() for number in range(1, count + 1)]


class Struck(NamedTuple):
    """A host on which the command was struck, and how that ended."""

    place: str
    root: Path
    status: int
    said: str


def struck_everywhere(folder: Path, before: Path, case: Case, blow: str) -> Iterator[Struck]:
    """Run the command once for each place, struck there, on a copy of ``before``."""
    folder.mkdir()
    shutil.copytree(before, folder / "template")

    def strike(place: tuple[str, int]) -> Struck:
        call, number = place
        root = folder / f"{call}{number}"
        shutil.copytree(before, root)
        return Struck(
            f"{call} {number}",
            root,
            *traced(root, case, call, "-e", f"inject={call}:{blow}:when={number}"),
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for struck in pool.map(strike, places(folder / "template", case)):
            yield struck
            shutil.rmtree(struck.root)
