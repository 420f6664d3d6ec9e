"""The server dies and a standby takes over: nothing acknowledged is lost, and what was lost is never overwritten."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.command import PROGRAM, needs_root
from tests.host.fleet_state import ALLOCATE, is_well, ranges, run
from tests.postgres import FleetOfRoots, Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [needs_root, pytest.mark.slow]
PATIENCE = 60


class Two(NamedTuple):
    """A fleet on two servers; its hosts ask the one that writes."""

    fleet: FleetOfRoots
    primary: Postgres
    standby: Postgres

    def host(self, name: str) -> Path:
        root = self.fleet.host(name)
        login = f"h_{name}_{self.fleet.database}"
        url = (
            f"host=127.0.0.1,127.0.0.1 port={self.primary.port},{self.standby.port} "
            f"dbname={self.fleet.database} user={login} passfile={self.primary.passfile} "
            "target_session_attrs=read-write"
        )
        (root / "etc/usernsplan/config.yaml").write_text(f'ledger: "{url}"\n')
        return root

    def fail_over(self) -> None:
        """The server is dead, and the standby is promoted."""
        self.standby.promote()
        self.fleet.server = self.standby


@pytest.fixture
def two() -> Iterator[Two]:
    folder = Path(tempfile.mkdtemp(prefix="usernsplan-fleet-"))
    primary = Postgres(durable=True)
    standby = primary.standby()
    try:
        yield Two(FleetOfRoots(primary, folder), primary, standby)
    finally:
        standby.remove()
        primary.remove()
        shutil.rmtree(folder)


def until_streaming(two: Two) -> None:
    end = time.monotonic() + PATIENCE
    while not two.primary.query("SELECT * FROM pg_stat_replication WHERE state = 'streaming'"):
        assert time.monotonic() < end
        time.sleep(0.05)


def synchronous(two: Two) -> None:
    two.primary.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
    two.primary.query("SELECT pg_reload_conf()")
    until_streaming(two)
    end = time.monotonic() + PATIENCE
    while not two.primary.query("SELECT * FROM pg_stat_replication WHERE sync_state = 'sync'"):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_after_a_promotion_all_that_was_acknowledged_is_there(two: Two) -> None:
    hosts = [two.host("a"), two.host("b")]
    synchronous(two)
    # Only then it sees which standby is which.
    two.primary.query(f"GRANT pg_read_all_stats TO h_a_{two.fleet.database}")
    assert "warning" not in "".join(run(hosts[0], "ledger", "status"))
    acknowledged: dict[Path, list[str]] = {root: [] for root in hosts}
    dead = threading.Event()

    def write(root: Path) -> None:
        for number in range(200):
            name = f"{root.name}{number}"
            words = [*PROGRAM, *ALLOCATE, name, "--root", str(root)]
            done = subprocess.run(words, capture_output=True, check=False)
            if done.returncode == 0:
                acknowledged[root].append(name)
            elif dead.is_set():
                return

    writers = [threading.Thread(target=write, args=(root,)) for root in hosts]
    for one in writers:
        one.start()
    end = time.monotonic() + PATIENCE
    while min(map(len, acknowledged.values())) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    dead.set()
    two.primary.kill()
    for one in writers:
        one.join()
    two.fail_over()

    # The new server has no standby of its own.
    two.standby.query("ALTER SYSTEM SET synchronous_standby_names = ''")
    two.standby.query("SELECT pg_reload_conf()")
    for root in hosts:
        held = {name for name, *_, host, _ in two.fleet.holds() if host == root.name}
        assert {*acknowledged[root]} <= held
        run(root, "sync")
        assert {*acknowledged[root]} <= {*ranges(root)}
    is_well(two.fleet, hosts)
    for root in hosts:
        run(root, *ALLOCATE, "later")
    is_well(two.fleet, hosts)


def test_what_an_asynchronous_standby_lacks_is_told_again_and_a_clash_is_never_overwritten(
    two: Two,
) -> None:
    a, b = two.host("a"), two.host("b")
    run(a, *ALLOCATE, "early")
    until_streaming(two)
    assert "warning: " in "".join(run(a, "ledger", "status"))
    # From now on the standby hears nothing.
    end = time.monotonic() + PATIENCE
    while not two.standby.query(
        "SELECT pg_last_wal_replay_lsn() >= %s",
        *two.primary.query("SELECT pg_current_wal_lsn()")[0],
    )[0][0]:
        assert time.monotonic() < end
        time.sleep(0.05)
    two.standby.stop()
    run(a, *ALLOCATE, "web", "db")
    lost = ranges(a)
    two.primary.kill()
    two.standby.start()
    two.fail_over()
    assert {name for name, *_ in two.fleet.holds()} == {"early"}

    # Another host gets ids of one of them before a runs.
    run(b, *ALLOCATE, "other", "--start", str(lost["web"]))
    files = {name: (a / "etc" / name).read_bytes() for name in ("subuid", "subgid")}
    before = two.fleet.holds()
    _, err = run(a, "sync", status=9)
    assert "uids and gids" in err
    assert "those of 'other' on b" in err
    assert two.fleet.holds() == before
    assert files == {name: (a / "etc" / name).read_bytes() for name in files}
    assert ranges(a) == lost
    # One of the two gives way; then a tells what it holds.
    run(b, "release", "other")
    run(b, "release", "--forget", "other")
    run(a, "sync")
    is_well(two.fleet, [a, b])
    assert ranges(a) == lost
