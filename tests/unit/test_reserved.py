"""What is never handed out, at both ends of every range that the conventions name."""

from __future__ import annotations

from itertools import combinations

from tests.each import each
from usernsplan.ids import IdSet
from usernsplan.reserved import TABLE

RESERVED = IdSet(entry.ids for entry in TABLE)


@each(
    "number",
    [0, 999, 1000, 60000, 60577, 65534, 65535, 2147352576, 2147418111, 2147483648, 4294967294],
)
def test_an_id_that_belongs_to_somebody_is_reserved(number: int) -> None:
    assert number in RESERVED


@each("number", [65536, 100000, 589824, 600100000, 1000000000, 2147352575, 2147418112, 2147483647])
def test_an_id_that_container_tools_share_is_not(number: int) -> None:
    assert number not in RESERVED


def test_no_two_entries_claim_the_same_id_and_each_has_a_source() -> None:
    assert not [pair for pair in combinations(TABLE, 2) if pair[0].ids.overlaps(pair[1].ids)]
    assert all(entry.source and entry.whose for entry in TABLE)
