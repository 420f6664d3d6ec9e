"""What becomes of a run that did not get from its first file to its last. Pure.

After a kill other programs may have changed the files (the locks died with the run), so nothing is decided by position
or by whole contents: a line of ours is taken out wherever it stands now, and never put in, because its range may by now
be somebody else's. Hence ``mend``: where nothing was done, nothing is; a run whose lines all stand is completed, and so
is one that had begun to take lines out; any other is put back.

A run that fails still holds its locks, so nobody else has written, and ``undo`` gives the files their bytes back.
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
    """How to leave the host consistent: files to change or remove, and whether the ledger gets the run's changes."""

    completed: bool
    changes: tuple[Change, ...]
    removals: tuple[str, ...] = ()


def mend(intent: Intent, now: Mapping[str, bytes | None]) -> Mended:
    """Decide after a kill, from the files' bytes as they are ``now`` (by path; None: there is no file)."""
    if all(_stands(c.path, now[c.path], c.before, c.after) for c in intent.changes):
        return Mended(completed=True, changes=())
    if all(_stands(c.path, now[c.path], c.after, c.before) for c in intent.changes):
        return Mended(completed=False, changes=())
    if intent.ledger.remove:
        steps = [
            (c.path, now[c.path], _moved(c.path, now[c.path], c.before, c.after))
            for c in intent.changes
        ]
        return _mended(steps, completed=True)
    steps = [
        (c.path, now[c.path], _moved(c.path, now[c.path], c.after, c.before))
        for c in intent.changes
    ]
    return _mended(steps, completed=False)


def undo(intent: Intent, now: Mapping[str, bytes | None]) -> Mended:
    """Decide after a failure under the locks: every file that was exchanged gets its bytes back."""
    exchanged = [c for c in intent.changes if now[c.path] == c.after != c.before]
    return _mended([(c.path, c.after, c.before) for c in exchanged], completed=False)


def as_mended(state: HostState, intent: Intent) -> HostState:
    """The host as it will be once ``intent`` is mended: what a preview has to start from."""
    mended = mend(intent, files_of(state))
    now: dict[str, bytes | None] = {c.path: c.after for c in mended.changes} | dict.fromkeys(
        mended.removals
    )
    after = as_changed(state, now, intent.ledger if mended.completed else LedgerChange())
    return replace(after, ledger=replace(after.ledger, interrupted=False))


def as_changed(state: HostState, files: dict[str, bytes | None], change: LedgerChange) -> HostState:
    """The host once these files (by path; None: taken away) and the ledger have changed so."""
    now = files_of(state) | files
    return replace(
        state,
        subuid=subid.parse(now[SUBUID]),
        subgid=subid.parse(now[SUBGID]),
        daemon_json=now[DAEMON_JSON],
        # Its moment is yet to come.
        ledger=fold(state.ledger, Event(state.ledger.number + 1, "", change)),
    )


def files_of(state: HostState) -> dict[str, bytes | None]:
    """The bytes of the files that plans change, by path; None where there is no such file."""
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
    """Tell whether all that ``target`` has more than ``source`` is there; others may have sorted or added since."""
    if now is None or now == target:
        return now == target
    if path == DAEMON_JSON:
        return _remap(now) == _remap(target or b"")
    come, gone = (
        subid.added_lines(source or b"", target or b""),
        subid.added_lines(target or b"", source or b""),
    )
    have, wanted = subid.counted(now), subid.counted(target or b"")
    return bool(come) and not gone and all(have[line] >= wanted[line] for line in come)


def _moved(
    path: str, now: bytes | None, source: bytes | None, target: bytes | None
) -> bytes | None:
    """The file moved from ``source`` to ``target``, as far as that takes out what ``source`` had more.

    Where somebody else has changed it meanwhile, only our own lines, or our own userns-remap, go.
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
    """What a daemon.json says of userns-remap; a text that no value is where the file cannot be read."""
    try:
        return daemon_json.parse(raw, DAEMON_JSON).get(daemon_json.REMAP)
    except InvalidFileError:
        return "\0"


def _raw(file: subid.SubidFile) -> bytes | None:
    return file.raw if file.exists else None
