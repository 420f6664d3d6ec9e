"""The index of claims against looking at each claim, id by id."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.states import per_container
from usernsplan import IdRange
from usernsplan.claims.index import Claim, Claims, over_others
from usernsplan.claims.uses import parties, strangers
from usernsplan.mapping import KINDS, Kind
from usernsplan.model import Unlisted

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


@given(CLAIMS, CLAIMS, ANY_KIND)
def test_those_that_meet_some_claim_are_those_over_which_one_is(
    claims: list[Claim], spans: list[Claim], kind: Kind | None
) -> None:
    index = Claims(claims)
    expected = [span for span in spans if index.over(*span[:2], kind)]
    assert index.met_by(spans, kind) == expected


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


PLACES = ("/x", "/y")
VOLUMES = st.dictionaries(st.sampled_from(PLACES), st.sampled_from(("web", "db")))
TAKEN = st.builds(
    lambda start, count, kind, container, path, number, grantee: Unlisted(
        "LXC", "it", kind, start, start + count, container, path, number, grantee
    ),
    st.integers(0, LAST),
    st.integers(1, 25),
    st.sampled_from(KINDS),
    st.sampled_from(("", "web", "x")),
    st.sampled_from(PLACES),
    st.integers(0, 1),
    st.sampled_from(("", "root", "carol")),
)
HELD = st.dictionaries(
    st.sampled_from(("web", "db")), st.tuples(st.integers(0, LAST), st.integers(1, 25))
)
GRANTED = st.lists(
    st.tuples(st.sampled_from(("carol", "dave")), st.integers(0, LAST), st.integers(1, 25)),
    max_size=3,
)


@given(TAKEN, HELD, GRANTED, VOLUMES)
def test_a_program_is_a_stranger_to_all_whose_container_it_does_not_run(
    one: Unlisted,
    held: dict[str, tuple[int, int]],
    granted: list[tuple[str, int, int]],
    volumes: dict[str, str],
) -> None:
    asked = set(range(one.start, one.stop))
    claims, has, own = [], set(), set()
    for name, (start, count) in held.items():
        a = per_container(name, start, count)
        ids = set(range(start, start + count))
        claims += [
            Claim(start, start + count, kind, "allocation", name, allocation=a) for kind in KINDS
        ]
        has |= {a.owner} if ids & asked else set()
        is_named = name in {one.container, volumes.get(one.path)}
        # A line of a file names all ids; a folder tells only where they begin.
        if is_named and (asked <= ids if one.number else asked & ids):
            own.add(a.owner)
    for owner, start, count in granted:
        claims += [Claim(start, start + count, kind, "subid", owner) for kind in KINDS]
        has |= {owner} if set(range(start, start + count)) & asked else set()
    own |= {one.grantee} & has
    expected = set() if own and not one.number and not one.grantee else has - own
    assert {claim.owner for claim in strangers(one, parties(Claims(claims)), volumes)} == expected
