"""Decide what happens to an interrupted run: complete it, or put it back. Pure.

The locks die with a killed run, and other programs may change the files after that. So ``mend``
decides neither by position nor by whole contents. It removes our lines wherever they are now, and
adds none, because another owner may have their ranges since then:

- If no change of the run is in the files, nothing happens.
- If all are there, or if the run had begun to remove lines, the run is completed.
- Otherwise it is put back.

A run that fails still holds its locks, so no other program has written, and ``undo`` restores the
bytes of the files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError
from usernsplan.formats import daemon_json, subid, userdb
from usernsplan.layout import DAEMON_JSON, SUBGID, SUBUID
from usernsplan.ledger.fold import fold
from usernsplan.model import Change, Event, LedgerChange
from usernsplan.planner.publish import records_of
from usernsplan.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from usernsplan.model import Allocation, HostState, Intent, Userdb


@dataclass(frozen=True, slots=True)
class Mended:
    """How to leave the host consistent: which files to change or remove.

    ``completed`` tells whether the ledger gets the run's change.
    """

    completed: bool
    changes: tuple[Change, ...]
    removals: tuple[str, ...] = ()


def mend(intent: Intent, now: Mapping[str, bytes | None]) -> Mended:
    """Decide after a kill. ``now`` are the bytes of the files by path, None for a missing file."""
    if all(_stands(c.path, now[c.path], c.before, c.after) for c in intent.changes):
        return Mended(completed=True, changes=())
    if all(_stands(c.path, now[c.path], c.after, c.before) for c in intent.changes):
        return Mended(completed=False, changes=())

    # A release goes on: another owner may have the ranges of the lines that it has removed.
    completed = bool(intent.ledger.remove)
    ways = [
        (c.path, c.before, c.after) if completed else (c.path, c.after, c.before)
        for c in intent.changes
    ]
    steps = [(path, now[path], _moved(path, now[path], *way)) for path, *way in ways]
    return _mended(steps, completed=completed)


def undo(intent: Intent, now: Mapping[str, bytes | None]) -> Mended:
    """Decide after a failure under the locks: every replaced file gets its bytes back."""
    replaced = [c for c in intent.changes if now[c.path] == c.after != c.before]
    return _mended([(c.path, c.after, c.before) for c in replaced], completed=False)


def as_mended(state: HostState, intent: Intent) -> HostState:
    """The host after ``mend`` of the intent. A preview starts from it."""
    mended = mend(intent, files_of(state))
    now: dict[str, bytes | None] = {c.path: c.after for c in mended.changes}
    now |= dict.fromkeys(mended.removals)
    done = as_changed(state, now, intent.ledger)
    after = done if mended.completed else as_changed(state, now, LedgerChange())
    if not mended.completed:
        records = _published(state.userdb, done.ledger.allocations, state.ledger.allocations)
        after = replace(after, userdb=records)
    return replace(after, ledger=replace(after.ledger, interrupted=False))


def as_changed(state: HostState, files: dict[str, bytes | None], change: LedgerChange) -> HostState:
    """The host after these changes of files (by path; None: removed) and of the ledger."""
    now = files_of(state) | files
    # Without a moment: the event is not written yet.
    ledger = fold(state.ledger, Event(state.ledger.number + 1, "", change))
    return replace(
        state,
        subuid=subid.parse(now[SUBUID]),
        subgid=subid.parse(now[SUBGID]),
        daemon_json=now[DAEMON_JSON],
        ledger=ledger,
        userdb=_published(state.userdb, state.ledger.allocations, ledger.allocations),
    )


def _published(
    there: Userdb, before: tuple[Allocation, ...], after: tuple[Allocation, ...]
) -> Userdb:
    """The folder of records once it has those of ``after`` instead of those of ``before``."""
    if before == after:
        return there
    were, are = {*records_of(before)}, {*records_of(after)}
    come, gone = userdb.names(are - were), userdb.names(were - are)
    return there._replace(
        names=(there.names - gone) | come,
        others={name: it for name, it in there.others.items() if name not in come},
    )


def files_of(state: HostState) -> dict[str, bytes | None]:
    """The bytes of the files that plans change, by path; None for a missing file."""
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
    """Tell whether everything that ``target`` adds to ``source`` is there.

    Other programs may have sorted the file or added lines since then.
    """
    if now is None or now == target:
        return now == target
    if path == DAEMON_JSON:
        return _remap(now) == _remap(target or b"")
    # A missing file (None) has no lines.
    added = subid.added_lines(source or b"", target or b"")
    removed = subid.added_lines(target or b"", source or b"")
    have, wanted = subid.counted(now), subid.counted(target or b"")
    return bool(added) and not removed and all(have[line] >= wanted[line] for line in added)


def _moved(
    path: str, now: bytes | None, source: bytes | None, target: bytes | None
) -> bytes | None:
    """The bytes of a file that moves from ``source`` to ``target``.

    If another program has changed it since then, only our lines or our userns-remap are removed.
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
    if value is None:
        return daemon_json.without_remap(config)
    return daemon_json.with_remap(config, value)


def _remap(raw: bytes) -> str | None:
    r"""The userns-remap of a daemon.json; "\0", which is never its value, if it cannot be read."""
    try:
        return daemon_json.parse(raw, DAEMON_JSON).get(daemon_json.REMAP)
    except InvalidFileError:
        return "\0"


def _raw(file: subid.SubidFile) -> bytes | None:
    return file.raw if file.exists else None
