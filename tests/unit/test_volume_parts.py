"""The place of a folder: the same as a list of names, and as quick at any depth."""

from __future__ import annotations

import io
import pickle
from copy import deepcopy
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.each import each
from usernsplan.volume.forked import _Pickler
from usernsplan.volume.parts import TOP, Parts

NAMES = st.lists(st.sampled_from("ab"), max_size=5)
DEEP = 100_000


@given(one=NAMES, other=NAMES, depth=st.integers(0, 6))
def test_a_place_is_its_names(one: list[str], other: list[str], depth: int) -> None:
    place, second = Parts.of(one), Parts.of(other)
    assert [*place] == one
    assert (len(place), place.depth, bool(place)) == (len(one), len(one), bool(one))
    assert place.since(depth) == one[depth:]
    assert [*place.upto(depth)] == one[:depth]
    assert (place == second) is (one == other)
    assert one != other or hash(place) == hash(second)
    shared = place.shared(second)
    assert shared == second.shared(place)
    assert one[:shared] == other[:shared]
    assert one[shared : shared + 1] != other[shared : shared + 1] or shared == len(one) == len(
        other
    )
    assert second.branch(shared, place.since(shared)) == place


def test_there_is_one_top() -> None:
    assert Parts.of([]) is TOP
    assert TOP.above is TOP
    assert deepcopy(TOP) is TOP
    assert Parts.of("ab").above.above is TOP
    assert Parts.of("a") != ("a",)


@each("depth", [3, -1])
def test_a_branch_begins_at_a_place_that_exists(depth: int) -> None:
    with pytest.raises(ValueError, match=f"no {depth} names"):
        Parts.of("ab").branch(depth, ["c"])


def sent(message: object) -> tuple[object, int]:
    """What arrives at the other end, and how many bytes it took."""
    raw = io.BytesIO()
    _Pickler(raw, pickle.HIGHEST_PROTOCOL).dump(message)
    return pickle.loads(raw.getvalue()), raw.tell()  # noqa: S301 - our own


@given(places=st.lists(NAMES.map(Parts.of), max_size=8))
def test_places_arrive_as_they_were_sent(places: list[Parts]) -> None:
    assert sent(places)[0] == places
    assert pickle.loads(pickle.dumps(places)) == places  # noqa: S301 - our own


def test_no_place_is_too_deep_to_be_sent_copied_compared_or_forgotten() -> None:
    deep = Parts.of("d" * DEEP)
    # A comb: each place has one beside the chain. Each takes as many bytes as it adds names.
    comb = [deep]
    for _ in range(DEEP // 10):
        comb.append(comb[-1].above)
    comb = [place.below("s") for place in comb]
    arrived, size = sent(comb)
    assert isinstance(arrived, list)
    assert arrived[-1] == comb[-1]
    assert size < 50 * DEEP
    assert all(one.above.above is other.above for one, other in pairwise(arrived))
    assert deepcopy(deep) == deep == Parts.of(deep)
    assert deep != Parts.of("e" + "d" * (DEEP - 1))
