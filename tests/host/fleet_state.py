"""What holds of a fleet after each run of its hosts, whatever broke before it."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from tests.command import here
from tests.documents import document_in

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.postgres import FleetOfRoots

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
