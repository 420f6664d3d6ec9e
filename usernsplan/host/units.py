"""Our unit files of systemd: written, enabled and removed without systemctl, so below a root too."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.formats import unit_file
from usernsplan.host import files
from usernsplan.host.mounts import parse

if TYPE_CHECKING:
    from usernsplan.layout import Layout

UNITS = "/etc/systemd/system"
# The target that starts a unit at boot.
BOOT = "multi-user.target"
# Where systemd itself is, on hosts with and without a merged /usr.
_SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
# sd_booted(3): systemd is the manager of this host.
_RUNS = "/run/systemd/system"
# In a mount namespace of its own, on a file system that can have a map. Argument: an empty folder.
_TRY = """
mount -t tmpfs tmpfs "$1"
mkdir "$1/source" "$1/point"
mount --bind -o X-mount.idmap=b:0:589824:1 "$1/source" "$1/point"
exec cat /proc/self/mountinfo
"""


def path_of(name: str) -> str:
    """The path of a unit, below the root."""
    return f"{UNITS}/{name}"


def has_systemd(layout: Layout) -> bool:
    """Tell whether systemd is installed below a root."""
    return any(files.exists(layout, path) for path in _SYSTEMD)


def honours_idmap() -> bool:
    """Tell whether mount(8) of this machine makes idmapped mounts; before 2.39 it ignores the option."""
    words = ("unshare", "--mount", "--propagation", "private", "sh", "-euc", _TRY, "sh")
    import tempfile  # noqa: PLC0415 - seldom needed

    with tempfile.TemporaryDirectory() as folder, suppress(OSError):
        _, said, _ = _output(*words, folder)
        point = f"{os.path.realpath(folder)}/point"
        # The kernel does not escape a CR in a path, so only LF ends a line.
        found = map(parse, filter(None, said.split("\n")))
        return any(mount.is_idmapped for mount in found if mount.point == point)
    return False


def problem(layout: Layout, name: str, target: str = BOOT) -> str:
    """What keeps a unit of ours from its work, as the end of a sentence about it; "" if nothing."""
    if is_foreign(layout, name):
        return "was changed, or somebody else wrote it"
    if body(layout, name) is None:
        return "is missing"
    return "" if not target or _is_enabled(layout, name, target) else "is not enabled"


def is_foreign(layout: Layout, name: str) -> bool:
    """Tell whether a unit is there that we did not write, or that somebody changed."""
    return files.exists(layout, path_of(name)) and body(layout, name) is None


def body(layout: Layout, name: str) -> str | None:
    """What systemd reads of a unit of ours; None if it is missing, changed, or somebody else's."""
    raw = None if files.is_symlink(layout, path_of(name)) else files.read(layout, path_of(name))
    return None if raw is None else unit_file.body_of(raw.decode(errors="replace"))


def write(layout: Layout, name: str, text: str, target: str = BOOT) -> None:
    """Write a unit, let a target want it ("": none), and let systemd know."""
    files.make_folder(layout, UNITS)
    files.write(layout, {path_of(name): text.encode()}, mode=0o644)
    if target:
        link = _link(name, target)
        files.make_folder(layout, os.path.dirname(link))
        with files.explained(layout, link), files.pinned(layout, link) as place:
            with suppress(FileExistsError):
                os.symlink(path_of(name), place.name, dir_fd=place.folder)
            files.sync_folder(place.folder)
    _tell(layout, "daemon-reload")


def begin(layout: Layout, name: str) -> None:
    """Let systemd start a unit now, and not only at the next boot."""
    _tell(layout, "start", name)


def remove(layout: Layout, name: str, target: str = BOOT) -> None:
    """Disable and remove a unit; systemd keeps what it has read until ``forget``."""
    # A unit that is enabled and missing is an error at boot; the other way round it is none.
    for path in (_link(name, target), path_of(name)):
        with suppress(FileNotFoundError), files.pinned(layout, path) as place:
            os.unlink(place.name, dir_fd=place.folder)
            files.sync_folder(place.folder)


def forget(layout: Layout, name: str) -> None:
    """Let systemd forget a unit that was removed, after its mount is gone."""
    _tell(layout, "stop", name)
    _tell(layout, "daemon-reload")
    # It stays in the list of units if it failed at boot.
    _tell(layout, "reset-failed", name)


def _link(name: str, target: str) -> str:
    return f"{UNITS}/{target}.wants/{name}"


def _is_enabled(layout: Layout, name: str, target: str) -> bool:
    try:
        with files.pinned(layout, _link(name, target)) as place:
            return os.readlink(place.name, dir_fd=place.folder) == path_of(name)
    except OSError:
        return False


def _tell(layout: Layout, *words: str) -> None:
    """Give systemd a command, if it runs this host. The unit is on disk all the same."""
    if layout.is_host and os.path.isdir(_RUNS):
        with suppress(OSError):
            _output("systemctl", *words)


def _output(*words: str) -> tuple[int, str, str]:
    from usernsplan.host import programs  # noqa: PLC0415 - most runs start no program

    return programs.output(words)
