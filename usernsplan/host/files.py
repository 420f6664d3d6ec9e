"""Files below a root: found without leaving it, read whole, replaced whole.

The root is a boundary, also for whoever may exchange its folders at any moment: every name is resolved by ``pinned``,
one part after the other, each below the folder that was opened before, as openat2(2) does with RESOLVE_IN_ROOT. What
is then opened, made, renamed or taken away is named by that folder's descriptor, never by a path. Done by parts it
needs neither a new kernel nor ctypes, which would be felt at every start.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from usernsplan import escape
from usernsplan.errors import (
    InvalidValueError,
    NotPermittedError,
    RefusedError,
    UsernsplanError,
    of_place,
    of_system,
    reason_of,
)
from usernsplan.escape import operand
from usernsplan.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator

_SYMLINKS = 40  # as many as the kernel follows: path_resolution(7)
_FS_IOC_GETFLAGS = 0x80086601
_IMMUTABLE_OR_APPEND = 0x10 | 0x20
# One fixed name beside each file: the lock allows one writer, so a killed run leaves at most this, and the next
# writer replaces it.
_NEW = ".usernsplan-new"
# What others made (an image, a bundle, what an engine prints) is read up to here: more of it is no such file.
LARGEST = 16 << 20
# A host's own files may list a million accounts, each on a line; and memory ends somewhere.
_LARGEST_OF_HOST = 1 << 30
_PIECE = 1 << 20
# So many seconds a pipe that was named may be silent.
_PATIENCE = 1
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# By these the system says that there is nothing, or who may not see it; by others that it does not know.
_TELLING = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
_ROOT = "--root"
_NO_ROOT = "holds something else"


def layout_at(root: str, option: str = _ROOT, *, exists: bool = False) -> Layout:
    """The layout of ``--root``, or of another option: another spelling of "/" is this machine itself.

    With ``exists``, for who only reads, it has to be there: of a name that was mistyped, everything would be free. Who
    writes may begin a new root, but only where nothing lies: any other folder without /etc is a name mistyped.
    """
    if not root or "\0" in root:
        raise InvalidValueError(
            f"{option} is empty, or no path", hint=f"name a folder, or leave {option} out"
        )
    if is_there(root) and not os.path.isdir(root):
        raise InvalidValueError(f"{option} {escape.line(root)} is not a folder")
    if exists and not is_there(root):
        raise InvalidValueError(f"{option} {escape.line(root)} does not exist")
    with of_place(f"{option} {escape.line(root)}"):
        if os.path.isdir(root) and os.path.samefile(root, "/"):
            return Layout("/", "/")
        real = os.path.realpath(root)
    if not os.path.isdir(real):
        # The first write makes it.
        return Layout(root, real)
    try:
        seen = os.lstat(real)
    except OSError as error:
        raise RefusedError(
            f"{option} {escape.line(root)}: {reason_of(error)}",
            hint="it was there a moment ago: run again",
        ) from error
    layout = Layout(root, real, (seen.st_dev, seen.st_ino))
    if option == _ROOT and not exists and new_root(layout) == _NO_ROOT:
        raise InvalidValueError(
            f"{option} {escape.line(root)} has no /etc, and is not empty: that is no host's root, and none is begun"
            " there",
            hint=f"correct the name, or where it is meant: mkdir {operand(root.rstrip('/') + '/etc')}",
        )
    return layout


def new_root(layout: Layout) -> str:
    """What a root is that has no /etc yet, in words; "" for one that has."""
    with explained(layout, "/"):
        # Whatever it is: a symlink that leads to no folder yet is one in a tree that is being made.
        if os.path.lexists(os.path.join(layout.real, "etc")):
            return ""
        if not os.path.lexists(layout.real):
            return "does not exist"
        names = os.listdir(layout.real)
        # Another one may have begun it between the two looks.
        return "" if "etc" in names else _NO_ROOT if names else "is empty"


class Place(NamedTuple):
    """Where a name lies: in a pinned folder, and what it is called there; "." is a folder that was followed, itself."""

    folder: int
    name: str

    @property
    def path(self) -> str:
        """A path that leads there whatever is renamed, for what takes no descriptor."""
        return f"/proc/self/fd/{self.folder}/{self.name}"


@contextmanager
def pinned(layout: Layout, name: str, *, follow: bool = False) -> Iterator[Place]:
    """Pin the folder in which a name of the layout lies, its symlinks read as a chroot would read them.

    The last part is followed only with ``follow``, and may be anything, or nothing: to be opened with O_NOFOLLOW.
    Raises OSError where a folder is missing, and RefusedError for a loop of symlinks.
    """
    way = _Way(layout)
    try:
        way.go(name, follow=follow)
        if len(way.folders) > len(way.names):
            # It ended at a folder, which is open already.
            place = Place(way.folders[-1], ".")
        elif way.error:
            raise way.error
        else:
            place = Place(way.folders[-1], way.names[-1])
        yield place
    finally:
        way.close()


def opened_folder(layout: Layout, name: str) -> int:
    """Open a folder, to list or to lock it, or to make what was renamed in it survive; the caller closes it."""
    with pinned(layout, name, follow=True) as place:
        return os.open(
            place.name,
            os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
            dir_fd=place.folder,
        )


def real(layout: Layout, name: str, *, follow: bool = False) -> str:
    """The path at which a name of the layout really lies, for messages and for programs; see ``pinned``.

    An absolute symlink starts again at the root and '..' ends there, so nothing outside the root is ever named. The
    last part is followed only with ``follow``. Raises RefusedError for a loop of symlinks. To open something, use
    ``pinned``: who may exchange folders can make anything of a path between this and the opening.
    """
    way = _Way(layout)
    try:
        way.go(name, follow=follow)
    finally:
        way.close()
    if way.failure:
        # Else a disk that fails would be taken for a name that is not there.
        raise of_system(way.failure, escape.line(layout.path(name))) from way.failure
    return os.path.join(layout.real or os.path.realpath(layout.root), *way.names)


class _Way:
    """A way down from the root: ``folders`` are pinned, the root first, and ``names`` are the parts that led there.

    Behind the last folder there may be names of what is not there, or is no folder; ``error`` then says why.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.folders: list[int] = []
        self.names: list[str] = []
        self.error: OSError | None = None
        # Of the last part too, where it is one that says nothing of what lies there.
        self.failure: OSError | None = None
        try:
            self.folders.append(_root(layout))
        except OSError as error:
            self.error = error

    def go(self, name: str, *, follow: bool) -> None:
        todo, links = _parts(name), 0
        while todo:
            part = todo.pop()
            if part == "..":
                self._up()
                continue
            target = None
            if (todo or follow) and len(self.folders) == len(self.names) + 1:
                target = self._enter(part, is_last=not todo)
            if target is None:
                self.names.append(part)
                continue
            links += 1
            if links > _SYMLINKS:
                shown, root = map(escape.line, (self._layout.path(name), self._layout.root))
                raise RefusedError(f"{shown}: too many symlinks below {root}")
            while target.startswith("/") and self.names:
                self._up()
            todo += _parts(target)

    def close(self) -> None:
        while self.folders:
            os.close(self.folders.pop())

    def _up(self) -> None:
        if self.names:
            self.names.pop()
        if len(self.folders) > len(self.names) + 1:
            os.close(self.folders.pop())

    def _enter(self, part: str, *, is_last: bool) -> str | None:
        """Pin a part where it is a folder; say where a symlink leads. What was opened is what is looked at."""
        above = self.folders[-1]
        error: OSError = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        try:
            # Once more where it became a folder between the two; O_DIRECTORY lets autofs mount what belongs there.
            for _ in range(_SYMLINKS):
                with suppress(NotADirectoryError):
                    self.folders.append(os.open(part, _FOLDER, dir_fd=above))
                    return None
                here = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
                try:
                    kind = stat.S_IFMT(os.fstat(here).st_mode)
                    if kind == stat.S_IFLNK:
                        return os.readlink("", dir_fd=here)
                finally:
                    os.close(here)
                if kind != stat.S_IFDIR:
                    break
        except OSError as found:
            error = found
        if error.errno not in _TELLING:
            self.failure = error
        # What the last one is instead, whoever opens it will hear.
        self.error = self.error if is_last else error
        return None


def _parts(path: str) -> list[str]:
    """The parts of a path, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in {"", "."}]


def _root(layout: Layout) -> int:
    """Open the layout's root. Raises RefusedError where another folder has its name than when it was named."""
    try:
        root = folder_at(layout.real or os.path.realpath(layout.root))
    except (FileNotFoundError, NotADirectoryError) as error:
        if layout.inode is None:
            raise
        raise _exchanged(layout) from error
    seen = os.fstat(root)
    if layout.inode not in {None, (seen.st_dev, seen.st_ino)}:
        os.close(root)
        raise _exchanged(layout)
    return root


def _exchanged(layout: Layout) -> RefusedError:
    fact = "is no longer the folder that it was when this command began"
    return RefusedError(
        f"{escape.line(layout.root)} {fact}",
        hint="nobody may exchange it, or a folder above it, meanwhile",
    )


def folder_at(path: str, *, make: bool = False) -> int:
    """Open a folder by its real path: no part of it may be a symlink. With ``make``, what is missing is made."""
    here = os.open("/", _FOLDER)
    for part in reversed(_parts(path)):
        try:
            below = _made(here, part, 0o755) if make else os.open(part, _FOLDER, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


def _made(folder: int, name: str, mode: int) -> int:
    """Pin a folder in another one, after making it where there is none."""
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=folder)
            # Others read what lies here, whatever mask a script runs under.
            made = os.open(
                name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
            )
            try:
                os.fchmod(made, mode)
            finally:
                os.close(made)
    return os.open(name, _FOLDER, dir_fd=folder)


def is_there(path: str) -> bool:
    """As os.path.lexists, which takes a failing disk for no. Raises an error of ours."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError):
        return False
    except OSError as error:
        raise of_system(error, escape.line(path)) from error
    return True


def name_below(layout: Layout, path: str) -> str:
    """The name of a folder below the root as the ledger has it: real, and without the root where it was typed too."""
    top = layout.real.rstrip("/")
    inside = path[len(top) :] if top and f"{path}/".startswith(f"{top}/") else path
    return real(layout, inside or "/", follow=True)[len(top) :] or "/"


def read(
    layout: Layout, name: str, *, follow: bool = False, largest: int = _LARGEST_OF_HOST
) -> bytes | None:
    """The bytes of a regular file, or None where there is none.

    Without ``follow`` a symlink is refused, as shadow does with subuid: whoever can point it elsewhere would choose
    what we read. Raises RefusedError for a symlink or anything that is no regular file, NotPermittedError as it says.
    """
    descriptor = opened(layout, name, follow=follow)
    if descriptor is None:
        return None
    try:
        with explained(layout, name):
            return _all_of(descriptor, escape.line(layout.path(name)), largest)
    finally:
        os.close(descriptor)


def opened(layout: Layout, name: str, *, follow: bool = False) -> int | None:
    """Open a regular file for reading, as ``read`` does; the caller closes it."""
    with explained(layout, name):
        try:
            with pinned(layout, name, follow=follow) as place:
                return _opened(layout, name, place)
        except (FileNotFoundError, NotADirectoryError):
            return None


def whole(path: str, shown: str, largest: int = LARGEST, *, named: bool = False) -> bytes:
    """The bytes of a regular file that somebody else may have made: every file that is not ours is read here.

    Nothing is waited for, as a pipe would have us do, and nothing endless is read. Raises RefusedError for what is no
    regular file, for more than ``largest`` bytes, and OSError as the system says, for a symlink too. One that was
    ``named`` is meant wherever a symlink leads, and may be a pipe, as long as somebody writes to it (``plan <(...)``).
    """
    kinds = {stat.S_IFREG, stat.S_IFIFO if named else stat.S_IFLNK}
    # Before it is opened: a device may act on that, and a socket is an error without a meaning.
    if stat.S_IFMT(os.stat(path, follow_symlinks=named).st_mode) not in kinds:
        raise irregular(shown)
    flags = (
        os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if named else os.O_NOFOLLOW)
    )
    descriptor = os.open(path, flags)
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind not in kinds:
            raise irregular(shown)
        return _all_of(descriptor, shown, largest, is_pipe=kind == stat.S_IFIFO)
    finally:
        os.close(descriptor)


def _all_of(descriptor: int, shown: str, largest: int, *, is_pipe: bool = False) -> bytes:
    raw = bytearray()
    # By what is read, and not by the size that is told: a file may grow, and those of /proc tell none.
    while len(raw) <= largest and (piece := _piece(descriptor, shown, is_pipe=is_pipe)):
        raw += piece
    if len(raw) > largest:
        raise RefusedError(f"{shown} has more than {largest} bytes: that is not what it should be")
    return bytes(raw)


def _piece(descriptor: int, shown: str, *, is_pipe: bool) -> bytes:
    if is_pipe:
        import select  # noqa: PLC0415 - seldom needed

        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        if not ready.poll(1000 * _PATIENCE):
            raise RefusedError(
                f"{shown} is a pipe into which nobody writes",
                hint="name a file; '-' is standard input",
            )
    return os.read(descriptor, _PIECE)


def irregular(shown: str) -> RefusedError:
    """The error for what is a pipe, a device, a socket or a folder."""
    return RefusedError(
        f"{shown} is not a regular file", hint="put a regular file in its place, or name another"
    )


def _opened(layout: Layout, name: str, place: Place) -> int:
    """Open a regular file at its place, for reading."""
    descriptor = os.open(place.name, _READ, dir_fd=place.folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise irregular(escape.line(layout.path(name)))
    return descriptor


def write(
    layout: Layout,
    files: dict[str, bytes],
    *,
    backup: tuple[str, ...] = (),
    mode: int | None = None,
) -> None:
    """Replace files, each whole or not at all: all are written out beside their places before the first is exchanged.

    Owner and mode stay (unless ``mode`` says which); a new file is 0644. Files named in ``backup`` leave their old
    content in ``NAME-``, as shadow does. Raises an error of ours for every way in which a file can refuse; those
    exchanged until then stay exchanged.
    """
    staged: list[tuple[str, Place, str]] = []
    with ExitStack() as pins:
        try:
            for name, content in files.items():
                with explained(layout, name):
                    make_folder(layout, os.path.dirname(name))
                    place = pins.enter_context(pinned(layout, name))
                    staged += _stage(layout, name, place, content, backup=name in backup, mode=mode)
            while staged:
                name, place, temporary = staged[0]
                with explained(layout, name):
                    os.rename(
                        temporary, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder
                    )
                    sync_folder(place.folder)
                staged.pop(0)
        finally:
            for _, place, temporary in staged:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=place.folder)


def look(layout: Layout, name: str, *, follow: bool = False) -> os.stat_result:
    """What lies at a name, a symlink itself unless ``follow``. Raises OSError."""
    with pinned(layout, name, follow=follow) as place:
        return os.lstat(place.name, dir_fd=place.folder)


def exists(layout: Layout, name: str) -> bool:
    """Tell whether there is anything of this name."""
    with explained(layout, name):
        try:
            look(layout, name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def is_symlink(layout: Layout, name: str) -> bool:
    """Tell whether a file is a symlink: it can be read through one, and not be replaced whole."""
    try:
        return stat.S_ISLNK(look(layout, name).st_mode)
    except OSError:
        return False


def remove(layout: Layout, name: str) -> None:
    """Take a file away."""
    with explained(layout, name), pinned(layout, name) as place:
        os.unlink(place.name, dir_fd=place.folder)
        sync_folder(place.folder)


def discard_unfinished(layout: Layout, names: tuple[str, ...]) -> None:
    """Take away what a killed run had written out beside these files; nobody reads it, so it may stay as well."""
    for name in names:
        for suffix in (_NEW, "-" + _NEW):
            with suppress(OSError), pinned(layout, name + suffix) as place:
                os.unlink(place.name, dir_fd=place.folder)


def make_folder(layout: Layout, name: str, mode: int = 0o755) -> None:
    """Make a folder and those above it, the root included, where they are missing; only the last may have a mode."""
    with explained(layout, name):
        if layout.inode is None:
            os.close(folder_at(layout.real or os.path.realpath(layout.root), make=True))
        # Each turn makes one; that somebody takes them away as fast is the only reason not to come to an end.
        for _ in range(_SYMLINKS + name.count("/")):
            way = _Way(layout)
            try:
                way.go(name, follow=True)
                missing = way.names[len(way.folders) - 1 :]
                if not missing:
                    return
                if way.error and not isinstance(way.error, FileNotFoundError):
                    raise way.error
                os.close(_made(way.folders[-1], missing[0], mode if len(missing) == 1 else 0o755))
            finally:
                way.close()
        raise RefusedError(f"{layout.path(name)} goes away as soon as it is made")


def no_symlink(path: str, flags: int) -> int:
    """An opener for open(): a symlink is an error, and nothing blocks."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def sync_folder(folder: int | str) -> None:
    """Make what was renamed in a folder (its path, or its descriptor) survive a power cut."""
    path, at = (folder, None) if isinstance(folder, str) else (".", folder)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stage(  # noqa: PLR0913 - all of one file
    layout: Layout, name: str, place: Place, content: bytes, *, backup: bool, mode: int | None
) -> Iterator[tuple[str, Place, str]]:
    """Write the new content, and a backup of the old, beside the place; yield (name, place, temporary) for each."""
    try:
        descriptor = _opened(layout, name, place)
    except FileNotFoundError:
        yield name, place, _written(place.folder, place.name + _NEW, content, None, mode)
        return
    with open(descriptor, "rb") as old:
        if backup:
            beside = Place(place.folder, place.name + "-")
            yield (
                name,
                beside,
                _written(place.folder, beside.name + _NEW, old.read(), old.fileno(), mode),
            )
        yield name, place, _written(place.folder, place.name + _NEW, content, old.fileno(), mode)


def _written(folder: int, name: str, content: bytes, like: int | None, mode: int | None) -> str:
    """Write a file with owner, mode and extended attributes (ACLs, SELinux) of the one whose place it will take."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    old = None if like is None else os.fstat(like)
    if mode is None:
        mode = stat.S_IMODE(old.st_mode) if old else 0o644
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if old and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, old.st_uid, old.st_gid)
            os.fchmod(descriptor, mode)
            if like is not None:
                _copy_attributes(like, descriptor)
            os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
    return name


def _copy_attributes(source: int, target: int) -> None:
    try:
        names = os.listxattr(source)
    except OSError:
        return  # a file system without attributes
    for attribute in names:
        value = os.getxattr(source, attribute)
        # The policy may have given the new file its label already, and let nobody set it.
        with suppress(PermissionError):
            os.setxattr(target, attribute, value)


@contextmanager
def explained(layout: Layout, name: str) -> Iterator[None]:
    """Turn what the system says of a file into an error that names it, the reason and the remedy."""
    try:
        yield
    except OSError as error:
        raise _explanation(layout, name, error) from error


def _explanation(layout: Layout, name: str, error: OSError) -> UsernsplanError:  # noqa: PLR0911 - a case for each
    shown = escape.line(layout.path(name))
    match error.errno:
        case errno.ELOOP:
            return RefusedError(f"{shown} is a symlink", hint="put a regular file in its place")
        case errno.ENXIO | errno.EISDIR:  # a socket, or a pipe that nobody reads; a folder
            return irregular(shown)
        case errno.EPERM | errno.EACCES if _is_immutable(layout, name):
            mutable = f"chattr -i -a {operand(layout.path(name))}"
            return NotPermittedError(f"{shown} is immutable or append-only", hint=mutable)
        case errno.EPERM | errno.EACCES:
            return NotPermittedError(f"{shown}: {reason_of(error)}")
        case errno.EROFS:
            return NotPermittedError(
                f"{shown} is on a read-only file system", hint="mount it writable, or use --root"
            )
        case errno.EBUSY:
            return UsernsplanError(
                f"{shown} is a mount point: it cannot be replaced whole",
                hint="a bind-mounted file can only be written half-way; unmount it, or bind its folder",
            )
    return of_system(error, shown)


def _is_immutable(layout: Layout, name: str) -> bool:
    import fcntl  # noqa: PLC0415 - only after a failure

    for path, follow in ((name, False), (os.path.dirname(name), True)):
        with suppress(OSError, UsernsplanError):
            with pinned(layout, path, follow=follow) as place:
                descriptor = os.open(place.name, _READ, dir_fd=place.folder)
            try:
                flags = int.from_bytes(
                    fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8))[:4], "little"
                )
            finally:
                os.close(descriptor)
            if flags & _IMMUTABLE_OR_APPEND:
                return True
    return False
