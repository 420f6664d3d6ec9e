"""Accounts that only a directory service knows, among the few that a decision is about. Pure.

Such a service (LDAP, SSSD, winbind) does not list its accounts. It is asked for the owners and the
ids in question, and what it knows counts from then on as if it were listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.patterns import pattern
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.model import Allocation, HostState

# A directory answers over the network, so a request for thousands of containers asks for the ids of
# the first ones only.
_RANGES = 64
_UID = pattern("[0-9]{1,10}")


def with_owners(state: HostState, owners: Iterable[str]) -> HostState:
    """The host with the accounts among these owners, which are names or uids, listed too."""
    directory = state.accounts.directory
    if directory is None:
        return state
    users = state.accounts.users
    listed = {user.name for user in users} | {str(user.uid) for user in users}
    found = [
        directory.user_of(int(owner)) if _UID.fullmatch(owner) else directory.user(owner)
        for owner in dict.fromkeys(owners)
        if owner not in listed
    ]
    return replace(state, accounts=state.accounts.and_these(filter(None, found)))


def with_holders(state: HostState, new: Iterable[Allocation]) -> HostState:
    """The host with the accounts and groups that have the first or last id of these ranges.

    It is the same object if there are none. A directory cannot be asked for the ids between.
    systemd-nspawn asks in the same way, for the first id.
    """
    directory = state.accounts.directory
    if directory is None:
        return state
    ranges = [a.reserved_range for a in new if a.reserved_range][:_RANGES]
    ids = [number for held in ranges for number in (held.start, held.last)]
    known = state.accounts.and_these(
        filter(None, map(directory.user_of, ids)), filter(None, map(directory.group_of, ids))
    )
    return state if known is state.accounts else replace(state, accounts=known)
