"""Publish ranges, so that programs that take ids without asking subuid see them. Pure.

systemd-nspawn and others look only whether an id has an account. A published range has one for
each of its 65536 ids: a record of systemd, or a locked account in passwd. See holdings.records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import engine_of_pool
from usernsplan.errors import RefusedError
from usernsplan.escape import line, shell
from usernsplan.formats import userdb
from usernsplan.formats.accounts import ABOUT, NOWHERE
from usernsplan.holdings import is_seen_as_account, records, sees_records
from usernsplan.layout import NSSWITCH, USERDB
from usernsplan.model import DEFAULT_OWNER, POOL_OWNERS, ROOT, Record, RecordChange
from usernsplan.planner.stories import advise
from usernsplan.strategies import SLOT, PerContainer
from usernsplan.values import NamedTuple, replace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from usernsplan.model import Allocation, Finding, HostState, Published, Userdb

_DEFAULT: Published = "userdb"
_FEW = 3
_NOWHERE = ("--no-create-home", "--home-dir", NOWHERE, "--shell", userdb.NOLOGIN)


class Publishing(NamedTuple):
    """Allocations with the place where they are published, and what that needs.

    ``commands`` create accounts and come first; ``gone`` are accounts that are removed last.
    """

    allocations: tuple[Allocation, ...] = ()
    records: tuple[RecordChange, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    gone: tuple[Record, ...] = ()
    findings: tuple[Finding, ...] = ()


def publish(
    state: HostState,
    allocations: Iterable[Allocation],
    asked: Mapping[str, Published | None],
    logins: Collection[str],
    *,
    from_file: bool = False,
) -> Publishing:
    """Decide where each allocation is published: where it is ``asked`` for, by name.

    ``logins`` are owners that are to become accounts. ``from_file``: a plan file asks, which is
    there the next time too, so it says nothing new about what is as it wants it. Raises
    RefusedError.
    """
    draft = _Draft(state, asked, logins)
    were = tuple(allocations)
    now = []
    for one in were:
        after = replace(one, published=draft.place_of(one))
        place = asked[one.name]
        is_known = from_file and one.event and one.published == after.published
        # Otherwise a later plain request would publish it, because older ledgers have "none" for
        # what nobody asked about.
        if place is not None and not is_known:
            after = replace(after, unpublished=place == "none")
        now.append(after)

    return Publishing(
        allocations=tuple(now),
        records=changes(state.userdb, were, now),
        commands=tuple(draft.commands),
        gone=accounts_gone(state, were, now),
        findings=(*draft.findings, *_pools(state, now, asked, logins), *_unseen(state, now)),
    )


def changes(
    there: Userdb, before: Iterable[Allocation], after: Iterable[Allocation]
) -> tuple[RecordChange, ...]:
    """The records that come, because they are wanted and missing, and those that go."""
    wanted = dict.fromkeys(records_of(after))
    gone = (one for one in records_of(before) if one not in wanted)
    come = (one for one in wanted if userdb.lacks(one, there.names, there.others))
    return (*(RecordChange("+", one) for one in come), *(RecordChange("-", one) for one in gone))


def records_of(allocations: Iterable[Allocation], place: Published = "userdb") -> Iterator[Record]:
    """The records of the allocations that are published there."""
    for allocation in allocations:
        if allocation.published == place:
            yield from records(allocation)


def accounts_gone(
    state: HostState, before: Iterable[Allocation], after: Iterable[Allocation] = ()
) -> tuple[Record, ...]:
    """The accounts in passwd that publish nothing any more, and are still there as we made them."""
    stay = {*records_of(after, "passwd")}
    ours = {(user.name, user.uid) for user in state.accounts.published}
    return tuple(one for one in records_of(before, "passwd") if one not in stay and one in ours)


def can_be(allocation: Allocation) -> bool:
    """Tell whether an allocation has a range for itself that programs could take by mistake.

    Accounts have their own entry in passwd. The lines of a slice are those of another.
    """
    held = allocation.reserved_range
    return (
        allocation.strategy == PerContainer.name
        and held is not None
        and held.count >= SLOT
        and allocation.owner not in {ROOT, DEFAULT_OWNER}
        and not allocation.within
    )


def is_published(state: HostState, allocation: Allocation) -> Published:
    """Where some record or account of an allocation is, if the ledger does not say it.

    One is enough: the others were lost, and release has to find those that are left.
    """
    if not can_be(allocation):
        return "none"
    mine, there = [*records(allocation)], state.userdb.others
    entries = (entry for one in mine for entry in userdb.entries(one).items())
    if any(there.get(name) == content for name, content in entries):
        return "userdb"
    accounts = {(user.name, user.uid) for user in state.accounts.published}
    return "none" if accounts.isdisjoint(mine) else "passwd"


def again(allocation: Allocation) -> str:
    """The words that allocate it again: a size other than the usual one has to be repeated."""
    if engine := engine_of_pool(allocation):
        return f"allocate --engine {engine}"
    held = allocation.reserved_range
    size = f" --size {held.count}" if held and held.count != SLOT else ""
    return f"allocate {shell(allocation.name)}{size}"


class _Draft:
    """What publishing needs so far. Each name and each id is taken once."""

    def __init__(
        self, state: HostState, asked: Mapping[str, Published | None], logins: Collection[str]
    ) -> None:
        self._state, self._asked = state, asked
        accounts = state.accounts
        # A group may have lost the account by which it is known as ours.
        ours = {*records_of(state.ledger.allocations, "passwd")}
        groups = [group for group in accounts.groups if Record(*group) not in ours]
        self._groups = {group.name for group in accounts.groups}
        self._accounts = {user.name for user in accounts.users}
        self._logins = self._accounts | {*logins}
        self._names = {
            **{group.name: f"the group '{group.name}'" for group in groups},
            **{user.name: f"the account '{user.name}'" for user in accounts.users},
        }
        self._ids = {
            **{group.gid: f"the group '{group.name}'" for group in groups},
            **{user.gid: f"the account '{user.name}'" for user in accounts.users},
            **{user.uid: f"the account '{user.name}'" for user in accounts.users},
        }
        self._ours = {user.name: user.uid for user in accounts.published}
        self._taken = dict(_names(state.ledger.allocations))
        self.commands: list[tuple[str, ...]] = []
        self.findings: list[Finding] = []

    def place_of(self, allocation: Allocation) -> Published:
        """Where the allocation is published. Raises RefusedError."""
        was, owner = allocation.published, allocation.owner
        usual = "none" if allocation.unpublished else _DEFAULT
        place = self._asked[allocation.name] or (usual if was == "none" else was)
        is_login = owner not in POOL_OWNERS and owner in self._logins
        if is_login and is_seen_as_account(self._state, owner) and owner not in self._accounts:
            # An engine needs an account of this name, and the one that publishes the range is one.
            if place == "none":
                raise self._first_none(allocation, f"{owner} cannot become another account")
            return was
        if place == "none" or not can_be(allocation):
            return "none"
        if is_login:
            if was != "none" and self._state.layout.is_host and sees_records(self._state):
                raise self._first_none(allocation, f"{owner} cannot become an account")
            return "none"
        if was not in {"none", place}:
            raise self._first_none(allocation, f"it is not moved to {place}")

        if why := self._why_not(allocation, place):
            message = f"'{allocation.name}' is not published, and systemd-nspawn may take it: {why}"
            hint = "publish it later with the same command, once that has changed"
            self.findings.append(advise("USN151", message, hint))
            return "none"
        if place == "passwd":
            self.commands += self._to_create(allocation)
        self._taken.update((record.name, allocation.name) for record in records(allocation))
        return place

    def _why_not(self, allocation: Allocation, place: Published) -> str:
        """Why the allocation cannot be published there; "" if it can."""
        if place == "passwd" and not self._state.can_add_accounts and self._to_create(allocation):
            return "useradd cannot run here"
        reasons = (self._taken_by(record, allocation, place) for record in records(allocation))
        return next(filter(None, reasons), "")

    def _taken_by(self, record: Record, allocation: Allocation, place: Published) -> str:
        """Why this record or account cannot be; "" if it can."""
        name, number = record
        if not (userdb.is_name(name) if place == "userdb" else userdb.is_login(name)):
            return f"'{name}' cannot be the name of an account"
        if name in self._names:
            return f"{self._names[name]} has the name"
        if number in self._ids:
            return f"{self._ids[number]} has the id {number}"
        if self._taken.get(name, allocation.name) != allocation.name:
            return f"the name '{name}' stands for ids of '{self._taken[name]}'"
        if self._ours.get(name, number) != number:
            return f"the account '{name}' has another uid, {self._ours[name]}"
        self._refuse_no_folder(place)
        file = userdb.in_the_way(record, self._state.userdb.others) if place == "userdb" else ""
        return (
            f"somebody else wrote {line(self._state.layout.path(f'{USERDB}/{file}'))}"
            if file
            else ""
        )

    def _refuse_no_folder(self, place: Published) -> None:
        if place == "userdb" and not self._state.userdb.is_folder:
            raise RefusedError(
                f"{self._state.layout.path(USERDB)} is a symlink or not a folder: records cannot be "
                "written there",
                hint="put a folder in its place, or use --publish none",
                in_file="put a folder in its place, or write 'publish: none'",
                option="publish",
            )

    def _first_none(self, allocation: Allocation, what: str) -> RefusedError:
        first = self._state.layout.inline(f"{again(allocation)} --publish none")
        return RefusedError(
            f"'{allocation.name}' is published in {allocation.published}, so {what}",
            hint=f"run {first} first, then this command again",
            option="publish",
        )

    def _to_create(self, allocation: Allocation) -> list[tuple[str, ...]]:
        """The commands that create the accounts which are missing."""
        return [
            command
            for record in records(allocation)
            if record.name not in self._ours
            for command in commands(record)[record.name in self._groups :]
        ]


def _names(allocations: Iterable[Allocation]) -> Iterator[tuple[str, str]]:
    """The names that publish ranges, each with its allocation."""
    for a in allocations:
        held = a.reserved_range
        if held and a.published != "none":
            yield a.owner, a.name
            # Nearly every allocation has one record, with the name of its owner.
            if held.count != SLOT or held.start % SLOT:
                yield from ((record.name, a.name) for record in records(a))


def commands(record: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The commands that publish a range as a locked account, with its group."""
    name, number = record.name, str(record.number)
    known_by = ("--comment", ABOUT, "--uid", number, "--gid", number)
    return (
        ("groupadd", "--system", "--gid", number, name),
        ("useradd", "--system", *_NOWHERE, *known_by, name),
    )


def _pools(
    state: HostState,
    allocations: Iterable[Allocation],
    asked: Mapping[str, Published | None],
    logins: Collection[str],
) -> Iterator[Finding]:
    """A finding for each engine's pool: its records do not have the name of its owner."""
    accounts = (*state.accounts.users, *state.accounts.published)
    known = {*logins, *(user.name for user in accounts)}
    for a in allocations:
        engine = engine_of_pool(a) if asked[a.name] != "none" else None
        if engine and a.reserved_range and a.owner not in known:
            mark = ("--comment", ABOUT)
            command = ("useradd", "--system", "--user-group", *_NOWHERE, *mark, a.owner)
            message = (
                f"{a.owner}, the owner of the pool of {engine}, is no account: programs built with "
                "libsubid of shadow 4.20 overlook its line"
            )
            account = shell(*state.layout.account_command(command))
            yield advise("USN150", message, f"to make it one: {account}")


def _unseen(state: HostState, allocations: Iterable[Allocation]) -> Iterator[Finding]:
    """The finding that records are seen by systemd alone, where nsswitch.conf says so."""
    recorded = [a for a in allocations if a.published == "userdb"]
    if recorded and state.passwd_source.number and not sees_records(state):
        yield advise("USN152", *unseen(state, recorded))


def unseen(state: HostState, recorded: Sequence[Allocation]) -> tuple[str, str]:
    """The message and the hint where only systemd sees the records of these allocations."""
    several = [a.name for a in recorded]
    shown = ", ".join(several[:_FEW])
    more = f" and {len(several) - _FEW} more" if several[_FEW:] else ""
    place = f"{state.layout.path(NSSWITCH)}:{state.passwd_source.number}"
    message = (
        f"{place}: without 'systemd' in its passwd line, only systemd sees who has the ids of "
        f"{shown}{more}; ls -l, and programs built with libsubid of shadow 4.20, do not"
    )
    none = state.layout.inline(f"{again(recorded[0])} --publish none")
    passwd = state.layout.inline(f"{again(recorded[0])} --publish passwd")
    hint = (
        "install libnss-systemd and add 'systemd' to the lines passwd and group; or make system "
        f"accounts instead: {none}, then {passwd}"
    )
    return message, hint
