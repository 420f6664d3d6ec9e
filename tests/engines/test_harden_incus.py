"""A policy in the words of Incus and LXD, run by their daemons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engines import probe
from tests.engines.planned import allocate, usernsplan
from tests.engines.recipes_incus import incus
from tests.engines.recipes_lxd import lxd

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.engines.recipes_incus import Incus
    from tests.engines.recipes_lxd import Lxd
    from tests.engines.throwaway import ThrowawayHost

# Real daemons take their time; what they are given is tested without them.
pytestmark = pytest.mark.slow

# What Debian's package gives to root.
OF_INSTANCES = "root:1000000:1000000000\n"
KEPT = ("chown", "kill")
AX25, INET = 3, 2


@pytest.mark.parametrize(("engine", "daemon"), [("incus", incus), ("lxd", lxd)])
def test_an_instance_has_what_the_policy_gives(
    host: ThrowawayHost,
    engine: str,
    daemon: Callable[[ThrowawayHost], AbstractContextManager[Incus | Lxd]],
) -> None:
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, OF_INSTANCES)
    allocate(host, engine, "--strategy", "per-container")
    usernsplan(host, "harden", "web", "--profile", "seed", "--cap-add", ",".join(KEPT))
    path = probe.install(host)
    host.run("install", "-D", path, "/tmp/volume/probe")
    rendered = usernsplan(host, "render", engine, "web", "--volume", "/tmp/volume:/volume").stdout
    config = rendered.replace(" errno 1", f" errno {probe.OURS}")
    calls = [
        probe.call("kcmp"),
        probe.call("fanotify_init"),
        probe.socket(AX25),
        probe.socket(INET),
        probe.call("getcwd"),
    ]
    script = f"cat /proc/self/status; echo; /volume/probe {' '.join(calls)}"
    with daemon(host) as running:
        name = running.create(config)
        running.start(name)
        said, _, errnos = running.execute(name, ["sh", "-c", script]).partition("\n\n")

    mask = probe.mask(KEPT)
    assert probe.status(said) == (mask, mask, mask, 0, 1, 2)
    *denied, inet, getcwd = map(int, errnos.split())
    assert denied == [probe.OURS] * 3
    assert inet == 0
    assert getcwd not in {0, probe.OURS}
