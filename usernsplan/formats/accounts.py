"""passwd(5) and group(5): the names, ids and homes in them, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from usernsplan.ids import IdSet
from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple, dataclass, field, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.mapping import Kind

# An id as glibc reads it: strtoul(3) skips leading blanks and takes a sign. Every reader rejects a
# number with more digits than any id has.
_NUMBER = pattern(r"[ \t]*\+?[0-9]{1,20}")
# What tells a record that publishes a range from an account: its real name, and its home.
ABOUT = "container ids (usernsplan)"
NOWHERE = "/nonexistent"


class User(NamedTuple):
    """One account."""

    name: str
    uid: int
    gid: int

    def number(self, kind: Kind) -> int:
        """Its uid, or the gid of its first group."""
        return self.uid if kind == "uid" else self.gid

    def is_itself(self, kind: Kind, start: int, count: int) -> bool:
        """Tell whether host ids are its own id alone: newuidmap(1) maps that one without a line."""
        return (start, count) == (self.number(kind), 1)

    @property
    def owner_names(self) -> tuple[str, str]:
        """What a line of subuid that grants it ids may begin with: its name, or its uid."""
        return self.name, str(self.uid)


class Group(NamedTuple):
    """One group."""

    name: str
    gid: int


class Directory(Protocol):
    """A service that does not list its accounts: it is asked for each one.

    Asking may take a network's time, so a decision asks for the few that it is about.
    """

    def user(self, name: str) -> User | None:
        """The account of this name."""

    def user_of(self, uid: int) -> User | None:
        """The account of this uid."""

    def group(self, name: str) -> Group | None:
        """The group of this name."""

    def group_of(self, gid: int) -> Group | None:
        """The group of this gid."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts and groups of a host that can be listed, and the ``directory`` of all others.

    Those that only publish a range of usernsplan are ``published``: they stand for containers' ids,
    nobody logs in to them, and no rule about accounts applies to them. ``unknown`` is the service
    whose accounts cannot be asked for, because they are those of another root; "" if there is none.
    ``directory`` is None if these are all, or if they cannot be asked for. ``members`` are (group,
    account) pairs of the groups that are listed; an account's first group does not list it.
    """

    users: tuple[User, ...] = ()
    groups: tuple[Group, ...] = ()
    published: tuple[User, ...] = ()
    unknown: str = ""
    directory: Directory | None = field(default=None, compare=False, repr=False)
    members: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)

    def user(self, name: str) -> User | None:
        """The first account of this name, as getpwnam(3) finds it."""
        listed = next((user for user in self.users if user.name == name), None)
        return listed or self.elsewhere(name)

    def owner_names(self, owner: str) -> tuple[str, ...]:
        """What the lines of an owner may begin with, if its account is listed: see User."""
        listed = next((user for user in self.users if user.name == owner), None)
        return listed.owner_names if listed else (owner,)

    def elsewhere(self, name: str) -> User | None:
        """The account of a name that is not listed, if the directory knows it."""
        return self.directory.user(name) if self.directory else None

    def doubt(self, name: str) -> str:
        """Why it cannot be known whether a name that is not listed is an account; "" if it can."""
        if not self.unknown:
            return ""
        return (
            f"whether {name} is an account can only be asked on the host itself: accounts also come "
            f"from {self.unknown}"
        )

    def user_of(self, uid: int) -> User | None:
        """The account of this uid."""
        listed = next((user for user in self.users if user.uid == uid), None)
        return listed or (self.directory.user_of(uid) if self.directory else None)

    def group(self, name: str) -> Group | None:
        """The group of this name."""
        listed = next((group for group in self.groups if group.name == name), None)
        return listed or (self.directory.group(name) if self.directory else None)

    def group_of(self, gid: int) -> Group | None:
        """The group of this gid."""
        listed = next((group for group in self.groups if group.gid == gid), None)
        return listed or (self.directory.group_of(gid) if self.directory else None)

    def and_these(self, users: Iterable[User], groups: Iterable[Group] = ()) -> Accounts:
        """The same with these listed too; the same object if they are already."""
        more = (*dict.fromkeys((*self.users, *users)),), (*dict.fromkeys((*self.groups, *groups)),)
        if more == (self.users, self.groups):
            return self
        return replace(self, users=more[0], groups=more[1])

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


def published(raw: bytes) -> Iterator[User]:
    """The accounts of passwd(5) that publish a range: ``is_published`` tells them."""
    for name, uid, gid, about, home, shell in _fields(raw, (0, 2, 3, 4, 5, 6)):
        numbers = _NUMBER.fullmatch(uid) and _NUMBER.fullmatch(gid)
        if numbers and is_published(about, home, shell):
            yield User(name, int(uid), int(gid))


def is_published(about: str, home: str, shell: str) -> bool:
    """Tell whether an account only publishes a range. An account that can log in never does."""
    return about == ABOUT and home == NOWHERE and shell.endswith("/nologin")


def accounts(
    users: Iterable[User], groups: Iterable[Group], published: Iterable[User] = ()
) -> Accounts:
    """All of a host, each once; those that publish a range, and their groups, stand apart."""
    ours = dict.fromkeys(published)
    theirs = {Group(user.name, user.gid) for user in ours}
    return Accounts(
        tuple(user for user in dict.fromkeys(users) if user not in ours),
        tuple(group for group in dict.fromkeys(groups) if group not in theirs),
        tuple(ours),
    )


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


def members(raw: bytes) -> Iterator[tuple[str, str]]:
    """The (group, account) pairs of group(5): name:password:gid:account,…."""
    for name, gid, listed in _fields(raw, (0, 2, 3)):
        if _NUMBER.fullmatch(gid):
            yield from ((name, user.strip()) for user in listed.split(",") if user.strip())


def _fields(raw: bytes, wanted: tuple[int, ...]) -> Iterable[tuple[str, ...]]:
    """The ``wanted`` fields of each line that has them; comments are left out."""
    for line in raw.decode("utf-8", "surrogateescape").split("\n"):
        # glibc skips blanks before the name, and comments.
        fields = line.lstrip().split(":")
        if line.lstrip().startswith("#"):
            continue
        if len(fields) > wanted[-1] and fields[0]:
            yield tuple(fields[index] for index in wanted)
