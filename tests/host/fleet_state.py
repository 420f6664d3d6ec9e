"""What holds of a fleet after each run of its hosts, whatever broke before it; and how to break one."""

from __future__ import annotations

import gc
import os
from itertools import combinations
from typing import TYPE_CHECKING, Any

from tests.command import here
from tests.documents import document_in

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.postgres import FleetOfRoots

# How a process ends that a test killed.
DIED = 9
ALLOCATE = ("allocate", "--strategy", "per-container")


def run(root: Path, *words: str, status: int | None = 0) -> tuple[str, str]:
    return here(*words, "--root", root, status=status)


def told(root: Path, *words: str, status: int | None = 0) -> dict[str, Any]:
    return document_in(run(root, *words, "--json", status=status)[0])


def ranges(root: Path) -> dict[str, int]:
    """The first host id of each name."""
    found = told(root, "list")["allocations"]
    return {one["name"]: one["uid_map"][0]["host"] for one in found}


def kept(root: Path) -> set[tuple[str, int]]:
    """The quarantined ranges of a host."""
    return {(one["name"], one["range"]["start"]) for one in told(root, "list")["quarantined"]}


def is_well(fleet: FleetOfRoots, roots: Iterable[Path]) -> None:
    """Files, ledger and server agree on each host, and no id has two names."""
    # A command in this process leaves its connection to the collector; a server has only so many.
    gc.collect()
    every = {root: ranges(root) for root in roots}
    for root, has in every.items():
        assert told(root, "ledger", "status")["standing"] == "agrees"
        for name in ("subuid", "subgid"):
            lines = (root / "etc" / name).read_text().splitlines()
            assert sorted(lines) == sorted(
                f"usernsplan-{name}:{start}:65536" for name, start in has.items()
            )
        records = {path.stem for path in (root / "etc/userdb").glob("usernsplan-*.user")}
        assert records == {f"usernsplan-{name}" for name in has}
        holds = {
            (name, kind, start, state)
            for name, kind, start, _, host, state in fleet.holds()
            if host == root.name and state != "wanted"
        }
        assert holds == {
            (name, kind, start, state)
            for kind in ("uid", "gid")
            for several, state in ((has.items(), "held"), (kept(root), "quarantined"))
            for name, start in several
        }
    of_name = {(name, start) for has in every.values() for name, start in has.items()}
    for (name, start), (other, other_start) in combinations(sorted(of_name), 2):
        assert name != other, "a name has two ranges"
        assert start + 65536 <= other_start or other_start + 65536 <= start
    assert fleet.query("SELECT * FROM usernsplan.intent") == []


def killed(steps: Iterable[tuple[Any, str]], root: Path, at: int, *words: str) -> bool:
    """Run a command in a process that dies before its step of this number; False if it has not so many.

    ``steps`` are functions, each with the place where it is looked up.
    """
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == DIED
    left = [at]

    def counted(function: Any) -> Any:  # noqa: ANN401 - any of the steps
        def step(*given: Any, **named: Any) -> Any:  # noqa: ANN401
            left[0] -= 1
            if left[0] < 0:
                os._exit(DIED)
            return function(*given, **named)

        return step

    for place, name in steps:
        setattr(place, name, counted(getattr(place, name)))
    try:
        run(root, *words, status=None)
    finally:
        os._exit(0)
