"""The search for ids in a tree: nothing is changed, and no symlink is followed.

A small tree is searched by this process alone. The rest of a large one is shared among workers: each
part of the tree has a place in the order in which one process would meet it, and a worker that has
work for another gives away what it would come to last.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from usernsplan.errors import (
    InvalidValueError,
    NotPermittedError,
    RefusedError,
    UsernsplanError,
)
from usernsplan.escape import shown_path
from usernsplan.fixing import Place
from usernsplan.values import dataclass, field
from usernsplan.volume import walk
from usernsplan.volume.folder import StepOptions, packed, reason, step
from usernsplan.volume.owned import Count, Found, InodeIds, Wanted, carried
from usernsplan.volume.parts import TOP

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from usernsplan.ids import IdSet
    from usernsplan.volume.forked import Line, Worker, Workers
    from usernsplan.volume.parts import Parts

# How many entries one process looks at before it starts others.
ALONE = 5000
# How many names a worker finds before it tells them, or after which time (seconds).
_TOLD, _AT_ONCE = 1000, 0.1
# How many names of a part wait for the parts before it. Then its worker waits too.
_HELD = 20_000


def count(dirs: Iterable[str], ids: IdSet, *, cross_mounts: bool = False) -> Count:
    """Count the names in these folders that carry some of ``ids``, as uids or gids.

    ``dirs`` are real paths of this machine. A folder inside another of them is counted twice.
    Mounts below them are left out without ``cross_mounts``. To learn which of several ranges files
    still carry, count their union and ask for each ``among``. A place that cannot be looked at is
    in ``missed``, and no error is raised for it.
    """
    counted = Count()
    for path in dirs:
        try:
            for found in find(
                path, path, Wanted(ids, ids), cross_mounts=cross_mounts, miss=counted.missed.append
            ):
                counted.add(found)
        except UsernsplanError as error:  # noqa: PERF203 - once for each folder
            counted.missed.append(Place(path, str(error)))
    return counted


def find(  # noqa: PLR0913 - what to search, for what, and how
    top: str,
    shown: str,
    wanted: Wanted,
    *,
    cross_mounts: bool = False,
    closed: Collection[str] = (),
    miss: Callable[[Place], object],
) -> Iterator[Found]:
    """All names in the folder ``top``, and itself, that carry some of the ids.

    With ``cross_mounts``, the mounts below it too, but for those at the real paths ``closed``.

    ``top`` is a real path; if a part of it has become a symlink, nothing is read. The paths of what
    is found begin with ``shown`` instead. An inode with several names is found under each. ``miss``
    is called with each place that cannot be looked at, but not for one that is gone. Raises
    InvalidValueError if ``top`` is not a folder, RefusedError if it is a symlink.
    """
    if os.path.islink(top):
        raise RefusedError(
            f"{shown_path(shown)} is a symlink",
            hint="name the folder that it leads to",
        )
    try:
        if not stat.S_ISDIR(os.stat(top).st_mode):
            raise InvalidValueError(f"{shown_path(shown)} is not a folder")
        volume = walk.volume(top, cross_mounts=cross_mounts)
    except FileNotFoundError as error:
        raise InvalidValueError(f"{shown_path(shown)} is not a folder") from error
    except PermissionError as error:
        raise NotPermittedError(f"{shown_path(shown)}: {reason(error)}") from error
    except OSError as error:
        raise UsernsplanError(f"{shown_path(shown)}: {reason(error)}") from error
    try:
        home = os.open(".", os.O_PATH | os.O_CLOEXEC)
        try:
            left = volume.mounts.among(top, closed) if cross_mounts else volume.mounts
            options = StepOptions(search=True, uids=packed(wanted.uids), gids=packed(wanted.gids))
            for piece in _Search(volume, shown.rstrip("/"), wanted, home, left, options).whole():
                if isinstance(piece, Found):
                    yield piece
                else:
                    miss(piece)
        finally:
            os.close(home)
    finally:
        os.close(volume.top)


@dataclass(slots=True, eq=False)
class _Part:
    """A part of the tree. ``stack`` is what waits for a worker; ``pieces`` what one has told."""

    stack: list[walk.Waiting]
    worker: Worker | None = None
    pieces: list[Found | Place] = field(default_factory=list)

    def is_full(self) -> bool:
        """Tell whether it holds so many hits that its worker should wait for earlier parts."""
        return sum(len(one.names) for one in self.pieces if isinstance(one, Found)) >= _HELD


@dataclass(slots=True)
class _Search:
    """One walk through one tree. ``home`` is the current folder, to which the process returns.

    ``left`` are the mount points that it does not enter. ``entries`` is how many it has met.
    """

    volume: walk.OpenVolume
    shown: str
    wanted: Wanted
    home: int
    left: walk.Mounts
    options: StepOptions
    walker: walk.Walker = field(default_factory=walk.Walker)
    entries: int = 0

    def whole(self) -> Iterator[Found | Place]:
        """What the tree has, in order, and the places that cannot be looked at."""
        # Only the folders above the current one have an entry here, so the list stays small even
        # for a large tree.
        stack: list[walk.Waiting] = [(0, TOP, [""], 0)]
        while stack and self.entries < ALONE:
            yield from self._next(stack)
        if stack:
            yield from self._shared(stack)
        while stack:
            yield from self._next(stack)

    def _shared(self, stack: list[walk.Waiting]) -> Iterator[Found | Place]:
        """The same of the folders that wait, by workers. If there can be none, they go on waiting."""
        from usernsplan.volume.forked import Workers, default_jobs  # noqa: PLC0415 - large trees only

        jobs = default_jobs()
        with ExitStack() as context:
            try:
                crew = context.enter_context(Workers(jobs if jobs > 1 else 0, self._serve))
            except OSError:
                return
            parts = [_Part(stack[:])] if crew.workers else []
            if parts:
                stack.clear()
            while parts:
                _hand_out(parts, crew)
                crew.ask_to_share()
                # The first part is always heard: all that is held back waits for its end.
                heard = {
                    id(part.worker): part
                    for part in parts
                    if part.worker and (part is parts[0] or not part.is_full())
                }
                of = [worker for worker in crew.workers if id(worker) in heard]
                for worker, (pieces, given, is_done) in crew.answers(of):
                    part = heard[id(worker)]
                    part.pieces += pieces
                    if given:
                        parts.insert(parts.index(part) + 1, _Part(given))
                    if is_done:
                        part.worker, worker.busy = None, False
                yield from _in_order(parts)

    def _serve(self, line: Line) -> None:
        """Search what the parent sends, as a worker; see _shared."""
        while True:
            stack = line.receive()
            told: list[Found | Place] = []
            names, since = 0, time.monotonic()
            while stack and line.goes_on(0):
                given = line.given(stack)
                if given or (told and (names >= _TOLD or time.monotonic() - since >= _AT_ONCE)):
                    line.reply((told, given, False))
                    told, names, since = [], 0, time.monotonic()
                for piece in self._next(stack):
                    told.append(piece)
                    names += len(piece.names) if isinstance(piece, Found) else 1
            line.reply((told, [], True))

    def _next(self, stack: list[walk.Waiting]) -> Iterator[Found | Place]:
        """What the folder that comes next has. Its sub-folders come next in the stack."""
        number, parts, since = walk.taken(stack)
        folders: list[str] = []
        try:
            pinned = self.walker.folder(self.volume, parts)
            try:
                if not parts:
                    yield from self._carrying(parts, "", f"/proc/self/fd/{pinned}/.")
                yield from self._inside(parts, pinned, folders)
            finally:
                os.close(pinned)
        except OSError as error:
            if error.errno not in walk.GONE | {errno.EXDEV}:
                yield Place(self._path(parts) or "/", reason(error))
        if folders:
            stack.append((number, parts, folders, since))

    def _path(self, parts: Parts) -> str:
        """The path of a folder. That of a deep one is long, so it is made only where it is shown."""
        return "/".join((self.shown, *parts))

    def _inside(self, parts: Parts, pinned: int, folders: list[str]) -> Iterator[Found | Place]:
        """What one pinned folder has. Its sub-folders are appended to ``folders``."""
        mounted = self.left.names.get(parts, frozenset())
        for names in walk.names(pinned, os.fstat(pinned).st_size):
            self.entries += len(names)
            met = [name for name in names if name not in mounted] if mounted else names
            # step() changes into the folder. The caller of this generator must not run there.
            try:
                pieces = [*self._looked_at(pinned, met, parts, folders)]
            finally:
                os.fchdir(self.home)
            yield from pieces

    def _looked_at(
        self, pinned: int, names: list[str], parts: Parts, folders: list[str]
    ) -> Iterator[Found | Place]:
        """The same of these entries of a folder. Entries without the ids cost only the step."""
        found = step(pinned, names, self.options)
        folders += found.folders
        for owner, of_owner in found.plain.items():
            one = InodeIds(*owner)
            yield Found(self._path(parts), of_owner, one, tuple(self.wanted.of(one)))
        for name in found.care:
            yield from self._carrying(parts, name, name)
        for name, why in found.reasons():
            yield Place(f"{self._path(parts)}/{name}", why)

    def _carrying(self, parts: Parts, name: str, place: str) -> Iterator[Found | Place]:
        """The ids of an entry that may have more than an owner; ``place`` leads to it from here."""
        why = ""
        try:
            one = carried(place)
        except FileNotFoundError:
            return
        except InvalidValueError as error:
            why = str(error).removeprefix(f"{place}: ")
        except OSError as error:
            why = reason(error)
        if why:
            [path] = Found(self._path(parts), [name], InodeIds(0, 0), ()).paths()
            yield Place(path, why)
        elif roles := tuple(self.wanted.of(one)):
            yield Found(self._path(parts), [name], one, roles)


def _hand_out(parts: Iterable[_Part], crew: Workers) -> None:
    """Give idle workers what waits, in order."""
    idle = [worker for worker in crew.workers if not worker.busy]
    for worker, part in zip(idle, [part for part in parts if part.stack], strict=False):
        crew.send(worker, part.stack)
        part.stack, part.worker, worker.busy = [], worker, True


def _in_order(parts: list[_Part]) -> Iterator[Found | Place]:
    """The results of the first part, and of each next one as soon as all earlier ones have ended."""
    while parts:
        pieces, parts[0].pieces = parts[0].pieces, []
        yield from pieces
        if parts[0].worker or parts[0].stack:
            return
        del parts[0]
