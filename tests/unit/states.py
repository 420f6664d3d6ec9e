"""Hosts as values, for tests of what decides: no file is read, and carrying a plan out is exchanging bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

from usernsplan import AllocateRequest, Allocation, HostState, IdMap, IdRange, IdSet, Layout, Mapping, PerContainer
from usernsplan.formats import accounts, nsswitch, subid
from usernsplan.layout import DAEMON_JSON, SUBGID, SUBUID
from usernsplan.model import LedgerState, Quarantined

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan import Plan
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
    namespaces: IdSet = NO_IDS,
    can_add_accounts: bool = True,
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
        subid_source=_source(nsswitch, "subid"),
        passwd_source=_source(nsswitch, "passwd"),
        accounts=accounts.Accounts(tuple(accounts.users(passwd)), tuple(accounts.groups(group))),
        ledger=LedgerState(tuple(allocations), tuple(quarantined)),
        namespaces=namespaces,
        can_add_accounts=can_add_accounts,
    )


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
    held = IdRange(base, size)
    return Allocation(name, owner or f"usernsplan-{name}", "per-container", Mapping(ids, ids), held)


def shared(name: str, *extents: tuple[int, int, int], owner: str = "", held: IdRange | None = None) -> Allocation:
    """What the ledger holds of a shared allocation."""
    ids = IdMap.of(*extents)
    return Allocation(name, owner or f"usernsplan-{name}", "shared", Mapping(ids, ids), held)


def files(host: HostState) -> dict[str, bytes | None]:
    """The bytes of the three files that plans change; None where there is no such file."""
    return {
        SUBUID: host.subuid.raw if host.subuid.exists else None,
        SUBGID: host.subgid.raw if host.subgid.exists else None,
        DAEMON_JSON: host.daemon_json,
    }


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
    return replace(host, accounts=accounts.Accounts(tuple(users), tuple(groups)))


def carried_out(host: HostState, plan: Plan) -> HostState:
    """The host after a plan: every file as the plan shows it, the ledger as the plan changes it."""
    content = files(host)
    for change in plan.changes:
        assert content[change.path] == change.before, change.path
        content[change.path] = change.after
    old, new = host.ledger, plan.ledger
    ledger = LedgerState(
        tuple(
            replace(a, also=(*a.also, *(owner for name, owner in new.also if name == a.name)))
            for a in old.allocations
            if a.name not in new.remove
        )
        + new.add,
        tuple(q for q in old.quarantined if q.name not in new.forget)
        + tuple(Quarantined(name, held, "2026-01-01T00:00:00Z") for name, held in new.quarantine),
    )
    return replace(with_files(with_accounts(host, plan), content), ledger=ledger)
