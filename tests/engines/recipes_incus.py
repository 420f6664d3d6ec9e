"""How Incus is run in a throw-away host: the daemon, a small image, and containers with a test's own config.

Debian's backports have it. Up in two seconds; a container takes half a second more.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.engines import recipes_lxd
from tests.engines.recipes import Maps
from tests.engines.recipes_lxd import IMAGE, PRESEED, StartFailed
from tests.engines.throwaway import ThrowawayHost, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

INCUS_DIR = "/var/lib/incus"  # the daemon's own default, so that the client needs no environment
# Distributions keep the daemon apart from the client.
INCUSD = next(
    (
        str(path)
        for folder in ("/usr/libexec/incus", "/opt/incus/bin", "/usr/sbin", "/usr/bin")
        if (path := Path(folder, "incusd")).exists()
    ),
    "",
)

_numbers = itertools.count(1)


class Incus(NamedTuple):
    """A running Incus daemon."""

    host: ThrowawayHost

    def create(self, config: str = "") -> str:
        """Make a container from YAML as ``incus init`` reads it (config:, devices:), and return its name."""
        name = f"throwaway{next(_numbers)}"
        self.host.run("incus", "init", IMAGE, name, input=config)
        return name

    def start(self, name: str) -> Maps:
        """Start a container, and return the maps of its first process as the host sees them."""
        # A busy daemon may still be at the end of the last stop.
        for _ in range(20):
            result = self.host.run("incus", "start", name, check=False)
            if "already running" not in result.stderr:
                break
            time.sleep(0.2)
        if result.returncode != 0:
            raise StartFailed(f"{result.stderr}\n{self._log(name)}")
        pid = recipes_lxd.first_process(self.host, "incus", name)
        uid_map, gid_map = (
            self.host.run("cat", f"/proc/{pid}/{kind}").stdout for kind in ("uid_map", "gid_map")
        )
        return Maps(uid_map, gid_map)

    def _log(self, name: str) -> str:
        """The log of a container that did not start."""
        for _ in range(50):
            shown = self.host.run("incus", "info", name, "--show-log", check=False)
            if shown.returncode == 0:
                return shown.stdout
            # "Invalid PID": what is left of the container is about to end.
            time.sleep(0.1)
        return shown.stderr

    def execute(self, name: str, argv: Sequence[str], flags: Sequence[str] = ()) -> str:
        """Run a command that prints something in a container that was started, by default as its root."""
        found = ""
        # On a busy machine, the client sometimes ends before the output has arrived.
        for _ in range(3):
            found = found or self.host.run("incus", "exec", name, *flags, "--", *argv).stdout
        return found


@contextlib.contextmanager
def incus(host: ThrowawayHost, timeout: float = 30) -> Iterator[Incus]:
    """Run Incus with the host's own /etc/subuid and /etc/subgid, which it reads once: leave and enter after a change.

    On leaving it stops all containers; they are still there, stopped, when it is entered again in the same host.
    """
    if not INCUSD:
        pytest.skip("incusd is not installed")
    require("incus", "busybox", "tar", "mountpoint")
    first = host.run("mountpoint", "-q", INCUS_DIR, check=False).returncode != 0
    if first:
        host.run("mkdir", "-p", INCUS_DIR)
        host.run("mount", "-t", "tmpfs", "-o", "mode=711", "tmpfs", INCUS_DIR)
    with tempfile.TemporaryFile() as log:
        daemon = host.popen(INCUSD, "--group", "root", stdout=log, stderr=log)
        try:
            recipes_lxd.wait_until_up(host, daemon, log, timeout, "incus", "admin")
            if first:
                host.run("incus", "admin", "init", "--preseed", input=PRESEED)
                image = recipes_lxd._image(host)
                host.run("incus", "image", "import", image, "--alias", IMAGE)
            yield Incus(host)
        finally:
            # SIGTERM would leave the containers running.
            daemon.send_signal(signal.SIGPWR)
            daemon.wait(timeout=timeout)
