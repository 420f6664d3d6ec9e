"""An error of the system at any call by which a command reads or locks: it is told with its place and a remedy.

strace strikes a command at its n-th call of each kind. Most places are met only where the slow tests run.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import here, missing, needs_root, slow
from tests.prefork import prefork
from tests.volume.struck import Place, share_out, strike, trace

if TYPE_CHECKING:
    from tests.prefork import Ended, Prefork

pytestmark = needs_root

# By which commands look, open, and lock; strace takes names that this machine lacks after a question mark.
CALLS = ("readlink", "openat", "fstat", "newfstatat", "lstat", "stat", "getdents64", "flock", "fcntl", "read", "access")
COMMANDS = {
    "list": ("list",),
    "check": ("check",),
    "allocate": ("allocate", "more", "--strategy", "per-container"),
    "fix-volume": ("fix-volume", "/srv/other", "--container", "web", "--jobs", "1"),
    "undo": ("undo", "RUN", "--jobs", "1"),
    "plan": ("plan",),
    "whois": ("whois", "524288"),
    "ledger": ("ledger", "rebuild", "--yes"),
}
STATUSES = {*range(10)}
NUMBERS = count(1)


def host(root: Path, command: str) -> tuple[str, ...]:
    """A host with some of everything; the words of the command."""
    for name in ("etc", "srv/web/sub", "srv/other/sub", "usr/bin"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "etc/usernsplan.yaml").write_text(
        "strategy: per-container\ncontainers: [{name: web, volumes: [/srv/web]}]\n"
    )
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    here("allocate", "--strategy", "per-container", "web", "--root", root)
    here("fix-volume", "/srv/web", "--container", "web", "--jobs", "1", "--root", root)
    if command == "ledger":
        os.truncate(root / "var/lib/usernsplan/ledger.sqlite3", 0)
    [run] = [path.name for path in (root / "var/lib/usernsplan/runs").iterdir() if path.name != "lock"]
    return (*(word.replace("RUN", run) for word in COMMANDS[command]), "--root", str(root))


def places(server: Prefork, words: tuple[str, ...]) -> list[Place]:
    whole = trace(server, words, ",".join(f"?{call}" for call in CALLS))
    assert whole.ended.status in {0, 1}, whole
    counts: Counter[tuple[int, str]] = Counter()
    for line in whole.trace:
        pid, _, rest = line.partition(" ")
        counts[int(pid), rest.strip().partition("(")[0]] += 1
    most: Counter[str] = Counter()
    for (_, call), number in counts.items():
        if call in CALLS:
            most[call] = max(most[call], number)
    first = {"read": 2}  # before it, the process waits for the word to begin
    return [Place(call, n) for call, found in most.items() for n in range(first.get(call, 1), found + 1)]


def is_told(ended: Ended) -> bool:
    """Whether what failed is told in words, with a remedy under it."""
    if ended.status in {0, 3} or (ended.status == 1 and not ended.err):
        return True
    lines = [line for line in ended.err.splitlines() if not line.startswith(("warning: ", "note: "))]
    first = next((line for line in lines if line.startswith("usernsplan: ")), "")
    return "[Errno" not in ended.err and ("/" in first or "PATH" in first) and "a call of the system" not in first


@pytest.mark.parametrize("blow", ["error=EIO", *slow("error=EACCES", "error=EDQUOT", "error=ENOENT", "error=EMFILE")])
@pytest.mark.parametrize("command", ["fix-volume", *slow(*(name for name in COMMANDS if name != "fix-volume"))])
def test_an_error_of_the_system_anywhere_is_told(tmp_path: Path, command: str, blow: str) -> None:
    if shutil.which("strace") is None:
        missing("strace")
    most = 1000 if os.environ.get("CI") == "true" else int(os.environ.get("USERNSPLAN_STRIKES", "2"))
    with prefork() as server:
        every = places(server, host(tmp_path / "whole", command))
    kinds: dict[str, list[Place]] = {}
    for place in every:
        kinds.setdefault(place.call, []).append(place)
    chosen = [p for found in kinds.values() for p in found[:: max(1, -(-len(found) // most))]]

    def check(server: Prefork, number: int, place: Place) -> None:
        root = tmp_path / str(number)
        words = host(root, command)
        ended = strike(server, words, place, blow).ended
        assert "Traceback" not in ended.err, ended.err
        assert ended.status in STATUSES, ended
        assert is_told(ended), ended
        shutil.rmtree(root)

    share_out(chosen, check)
