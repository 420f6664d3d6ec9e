"""The runs of fix-volume, as far as others need to know of them: which there are, how far each is, who is at work.

What a run is to do, only the volume fixer reads. Everybody else reads here which volumes are half-way.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from usernsplan.errors import NotPermittedError, RefusedError, UsernsplanError
from usernsplan.host import files
from usernsplan.layout import RUNS
from usernsplan.model import UnfinishedRun

if TYPE_CHECKING:
    from usernsplan.layout import Layout

# How far a run is. Only "looking" has changed nothing; "done" and "undone" are finished.
LOOKING, CHANGING, DONE, UNDOING, UNDONE = STATES = ("looking", "changing", "done", "undoing", "undone")
_HALF = frozenset({CHANGING, UNDOING})
# 2: what failed stands in a log of its own. Within a format, fields are only ever added.
FORMAT = 2
LOCK = "lock"


def names(layout: Layout) -> list[str]:
    """What the runs are called that have a folder, oldest first. Raises NotPermittedError."""
    with files.explained(layout, RUNS):
        try:
            found = set(os.listdir(files.real(layout, RUNS, follow=True))) - {LOCK}
        except (FileNotFoundError, NotADirectoryError):
            return []
    # The number that tells runs of the same second apart has as many digits as it takes.
    return sorted(found, key=lambda name: (name.partition(".")[0], len(name), name))


def content(layout: Layout, name: str) -> dict[str, Any] | None:
    """What run.json of a run says; None where a kill left a folder without one: then nothing was changed.

    Raises RefusedError where it cannot be told what became of the run: run.json is damaged, or a newer usernsplan's.
    """
    try:
        raw = files.read(layout, f"{RUNS}/{name}/run.json")
    except NotPermittedError:
        raise
    except UsernsplanError as error:
        raise damaged(layout, name, str(error)) from error
    if raw is None:
        return None
    try:
        found: dict[str, Any] = json.loads(raw, parse_float=_no_number, parse_constant=_no_number)
        number, is_known = found["format"], found.get("state") in STATES
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(layout, name) from error
    if isinstance(number, int) and number > FORMAT:
        raise RefusedError(
            f"{_place(layout, name)} was made by a newer usernsplan (format {number}): what became of the run cannot "
            "be told",
            hint=f"finish it or take it back with that one: {layout.command(f'undo {name}')}",
        )
    if number not in range(1, FORMAT + 1) or not is_known:
        raise damaged(layout, name)
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of a run")


class DamagedRunError(RefusedError):
    """The run.json of a run does not say what became of it. Exit status 9."""


def damaged(layout: Layout, name: str, fact: str = "") -> DamagedRunError:
    """What to say of a run.json that does not say what it should. It is replaced whole: no kill leaves half of it."""
    folder = layout.path(f"{RUNS}/{name}")
    away = layout.path(f"{os.path.dirname(RUNS)}/damaged-{name}")
    return DamagedRunError(
        f"{fact or f'{_place(layout, name)} is damaged'}: what became of the run cannot be told",
        hint=f"put it back from a backup; or look at the run's volume, and move the run away: mv {folder} {away}",
    )


def is_at_work(layout: Layout, name: str) -> bool:
    """Tell whether some process still holds the run's lock. Nothing is written for it."""
    with files.explained(layout, f"{RUNS}/{name}/{LOCK}"):
        path = os.path.join(files.real(layout, f"{RUNS}/{name}", follow=True), LOCK)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            # Shared: two who look at the same moment are not at work for each other.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


class Runs(NamedTuple):
    """What others need to know of all runs.

    ``unfinished`` were interrupted, or nobody can tell what became of them; none of these is at work. ``kept`` are the
    volumes, by their names below the root, in which the last run was told to leave ids that the map lacks.
    """

    unfinished: tuple[UnfinishedRun, ...]
    kept: frozenset[str]


def look(layout: Layout) -> Runs:
    """Read the state of every run. Raises NotPermittedError."""
    unfinished, kept, top = [], set[str](), layout.real.rstrip("/")
    for name in names(layout):
        try:
            run = content(layout, name)
            if run and run["state"] in _HALF and not is_at_work(layout, name):
                # It may have come to its end between the two looks.
                run = content(layout, name)
                if run and run["state"] in _HALF:
                    unfinished.append(_unfinished(layout, name, run))
        except NotPermittedError:
            raise
        except UsernsplanError as error:
            unfinished.append(UnfinishedRun(name, problem=str(error), hint=error.hint))
            continue
        if run and run["state"] in {*_HALF, DONE}:
            try:
                paths = {path.removeprefix(top) or "/" for path in _paths(run)}
                keeps = any(run["targets"][kind]["keep"] is True for kind in ("uids", "gids"))
            except (LookupError, TypeError):
                if run["state"] == DONE:  # of the others it is said already
                    unknown = damaged(layout, name)
                    unfinished.append(UnfinishedRun(name, problem=str(unknown), hint=unknown.hint))
                continue
            kept = kept | paths if keeps else kept - paths
    return Runs(tuple(unfinished), frozenset(kept))


def _unfinished(layout: Layout, name: str, run: dict[str, Any]) -> UnfinishedRun:
    try:
        return UnfinishedRun(name, str(run["command"]), _paths(run), is_undoing=run["state"] == UNDOING)
    except (LookupError, TypeError) as error:
        raise damaged(layout, name) from error


def _paths(run: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(tree["path"]) for tree in run["trees"])


def _place(layout: Layout, name: str) -> str:
    return layout.path(f"{RUNS}/{name}/run.json")
