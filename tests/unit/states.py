"""Hosts as values, for tests of what decides: no file is read, and carrying a plan out is exchanging bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

from usernsplan import (
    AllocateRequest,
    Allocation,
    HostState,
    IdMap,
    IdRange,
    IdSet,
    Layout,
    Mapping,
    PerContainer,
)
from usernsplan.formats import accounts, nsswitch, subid, userdb
from usernsplan.layout import DAEMON_JSON, SUBGID, SUBUID
from usernsplan.model import LedgerState, Quarantined, Userdb
from usernsplan.planner.publish import records_of
from usernsplan.planner.recovery import as_changed, files_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan import Plan
    from usernsplan.model import Unlisted
    from usernsplan.strategies import Strategy

PASSWD = b"""\
root:x:0:0:root:/root:/bin/bash
bin:x:2:2:bin:/bin:/usr/sbin/nologin
alice:x:1000:1000::/home/alice:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
GROUP = b"""\
root:x:0:
bin:x:2:
alice:x:1000:
nogroup:x:65534:
"""
DOCKREMAP_USER = b"dockremap:x:997:996::/nonexistent:/usr/sbin/nologin\n"
DOCKREMAP_GROUP = b"dockremap:x:996:\n"
NO_IDS = IdSet()
# The bytes of the three files that plans change, by path; None where there is no such file.
files = files_of


def state(
    subuid: bytes | None = b"",
    subgid: bytes | None = b"",
    *,
    passwd: bytes = PASSWD,
    group: bytes = GROUP,
    login_defs: bytes = b"",
    daemon_json: bytes | None = None,
    allocations: Iterable[Allocation] = (),
    quarantined: Iterable[Quarantined] = (),
    nsswitch: bytes = b"",
    plugin: str = "",
    directory: Directory | None = None,
    namespaces: IdSet = NO_IDS,
    can_add_accounts: bool = True,
    unlisted: Iterable[Unlisted] = (),
    root: str = "/",
) -> HostState:
    """A host that holds just this; nothing but a few accounts if nothing is said."""
    return HostState(
        layout=Layout(root),
        subuid=subid.parse(subuid),
        subgid=subid.parse(subgid),
        daemon_json=daemon_json,
        daemon_json_is_symlink=False,
        login_defs=login_defs,
        subid_source=_source(nsswitch, "subid")._replace(plugin=plugin),
        passwd_source=_source(nsswitch, "passwd"),
        accounts=replace(
            accounts.accounts(
                accounts.users(passwd), accounts.groups(group), accounts.published(passwd)
            ),
            unknown="" if root == "/" else _source(nsswitch, "passwd").directory,
            directory=directory,
        ),
        ledger=LedgerState(tuple(allocations), tuple(quarantined)),
        namespaces=namespaces,
        can_add_accounts=can_add_accounts,
        userdb=published(allocations),
        unlisted=tuple(unlisted),
    )


def published(allocations: Iterable[Allocation]) -> Userdb:
    """The folder of records, with those of these allocations."""
    return Userdb(frozenset(userdb.names(records_of(allocations))))


class Directory:
    """The accounts of a service that lists none of them; ``asked`` is what it was asked for."""

    def __init__(self, *users: accounts.User, groups: Iterable[accounts.Group] = ()) -> None:
        self._known = accounts.Accounts(users, tuple(groups))
        self.asked: list[str | int] = []

    def user(self, name: str) -> accounts.User | None:
        self.asked.append(name)
        return self._known.user(name)

    def user_of(self, uid: int) -> accounts.User | None:
        self.asked.append(uid)
        return self._known.user_of(uid)

    def group(self, name: str) -> accounts.Group | None:
        return self._known.group(name)

    def group_of(self, gid: int) -> accounts.Group | None:
        return self._known.group_of(gid)


def _source(raw: bytes, database: str) -> nsswitch.Source:
    return nsswitch.source(raw, database)


class Subids(TypedDict, total=False):
    """Keywords of ``state``."""

    subuid: bytes
    subgid: bytes


class Known(TypedDict):
    """Keywords of ``state``."""

    passwd: bytes
    group: bytes


# A host that has Docker's remap user, and the group of its name.
REMAPPED = Known(passwd=PASSWD + DOCKREMAP_USER, group=GROUP + DOCKREMAP_GROUP)


def same_lines(lines: bytes) -> Subids:
    """Both files with the same bytes."""
    return {"subuid": lines, "subgid": lines}


def in_one(file: str, lines: bytes) -> Subids:
    """One of the two files with these bytes, the other one empty."""
    return {"subuid": lines} if file == "subuid" else {"subgid": lines}


def asked(*names: str, strategy: Strategy | None = None, **words: object) -> AllocateRequest:
    """What is asked: per-container unless another strategy is given."""
    return replace(AllocateRequest(names, strategy or PerContainer()), **words)  # type: ignore[arg-type]


def per_container(name: str, base: int, size: int = 65536, owner: str = "") -> Allocation:
    """What the ledger holds of a per-container allocation."""
    ids = IdMap.of((0, base, size))
    reserved_range = IdRange(base, size)
    is_published = size >= 65536 and owner in {"", "containers", "kubelet"}
    return Allocation(
        name,
        owner or f"usernsplan-{name}",
        "per-container",
        Mapping(ids, ids),
        reserved_range,
        published="userdb" if is_published else "none",
    )


def shared(
    name: str,
    *extents: tuple[int, int, int],
    owner: str = "",
    reserved_range: IdRange | None = None,
) -> Allocation:
    """What the ledger holds of a shared allocation."""
    ids = IdMap.of(*extents)
    return Allocation(
        name, owner or f"usernsplan-{name}", "shared", Mapping(ids, ids), reserved_range
    )


def with_files(host: HostState, content: dict[str, bytes | None]) -> HostState:
    """The host with other bytes in its three files."""
    return replace(
        host,
        subuid=subid.parse(content[SUBUID]),
        subgid=subid.parse(content[SUBGID]),
        daemon_json=content[DAEMON_JSON],
    )


def with_accounts(host: HostState, plan: Plan) -> HostState:
    """The host after a plan's useradd and groupadd, which take system ids from 900 up."""
    users, groups = list(host.accounts.users), list(host.accounts.groups)
    for program, *words in plan.account_commands:
        owner = words[-1]
        gid = next((group.gid for group in groups if group.name == owner), None)
        if gid is None:
            gid = 900 + len(groups)
            groups.append(accounts.Group(owner, gid))
        if program == "useradd":
            users.append(accounts.User(owner, 900 + len(users), gid))
    return replace(host, accounts=replace(host.accounts, users=tuple(users), groups=tuple(groups)))


def carried_out(host: HostState, plan: Plan) -> HostState:
    """The host after a plan: every file as the plan shows it, the ledger as the plan changes it."""
    before = files(host)
    assert {change.path: before[change.path] for change in plan.changes} == {
        c.path: c.before for c in plan.changes
    }
    return as_changed(
        with_accounts(host, plan),
        {change.path: change.after for change in plan.changes},
        plan.ledger,
    )
