"""What becomes of a run that did not get from its first file to its last. Pure.

After a kill other programs may have changed the files (the locks died with the run), so nothing is decided by position
or by whole contents: a line of ours is taken out wherever it stands now, and never put in, because its range may by now
be somebody else's. Hence ``mend``: a run that was only taking lines out is completed; one whose lines all stand is
completed; any other is put back.

A run that fails still holds its locks, so nobody else has written, and ``undo`` gives the files their bytes back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError
from usernsplan.formats import daemon_json, subid
from usernsplan.layout import DAEMON_JSON, SUBGID, SUBUID
from usernsplan.model import Change, Quarantined

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from usernsplan.model import HostState, Intent


@dataclass(frozen=True, slots=True)
class Mended:
    """How to leave the host consistent: files to change or remove, and whether the ledger gets the run's changes."""

    completed: bool
    changes: tuple[Change, ...]
    removals: tuple[str, ...] = ()


def mend(intent: Intent, now: Mapping[str, bytes | None]) -> Mended:
    """Decide after a kill, from the files' bytes as they are ``now`` (by path; None: there is no file)."""
    if all(_stands(change, now[change.path]) for change in intent.changes):
        return Mended(completed=True, changes=())
    forward = bool(intent.ledger.remove)
    step = _forward if forward else _back
    return _mended(((c.path, now[c.path], step(c, now[c.path])) for c in intent.changes), completed=forward)


def undo(intent: Intent, now: Mapping[str, bytes | None]) -> Mended:
    """Decide after a failure under the locks: every file that was exchanged gets its bytes back."""
    exchanged = [c for c in intent.changes if now[c.path] == c.after != c.before]
    return _mended(((c.path, c.after, c.before) for c in exchanged), completed=False)


def as_mended(state: HostState, intent: Intent) -> HostState:
    """The host as it will be once ``intent`` is mended: what a preview has to start from."""
    now = {SUBUID: _raw(state.subuid), SUBGID: _raw(state.subgid), DAEMON_JSON: state.daemon_json}
    mended = mend(intent, now)
    now |= {change.path: change.after for change in mended.changes} | dict.fromkeys(mended.removals)
    ledger = replace(state.ledger, interrupted=False)
    if mended.completed:
        change = intent.ledger
        ledger = replace(
            ledger,
            allocations=(*(a for a in ledger.allocations if a.name not in change.remove), *change.add),
            quarantined=(
                *(q for q in ledger.quarantined if q.name not in change.forget),
                *(Quarantined(name, held, "") for name, held in change.quarantine),
            ),
        )
    return replace(
        state,
        subuid=subid.parse(now[SUBUID]),
        subgid=subid.parse(now[SUBGID]),
        daemon_json=now[DAEMON_JSON],
        ledger=ledger,
    )


def _mended(wanted: Iterable[tuple[str, bytes | None, bytes | None]], *, completed: bool) -> Mended:
    steps = list(wanted)
    return Mended(
        completed=completed,
        changes=tuple(Change(path, old, new) for path, old, new in steps if new is not None and new != old),
        removals=tuple(path for path, old, new in steps if new is None and old is not None),
    )


def _stands(change: Change, now: bytes | None) -> bool:
    """Tell whether all that the run put into a file is there; somebody may have sorted or added to it since."""
    if now is None or now == change.after:
        return now == change.after
    if change.path == DAEMON_JSON:
        return _remap(now) == _remap(change.after)
    before = change.before or b""
    come, gone = subid.added_lines(before, change.after), subid.added_lines(change.after, before)
    have, wanted = subid.counted(now), subid.counted(change.after)
    return bool(come) and not gone and all(have[line] >= wanted[line] for line in come)


def _forward(change: Change, now: bytes | None) -> bytes | None:
    """Finish taking out: only lines that the run meant to take out."""
    if now is None or now == change.before:
        return change.after if now is not None else None
    if change.path == DAEMON_JSON:
        return _with_remap(now, unwanted=_remap(change.before or b""), wanted=_remap(change.after))
    return subid.without_lines(now, subid.added_lines(change.after, change.before or b""))


def _back(change: Change, now: bytes | None) -> bytes | None:
    """Undo putting in: only lines that the run put in."""
    if now is None or now == change.before:
        return now
    if now == change.after:
        return change.before
    if change.path == DAEMON_JSON:
        return _with_remap(now, unwanted=_remap(change.after), wanted=_remap(change.before or b""))
    return subid.without_lines(now, subid.added_lines(change.before or b"", change.after))


def _remap(raw: bytes) -> str | None:
    """What a daemon.json says of userns-remap; "" where it cannot be read, which is nobody's value."""
    try:
        return daemon_json.parse(raw, DAEMON_JSON).get(daemon_json.REMAP)
    except InvalidFileError:
        return ""


def _with_remap(now: bytes, *, unwanted: str | None, wanted: str | None) -> bytes:
    """The file as somebody else has changed it meanwhile, with our userns-remap exchanged for the other one."""
    if unwanted is None or _remap(now) != unwanted:
        return now
    config = daemon_json.parse(now, DAEMON_JSON)
    return daemon_json.with_remap(config, wanted) if wanted is not None else daemon_json.without_remap(config)


def _raw(file: subid.SubidFile) -> bytes | None:
    return file.raw if file.exists else None
