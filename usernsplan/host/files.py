"""Files below a root: found without leaving it, read whole, replaced whole.

The root is a boundary, even if another process renames folders at the same time. ``pinned``
resolves every name part by part, each below the folder opened before, as openat2(2) does with
RESOLVE_IN_ROOT. The descriptor of that folder, never a path, names what is then opened, created,
renamed or removed. openat2(2) itself would need Linux 5.6, and ctypes, which slows every start.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

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
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SYMLINKS = 40  # as many as the kernel follows: path_resolution(7)
_FS_IOC_GETFLAGS = 0x80086601
_IMMUTABLE_OR_APPEND = 0x10 | 0x20
# One fixed name beside each file: the lock allows one writer, so a killed run leaves at most this
# file, and the next writer replaces it.
_NEW = ".usernsplan-new"
# The limit in bytes for files and output of others (an image, a bundle, an engine). Anything
# larger is not what it claims to be.
LARGEST = 16 << 20
# The limit for the host's own files, which may list a million accounts; memory is finite.
_LARGEST_OF_HOST = 1 << 30
_PIECE = 1 << 20
# A named pipe may be silent for this many seconds.
_PATIENCE = 1
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# With these errnos the kernel says that nothing is there, or that we may not see it. With any
# other errno (EIO, say) it does not know.
_TELLING = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
# No mount point, and its kind.
NOWHERE: Mapping[str, str] = {}
_ROOT = "--root"
_NO_ROOT = "holds something else"


def layout_at(root: str, option: str = _ROOT, *, exists: bool = False) -> Layout:
    """The layout of ``--root``, or of another option. Any spelling of "/" is this machine itself.

    Readers pass ``exists``: the root must then exist, because below a mistyped name every id would
    look free. Writers may begin a new root, but only in an empty or missing folder: any other
    folder without /etc is probably a mistyped name.
    Raises InvalidValueError and RefusedError.
    """
    if not root or "\0" in root:
        raise InvalidValueError(
            f"{option} is empty or not a path", hint=f"name a folder, or leave {option} out"
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
            hint="it existed a moment ago; run the command again",
        ) from error
    layout = Layout(root, real, (seen.st_dev, seen.st_ino))
    if option == _ROOT and not exists and new_root(layout) == _NO_ROOT:
        raise InvalidValueError(
            f"{option} {escape.line(root)} has no /etc and is not empty, "
            "so it is not the root of a host",
            hint="correct the name; to begin a root there: "
            f"mkdir {operand(root.rstrip('/') + '/etc')}",
        )
    return layout


def new_root(layout: Layout) -> str:
    """What a root without /etc is, for a message ("is empty", …); "" if it has /etc."""
    with explained(layout, "/"):
        # A dangling symlink counts as /etc: it belongs to a tree that is still being built.
        if os.path.lexists(os.path.join(layout.real, "etc")):
            return ""
        if not os.path.lexists(layout.real):
            return "does not exist"
        names = os.listdir(layout.real)
        if not names:
            return "is empty"
        # Another process may have created it between the two checks.
        return "" if "etc" in names else _NO_ROOT


class Place(NamedTuple):
    """Where a name lies: a pinned folder, and the name in it; "." is the pinned folder itself."""

    folder: int
    name: str

    @property
    def path(self) -> str:
        """A path for calls that take no descriptor. It stays right if folders are renamed."""
        return f"/proc/self/fd/{self.folder}/{self.name}"


@contextmanager
def pinned(
    layout: Layout, name: str, *, follow: bool = False, away: Mapping[str, str] = NOWHERE
) -> Iterator[Place]:
    """Pin the folder in which a name of the layout lies; symlinks resolve as in a chroot.

    The last part is followed only with ``follow``. It may be of any kind or missing, so open it
    with O_NOFOLLOW. Mount points in ``away`` (their real paths, and their kinds) are not touched.
    Raises OSError if a folder is missing, and RefusedError for a loop of symlinks, or for such a
    mount point.
    """
    way = _Way(layout, away)
    try:
        way.go(name, follow=follow)
        if len(way.folders) > len(way.names):
            # The path ended at a folder, which is already open.
            place = Place(way.folders[-1], ".")
        elif way.error:
            raise way.error
        else:
            place = Place(way.folders[-1], way.names[-1])
        yield place
    finally:
        way.close()


def opened_folder(layout: Layout, name: str, *, away: Mapping[str, str] = NOWHERE) -> int:
    """Open a folder, to list, lock or sync it; the caller closes the descriptor."""
    with pinned(layout, name, follow=True, away=away) as place:
        return os.open(
            place.name,
            os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
            dir_fd=place.folder,
        )


def names(layout: Layout, folder: str) -> list[str]:
    """The names in a folder, sorted; none if there is no such folder."""
    with explained(layout, folder):
        try:
            descriptor = opened_folder(layout, folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            return sorted(os.listdir(descriptor))
        finally:
            os.close(descriptor)


def real(layout: Layout, name: str, *, follow: bool = False) -> str:
    """The path at which a name of the layout really lies, for messages and for programs.

    An absolute symlink starts again at the root and ".." ends there, so the path is never outside
    the root. The last part is followed only with ``follow``. Raises RefusedError for a loop of
    symlinks. To open something, use ``pinned``: another process could replace a folder of the path
    between this call and the opening.
    """
    way = _Way(layout)
    try:
        way.go(name, follow=follow)
    except FileNotFoundError as error:
        way.failure = error
    finally:
        way.close()
    if way.failure:
        # Otherwise a failing disk would look like a missing file.
        raise of_system(way.failure, escape.line(layout.path(name))) from way.failure
    return os.path.join(layout.real or os.path.realpath(layout.root), *way.names)


class _Way:
    """A way down from the root: ``folders`` are pinned, root first; ``names`` are the parts so far.

    Names may follow the last folder that are missing or not folders; ``error`` then says why.
    """

    def __init__(self, layout: Layout, away: Mapping[str, str] = NOWHERE) -> None:
        self._layout, self._away = layout, away
        self.folders: list[int] = []
        self.names: list[str] = []
        self.error: OSError | None = None
        # An errno that does not tell what lies there, also of the last part.
        self.failure: OSError | None = None
        try:
            self.folders.append(_root(layout))
        except OSError as error:
            self.error = error

    def go(self, name: str, *, follow: bool) -> None:
        """Walk the whole name. Raises FileNotFoundError for a name that no file can have."""
        if "\0" in name:
            # os.open would answer ValueError, for which no caller looks.
            raise FileNotFoundError(errno.ENOENT, "the path has a NUL byte", name)
        todo, links = _parts(name), 0
        while todo:
            part = todo.pop()
            if part == "..":
                self._up()
                continue
            target = None
            if (todo or follow) and len(self.folders) == len(self.names) + 1:
                self._refuse_away(part)
                target = self._enter(part, is_last=not todo)
            if target is None:
                self.names.append(part)
                continue
            links += 1
            if links > _SYMLINKS:
                shown, root = map(escape.line, (self._layout.path(name), self._layout.root))
                raise RefusedError(
                    f"{shown}: too many symlinks below {root}",
                    hint="remove one of them: they probably lead to each other",
                )
            while target.startswith("/") and self.names:
                self._up()
            todo += _parts(target)

    def _refuse_away(self, part: str) -> None:
        point = os.path.join(self._layout.real, *self.names, part) if self._away else ""
        if point in self._away:
            raise RefusedError(
                f"{escape.line(point)} is on the network ({escape.line(self._away[point])}) and was "
                "not looked at, as its server may be gone",
                hint=f"if the server answers, look yourself: ls {operand(point)}",
            )

    def close(self) -> None:
        while self.folders:
            os.close(self.folders.pop())

    def _up(self) -> None:
        if self.names:
            self.names.pop()
        if len(self.folders) > len(self.names) + 1:
            os.close(self.folders.pop())

    def _enter(self, part: str, *, is_last: bool) -> str | None:
        """Pin a part if it is a folder; return the target of a symlink, None for anything else.

        Only the opened descriptor is examined, never the name again.
        """
        above = self.folders[-1]
        error: OSError = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        try:
            # Try again if it became a folder between the two opens. O_DIRECTORY also makes autofs
            # mount what belongs there; O_PATH alone does not (open(2)).
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
        # An error of the last part is not kept: the caller gets it when it opens the part.
        self.error = self.error if is_last else error
        return None


def _parts(path: str) -> list[str]:
    """The parts of a path, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in {"", "."}]


def _root(layout: Layout) -> int:
    """Open the layout's root. Raises RefusedError if another folder has taken its name."""
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
    return RefusedError(
        f"{escape.line(layout.root)} is not the same folder as when this command began",
        hint="run the command again, and do not replace the folder or one above it while it runs",
    )


def folder_at(path: str, *, make: bool = False) -> int:
    """Open a folder by its real path, without symlinks. ``make`` creates what is missing."""
    here = os.open("/", _FOLDER)
    for part in reversed(_parts(path)):
        try:
            below = _made(here, part, 0o755) if make else os.open(part, _FOLDER, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


def _made(folder: int, name: str, mode: int) -> int:
    """Pin a folder in another one; create it if it is missing."""
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=folder)
            # Other users read these files, so the umask of a script must not restrict the mode.
            made = os.open(
                name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
            )
            try:
                os.fchmod(made, mode)
            finally:
                os.close(made)
    return os.open(name, _FOLDER, dir_fd=folder)


def is_there(path: str) -> bool:
    """Like os.path.lexists, which returns False for a failing disk. Raises UsernsplanError then."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError):
        return False
    except OSError as error:
        raise of_system(error, escape.line(path)) from error
    return True


def name_below(layout: Layout, path: str) -> str:
    """The name of a folder below the root, as in the ledger: real, without the root's own path."""
    top = layout.real.rstrip("/")
    inside = path[len(top) :] if top and f"{path}/".startswith(f"{top}/") else path
    return real(layout, inside or "/", follow=True)[len(top) :] or "/"


def read(
    layout: Layout, name: str, *, follow: bool = False, largest: int = _LARGEST_OF_HOST
) -> bytes | None:
    """The bytes of a regular file, or None if it does not exist.

    Without ``follow`` a symlink is refused, as shadow refuses one in place of subuid: its owner
    could choose what we read. Raises RefusedError for a symlink or anything else that is not a
    regular file, and NotPermittedError.
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


def regular(place: Place, shown: str, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file that others may have made, at its place; ``shown`` is its path.

    Anything else is refused before it is opened: to open a device may have effects. Raises OSError
    (ELOOP for a symlink), and RefusedError.
    """
    kind = stat.S_IFMT(os.lstat(place.name, dir_fd=place.folder).st_mode)
    if kind not in {stat.S_IFREG, stat.S_IFLNK}:
        raise irregular(shown)
    descriptor = os.open(place.name, _READ, dir_fd=place.folder)
    try:
        return _all_of(descriptor, shown, largest)
    finally:
        os.close(descriptor)


def whole(path: str, shown: str, largest: int = LARGEST, *, named: bool = False) -> bytes:
    """The bytes of a regular file that others may have made. Use it for each file that is not ours.

    It never waits for a silent pipe and never reads without a limit. Raises RefusedError if it is
    not a regular file or has more than ``largest`` bytes, InvalidValueError for a name that no file
    can have, and OSError, for a symlink too.
    ``named``: the user named the file, so symlinks are followed, and it may be a pipe if another
    process writes to it (``plan <(...)``).
    """
    if "\0" in path:
        raise InvalidValueError(f"{shown} is not a path: it has a NUL byte", hint="name a file")
    kinds = {stat.S_IFREG, stat.S_IFIFO if named else stat.S_IFLNK}
    # Check before opening: opening a device may have effects, and a socket only returns ENXIO.
    if stat.S_IFMT(os.stat(path, follow_symlinks=named).st_mode) not in kinds:
        raise irregular(shown)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    if not named:
        flags |= os.O_NOFOLLOW
    descriptor = os.open(path, flags)
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind not in kinds:
            raise irregular(shown)
        return _all_of(descriptor, shown, largest, is_pipe=kind == stat.S_IFIFO)
    finally:
        os.close(descriptor)


def _all_of(descriptor: int, shown: str, largest: int, *, is_pipe: bool = False) -> bytes:
    """Read to the end. Raises RefusedError after ``largest`` bytes."""
    raw = bytearray()
    # Count what is read instead of asking fstat(2): a file may grow, and in /proc the size is 0.
    while len(raw) <= largest and (piece := _piece(descriptor, shown, is_pipe=is_pipe)):
        raw += piece
    if len(raw) > largest:
        raise RefusedError(f"{shown} has more than {largest} bytes; it cannot be the right file")
    return bytes(raw)


def _piece(descriptor: int, shown: str, *, is_pipe: bool) -> bytes:
    if is_pipe:
        import select  # noqa: PLC0415 - seldom needed

        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        if not ready.poll(1000 * _PATIENCE):
            raise RefusedError(
                f"{shown} is a pipe, and no process writes to it",
                hint="name a file, or '-' for standard input",
            )
    return os.read(descriptor, _PIECE)


def irregular(shown: str) -> RefusedError:
    """The error for a pipe, a device, a socket or a folder in place of a file."""
    return RefusedError(
        f"{shown} is not a regular file",
        hint="put a regular file in its place, or name another file",
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
    """Replace files, each whole or not at all.

    All new contents are written beside their places before the first rename. Owner and mode stay
    unless ``mode`` is given; a new file gets 0644. The old content of files in ``backup`` stays in
    ``NAME-``, as shadow does it. Raises UsernsplanError; files renamed until then stay replaced.
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
    """The lstat of a name; with ``follow``, of the symlink's target. Raises OSError."""
    with pinned(layout, name, follow=follow) as place:
        return os.lstat(place.name, dir_fd=place.folder)


def exists(layout: Layout, name: str) -> bool:
    """Tell whether anything of this name exists."""
    with explained(layout, name):
        try:
            look(layout, name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def is_symlink(layout: Layout, name: str) -> bool:
    """Tell whether a file is a symlink: we read through one but cannot replace it whole."""
    try:
        return stat.S_ISLNK(look(layout, name).st_mode)
    except OSError:
        return False


def remove(layout: Layout, name: str) -> None:
    """Remove a file."""
    with explained(layout, name), pinned(layout, name) as place:
        os.unlink(place.name, dir_fd=place.folder)
        sync_folder(place.folder)


def discard_unfinished(layout: Layout, names: tuple[str, ...]) -> None:
    """Remove what a killed run left beside these files. Errors are ignored: nobody reads it."""
    for name in names:
        for suffix in (_NEW, "-" + _NEW):
            with suppress(OSError), pinned(layout, name + suffix) as place:
                os.unlink(place.name, dir_fd=place.folder)


def make_folder(layout: Layout, name: str, mode: int = 0o755) -> None:
    """Create a folder and the missing ones above it, the root included; ``mode`` is the last one's.

    Raises UsernsplanError.
    """
    with explained(layout, name):
        if layout.inode is None:
            os.close(folder_at(layout.real or os.path.realpath(layout.root), make=True))
        # Each turn creates one folder. It can only fail to end if another process removes them.
        for _ in range(_SYMLINKS + name.count("/")):
            way = _Way(layout)
            try:
                way.go(name, follow=True)
                missing = way.names[len(way.folders) - 1 :]
                if not missing:
                    return
                # Without a folder, the root itself is gone again.
                if way.error and not (way.folders and isinstance(way.error, FileNotFoundError)):
                    raise way.error
                os.close(_made(way.folders[-1], missing[0], mode if len(missing) == 1 else 0o755))
            finally:
                way.close()
        raise RefusedError(f"{layout.path(name)} disappears as soon as it is created")


def no_symlink(path: str, flags: int) -> int:
    """An opener for open(): refuses a symlink (ELOOP) and never blocks."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def sync_folder(folder: int | str) -> None:
    """Make renames in a folder (a path or a descriptor) survive a power cut."""
    path, at = (folder, None) if isinstance(folder, str) else (".", folder)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stage(  # noqa: PLR0913 - all of one file
    layout: Layout, name: str, place: Place, content: bytes, *, backup: bool, mode: int | None
) -> Iterator[tuple[str, Place, str]]:
    """Write the new content, and a backup of the old one, beside the place.

    Yields (name, place, temporary name) for each.
    """
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
    """Write a file with the owner, mode and extended attributes (ACLs, SELinux) of ``like``.

    ``like`` is a descriptor of the file that it will replace.
    """
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
        # The SELinux policy may forbid setting a label, and may have set it already.
        with suppress(PermissionError):
            os.setxattr(target, attribute, value)


@contextmanager
def explained(layout: Layout, name: str) -> Iterator[None]:
    """Turn an OSError into an error that names the file, the reason and the remedy."""
    try:
        yield
    except OSError as error:
        raise explanation(layout, name, error) from error


def explanation(  # noqa: PLR0911 - a case for each
    layout: Layout, name: str, error: OSError
) -> UsernsplanError:
    """The error that names the file, the reason and the remedy."""
    shown = escape.line(layout.path(name))
    match error.errno:
        case errno.ELOOP:
            return RefusedError(f"{shown} is a symlink", hint="put a regular file in its place")
        case errno.ENXIO | errno.EISDIR:  # a socket, or a pipe without a reader; a folder
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
                hint="unmount it, or bind-mount its folder instead",
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
