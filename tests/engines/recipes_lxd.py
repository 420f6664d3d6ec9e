"""How LXD is run in a throw-away host: the daemon, a small image, and containers with a test's own config.

Up in less than a second; a container takes half a second more, and one that does not start five.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import tempfile
import time
from typing import IO, TYPE_CHECKING, NamedTuple

from tests.engines import recipes
from tests.engines.recipes import DaemonFailed, Maps
from tests.engines.throwaway import ThrowawayHost, require

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

IMAGE = "busybox"
LXD_DIR = "/var/lib/lxd"  # the daemon's own default, so that the client needs no environment
UNPACKED = "/var/lib/throwaway/lxd-image"

METADATA = f"architecture: {os.uname().machine}\ncreation_date: 1\n"

# SIGPWR is how LXD asks a container to end; a shell that waits for a child in the background hears it at once.
INIT = """#!/bin/sh
trap exit PWR
sleep 1000000 &
wait
"""

# No network: it would want dnsmasq and a firewall, and shows nothing about ids. No autostart: a daemon that is started
# again, with other subordinate ids, would try for half a minute to start what ran before.
PRESEED = """
storage_pools:
- {name: default, driver: dir}
profiles:
- name: default
  config: {boot.autostart: "false"}
  devices:
    root: {type: disk, path: /, pool: default}
"""

_numbers = itertools.count(1)


class StartFailed(RuntimeError):  # noqa: N818 - it says what is the case, as the package's own exceptions do
    """A container did not start; the message is the client's word and the container's log, where the reason stands."""


class Lxd(NamedTuple):
    """A running LXD daemon."""

    host: ThrowawayHost

    def create(self, config: str) -> str:
        """Make a container from YAML as ``lxc init`` reads it (config:, devices:), and return its name."""
        name = f"throwaway{next(_numbers)}"
        self.host.run("lxc", "init", IMAGE, name, input=config)
        return name

    def start(self, name: str) -> Maps:
        """Start a container, and return the maps of its first process as the host sees them."""
        # A busy daemon may still be at the end of the last stop.
        for _ in range(20):
            result = self.host.run("lxc", "start", name, check=False)
            if "already running" not in result.stderr:
                break
            time.sleep(0.2)
        if result.returncode != 0:
            log = self.host.run("lxc", "info", name, "--show-log", check=False).stdout
            raise StartFailed(f"{result.stderr}\n{log}")
        pid = first_process(self.host, "lxc", name)
        uid_map, gid_map = (
            self.host.run("cat", f"/proc/{pid}/{kind}").stdout for kind in ("uid_map", "gid_map")
        )
        return Maps(uid_map, gid_map)

    def execute(self, name: str, argv: Sequence[str], flags: Sequence[str] = ()) -> str:
        """Run a command that prints something in a container that was started, by default as its root."""
        found = ""
        # On a busy machine, the client sometimes ends before the output has arrived.
        for _ in range(3):
            found = found or self.host.run("lxc", "exec", name, *flags, "--", *argv).stdout
        return found


@contextlib.contextmanager
def lxd(host: ThrowawayHost, timeout: float = 30) -> Iterator[Lxd]:
    """Run LXD with the host's own /etc/subuid and /etc/subgid, which it reads once: leave and enter after a change.

    On leaving it stops all containers; they are still there, stopped, when it is entered again in the same host.
    """
    require("lxd", "lxc", "newuidmap", "newgidmap", "busybox", "tar", "mountpoint")
    first = host.run("mountpoint", "-q", LXD_DIR, check=False).returncode != 0
    if first:
        host.run("mkdir", "-p", LXD_DIR)
        host.run("mount", "-t", "tmpfs", "-o", "mode=711", "tmpfs", LXD_DIR)
    with tempfile.TemporaryFile() as log:
        daemon = host.popen("lxd", "--group", "root", stdout=log, stderr=log)
        try:
            wait_until_up(host, daemon, log, timeout, "lxd")
            if first:
                host.run("lxd", "init", "--preseed", input=PRESEED)
                host.run("lxc", "image", "import", _image(host), "--alias", IMAGE)
            yield Lxd(host)
        finally:
            # SIGTERM would leave the containers running.
            daemon.send_signal(signal.SIGPWR)
            daemon.wait(timeout=timeout)


def first_process(host: ThrowawayHost, client: str, name: str) -> int:
    """The pid of a container that was started, with the client of LXD or Incus."""
    pid = 0
    # A busy daemon says 0 for a container that it has just started.
    for _ in range(20):
        state = json.loads(host.run(client, "query", f"/1.0/instances/{name}/state").stdout)
        pid = state["pid"]
        if pid > 0:
            break
        time.sleep(0.1)
    return pid


def wait_until_up(
    host: ThrowawayHost,
    daemon: subprocess.Popen[str],
    log: IO[bytes],
    timeout: float,
    *admin: str,
) -> None:
    """Wait for a daemon of LXD or Incus, with the command ``admin``."""
    end = time.monotonic() + timeout
    while time.monotonic() < end and daemon.poll() is None:
        # One second at a time: waitready does not notice that the daemon has died.
        if host.run(*admin, "waitready", "--timeout=1", check=False).returncode == 0:
            return
    # pread, because a seek would move the place at which the daemon writes: it shares the open file.
    raise DaemonFailed(
        os.pread(log.fileno(), os.fstat(log.fileno()).st_size, 0).decode(errors="replace")
    )


def _image(host: ThrowawayHost) -> str:
    """Pack the root file system as a unified image: metadata.yaml beside rootfs, with something for /sbin/init."""
    host.run("mkdir", "-p", f"{UNPACKED}/rootfs/sbin")
    host.run("cp", "-a", f"{recipes._rootfs(host)}/.", f"{UNPACKED}/rootfs")
    host.write(f"{UNPACKED}/rootfs/sbin/init", INIT, mode=0o755)
    host.write(f"{UNPACKED}/metadata.yaml", METADATA)
    host.run("tar", "-C", UNPACKED, "-cf", f"{UNPACKED}.tar", "metadata.yaml", "rootfs")
    return f"{UNPACKED}.tar"
