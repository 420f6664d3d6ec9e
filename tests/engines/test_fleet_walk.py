"""Two hosts, one ledger, one shared folder: what README says of a fleet, with real containers.

The hosts have namespaces of their own. The server is outside; they reach it by its socket, in a folder that all share.
"""

from __future__ import annotations

import os
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tests.engines import recipes
from tests.engines.planned import usernsplan
from tests.engines.throwaway import ThrowawayHost, require
from usernsplan.host import idmap

if TYPE_CHECKING:
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


def test_a_volume_that_two_hosts_share_is_readable_on_both(
    fleet: FleetOfRoots, tmp_path: Path
) -> None:
    require("podman", "crun")
    shared = tmp_path / "shared"
    shared.mkdir()
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
