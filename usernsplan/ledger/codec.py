"""Translate the values of a ledger to texts and numbers, and back. Pure; no store is known here.

A ledger may be damaged, or another program may have written it, so every value that is read is
checked like user input. ValueError, LookupError, TypeError, AttributeError, RecursionError and
OverflowError all mean the same: usernsplan did not write this.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from binascii import a2b_base64, b2a_base64
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from usernsplan.formats import subid
from usernsplan.ids import IdRange
from usernsplan.layout import DAEMON_JSON, SUBGID, SUBUID
from usernsplan.mapping import KINDS, Extent, IdMap, Mapping, Pass
from usernsplan.model import (
    LASTING,
    MODES,
    PROTECT,
    PUBLISHED,
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
    VolumeMount,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.harden.policy import Policy

# The only files that plans change: an undo writes no other, whatever a damaged ledger says.
_FILES = {SUBUID, SUBGID, DAEMON_JSON}


class MaybeInt:
    """A kind of column: a number, or NULL."""


# The text of a map with one extent, as nearly every one is. Not compiled here, because a ledger may
# be empty.
_NUMBER = "(0|[1-9][0-9]{0,9})"
_ONE = rf"\[\[{_NUMBER}, {_NUMBER}, {_NUMBER}\]\]"
_WORDS = {str: "a text", int: "a number", bytes: "a path", MaybeInt: "a number or null"}


def typed(rows: Iterable[tuple[Any, ...]], *kinds: type) -> Iterator[tuple[Any, ...]]:
    """The rows, unchanged. Raises ValueError for a row whose values have other types.

    SQLite stores a text in a column of numbers, and bytes in a column of texts, without an error;
    a damaged file has both.
    """
    expected = tuple(int if kind is MaybeInt else kind for kind in kinds)
    for row in rows:
        # One comparison for nearly every row: a ledger may have 10,000.
        if tuple(map(type, row)) != expected:
            for value, kind, right in zip(row, kinds, expected, strict=True):
                if type(value) is not right and not (value is None and kind is MaybeInt):
                    raise ValueError(f"{value!r:.40} is not {_WORDS[kind]}")
        yield row


def _typed(row: Iterable[Any], *kinds: type) -> tuple[Any, ...]:
    """One row, as ``typed`` has it."""
    return next(typed([tuple(row)], *kinds))


def _texts(found: Any) -> tuple[str, ...]:  # noqa: ANN401 - what the JSON says
    if not isinstance(found, list):
        raise TypeError(f"{found!r:.40} is not a list of texts")
    return tuple(text for (text,) in typed(((one,) for one in found), str))


def allocation_row(a: Allocation) -> tuple[object, ...]:
    """An allocation as texts and numbers; its maps, owners and adopted lines are JSON."""
    uids, gids = a.mapping.uids, a.mapping.gids
    uid_map = _map_text(uids)
    gid_map = uid_map if gids is uids or gids == uids else _map_text(gids)
    ids = (a.reserved_range.start, a.reserved_range.count) if a.reserved_range else (None, None)
    owners = json.dumps(a.extra_owners) if a.extra_owners else "[]"
    found = json.dumps(a.found) if a.found else "[]"
    split = json.dumps(a.split_owners) if a.split_owners else "[]"
    first = (a.name, a.owner, a.strategy, uid_map, gid_map, *ids, a.since, a.event)
    passes = json.dumps([(kind, *extent_of(e)) for kind, e in a.passes]) if a.passes else "[]"
    policy = _policy_text(a.policy) if a.policy else ""
    last = (
        int(a.in_files),
        a.published,
        passes,
        a.within,
        int(a.unpublished),
        policy,
        int(a.local),
    )
    return (*first, owners, found, split, *last)


def allocations(rows: Iterable[Iterable[Any]]) -> Iterator[Allocation]:
    """The reverse of ``allocation_row``.

    A name or an owner that would break out of its line in subuid is refused: it could add lines
    of its own to the file.
    """
    kinds = (
        *(str,) * 5,
        MaybeInt,
        MaybeInt,
        str,
        int,
        str,
        str,
        str,
        int,
        str,
        str,
        str,
        int,
        str,
        int,
    )
    for row in typed(map(tuple, rows), *kinds):
        name, owner, strategy, uids, gids, start, count, since, event, *more = row
        owners, lines, split, in_files, published, shown, within, unpublished, policy, local = more

        extra_owners = () if owners == "[]" else _texts(json.loads(owners))
        for one in (owner, *extra_owners, *filter(None, [within])):
            if not subid.is_owner(one):
                raise ValueError(f"{one!r:.40} is not an owner")
        split_owners = () if split == "[]" else _texts(json.loads(split))
        if split_owners and not {owner, *extra_owners}.issuperset(split_owners):
            raise ValueError(f"{split:.40} are not owners of '{name:.40}'")
        if published not in PUBLISHED:
            raise ValueError(f"{published:.40} is not where a range is published")
        for one in (name, owner, *extra_owners):
            if not one or not one.isprintable():
                raise ValueError(f"{one!r:.40} is not a name")

        found = () if lines == "[]" else tuple(_adopted(json.loads(lines)))
        ids = _reserved(start, count)
        mapping = _mapping(uids, gids, ids)
        passes = () if shown == "[]" else tuple(_passes(json.loads(shown), mapping))
        yield Allocation(
            name,
            owner,
            strategy,
            mapping,
            ids,
            since,
            extra_owners,
            found,
            event,
            split_owners,
            bool(in_files),
            published,
            passes,
            within,
            bool(unpublished),
            _policy(policy) if policy else None,
            bool(local),
        )


def _policy_text(policy: Policy) -> str:
    from usernsplan.harden.policy import written  # noqa: PLC0415 - many hosts have no policy

    return json.dumps(written(policy))


def _policy(text: str) -> Policy:
    from usernsplan.harden.policy import policy_of  # noqa: PLC0415 - see above

    return policy_of(json.loads(text))


def quarantined_row(q: Quarantined) -> tuple[object, ...]:
    """A quarantined range as texts and numbers.

    Its former allocation is JSON, or "" if an older version did not note it.
    """
    was = json.dumps(allocation_row(q.was)) if q.was else ""
    return (q.name, q.reserved_range.start, q.reserved_range.count, q.since, q.event, was)


def quarantined(row: Iterable[Any]) -> Quarantined:
    """The reverse of ``quarantined_row``."""
    name, start, count, since, event, was = _typed(row, str, int, int, str, int, str)
    former = next(allocations([json.loads(was)])) if was else None
    return Quarantined(name, IdRange(start, count), since, former, event)


def volume_row(v: Volume) -> tuple[object, ...]:
    """A volume as texts and numbers. Its path is bytes, because Linux allows any bytes in it."""
    return (os.fsencode(v.path), v.name, v.mode, v.since, v.event, v.user, _former_text(v))


def volume(row: Iterable[Any]) -> Volume:
    """The reverse of ``volume_row``."""
    path, name, mode, since, event, user, former = _typed(row, bytes, str, str, str, int, str, str)
    return Volume(_path(path), name, mode, since, user, event, _former(former))


def mount_row(m: VolumeMount) -> tuple[object, ...]:
    """A mount as texts and numbers. Its paths are bytes; its maps and options are JSON."""
    return (os.fsencode(m.at), os.fsencode(m.source), *_mount_words(m), m.since, m.event)


def mount(row: Iterable[Any]) -> VolumeMount:
    """The reverse of ``mount_row``."""
    kinds = (bytes, bytes, *(str,) * 6, int, str, str, str, str, int)
    at, source, *words, since, event = _typed(row, *kinds)
    return _mount(_path(at), _path(source), words, since=since, event=event)


def mount_words(m: VolumeMount) -> tuple[str | int, ...]:
    """A mount that is not recorded yet as texts and a number, for JSON; its paths are hex."""
    return (os.fsencode(m.at).hex(), os.fsencode(m.source).hex(), *_mount_words(m))


def mount_of(row: Iterable[Any]) -> VolumeMount:
    """The reverse of ``mount_words``."""
    at, source, *words = _typed(row, *(str,) * 8, int, str, str, str)
    return _mount(_path(bytes.fromhex(at)), _path(bytes.fromhex(source)), words)


def _mount_words(m: VolumeMount) -> tuple[str | int, ...]:
    uids, gids = (json.dumps(m.mapping[kind].triples()) for kind in KINDS)
    how = (m.name, m.mode, m.user, uids, gids, json.dumps(m.options))
    return (*how, int(m.crosses), m.lasting, m.protect, m.run)


def _mount(at: str, source: str, words: Iterable[Any], **recorded: Any) -> VolumeMount:
    name, mode, user, uids, gids, options, crosses, lasting, protect, run = words
    if mode not in MODES or lasting not in LASTING or protect not in PROTECT:
        raise ValueError(f"{mode:.40}, {lasting:.40} or {protect:.40} is not of a mount")
    if not name or not name.isprintable():
        raise ValueError(f"{name!r:.40} is not a name")
    mapping, shown = _mapping(uids, gids), _texts(json.loads(options))
    how = (name, mode, mapping, user, shown, bool(crosses), lasting, protect, run)
    return VolumeMount(at, source, *how, **recorded)


def reservation_row(r: Reservation) -> tuple[object, ...]:
    """A reservation as texts."""
    return (range_text(r.ids), r.why, r.since)


def reservation(row: Iterable[Any]) -> Reservation:
    """The reverse of ``reservation_row``."""
    ids, why, since = _typed(row, str, str, str)
    return Reservation(IdRange.parse(ids), why, since)


def entry_row(e: HistoryEntry) -> tuple[object, ...]:
    """A history entry as a number and texts; its actor and its changes are JSON."""
    return (e.number, e.at, actor_text(e.actor), e.command, json.dumps(e.changed))


def entry(row: Iterable[Any]) -> HistoryEntry:
    """The reverse of ``entry_row``."""
    number, at, actor, command, changed = _typed(row, int, str, str, str, str)
    return HistoryEntry(at, _actor(actor), command, _texts(json.loads(changed)), number)


def event(row: Iterable[Any]) -> Event:
    """The event of a row: its number, its moment, and its change as ``change_text`` writes it."""
    number, at, text = _typed(row, int, str, str)
    return Event(number, at, change(text))


def intent_row(intent: Intent) -> tuple[str, ...]:
    """A run that begins as four texts: command, actor, change of the ledger, changes of files."""
    files = [(c.path, _packed(c.before), _packed(c.after)) for c in intent.changes]
    actor = actor_text(intent.actor)
    return (intent.command, actor, change_text(intent.ledger), json.dumps(files))


def intent(row: Iterable[Any]) -> Intent:
    """The reverse of ``intent_row``."""
    command, actor, change_, files = _typed(row, str, str, str, str)
    return Intent(command, _actor(actor), change(change_), _changes(json.loads(files)))


def change_text(change: LedgerChange) -> str:
    """A change of the ledger as JSON."""
    return json.dumps(
        {
            "rename": change.rename,
            "add": [allocation_row(a) for a in change.add],
            "update": [allocation_row(a) for a in change.update],
            "extra_owners": change.extra_owners,
            "found": change.found,
            "remove": change.remove,
            "quarantine": _ranges(change.quarantine),
            "forget": change.forget,
            "unkeep": _ranges(change.unkeep),
            "volumes": [
                (os.fsencode(v.path).hex(), v.name, v.mode, v.user, _former_text(v))
                for v in change.volumes
            ],
            "no_volumes": [os.fsencode(path).hex() for path in change.no_volumes],
            "mounts": [mount_words(m) for m in change.mounts],
            "no_mounts": [os.fsencode(path).hex() for path in change.no_mounts],
            "reserve": [(range_text(r.ids), r.why) for r in change.reserve],
            "unreserve": [range_text(ids) for ids in change.unreserve],
        }
    )


def change(text: str) -> LedgerChange:
    """The reverse of ``change_text``."""
    content: dict[str, Any] = json.loads(text)
    volumes = typed(map(tuple, content["volumes"]), *(str,) * 5)
    reserve = typed(map(tuple, content["reserve"]), str, str)
    found = list(map(tuple, content["found"]))
    list(_adopted(line for _, *line in found))
    return LedgerChange(
        rename=tuple(_names(content["rename"])),
        add=tuple(allocations(content["add"])),
        update=tuple(allocations(content["update"])),
        extra_owners=tuple(typed(map(tuple, content["extra_owners"]), str, str)),
        found=tuple(typed(found, str, str, str)),
        remove=_texts(content["remove"]),
        quarantine=_named_ranges(content["quarantine"]),
        forget=_texts(content["forget"]),
        unkeep=_named_ranges(content["unkeep"]),
        volumes=tuple(
            Volume(_path(bytes.fromhex(path)), name, mode, user=user, former=_former(former))
            for path, name, mode, user, former in volumes
        ),
        no_volumes=tuple(_path(bytes.fromhex(path)) for path in _texts(content["no_volumes"])),
        mounts=tuple(map(mount_of, content["mounts"])),
        no_mounts=tuple(_path(bytes.fromhex(path)) for path in _texts(content["no_mounts"])),
        reserve=tuple(Reservation(IdRange.parse(ids), why) for ids, why in reserve),
        unreserve=tuple(map(IdRange.parse, _texts(content["unreserve"]))),
    )


def actor_text(actor: Actor) -> str:
    """Who ran a command, as JSON."""
    return json.dumps({"uid": actor.uid, "sudo_uid": actor.sudo_uid, "login_uid": actor.login_uid})


def _actor(text: str) -> Actor:
    found = json.loads(text)
    row = (found["uid"], found["sudo_uid"], found["login_uid"])
    return Actor(*_typed(row, int, MaybeInt, MaybeInt))


def range_text(ids: IdRange) -> str:
    """FIRST-LAST, as IdRange.parse reads it; a single id has both too."""
    return f"{ids.start}-{ids.last}"


def _ranges(named: Iterable[tuple[str, IdRange]]) -> list[tuple[str, int, int]]:
    return [(name, ids.start, ids.count) for name, ids in named]


def _named_ranges(found: Iterable[Iterable[Any]]) -> tuple[tuple[str, IdRange], ...]:
    rows = typed(map(tuple, found), str, int, int)
    return tuple((name, IdRange(start, count)) for name, start, count in rows)


def _map_text(ids: IdMap) -> str:
    """A map as JSON writes it: a ledger may have 10,000, and the json module takes three times as long."""
    return f"[{', '.join([f'[{e.container}, {e.host}, {e.count}]' for e in ids])}]"


def _map(text: str) -> IdMap:
    # A ledger may have 10,000, and to read any JSON takes three times as long.
    if one := re.fullmatch(_ONE, text):
        return IdMap((Extent(*map(int, one.groups())),))
    return IdMap.of(*typed(map(tuple, json.loads(text)), int, int, int))


def _mapping(uids: str, gids: str, held: IdRange | None = None) -> Mapping:
    """Read the texts of two maps. Most texts are equal; they become one value, which saves time.

    Nearly every map is that of the ``held`` range from container id 0 on: then no text is parsed.
    """
    if held and uids == f"[[0, {held.start}, {held.count}]]":
        uid_map = IdMap((Extent(0, held.start, held.count),))
    else:
        uid_map = _map(uids)
    return Mapping(uid_map, uid_map if uids == gids else _map(gids))


def extent_of(extent: Extent) -> tuple[int, int, int]:
    """An extent as numbers: container id, host id, count."""
    return (extent.container, extent.host, extent.count)


def _passes(found: Iterable[Iterable[Any]], mapping: Mapping) -> Iterator[Pass]:
    """The passes of an allocation. Raises ValueError for what is no extent of its map."""
    for kind, *numbers in typed(map(tuple, found), str, int, int, int):
        extent = Extent(*numbers)
        if kind not in KINDS or extent not in mapping[kind]:
            raise ValueError(f"{kind!r:.40} {extent} is no extent of the map")
        yield Pass(kind, extent)


def _former_text(v: Volume) -> str:
    """The map whose ids a volume still has, as JSON; "" if it is that of its container."""
    return json.dumps([v.former.uids.triples(), v.former.gids.triples()]) if v.former else ""


def _former(text: str) -> Mapping | None:
    if not text:
        return None
    uids, gids = json.loads(text)
    return _mapping(json.dumps(uids), json.dumps(gids))


def _names(found: Iterable[Iterable[Any]]) -> Iterator[tuple[str, str]]:
    """Old and new names. Raises ValueError if one is not a name."""
    for old, new in typed(map(tuple, found), str, str):
        for one in (old, new):
            if not one or not one.isprintable():
                raise ValueError(f"{one!r:.40} is not a name")
        yield old, new


def _reserved(start: int | None, count: int | None) -> IdRange | None:
    if (start is None) != (count is None):
        raise ValueError("a range lacks its start or its count")
    return IdRange(start, count) if start is not None and count is not None else None


def _adopted(lines: Iterable[Iterable[Any]]) -> Iterator[tuple[str, str]]:
    """Adopted lines, as (path, line) pairs."""
    for path, line in typed(map(tuple, lines), str, str):
        if path not in {SUBUID, SUBGID}:
            raise ValueError(f"{path!r:.40} is not the path of subuid or subgid")
        yield path, line


def _path(path: bytes) -> str:
    if not path.startswith(b"/") or b"\0" in path:
        raise ValueError(f"{path!r:.40} is not an absolute path")
    return os.fsdecode(path)


def _changes(found: Iterable[tuple[str, str | None, str]]) -> tuple[Change, ...]:
    """The files of a run. Raises ValueError for a file that no plan changes."""
    changes = []
    for path, before, after in found:
        if path not in _FILES:
            raise ValueError(f"{path!r:.40} is not a file that usernsplan changes")
        changes.append(Change(path, _unpacked(before), _unpacked(after) or b""))
    return tuple(changes)


# subuid and subgid mostly have the same bytes.
@lru_cache(maxsize=4)
def _packed(content: bytes | None) -> str | None:
    if content is None:
        return None
    return b2a_base64(zlib.compress(content, 1), newline=False).decode()


def _unpacked(text: str | None) -> bytes | None:
    try:
        return None if text is None else zlib.decompress(a2b_base64(text))
    except zlib.error as error:
        raise ValueError(str(error)) from error
