"""Rules about a fleet, for check --fleet: its hosts, what they are to do, and whether they agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.escape import line, shell
from usernsplan.fleetwide import SILENT
from usernsplan.mapping import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.fleetwide import NameSeen

CODES = frozenset({"USN200", "USN201", "USN202", "USN203", "USN204", "USN205", "USN206", "USN207"})
_NOTHING = ()


def _names(same: tuple[NameSeen, ...]) -> str:
    return "; ".join(
        f"{', '.join(f'{kind}s {listed(map(str, one.allocation.mapping[kind].host_ranges()))}' for kind in KINDS)} "
        f"on {listed(one.hosts)}"
        for one in same
    )


@rule("USN200", "error")
def other_ids(facts: Facts) -> Iterator[Seen]:
    """A name has other ids on another host.

    In a fleet, a name means the same ids on every host, so that a shared volume fits each of them.
    Here hosts have different ids under one name: what the container of one host wrote belongs to
    nobody, or to another container, on the other.

    A host that joined with such a name is refused, so this comes from a remap that not every host
    has made yet, or from a ledger that was restored from a backup.

        web  589824-655359 on db1
        web  655360-720895 on db2

    Give the name the same ids: usernsplan remap on one of the hosts, with the start of the other.
    Or rename one of them, or allocate it there with --local.
    """
    for same in facts.fleet.differing if facts.fleet else _NOTHING:
        if _differ_in_ids(same):
            name = same[0].allocation.name
            yield Seen(
                "",
                f"'{line(name)}' has other ids on other hosts: {_names(same)}",
                f"usernsplan remap {shell(name)} --start N, on the host that is wrong",
            )


@rule("USN201", "info")
def other_words(facts: Facts) -> Iterator[Seen]:
    """A name has the same ids on several hosts, and differs in something else.

    The owner of its lines, the strategy, the policy or what passes through is not the same. The ids
    are, so volumes fit.

    The containers may still behave differently: one has a policy, and the other has none.

    Compare them with usernsplan show NAME --fleet, and change what is not on purpose.
    """
    for same in facts.fleet.differing if facts.fleet else _NOTHING:
        if len(same) > 1 and not _differ_in_ids(same):
            name = same[0].allocation.name
            yield Seen(
                "",
                f"'{line(name)}' is not the same on {' and on '.join(listed(one.hosts) for one in same)}",
                f"usernsplan show {shell(name)} --fleet",
            )


def _differ_in_ids(same: tuple[NameSeen, ...]) -> bool:
    return len({(one.allocation.mapping, one.allocation.reserved_range) for one in same}) > 1


@rule("USN202", "warning")
def silent(facts: Facts) -> Iterator[Seen]:
    """The ledger has not heard of a host for a week.

    A host tells the ledger whenever it changes something, and whenever sync runs there.

    What this host has is still kept for it, and nobody else gets its ids. What it should have done
    meanwhile, and what it has of its own, is unknown.

    Run usernsplan sync on the host. If the host is gone for good, let it leave the fleet: then its
    ids can be given out again. Files on a shared disk may still carry them.
    """
    for host in facts.fleet.hosts if facts.fleet else _NOTHING:
        if host.seconds > SILENT:
            days = int(host.seconds // 86400)
            yield Seen(
                "",
                f"{line(host.name)} was last seen {days} days ago",
                "usernsplan sync, on that host",
            )


@rule("USN203", "info")
def to_do(facts: Facts) -> Iterator[Seen]:
    """A host has something to do that an operator asked for.

    With --on, --everywhere or a plan file that names hosts, the ledger only notes what is to be
    done.

    The host decides about it and does it when sync runs there. Until then its files are as before.

    Run usernsplan sync on the host, or install its timer.
    """
    for wish in facts.fleet.wishes if facts.fleet else _NOTHING:
        if not wish.refused:
            what = "allocate" if wish.strategy else "release"
            yield Seen(
                "",
                f"{line(wish.host)} is to {what} '{line(wish.name)}', as {line(wish.role)} asked {wish.at}",
                "usernsplan sync, on that host",
            )


@rule("USN204", "warning")
def refused(facts: Facts) -> Iterator[Seen]:
    """A host refused what an operator asked for.

    Each host decides about a request as about one of its own users, so that nobody who can write to
    the database can make it do what its planner would refuse.

    The name is then not on that host, although somebody wanted it there.

    The message has the host's reason. Remove it there, and ask again.
    """
    for wish in facts.fleet.wishes if facts.fleet else _NOTHING:
        if wish.refused:
            what = "allocate" if wish.strategy else "release"
            yield Seen(
                "",
                f"{line(wish.host)} refused to {what} '{line(wish.name)}', as {line(wish.role)} asked "
                f"{wish.at}: {line(wish.refused)}",
                "remove the reason on that host, and ask again",
            )


@rule("USN205", "error")
def unbacked(facts: Facts) -> Iterator[Seen]:
    """What the ledger of the fleet claims for a host is not what it has of the host's own ledger.

    Both are written in one step, so they differ only if somebody else wrote to the database, or if it
    is damaged.

    Where a claim is missing, another host may get the same ids. Where a row is missing, ids stay
    taken that nobody uses.

    Run usernsplan sync on the host: it tells the ledger all that it has. Look who may write to the
    tables; only the functions of usernsplan should.
    """
    for one in facts.fleet.unbacked if facts.fleet else _NOTHING:
        fact = (
            f"the fleet's ledger claims '{line(one.name)}' as {one.state} for {line(one.host)}, and has no such row "
            "of its ledger"
            if one.is_claim
            else f"the fleet's ledger has '{line(one.name)}' as {one.state} on {line(one.host)}, and no claim for it"
        )
        yield Seen("", fact, "usernsplan sync, on that host")


@rule("USN206", "warning")
def own_under_a_name(facts: Facts) -> Iterator[Seen]:
    """A host has ids of its own, and a container that it has was given the same ids.

    An account, a line or a machine of the host has ids of a name that is allocated there.

    Then two have one id on that host: each can read and write the files of the other.

    Run usernsplan check on the host: it says who came later and what to do.
    """
    for one in facts.fleet.overlapping if facts.fleet else _NOTHING:
        if one.is_its:
            [host] = one.own.hosts
            yield Seen(
                "",
                f"{line(host)} has {_overlap(one.own.kind, one.start, one.stop)} twice: '{line(one.name)}' and "
                f"{line(one.own.holder)} ({line(one.own.source)})",
                "usernsplan check, on that host",
            )


@rule("USN207", "info")
def own_in_the_way(facts: Facts) -> Iterator[Seen]:
    """A host has ids of its own that a name has on other hosts.

    Nothing is wrong, because the host does not have that name.

    But it cannot get it: what is the host's own stands in the way. usernsplan allocate refuses it
    there, and so does what an operator asks for with --everywhere.

    If the host is to have the name too, remove the account or the line there, or remap the name.
    """
    for one in facts.fleet.overlapping if facts.fleet else _NOTHING:
        if not one.is_its:
            [host] = one.own.hosts
            yield Seen(
                "",
                f"{line(host)} cannot get '{line(one.name)}': its {_overlap(one.own.kind, one.start, one.stop)} are those "
                f"of {line(one.own.holder)} ({line(one.own.source)})",
                f"usernsplan whois {one.start} --fleet",
            )


def _overlap(kind: str, start: int, stop: int) -> str:
    return f"{kind}s {start}-{stop - 1}" if stop - start > 1 else f"{kind} {start}"
