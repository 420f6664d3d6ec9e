"""The journal of a run: one folder below /var/lib/usernsplan/runs, written before the volume is touched.

``run.json`` says what the run is and how far it has come. ``folders.N`` (one for each worker) has a line for each
folder of the tree, as it was: owners, the names that have another one, and every entry that needs care with its mode,
ACLs and capability. ``late.N`` has the same for what appeared meanwhile. A line tells of its path only what differs
from the line before, so that a chain of folders, however deep, takes little room.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

from usernsplan.errors import (
    HostChangedError,
    LockBusyError,
    RefusedError,
    UnknownNameError,
    UsernsplanError,
)
from usernsplan.escape import line as one_line
from usernsplan.escape import operand, shell, shown_path
from usernsplan.host import files, locks
from usernsplan.host import runs as read_runs
from usernsplan.ids import ID_LIMIT
from usernsplan.layout import RUNS
from usernsplan.mapping import IdMap
from usernsplan.volume.renew import Proof
from usernsplan.volume.special import Special
from usernsplan.volume.targets import Form, OwnershipRule, Pass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from usernsplan.layout import Layout
    from usernsplan.volume.targets import Owner

# How far a run is. Only "looking" has changed nothing; "done" and "undone" are finished.
LOOKING, CHANGING, DONE, UNDOING, UNDONE = read_runs.STATES
_FORMAT = read_runs.FORMAT
_LOCK = read_runs.LOCK
_BUFFER = 1 << 20
# Where a run works, once more: when run.json is damaged, this tells which volumes it has to do with.
_TREES = "trees.json"
# What a run that has begun to change something has left.
_LOGS = ("folders", "late", "swaps")


@dataclass(frozen=True, slots=True)
class Tree:
    """One volume of a run: its name below the root, and the inode of its top."""

    path: str
    device: int
    inode: int

    def contains(self, other: Tree) -> bool:
        """Tell whether the other is this tree, by whatever name, or lies in it."""
        same = (self.device, self.inode) == (other.device, other.inode)
        return same or f"{other.path}/".startswith(self.path.rstrip("/") + "/")


@dataclass(frozen=True, slots=True)
class RunState:
    """What run.json says. All paths are names below the root, which may have been moved since.

    ``finish`` is the command that finishes the run, as it may be shown. ``outside`` are linked inodes (device,
    inode) that are left alone; ``formerly`` is whose each volume was, and its mode. Times in ns since the epoch:
    ``seen`` before the first look, ``end`` after the last change; ``whole``: by then everything was right, and
    ``tops`` is when the inode of each top had changed last; ``failed`` are the paths of all entries of the journal
    that failed, ``retried`` those of them that are tried again; ``told``: the command that made the run came to its
    end; ``entries`` is how many the look met; ``special``: the journal has entries that need care; ``keep_power``:
    files that lose power get it back where their content is proved unchanged; ``sums`` are the size and the CRC-32 of
    each log of the look, which nothing may change after it.
    """

    run: str
    state: str
    command: str
    trees: tuple[Tree, ...]
    targets: OwnershipRule
    seen: int
    stage: int = 0
    end: int | None = None
    staging: tuple[IdMap, IdMap] | None = None
    cross_mounts: bool = False
    container: str | None = None
    mode: str = "own"
    outside: tuple[tuple[int, int], ...] = ()
    formerly: dict[str, list[str]] = field(default_factory=dict)
    whole: bool = False
    tops: tuple[int, ...] = ()
    undone: int | None = None
    failed: tuple[str, ...] = ()
    retried: tuple[str, ...] | None = None
    special: bool = False
    keep_power: bool = False
    told: bool = False
    entries: int = 0
    sums: dict[str, list[int]] = field(default_factory=dict)
    finish: str = field(default="", compare=False)

    def places(self, layout: Layout) -> tuple[str, ...]:
        """Where the trees lie now."""
        return tuple(layout.place(tree.path) for tree in self.trees)

    def turn(self, stage: int) -> Pass:
        """The passage of this stage."""
        return Pass(self.targets, stage, *(self.staging or (None, None)))

    def same_work(self, other: RunState) -> bool:
        """Tell whether both do the same to the same trees."""
        # Not the device: after a reboot it may have another number.
        mine, others = ({(tree.path, tree.inode) for tree in run.trees} for run in (self, other))
        same = (self.cross_mounts, mine) == (other.cross_mounts, others)
        return same and self.targets.same_work(other.targets)

    def same_ids(self, other: RunState) -> bool:
        """Tell whether both move the same ids, whatever they do with others."""
        mine, theirs = self.targets, other.targets
        return (mine.uids.source, mine.gids.source, mine.owner) == (
            theirs.uids.source,
            theirs.gids.source,
            theirs.owner,
        )

    def overlaps(self, other: RunState) -> bool:
        """Tell whether a tree of this run is, contains, or lies in one of the other's."""
        return any(
            mine.contains(tree) or tree.contains(mine)
            for mine in self.trees
            for tree in other.trees
        )


@dataclass(slots=True)
class Folder:
    """One folder as it was: ``common`` is the owner of every plain entry that ``others`` and ``special`` do not name.

    ``own`` is the owner of the folder itself where that changes and needs no care; where it does need care, it is the
    entry '.' of ``special``. ``left`` are names that could not be looked at.
    """

    tree: int
    parts: tuple[str, ...]
    device: int
    inode: int
    own: Owner | None = None
    common: Owner | None = None
    others: list[tuple[Owner, list[str]]] = field(default_factory=list)
    special: list[Special] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def changes(self) -> bool:
        """Tell whether anything in it is to be changed."""
        return bool(self.own or self.common or self.others or self.special)


class Journal:
    """One run's folder on disk. Its parent process writes run.json, its workers their logs."""

    def __init__(self, layout: Layout, state: RunState, lock: int = -1) -> None:
        self._layout = layout
        self._name = f"{RUNS}/{state.run}"
        self._lock = lock
        self.state = state
        # Where the workers write it: a path by which nobody can lead them elsewhere.
        with files.explained(layout, self._name):
            self._pin = files.opened_folder(layout, self._name)
        self.folder = f"/proc/self/fd/{self._pin}"

    def set(self, **changes: Any) -> None:
        """Note how far the run is; on disk when this returns."""
        self.state = replace(self.state, **changes)
        state = self.state
        content = asdict(replace(state, targets=None, staging=None))  # type: ignore[arg-type]
        # It is made anew, of what can be checked, by whoever reads it.
        del content["finish"]
        content["targets"] = state.targets.to_json()
        content["staging"] = (
            [staging.triples() for staging in state.staging] if state.staging else None
        )
        text = json.dumps({"format": _FORMAT, **content}, indent=1) + "\n"
        files.write(self._layout, {f"{self._name}/run.json": text.encode()})

    def sums(self) -> dict[str, list[int]]:
        """Size and CRC-32 of each log of the look."""
        return {os.path.basename(path): _sum(path) for path in self.logs("folders")}

    def refuse_damaged(self) -> None:
        """Raise RefusedError unless every log is whole: half of a run is not to be carried out, nor taken back."""
        with files.explained(self._layout, self._name):
            now = self.sums()
            for name, noted in self.state.sums.items():
                if now.get(name) != noted:
                    log = os.path.join(self.folder, os.path.basename(name))
                    raise damaged_log(
                        log, "it is not as the run left it" if name in now else "it is gone"
                    )
            for log in self.logs("folders", "late"):
                # What has a sum is as it was written.
                if os.path.basename(log) not in self.state.sums:
                    # The look was on disk, whole, before anything was changed; only what came later may be cut.
                    if os.path.basename(log).startswith("folders.") and _whole_lines(
                        log
                    ) != os.path.getsize(log):
                        raise damaged_log(log, "its last line is cut")
                    self._refuse_strange(log)

    def remove(self) -> None:
        """Take the run away: it has changed nothing."""
        _forget(self._layout, self._name)
        self.close()

    def close(self) -> None:
        """Let others have the volume. What ``path`` and ``logs`` told leads nowhere after this."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._pin >= 0:
            os.close(self._pin)
            self._pin = -1

    def path(self, kind: str, worker: int) -> str:
        """Where a worker's log of this kind (folders, late) lies."""
        return os.path.join(self.folder, f"{kind}.{worker}")

    def logs(self, *kinds: str) -> list[str]:
        """Every log of these kinds, by path."""
        with files.explained(self._layout, self._name):
            names = sorted(
                name for name in os.listdir(self.folder) if name.partition(".")[0] in kinds
            )
        return [os.path.join(self.folder, name) for name in names]

    def refuse_forged(self) -> None:
        """Raise RefusedError for a journal that no run wrote: it may name what lies outside of the root."""
        with files.explained(self._layout, self._name):
            entries = list(os.scandir(self.folder))
            if not all(entry.is_file(follow_symlinks=False) for entry in entries):
                raise read_runs.damaged(self._layout, self.state.run)
            # Nobody but root writes the journals of this machine, and the longest take a while.
            for log in () if self._layout.is_host else self.logs("folders", "late"):
                self._refuse_strange(log)

    def _refuse_strange(self, log: str) -> None:
        for note in read(log):
            if not 0 <= note.tree < len(self.state.trees):
                raise damaged_log(log, f"there is no volume {note.tree}")


class Writer:
    """Appends folders to one log."""

    def __init__(self, path: str) -> None:
        is_new = not os.path.lexists(path)
        self._file = open(path, "ab", buffering=_BUFFER, opener=files.no_symlink)  # noqa: SIM115 - closed by close
        if is_new:
            files.sync_folder(os.path.dirname(path))
        else:
            # What a kill cut short was never acted upon.
            self._file.truncate(_whole_lines(path))
        self._before: tuple[str, ...] = ()

    def write(self, folder: Folder) -> None:
        """Note one folder; it may still be in memory when this returns."""
        same = takewhile(
            lambda pair: pair[0] == pair[1], zip(self._before, folder.parts, strict=False)
        )
        kept = sum(1 for _ in same)
        self._before = folder.parts
        line: dict[str, Any] = {
            "p": [kept, *folder.parts[kept:]],
            "i": [folder.tree, folder.device, folder.inode],
        }
        if folder.own:
            line["own"] = folder.own
        if folder.common:
            line["common"] = folder.common
        if folder.others:
            line["others"] = folder.others
        if folder.special:
            line["special"] = [_packed(special) for special in folder.special]
        if folder.left:
            line["left"] = folder.left
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def sync(self) -> None:
        """Make what was noted survive a power cut."""
        self._file.flush()
        os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Write out what is in memory."""
        self._file.close()


def _whole_lines(path: str) -> int:
    """How many bytes of a log are whole lines."""
    with open(path, "rb", opener=files.no_symlink) as file:
        return sum(len(line) for line in file if line.endswith(b"\n"))


class Links:
    """Keeps the workers of a run from changing an inode with several names at the same time. ``run``: its folder."""

    def __init__(self, run: str) -> None:
        self._path = os.path.join(run, "links")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the other workers from such an inode: it is to be changed once, as a whole."""
        lock = os.open(
            self._path,
            os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            0o600,
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _sum(path: str) -> list[int]:
    import zlib  # noqa: PLC0415 - only where something is changed

    size = crc = 0
    with open(path, "rb", opener=files.no_symlink) as file:
        while piece := file.read(_BUFFER):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return [size, crc]


def damaged_log(path: str, why: str) -> RefusedError:
    """What to say of a log that does not say what a run wrote."""
    # It was opened below a folder that is pinned; others know it by its path.
    folder = os.path.realpath(os.path.dirname(path))
    away = os.path.join(
        os.path.dirname(os.path.dirname(folder)), f"damaged-{os.path.basename(folder)}"
    )
    return RefusedError(
        f"{one_line(os.path.join(folder, os.path.basename(path)))} is damaged: {why}; what the volume was before the"
        " run cannot be told from it",
        hint="put it back from a backup; or look at the run's volume, and move the run away: "
        f"mv {operand(folder)} {operand(away)}",
    )


def read(log: str) -> Iterator[Folder]:
    """The folders of a log, in order. A line that a kill cut short ends it. Raises RefusedError for what is no line."""
    return joined(_lines(log))


def joined(pieces: Iterable[Folder]) -> Iterator[Folder]:
    """Make one note of the pieces that follow each other for the same folder."""
    last: Folder | None = None
    for piece in pieces:
        same = last and (last.tree, last.parts, last.inode) == (
            piece.tree,
            piece.parts,
            piece.inode,
        )
        # A piece that says something of its own is another note: of a later run over the same folder.
        if last and same and not (piece.own or piece.common):
            last.others += piece.others
            last.special += piece.special
            last.left += piece.left
            continue
        if last:
            yield last
        last = piece
    if last:
        yield last


def _lines(log: str) -> Iterator[Folder]:
    parts: tuple[str, ...] = ()
    with open(log, "rb", opener=files.no_symlink) as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                folder = _folder(json.loads(line), parts)
            except (
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                OverflowError,
                RecursionError,
            ) as error:
                raise damaged_log(log, f"line {number} cannot be read ({error!r:.100})") from error
            parts = folder.parts
            yield folder


def _folder(content: dict[str, Any], before: tuple[str, ...]) -> Folder:
    """What one line says; whatever is not as it was written raises an error."""
    kept, *more = content["p"]
    tree, device, inode = map(_number, content["i"])
    others = [
        (_owner(owner), list(map(_name, names))) for owner, names in content.get("others", ())
    ]
    return Folder(
        tree,
        (*before[: _number(kept)], *map(_name, more)),
        device,
        inode,
        _owner(content.get("own")),
        _owner(content.get("common")),
        [(owner, names) for owner, names in others if owner],
        [_unpacked(*fields) for fields in content.get("special", ())],
        list(map(_name, content.get("left", ()))),
    )


def _number(number: Any) -> int:  # noqa: ANN401 - what the JSON says
    if type(number) is not int:
        raise TypeError(f"{number!r:.40} is no number")
    return number


def _name(name: Any) -> str:  # noqa: ANN401 - what the JSON says
    """The name of an entry of a folder, or '.', that itself: nothing that leads elsewhere."""
    if not isinstance(name, str) or name in {"", ".."} or "/" in name or "\0" in name:
        raise ValueError(f"{name!r:.40} is no name of an entry")
    return name


def _id(number: Any) -> int:  # noqa: ANN401 - what the JSON says
    if not 0 <= _number(number) < ID_LIMIT:
        raise ValueError(f"{number} is no id")
    return int(number)


def _owner(content: list[int] | None) -> Owner | None:
    if content is None:
        return None
    uid, gid = map(_id, content)
    return uid, gid


def _packed(special: Special) -> list[Any]:
    form = special.form
    raw = [
        value.hex() if value is not None else None
        for value in (form.acl, form.default_acl, form.capability)
    ]
    inode = [special.device, special.inode, form.mode, special.links, special.changed_ns]
    proof = [special.proof.size, special.proof.digest] if special.proof else []
    return [special.name, *inode, *form.owner, *raw, *proof]


def _unpacked(*fields: Any) -> Special:
    name, device, inode, mode, links, changed_ns, uid, gid, *more = fields
    # A run of an older version noted no proof.
    raw, proof = more[:3], more[3:]
    values = [bytes.fromhex(value) if value is not None else None for value in raw]
    form = Form((_id(uid), _id(gid)), _number(mode), *values)
    if proof:
        size, digest = proof
        proof = [_number(size), str(digest)]
    inode, links, changed_ns = map(_number, (inode, links, changed_ns))
    return Special(
        _name(name),
        _number(device),
        inode,
        links,
        changed_ns,
        form,
        Proof(*proof) if proof else None,
    )


def runs(layout: Layout, near: RunState | None = None) -> list[RunState]:
    """Every run that has a journal, oldest first; with ``near``, less damaged ones that do not concern its trees.

    Raises NotPermittedError where they are not ours to see, RefusedError for a damaged one that may concern them.
    """
    found = []
    for name in read_runs.names(layout):
        try:
            state = _state(layout, name)
        except read_runs.DamagedRunError:
            if near is None or _may_concern(layout, name, near):
                raise
            continue
        if state is not None:
            found.append(state)
    return found


def _may_concern(layout: Layout, name: str, near: RunState) -> bool:
    """Tell whether a run whose run.json is damaged may have changed one of these trees."""
    if files.is_symlink(layout, f"{RUNS}/{name}"):
        # Whatever it leads to was not noted by this run.
        return True
    trees = _noted_trees(layout, name)
    if trees is None:
        # Nothing tells where it worked: one that had begun to change something has a log of it.
        with (
            closing(Journal(layout, replace(near, run=name))) as log,
            files.explained(layout, f"{RUNS}/{name}"),
        ):
            return any(os.path.getsize(path) for path in log.logs(*_LOGS))
    return any(mine.contains(tree) or tree.contains(mine) for mine in near.trees for tree in trees)


def _noted_trees(layout: Layout, name: str) -> tuple[Tree, ...] | None:
    """The trees of a run as they stand beside its run.json, or in what is left of that; None where neither tells."""
    for place in (_TREES, "run.json"):
        with suppress(UsernsplanError, ValueError, LookupError, TypeError, RecursionError):
            content = json.loads(files.read(layout, f"{RUNS}/{name}/{place}") or b"")
            trees = tuple(_tree(tree) for tree in content["trees"])
            if place != _TREES and content.get("format") in {1, 2}:
                # These have paths of the machine.
                trees = tuple(
                    replace(tree, path=layout.below(tree.path) or tree.path) for tree in trees
                )
            if trees:
                return trees
    return None


def _tree(content: dict[str, Any]) -> Tree:
    path = content["path"]
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError(f"{path!r:.40} is no path")
    return Tree(path, _number(content["device"]), _number(content["inode"]))


def run(layout: Layout, name: str) -> RunState:
    """The run of this name. Raises UnknownNameError."""
    state = _state(layout, name) if name in read_runs.names(layout) else None
    if state is None:
        hint = f"'{layout.command('history --runs')}' lists them; {layout.path(RUNS)} has a folder for each"
        raise UnknownNameError(f"there is no run {shown_path(name)!r}", hint=hint)
    return state


def later(layout: Layout, state: RunState) -> list[RunState]:
    """The runs after this one on the same trees, oldest first."""
    every = runs(layout, state)
    names = [run.run for run in every]
    if state.run not in names:
        raise HostChangedError(f"run {state.run} was taken away meanwhile")
    after = every[names.index(state.run) + 1 :]
    return [run for run in after if run.overlaps(state)]


def begin(layout: Layout, state: RunState, check: Callable[[], None] = lambda: None) -> Journal:
    """Make the folder of a new run, and hold its lock; ``state.run`` is completed so that no other has it.

    ``check`` is called when no other run can begin or be resumed any more. Raises LockBusyError where another one is at
    work on one of the trees, and what ``check`` raises.
    """
    files.make_folder(layout, os.path.dirname(RUNS), 0o700)
    files.make_folder(layout, RUNS, 0o700)
    with _lock_in(layout, RUNS, wait=True):
        for other in runs(layout, state):
            at_work = is_at_work(layout, other)
            if at_work and other.overlaps(state):
                raise busy(other.run)
            if other.state == LOOKING and not at_work:
                # Killed before it changed anything: nobody will miss it.
                _forget(layout, f"{RUNS}/{other.run}")
        check()
        taken = set(read_runs.names(layout))
        names = (state.run if number == 1 else f"{state.run}.{number}" for number in count(1))
        state = replace(state, run=next(name for name in names if name not in taken))
        name = f"{RUNS}/{state.run}"
        files.make_folder(layout, name, 0o700)
        with files.explained(layout, RUNS), files.pinned(layout, name) as place:
            files.sync_folder(place.folder)
        journal = Journal(layout, state, _lock_in(layout, name).take())
        trees = json.dumps({"trees": [asdict(tree) for tree in state.trees]}) + "\n"
        files.write(layout, {f"{name}/{_TREES}": trees.encode()})
        journal.set()
    return journal


def resume(layout: Layout, state: RunState) -> Journal:
    """Take over a run that is not at work any more, as ``state`` says it is.

    Raises LockBusyError where it is at work, or another one on the same trees; HostChangedError where it is no longer
    so; RefusedError where a later run on the same trees is unfinished.
    """
    files.make_folder(layout, RUNS, 0o700)
    with _lock_in(layout, RUNS, wait=True):
        lock = _lock_in(layout, f"{RUNS}/{state.run}")
        if not lock:
            raise busy(state.run)
        with lock:
            for other in runs(layout, state):
                if other.run != state.run and other.overlaps(state):
                    if is_at_work(layout, other):
                        raise busy(other.run)
                    if other.state in {CHANGING, UNDOING}:
                        hint = f"finish it, or take it back: {layout.command(f'undo {shell(other.run)}')}"
                        raise RefusedError(
                            f"run {other.run} on the same volume is unfinished", hint=hint
                        )
            if run(layout, state.run) != state:
                raise HostChangedError(f"run {state.run} has gone on meanwhile")
            journal = Journal(layout, state, lock.take())
            try:
                journal.refuse_forged()
            except BaseException:
                journal.close()
                raise
            return journal


def is_at_work(layout: Layout, state: RunState) -> bool:
    """Tell whether some process still holds the run's lock. Nothing is written for it."""
    return read_runs.is_at_work(layout, state.run)


def refuse_half_known(layout: Layout, state: RunState) -> None:
    """Raise RefusedError where a run that an older version left cannot be finished: what failed in it is not known."""
    content = read_runs.content(layout, state.run)
    if content and not _can_be_finished(content):
        raise RefusedError(
            f"run {state.run} on {', '.join(state.places(layout))} was interrupted, and an older usernsplan began it:"
            " what failed in it is not known, and its map overlaps itself",
            hint=f"take it back, and run again: {layout.command(f'undo {shell(state.run)}')}",
        )


def _can_be_finished(content: dict[str, Any]) -> bool:
    """Tell whether what run.json says is enough to finish the run.

    Format 1 kept of what failed in an overlapping map a list that was cut for readers: an entry that it forgot would
    be moved twice, or not at all. Where nothing had failed, nothing was forgotten.
    """
    overlaps = content.get("staging") is not None
    return (
        content["format"] > 1
        or not overlaps
        or not (content.get("failed") or content.get("retried"))
    )


@contextmanager
def alone(layout: Layout, *, write: bool = True) -> Iterator[None]:
    """Let no run begin or be resumed meanwhile; without ``write``, or where there is no run yet, nothing is locked."""
    with ExitStack() as held:
        with suppress(FileNotFoundError, NotADirectoryError):
            if write and stat.S_ISDIR(files.look(layout, RUNS, follow=True).st_mode):
                held.enter_context(_lock_in(layout, RUNS, wait=True))
        yield


def new_name() -> str:
    """What a run that starts now is called."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime())


class _Held:
    """A lock that may have been got, as a context."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __bool__(self) -> bool:
        return self._descriptor >= 0

    def take(self) -> int:
        """The lock's descriptor, to be closed by whoever takes it."""
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def __enter__(self) -> bool:
        return bool(self)

    def __exit__(self, *_: object) -> None:
        if self:
            os.close(self.take())


def _lock_in(layout: Layout, folder: str, *, wait: bool = False) -> _Held:
    name = f"{folder}/{_LOCK}"
    with files.explained(layout, name), files.pinned(layout, name) as place:
        return _locked(place.path, shown_path(layout.path(name)), wait=wait)


def _locked(path: str, shown: str, *, wait: bool = False) -> _Held:
    """Try to hold a lock. Workers inherit it, so that it is free only when the last of them is gone."""
    descriptor = os.open(
        path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600
    )
    try:
        if wait:
            locks.wait_for(descriptor, shown)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return _Held(-1)
    except BaseException:
        os.close(descriptor)
        raise
    return _Held(descriptor)


def _forget(layout: Layout, name: str) -> None:
    """Take away the folder of a run that has changed nothing; what cannot be taken away harms nobody."""
    with suppress(OSError, RefusedError), files.pinned(layout, name) as place:
        shutil.rmtree(place.path, ignore_errors=True)


def busy(run: str) -> LockBusyError:
    """What to say where a run is at work."""
    return LockBusyError(
        f"run {run} is at work on this volume", hint="wait until it has finished, and run again"
    )


# What the fields of run.json hold that need no reading; None is allowed where it is their usual value.
_PLAIN: dict[str, type] = {
    **dict.fromkeys(("command", "mode", "container"), str),
    **dict.fromkeys(("seen", "stage", "end", "undone", "entries"), int),
    **dict.fromkeys(("cross_mounts", "whole", "special", "keep_power", "told"), bool),
}
_MAY_LACK = {"container", "end", "undone"}


def _listed(found: Any) -> tuple[Any, ...]:  # noqa: ANN401 - what the JSON says
    if not isinstance(found, list):
        raise TypeError(f"{found!r:.40} is no list")
    return tuple(found)


def _refuse_strange(state: RunState, name: str) -> None:
    """Raise TypeError or ValueError for a run that no run writes down so."""
    for one, kind in _PLAIN.items():
        value = getattr(state, one)
        if type(value) is not kind and not (value is None and one in _MAY_LACK):
            raise TypeError(f"{one} is {value!r:.40}")
    if state.run != name or state.stage not in {0, 1, 2}:
        raise ValueError("another run's, or none's")
    texts = [*state.failed, *(state.retried or ()), *state.sums]
    texts += [word for path, words in state.formerly.items() for word in (path, *words)]
    numbers = [
        *state.tops,
        *(number for pair in (*state.outside, *state.sums.values()) for number in pair),
    ]
    if not all(isinstance(text, str) for text in texts) or not state.trees:
        raise TypeError("not a text")
    for number in numbers:
        _number(number)
    if not all(isinstance(words, list) for words in state.formerly.values()):
        raise TypeError("not a list")


def _state(layout: Layout, name: str) -> RunState | None:
    """Read run.json; None where a kill left a folder without one. Raises RefusedError where it cannot be understood."""
    content = read_runs.content(layout, name)
    if content is None:
        return None
    try:
        content["trees"] = tuple(map(_tree, content["trees"]))
        content["targets"] = OwnershipRule.from_json(content["targets"])
        staging = content["staging"]
        content["tops"] = _listed(content["tops"])
        content["failed"] = _listed(content["failed"])
        content["retried"] = None if content["retried"] is None else _listed(content["retried"])
        content["outside"] = tuple((device, inode) for device, inode in _listed(content["outside"]))
        content["staging"] = (IdMap.of(*staging[0]), IdMap.of(*staging[1])) if staging else None
        # A newer version of the same format may have added fields.
        state = RunState(
            **{
                known.name: content[known.name]
                for known in fields(RunState)
                if known.name in content
            }
        )
        _refuse_strange(state, name)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise read_runs.damaged(layout, name) from error
    return state
