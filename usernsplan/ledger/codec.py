"""The values of a ledger to texts and numbers, and back. Pure: no store is known here.

What is read was perhaps damaged, or written by somebody else: each value is checked as if it were
typed in. ValueError, LookupError, TypeError, AttributeError, RecursionError and OverflowError mean:
this is not what was written.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from usernsplan.formats import subid
from usernsplan.ids import IdRange
from usernsplan.layout import DAEMON_JSON, SUBGID, SUBUID
from usernsplan.mapping import IdMap, Mapping
from usernsplan.model import (
    Actor,
    Allocation,
    Change,
    Event,
    HistoryEntry,
    Intent,
    LedgerChange,
    Quarantined,
    Reservation,
    Volume,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What plans change, and what an interrupted run is therefore put back in.
_FILES = {SUBUID, SUBGID, DAEMON_JSON}


class MaybeInt:
    """A number, or none: a kind of column."""


_WORDS = {str: "a text", int: "a number", bytes: "a path", MaybeInt: "a number, or none"}


def typed(rows: Iterable[tuple[Any, ...]], *kinds: type) -> Iterator[tuple[Any, ...]]:
    """Rows as they are; ValueError for one in which something else stands than was written there.

    SQLite keeps a text in a column of numbers and bytes in one of texts; a file that was damaged
    has both.
    """
    whole = tuple(int if kind is MaybeInt else kind for kind in kinds)
    for row in rows:
        if tuple(map(type, row)) != whole:
            for value, kind in zip(row, kinds, strict=True):
                is_right = type(value) is (int if kind is MaybeInt else kind)
                if not is_right and not (value is None and kind is MaybeInt):
                    raise ValueError(f"{value!r:.40} stands where {_WORDS[kind]} is to stand")
        yield row


def texts(found: Any) -> tuple[str, ...]:  # noqa: ANN401 - what the JSON says
    """A list of texts. Raises TypeError, ValueError."""
    if not isinstance(found, list):
        raise TypeError("a list of texts is to stand there")
    return tuple(text for (text,) in typed(((one,) for one in found), str))


def allocation_row(a: Allocation) -> tuple[object, ...]:
    """An allocation as texts and numbers; the maps, the further owners and the adopted lines are JSON."""
    maps = (json.dumps(a.mapping.uids.triples()), json.dumps(a.mapping.gids.triples()))
    held = (a.reserved_range.start, a.reserved_range.count) if a.reserved_range else (None, None)
    lists = (
        json.dumps(a.extra_owners) if a.extra_owners else "[]",
        json.dumps(a.found) if a.found else "[]",
    )
    return (a.name, a.owner, a.strategy, *maps, *held, a.since, a.event, *lists)


def allocations(rows: Iterable[Iterable[Any]]) -> Iterator[Allocation]:
    """The reverse of ``allocation_row``.

    Whoever could write a name or an owner into a line would write other lines with it: such a
    text is refused.
    """
    kinds = (*(str,) * 5, MaybeInt, MaybeInt, str, int, str, str)
    for row in typed(map(tuple, rows), *kinds):
        name, owner, strategy, uids, gids, start, count, since, event, owners, lines = row
        extra_owners = () if owners == "[]" else texts(json.loads(owners))
        for one in (owner, *extra_owners):
            subid.line(one, IdRange(0, 1))
        for one in (name, owner, *extra_owners):
            if not one or not one.isprintable():
                raise ValueError(f"{one!r:.40} is no name")
        found = () if lines == "[]" else tuple(_stood(json.loads(lines)))
        held, mapping = _held(start, count), _mapping(uids, gids)
        yield Allocation(name, owner, strategy, mapping, held, since, extra_owners, found, event)


def quarantined_row(q: Quarantined) -> tuple[object, ...]:
    """A released range as texts and numbers; what it was is JSON, "" where nobody noted it."""
    was = json.dumps(allocation_row(q.was)) if q.was else ""
    return (q.name, q.reserved_range.start, q.reserved_range.count, q.since, q.event, was)


def quarantined(row: Iterable[Any]) -> Quarantined:
    """The reverse of ``quarantined_row``."""
    [[name, start, count, since, event, was]] = typed([tuple(row)], str, int, int, str, int, str)
    former = next(allocations([json.loads(was)])) if was else None
    return Quarantined(name, IdRange(start, count), since, former, event)


def volume_row(v: Volume) -> tuple[object, ...]:
    """A volume as texts and numbers. A path is bytes: it need not be text."""
    return (os.fsencode(v.path), v.name, v.mode, v.since, v.event, v.user)


def volume(row: Iterable[Any]) -> Volume:
    """The reverse of ``volume_row``."""
    [[path, name, mode, since, event, user]] = typed([tuple(row)], bytes, str, str, str, int, str)
    return Volume(_path(path), name, mode, since, user, event)


def reservation_row(r: Reservation) -> tuple[object, ...]:
    """A reservation as texts."""
    return (range_text(r.ids), r.why, r.since)


def reservation(row: Iterable[Any]) -> Reservation:
    """The reverse of ``reservation_row``."""
    [[ids, why, since]] = typed([tuple(row)], str, str, str)
    return Reservation(IdRange.parse(ids), why, since)


def entry_row(e: HistoryEntry) -> tuple[object, ...]:
    """An entry of the history as a number and texts; its actor and what changed are JSON."""
    return (e.number, e.at, actor_text(e.actor), e.command, json.dumps(e.changed))


def entry(row: Iterable[Any]) -> HistoryEntry:
    """The reverse of ``entry_row``."""
    [[number, at, actor, command, changed]] = typed([tuple(row)], int, str, str, str, str)
    return HistoryEntry(at, _actor(actor), command, texts(json.loads(changed)), number)


def event(row: Iterable[Any]) -> Event:
    """A number, a moment and a change's JSON as an event."""
    [[number, at, text]] = typed([tuple(row)], int, str, str)
    return Event(number, at, change(text))


def intent_row(intent: Intent) -> tuple[str, ...]:
    """A run that begins as four texts: its command, its actor, its change of the ledger, its files."""
    files = [(c.path, _packed(c.before), _packed(c.after)) for c in intent.changes]
    actor = actor_text(intent.actor)
    return (intent.command, actor, change_text(intent.ledger), json.dumps(files))


def intent(row: Iterable[Any]) -> Intent:
    """The reverse of ``intent_row``."""
    [[command, actor, change_, files]] = typed([tuple(row)], str, str, str, str)
    return Intent(command, _actor(actor), change(change_), file_changes(json.loads(files)))


def change_text(change: LedgerChange) -> str:
    """A change of the ledger as JSON."""
    return json.dumps(
        {
            "add": [allocation_row(a) for a in change.add],
            "extra_owners": change.extra_owners,
            "found": change.found,
            "remove": change.remove,
            "quarantine": _ranges(change.quarantine),
            "forget": change.forget,
            "unkeep": _ranges(change.unkeep),
            "volumes": [
                (os.fsencode(v.path).hex(), v.name, v.mode, v.user) for v in change.volumes
            ],
            "no_volumes": [os.fsencode(path).hex() for path in change.no_volumes],
            "reserve": [(range_text(r.ids), r.why) for r in change.reserve],
            "unreserve": [range_text(ids) for ids in change.unreserve],
        }
    )


def change(text: str) -> LedgerChange:
    """The reverse of ``change_text``."""
    content: dict[str, Any] = json.loads(text)
    volumes = typed(map(tuple, content["volumes"]), str, str, str, str)
    reserve = typed(map(tuple, content["reserve"]), str, str)
    found = list(map(tuple, content["found"]))
    list(_stood(line for _, *line in found))
    return LedgerChange(
        add=tuple(allocations(content["add"])),
        extra_owners=tuple(typed(map(tuple, content["extra_owners"]), str, str)),
        found=tuple(typed(found, str, str, str)),
        remove=texts(content["remove"]),
        quarantine=_named_ranges(content["quarantine"]),
        forget=texts(content["forget"]),
        unkeep=_named_ranges(content["unkeep"]),
        volumes=tuple(
            Volume(_path(bytes.fromhex(path)), name, mode, user=user)
            for path, name, mode, user in volumes
        ),
        no_volumes=tuple(_path(bytes.fromhex(path)) for path in texts(content["no_volumes"])),
        reserve=tuple(Reservation(IdRange.parse(ids), why) for ids, why in reserve),
        unreserve=tuple(map(IdRange.parse, texts(content["unreserve"]))),
    )


def actor_text(actor: Actor) -> str:
    """Who ran a command, as JSON."""
    return json.dumps({"uid": actor.uid, "sudo_uid": actor.sudo_uid, "login_uid": actor.login_uid})


def _actor(text: str) -> Actor:
    found = json.loads(text)
    row = (found["uid"], found["sudo_uid"], found["login_uid"])
    [[uid, sudo_uid, login_uid]] = typed([row], int, MaybeInt, MaybeInt)
    return Actor(uid, sudo_uid, login_uid)


def range_text(ids: IdRange) -> str:
    """A range as IdRange.parse reads it, a single id too."""
    return f"{ids.start}-{ids.last}"


def _ranges(named: Iterable[tuple[str, IdRange]]) -> list[tuple[str, int, int]]:
    return [(name, ids.start, ids.count) for name, ids in named]


def _named_ranges(found: Iterable[Iterable[Any]]) -> tuple[tuple[str, IdRange], ...]:
    rows = typed(map(tuple, found), str, int, int)
    return tuple((name, IdRange(start, count)) for name, start, count in rows)


def _map(text: str) -> IdMap:
    return IdMap.of(*typed(map(tuple, json.loads(text)), int, int, int))


def _mapping(uids: str, gids: str) -> Mapping:
    """Texts of maps to values; both are mostly the same text, and then one value."""
    uid_map = _map(uids)
    return Mapping(uid_map, uid_map if uids == gids else _map(gids))


def _held(start: int | None, count: int | None) -> IdRange | None:
    if (start is None) != (count is None):
        raise ValueError("half of a range")
    return IdRange(start, count) if start is not None and count is not None else None


def _stood(lines: Iterable[Iterable[Any]]) -> Iterator[tuple[str, str]]:
    """Lines that stood before, by file."""
    for path, line in typed(map(tuple, lines), str, str):
        if path not in {SUBUID, SUBGID}:
            raise ValueError(f"{path!r:.40} has no lines of anybody")
        yield path, line


def _path(path: bytes) -> str:
    if not path.startswith(b"/") or b"\0" in path:
        raise ValueError(f"{path!r:.40} is no path")
    return os.fsdecode(path)


def file_changes(found: Iterable[tuple[str, str | None, str]]) -> tuple[Change, ...]:
    """The files of a run; ValueError for one that no plan changes."""
    changes = []
    for path, before, after in found:
        if path not in _FILES:
            raise ValueError(f"{path!r:.40} is no file that is changed")
        changes.append(Change(path, _unpacked(before), _unpacked(after) or b""))
    return tuple(changes)


def _packed(content: bytes | None) -> str | None:
    import base64  # noqa: PLC0415 - only where something changes
    import zlib  # noqa: PLC0415

    return None if content is None else base64.b64encode(zlib.compress(content, 1)).decode()


def _unpacked(text: str | None) -> bytes | None:
    import base64  # noqa: PLC0415 - only where something changes
    import zlib  # noqa: PLC0415

    try:
        return None if text is None else zlib.decompress(base64.b64decode(text))
    except zlib.error as error:
        raise ValueError(str(error)) from error
