"""The sources of claims: one small function for each, and the list of all. Pure."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Protocol

from usernsplan.claims.index import Claim, Claims
from usernsplan.formats.subid import PATHS, Grant
from usernsplan.ids import IdSet
from usernsplan.layout import GROUP, LEDGER, PASSWD
from usernsplan.mapping import KINDS
from usernsplan.reserved import TABLE
from usernsplan.strategies import Shared, in_subid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from usernsplan.claims.index import Source
    from usernsplan.formats.accounts import Accounts
    from usernsplan.formats.subid import Line, SubidFile
    from usernsplan.ids import IdRange
    from usernsplan.mapping import Extent, Kind
    from usernsplan.model import Allocation, LedgerState, Namespace


# A host may have tens of thousands of claims. This takes a third of the time of calling the class.
_new = tuple.__new__


class Host(Protocol):
    """The source of claims: a whole HostState, or what is known about some ids of a host."""

    @property
    def accounts(self) -> Accounts:
        """Accounts and groups."""

    @property
    def ledger(self) -> LedgerState:
        """What the ledger holds."""

    @property
    def namespaces(self) -> IdSet | tuple[Namespace, ...]:
        """The running user namespaces, or only the host ids that they map."""

    def subid(self, kind: Kind) -> SubidFile:
        """The file that grants ids of this kind."""


def claims_of(host: Host) -> Claims:
    """Every claim on ids of a host, in the order of SOURCES."""
    return Claims(chain.from_iterable(source(host) for source in SOURCES))


def _allocations(host: Host) -> Iterator[Claim]:
    """The range that each allocation reserves, and the ids of its maps outside that range.

    A reserved range is a claim on uids and on gids, even where it is not mapped.
    """
    for a in host.ledger.allocations:
        held = a.reserved_range
        is_shared = a.strategy == Shared.name
        start, stop = (held.start, held.stop) if held else (0, 0)
        for kind, ids in (("uid", a.mapping.uids), ("gid", a.mapping.gids)):
            if held:
                of_range = "filler" if is_shared else "allocation"
                yield _new(Claim, (start, stop, kind, of_range, a.name, LEDGER, 0, None, a))
            for e in ids:
                last = e.host + e.count
                if not start <= e.host < last <= stop:
                    source = _source_of(e) if is_shared else "allocation"
                    yield _new(Claim, (e.host, last, kind, source, a.name, LEDGER, 0, e, a))


def _source_of(extent: Extent) -> Source:
    """The source of an extent of a shared map: container root's own id, or the host's ids."""
    return "dockerroot" if extent.container == 0 < extent.host else "shared"


def _lines(host: Host) -> Iterator[Claim]:
    """The lines of subuid and subgid, each with its allocation, if it has one.

    The holder is the account, even if the line names its uid, which newuidmap(1) accepts, too.
    """
    names = {str(user.uid): user.name for user in reversed(host.accounts.users)}
    ours = [a for a in host.ledger.allocations if in_subid(a.strategy, a.mapping)]
    of_uids = dict(_carried(ours, "uid"))
    # Both maps are almost always the same.
    is_same = all(a.mapping.uids is a.mapping.gids for a in ours)
    carried = {"uid": of_uids, "gid": of_uids if is_same else dict(_carried(ours, "gid"))}
    for kind, path in PATHS.items():
        find = carried[kind].get
        for line in host.subid(kind).lines:
            if not isinstance(line, Grant):
                yield from _odd(line, kind, path, names)
                continue
            number, _, owner, start, stop = line
            owner = names.get(owner, owner)
            a = find((owner, start, stop))
            if start < stop:
                holder = a.owner if a else owner
                yield _new(Claim, (start, stop, kind, "subid", holder, path, number, line, a))


def _odd(line: Line, kind: Kind, path: str, names: dict[str, str]) -> Iterator[Claim]:
    """Every range that some reader takes a line for. All of them are one line."""
    if not isinstance(line, Grant) and line.spans:
        owner = (line.owners or ("",))[-1]
        for ids in IdSet.clipped(line.spans):
            holder = names.get(owner, owner)
            yield Claim(ids.start, ids.stop, kind, "subid", holder, path, line.number, line)


def _carried(
    ours: Iterable[Allocation], kind: Kind
) -> Iterator[tuple[tuple[str, int, int], Allocation]]:
    """The lines of one kind that allocations need, by owner and ids."""
    for a in ours:
        for e in a.mapping[kind]:
            for owner in (a.owner, *a.extra_owners):
                yield (owner, e.host, e.host + e.count), a


def _accounts(host: Host) -> Iterator[Claim]:
    for user in host.accounts.users:
        yield Claim(user.uid, user.uid + 1, "uid", "account", user.name, PASSWD, 0, user)


def _groups(host: Host) -> Iterator[Claim]:
    """Groups, and the gids of accounts that no group has; their value is the account."""
    named = set()
    for group in host.accounts.groups:
        named.add(group.gid)
        yield Claim(group.gid, group.gid + 1, "gid", "group", group.name, GROUP, 0, group)
    for user in host.accounts.users:
        if user.gid not in named:
            yield Claim(user.gid, user.gid + 1, "gid", "group", user.name, PASSWD, 0, user)


def _namespaces(host: Host) -> Iterator[Claim]:
    """The ids that running user namespaces map. The value is None if only the ids are known."""
    if isinstance(host.namespaces, IdSet):
        for ids in host.namespaces:
            yield from _both(ids, "namespace", "a running user namespace")
        return
    for namespace in host.namespaces:
        for kind in KINDS if namespace.mapping else ():
            for e in namespace.mapping[kind] if namespace.mapping else ():
                holder = str(namespace.inode)
                yield Claim(e.host, e.host + e.count, kind, "namespace", holder, value=namespace)


def _reservations(host: Host) -> Iterator[Claim]:
    for one in host.ledger.reservations:
        yield from _both(one.ids, "reservation", one.why, LEDGER, one)


def _quarantine(host: Host) -> Iterator[Claim]:
    for one in host.ledger.quarantined:
        yield from _both(one.reserved_range, "quarantine", one.name, LEDGER, one)


def _conventions(host: Host) -> Iterator[Claim]:
    del host
    for entry in TABLE:
        yield from _both(entry.ids, "reserved", entry.whose, value=entry)


def _both(
    ids: IdRange, source: Source, holder: str, path: str = "", value: object = None
) -> Iterator[Claim]:
    """The same claim on uids and on gids."""
    for kind in KINDS:
        yield Claim(ids.start, ids.stop, kind, source, holder, path, 0, value)


SOURCES: tuple[Callable[[Host], Iterator[Claim]], ...] = (
    _allocations,
    _lines,
    _accounts,
    _groups,
    _namespaces,
    _reservations,
    _quarantine,
    _conventions,
)
