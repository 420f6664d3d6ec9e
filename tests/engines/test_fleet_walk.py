"""Two hosts, one ledger, one shared folder: what README says of a fleet, with real containers.

The hosts have namespaces of their own. The server is outside; they reach it by its socket, in a folder that all share.
"""

from __future__ import annotations

import os
import shlex
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engines import recipes
from tests.engines.planned import usernsplan
from tests.engines.throwaway import ThrowawayHost, require
from usernsplan.host import idmap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgres import FleetOfRoots

SHARED = "/srv/shared"


def share(host: ThrowawayHost, source: Path, at: str) -> None:
    """Show a folder of the machine in a host."""
    folder = os.open(source, os.O_PATH)
    tree = idmap.copied(folder, crosses=False)

    def attach() -> None:
        Path(at).mkdir(parents=True, exist_ok=True)
        point = os.open(at, os.O_PATH)
        idmap.attach(tree, point)
        os.close(point)

    host.inside(attach)
    os.close(tree)
    os.close(folder)


@contextmanager
def two(fleet: FleetOfRoots, shared: Path) -> Iterator[tuple[ThrowawayHost, ThrowawayHost]]:
    """Two hosts of one fleet, a with an operator's role."""
    with ExitStack() as stack:
        a, b = (stack.enter_context(ThrowawayHost()) for _ in "ab")
        for name, host in (("a", a), ("b", b)):
            share(host, shared, SHARED)
            share(host, fleet.server.folder, str(fleet.server.folder))
            # An operator, because a asks b to do something.
            group = "usernsplan_operator" if name == "a" else "usernsplan_host"
            fleet.role(f"h_{name}", group)
            url = fleet.server.url_of(f"h_{name}_{fleet.database}", fleet.database, socket=True)
            host.write("/etc/machine-id", f"{name.encode().hex():0<32}\n")
            usernsplan(host, "ledger", "join", url, "--name", name)
        yield a, b


def test_a_volume_that_two_hosts_share_is_readable_on_both(
    fleet: FleetOfRoots, tmp_path: Path
) -> None:
    require("podman", "crun")
    shared = tmp_path / "shared"
    shared.mkdir()
    with two(fleet, shared) as (a, b):
        usernsplan(a, "allocate", "--strategy", "per-container", "web", "--on", "a,b")
        assert b.read("/etc/subuid") == b""
        usernsplan(b, "sync")
        assert b.read("/etc/subuid") == a.read("/etc/subuid") != b""
        usernsplan(a, "fix-volume", SHARED, "--container", "web")

        def run(host: ThrowawayHost, script: str) -> str:
            flags = usernsplan(host, "render", "podman", "web").stdout
            return recipes.podman_run(
                host, shlex.split(flags), ["sh", "-euc", script], [f"{SHARED}:/data"]
            )

        run(a, "umask 077; echo from a > /data/file")
        assert run(b, "cat /data/file; busybox stat -c %u:%g /data/file") == "from a\n0:0\n"


@pytest.mark.slow
def test_two_hosts_at_once_get_no_id_twice(fleet: FleetOfRoots, tmp_path: Path) -> None:
    with two(fleet, tmp_path) as hosts, ThreadPoolExecutor(2) as pool:

        def work(name: str, host: ThrowawayHost) -> None:
            for number in range(6):
                usernsplan(
                    host, "allocate", "--strategy", "per-container", f"{name}{number}", "web"
                )

        list(pool.map(work, "ab", hosts))
        lines = [host.read("/etc/subuid").decode().splitlines() for host in hosts]
        assert [len(one) for one in lines] == [7, 7]
        # They share the one name that both have.
        assert len({*lines[0], *lines[1]}) == 13
        starts = sorted({int(line.split(":")[1]) for one in lines for line in one})
        assert len(starts) == 13
        assert all(after - before >= 65536 for before, after in pairwise(starts))
        for host in hosts:
            assert "both have" in usernsplan(host, "ledger", "status").stdout
