"""The server of a fleet is lost while a command is at work: the connection is cut, the server hangs, restarts or is full."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import files_of, needs_root
from tests.host.fleet_state import ALLOCATE, is_well, ranges, run
from tests.postgres import FleetOfRoots, Postgres
from tests.proxy import Proxy
from usernsplan import joining
from usernsplan.host.files import layout_at
from usernsplan.ledger import postgres as server_of_fleet
from usernsplan.ledger.postgres import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_root
DONE, UNREACHABLE = 0, 10
CI = os.environ.get("CI") == "true"
MOST = 400
# So many messages it takes until the server has been asked anything.
FIRST = 10


@pytest.fixture
def proxy(fleet: FleetOfRoots) -> Iterator[Proxy]:
    with Proxy(fleet.server.port) as found:
        yield found


@pytest.fixture
def host(fleet: FleetOfRoots, proxy: Proxy) -> Path:
    """A host that reaches the server by the proxy."""
    fleet.role("h_a")
    url = fleet.server.url_of(f"h_a_{fleet.database}", fleet.database, port=proxy.port)
    root = fleet.root("a", url)
    joining.join(layout_at(str(root)), url, "a")
    run(root, *ALLOCATE, "old")
    return root


def contents(root: Path) -> dict[str, bytes]:
    """Every file; the moment of the last agreement is the mtime of one."""
    return {name: found[2] for name, found in files_of(root).items()}


def ended(root: Path, *words: str) -> int:
    """The exit status of a command: done, or the server is away."""
    from tests.command import usernsplan  # noqa: PLC0415 - a process of its own has no connection left

    status = usernsplan(*words, "--root", root, status=None).returncode
    assert status in {DONE, UNREACHABLE}, words
    return status


@pytest.mark.parametrize(
    "every", [pytest.param(37, id="some"), pytest.param(1, id="each", marks=pytest.mark.slow)]
)
def test_cut_at_a_message_of_either_side(
    fleet: FleetOfRoots, host: Path, proxy: Proxy, every: int
) -> None:
    statuses = []
    for at in range(0, MOST, every):
        name = f"n{at}"
        before = contents(host)
        proxy.end_at(at)
        statuses.append(ended(host, *ALLOCATE, name))
        is_whole = proxy.seen <= at
        proxy.through()
        # The host's part of a connection that was cut ends with what holds it.
        gc.collect()
        if statuses[-1] == UNREACHABLE and at < FIRST:
            assert contents(host) == before
        run(host, "sync")
        is_well(fleet, [host])
        # What was acknowledged is there.
        if statuses[-1] == DONE:
            assert name in ranges(host)
        if is_whole:
            break
    else:
        pytest.fail("it never ends")
    assert statuses[0] == UNREACHABLE
    assert statuses[-1] == DONE


def test_a_server_that_falls_silent_is_waited_for_so_long_and_no_longer(
    fleet: FleetOfRoots, host: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_of_fleet, "PATIENCE", 0.5)
    monkeypatch.setitem(server_of_fleet._SETTINGS, "connect_timeout", 2)
    for at in (0, 12, 25) if CI else (12,):
        proxy.end_at(at, "silent")
        before = contents(host)
        run(host, *ALLOCATE, "web", status=UNREACHABLE)
        assert contents(host) == before
        proxy.through()
        run(host, "sync")
        is_well(fleet, [host])


@pytest.mark.slow
def test_a_server_that_restarts_meanwhile() -> None:
    server = Postgres(durable=True)
    folder = Path(tempfile.mkdtemp(prefix="usernsplan-fleet-"))
    try:
        fleet = FleetOfRoots(server, folder)
        root = fleet.host("a")
        rows = Server.rows
        for at in range(30):
            left = [at]

            def counted(self: Server, *given: Any) -> Any:  # noqa: ANN401 - as it is
                left[0] -= 1  # noqa: B023
                if left[0] == -1:  # noqa: B023
                    server.kill() if at % 2 else server.stop("immediate")  # noqa: B023
                    server.start()
                return rows(self, *given)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Server, "rows", counted)
                run(root, *ALLOCATE, "web", status=None)
            run(root, "sync")
            is_well(fleet, [root])
            run(root, *ALLOCATE, "web")
            run(root, "release", "web")
            run(root, "release", "--forget", "web")
            if left[0] >= 0:
                break
        else:
            pytest.fail("it never ends")
    finally:
        server.remove()
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_server_without_room(tmp_path: Path) -> None:
    # Where the server's own user gets to.
    small = Path(tempfile.mkdtemp(prefix="usernsplan-small-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=755", "tmpfs", small], check=True)
    try:
        server = Postgres(durable=True, within=small)
        fleet = FleetOfRoots(server, tmp_path)
        a = fleet.host("a")
        run(a, *ALLOCATE, "old")
        junk = small / "junk"
        with junk.open("wb") as file:
            size = os.statvfs(small).f_bavail * os.statvfs(small).f_bsize
            os.posix_fallocate(file.fileno(), 0, size)
        before = {name: (a / "etc" / name).read_bytes() for name in ("subuid", "subgid")}
        for number in range(40):
            _, err = run(a, *ALLOCATE, f"n{number}", status=None)
            if err:
                break
        after = {name: (a / "etc" / name).read_bytes() for name in before}
        assert err, "it has room for everything"
        assert "Traceback" not in err
        assert f"n{number}:" not in after["subuid"].decode()
        junk.unlink()
        if server.is_running():
            server.stop()
        server.start()
        run(a, "sync")
        is_well(fleet, [a])
        run(a, *ALLOCATE, "new")
        is_well(fleet, [a])
        server.stop()
    finally:
        subprocess.run(["umount", "-l", small], check=True)
        small.rmdir()


def test_a_server_that_only_reads(fleet: FleetOfRoots) -> None:
    a = fleet.host("a")
    run(a, *ALLOCATE, "old")
    fleet.query(f"ALTER DATABASE {fleet.database} SET default_transaction_read_only = on")
    before = contents(a)
    _, err = run(a, *ALLOCATE, "web", status=UNREACHABLE)
    assert "read-only" in err
    assert contents(a) == before
    run(a, "list")
    fleet.server.query(f"ALTER DATABASE {fleet.database} SET default_transaction_read_only = off")
    run(a, *ALLOCATE, "web")
    is_well(fleet, [a])


def test_hosts_whose_clocks_are_days_apart(
    fleet: FleetOfRoots, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = fleet.host("a", "usernsplan_operator"), fleet.host("b")
    days = {a: "2026-11-29T12:00:00Z", b: "2026-12-01T12:00:00Z"}
    for number in range(3):
        for root, now in days.items():
            monkeypatch.setattr("usernsplan.noting.now", lambda now=now: now)
            run(root, *ALLOCATE, f"{root.name}{number}", "web")
    run(a, *ALLOCATE, "db", "--on", "b")
    run(b, "sync")
    # A clock that goes back is nothing new either.
    monkeypatch.setattr("usernsplan.noting.now", lambda: "2020-01-01T00:00:00Z")
    run(b, "release", "web")
    is_well(fleet, [a, b])
    assert ranges(a)["web"] not in ranges(b).values()
