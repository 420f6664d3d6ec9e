"""Read the ledger of a fleet as all of its hosts are in it: rows into values. It writes and decides nothing.

A fleet may have a million rows. So what grows with the names is read in portions, each by a
statement of its own: no statement takes long, no transaction stays open, and never more than a
portion is in memory. What changes meanwhile may be seen or not, as if it were read later.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from usernsplan.errors import InvalidValueError, LedgerUnreachableError, did_you_mean
from usernsplan.fleetwide import (
    ClaimSeen,
    EventSeen,
    FleetSeen,
    HostSeen,
    IdSeen,
    NameSeen,
    Overlapping,
    OwnSeen,
    ReleasedSeen,
    Stretch,
    Taken,
    Unbacked,
    WishSeen,
)
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.ledger import codec, member
from usernsplan.ledger.postgres import Server, shown
from usernsplan.ledger.received import unpacked
from usernsplan.mapping import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.layout import Layout
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation, Volume, VolumeMount

# How many names, events or ids are read at once; of names, each host may have a row.
NAMES, EVENTS, IDS = 200, 1000, 1000
# A map with more pieces than this is drawn by hosts, not by names, and at most so many are drawn.
# check lists at most MOST findings of one kind.
PIECES, MOST = 10_000, 1000

# The columns of codec.allocation_row that differ between hosts although they agree: since and event.
_OF_EVENT = "- 8 - 7"
# And those that say how a host writes it into its files: found, in_files, published, unpublished.
_OF_FILES = "- 16 - 13 - 12 - 10 - 8 - 7"
_LOCAL, _NAME_OF_VOLUME, _NAME_OF_MOUNT = 18, 1, 2
# Of codec.quarantined_row: since, event, and what it was.
_OF_RELEASE = "- 5 - 4 - 3"

# {same} takes columns away, {one} is a condition on the host.
_ROWS = """
SELECT c.key, min(c.value), array_agg(h.name::text ORDER BY h.name)
FROM usernsplan.content c JOIN usernsplan.host h ON h.number = c.host
WHERE c.what = %s {one} AND c.key IN (
    SELECT DISTINCT c.key FROM usernsplan.content c WHERE c.what = %s {one} AND c.key > %s
    ORDER BY c.key LIMIT %s)
GROUP BY c.key, c.value::jsonb {same} ORDER BY c.key, 3
"""
# The last key of a portion, and of the names in it those that are not the same on every host.
_DIFFERING = """
WITH portion AS MATERIALIZED (
    SELECT DISTINCT c.key FROM usernsplan.content c WHERE c.what = 'allocation' AND c.key > %s
    ORDER BY c.key LIMIT %s)
SELECT (SELECT max(key) FROM portion), ARRAY(
    SELECT c.key FROM usernsplan.content c
    WHERE c.what = 'allocation' AND c.key IN (SELECT key FROM portion)
        AND c.value::jsonb ->> {local} = '0' AND c.value::jsonb ->> 2 <> 'shared'
    GROUP BY c.key HAVING count(*) > 1 AND count(DISTINCT c.value::jsonb {same}) > 1 ORDER BY c.key)
"""
_ONE_NAME = """
SELECT c.key, min(c.value), array_agg(h.name::text ORDER BY h.name)
FROM usernsplan.content c JOIN usernsplan.host h ON h.number = c.host
WHERE c.what = 'allocation' AND c.key = %s {one} GROUP BY c.key, c.value::jsonb {same} ORDER BY 3
"""
_OF_A_NAME = """
SELECT c.value FROM usernsplan.content c
WHERE c.what = %s AND c.host = %s AND c.value::jsonb ->> %s = %s ORDER BY c.key
"""
_HOSTS = """
SELECT h.number, h.name, extract(epoch FROM now() - greatest(h.seen, h.published))::float8,
    count(w.name) FILTER (WHERE w.refused = ''), count(w.name) FILTER (WHERE w.refused <> '')
FROM usernsplan.host h LEFT JOIN usernsplan.wish w ON w.host = h.number
WHERE h.role <> '' {one} GROUP BY h.number ORDER BY h.name
"""
# Hosts that have left are there with their events; they come last.
_NUMBER = "SELECT h.number, h.name FROM usernsplan.host h ORDER BY h.role = '', h.name"
_WISHES = """
SELECT h.name, c.name, c.strategy, c.role, to_char(c.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    c.refused
FROM usernsplan.wish c JOIN usernsplan.host h ON h.number = c.host
WHERE true {one} ORDER BY h.name, c.name LIMIT %s
"""
_CLAIMS_OF_IDS = """
SELECT a.id, c.kind, lower(c.ids), upper(c.ids), c.name, NOT upper_inf(c.hosts),
    array_agg(h.name::text ORDER BY h.name), array_agg(d.state ORDER BY h.name),
    (SELECT r.value FROM usernsplan.content r
        WHERE r.what = 'allocation' AND r.key = c.name AND r.host = ANY (array_agg(d.host)) LIMIT 1)
FROM unnest(%s::bigint[]) AS a(id)
JOIN usernsplan.claim c ON c.ids @> a.id
JOIN usernsplan.hold d ON d.claim = c.id
JOIN usernsplan.host h ON h.number = d.host
WHERE true {one} GROUP BY a.id, c.id ORDER BY a.id, c.name, c.kind DESC, lower(c.ids), 7
"""
_OWN_OF_IDS = """
SELECT a.id, c.kind, lower(c.ids), upper(c.ids), c.source, c.holder, array_agg(DISTINCT h.name::text)
FROM unnest(%s::bigint[]) AS a(id)
JOIN usernsplan.own c ON c.ids @> a.id
JOIN usernsplan.host h ON h.number = c.host
WHERE true {one} GROUP BY a.id, c.kind, c.ids, c.source, c.holder ORDER BY a.id, c.holder, c.kind DESC
"""
_COUNT = "SELECT count(DISTINCT d.claim) FROM usernsplan.hold d WHERE true {one}"
_STATE = """CASE WHEN bool_and(d.state = 'quarantined') THEN 'quarantined'
    WHEN bool_and(d.state = 'reserved') THEN 'reserved' ELSE 'held' END"""
_BY_NAME = """
SELECT c.kind, lower(c.ids), upper(c.ids), {state}, c.name, NOT upper_inf(c.hosts),
    array_agg(d.host ORDER BY d.host)
FROM usernsplan.hold d JOIN usernsplan.claim c ON c.id = d.claim
WHERE true {one} GROUP BY c.id ORDER BY lower(c.ids), c.kind DESC LIMIT %s
""".replace("{state}", _STATE)
# Ids that the same hosts have are one piece, however many names they are.
_BY_HOSTS = """
WITH each AS (
    SELECT c.kind, c.ids, {state} AS state, NOT upper_inf(c.hosts) AS local,
        array_agg(d.host ORDER BY d.host) AS hosts
    FROM usernsplan.hold d JOIN usernsplan.claim c ON c.id = d.claim WHERE true {one} GROUP BY c.id),
alike AS (SELECT kind, state, local, hosts, range_agg(ids) AS ids FROM each GROUP BY 1, 2, 3, 4)
SELECT kind, lower(r), upper(r), state, '', local, hosts
FROM alike, unnest(alike.ids) AS r ORDER BY lower(r), kind DESC LIMIT %s
""".replace("{state}", _STATE)
_OWN_BY_HOSTS = """
WITH each AS (
    SELECT c.kind, c.ids, array_agg(DISTINCT c.host) AS hosts
    FROM usernsplan.own c WHERE true {one} GROUP BY c.kind, c.ids),
alike AS (SELECT kind, hosts, range_agg(ids) AS ids FROM each GROUP BY 1, 2)
SELECT kind, lower(r), upper(r), 'own', '', true, hosts
FROM alike, unnest(alike.ids) AS r ORDER BY lower(r), kind DESC LIMIT %s
"""
# What a name of the whole fleet cannot get ({one} is empty), or what one host cannot.
_TAKEN = """
SELECT c.kind, range_agg(c.ids) FROM usernsplan.claim c WHERE true {one} GROUP BY c.kind
UNION ALL SELECT c.kind, range_agg(c.ids) FROM usernsplan.own c WHERE true {of} GROUP BY c.kind
"""
_QUARANTINED = """
SELECT c.kind, range_agg(c.ids) FROM usernsplan.claim c
WHERE true {one} AND NOT EXISTS (
    SELECT FROM usernsplan.hold d WHERE d.claim = c.id AND d.state <> 'quarantined') GROUP BY c.kind
"""
_EVENTS = """
SELECT c.host, h.name, c.number, c.at, c.actor, c.command, c.changed
FROM usernsplan.event c JOIN usernsplan.host h ON h.number = c.host
WHERE (c.at, c.host, c.number) > (%s, %s, %s) {one} ORDER BY c.at, c.host, c.number LIMIT %s
"""
# A host that is at work, or was interrupted, is right only after its run.
_IDLE = "NOT EXISTS (SELECT FROM usernsplan.intent i WHERE i.host = %s)"
_CLAIMS_ALONE = """
SELECT DISTINCT a.name, a.state FROM (
    SELECT c.name, d.state FROM usernsplan.hold d JOIN usernsplan.claim c ON c.id = d.claim
        WHERE d.host = %s AND d.state = 'held' AND NOT EXISTS (
            SELECT FROM usernsplan.content r
            WHERE r.host = d.host AND r.what = 'allocation' AND r.key = c.name)
    UNION ALL SELECT c.name, d.state FROM usernsplan.hold d JOIN usernsplan.claim c ON c.id = d.claim
        WHERE d.host = %s AND d.state = 'reserved' AND NOT EXISTS (
            SELECT FROM usernsplan.content r WHERE r.host = d.host AND r.what = 'reservation'
            AND r.key = format('%%s-%%s', lower(c.ids), upper(c.ids) - 1))
    UNION ALL SELECT c.name, d.state FROM usernsplan.hold d JOIN usernsplan.claim c ON c.id = d.claim
        WHERE d.host = %s AND d.state = 'quarantined' AND (c.name, lower(c.ids)) NOT IN (
            SELECT r.value::jsonb ->> 0, (r.value::jsonb ->> 1)::bigint FROM usernsplan.content r
            WHERE r.host = %s AND r.what = 'quarantine')) AS a
WHERE {idle} ORDER BY 1, 2 LIMIT %s
""".replace("{idle}", _IDLE)
_ROWS_ALONE = """
SELECT a.name, a.state FROM (
    SELECT r.key, r.value::jsonb ->> 0, 'held', (r.value::jsonb ->> 5)::bigint
        FROM usernsplan.content r WHERE r.host = %s AND r.what = 'allocation'
            AND r.value::jsonb ->> 5 IS NOT NULL AND r.value::jsonb ->> 15 = ''
    UNION ALL SELECT r.key, r.value::jsonb ->> 0, 'quarantined', (r.value::jsonb ->> 1)::bigint
        FROM usernsplan.content r WHERE r.host = %s AND r.what = 'quarantine') AS a(key, name, state, start)
WHERE {idle} AND NOT EXISTS (
    SELECT FROM usernsplan.claim c JOIN usernsplan.hold d ON d.claim = c.id AND d.host = %s
    WHERE c.name = a.name AND (a.state = 'held' OR lower(c.ids) = a.start) AND d.state = a.state)
ORDER BY 1, 2 LIMIT %s
""".replace("{idle}", _IDLE)
_OVERLAPPING = """
SELECT o.kind, lower(o.ids), upper(o.ids), o.source, o.holder, c.name,
    greatest(lower(o.ids), lower(c.ids)), least(upper(o.ids), upper(c.ids)), d.host IS NOT NULL
FROM usernsplan.own o
JOIN usernsplan.claim c ON c.kind = o.kind AND c.ids && o.ids AND c.hosts @> o.host
LEFT JOIN usernsplan.hold d ON d.claim = c.id AND d.host = o.host
WHERE o.host = %s ORDER BY 7, c.name, o.kind DESC LIMIT %s
"""


class Views:
    """What the ledger of a fleet has of all hosts; with ``host``, of this one alone."""

    def __init__(self, layout: Layout, host: str | None, *, option: str) -> None:
        """Raises InvalidValueError where there is no fleet, or no such host; ``option`` was typed."""
        who = member.read(layout)
        if who is None:
            raise InvalidValueError(
                "this host is in no fleet",
                hint=f"leave it out; {layout.inline('ledger join URL')} makes it one of a fleet",
                option=option,
            )
        self._server = Server(who.url)
        self.place = shown(who.url)
        self.host, self._number = host, self._number_of(host) if host else 0
        # What a statement has besides: nothing, or the host.
        self._more = [self._number] if host else []

    def hosts(self) -> tuple[HostSeen, ...]:
        """The hosts that the fleet has now, by name."""
        return tuple(HostSeen(*row) for row in self._ask(_HOSTS, "h.number"))

    def names(self) -> Iterator[NameSeen]:
        """The allocations by name, in portions; hosts that agree about one are together."""
        for value, hosts in self._portions("allocation", _OF_EVENT):
            yield NameSeen(_allocation(value), hosts)

    def released(self) -> Iterator[ReleasedSeen]:
        """The quarantined ranges, in the same way."""
        for value, hosts in self._portions("quarantine", _OF_RELEASE):
            yield ReleasedSeen(codec.quarantined(unpacked(value)), hosts)

    def name(self, name: str) -> tuple[NameSeen, ...]:
        """What hosts have under a name."""
        rows = self._ask(_ONE_NAME.replace("{same}", _OF_EVENT), "c.host", name)
        return tuple(NameSeen(_allocation(value), tuple(hosts)) for _, value, hosts in rows)

    def volumes(self, name: str) -> tuple[Volume, ...]:
        """The volumes that the one host has recorded for a name."""
        found = self._of_a_name("volume", _NAME_OF_VOLUME, name)
        return tuple(codec.volume(unpacked(value)) for value in found)

    def mounts(self, name: str) -> tuple[VolumeMount, ...]:
        """The mounts that the one host has recorded for a name."""
        found = self._of_a_name("mount", _NAME_OF_MOUNT, name)
        return tuple(codec.mount(unpacked(value)) for value in found)

    def wishes(self) -> tuple[WishSeen, ...]:
        """What operators ask of hosts; at most MOST + 1 of it."""
        return tuple(WishSeen(*row) for row in self._ask(_WISHES, "c.host", last=[MOST + 1]))

    def whose(self, ids: Sequence[int]) -> dict[int, IdSeen]:
        """Who has these ids."""
        found = {number: IdSeen(number) for number in ids}
        asked = [*found]
        for first in range(0, len(asked), IDS):
            some = asked[first : first + IDS]
            claims: dict[int, list[ClaimSeen]] = {}
            own: dict[int, list[OwnSeen]] = {}
            for number, *row, hosts, states, value in self._ask(_CLAIMS_OF_IDS, "d.host", some):
                kind, start, stop, name, local = row
                a = _allocation(value) if value and states[0] != "quarantined" else None
                one = ClaimSeen(kind, start, stop, name, local, tuple(hosts), tuple(states), a)
                claims.setdefault(number, []).append(one)
            for number, *row, hosts in self._ask(_OWN_OF_IDS, "c.host", some):
                own.setdefault(number, []).append(OwnSeen._make((*row, tuple(hosts))))
            for number in some:
                found[number] = IdSeen(
                    number, tuple(claims.get(number, ())), tuple(own.get(number, ()))
                )
        return found

    def stretches(self) -> tuple[list[Stretch], bool]:
        """Who has which ids, by first id, and whether that is all. At most PIECES of claims, and of own ids."""
        [[count]] = self._ask(_COUNT, "d.host")
        claims = self._ask(_BY_NAME if count <= PIECES else _BY_HOSTS, "d.host", last=[PIECES + 1])
        own = self._ask(_OWN_BY_HOSTS, "c.host", last=[PIECES + 1])
        found = [
            Stretch(
                kind,
                IdRange(start, min(stop, ID_LIMIT) - start),
                state,
                name,
                local,
                tuple(self._names_of(hosts)),
            )
            for kind, start, stop, state, name, local, hosts in (*claims[:PIECES], *own[:PIECES])
            if start < ID_LIMIT
        ]
        return found, max(len(claims), len(own)) <= PIECES

    def taken(self) -> dict[Kind, Taken]:
        """The ids that a name of the whole fleet cannot get; of one host, those that it cannot get."""
        one = "AND c.hosts @> %s::int" if self.host else ""
        of = "AND c.host = %s" if self.host else ""
        both = self._rows(_TAKEN.replace("{one}", one).replace("{of}", of), *self._more * 2)
        kept = self._rows(_QUARANTINED.replace("{one}", one), *self._more)
        return {kind: Taken(_union(both, kind), _union(kept, kind)) for kind in KINDS}

    def events(self) -> Iterator[EventSeen]:
        """The events of all hosts as their clocks order them, in portions."""
        last: tuple[str, int, int] = ("", 0, 0)
        while rows := self._ask(_EVENTS, "c.host", *last, last=[EVENTS]):
            for _, host, *row in rows:
                yield EventSeen(host, codec.entry(row))
            number, _, event, at, *_ = rows[-1]
            last = (at, number, event)
            if len(rows) < EVENTS:
                return

    def checked(self) -> FleetSeen:
        """What ``check`` looks at; of each kind at most MOST."""
        hosts = self.hosts()
        wishes = self.wishes()
        differing = self._limited(self._differing())
        unbacked = self._limited(one for host in hosts for one in self._unbacked(host))
        overlapping = self._limited(one for host in hosts for one in self._overlapping(host))
        several = (wishes, differing, unbacked, overlapping)
        return FleetSeen(
            self.place,
            hosts,
            wishes[:MOST],
            tuple(differing[:MOST]),
            tuple(unbacked[:MOST]),
            tuple(overlapping[:MOST]),
            left_out=any(len(found) > MOST for found in several),
        )

    def _differing(self) -> Iterator[tuple[NameSeen, ...]]:
        statement = _DIFFERING.format(local=_LOCAL, same=_OF_FILES)
        last = ""
        while True:
            [[last, names]] = self._rows(statement, last, 2 * NAMES)
            if last is None:
                return
            for name in names:
                rows = self._rows(_ONE_NAME.replace("{one}", "").replace("{same}", _OF_FILES), name)
                seen = [NameSeen(_allocation(value), tuple(hosts)) for _, value, hosts in rows]
                found = tuple(one for one in seen if not one.allocation.local)
                if self.host is None or any(self.host in one.hosts for one in found):
                    yield found

    def _unbacked(self, host: HostSeen) -> Iterator[Unbacked]:
        n, most = host.number, MOST + 1
        for name, state in self._rows(_CLAIMS_ALONE, n, n, n, n, n, most):
            yield Unbacked(host.name, name, state, is_claim=True)
        for name, state in self._rows(_ROWS_ALONE, n, n, n, n, most):
            yield Unbacked(host.name, name, state, is_claim=False)

    def _overlapping(self, host: HostSeen) -> Iterator[Overlapping]:
        for *own, name, start, stop, is_its in self._rows(_OVERLAPPING, host.number, MOST + 1):
            yield Overlapping(OwnSeen._make((*own, (host.name,))), name, start, stop, is_its)

    @staticmethod
    def _limited(found: Iterable[Any]) -> list[Any]:
        from itertools import islice  # noqa: PLC0415 - only for check

        return [*islice(found, MOST + 1)]

    def _portions(self, what: str, same: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The rows of a table of all hosts by key, and which hosts have each."""
        statement = _ROWS.replace("{same}", same)
        statement = statement.replace("{one}", "AND c.host = %s" if self.host else "")
        last = ""
        while rows := self._rows(statement, what, *self._more, what, *self._more, last, NAMES):
            for _, value, hosts in rows:
                yield value, tuple(hosts)
            last = rows[-1][0]

    def _of_a_name(self, what: str, column: int, name: str) -> list[str]:
        found = self._rows(_OF_A_NAME, what, self._number, column, name)
        return [value for [value] in found]

    def _ask(
        self, statement: str, column: str, *values: object, last: Sequence[object] = ()
    ) -> list[tuple[Any, ...]]:
        """The rows of a statement; ``column`` is that of the host."""
        one = f"AND {column} = %s" if self.host else ""
        return self._rows(statement.replace("{one}", one), *values, *self._more, *last)

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with _words():
            return self._server.rows(statement, *values)

    def _number_of(self, host: str) -> int:
        known = {name: number for number, name in self._rows(_NUMBER)}
        if host not in known:
            raise InvalidValueError(
                f"the fleet has no host '{host}'",
                hint=did_you_mean(host, known, f"its hosts are {', '.join([*known][:20])}"),
                option="host",
            )
        return int(known[host])

    @cached_property
    def _known(self) -> dict[int, str]:
        return dict(self._rows(_NUMBER))

    def _names_of(self, numbers: Iterable[int]) -> Iterator[str]:
        yield from sorted(self._known[number] for number in numbers)


@contextmanager
def _words() -> Iterator[None]:
    """Add to the words that the server gives no answer what still works."""
    try:
        yield
    except LedgerUnreachableError as error:
        error.hint = (
            "run again when it answers; without --fleet and --host, the command shows this host"
        )
        raise


def _allocation(value: str) -> Allocation:
    return next(codec.allocations([json.loads(value)]))


def _union(rows: Iterable[tuple[str, Any]], kind: str) -> IdSet:
    """The ids of one kind in rows of multiranges."""
    return IdSet.clipped(
        (one.lower, one.upper) for of, ids in rows if of == kind for one in ids or ()
    )
