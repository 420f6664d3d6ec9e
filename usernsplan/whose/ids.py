"""Whose an id is: everybody who has it, as a uid and as a gid. Several may have it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.claims.sources import claims_of
from usernsplan.engines import engine_of_pool
from usernsplan.formats.accounts import Accounts, Group, User
from usernsplan.formats.subid import Grant, Odd
from usernsplan.ids import ID_LIMIT, IdSet
from usernsplan.mapping import KINDS
from usernsplan.model import Namespace, Quarantined, Reservation
from usernsplan.reserved import Reserved

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.claims.index import Claim
    from usernsplan.formats.subid import Line, SubidFile
    from usernsplan.layout import Layout
    from usernsplan.mapping import Extent, IdMap, Kind
    from usernsplan.model import Allocation, HistoryEntry, LedgerState

NOBODY = Accounts()

Span = tuple[int, int]  # start, stop


@dataclass(frozen=True, slots=True)
class IdContext:
    """What is known of a host that may concern the ids in question; ``history`` holds the moments of its allocations.

    ``image`` are the accounts of a container's image, who give its ids their names. ``complete`` is False where the
    ledger could not be read: then what nobody has may be released, reserved or kept all the same.
    """

    layout: Layout
    ledger: LedgerState
    subuid: SubidFile
    subgid: SubidFile
    accounts: Accounts
    namespaces: tuple[Namespace, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    image: Accounts = NOBODY
    complete: bool = True

    def subid(self, kind: Kind) -> SubidFile:
        """The file that grants ids of this kind."""
        return self.subuid if kind == "uid" else self.subgid


class OfAllocation(NamedTuple):
    """An allocation; ``container_id`` is None where the id is kept for it and not mapped. ``by``: who gave it.

    Of a pool it is None too: which of its containers has the id is not known here, nor as which id.
    """

    allocation: Allocation
    span: Span
    container_id: int | None
    container_name: str | None
    by: HistoryEntry | None

    @property
    def pool(self) -> str | None:
        """The engine that gives parts of it to its containers; None where it is one container's."""
        return engine_of_pool(self.allocation)


class OfLine(NamedTuple):
    """A line of ``file`` that somebody else wrote; ``span`` is what a reader could take it for.

    ``account`` is whom a number means that stands for the owner.
    """

    file: str
    line: Line
    span: Span
    account: str = ""

    @property
    def owner(self) -> str:
        """Who has it, as the line says."""
        return self.line.owner if isinstance(self.line, Grant) else "".join(self.line.owners[-1:])

    @property
    def problem(self) -> str:
        """Why readers differ on the line; "" where they do not."""
        return "" if isinstance(self.line, Grant) else self.line.problem


class OfAccount(NamedTuple):
    """An account has it, as its uid or as its group where no group of that number is known."""

    name: str


class OfGroup(NamedTuple):
    """A group of the host."""

    name: str


class OfNamespace(NamedTuple):
    """A user namespace that runs maps it."""

    namespace: Namespace
    container_id: int


class OfReserved(NamedTuple):
    """A range that belongs to somebody by convention."""

    entry: Reserved


class OfReservation(NamedTuple):
    """A range that is reserved on this host."""

    entry: Reservation


class OfQuarantine(NamedTuple):
    """A range that was released, and that files may still carry."""

    entry: Quarantined


Holder = (
    OfAllocation
    | OfLine
    | OfAccount
    | OfGroup
    | OfNamespace
    | OfReserved
    | OfReservation
    | OfQuarantine
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Everybody who has a host id as a uid, and as a gid: allocations, then others, conventions."""

    uid: tuple[Holder, ...]
    gid: tuple[Holder, ...]

    def __getitem__(self, kind: Kind) -> tuple[Holder, ...]:
        """Who has it as an id of this kind."""
        return self.uid if kind == "uid" else self.gid

    @property
    def is_free(self) -> bool:
        """Tell whether it is nobody's."""
        return not (self.uid or self.gid)


def answers(ids: Iterable[int], facts: IdContext) -> dict[int, Answer]:
    """Answer each id once, by number. However many they are, the claims are read once."""
    asked = sorted(set(ids))
    claims, holders = claims_of(facts), _Holders(facts)
    found = {kind: claims.of_each(asked, kind) for kind in KINDS}
    return {
        number: Answer(*(tuple(holders.of(found[kind].get(number, ()), number)) for kind in KINDS))
        for number in asked
    }


class _Holders:
    """Claims as what they are to one id: which id of the container it is, by whom it was given."""

    def __init__(self, facts: IdContext) -> None:
        self._facts = facts
        self._names: dict[Kind, dict[int, str]] = {
            kind: _names(facts.image, kind) for kind in KINDS
        }
        self._givers: dict[str, HistoryEntry | None] = {}

    def of(self, claims: Iterable[Claim], number: int) -> Iterator[Holder]:
        """The holders of one id; an allocation may claim it twice, and a line of ours is it."""
        seen: list[Allocation] = []
        for claim in claims:
            a = claim.allocation
            if a is None or (claim.source != "subid" and all(a is not other for other in seen)):
                seen += [a] if a else []
                yield self.at(claim, number)

    def at(self, claim: Claim, number: int) -> Holder:  # noqa: PLR0911 - a case for each
        """What a claim is to one of its ids."""
        if claim.allocation:
            return self._allocation(claim.allocation, claim, number)
        match claim.value:
            case Grant() | Odd() as line:
                given = line.owner if isinstance(line, Grant) else claim.holder
                account = claim.holder if given != claim.holder else ""
                path = self._facts.layout.path(claim.path)
                return OfLine(path, line, claim[:2], account)
            case User():
                return OfAccount(claim.holder)
            case Group():
                return OfGroup(claim.holder)
            case Namespace() as namespace:
                ids = namespace.mapping[claim.kind] if namespace.mapping else None
                return OfNamespace(namespace, (ids and ids.to_container(number)) or 0)
            case Reservation() as entry:
                return OfReservation(entry)
            case Quarantined() as former:
                return OfQuarantine(former)
            case Reserved() as convention:
                return OfReserved(convention)
        raise AssertionError(claim)

    def _allocation(self, a: Allocation, claim: Claim, number: int) -> OfAllocation:
        if a.name not in self._givers:
            self._givers[a.name] = giver(a, self._facts.history)
        by = self._givers[a.name]

        e = next((e for e in a.mapping[claim.kind] if number in e.host_range), None)
        span = (e.host, e.host + e.count) if e else claim[:2]
        if e is None or engine_of_pool(a):
            return OfAllocation(a, span, None, None, by)
        container = e.container + number - e.host
        return OfAllocation(a, span, container, self._names[claim.kind].get(container), by)


def _names(accounts: Accounts, kind: Kind) -> dict[int, str]:
    """The first name of each id: as getpwuid(3) finds it."""
    numbered = [(user.uid, user.name) for user in accounts.users]
    if kind == "gid":
        numbered = [(group.gid, group.name) for group in accounts.groups]
    return dict(reversed(numbered))


def giver(allocation: Allocation, history: Iterable[HistoryEntry]) -> HistoryEntry | None:
    """The entry of the run that made an allocation; None where nobody noted it.

    An upgraded ledger may not know it. Then the number only says what came before and after, and is no entry's of that
    moment.
    """
    made = (allocation.event, allocation.since)
    return next((entry for entry in history if (entry.number, entry.at) == made), None)


class Share(NamedTuple):
    """What one extent of a map has of somebody's range: from ``start`` up to, but without, ``stop``."""

    start: int
    stop: int
    holder: Holder


class Ranges:
    """Who holds ranges of a host, to be asked for many maps: one index of its claims.

    No conventions, and no namespaces, whose maps these are.
    """

    def __init__(self, facts: IdContext) -> None:
        self._claims = claims_of(replace(facts, namespaces=())).where(
            lambda claim: (
                claim.source != "reserved" and not (claim.source == "subid" and claim.allocation)
            )
        )
        self._holders = _Holders(facts)
        self.complete = facts.complete

    def shares(self, ids: IdMap, kind: Kind) -> tuple[tuple[Extent, tuple[Share, ...], IdSet], ...]:
        """Whose the host ids of each extent of a map are, and which of them are nobody's."""
        found = []
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
            free = IdSet((extent.host_range,)) - IdSet.clipped(part[:2] for part in parts)
            found.append((extent, parts, free))
        return tuple(found)


def _parts(claim: Claim) -> Iterator[tuple[int, int]]:
    """A claim; of a reserved range, what is mapped apart from what is only kept."""
    a = claim.allocation
    if a is None or claim.value:
        yield claim[:2]
        return
    mapped = [(e.host, e.host + e.count) for e in a.mapping[claim.kind]]
    # What reaches out of the range is a claim of its own.
    yield from ((x, y) for x, y in mapped if claim.start <= x and y <= claim.stop)
    rest = IdSet((claim.id_range,)) - IdSet.clipped(mapped)
    yield from ((ids.start, ids.stop) for ids in rest)


class Inside(NamedTuple):
    """A container's user or id as it was asked for, and what the host calls it: None where it is not mapped."""

    asked: str
    container_uid: int | None
    container_gid: int | None
    uid: int | None
    gid: int | None

    @property
    def is_mapped(self) -> bool:
        """Tell whether the host has an id for all that was asked."""
        pairs = ((self.container_uid, self.uid), (self.container_gid, self.gid))
        return all(host is not None for container, host in pairs if container is not None)


def from_container(asked: str, allocation: Allocation, image: Accounts) -> Inside | None:
    """Follow an allocation's maps: for a number, that uid and that gid; for a name of the image, its user and group.

    None for a name that the image does not have.
    """
    number = read_id(asked)
    if number is not None:
        uid: int | None = number
        gid: int | None = number
    else:
        user, group = image.user(asked), image.group(asked)
        uid = user.uid if user else None
        gid = group.gid if group else user.gid if user else None
        if user is None and group is None:
            return None
    uids, gids = allocation.mapping.uids, allocation.mapping.gids
    return Inside(
        asked,
        uid,
        gid,
        None if uid is None else uids.to_host(uid),
        None if gid is None else gids.to_host(gid),
    )


def read_id(text: str) -> int | None:
    """An id in decimal, 0 to 4294967294; None for anything else, as for what some readers take for octal."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(ID_LIMIT))):
        return None
    number = int(text)
    return number if number < ID_LIMIT and str(number) == text else None
