"""Random maps at the edges: whether IdMap can be made is what the kernel answers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.maps import Triple, can_be_made
from tests.unit.oracle import kernel_takes, needs

pytestmark = needs()

# Few numbers, so that overlaps, adjacency and the end of the ids all come up.
IDS = st.integers(0, 12) | st.sampled_from([4294967290, 4294967292, 4294967294, 4294967295])
COUNTS = st.sampled_from([1, 1, 1, 2, 3]) | st.sampled_from([0, 5, 4294967290, 4294967295])


@settings(max_examples=examples(250), deadline=None)
@given(st.lists(st.tuples(IDS, IDS, COUNTS), min_size=1, max_size=4))
def test_a_random_map_can_be_made_exactly_when_the_kernel_takes_it(extents: list[Triple]) -> None:
    text = "".join(f"{container} {host} {count}\n" for container, host, count in extents)
    assert kernel_takes(text) is can_be_made(extents)
