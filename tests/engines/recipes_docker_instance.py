"""How several Docker daemons are run at once in a throw-away host, each with a config file and an id range of its own.

What two daemons must not have in common: exec-root (the second one waits 15 s for a containerd of its own and gives
up), pidfile (the second one refuses to start), hosts (the second one takes the socket away from the first, without a
word) and the bridge (both hand out the same addresses on docker0). In data-root each id range has a folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from tests.engines import recipes
from tests.engines.throwaway import ThrowawayHost, require

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence

# What a daemon needs in a throw-away host. It refuses to start if a flag names a key of its config file, whatever the
# values are; so each of these is given only where the file does not.
OWN_FLAGS = {"iptables": "false", "ip6tables": "false", "storage-driver": "vfs"}

# Where the machine's containerd answers, and where a daemon looks for one before it starts its own.
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"


class Instance(NamedTuple):
    """A running dockerd that answers on an address of its own."""

    host: ThrowawayHost
    address: str
    log: IO[bytes]

    def docker(self, *argv: str) -> str:
        """Let the client say something to this daemon."""
        return self.host.run("docker", "-H", self.address, *argv).stdout

    def run(
        self,
        argv: Sequence[str],
        volumes: Sequence[str] = (),
        flags: Sequence[str] = ("--network=none",),
    ) -> str:
        """Run a command in a container; ``volumes`` are written as for docker's -v option."""
        return self.docker(
            "run", "--rm", *flags, *recipes._volume_flags(volumes), recipes.IMAGE, *argv
        )

    def read_log(self) -> str:
        """Return what the daemon said so far."""
        return _read(self.log)


@contextlib.contextmanager
def dockerd_instance(
    host: ThrowawayHost, config_path: str, flags: Sequence[str] = (), timeout: float = 30
) -> Iterator[Instance]:
    """Run dockerd with a config file that names one address in "hosts", from start to orderly stop."""
    require("dockerd", "docker", "containerd", "runc")
    config = json.loads(host.read(config_path))
    own = [f"--{key}={value}" for key, value in OWN_FLAGS.items() if key not in config]
    with tempfile.TemporaryFile() as log:
        daemon = host.popen(
            "dockerd", "--config-file", config_path, *own, *flags, stdout=log, stderr=log
        )
        instance = Instance(host, config["hosts"][0], log)
        try:
            _wait_until_up(daemon, lambda: _answers(instance), log, timeout)
            instance.docker("import", recipes.rootfs_tar(host), recipes.IMAGE)
            yield instance
        finally:
            _stop(instance, daemon, timeout)


@contextlib.contextmanager
def system_containerd(host: ThrowawayHost, timeout: float = 30) -> Iterator[None]:
    """Run the containerd that a booted machine has; daemons started meanwhile use it together, and start no own."""
    require("containerd", "ctr")
    with tempfile.TemporaryFile() as log:
        daemon = host.popen("containerd", stdout=log, stderr=log)

        def answers() -> bool:
            return (
                host.exists(CONTAINERD_SOCKET)
                and host.run("ctr", "version", check=False).returncode == 0
            )

        try:
            _wait_until_up(daemon, answers, log, timeout)
            yield
        finally:
            daemon.terminate()
            daemon.wait(timeout=timeout)
            # It leaves the socket behind, and a daemon that finds one waits for an answer.
            host.run("rm", "-f", CONTAINERD_SOCKET)


def unit_complaints(host: ThrowawayHost, path: str) -> list[str]:
    """Return what systemd says about a unit file; it may well say it with exit status 0, as for an unknown key."""
    require("systemd-analyze")
    said = host.run("systemd-analyze", "verify", path, check=False).stderr.splitlines()
    # It looks at what the unit depends on as well, and those files are the machine's affair.
    return [line for line in said if Path(path).name in line]


def _answers(instance: Instance) -> bool:
    """Ask, since the socket is there before anybody answers on it; but asking costs a start of the client."""
    if not instance.host.exists(instance.address.removeprefix("unix://")):
        return False
    return (
        instance.host.run("docker", "-H", instance.address, "version", check=False).returncode == 0
    )


def _wait_until_up(
    daemon: subprocess.Popen[str], answers: Callable[[], bool], log: IO[bytes], timeout: float
) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end and daemon.poll() is None:
        if answers():
            return
        time.sleep(0.02)
    raise recipes.DaemonFailed(_read(log))


def _stop(instance: Instance, daemon: subprocess.Popen[str], timeout: float) -> None:
    """Kill the containers first: the daemon gives each 10 s to hear SIGTERM, and a shell as process 1 does not."""
    client = ["docker", "-H", instance.address]
    if running := instance.host.run(*client, "ps", "--quiet", check=False).stdout.split():
        # Unchecked: one that ends in between is as good as killed.
        instance.host.run(*client, "kill", *running, check=False)
    daemon.terminate()
    daemon.wait(timeout=timeout)


def _read(log: IO[bytes]) -> str:
    # pread, because a seek would move the place at which the daemon writes: it shares the open file.
    return os.pread(log.fileno(), os.fstat(log.fileno()).st_size, 0).decode(errors="replace")
