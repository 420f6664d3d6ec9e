"""The engines that are installed below a root, found by their programs; and running a program."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.engines import ENGINES
from usernsplan.errors import NotPermittedError, RefusedError
from usernsplan.host import files

if TYPE_CHECKING:
    from usernsplan.layout import Layout

# Distributions put the programs of engines into these folders, snapd those of LXD.
_FOLDERS = (
    "/usr/bin",
    "/usr/sbin",
    "/bin",
    "/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/libexec/incus",
    "/opt/incus/bin",
    "/snap/bin",
)
# Debian's package of newuidmap is optional.
_SHADOW = ("/usr/bin/newuidmap", "/usr/sbin/useradd")
_NEW_KEY = b"SUB_UID_STORE_BY_UID"
_PIECE = 1 << 16


def engines(layout: Layout) -> frozenset[str]:
    """The engines that have a program below this root."""
    found = installed(
        layout, *(program for known in ENGINES.values() for program in known.programs)
    )
    names = {os.path.basename(path) for path in found}
    return frozenset(name for name, known in ENGINES.items() if names.intersection(known.programs))


def installed(layout: Layout, *programs: str) -> frozenset[str]:
    """The paths, below this root, at which these programs are installed."""
    found, looked_at = set[str](), set[tuple[int, int]]()
    for name in _FOLDERS:
        # A missing folder, a loop of symlinks or a closed folder holds no program for us.
        with (
            suppress(RefusedError, NotPermittedError),
            files.explained(layout, name),
            suppress(FileNotFoundError, NotADirectoryError),
        ):
            folder = files.opened_folder(layout, name)
            try:
                # On a merged-/usr root /bin is a symlink to /usr/bin, resolved below the root as
                # in a chroot. Look at each folder once.
                seen = os.fstat(folder)
                if (seen.st_dev, seen.st_ino) not in looked_at:
                    looked_at.add((seen.st_dev, seen.st_ino))
                    paths = (f"{name}/{program}" for program in programs)
                    found |= {path for path in paths if _lies_in(layout, folder, path)}
            finally:
                os.close(folder)
    return frozenset(found)


def exists(layout: Layout, path: str) -> bool:
    """Tell whether something that belongs to a program lies at a path.

    A loop of symlinks leads to no program.
    """
    with suppress(RefusedError):
        return files.exists(layout, path)
    return False


def owners_need_accounts(layout: Layout) -> bool:
    """Tell whether shadow below this root skips lines whose owner has no account, as 4.20 does.

    The program is not run, because it may belong to another root, and packages name versions in many
    ways. But shadow's programs contain the names of all keys of login.defs, and this key came with
    that release. A program that cannot be read says nothing.
    """
    for path in _SHADOW:
        with suppress(RefusedError, NotPermittedError):
            if _NEW_KEY in (files.read(layout, path, follow=True, largest=files.LARGEST) or b""):
                return True
    return False


def version(program: str) -> str:
    """What a program of this host prints for --version; "" if it is missing or does not say."""
    try:
        status, said, _ = output((program, "--version"))
    except (OSError, RefusedError):
        return ""
    return "" if status else said


def _lies_in(layout: Layout, folder: int, path: str) -> bool:
    with suppress(NotPermittedError), files.explained(layout, path):
        try:
            os.lstat(os.path.basename(path), dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True
    return False


def output(words: tuple[str, ...]) -> tuple[int, str, str]:
    """Run a program; return its exit status, its standard output and its standard error.

    Raises RefusedError if it prints more than files.LARGEST bytes, and OSError if it cannot run.
    """
    import selectors  # noqa: PLC0415 - slow, and seldom needed
    import subprocess  # noqa: PLC0415 - the same

    out, err, pipe = bytearray(), bytearray(), subprocess.PIPE
    with (
        subprocess.Popen(  # noqa: S603
            words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, bufsize=0
        ) as process,
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
                        raise RefusedError(
                            f"'{words[0]}' prints more than {files.LARGEST} bytes; its output was "
                            "not read"
                        )
        except BaseException:
            process.kill()
            raise
    return (
        process.returncode,
        out.decode("utf-8", "surrogateescape"),
        err.decode("utf-8", "surrogateescape"),
    )
