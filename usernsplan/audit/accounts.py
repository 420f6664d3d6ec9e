"""Rules about accounts: ranges that contain their ids, and accounts that can become others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.layout import GROUP, PASSWD
from usernsplan.mapping import CALLED, KINDS
from usernsplan.model import ROOT
from usernsplan.planner.dockerroot import dockerroot_of
from usernsplan.strategies import Shared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.claims.index import Claim
    from usernsplan.formats.accounts import User
    from usernsplan.mapping import Kind


@rule("USN004", "error")
def over_an_account(facts: Facts) -> Iterator[Seen]:
    """A range contains the uid of an account.

    A container user with this id is the account on the host, for files and for processes: it
    can read the account's home and signal its processes.

    useradd gives a new account the next free uid and does not look at subuid. Directory
    services number people and do not know the file. usermod -u and lines written by hand can
    cause it too.

        containers:100000:65536         in subuid
        bob:x:100500:100500:…           in passwd

    Remove the range, or give the account another uid: usermod -u NEW bob, then chown its
    files. To share the host's ids with containers on purpose, use the strategy 'shared'.
    """
    yield from _over(facts, "uid")


@rule("USN005", "error")
def over_a_group(facts: Facts) -> Iterator[Seen]:
    """A range contains the gid of a group.

    Container processes with this gid are members of the host's group. They can read everything
    that the group can read: for 'docker' that is Docker's socket, for 'disk' the disks.

    groupadd takes the next free gid and does not look at subgid.

        containers:100000:65536         in subgid
        staff:x:100100:bob              in group

    Remove the range, or give the group another gid: groupmod -g NEW staff, then chgrp its
    files.
    """
    yield from _over(facts, "gid")


def _over(facts: Facts, kind: Kind) -> Iterator[Seen]:
    """The ranges that contain the ids of accounts or groups, unless that is intended.

    USN006 reports what a login can become, and USN008 an account's id in its own range.
    """
    what = CALLED[kind]
    for span in facts.people.met_by(facts.given[kind], kind):
        if span.is_intended or may_become(facts, span):
            continue
        over = facts.people.over(*span[:2], kind)
        own = _own_id(facts.users.get(span.owner) if span.number else None, kind)
        found = [
            c
            for c in over
            if c.start != own and not (span.number and _is_member(facts, span.owner, c))
        ]
        if found:
            of = f"'{span.allocation.name}'" if span.allocation else span.owner
            yield Seen(
                facts.place_of(span),
                f"the {what} {listed(map(named, found))} is in {span.ids} of {of}",
                f"give the {what} another id, or {of} another range, and shift the files",
                overlaps=facts.overlaps(found),
            )


def named(claim: Claim) -> str:
    """An account or a group, with its id."""
    return f"{claim.holder} ({claim.start})"


def _own_id(user: User | None, kind: Kind) -> int | None:
    return user and user.number(kind)


@rule("USN006", "error")
def becomes_others(facts: Facts) -> Iterator[Seen]:
    """An account can become root, a system account, or another user.

    newuidmap lets an account map every id that its lines grant. A user who is logged in as
    this account can create a user namespace, become such an id in it, and act as that id on
    the host. If the range contains 0, that id is root, and no password is needed.

    Such lines come from usermod --add-subuids 0-65535, or from recipes that give a service
    "all ids". It also happens when an account is created later, inside a range that was
    already granted.

        alice:0:65536           alice can become root and every user below 65536
        bob:100000:65536        carl has uid 100500, so bob can become carl

    The groups that the account is in are no news: alice:2000:1 in subgid shows a container the
    group 2000 of which alice is a member.

    Remove the line and give the account a range of its own: usermod --del-subuids FIRST-LAST,
    --add-subuids. To share the host's ids with a container on purpose, use an owner that
    nobody can log in as ('usernsplan allocate --strategy shared').
    """
    for kind, what in CALLED.items():
        # Nearly every line is that of an owner without an account.
        for span in [span for span in facts.granted[kind] if span.holder in facts.users]:
            # USN038 reports the ids of a pass.
            passes = span.allocation and span.allocation.passes and span.is_intended
            if passes or not may_become(facts, span):
                continue
            own = _own_id(facts.users[span.owner], kind)
            found = [
                c
                for c in facts.people.over(*span[:2], kind)
                if c.start != own and not _is_member(facts, span.owner, c)
            ]
            system = [c for c in found if 0 < c.start < _FIRST_PERSON]
            others = [what + " root (0)"] if span.start == 0 else []
            others += [f"{len(system)} of the system's {what}s"] if system else []
            others += [f"{what} {named(c)}" for c in found if c.start >= _FIRST_PERSON]
            if others:
                yield Seen(
                    facts.place_of(span),
                    f"{span.owner} can become {listed(others)} through {span.ids}",
                    f"remove the line, and give {span.owner} a range of its own",
                    overlaps=facts.overlaps(found),
                )


def _is_member(facts: Facts, owner: str, claim: Claim) -> bool:
    """Tell whether a claim is that of a group in which the owner of the line is anyway."""
    user = facts.users.get(owner)
    pair = (claim.holder, user.name if user else "")
    return claim.source == "group" and pair in facts.state.accounts.members


@rule("USN007", "warning")
def host_root(facts: Facts) -> Iterator[Seen]:
    """A range contains host id 0: an id of the container is the host's root.

    Access to files and sockets does not require capabilities. A container process with host id
    0 owns everything that root owns, wherever the process can reach it. The user namespace
    still keeps it from mounting, from the network and from devices.

    'usernsplan allocate --strategy shared --identity' makes such a map on purpose, to try user
    namespaces out. A line written by hand usually has a start of 0 by mistake.

        dockremap:0:65536

    Use such a map for trials only. --dockerroot N makes container root another host id.
    """
    for kind in KINDS:
        for span in facts.granted[kind]:
            if span.start == 0 and span.owner != ROOT and not may_become(facts, span):
                yield Seen(
                    facts.place_of(span),
                    f"{span.owner}'s {span.ids} contains the host's root",
                    "use a start of 1 or more: container root is then not the host's root",
                )


@rule("USN008", "error")
def own_id(facts: Facts) -> Iterator[Seen]:
    """An account's own id is in its own range.

    Rootless engines map the account itself to container root, and its range to the container
    ids above. If the range contains the account's own id, that id appears twice in the map.
    The kernel refuses such a map (EINVAL), and no container starts.

    Either the line was written by hand, or the account's uid changed, or the account came from
    a directory service with high numbers.

        alice:x:100500:100500:…         in passwd
        alice:100000:65536              in subuid

    Give the account another range: usermod --del-subuids 100000-165535 --add-subuids
    FIRST-LAST alice. Docker's remap user may have its own id in its range: Docker does not map
    the account itself.
    """
    for kind in KINDS:
        for owner, spans in facts.by_owner[kind].items():
            if owner not in facts.users:
                continue
            own = _own_id(facts.rootless(owner), kind)
            for span in spans:
                if own is not None and span.start <= own < span.stop:
                    yield Seen(
                        facts.place_of(span),
                        f"{owner}'s own {kind} {own} is in its range {span.ids}",
                        "rootless engines do not start: move the range",
                    )


# The usual UID_MIN of login.defs(5).
_FIRST_PERSON = 1000
# They have the default DOCKERROOT on most distributions, and own no files.
_USUAL = frozenset({"bin", "daemon"})


@rule("USN018", "warning")
def is_dockerroot(facts: Facts) -> Iterator[Seen]:
    """An account or a group has the id of a shared container's root.

    With the strategy 'shared', container root is one host id, DOCKERROOT. If an account has
    that id, it owns everything that root of every container owns, and root of every container
    owns the account's files.

    The account was created later: useradd, and packages that create accounts, read passwd but
    not the ids of containers. Or the id was chosen despite allocate's warning. The default, 2,
    is 'bin' or 'daemon' on most systems. These own no files there, so this rule does not
    report them.

        dockremap:11:1                  in subuid
        late:x:11:11:…                  in passwd

    Give the account another uid: usermod -u NEW late, then chown its files. Or release the
    allocation and allocate it again with --dockerroot auto, which takes the first id that
    nobody has.
    """
    roots: dict[int, list[str]] = {}
    for a in facts.state.ledger.allocations:
        if root := dockerroot_of(a):
            roots.setdefault(root, []).append(f"'{a.name}'")
    users, groups = facts.state.accounts.users, facts.state.accounts.groups
    for root, names in roots.items():
        usual = _USUAL if root == Shared().dockerroot else frozenset()
        for path, kind, command, have in (
            (PASSWD, "account", "usermod -u", {user.name for user in users if user.uid == root}),
            (GROUP, "group", "groupmod -g", {group.name for group in groups if group.gid == root}),
        ):
            found = sorted(have - usual)
            if found:
                message = (
                    f"the {kind} {listed(found)} has {root}, which is container root "
                    f"(DOCKERROOT) of {listed(names)}"
                )
                hint = (
                    f"{command} NEW {found[0]}, or release and allocate with '--dockerroot auto'; "
                    "either way, change the owner of the files"
                )
                yield Seen(facts.place(path), message, hint)


def may_become(facts: Facts, span: Claim) -> bool:
    """Tell whether a line lets an account become others.

    The account is one that can log in, or a service whose range contains host root.
    """
    user = facts.users.get(span.owner)
    if user is None:
        return False
    login = facts.person(span.owner) is not None
    return login or (user.name != ROOT and span.start == 0 and not span.is_intended)
