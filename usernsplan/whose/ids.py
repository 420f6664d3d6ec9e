"""Whose an id is: everyone who has it, as a uid and as a gid. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.claims.sources import claims_of
from usernsplan.claims.uses import without_mounts
from usernsplan.engines import engine_of_pool
from usernsplan.formats.accounts import Accounts, User
from usernsplan.ids import EVERY_ID, IdSet, read_id
from usernsplan.mapping import KINDS
from usernsplan.model import Namespace
from usernsplan.values import NamedTuple, dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.claims.index import Claim
    from usernsplan.formats.subid import SubidFile
    from usernsplan.layout import Layout
    from usernsplan.mapping import Extent, IdMap, Kind
    from usernsplan.model import Allocation, HistoryEntry, LedgerState, Unlisted

NOBODY = Accounts()


@dataclass(frozen=True, slots=True)
class IdContext:
    """What a host knows about the ids in question.

    ``history`` has the entries of the runs that made its allocations. ``image`` has the accounts of
    a container's image, which name the container's ids. ``exists``: see HostState. ``complete`` is False if the ledger could
    not be read: an id without a holder may then be allocated, quarantined or reserved.
    """

    layout: Layout
    ledger: LedgerState
    subuid: SubidFile
    subgid: SubidFile
    accounts: Accounts
    namespaces: tuple[Namespace, ...] = ()
    unlisted: tuple[Unlisted, ...] = ()
    login_defs: bytes = b""
    exists: tuple[IdSet, IdSet] = (EVERY_ID, EVERY_ID)
    history: tuple[HistoryEntry, ...] = ()
    image: Accounts = NOBODY
    complete: bool = True

    def subid(self, kind: Kind) -> SubidFile:
        """The file that grants ids of this kind."""
        return self.subuid if kind == "uid" else self.subgid


class Holder(NamedTuple):
    """A claim on a host id, and what that id is in the container or namespace that has it.

    ``claim.path`` is below the root. An allocation's claim has the ids of the one extent that maps
    the id, or of the reserved range that does not. ``container_id`` is None if the id is not
    mapped. It is also None in a pool: only the engine knows which container has which part.
    ``by`` is the run that made the allocation.
    """

    claim: Claim
    container_id: int | None = None
    container_name: str | None = None
    by: HistoryEntry | None = None

    @property
    def kind(self) -> str:
        """What the holder is: allocation, account, or else the source of the claim."""
        if self.claim.allocation:
            return "pass" if self.claim.source == "pass" else "allocation"
        # A gid that no group has is held by the account.
        return "account" if isinstance(self.claim.value, User) else self.claim.source

    @property
    def pool(self) -> str | None:
        """The engine that divides the allocation among its containers; None if it is no pool."""
        return engine_of_pool(self.claim.allocation) if self.claim.allocation else None


@dataclass(frozen=True, slots=True)
class Answer:
    """Everyone who has a host id, as a uid and as a gid, in the order of the claims' sources."""

    uid: tuple[Holder, ...]
    gid: tuple[Holder, ...]

    def __getitem__(self, kind: Kind) -> tuple[Holder, ...]:
        """Who has it as an id of this kind."""
        return self.uid if kind == "uid" else self.gid

    @property
    def is_free(self) -> bool:
        """Tell whether it has no holder."""
        return not (self.uid or self.gid)


def answers(ids: Iterable[int], facts: IdContext) -> dict[int, Answer]:
    """The answer for each id. The claims are read once, for any number of ids."""
    asked = sorted(set(ids))
    claims, holders = without_mounts(claims_of(facts), facts.ledger), _Holders(facts)
    found = {kind: claims.of_each(asked, kind) for kind in KINDS}
    return {
        number: Answer(*(tuple(holders.of(found[kind].get(number, ()), number)) for kind in KINDS))
        for number in asked
    }


class _Holders:
    """Makes holders of claims: the container id, its name, and the run that made an allocation."""

    def __init__(self, facts: IdContext) -> None:
        self._layout = facts.layout
        self._names = {kind: _names(facts.image, kind) for kind in KINDS}
        self._history = facts.history

    def of(self, claims: Iterable[Claim], number: int) -> Iterator[Holder]:
        """The holders of one id. Each allocation is one holder, however many claims it has."""
        seen: list[Allocation] = []
        for claim in claims:
            a = claim.allocation
            if a is None or (claim.source != "subid" and all(a is not other for other in seen)):
                seen += [a] if a else []
                yield self.at(claim, number)

    def at(self, claim: Claim, number: int) -> Holder:
        """The holder of one id of a claim."""
        if claim.path:
            claim = claim._replace(path=self._layout.path(claim.path))
        if isinstance(claim.value, Namespace) and claim.value.mapping:
            return Holder(claim, claim.value.mapping[claim.kind].to_container(number))
        if claim.allocation is None:
            return Holder(claim)

        a = claim.allocation
        by = giver(a, self._history)
        e = next((e for e in a.mapping[claim.kind] if number in e.host_range), None)
        if e is None:
            return Holder(claim, by=by)
        claim = claim._replace(start=e.host, stop=e.host + e.count)
        if engine_of_pool(a):
            return Holder(claim, by=by)
        container = e.container + number - e.host
        return Holder(claim, container, self._names[claim.kind].get(container), by)


def _names(accounts: Accounts, kind: Kind) -> dict[int, str]:
    """The first name of each id, as getpwuid(3) finds it."""
    numbered = [(user.uid, user.name) for user in accounts.users]
    if kind == "gid":
        numbered = [(group.gid, group.name) for group in accounts.groups]
    return dict(reversed(numbered))


def giver(allocation: Allocation, history: Iterable[HistoryEntry]) -> HistoryEntry | None:
    """The entry of the run that made an allocation; None if the history does not have it.

    An upgraded ledger may not know the event. Its number then only gives the order: it is not the
    number of an entry with the allocation's time.
    """
    made = (allocation.event, allocation.since)
    return next((entry for entry in history if (entry.number, entry.at) == made), None)


class Share(NamedTuple):
    """The part of an extent that one holder has, from ``start`` up to but without ``stop``."""

    start: int
    stop: int
    holder: Holder


class Ranges:
    """The holders of a host's ranges: one index of claims, for many maps.

    It leaves out conventions, areas and namespaces, because the maps are those of the namespaces, and
    the ids that do not exist here, because no namespace here can map them.
    """

    def __init__(self, facts: IdContext) -> None:
        self._claims = claims_of(replace(facts, namespaces=())).where(
            lambda claim: (
                claim.source not in {"reserved", "useradd", "absent"}
                and not (claim.source == "subid" and claim.allocation)
            )
        )
        self._holders = _Holders(facts)
        self.complete = facts.complete

    def shares(self, ids: IdMap, kind: Kind) -> Iterator[tuple[Extent, tuple[Share, ...], IdSet]]:
        """Each extent of a map, the holders of its host ids, and the ids without a holder."""
        for extent in ids:
            first, last = extent.host, extent.host + extent.count
            parts = tuple(
                Share(
                    max(start, first), min(stop, last), self._holders.at(claim, max(start, first))
                )
                for claim in self._claims.over(first, last, kind)
                for start, stop in _parts(claim)
                if start < last and first < stop
            )
            yield extent, parts, IdSet((extent.host_range,)) - IdSet.clipped(p[:2] for p in parts)


def _parts(claim: Claim) -> Iterator[tuple[int, int]]:
    """The ids of a claim; for a reserved range, each mapped part and each unmapped part."""
    a = claim.allocation
    if a is None or claim.value:
        yield claim[:2]
        return
    mapped = [(e.host, e.host + e.count) for e in a.mapping[claim.kind]]
    # An extent that is partly outside the reserved range has a claim of its own.
    yield from ((x, y) for x, y in mapped if claim.start <= x and y <= claim.stop)
    rest = IdSet((claim.id_range,)) - IdSet.clipped(mapped)
    yield from ((ids.start, ids.stop) for ids in rest)


class Inside(NamedTuple):
    """A user or id of a container as asked for, and the host ids; None for what is not mapped."""

    asked: str
    container_uid: int | None
    container_gid: int | None
    uid: int | None
    gid: int | None

    @property
    def is_mapped(self) -> bool:
        """Tell whether the host has an id for everything that was asked."""
        pairs = ((self.container_uid, self.uid), (self.container_gid, self.gid))
        return all(host is not None for container, host in pairs if container is not None)


def from_container(asked: str, allocation: Allocation, image: Accounts) -> Inside | None:
    """The host ids of a container's number (uid and gid), or of a user or group of its image.

    None if the image has no such name.
    """
    uid = gid = read_id(asked)
    if uid is None:
        user, group = image.user(asked), image.group(asked)
        if user is None and group is None:
            return None
        uid = user.uid if user else None
        gid = group.gid if group else user.gid if user else None
    uids, gids = allocation.mapping.uids, allocation.mapping.gids
    return Inside(
        asked,
        uid,
        gid,
        None if uid is None else uids.to_host(uid),
        None if gid is None else gids.to_host(gid),
    )
