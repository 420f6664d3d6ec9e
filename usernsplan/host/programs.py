"""Which engines are installed below a root, told by their programs; and what a program prints."""

from __future__ import annotations

import os
import selectors
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.engines import ENGINES
from usernsplan.errors import RefusedError
from usernsplan.host import files

if TYPE_CHECKING:
    from usernsplan.layout import Layout

# Where distributions put the programs of engines, and snapd those of LXD.
_FOLDERS = ("/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/local/sbin", "/snap/bin")
_PIECE = 1 << 16


def engines(layout: Layout) -> frozenset[str]:
    """The engines that have a program below this root."""
    # A folder that is a symlink leads to another of them, in the root: as a chroot would see it.
    folders = set()
    for folder in _FOLDERS:
        with suppress(RefusedError):  # a loop of symlinks leads to no program
            folders.add(files.real(layout, folder, follow=True))
    return frozenset(
        name
        for name, known in ENGINES.items()
        if any(os.path.lexists(f"{folder}/{program}") for folder in folders for program in known.programs)
    )


def output(words: tuple[str, ...]) -> tuple[int, str, str]:
    """Run a program: its exit status, what it printed, and what it complained of.

    Raises RefusedError where it prints more than what others made may have, and OSError where it cannot be run.
    """
    out, err, pipe = bytearray(), bytearray(), subprocess.PIPE
    with (
        subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, bufsize=0) as process,  # noqa: S603 - our words, and names that were looked at
        selectors.DefaultSelector() as ready,
    ):
        try:
            for stream, text in ((process.stdout, out), (process.stderr, err)):
                if stream is not None:
                    ready.register(stream, selectors.EVENT_READ, text)
            while ready.get_map():
                for key, _ in ready.select():
                    piece = os.read(key.fd, _PIECE)
                    if not piece:
                        ready.unregister(key.fileobj)
                    key.data.extend(piece)
                    if len(key.data) > files.LARGEST:
                        raise RefusedError(f"'{words[0]}' prints more than {files.LARGEST} bytes: it is not read")
        except BaseException:
            process.kill()
            raise
    return process.returncode, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape")
