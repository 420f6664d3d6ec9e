"""Rules about ids that programs have without a line in subuid or subgid."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.claims import computed
from usernsplan.claims.index import over_others
from usernsplan.claims.uses import is_own, parties, strangers, volumes_of
from usernsplan.escape import operand, shell
from usernsplan.layout import LEDGER
from usernsplan.mapping import KINDS
from usernsplan.model import DOCKER, INCUS, LXC, LXD, MOUNT, OF_LXC, PODMAN, SNAPD, Unlisted
from usernsplan.reserved import FOR_SNAPD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from usernsplan.claims.index import Claim

# Programs whose containers share ids as a rule, and one whose ids are those of the whole host.
_OF_ONE_MAP = frozenset({INCUS, LXD, DOCKER, SNAPD, PODMAN})
# At most so many others are compared with each: thousands of machines may be copies of one.
_FEW = 20


@rule("USN080", "error")
def program_took_ids(facts: Facts) -> Iterator[Seen]:
    """A program has ids of another owner, and no line says so.

    A container of this program and the containers of that owner have the same ids. Each can
    change the files and kill the processes of the other.

    Such a program does not read subuid. systemd-nspawn only asks whether an account has the
    first id, and keeps its range as the owner of the machine's tree. A .nspawn file may name
    any range, and so may a .container file of root's for Podman. Docker's data root keeps the ids
    that Docker once had in its name.

        usernsplan-web:589824:65536
        systemd-nspawn --private-users=pick -D /var/lib/machines/deb
                                                    picks 589824-655359

    If it is one container, say so: the machine has the name of the allocation, or
    'usernsplan fix-volume' records its tree as a volume. Otherwise give one of them another
    range: 'usernsplan allocate' finds a free one.
    """
    found: dict[tuple[int, int, str], tuple[Claim, dict[tuple[str, str], Claim]]] = {}
    for claim, others in _strangers(facts):
        one = claim.value
        # USN084 and USN085 report what LXC has by lines, and does not take by itself.
        by_lines = isinstance(one, Unlisted) and one.grantee and one.program not in {INCUS, LXD}
        if isinstance(one, Unlisted) and one.program != SNAPD and not by_lines:
            # The same ids as uids and as gids are one fact.
            _, known = found.setdefault((*claim[:2], claim.holder), (claim, {}))
            known.update({(other.owner, other.ids): other for other in others})
    for claim, known in found.values():
        listing = listed(f"{owner}'s {ids}" for owner, ids in known)
        message = f"{claim.holder} uses {claim.ids}, which overlaps with {listing}"
        theirs = list(known.values())
        overlaps = facts.overlaps(theirs)
        yield Seen(facts.place_of(claim), message, _remedy(facts, claim, theirs), overlaps=overlaps)


def _strangers(facts: Facts) -> Iterator[tuple[Claim, list[Claim]]]:
    """The claims of programs, each with the others that have some of its ids.

    USN090 reports the ranges that useradd computes.
    """
    others_of, volumes = parties(facts.claims), volumes_of(facts.state.ledger)
    for claim in facts.of_programs:
        one = claim.value
        if isinstance(one, Unlisted) and one.program != computed.PROGRAM:
            others = strangers(one, others_of, volumes)
            if others:
                yield claim, others


def _remedy(facts: Facts, claim: Claim, others: list[Claim]) -> str:
    """A command for a tree that may be a container's; else what can be done about it."""
    names = [c.allocation.name for c in others if c.allocation]
    if not names or claim.number or not claim.path:
        return "give one of them another range"
    words = f"--container {shell(names[0])} --mode shift --protected"
    command = f"fix-volume {operand(claim.path)} {words}"
    return (
        f"if '{names[0]}' is this container, {facts.state.layout.inline(command)} records it; "
        "otherwise give one of them another range"
    )


@rule("USN081", "warning")
def in_slot_of_snapd(facts: Facts) -> Iterator[Seen]:
    """A range contains ids that are kept for snapd.

    snapd takes 524288 as a base and 584788-584792 for fixed users such as snap_daemon, as soon
    as a snap asks for them. These numbers never change, and snapd does not read subuid. A
    container with them owns the files of these users.

    Earlier versions of usernsplan gave ranges out from 524288 on, and the seventh account that
    useradd makes gets some of these ids. This rule always reports our allocations, because
    snapd may be installed later; it reports the lines of others only where snapd is installed.
    It does not report root's lines, because LXD and Incus get very large ones.

        usernsplan-web:524288:65536     'usernsplan allocate web', in 2025

    The range stays until you release it. 'usernsplan release NAME', allocate another name, and
    'usernsplan fix-volume --mode shift --from NAME' moves its volumes.
    """
    is_there = any(one.program == SNAPD for one in facts.state.unlisted)
    ids = FOR_SNAPD.ids
    found: dict[tuple[str, str], Claim] = {}
    if is_there:
        for claim, others in _strangers(facts):
            if isinstance(claim.value, Unlisted) and claim.value.program == SNAPD:
                for other in others:
                    found.setdefault((other.owner, other.ids), other)
    else:
        over = facts.reserved_ranges.over(ids.start, ids.stop)
        found = {(c.owner, c.ids): c for c in over}
    for (owner, held), claim in sorted(found.items(), key=lambda one: one[1][:2]):
        message = f"{owner}'s {held} overlaps with {ids}, kept for {FOR_SNAPD.whose}"
        hint = "give it another range before a snap asks for these users"
        if claim.allocation:
            release = facts.state.layout.inline(f"release {shell(claim.allocation.name)}")
            hint = f"to give it another range: {release}, and allocate another name"
        yield Seen(facts.place_of(claim) or facts.place(LEDGER), message, hint)


@rule("USN082", "warning")
def programs_overlap(facts: Facts) -> Iterator[Seen]:
    """Two programs, or two machines of systemd-nspawn, have the same ids.

    If both run, each can change the other's files and stop its processes. Neither needs a line in
    subuid for these ids, so the rules about lines do not compare them.

    systemd-nspawn looks only at accounts when it picks a range, not at the trees of machines that
    do not run. A copy of a tree, as 'machinectl clone' makes one, has the range of the original
    until it is started. LXD from a snap takes 1000000-1000999999, even if somebody has some of
    it. This rule does not compare the containers of LXC with each other, nor those of Podman, nor
    the instances of Incus or of LXD: these usually share one map.

        /var/lib/machines/deb       owned by 655360
        /var/lib/machines/web       owned by 655360, too

    Give one of them another range: 'usernsplan allocate' finds one that nobody has. Then shift the
    files of its container. If the two never run at the same time, such as a template and its copy,
    nothing has to be done.
    """
    volumes = volumes_of(facts.state.ledger)
    found: dict[tuple[str, str, str], tuple[Claim, list[Claim]]] = {}
    for kind in KINDS:
        several = [c for c in facts.of_programs if c.kind == kind and _party(c.value)]
        # The parties are compared, and what they are called is shown.
        called = {claim._replace(holder=_party(claim.value)): claim for claim in several}
        for one, _, partners in over_others(called):
            claim = called[one]
            others = [
                other
                for other in (called[partner] for partner in islice(partners, _FEW))
                if not _is_one_container(facts, claim, other, volumes)
            ]
            if others:
                # The same ids as uids and as gids are one fact.
                key = (claim.holder, claim.ids, others[0].holder)
                found.setdefault(key, (claim, others))

    hint = f"give one of them other ids: {facts.state.layout.inline('allocate NAME')} finds some"
    for claim, others in found.values():
        listing = listed(f"{other.ids} of {other.holder}" for other in others)
        message = f"{claim.holder} has {claim.ids}, which overlaps with {listing}"
        yield Seen(facts.place_of(claim), message, hint, overlaps=facts.overlaps(others))


def _party(one: object) -> str:
    """Those who share ids on purpose, or by lines; "" for what this rule does not compare."""
    if not isinstance(one, Unlisted) or one.program in {MOUNT, computed.PROGRAM}:
        return ""
    if one.program in OF_LXC:
        return LXC
    # Each machine of systemd-nspawn has a range of its own.
    return one.program if one.program in _OF_ONE_MAP else f"{one.program} {one.container}"


def _is_one_container(facts: Facts, claim: Claim, other: Claim, volumes: Mapping[str, str]) -> bool:
    """Tell whether two programs have the ids for the same container, as far as can be known."""
    one, two = claim.value, other.value
    if not (isinstance(one, Unlisted) and isinstance(two, Unlisted)):
        return False
    # A copy that systemd-nspawn made for one run has a hidden name.
    if one.container.startswith(".#") or two.container.startswith(".#"):
        return True
    if (one.container and one.container == two.container) or (one.path and one.path == two.path):
        return True
    over = facts.reserved_ranges.over(claim.start, claim.stop, claim.kind)
    return any(
        a and is_own(one, a, volumes) and is_own(two, a, volumes)
        for a in (reserved.allocation for reserved in over)
    )
