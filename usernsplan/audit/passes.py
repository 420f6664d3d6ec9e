"""Rules about host ids that pass through to containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.audit.lxc import started
from usernsplan.claims.index import Claims
from usernsplan.claims.meant import is_meant
from usernsplan.claims.sources import OF_CONTAINERS
from usernsplan.escape import line as shown
from usernsplan.escape import shell
from usernsplan.formats.passes import opened, words
from usernsplan.holdings import has_lines
from usernsplan.ids import IdSet
from usernsplan.layout import LEDGER
from usernsplan.mapping import CALLED, KINDS, Pass
from usernsplan.model import ROOT
from usernsplan.privileged import powers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation

_ADDS: dict[Kind, str] = {"uid": "useradd --uid", "gid": "groupadd --gid"}


@rule("USN036", "warning")
def passes_anothers_id(facts: Facts) -> Iterator[Seen]:
    """An id that passes through to a container is nobody's, or another's than it was.

    A pass shows an account or a group of the host to a container. The map has its number, not its
    name. If the account is removed, or gets another number, the container still shows the old
    number: the next account or group with it shares its files and devices with the container.

    Packages give groups such as render other numbers when they are installed anew, groupmod
    changes one, and an upgrade of the distribution may change several.

        usernsplan allocate web --pass g:render     render was 104
        groupadd --gid 104 lpadmin                  render is 105 now

    Give the container the number that was meant: 'usernsplan remap NAME --pass …' changes its
    map. If the number is meant without a name, as for files of another host, you do not have to
    do anything.
    """
    if facts.state.accounts.unknown or facts.state.ledger.interrupted:
        return
    for a in facts.state.ledger.allocations:
        for one in a.passes:
            yield from _renamed(facts, a, one)
            yield from _of_nobody(facts, a, one)


def _renamed(facts: Facts, a: Allocation, one: Pass) -> Iterator[Seen]:
    """What the history knows of the name that a single id had when it was passed."""
    was = facts.passed.get((a.name, one.kind, one.extent.host))
    now = opened(one, facts.state.accounts)
    if one.extent.count == 1 and was and now and was != now:
        yield Seen(
            facts.place(LEDGER),
            f"'{a.name}' shows the {one.kind} {words(one.extent)}, which was the {was}, and is the "
            f"{now} now",
            _remap(facts, a),
        )


def _of_nobody(facts: Facts, a: Allocation, one: Pass) -> Iterator[Seen]:
    """The ids of a pass that no account or group has."""
    named = IdSet.clipped(c[:2] for c in facts.people if c.kind == one.kind)
    missing = IdSet((one.extent.host_range,)) - named
    if not missing:
        return
    was = facts.passed.get((a.name, one.kind, one.extent.host)) if one.extent.count == 1 else ""
    before = f", which was the {was}" if was else ""
    many = "s" if missing.total() > 1 else ""
    has = f"no {CALLED[one.kind]} has {'them' if many else 'it'}"
    yield Seen(
        facts.place(LEDGER),
        f"'{a.name}' shows the {one.kind}{many} {missing}{before}, and {has}",
        f"the next {CALLED[one.kind]} with this number shares its files with the container: "
        f"reserve it with {_ADDS[one.kind]}, or {_remap(facts, a)}",
    )


def _remap(facts: Facts, a: Allocation) -> str:
    command = facts.state.layout.inline(f"remap {shell(a.name)}")
    return f"{command} with other --pass changes its map"


@rule("USN037", "error")
def passes_into_another(facts: Facts) -> Iterator[Seen]:
    """An id that passes through to a container belongs to another container.

    A pass is for ids of the host: an account, a group, a device. If the id lies in the range of
    another container, or in the subordinate ids of somebody, the two containers own each other's
    files, and the host has no part in it.

    It happens if a range is granted over the id later, or if a map was adopted as it stood.

        usernsplan allocate web --pass u:700000
        bob:700000:65536                            written by hand

    Remove the other line, or give the container another map: 'usernsplan remap NAME --pass …'.
    """
    lines = Claims(
        line
        for kind in KINDS
        for line in facts.granted[kind]
        if not (line.allocation or is_meant(line)) and line.start >= OF_CONTAINERS
    )
    released = Claims(claim for claim in facts.claims if claim.source == "quarantine")
    for claim in facts.passes:
        if claim.allocation is None:
            continue
        owners = {claim.owner, *claim.allocation.extra_owners, claim.allocation.within}
        own = facts.reserved_ranges.over(*claim[:2], claim.kind)
        found = [one for one in own if one.holder != claim.holder]
        names = [f"'{one.holder}' ({one.ids})" for one in found]
        for line in lines.over(*claim[:2], claim.kind):
            if line.holder not in owners and not any(one.owner == line.holder for one in found):
                found.append(line)
                names.append(f"{line.holder} ({line.ids} in {facts.place_of(line)})")
        for q in released.over(*claim[:2], claim.kind):
            found.append(q)
            names.append(f"'{q.holder}' ({q.ids}, quarantined)")
        if found:
            yield Seen(
                facts.place(LEDGER),
                f"'{claim.holder}' shows the {claim.kind} {claim.ids} of the host, which belongs to "
                f"{listed(names)}",
                f"remove the other range, or {_remap(facts, claim.allocation)}",
                overlaps=facts.overlaps(found),
            )


@rule("USN038", "warning")
def passes_power(facts: Facts) -> Iterator[Seen]:
    """An id that passes through to a container opens the host.

    Some accounts and groups can become root, or read what everybody is kept from: root, disk,
    docker, shadow, sudo and others. A container that shows such an id has the same power.
    'usernsplan allocate' asks for --pass-privileged before it makes such a map. But a group may
    also get the number of a pass later. Maps that were written by hand, for LXC and Proxmox VE, are
    looked at, too.

    If the lines of the map belong to an account that can log in, its processes can become the ids
    that pass, in any container and without one: newuidmap asks only for the lines.

        usernsplan allocate web --pass g:999 --pass-privileged      999 is docker

    If that is meant, treat root of this container as root of the host. Otherwise give the container
    another map: 'usernsplan remap NAME --pass …'.
    """
    known = facts.state.accounts
    for a in facts.state.ledger.allocations:
        for one in a.passes:
            for number, who, opens in powers(one.kind, one.extent.host_range, known):
                yield Seen(
                    facts.place(LEDGER),
                    f"'{a.name}' shows the {one.kind} {number}, {shown(who)}: whoever has it {opens}",
                    f"treat root of '{a.name}' as root of the host, or {_remap(facts, a)}",
                )
        yield from _to_login(facts, a)
    yield from _in_configs(facts)


def _in_configs(facts: Facts) -> Iterator[Seen]:
    """The same of the maps that somebody wrote for containers of root, where the ledger lacks them."""
    known = facts.state.accounts
    ours = {
        (a.name, p.kind, p.extent.host) for a in facts.state.ledger.allocations for p in a.passes
    }
    for grantee, container, lines in started(facts):
        for one in lines:
            if grantee != ROOT or (container, one.kind, one.start) in ours:
                continue
            low = IdSet.clipped([(one.start, min(one.stop, OF_CONTAINERS))])
            found = [it for part in low for it in powers(one.kind, part, known)]
            for number, who, opens in found[:1]:
                more = f" ({len(found) - 1} more of its ids open the host)" if found[1:] else ""
                yield Seen(
                    facts.place(one.path, one.number),
                    f"{one.program}'s {one.what} shows the {one.kind} {number}, {shown(who)}: "
                    f"whoever has it {opens}{more}",
                    "treat its root as root of the host, or take this id out of its map",
                )


def _to_login(facts: Facts, a: Allocation) -> Iterator[Seen]:
    """The ids that the account which owns the lines can become."""
    user = facts.person(a.owner) if has_lines(a) else None
    if user is None:
        return
    others = [
        f"{one.kind} {words(one.extent)}"
        for one in a.passes
        if not user.is_itself(one.kind, one.extent.host, one.extent.count)
    ]
    if others:
        yield Seen(
            facts.place(LEDGER),
            f"{shown(user.name)} owns the lines of '{a.name}', and can become the ids of the host "
            f"that pass: {listed(others)}",
            f"allocate it without --owner, or {_remap(facts, a)}",
        )
