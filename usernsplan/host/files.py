"""Files below a root: found without leaving it, read whole, replaced whole."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from usernsplan.errors import (
    InvalidValueError,
    NotPermittedError,
    RefusedError,
    UsernsplanError,
    of_place,
    of_system,
    reason_of,
)
from usernsplan.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator

_SYMLINKS = 40  # as many as the kernel follows: path_resolution(7)
_FS_IOC_GETFLAGS = 0x80086601
_IMMUTABLE_OR_APPEND = 0x10 | 0x20
# One fixed name beside each file: the lock allows one writer, so a killed run leaves at most this, and the next
# writer replaces it.
_NEW = ".usernsplan-new"


def layout_at(root: str, option: str = "--root", *, exists: bool = False) -> Layout:
    """The layout of ``--root``, or of another option: another spelling of "/" is this machine itself.

    With ``exists``, for who only reads, it has to be there: of a name that was mistyped, everything would be free.
    """
    if not root or "\0" in root:
        raise InvalidValueError(f"{option} is empty, or no path", hint=f"name a folder, or leave {option} out")
    if is_there(root) and not os.path.isdir(root):
        raise InvalidValueError(f"{option} {root} is not a folder")
    if exists and not is_there(root):
        raise InvalidValueError(f"{option} {root} does not exist")
    with of_place(f"{option} {root}"):
        if os.path.isdir(root) and os.path.samefile(root, "/"):
            return Layout("/", "/")
        return Layout(root, os.path.realpath(root))


def real(layout: Layout, name: str, *, follow: bool = False) -> str:
    """The path at which a name of the layout really lies, its folders' symlinks read as a chroot would read them.

    An absolute symlink starts again at the root and '..' ends there, so nothing outside the root is ever named. The
    last part is followed only with ``follow``. Raises RefusedError for a loop of symlinks. Whoever may swap
    folders of the tree at the same time can still mislead us between this and the opening: no tree is to be shared so.
    """
    todo = [part for part in reversed(name.split("/")) if part not in {"", "."}]
    top = layout.real or os.path.realpath(layout.root)
    path, links = top, 0
    while todo:
        part = todo.pop()
        if part == "..":
            path = os.path.dirname(path) if path != top else top
            continue
        path_here = os.path.join(path, part)
        if (todo or follow) and _is_link(layout, name, path_here):
            links += 1
            if links > _SYMLINKS:
                raise RefusedError(f"{layout.path(name)}: too many symlinks below {layout.root}")
            try:
                target = os.readlink(path_here)
            except OSError as error:
                raise of_system(error, f"{layout.path(name)} ({path_here})") from error
            path = top if target.startswith("/") else path
            todo += [piece for piece in reversed(target.split("/")) if piece not in {"", "."}]
            continue
        path = path_here
    return path


def _is_link(layout: Layout, name: str, path: str) -> bool:
    """As os.path.islink, which takes a failing disk for no: then the kernel would follow the link, out of the root."""
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        raise of_system(error, f"{layout.path(name)} ({path})") from error


def is_there(path: str) -> bool:
    """As os.path.lexists, which takes a failing disk for no. Raises an error of ours."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError):
        return False
    except OSError as error:
        raise of_system(error, path) from error
    return True


def name_below(layout: Layout, path: str) -> str:
    """The name of a folder below the root as the ledger has it: real, and without the root where it was typed too."""
    top = layout.real.rstrip("/")
    inside = path[len(top) :] if top and f"{path}/".startswith(f"{top}/") else path
    return real(layout, inside or "/", follow=True)[len(top) :] or "/"


def read(layout: Layout, name: str, *, follow: bool = False) -> bytes | None:
    """The bytes of a regular file, or None where there is none.

    Without ``follow`` a symlink is refused, as shadow does with subuid: whoever can point it elsewhere would choose
    what we read. Raises RefusedError for a symlink or anything that is no regular file, NotPermittedError as it says.
    """
    with explained(layout, name):
        path = real(layout, name, follow=follow)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise RefusedError(f"{layout.path(name)} is not a regular file", hint="put a regular file in its place")
        with open(descriptor, "rb") as file:
            return file.read()


def write(layout: Layout, files: dict[str, bytes], *, backup: tuple[str, ...] = ()) -> None:
    """Replace files, each whole or not at all: all are written out beside their places before the first is exchanged.

    Owner and mode stay; a new file is 0644. Files named in ``backup`` leave their old content in ``NAME-``, as shadow
    does. Raises an error of ours for every way in which a file can refuse; those exchanged until then stay exchanged.
    """
    staged: list[tuple[str, str, str]] = []
    try:
        for name, content in files.items():
            with explained(layout, name):
                make_folder(layout, os.path.dirname(name))
                path = real(layout, name)
                staged += _stage(layout, name, path, content, backup=name in backup)
        while staged:
            name, path, temporary = staged[0]
            with explained(layout, name):
                os.rename(temporary, path)
                sync_folder(os.path.dirname(path))
            staged.pop(0)
    finally:
        for _, _, temporary in staged:
            with suppress(OSError):
                os.unlink(temporary)


def exists(layout: Layout, name: str) -> bool:
    """Tell whether there is anything of this name."""
    with explained(layout, name):
        return os.path.lexists(real(layout, name))


def is_symlink(layout: Layout, name: str) -> bool:
    """Tell whether a file is a symlink: it can be read through one, and not be replaced whole."""
    return os.path.islink(real(layout, name))


def remove(layout: Layout, name: str) -> None:
    """Take a file away."""
    with explained(layout, name):
        path = real(layout, name)
        os.unlink(path)
        sync_folder(os.path.dirname(path))


def discard_unfinished(layout: Layout, names: tuple[str, ...]) -> None:
    """Take away what a killed run had written out beside these files; nobody reads it, so it may stay as well."""
    for name in names:
        for suffix in (_NEW, "-" + _NEW):
            with suppress(OSError):
                os.unlink(real(layout, name) + suffix)


def make_folder(layout: Layout, name: str, mode: int = 0o755) -> str:
    """Make a folder and those above it, the root included, where they are missing; return where it really lies."""
    with explained(layout, name):
        path = real(layout, name, follow=True)
        missing = []
        above = path
        while not os.path.isdir(above):
            missing.append(above)
            above = os.path.dirname(above)
        for folder in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(folder)
                # Others read what lies here, whatever mask a script runs under; only the last may be kept from them.
                os.chmod(folder, mode if folder == path else 0o755)
        return path


def sync_folder(path: str) -> None:
    """Make what was renamed in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stage(layout: Layout, name: str, path: str, content: bytes, *, backup: bool) -> Iterator[tuple[str, str, str]]:
    """Write the new content, and a backup of the old, beside the place; yield (name, place, temporary) for each."""
    try:
        old = os.lstat(path)
    except FileNotFoundError:
        old = None
    if old and not stat.S_ISREG(old.st_mode):
        raise RefusedError(f"{layout.path(name)} is not a regular file", hint="put a regular file in its place")
    if old and backup:
        with open(path, "rb") as file:
            yield name, path + "-", _written(path + "-" + _NEW, file.read(), path, old)
    yield name, path, _written(path + _NEW, content, path, old)


def _written(temporary: str, content: bytes, like: str, old: os.stat_result | None) -> str:
    """Write a file with owner, mode and extended attributes (ACLs, SELinux) of the one whose place it will take."""
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if old and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, old.st_uid, old.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode) if old else 0o644)
            if old:
                _copy_attributes(like, temporary)
            os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return temporary


def _copy_attributes(source: str, target: str) -> None:
    try:
        names = os.listxattr(source, follow_symlinks=False)
    except OSError:
        return  # a file system without attributes
    for attribute in names:
        value = os.getxattr(source, attribute, follow_symlinks=False)
        # The policy may have given the new file its label already, and let nobody set it.
        with suppress(PermissionError):
            os.setxattr(target, attribute, value, follow_symlinks=False)


@contextmanager
def explained(layout: Layout, name: str) -> Iterator[None]:
    """Turn what the system says of a file into an error that names it, the reason and the remedy."""
    try:
        yield
    except OSError as error:
        raise _explanation(layout, name, error) from error


def _explanation(layout: Layout, name: str, error: OSError) -> UsernsplanError:  # noqa: PLR0911 - a case for each
    shown = layout.path(name)
    match error.errno:
        case errno.ELOOP:
            return RefusedError(f"{shown} is a symlink", hint="put a regular file in its place")
        case errno.ENXIO | errno.EISDIR:
            return RefusedError(f"{shown} is not a regular file", hint="put a regular file in its place")
        case errno.EPERM | errno.EACCES if _is_immutable(layout, name):
            return NotPermittedError(f"{shown} is immutable or append-only", hint=f"chattr -i -a {shown}")
        case errno.EPERM | errno.EACCES:
            return NotPermittedError(f"{shown}: {reason_of(error)}")
        case errno.EROFS:
            return NotPermittedError(f"{shown} is on a read-only file system", hint="mount it writable, or use --root")
        case errno.EBUSY:
            return UsernsplanError(
                f"{shown} is a mount point: it cannot be replaced whole",
                hint="a bind-mounted file can only be written half-way; unmount it, or bind its folder",
            )
    return of_system(error, shown)


def _is_immutable(layout: Layout, name: str) -> bool:
    import fcntl  # noqa: PLC0415 - only after a failure

    for one, follow in ((name, False), (os.path.dirname(name), True)):
        with suppress(OSError, UsernsplanError):
            place = real(layout, one, follow=follow)
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                flags = int.from_bytes(fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8))[:4], "little")
            finally:
                os.close(descriptor)
            if flags & _IMMUTABLE_OR_APPEND:
                return True
    return False
