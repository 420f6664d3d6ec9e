"""systemd-nspawn: the owners of the trees in /var/lib/machines, and the ranges of .nspawn files.

systemd-nspawn and systemd-nsresourced do not read subuid. A machine that is not running keeps its
range as the owner of its tree.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from usernsplan.host import files
from usernsplan.host.unread import fail, missing
from usernsplan.mapping import KINDS
from usernsplan.model import Unlisted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.host.unread import Miss
    from usernsplan.layout import Layout

PROGRAM = "systemd-nspawn"
MACHINES = "/var/lib/machines"
# The first file of a machine's name counts: settings_load in src/nspawn/nspawn.c.
SETTINGS = ("/etc/systemd/nspawn", "/run/systemd/nspawn", MACHINES)
_SUFFIX = ".nspawn"
# nspawn takes the upper half of the owner's number, the uid and the gid of the tree's root, as the
# first id of 65536: determine_uid_shift in src/nspawn/nspawn.c.
_COUNT = 65536
# Trees for all machines belong to systemd's foreign ids, and are shown with others at each start.
_FOREIGN = 2147352576


def trees(layout: Layout, miss: Miss = fail) -> tuple[Unlisted, ...]:
    """The ids of each tree. A raw image has owners of its own inside, and its file tells none."""
    found: list[Unlisted] = []
    for name in files.names(layout, MACHINES):
        path = f"{MACHINES}/{name}"
        with missing(path, miss):
            # Two names of one tree have one place.
            if files.is_symlink(layout, path):
                path = layout.below(files.real(layout, path, follow=True)) or path
            found += (
                Unlisted(PROGRAM, f"machine {name}", kind, base, base + _COUNT, name, path)
                for kind, base in zip(KINDS, _bases(layout, path), strict=True)
                if base not in {0, _FOREIGN}
            )
    return tuple(found)


def _bases(layout: Layout, path: str) -> tuple[int, int]:
    """The first uid and the first gid of a tree; 0 for anything that is no tree."""
    with files.explained(layout, path):
        try:
            # A machine may be a symlink to its tree.
            seen = files.look(layout, path, follow=True)
        except (FileNotFoundError, NotADirectoryError):
            return 0, 0
    if not stat.S_ISDIR(seen.st_mode):
        return 0, 0
    return seen.st_uid - seen.st_uid % _COUNT, seen.st_gid - seen.st_gid % _COUNT


def settings(layout: Layout, miss: Miss = fail) -> tuple[Unlisted, ...]:
    """The range of each .nspawn file that names one, as uids and as gids."""
    paths: dict[str, str] = {}
    for folder in SETTINGS:
        with missing(folder, miss):
            for name in files.names(layout, folder):
                if name.endswith(_SUFFIX):
                    paths.setdefault(name.removesuffix(_SUFFIX), f"{folder}/{name}")
    found: list[Unlisted] = []
    for machine, path in paths.items():
        with missing(path, miss):
            found += _fixed(layout, machine, path)
    return tuple(found)


def _fixed(layout: Layout, machine: str, path: str) -> Iterator[Unlisted]:
    """The range that a .nspawn file names."""
    # Imported here because few hosts have such files.
    from usernsplan.formats import nspawn_file  # noqa: PLC0415

    raw = files.read(layout, path, follow=True, largest=files.LARGEST)
    fixed = nspawn_file.private_users(raw or b"")
    # The first ids are the host's own, and a machine has them on purpose.
    if fixed and fixed.ids.start >= _COUNT:
        (start, stop), number = (fixed.ids.start, fixed.ids.stop), fixed.number
        for kind in KINDS:
            yield Unlisted(PROGRAM, f"machine {machine}", kind, start, stop, machine, path, number)
