"""The sources of claims: one small function for each, and the list of all. Pure."""

from __future__ import annotations

from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from usernsplan.claims import computed
from usernsplan.claims.index import Claim, Claims
from usernsplan.escape import utf8
from usernsplan.formats.subid import PATHS, Grant
from usernsplan.holdings import granted, has_lines
from usernsplan.ids import EVERY_ID, IdSet
from usernsplan.layout import GROUP, LEDGER, PASSWD
from usernsplan.mapping import KINDS
from usernsplan.model import ROOT
from usernsplan.reserved import TABLE
from usernsplan.strategies import Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from usernsplan.claims.index import Source
    from usernsplan.formats.accounts import Accounts, User
    from usernsplan.formats.subid import Line, SubidFile
    from usernsplan.ids import IdRange
    from usernsplan.mapping import Extent, Kind
    from usernsplan.model import Allocation, LedgerState, Namespace, Unlisted


# A host may have tens of thousands of claims. This takes a third of the time of calling the class.
_new = tuple.__new__
# The ids below are those of the host's accounts, and no program gives containers ranges there.
OF_CONTAINERS = 65536


class Host(Protocol):
    """The source of claims: a whole HostState, or what is known about some ids of a host."""

    @property
    def accounts(self) -> Accounts:
        """Accounts and groups."""

    @property
    def login_defs(self) -> bytes:
        """The bytes of login.defs."""

    @property
    def ledger(self) -> LedgerState:
        """What the ledger holds."""

    @property
    def namespaces(self) -> IdSet | tuple[Namespace, ...]:
        """The running user namespaces, or only the host ids that they map."""

    @property
    def unlisted(self) -> tuple[Unlisted, ...]:
        """The ids that programs have without a line."""

    @property
    def exists(self) -> tuple[IdSet, IdSet]:
        """The uids and the gids that exist here."""

    def subid(self, kind: Kind) -> SubidFile:
        """The file that grants ids of this kind."""


def claims_of(host: Host, keep: Callable[[Claim], object] | None = None) -> Claims:
    """Every claim on ids of a host, in the order of SOURCES; only those that ``keep`` is true for."""
    found = chain.from_iterable(source(host) for source in SOURCES)
    return Claims(filter(keep, found) if keep else found)


def _allocations(host: Host) -> Iterator[Claim]:
    """The range that each allocation reserves, and the ids of its maps outside that range.

    A reserved range is a claim on uids and on gids, even where it is not mapped. Host ids that pass
    through are apart from the others.
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
                    source = (
                        _source_of(e)
                        if is_shared
                        else "pass"
                        if a.passes and (kind, e) in a.passes
                        else "allocation"
                    )
                    yield _new(Claim, (e.host, last, kind, source, a.name, LEDGER, 0, e, a))


def _source_of(extent: Extent) -> Source:
    """The source of an extent of a shared map: container root's own id, or the host's ids."""
    return "dockerroot" if extent.container == 0 < extent.host else "shared"


def _lines(host: Host) -> Iterator[Claim]:
    """The lines of subuid and subgid, each with its allocation, if it has one.

    The holder is the account, even if the line names its uid, which newuidmap(1) accepts, too.
    """
    names = {str(user.uid): user.name for user in reversed(host.accounts.users)}
    ours = [a for a in host.ledger.allocations if has_lines(a)]
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
        for owner in (a.owner, *a.extra_owners):
            if owner in a.split_owners:
                for ids in granted(a, kind, owner):
                    yield (owner, ids.start, ids.stop), a
                continue
            for e in a.mapping[kind]:
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


def _unlisted(host: Host) -> Iterator[Claim]:
    granted = Granted(host)
    for one in host.unlisted:
        for start, stop in _had(one, granted):
            yield _of_program(one._replace(start=start, stop=stop), "unlisted")


def _had(one: Unlisted, granted: Granted) -> Iterator[tuple[int, int]]:
    """The ids that a program really takes.

    An account may write any ids into a file of its own, but newuidmap gives it only those of its
    lines. Ids of the host itself are passed through: the container shares them on purpose.
    """
    start = max(one.start, OF_CONTAINERS) if one.grantee else one.start
    if start < one.stop and one.grantee in {"", ROOT}:
        yield start, one.stop
    elif start < one.stop:
        for part in IdSet.clipped([(start, one.stop)]) & granted.to(one.grantee, one.kind):
            yield part.start, part.stop


class Granted:
    """What the lines grant to accounts. Few hosts ask, so each question is prepared when it comes."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[tuple[str, Kind], IdSet] = {}

    def to(self, name: str, kind: Kind) -> IdSet:
        """The ids that an account's lines grant, under its name or its uid."""
        key = (name, kind)
        if key not in self._known:
            self._known[key] = IdSet.clipped(self.spans(name, kind))
        return self._known[key]

    def spans(self, name: str, kind: Kind) -> list[tuple[int, int]]:
        """The same line by line, as (start, stop)."""
        lines = (
            line
            for owner in (name, self._uids.get(name))
            for line in self._lines[kind].get(owner or "", ())
        )
        return [
            span
            for line in lines
            for span in ([line[3:]] if isinstance(line, Grant) else line.spans)
        ]

    def lacking(self, name: str, kind: Kind, spans: Iterable[tuple[int, int]]) -> IdSet:
        """The ids of a map that newuidmap(1) refuses to an account: neither its own, nor of a line.

        ``spans`` are (start, stop) of each extent. Lines that follow each other count as one.
        """
        user = self._user(name)
        wanted = IdSet.clipped(
            (start, stop)
            for start, stop in spans
            if user is None or not user.is_itself(kind, start, stop - start)
        )
        return wanted - self.to(name, kind)

    def _user(self, name: str) -> User | None:
        if name not in self._users:
            self._users[name] = self._host.accounts.elsewhere(name)
        return self._users[name]

    @cached_property
    def _users(self) -> dict[str, User | None]:
        return {user.name: user for user in reversed(self._host.accounts.users)}

    @cached_property
    def _lines(self) -> dict[Kind, dict[str, list[Line]]]:
        return {kind: self._host.subid(kind).by_owner() for kind in KINDS}

    @cached_property
    def _uids(self) -> dict[str, str]:
        return {user.name: str(user.uid) for user in reversed(self._host.accounts.users)}


def _of_program(one: Unlisted, source: Source) -> Claim:
    holder = utf8(f"{one.program} ({one.what})")
    return Claim(one.start, one.stop, one.kind, source, holder, one.path, one.number, one)


def _computed(host: Host) -> Iterator[Claim]:
    """What useradd computes: the ranges of accounts, and the area of all uids up to UID_MAX."""
    for one in computed.read(host.login_defs):
        lines, allocations = host.subid(one.kind), host.ledger.allocations
        for found in computed.of_accounts(one, host.accounts, lines, allocations):
            yield _of_program(found, "unlisted")
        yield _of_program(computed.area(one), "useradd")


def _absent(host: Host) -> Iterator[Claim]:
    """The ids that the user namespace around this host does not map: nobody here can be one."""
    for kind, exists in zip(KINDS, host.exists, strict=True):
        for ids in EVERY_ID - exists:
            place = f"/proc/self/{kind}_map"
            yield Claim(ids.start, ids.stop, kind, "absent", "ids that this container lacks", place)


def _reservations(host: Host) -> Iterator[Claim]:
    for one in host.ledger.reservations:
        yield from _both(one.ids, "reservation", one.why, LEDGER, one)


def _quarantine(host: Host) -> Iterator[Claim]:
    for one in host.ledger.quarantined:
        yield from _both(one.reserved_range, "quarantine", one.name, LEDGER, one)


def _fleet(host: Host) -> Iterator[Claim]:
    """What other hosts of the fleet have. Which of them has which ids, only the server tells."""
    fleet = host.ledger.fleet
    for kind, taken in fleet.taken if fleet else ():
        for ids in taken:
            yield Claim(ids.start, ids.stop, kind, "fleet", "another host", value=fleet)


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


# What a host has without its ledger, but for what runs just now.
OWN: tuple[Callable[[Host], Iterator[Claim]], ...] = (
    _lines,
    _accounts,
    _groups,
    _unlisted,
    _computed,
    _absent,
)
SOURCES: tuple[Callable[[Host], Iterator[Claim]], ...] = (
    _allocations,
    _lines,
    _accounts,
    _groups,
    _namespaces,
    _unlisted,
    _computed,
    _absent,
    _reservations,
    _quarantine,
    _fleet,
    _conventions,
)
