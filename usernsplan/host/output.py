"""Write a file that the user named: whole or not at all, and never through a foreign symlink.

Only symlinks of root and of the caller are followed: other users may put one into /tmp and so
choose what is overwritten, and fs.protected_symlinks may be off. Every folder is pinned, so that
nothing can change between the check and the write.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from usernsplan.errors import (
    HostChangedError,
    NotPermittedError,
    RefusedError,
    UsernsplanError,
    reason_of,
)
from usernsplan.escape import shown_path
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.layout import Layout

_SYMLINKS = 40  # as many as the kernel follows: path_resolution(7)
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = _LOOK | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class OutputPlace(NamedTuple):
    """A name in a pinned folder. ``seen`` is what lies there, never a symlink; None: nothing.

    ``is_open``: the name is a link of /proc to something that a process has open, such as a pipe.
    Such a link must be opened, not resolved.
    """

    folder: int
    name: str
    seen: os.stat_result | None
    is_open: bool = False


def write(path: str, content: bytes) -> None:
    """Write the content to ``path``. A regular file is replaced and keeps its mode.

    A device or a pipe is written to. Raises RefusedError for a symlink or a pipe of another user,
    and NotPermittedError or UsernsplanError with the reason; an old file then stays unchanged.
    """
    with _explained(path), spot(path) as place:
        if place.seen is None or (stat.S_ISREG(place.seen.st_mode) and not place.is_open):
            _replace(place, content)
        else:
            _write_to(path, place, place.seen, content)


def refuse_foreign_links(layout: Layout, names: Iterable[str]) -> None:
    """Raise RefusedError for a symlink of another user on the way to a layout's root or its files.

    Missing names and loops lead nowhere; opening them later reports the error.
    """
    with (
        _explained(layout.root),
        suppress(FileNotFoundError, NotADirectoryError),
        spot(layout.root) as place,
    ):
        top = os.open(place.name, _FOLDER, dir_fd=place.folder)
        try:
            for name in names:
                _follow(name, top, layout.root)
        finally:
            os.close(top)


def _follow(name: str, top: int, root: str) -> None:
    try:
        with suppress(FileNotFoundError, NotADirectoryError), spot(name, top, root):
            pass
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise


@contextmanager
def spot(path: str, top: int | None = None, root: str = "") -> Iterator[OutputPlace]:
    """Pin the folder in which the end of a path lies, and look at what is there.

    With ``top``, a descriptor of the folder that messages call ``root``, the path resolves as in a
    chroot there. Raises OSError, and RefusedError for a symlink of neither root nor the caller.
    """
    folders: list[int] = []
    try:
        yield _walk(path, folders, top, root)
    finally:
        for folder in folders:
            os.close(folder)


def _walk(path: str, folders: list[int], top: int | None, root: str) -> OutputPlace:
    """Walk the path and open each folder in the one before it; ``folders`` collects them."""
    shown = _start(path, folders, top, root)
    todo, links = _parts(path), 0
    while todo:
        part = todo.pop()
        if part == "..":
            shown = os.path.join(shown, part)
            _up(folders, is_bounded=top is not None)
            continue
        try:
            seen, target = _look(folders[-1], part)
        except FileNotFoundError:
            if todo:
                raise
            return OutputPlace(folders[-1], part, None)
        if target is None and todo:
            shown = os.path.join(shown, part)
            folders.append(os.open(part, _FOLDER, dir_fd=folders[-1]))
        elif target is None:
            return OutputPlace(folders[-1], part, seen)
        else:
            links += 1
            if links > _SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            _refuse_foreign(
                seen, os.path.join(shown, part), "a symlink", "its owner chooses where it leads"
            )
            if top is None and not todo and _is_open(folders[-1], part, seen):
                return OutputPlace(folders[-1], part, seen, is_open=True)
            if target.startswith("/"):
                shown = _start(target, folders, top, root)
            todo += _parts(target)
    return OutputPlace(folders[-1], ".", os.fstat(folders[-1]))


def _parts(path: str) -> list[str]:
    """The parts of a path, the last one first; that is "." if the path ends in a slash."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    return [*(["."] if parts and path.endswith(("/", "/.")) else []), *reversed(parts)]


def _start(path: str, folders: list[int], top: int | None, root: str) -> str:
    """Open the folder in which a path begins; return its name for messages."""
    while folders:
        os.close(folders.pop())
    is_absolute = path.startswith("/")
    folders.append(os.open("/" if is_absolute else ".", _FOLDER) if top is None else os.dup(top))
    return ("/" if is_absolute else "") if top is None else root


def _up(folders: list[int], *, is_bounded: bool) -> None:
    if len(folders) > 1:
        os.close(folders.pop())
    elif not is_bounded:
        folders.append(os.open("..", _FOLDER, dir_fd=folders[0]))
        os.close(folders.pop(0))


def _look(folder: int, name: str) -> tuple[os.stat_result, str | None]:
    """The stat of a name, and its target if it is a symlink; both come from one descriptor."""
    descriptor = os.open(name, _LOOK, dir_fd=folder)
    try:
        seen = os.fstat(descriptor)
        return seen, os.readlink("", dir_fd=descriptor) if stat.S_ISLNK(seen.st_mode) else None
    finally:
        os.close(descriptor)


def _is_open(folder: int, name: str, link: os.stat_result) -> bool:
    """Tell whether a link of /proc leads to an open pipe or terminal, as /proc/self/fd/1 may.

    Such a pipe may have no other name.
    """
    with suppress(OSError):  # without a /proc there is no such link
        return link.st_dev == os.stat("/proc").st_dev and not stat.S_ISREG(
            os.stat(name, dir_fd=folder).st_mode
        )
    return False


def _identity(seen: os.stat_result) -> tuple[int, int, int, int]:
    """What identifies a file. The inode number alone may be reused for the next file."""
    return seen.st_dev, seen.st_ino, stat.S_IFMT(seen.st_mode), seen.st_uid


def _is_ours(seen: os.stat_result) -> bool:
    return seen.st_uid in {0, os.geteuid()}


def _refuse_foreign(seen: os.stat_result, path: str, what: str, why: str) -> None:
    if not _is_ours(seen):
        raise RefusedError(
            f"{shown_path(path)} is {what} of uid {seen.st_uid}, which is neither root nor you: "
            f"{why}",
            hint="name the target itself if you mean it, or write to a folder of your own",
        )


def _write_to(path: str, place: OutputPlace, seen: os.stat_result, content: bytes) -> None:
    """Write to a device or a pipe. open(2) fails for a folder."""
    if stat.S_ISFIFO(seen.st_mode):
        _refuse_foreign(seen, path, "a pipe", "its owner could read what is written")
    flags = os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC | (0 if place.is_open else os.O_NOFOLLOW)
    descriptor = os.open(place.name, flags, dir_fd=place.folder)
    with open(descriptor, "wb", buffering=0) as file:
        if not place.is_open and _identity(os.fstat(descriptor)) != _identity(seen):
            raise HostChangedError(
                f"another process replaced {shown_path(path)}; nothing was written"
            )
        file.write(content)


def _replace(place: OutputPlace, content: bytes) -> None:
    temporary = f"{place.name}.{os.getpid()}.new"
    descriptor = os.open(temporary, _NEW, 0o666, dir_fd=place.folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            if place.seen:
                # If the old file was another user's, its group and others must not write ours.
                mode = stat.S_IMODE(place.seen.st_mode) & 0o777
                os.fchmod(descriptor, mode if _is_ours(place.seen) else mode & ~0o022)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=place.folder)
        raise


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        hint = "name a file in a folder of your own"
        raise NotPermittedError(f"{shown_path(path)}: {reason_of(error)}", hint=hint) from error
    except (OSError, ValueError) as error:
        if isinstance(error, UsernsplanError):
            raise
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise UsernsplanError(f"{shown_path(path)}: {reason}") from error
