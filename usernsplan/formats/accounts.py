"""passwd(5) and group(5): the names, ids and homes in them, and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.ids import IdSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# An id as glibc reads it: strtoul(3) skips leading blanks and takes a sign. Every reader rejects a
# number with more digits than any id has.
_NUMBER = re.compile(r"[ \t]*\+?[0-9]{1,20}")


class User(NamedTuple):
    """One account."""

    name: str
    uid: int
    gid: int


class Group(NamedTuple):
    """One group."""

    name: str
    gid: int


@dataclass(frozen=True, slots=True)
class Accounts:
    """All accounts and groups of a host."""

    users: tuple[User, ...] = ()
    groups: tuple[Group, ...] = ()

    def user(self, name: str) -> User | None:
        """The first account of this name, as getpwnam(3) finds it."""
        return next((user for user in self.users if user.name == name), None)

    def user_of(self, uid: int) -> User | None:
        """The account of this uid."""
        return next((user for user in self.users if user.uid == uid), None)

    def group(self, name: str) -> Group | None:
        """The group of this name."""
        return next((group for group in self.groups if group.name == name), None)

    def group_of(self, gid: int) -> Group | None:
        """The group of this gid."""
        return next((group for group in self.groups if group.gid == gid), None)

    def ids(self) -> IdSet:
        """Every uid and gid of an account or group. An id used as either is free as neither."""
        numbers = [user.uid for user in self.users] + [user.gid for user in self.users]
        numbers += [group.gid for group in self.groups]
        return IdSet.clipped((number, number + 1) for number in numbers)


def users(raw: bytes) -> Iterator[User]:
    """Read passwd(5): name:password:uid:gid:…. Every reader skips a line without both numbers."""
    for name, uid, gid in _fields(raw, (0, 2, 3)):
        if _NUMBER.fullmatch(uid) and _NUMBER.fullmatch(gid):
            yield User(name, int(uid), int(gid))


def homes(raw: bytes) -> Iterator[tuple[int, str]]:
    """The uid and the home of each account of passwd(5) that has one."""
    for uid, _, home in _fields(raw, (2, 4, 5)):
        if _NUMBER.fullmatch(uid) and home:
            yield int(uid), home


def groups(raw: bytes) -> Iterator[Group]:
    """Read group(5): name:password:gid:…."""
    for name, gid in _fields(raw, (0, 2)):
        if _NUMBER.fullmatch(gid):
            yield Group(name, int(gid))


def _fields(raw: bytes, wanted: tuple[int, ...]) -> Iterable[tuple[str, ...]]:
    """The ``wanted`` fields of each line that has them; comments are left out."""
    for line in raw.decode("utf-8", "surrogateescape").split("\n"):
        # glibc skips blanks before the name, and comments.
        fields = line.lstrip().split(":")
        if line.lstrip().startswith("#"):
            continue
        if len(fields) > wanted[-1] and fields[0]:
            yield tuple(fields[index] for index in wanted)
