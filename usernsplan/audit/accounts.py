"""Rules about ranges and the numbers of accounts: whom they lie over, and who can become whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.layout import GROUP, PASSWD
from usernsplan.mapping import KINDS
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
    """A range lies over the uid of an account.

    Whoever is that id in a container is that account on the host as soon as a file or a process is concerned: he reads
    its home and signals its processes.

    useradd gives a new account the next free uid without looking at subuid, and directory services number people
    without knowing of the file at all. usermod -u and lines written by hand do it too.

        containers:100000:65536         in subuid
        bob:x:100500:100500:…           in passwd

    Give the range up or the account another uid: usermod -u NEW bob, then chown what it owns. To let containers share
    the host's ids on purpose, see the strategy 'shared'.
    """
    yield from _over(facts, "uid")


@rule("USN005", "error")
def over_a_group(facts: Facts) -> Iterator[Seen]:
    """A range lies over the gid of a group.

    Processes of a container that have this id as their group are members of the host's group: they read whatever it
    may read, docker's socket or the disks included where the group is 'docker' or 'disk'.

    groupadd takes the next free gid without looking at subgid.

        containers:100000:65536         in subgid
        staff:x:100100:bob              in group

    Give the range up, or the group another gid: groupmod -g NEW staff, then chgrp what it owns.
    """
    yield from _over(facts, "gid")


# What has an id of each kind.
CALLED: dict[Kind, str] = {"uid": "account", "gid": "group"}


def _over(facts: Facts, kind: Kind) -> Iterator[Seen]:
    """The ranges, intended ones aside, in which accounts or groups lie.

    What a login may become is told by another rule, and so is an account's id in its own line.
    """
    what = CALLED[kind]
    for span in facts.given[kind]:
        if span.is_intended or may_become(facts, span):
            continue
        own = _own_id(facts.users.get(span.owner) if span.number else None, kind)
        found = [c for c in facts.people.over(*span[:2], kind) if c.start != own]
        if found:
            of = f"'{span.allocation.name}'" if span.allocation else span.owner
            message = f"the {what} {listed(map(named, found))} lies in {span.ids} of {of}"
            hint = f"give the {what} another number, or {of} another range, and shift the files"
            overlaps = facts.overlaps(found)
            yield Seen(facts.place_of(span), message, hint, overlaps=overlaps)


def named(claim: Claim) -> str:
    """An account or a group, with its number."""
    return f"{claim.holder} ({claim.start})"


def _own_id(user: User | None, kind: Kind) -> int | None:
    return user and (user.uid if kind == "uid" else user.gid)


@rule("USN006", "error")
def becomes_others(facts: Facts) -> Iterator[Seen]:
    """An account may become others: root, the system, or somebody else.

    newuidmap lets an account map every id that its lines give it. Whoever is logged in as it makes a user namespace,
    becomes that id inside, and is that id on the host as well: with 0 that is root, and no password was asked.

    Such lines come from usermod --add-subuids 0-65535, from recipes that give a service "all ids", and from accounts
    that were made later, inside a range that stood already.

        alice:0:65536           alice becomes root, and everybody
        bob:100000:65536        and carl has uid 100500: bob becomes carl

    Take the line out and give the account a range of its own: usermod --del-subuids FIRST-LAST, --add-subuids. To let
    a container share the host's ids on purpose, use an owner that is nobody's login ('usernsplan allocate --strategy
    shared').
    """
    for kind, what in CALLED.items():
        for span in facts.granted[kind]:
            if not may_become(facts, span):
                continue
            own = _own_id(facts.users[span.owner], kind)
            found = [c for c in facts.people.over(*span[:2], kind) if c.start != own]
            system = [c for c in found if 0 < c.start < _FIRST_PERSON]
            whom = [what + " root (0)"] if span.start == 0 else []
            whom += [f"{len(system)} of the system's {what}s"] if system else []
            whom += [f"{what} {named(c)}" for c in found if c.start >= _FIRST_PERSON]
            if whom:
                message = f"whoever runs as {span.owner} can become {listed(whom)} by {span.ids}"
                hint = "take the line out, and give a range of its own"
                overlaps = facts.overlaps(found)
                yield Seen(facts.place_of(span), message, hint, overlaps=overlaps)


@rule("USN007", "warning")
def host_root(facts: Facts) -> Iterator[Seen]:
    """A range holds host id 0: a container's id is the host's root.

    Files and sockets do not ask for capabilities: a process that is host id 0 in a container owns what root owns,
    wherever it can reach it. The user namespace still keeps it from mounting, from the network and from devices.

    'usernsplan allocate --strategy shared --identity' makes such a map on purpose, to try user namespaces out. Written
    by hand, it is mostly a start of 0 that should have been another number.

        dockremap:0:65536

    Use it for a trial only; --dockerroot N makes container root some other id.
    """
    for kind in KINDS:
        for span in facts.granted[kind]:
            if span.start == 0 and span.owner != ROOT and not may_become(facts, span):
                message = f"{span.owner}'s {span.ids} holds the host's root"
                yield Seen(
                    facts.place_of(span),
                    message,
                    "a start of 1 or more keeps container root apart",
                )


@rule("USN008", "error")
def own_id(facts: Facts) -> Iterator[Seen]:
    """An account's own id lies in its own range.

    Rootless engines map the account itself to container root and its range to the ids above; where the range holds
    the account's own id, that id appears twice in the map, and the kernel refuses it (EINVAL): nothing starts.

    A line written by hand, or an account whose uid was changed or that came from a directory service with high numbers.

        alice:x:100500:100500:…         in passwd
        alice:100000:65536              in subuid

    Give the account another range: usermod --del-subuids 100000-165535 --add-subuids FIRST-LAST alice.
    """
    for kind in KINDS:
        for owner, spans in facts.by_owner[kind].items():
            own = _own_id(facts.person(owner), kind)
            for span in spans:
                if own is not None and span.start <= own < span.stop:
                    message = f"{owner}'s own {kind} {own} lies in his range {span.ids}"
                    yield Seen(
                        facts.place_of(span),
                        message,
                        "rootless engines do not start: move the range",
                    )


# UID_MIN of login.defs(5), as everybody has it.
_FIRST_PERSON = 1000
# Who has the default DOCKERROOT on most distributions, and owns nothing.
_USUAL = frozenset({"bin", "daemon"})


@rule("USN018", "warning")
def is_dockerroot(facts: Facts) -> Iterator[Seen]:
    """An account or a group has the id of a shared container's root.

    With the strategy 'shared', container root is one host id, DOCKERROOT. Whoever has that id owns what root of every
    container owns, and root of every container owns what he does.

    The account came later: useradd and packages that bring an account look at passwd, and not at what containers have.
    Or the id was chosen in spite of what allocate said. That the default, 2, is 'bin' or 'daemon' on most systems is
    not told here: these own nothing there.

        dockremap:11:1                  in subuid
        late:x:11:11:…                  in passwd

    Give the account another uid: usermod -u NEW late, then chown what it owns. Or release the allocation and allocate
    it anew with --dockerroot auto, which takes the first id that nobody has.
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
                message = f"the {kind} {listed(found)} has {root}, which is container root (DOCKERROOT) of {listed(names)}"
                hint = f"{command} NEW {found[0]}, or allocate anew with '--dockerroot auto': both shift files"
                yield Seen(facts.place(path), message, hint)


def may_become(facts: Facts, span: Claim) -> bool:
    """Tell whether an account could become others by a line: a login, or a service with host root in its range."""
    user = facts.users.get(span.owner)
    login = facts.person(span.owner) is not None
    return login or (
        user is not None and user.name != ROOT and span.start == 0 and not span.is_intended
    )
