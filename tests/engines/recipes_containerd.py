"""How containers are run with containerd and its client ctr in a throw-away host."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import platform
import tarfile
import tempfile
import time
from typing import IO, TYPE_CHECKING, NamedTuple

from tests.engines.recipes import DaemonFailed, busybox_rootfs
from tests.engines.throwaway import ThrowawayHost, require

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

# ctr knows no short names, and takes "busybox" alone for the name of an image it does not have.
IMAGE = "docker.io/library/busybox:latest"
IMAGE_TAR = "/var/lib/throwaway/containerd-image.tar"
ROOTFS = "/var/lib/throwaway/containerd-rootfs"
ROOTFS_TAR = "/var/lib/throwaway/containerd-rootfs.tar"

SOCKET = "/run/containerd/containerd.sock"
CONFIG = "/etc/throwaway/containerd.toml"

# Not the machine's configuration; and the interface for the kubelet is what takes longest to start.
CONFIG_TOML = """
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
"""

# native: plain copies, as no other snapshotter works everywhere. Shares 0: ctr asks for 1024 unless told otherwise, and
# a machine whose controllers are still those of cgroup v1 has no cpu.weight to write that to.
CTR_RUN = ("ctr", "run", "--rm", "--snapshotter=native", "--cpu-shares=0")

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_numbers = itertools.count(1)


class Containerd(NamedTuple):
    """A running containerd."""

    host: ThrowawayHost
    log: IO[bytes]

    def run(self, flags: Sequence[str], argv: Sequence[str]) -> str:
        """Run a command in a container; ``flags`` are those of ctr run. With an id map the runtime is always runc."""
        command = [*CTR_RUN, *flags, IMAGE, f"throwaway{next(_numbers)}", *argv]
        return self.host.run(*command).stdout

    def read_log(self) -> str:
        """Return what the daemon said so far."""
        # pread, because a seek would move the place at which the daemon writes: it shares the open file.
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode(errors="replace")


@contextlib.contextmanager
def containerd(host: ThrowawayHost, timeout: float = 30, user: str = "") -> Iterator[Containerd]:
    """Run containerd with a busybox image in it, from start to orderly stop; one at a time in a host.

    ``user`` is the one that the image names, as USER of a Dockerfile does.
    """
    require("containerd", "containerd-shim-runc-v2", "ctr", "runc")
    host.write(CONFIG, CONFIG_TOML)
    with tempfile.TemporaryFile() as log:
        process = host.popen("containerd", "--config", CONFIG, stdout=log, stderr=log)
        daemon = Containerd(host, log)
        try:
            # Made while the daemon starts.
            _image_tar(host, user)
            _wait_until_up(daemon, process, timeout)
            host.run("ctr", "image", "import", "--snapshotter=native", IMAGE_TAR)
            yield daemon
        finally:
            process.terminate()
            process.wait(timeout=timeout)


def _image_tar(host: ThrowawayHost, user: str) -> None:
    """Make what docker save would write, of a single layer."""
    if not host.exists(ROOTFS_TAR):
        busybox_rootfs(host, ROOTFS)
        host.run("tar", "-C", ROOTFS, "-cf", ROOTFS_TAR, ".")
    layer = host.read(ROOTFS_TAR)
    machine = platform.machine()
    config = {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "User": user},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        _add(tar, "layer.tar", layer)
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    host.write(IMAGE_TAR, archive.getvalue())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _wait_until_up(daemon: Containerd, process: subprocess.Popen[str], timeout: float) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        # The socket is there before anybody answers on it; but asking costs a start of the client.
        if (
            daemon.host.exists(SOCKET)
            and daemon.host.run("ctr", "version", check=False).returncode == 0
        ):
            return
        time.sleep(0.02)
    raise DaemonFailed(daemon.read_log())
