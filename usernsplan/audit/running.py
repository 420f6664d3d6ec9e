"""Rules about running user namespaces with ids of other owners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.ids import IdSet
from usernsplan.mapping import KINDS
from usernsplan.planner.daemon import remapped_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.claims.index import Claim
    from usernsplan.mapping import Extent, Kind
    from usernsplan.model import Namespace


@rule("USN012", "error")
def another_runs_there(facts: Facts) -> Iterator[Seen]:
    """A running user namespace has ids of another owner.

    Processes are running with ids that a line or the ledger gives to another owner. These
    processes and that owner's containers own each other's files.

    It happens if root starts a container with ids of its own choice (systemd-nspawn -U picks a
    range by itself, LXC and podman --uidmap accept any), or if a range was given away while
    containers still used it.

        usernsplan-web:589824:65536
        systemd-nspawn --private-users=565536:65536 …      589824-631071 is in both

    Stop these processes, or give the container ids that nobody has. 'usernsplan inspect PID'
    shows the owner of each id.
    """
    for namespace in facts.namespaces:
        found = [
            clash
            for kind in KINDS
            for extent in (namespace.mapping[kind] if namespace.mapping else ())
            for clash in _clashes(facts, kind, namespace, extent)
        ]
        if found:
            pid = namespace.pids[0] if namespace.pids else 0
            who = f"process {pid}" if pid else "no process"
            namespaces = f"the user namespace {namespace.inode} ({who})"
            hint = ""
            if pid:
                inspect = facts.state.layout.inline(f"inspect {pid}")
                owners = listed(dict.fromkeys(f"{span.owner}'s" for span in found))
                hint = f"it is not {owners}: {inspect} shows its maps"
            yield _seen(facts, found, namespaces, hint)


def _clashes(facts: Facts, kind: Kind, namespace: Namespace, extent: Extent) -> list[Claim]:
    """The claims on an extent of another owner than its maker; none if its maker has all of it."""
    is_own = extent.count == 1 and extent.host == namespace.owner
    if extent.container == extent.host or is_own:
        return []
    found = facts.taken.over(extent.host, extent.host + extent.count, kind)
    for owner in dict.fromkeys(span.owner for span in found):
        theirs = IdSet.clipped(span[:2] for span in found if span.owner == owner)
        user = facts.users.get(owner)
        if not theirs.gaps(extent.host_range) and (
            namespace.owner in {None, 0, user.uid if user else None}
            or namespace.owner in _ids_of(facts, owner)
        ):
            return []
    # Report a line rather than the ledger: it is a more exact place.
    return sorted(found, key=lambda span: span.number == 0)


def _seen(facts: Facts, found: list[Claim], namespace: str, hint: str) -> Seen:
    """A namespace that uses these ids; each range is listed once, not also for gid or ledger."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for span in found:
        spans.setdefault(span.owner, []).append(span[:2])
    # The ledger may reserve more than the line has; both are one range, and not two of the few.
    theirs = {owner: IdSet.clipped(several) for owner, several in spans.items()}
    whose = listed(f"{owner}'s {ids}" for owner, joined in theirs.items() for ids in joined)
    message = f"{namespace} uses {whose}"
    return Seen(facts.place_of(found[0]), message, hint, overlaps=facts.overlaps(found))


def _ids_of(facts: Facts, owner: str) -> IdSet:
    """The uids that an owner's lines grant: in its containers, one of these makes namespaces."""
    return IdSet.clipped(span[:2] for span in facts.by_owner["uid"].get(owner, ()))


@rule("USN016", "warning")
def root_runs_there(facts: Facts) -> Iterator[Seen]:
    """Root runs a user namespace with ids that a line grants to an account.

    Containers of the account's own engines are made by that account. A namespace that root
    makes is another container, from systemd-nspawn -U, LXC or podman --uidmap: it and the
    account's containers own each other's files.

        systemd-nspawn --private-users=765536:65536 …      root runs it
        useradd dina                                       dina:765536:65536: useradd does not
                                                           look at running namespaces

    Stop it, or give it ids that nobody has ('usernsplan allocate'). If it is intended (podman
    --subuidname), you do not have to do anything.
    """
    remap = remapped_to(facts.state)
    for namespace in facts.namespaces:
        if namespace.mapping is None or namespace.owner != 0:
            continue
        theirs = [
            span
            for kind in KINDS
            for e in namespace.mapping[kind]
            if e.container != e.host
            for span in facts.taken.over(e.host, e.host + e.count, kind)
            if span.number and facts.person(span.owner) and span.owner not in {remap, *facts.owners}
        ]
        if theirs:
            hint = ""
            if namespace.pids:
                inspect = facts.state.layout.inline(f"inspect {namespace.pids[0]}")
                hint = f"{inspect} shows its maps"
            yield _seen(facts, theirs, f"root's user namespace {namespace.inode}", hint)
