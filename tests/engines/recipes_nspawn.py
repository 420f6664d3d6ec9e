"""How systemd-nspawn is run in a throw-away host, with flags or with a .nspawn file."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tests.engines.recipes import busybox_rootfs
from tests.engines.throwaway import CommandFailed, ThrowawayHost, require

if TYPE_CHECKING:
    from collections.abc import Sequence

# nspawn looks into the tree for a systemd to see which control groups it knows, finds none, and gives it the old ones:
# on a machine that still mounts those, it would leave folders in the machine's own hierarchy name=systemd.
NSPAWN_ENVIRONMENT = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}

# Neither machined nor systemd runs here to register with.
NSPAWN = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit")

SETTINGS_FOLDER = "/etc/systemd/nspawn"

_numbers = itertools.count(1)


def nspawn_run(
    host: ThrowawayHost,
    flags: Sequence[str],
    argv: Sequence[str],
    settings: str | None = None,
    machine: str = "web",
) -> str:
    """Run a command with systemd-nspawn, in a tree of its own that belongs to host root.

    ``settings`` is the text of a .nspawn file. It is then read as systemd-nspawn@.service reads it, and a line in it
    that nspawn does not understand fails the test: nspawn itself would go on without it. Flags have no effect on what
    the file sets.
    """
    require("systemd-nspawn")
    # Below /tmp, because the overlay of / cannot be mounted with an id map; new each time, because nspawn may chown it.
    tree = f"/tmp/throwaway-nspawn-{next(_numbers)}"
    busybox_rootfs(host, tree)
    # A pipe and not a terminal: no carriage returns, and errors stay apart.
    command = [*NSPAWN, "--pipe", f"--directory={tree}", f"--machine={machine}"]
    if settings is None:
        return host.run(*command, "--settings=no", *flags, *argv, env=NSPAWN_ENVIRONMENT).stdout
    file = f"{SETTINGS_FOLDER}/{machine}.nspawn"
    host.write(file, settings)
    result = host.run(*command, "-U", "--settings=override", *flags, *argv, env=NSPAWN_ENVIRONMENT)
    if f"{file}:" in result.stderr:
        raise CommandFailed("a line of the .nspawn file was not understood", result)
    return result.stdout
