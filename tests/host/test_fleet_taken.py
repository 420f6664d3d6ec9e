"""What a host may not give out, as the server tells it: all claims but its own and those of the names it asks about."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.command import needs_root, slow

if TYPE_CHECKING:
    from tests.postgres import FleetOfRoots

pytestmark = needs_root

HOSTS = range(1, 5)
# The blocks of the server have 2^22 ids: claims lie in one, over a border, and over several.
BORDER = 1 << 22
STARTS = (0, 5, BORDER - 7, BORDER, 3 * BORDER - 1)
COUNTS = (1, 2, 9, 10, BORDER + 3)
NAMES = ("web", "db", "mail")


class Claim(NamedTuple):
    number: int
    name: str
    local_of: int
    kind: str
    start: int
    stop: int
    holders: frozenset[int]

    def overlaps(self, other: Claim) -> bool:
        return (
            self.kind == other.kind
            and self.start < other.stop
            and other.start < self.stop
            and (not self.local_of or not other.local_of or self.local_of == other.local_of)
        )


def taken(claims: list[Claim], host: int, asked: list[str]) -> dict[str, list[tuple[int, int]]]:
    """The same, id by id where something begins or ends."""
    found = {}
    for kind in ("uid", "gid"):
        here = [one for one in claims if one.kind == kind]
        theirs = [
            one
            for one in here
            if host not in one.holders and not (one.name in asked and not one.local_of)
        ]
        ends = sorted({end for one in here for end in (one.start, one.stop)})
        spans: list[tuple[int, int]] = []
        for start, stop in pairwise(ends):
            if any(one.start <= start < one.stop for one in theirs):
                touches = spans and spans[-1][1] == start
                spans.append((spans.pop()[0] if touches else start, stop))
        found[kind] = spans
    return found


@pytest.mark.parametrize("seed", [1, *slow(2, 3, 4, 5, 6)])
def test_it_is_what_the_claims_say_after_every_change(fleet: FleetOfRoots, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    fleet.query(
        "INSERT INTO usernsplan.host (name, role, machine, version) "
        "SELECT 'h' || n, session_user, n, '' FROM generate_series(1, %s) n",
        len(HOSTS),
    )
    claims: list[Claim] = []
    most = 0
    for number in range(1, 61):
        most = max(most, len(claims))
        if len(claims) > 8:
            chance.shuffle(claims)
            gone, claims = claims[:5], claims[5:]
            ids = [one.number for one in gone]
            fleet.query(
                "WITH h AS (DELETE FROM usernsplan.hold WHERE claim = ANY (%s)) SELECT", ids
            )
            fleet.query("DELETE FROM usernsplan.claim WHERE id = ANY (%s)", ids)
        else:
            start, count = chance.choice(STARTS) + chance.randrange(8), chance.choice(COUNTS)
            local_of = chance.choice((0, *HOSTS))
            holders = {local_of} if local_of else set(chance.sample(HOSTS, chance.randint(1, 2)))
            new = Claim(
                number,
                chance.choice(NAMES),
                local_of,
                chance.choice(("uid", "gid")),
                start,
                start + count,
                frozenset(holders),
            )
            if any(new.overlaps(one) for one in claims):
                continue
            claims.append(new)
            hosts = f"[{local_of},{local_of}]" if local_of else "(,)"
            fleet.query(
                "INSERT INTO usernsplan.claim (id, name, hosts, kind, ids) OVERRIDING SYSTEM VALUE "
                "VALUES (%s, %s, %s::int4range, %s, int8range(%s, %s))",
                *(number, new.name, hosts, new.kind, new.start, new.stop),
            )
            fleet.query(
                "INSERT INTO usernsplan.hold (claim, host, state) SELECT %s, unnest(%s::int[]), 'held'",
                number,
                sorted(holders),
            )
        host, asked = chance.choice(HOSTS), chance.sample(NAMES, chance.randint(0, 2))
        rows = fleet.query(
            "SELECT t.kind, lower(r.ids), upper(r.ids) "
            "FROM usernsplan.taken(%s, %s::text[]) t, unnest(t.ids) AS r(ids) ORDER BY 2",
            f"h{host}",
            asked,
        )
        found = {
            kind: [(start, stop) for one, start, stop in rows if one == kind]
            for kind in ("uid", "gid")
        }
        assert found == taken(claims, host, asked), (number, claims)
    assert most > 8
