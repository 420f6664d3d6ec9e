"""A worker process: it takes orders from its parent and carries each out until the parent stops it.

The parent's side is in ``crew``; how they talk, in ``forked``.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NoReturn

from usernsplan.errors import UsernsplanError, reason_of
from usernsplan.values import NamedTuple
from usernsplan.volume import logs, walk
from usernsplan.volume.carry import Forward, Rules
from usernsplan.volume.look import Foreseeing, LateLooker, Looker, Naming
from usernsplan.volume.parts import TOP, Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from usernsplan.volume.forked import Line
    from usernsplan.volume.passes import Pass
    from usernsplan.volume.seen import Done, Seen

# A folder: the number of its volume, and its parts.
FolderPlace = tuple[int, Parts]
# A folder as the journal tells it from all others: the number of its volume, its device and inode.
FolderKey = tuple[int, int, int]


class Look(NamedTuple):
    """The order to look at folders.

    ``log`` is the file to note them in; None for a look that nothing follows. ``threads``: see
    step. ``outside``: look only for the names of these linked inodes, see Naming.
    """

    pass_: Pass
    seen_before: int
    log: str | None
    threads: int = 1
    outside: frozenset[tuple[int, int]] = frozenset()


class Carry(NamedTuple):
    """The order to carry out logs. ``run`` is the folder of the run; None if nothing is written."""

    rules: Rules
    logs: tuple[str, ...]
    run: str | None


class Prove(NamedTuple):
    """The order to change one entry of each file system, and to check that it keeps the owner.

    ``known`` are devices that do. ``whole``: read the logs to their ends, because the run enters
    mounts, and the note of one may come last.
    """

    rules: Rules
    logs: tuple[str, ...]
    run: str
    known: frozenset[int]
    whole: bool


class Late(NamedTuple):
    """The order to look again, where an entry was not as noted or a folder gained or lost names.

    ``since`` is the time from which names count, in ns since the epoch. ``deep``: look at all
    folders, because one was not where it was noted, and its content may be anywhere.
    """

    rules: Rules
    since: int
    logs: tuple[str, ...]
    log: str
    run: str
    deep: bool


class Tops(NamedTuple):
    """The order to change the tops of the volumes themselves."""

    rules: Rules
    notes: tuple[logs.Folder, ...]
    run: str | None


def obey(line: Line, volumes: Sequence[walk.OpenVolume]) -> NoReturn:
    """Carry out the parent's orders. Raises what Line.serve handles."""
    try:
        _obey(line, volumes)
    except ConnectionError:
        raise
    except OSError as error:
        # The errors of entries are caught where they happen, so this one is the journal's.
        raise UsernsplanError(
            f"the journal of the run: {reason_of(error)}",
            hint="make room, and run the same command again",
        ) from error


def _obey(line: Line, volumes: Sequence[walk.OpenVolume]) -> NoReturn:
    again: set[FolderKey] = set()
    while True:
        order = line.receive()
        match order:
            case Look():
                line.reply(_look(line, volumes, order))
            case Carry():
                again.clear()
                line.reply(_carry(line, volumes, order, again))
            case Prove():
                line.reply(_prove(volumes, order))
            case Late():
                line.reply(_late(line, volumes, order, again))
            case Tops():
                line.reply(_tops(volumes, order))


def _look(line: Line, volumes: Sequence[walk.OpenVolume], order: Look) -> Seen:
    if order.outside:
        looker: Looker = Naming(volumes, order.pass_, order.outside)
    else:
        kind = Looker if order.log else Foreseeing
        looker = kind(volumes, order.pass_, order.threads)
    writer = logs.Writer(order.log) if order.log else None
    while (stack := line.receive()) is not None:
        while line.goes_on(looker.found.entries) and stack:
            if given := line.given(stack):
                line.reply(given)
            number, parts, seen_before = walk.taken(stack)
            for note in looker.look(number, parts, seen_before):
                if writer:
                    writer.write(note)
            folders, seen_before = looker.below
            if folders:
                stack.append((number, parts, folders, seen_before))
        line.reply(None)

    if writer:
        writer.sync()
        writer.close()
    return looker.found


def _carry(
    line: Line, volumes: Sequence[walk.OpenVolume], order: Carry, again: set[FolderKey]
) -> Done:
    carrier = order.rules.carrier(volumes, logs.Links(order.run) if order.run else None)
    for log in order.logs:
        for note in logs.read(log):
            if not line.goes_on(carrier.done.changed):
                return carrier.done
            if (note.changes() or not note.parts) and not carrier.carry(note):
                again.add(_key(note))
    line.goes_on(carrier.done.changed)
    return carrier.done


def _prove(volumes: Sequence[walk.OpenVolume], order: Prove) -> Done:
    carrier = Forward(volumes, order.rules, logs.Links(order.run))
    proved: set[tuple[int, int]] = set()
    tops: list[logs.Folder] = []
    for note in chain.from_iterable(map(logs.read, order.logs)):
        key = (note.volume, note.device)
        # A single file may be mounted, and then the device of its folder says nothing of it.
        is_known = key in proved or (note.device in order.known and not volumes[note.volume].only)
        if not is_known and note.changes():
            if not note.parts:
                tops.append(note)
            if carrier.prove(note, own=False) or (note.parts and carrier.prove(note, own=True)):
                proved.add(key)

        is_enough = not order.whole and len({number for number, _ in proved}) == len(volumes)
        if carrier.done.ignored or is_enough:
            return carrier.done

    # The top is the last to change, so it proves a file system only if nothing else could.
    for note in tops:
        if (note.volume, note.device) not in proved:
            carrier.prove(note, own=True)
    return carrier.done


def _late(
    line: Line, volumes: Sequence[walk.OpenVolume], order: Late, again: set[FolderKey]
) -> Done:
    rules = order.rules
    looker = LateLooker(volumes, rules.pass_, rules.outside, rules.threads)
    carrier = rules.carrier(volumes, logs.Links(order.run))
    writer: logs.Writer | None = None
    unseen: list[tuple[str, str]] = []

    def tells(question: Callable[[], bool], place: FolderPlace) -> bool:
        try:
            return question()
        except OSError as error:
            unseen.append((volumes[place[0]].shown(place[1]), reason_of(error)))
            return False

    todo: dict[FolderKey, FolderPlace] = {}
    for log in () if order.deep else order.logs:
        for note in logs.noted(log):
            place = (note.volume, note.parts)
            if _key(note) in again or tells(partial(_touched, looker, note, order.since), place):
                todo[_key(note)] = place

    stack = [(number, TOP) for number in range(len(volumes))] if order.deep else [*todo.values()]
    while stack and line.goes_on(0):
        number, parts = stack.pop()
        for note in logs.joined(looker.look(number, parts, first=False)):
            if note.changes():
                writer = writer or logs.Writer(order.log)
                writer.write(note)
                writer.sync()
                carrier.carry(note)
        names = chain.from_iterable(name.split("/") for name in looker.below[0])
        below = [(number, parts.below(name)) for name in names]
        stack += [at for at in below if order.deep or tells(partial(_is_new, looker, *at), at)]
    if writer:
        writer.close()

    done = carrier.done
    done.stragglers = done.changed
    done.skipped, done.tops = looker.found.skipped, []
    # Only entries of the journal can be tried again. It does not tell the owner of these.
    done.named += [*looker.found.failed, *unseen]
    done.unseen += [*looker.found.unseen, *unseen]
    return done


def _key(note: logs.Folder) -> FolderKey:
    return note.volume, note.device, note.inode


def _touched(looker: Looker, note: logs.Folder, since: int) -> bool:
    """Tell whether a folder gained or lost a name since then (ns), or another took its name."""
    now = _seen(looker, note.volume, note.parts)
    return now is not None and (now.st_mtime_ns >= since or now.st_ino != note.inode)


def _is_new(looker: Looker, number: int, parts: Parts) -> bool:
    """Tell whether the run has not changed a sub-folder yet: it lacks its new owner."""
    now = _seen(looker, number, parts)
    return now is not None and looker.wanted(now[4:6]) != now[4:6]


def _seen(looker: Looker, number: int, parts: Parts) -> os.stat_result | None:
    """The fstat of a folder now; None if it is gone. Raises OSError if it cannot be opened."""
    try:
        pinned = looker.folder(number, parts)
    except OSError as error:
        if error.errno in walk.GONE | {errno.EXDEV}:
            return None
        raise
    try:
        return os.fstat(pinned)
    finally:
        os.close(pinned)


def _tops(volumes: Sequence[walk.OpenVolume], order: Tops) -> Done:
    carrier = order.rules.carrier(volumes, logs.Links(order.run) if order.run else None)
    for note in order.notes:
        top = volumes[note.volume].top
        os.fchdir(top)
        carrier.itself(note, top)
    return carrier.done
