"""Whose an id is: everybody who has it, as a uid and as a gid. Several may, and that is what is worth knowing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.engines import engine_of_pool
from usernsplan.formats.accounts import Accounts
from usernsplan.formats.subid import Grant
from usernsplan.ids import ID_LIMIT, IdSet
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.reserved import TABLE, Reserved

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from usernsplan.formats.subid import Line, SubidFile
    from usernsplan.layout import Layout
    from usernsplan.mapping import Extent, IdMap
    from usernsplan.model import (
        Allocation,
        HistoryEntry,
        LedgerState,
        Namespace,
        Quarantined,
        Reservation,
    )

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
# What a span of ids is to one id in it.
_Source = tuple[int, int, Callable[[int], Holder]]


class Answer(NamedTuple):
    """Everybody who has a host id as a uid, and as a gid: allocations first, then others, then conventions."""

    uid: tuple[Holder, ...]
    gid: tuple[Holder, ...]

    @property
    def is_free(self) -> bool:
        """Tell whether it is nobody's."""
        return not (self.uid or self.gid)


def answers(ids: Iterable[int], facts: IdContext) -> dict[int, Answer]:
    """Answer each id once, by number. What there is to look through is gone through once, however many they are."""
    asked = sorted(set(ids))
    uids = _holders(asked, _sources(facts, facts.subuid, SUBUID, _of_accounts(facts.accounts), 0))
    gids = _holders(asked, _sources(facts, facts.subgid, SUBGID, _of_groups(facts.accounts), 1))
    return {
        number: Answer(tuple(uids.get(number, ())), tuple(gids.get(number, ()))) for number in asked
    }


def _holders(asked: Sequence[int], sources: Iterable[_Source]) -> dict[int, list[Holder]]:
    found: dict[int, list[Holder]] = {}
    for start, stop, holder in sources:
        at = bisect_left(asked, start)
        while at < len(asked) and asked[at] < stop:
            found.setdefault(asked[at], []).append(holder(asked[at]))
            at += 1
    return found


def _sources(
    facts: IdContext, file: SubidFile, path: str, accounts: Mapping[int, list[Holder]], kind: int
) -> Iterator[_Source]:
    """Everything that holds ids of one kind: uids (0) or gids (1)."""
    ledger = facts.ledger
    names = _names(facts.image, kind)
    ours: set[tuple[str, int, int]] = set()
    for allocation in ledger.allocations:
        ids = _ids(allocation.mapping, kind)
        ours.update(
            (owner, e.host, e.host + e.count)
            for owner in (allocation.owner, *allocation.extra_owners)
            for e in ids
        )
        yield from _allocated(allocation, ids, names, giver(allocation, facts.history))
    users = {str(user.uid): user.name for user in reversed(facts.accounts.users)}
    yield from _granted(file, facts.layout.path(path), ours, users)
    for number, holders in accounts.items():
        for one in holders:
            yield number, number + 1, _always(one)
    for namespace in facts.namespaces:
        if namespace.mapping:
            for extent in _ids(namespace.mapping, kind):
                yield extent.host, extent.host + extent.count, partial(_mapped, namespace, extent)
    yield from ((r.ids.start, r.ids.stop, _always(OfReservation(r))) for r in ledger.reservations)
    yield from (
        (q.reserved_range.start, q.reserved_range.stop, _always(OfQuarantine(q)))
        for q in ledger.quarantined
    )
    yield from ((r.ids.start, r.ids.stop, _always(OfReserved(r))) for r in TABLE)


def _allocated(
    allocation: Allocation, ids: IdMap, names: Mapping[int, str], by: HistoryEntry | None
) -> Iterator[_Source]:
    pooled = engine_of_pool(allocation) is not None
    for extent in ids:
        span = (extent.host, extent.host + extent.count)
        inside = partial(_inside, allocation, extent, names, by)
        yield *span, _always(OfAllocation(allocation, span, None, None, by)) if pooled else inside
    if allocation.reserved_range and allocation.reserved_range not in ids.host_ranges():
        held = allocation.reserved_range
        kept = OfAllocation(allocation, (held.start, held.stop), None, None, by)
        for part in IdSet((held,)) - IdSet(ids.host_ranges()):
            yield part.start, part.stop, _always(kept)


def _granted(
    file: SubidFile, path: str, ours: Container[tuple[str, int, int]], users: Mapping[str, str]
) -> Iterator[_Source]:
    """The lines of others; ``users`` has the names of numbers, which newuidmap(1) takes for an owner as well."""
    for line in file.lines:
        if not isinstance(line, Grant):
            # It is one line, whatever it may be taken for.
            for span in IdSet.clipped(line.spans):
                yield span.start, span.stop, _always(OfLine(path, line, (span.start, span.stop)))
        elif not any(
            (owner, line.start, line.stop) in ours
            for owner in (line.owner, users.get(line.owner, ""))
        ):
            account = users.get(line.owner, "")
            yield (
                line.start,
                line.stop,
                _always(OfLine(path, line, (line.start, line.stop), account)),
            )


def _inside(
    allocation: Allocation,
    extent: Extent,
    names: Mapping[int, str],
    by: HistoryEntry | None,
    host: int,
) -> Holder:
    container = extent.container + host - extent.host
    span = (extent.host, extent.host + extent.count)
    return OfAllocation(allocation, span, container, names.get(container), by)


def _mapped(namespace: Namespace, extent: Extent, host: int) -> Holder:
    return OfNamespace(namespace, extent.container + host - extent.host)


def _always(holder: Holder) -> Callable[[int], Holder]:
    return lambda _: holder


def _of_accounts(accounts: Accounts) -> dict[int, list[Holder]]:
    found: dict[int, list[Holder]] = {}
    for user in accounts.users:
        found.setdefault(user.uid, []).append(OfAccount(user.name))
    return found


def _of_groups(accounts: Accounts) -> dict[int, list[Holder]]:
    found: dict[int, list[Holder]] = {}
    for group in accounts.groups:
        found.setdefault(group.gid, []).append(OfGroup(group.name))
    named = set(found)
    for user in accounts.users:
        if user.gid not in named:
            found.setdefault(user.gid, []).append(OfAccount(user.name))
    return found


def _names(accounts: Accounts, kind: int) -> dict[int, str]:
    """The first name of each id: as getpwuid(3) finds it."""
    numbered = [(user.uid, user.name) for user in accounts.users]
    if kind:
        numbered = [(group.gid, group.name) for group in accounts.groups]
    return dict(reversed(numbered))


def _ids(mapping: object, kind: int) -> IdMap:
    return mapping.gids if kind else mapping.uids  # type: ignore[attr-defined, no-any-return]


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
    """Who holds ranges of a host, to be asked for many maps: ordered once by where they start."""

    def __init__(self, facts: IdContext) -> None:
        # Not namespaces, whose maps these are.
        self._facts = replace(facts, namespaces=())
        self._sorted: dict[bool, tuple[list[int], list[int], list[tuple[int, _Source]]]] = {}
        self.complete = facts.complete

    def shares(
        self, ids: IdMap, *, gids: bool = False
    ) -> tuple[tuple[Extent, tuple[Share, ...], IdSet], ...]:
        """Whose the host ids of each extent of a map are, and which of them are nobody's.

        Allocations, lines of others, accounts or groups, reservations and what was released; no conventions.
        """
        found = []
        for extent in ids:
            first, last = extent.host, extent.host + extent.count
            parts = tuple(
                Share(max(start, first), min(stop, last), one)
                for start, stop, holder in self._over(first, last, gids=gids)
                if not isinstance(one := holder(max(start, first)), OfReserved)
            )
            free = IdSet((extent.host_range,)) - IdSet.clipped(
                (part.start, part.stop) for part in parts
            )
            found.append((extent, parts, free))
        return tuple(found)

    def _over(self, first: int, last: int, *, gids: bool) -> list[_Source]:
        """What holds some id from ``first`` up to, but without, ``last``, in the order of an answer."""
        if gids not in self._sorted:
            self._sorted[gids] = self._ordered(gids=gids)
        starts, reach, sources = self._sorted[gids]
        found = []
        at = bisect_left(starts, last) - 1
        # None of those before it ends later than this.
        while at >= 0 and reach[at] > first:
            if sources[at][1][1] > first:
                found.append(sources[at])
            at -= 1
        return [source for _, source in sorted(found, key=lambda numbered: numbered[0])]

    def _ordered(self, *, gids: bool) -> tuple[list[int], list[int], list[tuple[int, _Source]]]:
        facts = self._facts
        file, path = (facts.subgid, SUBGID) if gids else (facts.subuid, SUBUID)
        accounts = _of_groups(facts.accounts) if gids else _of_accounts(facts.accounts)
        numbered = enumerate(_sources(facts, file, path, accounts, int(gids)))
        sources = sorted(numbered, key=lambda each: each[1][0])
        return (
            [start for _, (start, _, _) in sources],
            list(accumulate((stop for _, (_, stop, _) in sources), max)),
            sources,
        )


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
