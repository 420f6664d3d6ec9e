"""How rootful podman is run with the host's own /etc/containers, and how containers of it are kept to compare them.

``recipes.podman_run`` points podman at files of the test's own by CONTAINERS_CONF and CONTAINERS_STORAGE_CONF, and then
podman reads no others. Here it finds its files by itself: storage.conf, which must be whole (a storage.conf in
/etc/containers replaces the one in /usr/share/containers, and there is no folder of drop-ins), and containers.conf with
its containers.conf.d, where the later file wins key by key.

A test of --userns=auto should always say a size, there or in storage.conf: without one podman 4.3 counts the groups of
the file etc/group below its working directory, which here is /.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, NamedTuple

from tests.engines import recipes
from tests.engines.throwaway import ThrowawayHost, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STORAGE_CONF = "/etc/containers/storage.conf"

# The first of the drop-ins, so that whatever a test writes next to it counts for more.
SETTINGS = "/etc/containers/containers.conf.d/00-throwaway.conf"

# Counts for more than a storage.conf, which may name a driver that does not work on the file system of a host.
ENVIRONMENT = {"STORAGE_DRIVER": "vfs"}

_numbers = itertools.count(1)


class Container(NamedTuple):
    """A container that stays up until its context ends."""

    host: ThrowawayHost
    name: str

    def run(self, argv: Sequence[str]) -> str:
        """Run a command in it."""
        return self.host.run("podman", "exec", self.name, *argv, env=ENVIRONMENT).stdout


def podman_configured(
    host: ThrowawayHost, flags: Sequence[str], argv: Sequence[str], volumes: Sequence[str] = ()
) -> str:
    """Run a command with podman as /etc/containers has it; ``volumes`` are written as for its -v option."""
    _prepare(host)
    command = [
        "podman",
        "run",
        "--rm",
        *flags,
        *recipes._volume_flags(volumes),
        recipes.IMAGE,
        *argv,
    ]
    return host.run(*command, env=ENVIRONMENT).stdout


@contextlib.contextmanager
def podman_container(
    host: ThrowawayHost, flags: Sequence[str] = (), volumes: Sequence[str] = ()
) -> Iterator[Container]:
    """Keep a container running: --userns=auto hands the ids of one that is gone to the next."""
    _prepare(host)
    container = Container(host, f"throwaway{next(_numbers)}")
    named = ["--detach", "--name", container.name]
    command = [
        "podman",
        "run",
        *named,
        *flags,
        *recipes._volume_flags(volumes),
        recipes.IMAGE,
        "sleep",
        "1000",
    ]
    host.run(*command, env=ENVIRONMENT)
    try:
        yield container
    finally:
        # At once: its process 1 is sleep, which does not hear SIGTERM.
        host.run("podman", "rm", "--force", "--time=0", container.name, env=ENVIRONMENT)


def _prepare(host: ThrowawayHost) -> None:
    """Add what a host needs to whatever the test wrote, and the image to the storage that this amounts to."""
    require("podman", "crun")
    if not host.exists(STORAGE_CONF):
        host.write(STORAGE_CONF, recipes.STORAGE_CONF)
    if not host.exists(SETTINGS):
        host.write(SETTINGS, recipes.CONTAINERS_CONF)
    if not host.run("podman", "images", "-q", recipes.IMAGE, env=ENVIRONMENT).stdout:
        host.run("podman", "import", "-q", recipes.rootfs_tar(host), recipes.IMAGE, env=ENVIRONMENT)
