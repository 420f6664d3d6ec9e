"""Rules about what runs: user namespaces with ids that are somebody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, rule
from usernsplan.ids import IdSet
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.planner.daemon import remapped_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.audit.base import Span
    from usernsplan.mapping import Extent
    from usernsplan.model import Namespace


@rule("USN012", "error")
def somebody_runs_there(facts: Facts) -> Iterator[Seen]:
    """A user namespace runs with ids that are somebody else's.

    Processes are at work, now, that have ids which a line or the ledger gives to another owner: they and his containers
    own each other's files.

    It happens where root starts a container with numbers of its own (systemd-nspawn -U picks a range by itself, LXC
    and podman --uidmap take any), or where a range was given away while containers still ran in it.

        usernsplan-web:524288:65536
        systemd-nspawn --private-users=500000:65536 …      524288-565535 is in both

    Stop these processes, or give the container ids that are nobody's. 'usernsplan inspect PID' shows whose each is.
    """
    for namespace in facts.namespaces:
        if namespace.mapping is None:
            continue
        for path, ids in ((SUBUID, namespace.mapping.uids), (SUBGID, namespace.mapping.gids)):
            clash = next(
                (span for extent in ids if (span := _clash(facts, path, namespace, extent))), None
            )
            if clash:
                pid = namespace.pids[0] if namespace.pids else 0
                who = f"process {pid}" if pid else "no process"
                message = f"{clash.owner}'s {clash.ids} is in use by the user namespace {namespace.inode} ({who})"
                hint = (
                    f"it is not {clash.owner}'s: 'usernsplan inspect {pid}' shows its maps"
                    if pid
                    else ""
                )
                yield Seen(facts.place(clash.path, clash.number), message, hint)
                break


def _clash(facts: Facts, path: str, namespace: Namespace, extent: Extent) -> Span | None:
    """Whose ids an extent has that is not his; None where it is nobody's, or fits one who may have made it."""
    if extent.container == extent.host or (extent.count == 1 and extent.host == namespace.owner):
        return None
    start, stop = extent.host, extent.host + extent.count
    found = list(facts.taken[path].over(start, stop))
    for owner in dict.fromkeys(span.owner for span in found):
        his = IdSet.clipped((span.start, span.stop) for span in found if span.owner == owner)
        user = facts.users.get(owner)
        if not his.gaps(extent.host_range) and (
            namespace.owner in {None, 0, user.uid if user else None}
            or namespace.owner in _ids_of(facts, owner)
        ):
            return None
    # A line says more than the ledger's file.
    return min(found, key=lambda span: span.number == 0, default=None)


def _ids_of(facts: Facts, owner: str) -> IdSet:
    """The uids that an owner's lines give him: what is made inside of his containers is made by one of these."""
    return IdSet.clipped((span.start, span.stop) for span in facts.by_owner[SUBUID].get(owner, ()))


@rule("USN016", "warning")
def root_runs_there(facts: Facts) -> Iterator[Seen]:
    """Root runs a user namespace with ids that a line gives to an account.

    What the account's own engines make is made as that account. What root makes there is another container, of
    systemd-nspawn -U, LXC or podman --uidmap: it and the account's containers own each other's files. It may be meant
    (podman --subuidname); then nothing has to be done.

        systemd-nspawn --private-users=700000:65536 …      runs, by root
        useradd dina                                       dina:700000:65536: useradd does not look at what runs

    Stop it, or give it ids that are nobody's ('usernsplan allocate').
    """
    remap = remapped_to(facts.state)
    for namespace in facts.namespaces:
        if namespace.mapping is None or namespace.owner != 0:
            continue
        for path, ids in ((SUBUID, namespace.mapping.uids), (SUBGID, namespace.mapping.gids)):
            spans = (
                s
                for e in ids
                if e.container != e.host
                for s in facts.taken[path].over(e.host, e.host + e.count)
            )
            his = [
                s
                for s in spans
                if s.number and facts.person(s.owner) and s.owner not in {remap, *facts.owners}
            ]
            if his:
                pid = namespace.pids[0] if namespace.pids else 0
                message = f"{his[0].owner}'s {his[0].ids} is in use by a user namespace of root's, {namespace.inode}"
                yield Seen(
                    facts.place(path, his[0].number),
                    message,
                    f"'usernsplan inspect {pid}' shows its maps",
                )
                break
