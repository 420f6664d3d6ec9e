"""JSON User and Group Records of systemd (systemd.io/USER_RECORD): ours, and those of others. Pure.

systemd reads a record as NAME.user and NAME.group, and finds it by its number through the symlinks
UID.user and GID.group.
"""

from __future__ import annotations

import json
import re
from functools import cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING, Any, Final

from usernsplan.formats.accounts import ABOUT, NOWHERE, Group, User
from usernsplan.ids import ID_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from usernsplan.model import Record

NOLOGIN = "/usr/sbin/nologin"
# What is in the folder under one name: the bytes of a file, or the target of a symlink.
Entry = bytes | str
USER: Final = ".user"
GROUP: Final = ".group"
# Every program that looks up accounts takes such a name. systemd takes more, and useradd less.
_NAME = r"[A-Za-z_][A-Za-z0-9_.-]*"
_LOGIN = r"[a-z_][a-z0-9_-]{0,31}"
_LONGEST_FILE = 255
# The text of indent=2, which the json module writes ten times slower.
_LINES = json.JSONEncoder(separators=(",\n  ", ": "))


def is_name(name: str) -> bool:
    """Tell whether a record can have this name, also as the name of its file."""
    return bool(re.fullmatch(_NAME, name)) and len(name + GROUP) <= _LONGEST_FILE


def is_login(name: str) -> bool:
    """Tell whether useradd takes this name."""
    return bool(re.fullmatch(_LOGIN, name))


def removal(record: Record) -> tuple[tuple[str, ...], ...]:
    """The commands that remove an account which publishes a range, with its group.

    userdel(8) also removes the lines in subuid and subgid that have the name of the account, and
    they may still grant the range: so it gets another name first. No container's owner has that.
    """
    other = f"usernsplan--{record.number}"
    return (
        ("usermod", "--login", other, record.name),
        ("userdel", other),
        ("groupdel", record.name),
    )


def entries(record: Record) -> dict[str, Entry]:
    """The four files of a record, by name. The same record has always the same bytes."""
    name, number = record
    quoted = _quoted(name)
    of_user, of_group = _same_in_all()
    user = f'"userName": {quoted},\n  "uid": {number},\n  "gid": {number}'
    group = f'"groupName": {quoted},\n  "gid": {number}'
    return {
        name + USER: f"{{\n  {user},\n  {of_user}\n}}\n".encode(),
        name + GROUP: f"{{\n  {group},\n  {of_group}\n}}\n".encode(),
        f"{number}{USER}": name + USER,
        f"{number}{GROUP}": name + GROUP,
    }


def names(records: Iterable[Record]) -> frozenset[str]:
    """The names of all files of these records. There may be 10,000 records."""
    of_owners = [base for record in records for base in (record.name, str(record.number))]
    return frozenset([base + suffix for suffix in (USER, GROUP) for base in of_owners])


def _names(record: Record) -> tuple[str, str, str, str]:
    owner, number = record
    return f"{owner}{USER}", f"{owner}{GROUP}", f"{number}{USER}", f"{number}{GROUP}"


def lacks(record: Record, there: frozenset[str], others: Mapping[str, Entry]) -> bool:
    """Tell whether a folder lacks a file of this record, or has another one in its place.

    ``there`` are the names in the folder, and ``others`` what differs from known records.
    """
    mine = _names(record)
    if not there.issuperset(mine):
        return True
    content = {} if others.keys().isdisjoint(mine) else entries(record)
    return any(others.get(name, entry) != entry for name, entry in content.items())


def in_the_way(record: Record, others: Mapping[str, Entry]) -> str:
    """The name of a file that somebody else put in the place of this record; "" if there is none."""
    if others.keys().isdisjoint(_names(record)):
        return ""
    return next(
        (
            name
            for name, entry in entries(record).items()
            if name in others and others[name] != entry and not is_ours(others[name])
        ),
        "",
    )


def is_ours(entry: Entry | None) -> bool:
    """Tell whether usernsplan wrote a file, perhaps another version of it or with other ids.

    An empty file is nobody's record: a power cut leaves one.
    """
    if not isinstance(entry, bytes):
        return False
    found = _object(entry)
    # A list, because what others wrote may be an object, which no set takes.
    return not entry or ABOUT in [found.get("realName"), found.get("description")]


def user(raw: bytes) -> User | None:
    """The account of a record; None for what systemd takes for no record."""
    found = _object(raw)
    name, uid = found.get("userName"), _id(found.get("uid"))
    gid = _id(found.get("gid", uid))
    if not isinstance(name, str) or uid is None or gid is None:
        return None
    return User(name, uid, gid)


def group(raw: bytes) -> Group | None:
    """The group of a record, as ``user``."""
    found = _object(raw)
    name, gid = found.get("groupName"), _id(found.get("gid"))
    return Group(name, gid) if isinstance(name, str) and gid is not None else None


@cache
def _same_in_all() -> tuple[str, str]:
    """What all users, and all groups, have besides a name and a number. There may be 10,000."""
    shared = {"disposition": "container"}
    home = {"homeDirectory": NOWHERE, "shell": NOLOGIN, "locked": True}
    user = {"realName": ABOUT, **shared, **home}
    group = {"description": ABOUT, **shared}
    return _LINES.encode(user)[1:-1], _LINES.encode(group)[1:-1]


def _object(raw: bytes) -> dict[str, Any]:
    """The object that a file holds; an empty one for anything else."""
    try:
        found = json.loads(raw)
    # A number of 5000 digits is a ValueError, and 100,000 brackets are a RecursionError.
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _id(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < ID_LIMIT:
        return value
    return None
