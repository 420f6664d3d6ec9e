"""Finish or undo a command that was interrupted between its first file and its last. Pure.

A kill also ends the locks, so other programs may have changed the files since then. Neither the
position of a line nor the whole content of a file is reliable. A line of ours is removed wherever it
is now, but never added, because somebody else may have its range by now. Therefore ``mend`` does
nothing if nothing was done. It completes a command whose lines are all there, and one that had begun
to remove lines. It undoes any other.

A command that fails still holds its locks, so nobody else has written, and ``undo`` restores the
bytes of the files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError
from usernsplan.formats import daemon_json, subid
from usernsplan.layout import DAEMON_JSON, SUBGID, SUBUID
from usernsplan.ledger.fold import fold
from usernsplan.model import Change, Event, LedgerChange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from usernsplan.model import HostState, Intent


@dataclass(frozen=True, slots=True)
class Mended:
    """What makes the host consistent: files to change, and files to remove.

    ``completed``: the ledger gets the change of the command.
    """

    completed: bool
    changes: tuple[Change, ...]
    removals: tuple[str, ...] = ()


def mend(intent: Intent, now: Mapping[str, bytes | None]) -> Mended:
    """Decide after a kill. ``now`` has the present bytes of each path; None: the file is missing."""
    if all(_stands(c.path, now[c.path], c.before, c.after) for c in intent.changes):
        return Mended(completed=True, changes=())
    if all(_stands(c.path, now[c.path], c.after, c.before) for c in intent.changes):
        return Mended(completed=False, changes=())

    # Lines that are gone cannot come back, so a command that removes lines is completed.
    forward = bool(intent.ledger.remove)
    steps = []
    for c in intent.changes:
        source, target = (c.before, c.after) if forward else (c.after, c.before)
        steps.append((c.path, now[c.path], _moved(c.path, now[c.path], source, target)))
    return _mended(steps, completed=forward)


def undo(intent: Intent, now: Mapping[str, bytes | None]) -> Mended:
    """Decide after a failure under the locks: every replaced file gets its former bytes."""
    exchanged = [c for c in intent.changes if now[c.path] == c.after != c.before]
    return _mended([(c.path, c.after, c.before) for c in exchanged], completed=False)


def as_mended(state: HostState, intent: Intent) -> HostState:
    """The host as it is once ``intent`` is mended. A preview starts from it."""
    mended = mend(intent, files_of(state))
    now: dict[str, bytes | None] = {c.path: c.after for c in mended.changes} | dict.fromkeys(
        mended.removals
    )
    after = as_changed(state, now, intent.ledger if mended.completed else LedgerChange())
    return replace(after, ledger=replace(after.ledger, interrupted=False))


def as_changed(state: HostState, files: dict[str, bytes | None], change: LedgerChange) -> HostState:
    """The host once the ledger and these files (by path; None: removed) have changed."""
    now = files_of(state) | files
    return replace(
        state,
        subuid=subid.parse(now[SUBUID]),
        subgid=subid.parse(now[SUBGID]),
        daemon_json=now[DAEMON_JSON],
        # The event has no time yet.
        ledger=fold(state.ledger, Event(state.ledger.number + 1, "", change)),
    )


def files_of(state: HostState) -> dict[str, bytes | None]:
    """The bytes of the files that plans change, by path; None if the file is missing."""
    return {SUBUID: _raw(state.subuid), SUBGID: _raw(state.subgid), DAEMON_JSON: state.daemon_json}


def _mended(steps: Sequence[tuple[str, bytes | None, bytes | None]], *, completed: bool) -> Mended:
    return Mended(
        completed=completed,
        changes=tuple(
            Change(path, old, new) for path, old, new in steps if new is not None and new != old
        ),
        removals=tuple(path for path, old, new in steps if new is None and old is not None),
    )


def _stands(path: str, now: bytes | None, source: bytes | None, target: bytes | None) -> bool:
    """Tell whether everything that ``target`` adds to ``source`` is there now.

    Other programs may have sorted the lines or added some since then.
    """
    if now is None or now == target:
        return now == target
    if path == DAEMON_JSON:
        return _remap(now) == _remap(target or b"")
    come = subid.added_lines(source or b"", target or b"")
    gone = subid.added_lines(target or b"", source or b"")
    have, wanted = subid.counted(now), subid.counted(target or b"")
    return bool(come) and not gone and all(have[line] >= wanted[line] for line in come)


def _moved(
    path: str, now: bytes | None, source: bytes | None, target: bytes | None
) -> bytes | None:
    """The file once it is moved from ``source`` to ``target``.

    If another program has changed it since then, this only removes our lines, or changes our
    userns-remap.
    """
    if now is None or now == target:
        return now
    if now == source:
        return target
    if path != DAEMON_JSON:
        return subid.without_lines(now, subid.added_lines(target or b"", source or b""))
    if _remap(now) != _remap(source or b""):
        return now
    config, value = daemon_json.parse(now, DAEMON_JSON), _remap(target or b"")
    return (
        daemon_json.without_remap(config)
        if value is None
        else daemon_json.with_remap(config, value)
    )


def _remap(raw: bytes) -> str | None:
    """The userns-remap of a daemon.json; NUL, which equals no value, if the file is invalid."""
    try:
        return daemon_json.parse(raw, DAEMON_JSON).get(daemon_json.REMAP)
    except InvalidFileError:
        return "\0"


def _raw(file: subid.SubidFile) -> bytes | None:
    return file.raw if file.exists else None
