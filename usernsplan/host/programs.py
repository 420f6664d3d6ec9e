"""Which engines are installed below a root, told by their programs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.engines import ENGINES
from usernsplan.errors import NotPermittedError, RefusedError
from usernsplan.host import files

if TYPE_CHECKING:
    from usernsplan.layout import Layout

# Where distributions put the programs of engines, and snapd those of LXD.
_FOLDERS = ("/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/local/sbin", "/snap/bin")


def engines(layout: Layout) -> frozenset[str]:
    """The engines that have a program below this root."""
    # A folder that is a symlink leads to another of them, in the root: as a chroot would see it.
    folders = set()
    for folder in _FOLDERS:
        # A loop of symlinks leads to no program, nor does what is closed to us.
        with suppress(RefusedError, NotPermittedError):
            folders.add(files.real(layout, folder, follow=True))
    return frozenset(
        name
        for name, known in ENGINES.items()
        if any(files.is_there(f"{folder}/{program}") for folder in folders for program in known.programs)
    )
