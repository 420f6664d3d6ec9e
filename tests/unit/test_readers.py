"""What each reader makes of a line, worked out from the programs' sources and seen when they ran."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.each import each
from tests.unit.subid_lines import FAILS, LINES, Take
from usernsplan.formats import readers, subid
from usernsplan.formats.readers import READERS, Reading
from usernsplan.formats.subid import Grant
from usernsplan.ids import ID_LIMIT, IdSet


@each(("raw", "takes"), LINES)
def test_what_each_reader_takes_a_line_for(raw: bytes, takes: tuple[Take, ...]) -> None:
    found = readers.of_line(raw)
    assert tuple(reading.reader for reading in found) == READERS
    for reading, take in zip(found, takes, strict=True):
        assert reading.fails is (take == FAILS), reading
        assert reading.takes == ((take,) if isinstance(take, tuple) else ()), reading
    assert readers.differ(found) is (len(set(takes)) > 1)


@pytest.mark.parametrize(
    ("raw", "reader", "said"),
    [
        (b"web:0x5:70000\n", "docker", "container root becomes host root"),
        (b"web:0x5:70000\n", "docker", "20.10 does not start if its user owns the line"),
        (
            b"web:4294967296:70000\n",
            "docker",
            "container root becomes host root; cut to 32 bits: 0:70000",
        ),
        (b"web:5\n", "docker", "20.10 does not start, for any owner"),
        (b"web:5\n", "podman", "for any owner"),
        (b"web:5\n", "incus", "for any owner"),
        (b"web:x:1\n", "podman", "for this owner"),
        (b"web:0x5:70000\n", "podman", "a build with libsubid reads it as shadow does"),
        (b"web:5:7\n", "incus", "fewer than 65536"),
        (b"+web:5:7\n", "shadow", "NIS"),
        (b"web:5:7\0\n", "shadow", "NUL"),
        (b"web:5:7:9\n", "shadow 4.20", "more than three fields"),
        (b"web:5:7\0\n", "shadow 4.20", "whole file fails"),
        (b"web:-5:7\n", "shadow 4.20", "a number below 0"),
        (b"web:4294967296:7\n", "shadow 4.20", "ids past 4294967295"),
        (b"w" * 1024 + b"\n", "shadow", "1024 bytes or more"),
    ],
)
def test_a_remark_says_what_comes_of_a_line(raw: bytes, reader: str, said: str) -> None:
    [reading] = [found for found in readers.of_line(raw) if found.reader == reader]
    assert said in reading.remark


def test_there_is_nothing_to_say_about_a_plain_line_or_a_comment() -> None:
    assert {
        reading.remark
        for raw in (b"web:5:70000\n", b"# c\n", b"\n")
        for reading in readers.of_line(raw)
    } == {""}


def test_readings_differ_by_what_is_taken_and_by_failing_but_not_by_a_remark() -> None:
    one, other = ("web", 1, 2), ("web", 3, 4)
    base = Reading("shadow", (one,), "")
    assert not readers.differ([base, Reading("incus", (one,), "a remark")])
    assert readers.differ([base, Reading("incus", (other,), "")])
    assert readers.differ([base, Reading("incus", (), "")])
    assert readers.differ([Reading("shadow", (), ""), Reading("incus", (), "", fails=True)])


@each("owner", ["web", "1234", " 1234", "01234"])
def test_only_shadow_4_20_asks_for_the_account_of_an_owner(owner: str) -> None:
    raw = f"{owner}:5:70000\n".encode()
    nobody = readers.of_line(raw, lambda _: False)
    assert [one.reader for one in nobody if not one.takes] == ["shadow 4.20"]
    assert "no account" in nobody[1].remark
    assert readers.of_line(raw, lambda name: name == owner)[1].takes == ((owner, 5, 70000),)


PIECES = st.sampled_from(
    [
        *(
            b"web",
            b"Web",
            b"1234",
            b":",
            b":",
            b":",
            b"\n",
            b"0",
            b"5",
            b"070",
            b"0x",
            b"x",
            b"65536",
            b"100000",
        ),
        *(
            b"4294967296",
            b"99999999999999999999",
            b"-",
            b"+",
            b"#",
            b" ",
            b"\t",
            b"\r",
            b"\0",
            b"\xff",
            b"\xc2\xa0",
            b"\x1c",
        ),
    ]
)
LINE = st.binary() | st.lists(PIECES).map(b"".join)


def kernel_takes(reading: Reading, start: int, count: int) -> IdSet:
    """Docker alone asks the kernel for a range whole and unasked, and then gets it whole or not at all."""
    whole = reading.reader != "docker" or start + count <= ID_LIMIT
    return IdSet.clipped([(start, start + count)] if whole else [])


@given(LINE)
@example(b"a\x85:1:2")
def test_no_bytes_are_an_error_and_a_grant_is_what_all_agree_on(raw: bytes) -> None:
    for line in subid.parse(raw).lines:
        found = readers.of_line(line.raw)
        if isinstance(line, Grant):
            taken = ((line.owner, line.start, line.stop - line.start),)
            # No range of the kernel's ends there, so no reader can use one that does.
            new = () if line.stop > 2**32 else taken
            assert {one.reader: one.takes for one in found} == {
                reader: new if reader == "shadow 4.20" else taken for reader in READERS
            }
            assert not any(one.fails for one in found)
        elif readers.differ(found):
            assert line.problem
        # Whatever a reader takes the line for is claimed, and found by the owner's name.
        for reading in found:
            for owner, start, count in reading.takes:
                assert owner in subid.parse(line.raw).by_owner()
                assert not kernel_takes(reading, start, count) - subid.parse(line.raw).claimed()
