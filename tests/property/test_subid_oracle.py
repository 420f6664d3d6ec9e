"""Random subuid files: shadow's getsubids hands out every Grant, and nothing that is not one of our readings."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.oracle import getsubids, needs
from usernsplan.formats import subid
from usernsplan.formats.subid import Grant

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs("getsubids")

OWNERS = st.sampled_from(
    [b"web", b"web", b"web", b"1234", b" web", b"#web", b"other", b"\xff", b""]
)
NUMBERS = st.sampled_from(
    [
        *(b"0", b"00", b"5", b"5", b"100000", b"65536", b"4294967295", b"9999999999"),
        *(b"010", b"08", b"0x1f", b"0X1F", b"0x", b"0b1", b"0o7", b"1e3", b"1_0", b"+9", b"+ 9"),
        *(b" 7", b"\t7", b"8 ", b"\xc2\xa05", b"x", b"", b"1:2"),
    ]
)
ENDS = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b" # c\n", b"\n\n", b"\n:\n", b""])
LINES = st.builds(
    lambda owner, start, count, end: owner + b":" + start + b":" + count + end,
    OWNERS,
    NUMBERS,
    NUMBERS,
    ENDS,
)


@settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(LINES, min_size=1, max_size=8).map(b"".join))
def test_getsubids_hands_out_our_grants_and_otherwise_only_our_readings(
    tmp_path: Path, raw: bytes
) -> None:
    granted: Counter[tuple[int, int]] = Counter()
    possible: Counter[tuple[int, int]] = Counter()
    by_owner = subid.parse(raw).by_owner()
    for line in by_owner.get("web", []) + by_owner.get("1234", []):
        if isinstance(line, Grant):
            granted[line.start, line.stop] += 1
        else:
            possible.update(set(line.spans))
    answer = Counter(getsubids(tmp_path, raw))
    assert granted <= answer
    # An empty range, which a line that is no grant can be too, holds nothing that could be missed.
    assert (
        Counter(found for found in (answer - granted).elements() if found[0] < found[1]) <= possible
    )
