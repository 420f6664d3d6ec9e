"""Any bytes at all: nothing is lost, nothing is an error, and an edit can be taken back."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from usernsplan.errors import InvalidValueError
from usernsplan.formats import subid
from usernsplan.formats.subid import Grant
from usernsplan.ids import ID_LIMIT, IdRange

FIELDS = st.sampled_from(
    [
        b"web",
        b" web",
        b"#",
        b"1000",
        b"0",
        b"5",
        b"010",
        b"0x1f",
        b"+3",
        b"-3",
        b" 7",
        b"x",
        b"",
        b"\xff",
        b"4294967295",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b" # c\n", b"\n\n", b"\0\n", b"\x0c\n"])
LINE = st.builds(
    lambda fields, end: b":".join(fields) + end, st.lists(FIELDS, min_size=1, max_size=4), ENDS
)
# Lines that look like the real thing, or any bytes; the last one may lack its end.
FILES = (
    st.builds(
        lambda lines, cut: b"".join(lines).removesuffix(b"\n") if cut else b"".join(lines),
        st.lists(LINE),
        st.booleans(),
    )
    | st.binary()
)
RANGES = st.tuples(st.integers(0, ID_LIMIT - 1), st.integers(1, ID_LIMIT)).map(
    lambda pair: IdRange(pair[0], min(pair[1], ID_LIMIT - pair[0]))
)
OURS = st.lists(
    st.builds(subid.line, st.sampled_from(["web", "1000", "db"]), RANGES | st.just(IdRange(5, 7))),
    max_size=5,
)


def lines(raw: bytes) -> Counter[bytes]:
    """Count the lines, each with a line end: an independent reading of what a line is."""
    pieces = raw.split(b"\n")
    return Counter(piece + b"\n" for piece in (pieces if pieces[-1] else pieces[:-1]))


@given(FILES)
def test_parsing_loses_nothing(raw: bytes) -> None:
    file = subid.parse(raw)
    assert file.raw == raw
    assert [line.number for line in file.lines] == list(range(1, len(file.lines) + 1))
    assert all(line.raw.count(b"\n") <= 1 and line.raw for line in file.lines)
    assert all(line.raw.endswith(b"\n") for line in file.lines[:-1])


@given(FILES)
def test_every_line_that_means_something_is_a_grant_or_a_problem(raw: bytes) -> None:
    file = subid.parse(raw)
    owned = {line.number for found in file.by_owner().values() for line in found}
    silent = {line.number for line in file.lines if line.number not in owned}
    unowned = [line for line in file.odd_lines() if line.number not in owned]
    assert all(
        not line.raw.decode("utf-8", "replace").partition("#")[0].strip() for line in unowned
    )
    assert all(
        b":" not in line.raw or b"#" in line.raw for line in file.lines if line.number in silent
    )


@given(FILES, OURS)
def test_taking_the_added_lines_out_again_gives_the_file_back(raw: bytes, new: list[bytes]) -> None:
    added = subid.with_lines(raw, new)
    # The line end that the last line lacked is the one byte that stays.
    ended = raw + b"\n" if new and raw and not raw.endswith(b"\n") else raw
    assert added == ended + b"".join(new)
    assert subid.without_lines(added, new) == ended
    assert lines(added) == lines(raw) + Counter(new)


@given(FILES, st.data())
def test_a_line_that_was_taken_out_and_put_back_is_only_moved(
    raw: bytes, data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(sorted(lines(raw))), unique=True)) if raw else []
    left = subid.without_lines(raw, chosen)
    assert lines(left) == lines(raw) - Counter(chosen)
    assert lines(subid.with_lines(left, chosen)) == lines(raw)


@given(FILES, OURS, OURS, OURS)
def test_what_was_added_and_what_went_away_account_for_the_whole_change(
    raw: bytes, kept: list[bytes], old: list[bytes], new: list[bytes]
) -> None:
    before, after = subid.with_lines(raw, kept + old), subid.with_lines(raw, kept + new)
    added, gone = (
        Counter(subid.added_lines(before, after)),
        Counter(subid.added_lines(after, before)),
    )
    assert not added & gone
    assert lines(before) - gone + added == lines(after)


@given(FILES, OURS)
def test_only_the_new_lines_are_told_as_added(raw: bytes, new: list[bytes]) -> None:
    assert Counter(subid.added_lines(raw, subid.with_lines(raw, new))) == Counter(new)


@given(st.text(min_size=1, max_size=20), RANGES)
def test_a_written_line_is_read_back_or_its_owner_is_refused(owner: str, ids: IdRange) -> None:
    breaks = owner[0] in "+-" or any(
        character in ":#" or character in " \t\n\r\x0b\x0c" for character in owner
    )
    try:
        raw = subid.line(owner, ids)
    except InvalidValueError:
        # Blanks and null bytes beyond ASCII's are refused or not: no account has them.
        assert breaks or not owner.isprintable()
        return
    assert not breaks
    assert subid.parse(raw).lines == (Grant(1, raw, owner, ids.start, ids.stop),)


@given(
    st.lists(
        st.tuples(st.sampled_from(["web", "1000"]), st.integers(0, 40), st.integers(0, 9)),
        max_size=8,
    )
)
def test_what_is_claimed_is_the_union_of_what_the_lines_say(
    grants: list[tuple[str, int, int]],
) -> None:
    raw = "".join(f"{owner}:{start}:{count}\n" for owner, start, count in grants).encode()
    expected = {number for _, start, count in grants for number in range(start, start + count)}
    claimed = subid.parse(raw).claimed()
    assert {number for number in range(60) if number in claimed} == expected
    assert claimed.total() == len(expected)
