"""A command that changes /etc and the ledger, struck at any system call that changes something.

strace strikes the process at its n-th call of each kind, for every n of a whole run.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.command import here
from tests.prefork import prefork
from tests.volume.struck import trace

if TYPE_CHECKING:
    from collections.abc import Iterator


# Every call by which a run changes a name, or the pages of the ledger. What it writes before has no
# name that anything reads.
CALLS = ("linkat", "symlinkat", "unlinkat", "renameat", "pwrite64", "ftruncate")
OTHERS = "# people\nalice:100000:65536\nbroken\nbob:200000:65536"


class Case(NamedTuple):
    """A command, and the commands that make the host on which it is killed."""

    before: tuple[str, ...]
    command: tuple[str, ...]
    then: tuple[str, ...] = ()


def host(root: Path, case: Case) -> None:
    (root / "etc/docker").mkdir(parents=True)
    (root / "etc/subuid").write_text(OTHERS)
    (root / "etc/subgid").write_text(OTHERS + "\n")
    (root / "etc/docker/daemon.json").write_text('{"debug": true}')
    (root / "etc/passwd").write_text("dockremap:x:990:990::/:/usr/sbin/nologin\n")
    (root / "etc/group").write_text("dockremap:x:990:\n")
    for words in filter(None, (case.before, case.then)):
        here(*words, "--root", root)


class Seen(NamedTuple):
    """The state that a host reports, without its times."""

    subuid: str
    subgid: str
    daemon: str
    names: tuple[str, ...]
    quarantined: tuple[str, ...]
    records: tuple[tuple[str, str], ...]


def seen(root: Path) -> Seen:
    listed = json.loads(here("list", "--json", "--root", root)[0])
    return Seen(
        (root / "etc/subuid").read_text(),
        (root / "etc/subgid").read_text(),
        (root / "etc/docker/daemon.json").read_text(),
        tuple(entry["name"] for entry in listed["allocations"]),
        tuple(entry["name"] for entry in listed["quarantined"]),
        # What systemd reads; the symlinks of numbers have the bytes of what they lead to.
        tuple(
            (path.name, path.read_text())
            for suffix in ("*.user", "*.group")
            for path in sorted((root / "etc/userdb").glob(suffix))
        ),
    )


def traced(root: Path, case: Case, calls: str, *more: str) -> tuple[int, str]:
    """Run the command on ``root`` under strace. Return its exit status and its output."""
    with prefork() as server:
        done = trace(server, (*case.command, "--root", root), calls, *more)
    return done.ended.status, done.ended.err


def places(template: Path, case: Case) -> list[tuple[str, int]]:
    """Every call of an undisturbed run, by kind and number."""
    root = template.parent / "whole"
    shutil.copytree(template, root)
    with prefork() as server:
        whole = trace(server, (*case.command, "--root", root), ",".join(CALLS))
    assert whole.ended.status == 0, whole
    names = [line.split()[1].split("(")[0] for line in whole.trace]
    counts = Counter(name for name in names if name in CALLS)
    return [(call, number) for call, count in counts.items() for number in range(1, count + 1)]


class Struck(NamedTuple):
    """A host on which the command was struck, and how the command ended."""

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
