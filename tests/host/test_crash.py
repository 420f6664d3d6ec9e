"""A kill, or a disk error, at every system call that changes something.

strace stops the process at its n-th call of each kind, for every n of a whole run, so every
boundary between two changes of the disk is tested once.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command import PROGRAM, here, missing, slow
from tests.host.struck import Case, Seen, Struck, host, seen, struck_everywhere
from usernsplan.layout import Layout
from usernsplan.ledger import open_ledger
from usernsplan.model import Actor, HistoryEntry, Intent, LedgerChange, Volume

PLAIN = {"subuid", "subgid", "docker", "passwd", "group", "userdb"}


CASES = {
    "allocate": Case(
        ("allocate", "--strategy", "per-container", "web"),
        ("allocate", "--strategy", "per-container", "db"),
    ),
    "docker": Case((), ("allocate", "--strategy", "shared", "--dockerroot", "7")),
    "release": Case(("allocate", "--strategy", "shared"), ("release", "default", "--unset-remap")),
    # Two records each: systemd looks at each 65536 ids.
    "published": Case(
        ("allocate", "--strategy", "per-container", "web", "--size", "131072"), ("release", "web")
    ),
    "publish": Case(
        ("allocate", "--strategy", "per-container", "web", "--publish", "none"),
        ("allocate", "--strategy", "per-container", "web", "--publish", "userdb"),
    ),
    # The lines of the old map go and those of the new one come; so do the records, with one name.
    "remap": Case(
        ("allocate", "--strategy", "per-container", "web"),
        ("remap", "web", "--start", "720896", "--yes"),
    ),
    "undo": Case(
        ("allocate", "--strategy", "per-container", "web"),
        ("remap", "web", "--undo", "--yes"),
        ("remap", "web", "--start", "720896", "--pass", "g:44", "--yes"),
    ),
    # No file changes: only the ledger does.
    "adopt": Case(("allocate", "--strategy", "per-container", "web"), ("adopt", "alice")),
    "slice": Case(
        ("allocate", "--strategy", "per-container", "web"),
        ("allocate", "cut", "--within", "alice", "--size", "100"),
    ),
    "rename": Case(
        ("allocate", "--strategy", "per-container", "web", "--pass", "g:44"),
        ("rename", "web", "db"),
    ),
}
# Where no file has lines that tell, the ledger is followed.
SILENT = ("publish", "adopt", "slice", "rename")


# Docker's allocation changes every kind of file; the others change fewer.
@pytest.fixture(params=["docker", *slow(*(name for name in CASES if name != "docker"))])
def case(request: pytest.FixtureRequest) -> Case:
    if shutil.which("strace") is None:
        missing("strace")
    return CASES[request.param]


@pytest.fixture
def sides(case: Case, tmp_path: Path) -> tuple[Seen, Seen]:
    """The host's files before the command, and after it."""
    host(tmp_path / "before", case)
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    here(*case.command, "--root", tmp_path / "after")
    before, after = seen(tmp_path / "before"), seen(tmp_path / "after")
    assert before != after
    return before, after


def and_then_all_is_well(struck: Struck, case: Case, sides: tuple[Seen, Seen]) -> None:
    """The command still works, and the next write removes what was left beside the files."""
    if seen(struck.root) == sides[0]:
        here(*case.command, "--root", struck.root)
        assert seen(struck.root) == sides[1], struck.place
    words = case.before or case.command
    here(
        "allocate",
        "--strategy",
        words[words.index("--strategy") + 1],
        "another",
        "--root",
        struck.root,
    )
    left = {path.name for path in (struck.root / "etc").iterdir()} - PLAIN
    assert left == {"subuid-", "subgid-", ".pwd.lock"}, struck.place
    records = struck.root / "etc/userdb"
    if records.exists():
        assert {path.suffix for path in records.iterdir()} <= {".user", ".group"}, struck.place


def test_after_a_kill_anywhere_the_next_run_leaves_all_or_nothing(
    case: Case, sides: tuple[Seen, Seen], tmp_path: Path
) -> None:
    before, after = sides
    kills, outcomes = 0, set()
    for struck in struck_everywhere(tmp_path / "kills", tmp_path / "before", case, "signal=KILL"):
        kills += 1
        assert struck.status in {-9, 137}, struck
        # No file is ever half written.
        assert (struck.root / "etc/subuid").read_text() in {before.subuid, after.subuid}, (
            struck.place
        )
        assert (struck.root / "etc/subgid").read_text() in {before.subgid, after.subgid}, (
            struck.place
        )
        assert (struck.root / "etc/docker/daemon.json").read_text() in {
            before.daemon,
            after.daemon,
        }, struck.place
        # A preview starts from the mended state.
        foretold = here(*case.command, "--dry-run", "--root", struck.root, status=None)
        # The next run asks for the impossible; it still mends the host, and reports that.
        _, said = here("release", "--forget", "nothing", "--root", struck.root, status=1)
        now = seen(struck.root)
        assert now in {before, after}, struck.place
        assert ("interrupted" in foretold[1]) == ("interrupted" in said), struck.place
        if "interrupted" in said:
            outcomes.add("completed" if "is now completed" in said else "put back")
            assert now == (after if "is now completed" in said else before), struck.place
        assert (
            here(*case.command, "--dry-run", "--root", struck.root, status=None)[0] == foretold[0]
        ), struck.place
        and_then_all_is_well(struck, case, sides)
    is_silent = case in [CASES[name] for name in SILENT]
    assert kills > (8 if is_silent else 15)
    assert outcomes <= {"completed"} if is_silent else outcomes == {"completed", "put back"}


@pytest.mark.slow
def test_an_error_of_the_disk_anywhere_leaves_the_files_as_they_were(
    case: Case, sides: tuple[Seen, Seen], tmp_path: Path
) -> None:
    before, after = sides
    failures = 0
    for struck in struck_everywhere(tmp_path / "errors", tmp_path / "before", case, "error=EIO"):
        assert "Traceback" not in struck.said, struck
        now = (struck.root / "etc/subuid").read_text(), (struck.root / "etc/subgid").read_text()
        if struck.status:
            failures += 1
            # Only the ledger's last step follows the files; if it fails, the next run does it.
            if "completes it" not in struck.said:
                assert now == (before.subuid, before.subgid), struck
                assert (struck.root / "etc/docker/daemon.json").read_text() == before.daemon, struck
        else:
            assert now == (after.subuid, after.subgid), struck
        here("release", "--forget", "nothing", "--root", struck.root, status=1)
        assert seen(struck.root) in {before, after}, struck
        and_then_all_is_well(struck, case, sides)
    assert failures > 10


# Below another root, the ledger is replaced whole; on this machine, SQLite works in the file.
IN_PLACE = """
import sys
from usernsplan.layout import Layout
from usernsplan.ledger import open_ledger
from usernsplan.model import Actor, HistoryEntry, Intent, LedgerChange, Volume
ledger = open_ledger(Layout("/", sys.argv[1]))
ledger.begin(Intent("fix", Actor(0), LedgerChange(volumes=(Volume("/new", "web", "own"),)), ()))
ledger.complete(HistoryEntry("then", Actor(0), "fix", ("+",)))
"""


@pytest.mark.parametrize("call", ["unlink", *slow("pwrite64")])
def test_after_a_kill_anywhere_the_ledger_of_this_machine_is_before_between_or_after(
    call: str, tmp_path: Path
) -> None:
    if shutil.which("strace") is None:
        missing("strace")
    ledger = open_ledger(Layout("/", str(tmp_path / "before")))
    ledger.begin(Intent("", Actor(0), LedgerChange(volumes=(Volume("/old", "web", "own"),)), ()))
    ledger.complete(HistoryEntry("", Actor(0), "", ()))
    outcomes = []
    for number in range(1, 100):
        root = tmp_path / str(number)
        shutil.copytree(tmp_path / "before", root)
        strike = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}")
        words = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            *strike,
            PROGRAM[0],
            "-c",
            IN_PLACE,
            str(root),
        ]
        status = subprocess.run(words, check=False, timeout=60).returncode
        found = [
            (sorted(one.path for one in it.state().volumes), it.pending() is not None)
            for it in (open_ledger(Layout(top, str(root))) for top in (str(root), "/"))
        ]
        assert found[0] == found[1], number
        assert found[0] in ((["/old"], False), (["/old"], True), (["/new", "/old"], False)), number
        outcomes.append(found[0])
        if status == 0:
            break
    assert outcomes[-1] == (["/new", "/old"], False)
    assert len(outcomes) > 1
