"""The runs of fix-volume as other commands see them: names, states, and whether they are running.

Only the volume fixer reads what a run has to do. All others read here which volumes are half-way.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from usernsplan.errors import NotPermittedError, RefusedError, UsernsplanError
from usernsplan.escape import operand, shell, shown_path
from usernsplan.host import files
from usernsplan.layout import RUNS, is_name
from usernsplan.model import RunSeen, UnfinishedRun
from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from usernsplan.layout import Layout

# The states of a run. "looking" has changed nothing; "done" and "undone" are finished.
LOOKING, CHANGING, DONE, UNDOING, UNDONE = STATES = (
    "looking",
    "changing",
    "done",
    "undoing",
    "undone",
)
_HALF = frozenset({CHANGING, UNDOING})
# The format of run.json. 2: failures are in a log of their own. 3: paths are names below the root,
# because the root may be moved or mounted elsewhere. 4: the logs have entries that need care in
# groups, which older versions would leave out. Within a format, fields are only ever added.
FORMAT = 4
_BELOW_ROOT = 3
LOCK = "lock"
# A name that needs no quotes in a shell: it is printed in commands.
_PLAIN = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# The name of a run begins with its time: 20261122-053048, or 20261122-053048.2.
_BEGAN = pattern(r"([0-9]{4})([0-9]{2})([0-9]{2})-([0-9]{2})([0-9]{2})([0-9]{2})(?![^.])")


def names(layout: Layout) -> list[str]:
    """The names of all runs that have a folder, oldest first. Raises NotPermittedError."""
    with files.explained(layout, RUNS):
        try:
            folder = files.opened_folder(layout, RUNS)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            found = set(os.listdir(folder)) - {LOCK}
        finally:
            os.close(folder)
    # Runs of the same second have a number after the dot; shorter names have smaller numbers.
    return sorted(found, key=lambda name: (name.partition(".")[0], len(name), name))


def content(layout: Layout, name: str) -> dict[str, Any] | None:
    """The run.json of a run; None if a kill left a folder without one: then nothing was changed.

    Paths in the result are names below the root, whatever format the file has; "finish" is the
    command that finishes the run. Raises NotPermittedError, and RefusedError if the state of the
    run is unknown: run.json is damaged, a newer usernsplan wrote it, or it names a place outside
    the root.
    """
    raw = text(layout, name)
    return None if raw is None else parsed(layout, name, raw)


def text(layout: Layout, name: str) -> bytes | None:
    """The bytes of run.json, as ``content`` reads them."""
    try:
        # A symlink could lead to any other folder below the root, which prune would then remove as
        # a journal.
        if os.path.islink(files.real(layout, f"{RUNS}/{name}")):
            raise damaged(layout, name)
        return files.read(layout, f"{RUNS}/{name}/run.json")
    except (NotPermittedError, DamagedRunError):
        raise
    except UsernsplanError as error:
        raise damaged(layout, name, str(error)) from error


def parsed(layout: Layout, name: str, raw: bytes) -> dict[str, Any]:
    """What these bytes say, as ``content`` returns it."""
    try:
        found: dict[str, Any] = json.loads(raw, parse_float=_no_number, parse_constant=_no_number)
        number, is_known = found["format"], found.get("state") in STATES
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(layout, name) from error
    if isinstance(number, int) and number > FORMAT:
        raise RefusedError(
            f"{_place(layout, name)} was written by a newer usernsplan (format {number}): "
            "the state of the run is unknown",
            hint="finish or undo the run with that version: "
            f"{layout.command(f'undo {shell(name)}')}",
        )
    if number not in range(1, FORMAT + 1) or not is_known or not _PLAIN.fullmatch(name):
        raise damaged(layout, name)
    try:
        return _below(layout, name, found)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise damaged(layout, name) from error


def _below(layout: Layout, name: str, found: dict[str, Any]) -> dict[str, Any]:
    """The content of run.json, with every path as a name below the root.

    Raises RefusedError for a path outside the root, and ValueError or TypeError if it is damaged.
    """
    from usernsplan.formats.run_command import finishing  # noqa: PLC0415 - most hosts have no runs

    def below(path: str) -> str:
        # Older formats hold real paths of the machine.
        inside = path if found["format"] >= _BELOW_ROOT else layout.below(path)
        if not is_name(path):
            raise ValueError
        if inside is None:
            raise RefusedError(
                f"{_place(layout, name)}: the run changed {shown_path(path)}, which is not below "
                f"--root {shown_path(layout.root)}: the root was moved or copied after the run, "
                "and an older usernsplan did not note names below the root",
                hint="move the root back to its old place; or, if nothing has to be undone, "
                f"{away(layout, name)}",
            )
        return inside

    trees = [{**tree, "path": below(tree["path"])} for tree in found["trees"]]
    if (
        found["run"] != name
        or not isinstance(found["command"], str)
        or not all(map(is_name, found["formerly"]))
    ):
        raise ValueError
    if found["format"] < _BELOW_ROOT:
        for key in ("failed", "retried"):
            found[key] = found[key] and [layout.below(path) or path for path in found[key]]
    places = [layout.place(tree["path"]) for tree in trees]
    container = found["container"]
    if not isinstance(container, str | None):
        raise TypeError
    return {
        **found,
        "trees": trees,
        "finish": finishing(found["command"], container, places, layout),
    }


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"run.json has integers only, not {text}")


class DamagedRunError(RefusedError):
    """The run.json of a run is damaged, so the state of the run is unknown. Exit status 9."""


def damaged(layout: Layout, name: str, fact: str = "") -> DamagedRunError:
    """The error for a damaged run.json. It is replaced whole, so a kill cannot be the cause."""
    return DamagedRunError(
        f"{fact or f'{_place(layout, name)} is damaged'}: the state of the run is unknown",
        hint="restore the file from a backup; or check the volume of the run, "
        f"and {away(layout, name)}",
    )


def away(layout: Layout, name: str) -> str:
    """The command that moves a run out of the folder of runs, so that it no longer counts."""
    folder, away = (
        layout.path(f"{place}{name}") for place in (f"{RUNS}/", f"{os.path.dirname(RUNS)}/damaged-")
    )
    return f"move the run away: mv {operand(folder)} {operand(away)}"


def is_at_work(layout: Layout, name: str) -> bool:
    """Tell whether a process holds the lock of the run. Nothing is written."""
    lock = f"{RUNS}/{name}/{LOCK}"
    with files.explained(layout, lock):
        try:
            with files.pinned(layout, lock) as place:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(place.name, flags, dir_fd=place.folder)
        except OSError as error:
            # usernsplan never makes a symlink here; finishing or undoing the run refuses it.
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise
            return False
        try:
            # Shared, so that two checks at the same moment do not take each other for the run.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def every(layout: Layout) -> tuple[RunSeen, ...]:
    """All runs that have a journal, oldest first, damaged ones included.

    Raises NotPermittedError.
    """
    return tuple(one for name in names(layout) if (one := _seen(layout, name)))


def _seen(layout: Layout, name: str) -> RunSeen | None:
    try:
        run, at_work = _now(layout, name)
    except NotPermittedError:
        raise
    except UsernsplanError as error:
        return RunSeen(
            name, at=_began(name), size=_size(layout, name), problem=str(error), hint=error.hint
        )
    if run is None:
        return None
    state = run["state"]
    return RunSeen(
        name,
        _began(name),
        state,
        at_work,
        run["container"],
        str(run.get("mode") or "") or None,
        tuple(layout.place(tree["path"]) for tree in run["trees"]),
        _size(layout, name),
        # Entries for which an undo failed can be undone by running it again.
        can_undo=state in {*_HALF, DONE} or (state == UNDONE and run.get("whole") is not True),
        # Runs of before containers could be renamed do not have it.
        event=event if isinstance(event := run.get("event"), int) else 0,
        # Before there was another method, run.json had no field for it.
        method=str(run.get("method") or "chown"),
    )


def _now(layout: Layout, name: str) -> tuple[dict[str, Any] | None, bool]:
    """The content of a run, and whether a process is at work on it: as both are at one moment."""
    run = content(layout, name)
    at_work = is_at_work(layout, name)
    if run and run["state"] in _HALF and not at_work:
        # It may have ended between the reading of its state and the look at its lock.
        run = content(layout, name)
    return run, at_work


def _began(name: str) -> str:
    """When a run began (UTC, ISO 8601), from its name; "" if the name has no time."""
    found = _BEGAN.match(name)
    if found is None:
        return ""
    from datetime import datetime, timezone  # noqa: PLC0415 - slow, and seldom needed

    try:
        # Not strptime: it reads the calendar of the locale first.
        moment = datetime(*map(int, found.groups()), tzinfo=timezone.utc)  # type: ignore[misc, arg-type]
    except ValueError:
        return ""
    return moment.isoformat().replace("+00:00", "Z")


def _size(layout: Layout, name: str) -> int:
    """The size of a journal in bytes; it may disappear at the same time."""
    total = 0
    with files.explained(layout, f"{RUNS}/{name}"), suppress(FileNotFoundError, NotADirectoryError):
        path = files.real(layout, f"{RUNS}/{name}")
        for entry in () if os.path.islink(path) else os.scandir(path):
            total += entry.stat(follow_symlinks=False).st_size
    return total


class Runs(NamedTuple):
    """What other commands need to know of all runs.

    ``unfinished`` are runs that were interrupted or whose state is unknown; none is running.
    ``kept`` are the volumes (names below the root) whose last run left ids that the map lacks, as
    its ``--unmapped keep`` asked.
    """

    unfinished: tuple[UnfinishedRun, ...]
    kept: frozenset[str]


def look(layout: Layout) -> Runs:
    """Read the state of every run. Raises NotPermittedError."""
    unfinished, kept = [], set[str]()
    for name in names(layout):
        try:
            run, at_work = content(layout, name), False
            if run and run["state"] in _HALF:
                run, at_work = _now(layout, name)
            if run and run["state"] in _HALF and not at_work:
                paths = tuple(layout.place(tree["path"]) for tree in run["trees"])
                unfinished.append(
                    UnfinishedRun(name, run["finish"], paths, is_undoing=run["state"] == UNDOING)
                )
        except NotPermittedError:
            raise
        except UsernsplanError as error:
            unfinished.append(UnfinishedRun(name, problem=str(error), hint=error.hint))
            continue
        if run and run["state"] in {*_HALF, DONE}:
            try:
                names_here = {tree["path"] for tree in run["trees"]}
                keeps = any(run["targets"][kind]["keep"] is True for kind in ("uids", "gids"))
            except (LookupError, TypeError):
                if run["state"] == DONE:  # the others are listed already
                    unknown = damaged(layout, name)
                    unfinished.append(UnfinishedRun(name, problem=str(unknown), hint=unknown.hint))
                continue
            kept = kept | names_here if keeps else kept - names_here
    return Runs(tuple(unfinished), frozenset(kept))


def _place(layout: Layout, name: str) -> str:
    return shown_path(layout.path(f"{RUNS}/{name}/run.json"))
