"""The index of claims against looking at each claim, id by id."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from usernsplan import IdRange
from usernsplan.claims.index import Claim, Claims, over_others
from usernsplan.mapping import KINDS, Kind

LAST = 60
# Enough of them for a second level of the tree.
CLAIMS = st.lists(
    st.builds(
        lambda start, count, kind, holder: Claim(start, start + count, kind, "subid", holder),
        st.integers(0, LAST),
        st.integers(1, 25),
        st.sampled_from(KINDS),
        st.sampled_from("abc"),
    ),
    max_size=40,
).map(lambda found: [claim._replace(number=n) for n, claim in enumerate(found, 1)])
ANY_KIND: st.SearchStrategy[Kind | None] = st.sampled_from((*KINDS, None))


def ids_of(claim: Claim) -> set[int]:
    return set(range(claim.start, claim.stop))


@given(CLAIMS, st.integers(0, LAST + 30), st.integers(1, 20), ANY_KIND, st.integers(0, 5))
def test_what_overlaps_a_range_is_what_has_one_of_its_ids(
    claims: list[Claim], start: int, count: int, kind: Kind | None, most: int
) -> None:
    asked = set(range(start, start + count))
    expected = [c for c in claims if kind in {None, c.kind} and ids_of(c) & asked]
    index = Claims(claims)
    assert index.over(start, start + count, kind) == expected
    assert index.how_many(start, start + count, kind) == len(expected)
    some = index.over(start, start + count, kind, most=most)
    assert len(some) == min(most, len(expected))
    assert set(some) <= set(expected)


@given(CLAIMS, st.sets(st.integers(0, LAST + 30)), st.sampled_from(KINDS))
def test_who_has_an_id_is_who_claims_it(claims: list[Claim], asked: set[int], kind: Kind) -> None:
    found = Claims(claims).of_each(asked, kind)
    for number in asked:
        expected = [c for c in claims if c.kind == kind and number in ids_of(c)]
        assert found.get(number, []) == expected


@given(CLAIMS, st.integers(0, LAST), st.integers(1, 40))
def test_what_is_free_in_a_pool_is_what_no_claim_has(
    claims: list[Claim], start: int, count: int
) -> None:
    pool = IdRange(start, count)
    free = Claims(claims).free(pool)
    taken = set().union(*map(ids_of, claims))
    found = {number for ids in free for number in range(ids.start, ids.stop)}
    assert found == set(range(pool.start, pool.stop)) - taken


@given(CLAIMS, st.booleans())
def test_each_pair_of_holders_that_share_an_id_is_told_once(claims: list[Claim], own: bool) -> None:
    expected = {
        frozenset((one.number, other.number))
        for one, other in combinations(claims, 2)
        if (one.holder == other.holder) is own and ids_of(one) & ids_of(other)
    }
    told = []
    for claim, count, partners in over_others(claims, own=own):
        found = list(partners)
        assert len(found) == count
        for other in found:
            assert (other.start, other.number) < (claim.start, claim.number)
            told.append(frozenset((claim.number, other.number)))
    assert len(told) == len(expected)
    assert set(told) == expected
