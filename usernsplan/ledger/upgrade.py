"""Upgrade ledgers of versions 1 to 10 to today's tables.

Before version 6 events had no numbers: the second in which an event was noted identified it. The
upgrade numbers the events in the order in which they were noted, and replaces each second with the
number of one of its events. If a second has several events, it chooses the careful one, as these
versions did when they compared seconds:

- A volume gets the last one, so it belongs to an allocation that was made in the same second.
- A quarantined range gets the last one, so a volume of the same second does not belong to the
  former allocation of its name.
- An allocation gets the event that provably made it, or else the number before all events of its
  second, so that no event is named as the one that made it.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from usernsplan.escape import file_line
from usernsplan.formats.subid import added_lines
from usernsplan.holdings import holdings
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.ledger import codec, schema
from usernsplan.model import LedgerState
from usernsplan.values import replace

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Container, Iterator, Mapping

    from usernsplan.model import Allocation, HistoryEntry, Intent, Quarantined

# What each version added to the one before.
_STEPS = {
    2: "CREATE TABLE volume (path BLOB PRIMARY KEY, name TEXT, mode TEXT, since TEXT);",
    3: "CREATE TABLE also (name TEXT, owner TEXT, PRIMARY KEY (name, owner));",
    # user is "" if an older version recorded the volume.
    4: "CREATE TABLE reservation (ids TEXT PRIMARY KEY, why TEXT, since TEXT);"
    "ALTER TABLE volume ADD COLUMN user TEXT NOT NULL DEFAULT '';",
    # The former allocation is "" if an older version quarantined the range.
    5: "CREATE TABLE found (name TEXT, path TEXT, line TEXT);"
    + "".join(
        f"ALTER TABLE quarantine ADD COLUMN {column} TEXT NOT NULL DEFAULT '';"
        for column in ("owner", "strategy", "uid_map", "gid_map", "made")
    ),
}
_LAST = 5
# What a version notes of an allocation and the version before did not; and what 8 notes of a volume.
_ADDED: dict[int, tuple[tuple[str, str | int], ...]] = {
    7: (("split_owners TEXT", "[]"), ("in_files INTEGER", 1), ("published TEXT", "none")),
    8: (("passes TEXT", "[]"), ("within TEXT", ""), ("unpublished INTEGER", 0)),
    10: (("policy TEXT", ""),),
    11: (("local INTEGER", 0),),
}
_TABLES_ADDED = {9: schema.MOUNT}
_ADDED_TO_VOLUMES: dict[int, tuple[tuple[str, str], ...]] = {8: (("former TEXT", ""),)}
# What later versions added to a change.
_LISTS = ("rename", "update", "mounts", "no_mounts")
_NEW = tuple(usual for added in _ADDED.values() for _, usual in added)
_DROP = """
DROP TABLE allocation; DROP TABLE also; DROP TABLE found; DROP TABLE history; DROP TABLE intent;
DROP TABLE quarantine; DROP TABLE reservation; DROP TABLE volume;
"""
_IDS = "uid_map, gid_map, held_start, held_count"
# The history entries of runs that changed nothing.
_PUT_BACK = {("failed, and put back",), ("interrupted, and put back",)}

# The events of each second in which one was noted.
Seconds = dict[str, list["HistoryEntry"]]


def upgrade(db: sqlite3.Connection, version: int) -> None:
    """Upgrade the tables of an older version, in the caller's transaction."""
    if version > _LAST:
        for step in range(version + 1, schema.VERSION + 1):
            _to(db, step)
        schema.stamped(db)
        return
    for step in range(version + 1, _LAST + 1):
        schema.run(db, _STEPS[step])
    rows = db.execute("SELECT at, actor, command, changed FROM history ORDER BY rowid")
    entries = [codec.entry((number, *row)) for number, row in enumerate(rows, 1)]
    seconds: Seconds = {}
    for entry in entries:
        seconds.setdefault(entry.at, []).append(entry)

    state = _state(db, seconds, len(entries), is_proven=version == _LAST)
    contents = codec.typed(db.execute("SELECT content FROM intent"), str)
    intents = [_intent(content, seconds, len(entries)) for (content,) in contents]

    schema.run(db, _DROP)
    schema.create(db)
    schema.store(db, LedgerState(), state)
    for entry in entries:
        schema.append(db, entry, "")
    for intent in intents:
        schema.begin(db, codec.intent_row(intent))


def _to(db: sqlite3.Connection, version: int) -> None:
    """Add what a version notes of each allocation and volume, wherever a row of one is stored."""
    schema.run(db, _TABLES_ADDED.get(version, ""))
    volumes = _ADDED_TO_VOLUMES.get(version, ())
    for table, columns in (("allocation", _ADDED.get(version, ())), ("volume", volumes)):
        for column, usual in columns:
            schema.run(db, f"ALTER TABLE {table} ADD COLUMN {column} NOT NULL DEFAULT {usual!r}")

    new = [usual for _, usual in _ADDED.get(version, ())]
    for table, key, column, text in (
        ("quarantine", "rowid", "was", _row),
        ("event", "number", "change", partial(_change, version=version)),
        ("intent", "only", "change", partial(_change, version=version)),
    ):
        rows = db.execute(f"SELECT {key}, {column} FROM {table} WHERE {column} != ''")  # noqa: S608
        db.executemany(
            f"UPDATE {table} SET {column} = ? WHERE {key} = ?",  # noqa: S608 - our own text
            [(text(old, new), number) for number, old in rows],
        )


def _row(text: str, new: list[str | int]) -> str:
    return json.dumps([*json.loads(text), *new])


def _change(text: str, new: list[str | int], *, version: int) -> str:
    content: dict[str, Any] = {**{key: [] for key in _LISTS}, **json.loads(text)}
    for key in ("add", "update"):
        content[key] = [[*row, *new] for row in content[key]]
    volumes = [usual for _, usual in _ADDED_TO_VOLUMES.get(version, ())]
    content["volumes"] = [[*row, *volumes] for row in content["volumes"]]
    return json.dumps(content)


def _state(db: sqlite3.Connection, seconds: Seconds, last: int, *, is_proven: bool) -> LedgerState:
    volumes = db.execute("SELECT path, name, mode, since, 0, user, '' FROM volume")
    return LedgerState(
        tuple(_allocations(db, seconds, last, is_proven=is_proven)),
        tuple(_quarantined(db, seconds, last)),
        volumes=tuple(
            replace(v, event=_last_of(seconds, v.since, 0)) for v in map(codec.volume, volumes)
        ),
        reservations=tuple(map(codec.reservation, db.execute(schema.RESERVED))),
    )


def _allocations(
    db: sqlite3.Connection, seconds: Seconds, last: int, *, is_proven: bool
) -> Iterator[Allocation]:
    lists: dict[str, tuple[list[str], list[list[str]]]] = {}
    for name, owner in codec.typed(db.execute("SELECT * FROM also ORDER BY owner"), str, str):
        lists.setdefault(name, ([], []))[0].append(owner)
    for name, *line in db.execute("SELECT * FROM found ORDER BY path, line"):
        lists.setdefault(name, ([], []))[1].append(line)

    written = {} if is_proven else _written(seconds)
    columns = f"name, owner, strategy, {_IDS}, since"
    for row in db.execute(f"SELECT {columns} FROM allocation"):  # noqa: S608 - our own text
        owners, lines = lists.get(row[0], ([], []))
        [one] = codec.allocations([(*row, 0, json.dumps(owners), json.dumps(lines), *_NEW)])
        if not is_proven:
            one = replace(one, found=tuple(sorted(_unproven(one, written))))
        yield replace(one, event=_made(one, seconds, last))


def _quarantined(db: sqlite3.Connection, seconds: Seconds, last: int) -> Iterator[Quarantined]:
    new = ", ".join(map(repr, _NEW))
    was = f"name, owner, strategy, {_IDS}, made, 0, '[]', '[]', {new}"
    for name, start, count, since, *row in db.execute(
        f"SELECT name, held_start, held_count, since, {was} FROM quarantine"  # noqa: S608
    ):
        one = codec.quarantined((name, start, count, since, 0, ""))
        # Versions before 5 did not note the former allocation.
        former = next(codec.allocations([row])) if row[1] else None
        if former:
            former = replace(former, event=_made(former, seconds, last))
        yield replace(one, was=former, event=_last_of(seconds, since, last + 1))


def _made(a: Allocation, seconds: Seconds, last: int) -> int:
    """The number of the event that made an allocation, by the rule in the module's docstring."""
    if a.since not in seconds:
        return last + 1
    then = [entry for entry in seconds[a.since] if entry.changed not in _PUT_BACK]
    if len(then) > 1:
        added = {f"+ {a.owner}:{ids.start}:{ids.count}" for ids in a.mapping.uids.host_ranges()}
        by_line = [e for e in then if any(x.partition(": ")[2] in added for x in e.changed)]
        # A shared map may have no lines of its own; then the command names it.
        then = by_line or [e for e in then if a.name in e.command.split()]
    # Not 0: that is the number of an allocation that no ledger has.
    return then[0].number if then else seconds[a.since][0].number - 1 or -1


def _last_of(seconds: Seconds, since: str, otherwise: int) -> int:
    """The number of the last event of a second; ``otherwise`` if it has none."""
    return seconds[since][-1].number if since in seconds else otherwise


def _written(seconds: Seconds) -> dict[tuple[str, str], set[str]]:
    """The (path, line) pairs that the history reports as written, each with its seconds."""
    found: dict[tuple[str, str], set[str]] = {}
    for at, entries in seconds.items():
        for text in (text for entry in entries for text in entry.changed):
            # Such as "/etc/subuid: + web:589824:65536"; below another root, after that root's path.
            place, is_new, line = text.rpartition(": + ")
            for path in (SUBUID, SUBGID) if is_new else ():
                if place.endswith(path):
                    found.setdefault((path, line), set()).add(at)
    return found


def _unproven(
    one: Allocation, written: Mapping[tuple[str, str], Container[str]]
) -> Iterator[tuple[str, str]]:
    """The lines of an allocation that usernsplan may not have written, so release leaves them.

    Before version 5, only the history proves it. The lines of its owner were written in the second
    in which it was made; a later second restored lines that existed before.
    """
    for holding in holdings(one):
        for line in holding.noted():
            at = written.get(line)
            if at is None or (holding.owner == one.owner and one.since not in at):
                yield line


def _intent(text: str, seconds: Seconds, last: int) -> Intent:
    """The intent of a run that an older version began. Fields that it did not have are empty."""
    content: dict[str, Any] = json.loads(text)
    uid, sudo_uid, login_uid = content["actor"]
    change = {
        **{key: [] for key in (*_LISTS, "found", "unkeep", "no_volumes", "reserve", "unreserve")},
        **content,
        "add": [(*row, 0, "[]", "[]", *_NEW) for row in content["add"]],
        "extra_owners": content.get("also", []),
        "volumes": [
            (path, name, mode, *(user or [""]), "")
            for path, name, mode, _, *user in content.get("volumes", [])
        ],
    }
    actor = {"uid": uid, "sudo_uid": sudo_uid, "login_uid": login_uid}
    row = (content["command"], *map(json.dumps, (actor, change, content["changes"])))
    intent = codec.intent(row)

    ledger = intent.ledger
    add = tuple(replace(a, event=_made(a, seconds, last) if a.since else 0) for a in ledger.add)
    ledger = replace(ledger, add=add)
    if "found" not in content:
        ledger = replace(ledger, found=tuple(_not_written(intent)))
    return replace(intent, ledger=ledger)


def _not_written(intent: Intent) -> Iterator[tuple[str, str, str]]:
    """The lines of new allocations that a run does not add to a file: they existed before."""
    written = {
        (change.path, file_line(line)): ("",)
        for change in intent.changes
        for line in added_lines(change.before or b"", change.after)
    }
    for a in intent.ledger.add:
        owners = tuple(owner for name, owner in intent.ledger.extra_owners if name == a.name)
        for line in _unproven(replace(a, extra_owners=owners), written):
            yield (a.name, *line)
