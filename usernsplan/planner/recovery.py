"""What becomes of a run that was killed between its first file and its last. Pure.

Other programs may have changed the files since (the locks died with the run), so nothing is decided by position or by
whole contents: a line of ours is taken out wherever it stands now, and never put in, because its range may by now be
somebody else's. Hence: a run that was only taking lines out is completed; one whose files all stand as it meant to
leave them is completed; any other is put back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError
from usernsplan.formats import daemon_json, subid
from usernsplan.layout import DAEMON_JSON
from usernsplan.model import Change

if TYPE_CHECKING:
    from collections.abc import Mapping

    from usernsplan.model import Intent


@dataclass(frozen=True, slots=True)
class Mended:
    """How to leave the host consistent: files to change, and whether the ledger gets the run's changes or not."""

    completed: bool
    changes: tuple[Change, ...]
    removals: tuple[str, ...] = ()


def mend(intent: Intent, now: Mapping[str, bytes | None]) -> Mended:
    """Decide from the intent and the files' bytes as they are ``now`` (by path; None: there is no file)."""
    if all(now[change.path] == change.after for change in intent.changes):
        return Mended(completed=True, changes=())
    forward = bool(intent.ledger.remove)
    step = _forward if forward else _back
    wanted = [(change.path, now[change.path], step(change, now[change.path])) for change in intent.changes]
    return Mended(
        completed=forward,
        changes=tuple(Change(path, old, new) for path, old, new in wanted if new is not None and new != old),
        removals=tuple(path for path, old, new in wanted if new is None and old is not None),
    )


def _forward(change: Change, now: bytes | None) -> bytes | None:
    """Finish taking out: only lines that the run meant to take out."""
    if now is None or now == change.before:
        return change.after if now is not None else None
    if change.path == DAEMON_JSON:
        return _remap_as_in(change.after, change.before, now)
    return subid.without_lines(now, subid.added_lines(change.after, change.before or b""))


def _back(change: Change, now: bytes | None) -> bytes | None:
    """Undo putting in: only lines that the run put in."""
    if now is None or now == change.before:
        return now
    if now == change.after:
        return change.before
    if change.path == DAEMON_JSON:
        return _remap_as_in(change.before or b"", change.after, now)
    return subid.without_lines(now, subid.added_lines(change.before or b"", change.after))


def _remap_as_in(wanted: bytes, unwanted: bytes | None, now: bytes) -> bytes:
    """The file as somebody else has changed it meanwhile, with our userns-remap exchanged for the one before ours."""
    try:
        config = daemon_json.parse(now, DAEMON_JSON)
    except InvalidFileError:
        return now
    ours = daemon_json.parse(unwanted or b"", DAEMON_JSON).get(daemon_json.REMAP)
    theirs = daemon_json.parse(wanted, DAEMON_JSON).get(daemon_json.REMAP)
    if ours is None or config.get(daemon_json.REMAP) != ours:
        return now
    return daemon_json.with_remap(config, theirs) if theirs is not None else daemon_json.without_remap(config)
