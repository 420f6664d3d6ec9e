"""The runs of fix-volume, as far as others need to know of them: which there are, how far each is, who is at work.

What a run is to do, only the volume fixer reads. Everybody else reads here which volumes are half-way.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from usernsplan.errors import NotPermittedError, RefusedError, UsernsplanError
from usernsplan.escape import operand, shell, shown_path
from usernsplan.host import files
from usernsplan.layout import RUNS, is_name
from usernsplan.model import RunSeen, UnfinishedRun

if TYPE_CHECKING:
    from usernsplan.layout import Layout

# How far a run is. Only "looking" has changed nothing; "done" and "undone" are finished.
LOOKING, CHANGING, DONE, UNDOING, UNDONE = STATES = (
    "looking",
    "changing",
    "done",
    "undoing",
    "undone",
)
_HALF = frozenset({CHANGING, UNDOING})
# 2: what failed stands in a log of its own. 3: paths are names below the root, which may be moved or mounted elsewhere.
# Within a format, fields are only ever added.
FORMAT = 3
LOCK = "lock"
# A name that a shell takes as it is: it is printed in commands.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def names(layout: Layout) -> list[str]:
    """What the runs are called that have a folder, oldest first. Raises NotPermittedError."""
    with files.explained(layout, RUNS):
        try:
            folder = files.opened_folder(layout, RUNS)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            found = set(os.listdir(folder)) - {LOCK}
        finally:
            os.close(folder)
    # The number that tells runs of the same second apart has as many digits as it takes.
    return sorted(found, key=lambda name: (name.partition(".")[0], len(name), name))


def content(layout: Layout, name: str) -> dict[str, Any] | None:
    """What run.json of a run says; None where a kill left a folder without one: then nothing was changed.

    Whatever format it has, its paths are names below the root; "finish" is the command that finishes it. Raises
    RefusedError where it cannot be told what became of the run: run.json is damaged, or a newer usernsplan's; or it
    tells of a place outside of the root.
    """
    try:
        # What is no folder of its own would be something else of the root's, and taken for a journal: even removed as
        # one.
        if os.path.islink(files.real(layout, f"{RUNS}/{name}")):
            raise damaged(layout, name)
        raw = files.read(layout, f"{RUNS}/{name}/run.json")
    except (NotPermittedError, DamagedRunError):
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
            hint=f"finish it or take it back with that one: {layout.command(f'undo {shell(name)}')}",
        )
    if number not in range(1, FORMAT + 1) or not is_known or not _PLAIN.fullmatch(name):
        raise damaged(layout, name)
    try:
        return _below(layout, name, found)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise damaged(layout, name) from error


def _below(layout: Layout, name: str, found: dict[str, Any]) -> dict[str, Any]:
    """What run.json says, with every path as a name below the root that is none of a place outside. Else it raises."""
    from usernsplan.formats.run_command import finishing  # noqa: PLC0415 - most hosts have no runs

    def below(path: str) -> str:
        # Older formats have paths of the machine.
        inside = path if found["format"] >= FORMAT else layout.below(path)
        if not is_name(path):
            raise ValueError
        if inside is None:
            raise RefusedError(
                f"{_place(layout, name)}: the run changed {shown_path(path)}, which is not below "
                f"--root {shown_path(layout.root)}: the root was moved or copied after the run, "
                "and an older usernsplan did not note names below the root",
                hint="put the root back where it was; or, if nothing has to be taken back, "
                f"{_away(layout, name)}",
            )
        return inside

    trees = [{**tree, "path": below(tree["path"])} for tree in found["trees"]]
    if (
        found["run"] != name
        or not isinstance(found["command"], str)
        or not all(map(is_name, found["formerly"]))
    ):
        raise ValueError
    if found["format"] < FORMAT:
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
    raise ValueError(f"{text} is no number of a run")


class DamagedRunError(RefusedError):
    """The run.json of a run does not say what became of it. Exit status 9."""


def damaged(layout: Layout, name: str, fact: str = "") -> DamagedRunError:
    """What to say of a run.json that does not say what it should. It is replaced whole: no kill leaves half of it."""
    return DamagedRunError(
        f"{fact or f'{_place(layout, name)} is damaged'}: what became of the run cannot be told",
        hint=f"put it back from a backup; or look at the run's volume, and {_away(layout, name)}",
    )


def _away(layout: Layout, name: str) -> str:
    """The command after which a run is none any more."""
    folder, away = (
        layout.path(f"{place}{name}") for place in (f"{RUNS}/", f"{os.path.dirname(RUNS)}/damaged-")
    )
    return f"move the run away: mv {operand(folder)} {operand(away)}"


def is_at_work(layout: Layout, name: str) -> bool:
    """Tell whether some process still holds the run's lock. Nothing is written for it."""
    lock = f"{RUNS}/{name}/{LOCK}"
    with files.explained(layout, lock):
        try:
            with files.pinned(layout, lock) as place:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(place.name, flags, dir_fd=place.folder)
        except OSError as error:
            # A symlink is none of ours; whoever takes the run over refuses it.
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise
            return False
        try:
            # Shared: two who look at the same moment are not at work for each other.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def every(layout: Layout) -> tuple[RunSeen, ...]:
    """All runs that have a journal, oldest first; those that nobody can read too. Raises NotPermittedError."""
    return tuple(one for name in names(layout) if (one := _seen(layout, name)))


def _seen(layout: Layout, name: str) -> RunSeen | None:
    try:
        run = content(layout, name)
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
        is_at_work(layout, name),
        run["container"],
        str(run.get("mode") or "") or None,
        tuple(layout.place(tree["path"]) for tree in run["trees"]),
        _size(layout, name),
        # What failed while it was taken back may be taken back yet.
        can_undo=state in {*_HALF, DONE} or (state == UNDONE and run.get("whole") is not True),
    )


def _began(name: str) -> str:
    """When a run began, which its name tells."""
    try:
        return time.strftime(
            "%Y-%m-%dT%H:%M:%SZ", time.strptime(name.partition(".")[0], "%Y%m%d-%H%M%S")
        )
    except ValueError:
        return ""


def _size(layout: Layout, name: str) -> int:
    """How many bytes a journal has; of one that goes meanwhile, what is left."""
    total = 0
    with files.explained(layout, f"{RUNS}/{name}"), suppress(FileNotFoundError, NotADirectoryError):
        path = files.real(layout, f"{RUNS}/{name}")
        for entry in () if os.path.islink(path) else os.scandir(path):
            total += entry.stat(follow_symlinks=False).st_size
    return total


class Runs(NamedTuple):
    """What others need to know of all runs.

    ``unfinished`` were interrupted, or nobody can tell what became of them; none of these is at work. ``kept`` are the
    volumes, by their names below the root, in which the last run was told to leave ids that the map lacks.
    """

    unfinished: tuple[UnfinishedRun, ...]
    kept: frozenset[str]


def look(layout: Layout) -> Runs:
    """Read the state of every run. Raises NotPermittedError."""
    unfinished, kept = [], set[str]()
    for name in names(layout):
        try:
            run = content(layout, name)
            if run and run["state"] in _HALF and not is_at_work(layout, name):
                # It may have come to its end between the two looks.
                run = content(layout, name)
                if run and run["state"] in _HALF:
                    paths = tuple(layout.place(tree["path"]) for tree in run["trees"])
                    unfinished.append(
                        UnfinishedRun(
                            name, run["finish"], paths, is_undoing=run["state"] == UNDOING
                        )
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
                if run["state"] == DONE:  # of the others it is said already
                    unknown = damaged(layout, name)
                    unfinished.append(UnfinishedRun(name, problem=str(unknown), hint=unknown.hint))
                continue
            kept = kept | names_here if keeps else kept - names_here
    return Runs(tuple(unfinished), frozenset(kept))


def _place(layout: Layout, name: str) -> str:
    return shown_path(layout.path(f"{RUNS}/{name}/run.json"))
