"""/etc/subuid: what is a Grant, what is Odd, and what an edit leaves alone."""

from __future__ import annotations

import pytest

from tests.each import each
from tests.unit.subid_lines import of_length
from usernsplan.errors import InvalidValueError
from usernsplan.formats import subid
from usernsplan.formats.subid import Grant, Odd
from usernsplan.ids import IdRange, IdSet


def only(raw: bytes) -> Grant | Odd:
    [line] = subid.parse(raw).lines
    return line


@pytest.mark.parametrize(
    ("raw", "owner", "start", "stop"),
    [
        (b"web:100000:65536\n", "web", 100000, 165536),
        (b"web:100000:65536", "web", 100000, 165536),
        (b"1000:100000:1\n", "1000", 100000, 100001),
        (b"web:0:0\n", "web", 0, 0),
        (b"web:100000:0\n", "web", 100000, 100000),
        (b"web:4294967290:65536\n", "web", 4294967290, 4295032826),
        (b"m\xc3\xbcller:1:2\n", "müller", 1, 3),
        (b"CORP\\web$:1:2\n", "CORP\\web$", 1, 3),
        (b"w+e-b:1:2\n", "w+e-b", 1, 3),
    ],
)
def test_what_every_reader_takes_alike_is_a_grant(
    raw: bytes, owner: str, start: int, stop: int
) -> None:
    assert only(raw) == Grant(1, raw, owner, start, stop)


@each(
    ("raw", "owners", "spans"),
    [
        (b"web:100000:65536 # why\n", {"web"}, {(100000, 165536)}),
        (b" web:100000:65536\n", {" web", "web"}, {(100000, 165536)}),
        (b"\tweb:100000:65536\n", {"\tweb", "web"}, {(100000, 165536)}),
        # What moby cannot read as a number it takes for 0.
        (b"web: 100000:65536\n", {"web"}, {(100000, 165536), (0, 65536)}),
        (b"web:100000:65536 \n", {"web"}, {(100000, 165536)}),
        (b"web:100000:65536\r\n", {"web"}, {(100000, 165536)}),
        (b"web:100000:65536:1\n", {"web"}, {(100000, 165536)}),
        (b"web:+100000:65536\n", {"web"}, {(100000, 165536)}),
        # 010 is ten to those who read decimal, and eight to those who read as C does.
        (b"web:010:5\n", {"web"}, {(10, 15), (8, 13)}),
        (b"web:010:010\n", {"web"}, {(10, 20), (8, 16)}),
        (b"web:080:5\n", {"web"}, {(80, 85)}),
        (b"+web:1:2\n", {"+web"}, {(1, 3)}),
        (b"-web:1:2\n", {"-web"}, {(1, 3)}),
        (b"\xff:1:2\n", {"\udcff"}, {(1, 3)}),
        (b":1:2\n", {""}, {(1, 3)}),
        (b"web\n", {"web"}, set()),
        (b"web:\n", {"web"}, set()),
        (b"web:100000\n", {"web"}, set()),
        (b"web:x:5\n", {"web"}, {(0, 5)}),
        (b"web:5:x\n", {"web"}, set()),
        (b"web::\n", {"web"}, set()),
        (b"web:\xd9\xa1:5\n", {"web"}, {(0, 5)}),
        (b"web::5\n", {"web"}, {(0, 5)}),
        (b"web:1e3:5\n", {"web"}, {(0, 5)}),
        # Incus reads 32 bits, the others more.
        # Docker cuts to 32 bits what a container gets.
        (b"web:4294967296:5\n", {"web"}, {(4294967296, 4294967301), (0, 5)}),
        # Go trims a blank that is none to C.
        (b"\xc2\xa0web:5:7\n", {"\xa0web", "web"}, {(5, 12)}),
        # moby goes on with the largest number that it can hold, and the kernel refuses it.
        (b"web:5:99999999999999999999\n", {"web"}, set()),
        (b"web:5:9223372036854775807\n", {"web"}, {(5, 5 + 2**63 - 1)}),
    ],
)
def test_a_line_on_which_readers_differ_is_odd_and_every_reading_is_kept(
    raw: bytes, owners: set[str], spans: set[tuple[int, int]]
) -> None:
    line = only(raw)
    assert isinstance(line, Odd)
    assert (set(line.owners), set(line.spans)) == (owners, spans)
    assert line.problem
    assert subid.parse(raw).odd_lines() == (line,)


@pytest.mark.parametrize("raw", [b"web:0x186a0:65536\n", b"web:0X186A0:0x10000\n"])
def test_a_hexadecimal_start_is_what_shadow_makes_of_it(raw: bytes) -> None:
    assert IdSet.clipped([(100000, 165536)]) - subid.parse(raw).claimed() == IdSet()


def test_a_hexadecimal_start_is_also_zero_as_docker_takes_it() -> None:
    line = only(b"web:0x186a0:65536\n")
    assert isinstance(line, Odd)
    assert (0, 65536) in line.spans


@pytest.mark.parametrize("raw", [b"\n", b"\r\n", b"# web:1:2\n", b"#\xff\n", b"#web:1:2"])
def test_a_comment_or_a_blank_line_claims_nothing_and_is_no_problem(raw: bytes) -> None:
    assert only(raw) == Odd(1, raw, (), (), "")
    assert subid.parse(raw).odd_lines() == ()


@pytest.mark.parametrize("raw", [b"   \n", b"\t\r\n", b"  # web:1:2\n", b"\x0b#\n"])
def test_a_comment_or_an_empty_line_that_begins_with_a_blank_claims_nothing_and_is_a_problem(
    raw: bytes,
) -> None:
    line = only(raw)
    assert isinstance(line, Odd)
    assert (line.owners, line.spans) == ((), ())
    assert "incus fails" in line.problem


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"web:1\n", "expected owner:start:count"),
        (b":1:2\n", "no owner"),
        (b"web:x:1\n", "not a number"),
        (b"web:1:2\r\n", "CR LF"),
        (b"web:4294967296:2\n", "more than 32 bits"),
        (b"web:1:4294967296\n", "more than 32 bits"),
        (b"\xc2\xa0web:1:2\n", "readers disagree"),
        (b"web:1:2 # c\n", "readers disagree"),
        (of_length(1024), "shadow rejects"),
    ],
)
def test_a_problem_says_what_is_wrong_with_the_line(raw: bytes, said: str) -> None:
    line = only(raw)
    assert isinstance(line, Odd)
    assert said in line.problem


@pytest.mark.parametrize(
    ("length", "kind"), [(1022, Grant), (1023, Grant), (1024, Odd), (5000, Odd)]
)
def test_a_line_of_1024_characters_or_more_is_odd(length: int, kind: type[Grant | Odd]) -> None:
    line = only(of_length(length))
    assert isinstance(line, kind)
    assert subid.parse(line.raw).claimed() == IdSet([IdRange(5, 7)])


def test_a_number_of_thousands_of_digits_is_no_error() -> None:
    raw = b"web:" + b"9" * 5000 + b":1\nweb:1:" + b"9" * 5000 + b"\n"
    assert subid.parse(raw).raw == raw


@pytest.mark.parametrize("number", [b"18446744073709551616", b"99999999999999999999"])
def test_a_number_past_64_bits_is_not_understood_alike_by_every_reader(number: bytes) -> None:
    # strtoul(3) and Go's Atoi give up on it, each in its own way.
    assert isinstance(only(b"web:" + number + b":1\n"), Odd)


def test_a_line_with_a_null_byte_is_not_understood_alike_by_every_reader() -> None:
    # C's strings end there: shadow reads an owner without numbers.
    assert isinstance(only(b"web\0:1:2\n"), Odd)


def test_a_broken_line_of_another_owner_does_not_hide_the_next_one() -> None:
    file = subid.parse(b"other:x\nweb:5:7\n")
    assert [line.number for line in file.by_owner()["web"]] == [2]
    assert file.claimed() == IdSet([IdRange(5, 7)])


def test_owners_are_kept_apart_by_name_and_by_uid_and_in_file_order() -> None:
    file = subid.parse(b"web:10:1\n1000:20:1\nweb:5:1\n web:7:1\n")
    by_owner = file.by_owner()
    assert {owner: [line.number for line in lines] for owner, lines in by_owner.items()} == {
        "web": [1, 3, 4],
        "1000": [2],
        " web": [4],
    }


def test_what_ends_past_the_last_id_claims_only_ids_that_exist() -> None:
    assert list(subid.parse(b"web:4294967290:65536\n").claimed()) == [IdRange(4294967290, 5)]
    assert subid.parse(b"web:4294967295:1\n").claimed() == IdSet()
    # But Docker cuts a number to 32 bits, which is seen in a container's map.
    assert subid.parse(b"web:5000000000:9\n").claimed() == IdSet([IdRange(5000000000 - 2**32, 9)])


def test_a_line_of_no_ids_claims_none() -> None:
    assert subid.parse(b"web:100000:0\n").claimed() == IdSet()


@pytest.mark.parametrize(("raw", "exists"), [(None, False), (b"", True)])
def test_a_file_that_is_not_there_is_empty_and_known_to_be_missing(
    raw: bytes | None, exists: bool
) -> None:
    file = subid.parse(raw)
    assert (file.lines, file.raw, file.exists) == ((), b"", exists)


def test_a_hundred_thousand_lines_are_read_and_edited() -> None:
    lines = [b"u%d:%d:65536\n" % (i, 65536 * (i % 60000 + 1)) for i in range(100_000)]
    raw = b"".join(lines)
    file = subid.parse(raw)
    assert file.raw == raw
    assert file.claimed() == IdSet([IdRange(65536, 60000 * 65536)])
    assert len(file.by_owner()) == 100_000
    assert subid.without_lines(raw, lines[::2]) == b"".join(lines[1::2])
    assert subid.added_lines(b"".join(lines[1::2]), raw) == tuple(lines[::2])


def test_a_written_line_is_decimal_without_blanks_and_ends_in_lf() -> None:
    assert subid.line("müller", IdRange(100000, 65536)) == b"m\xc3\xbcller:100000:65536\n"


@pytest.mark.parametrize(
    "owner",
    [
        "",
        " ",
        "a b",
        "a:b",
        "a\n",
        "a\nroot",
        "a\r",
        "#web",
        "a#b",
        "+web",
        "-web",
        "+",
        "\tx",
        "w" * 1100,
    ],
)
def test_an_owner_that_would_break_the_line_is_refused(owner: str) -> None:
    with pytest.raises(InvalidValueError, match="cannot be the owner"):
        subid.line(owner, IdRange(1, 1))
    assert not subid.is_owner(owner)


@pytest.mark.parametrize("code", [0xDCFF, 0xD800])
def test_an_owner_that_utf_8_cannot_write_is_refused(code: int) -> None:
    with pytest.raises(InvalidValueError, match="cannot be the owner"):
        subid.line(f"w{chr(code)}b", IdRange(1, 1))
    assert not subid.is_owner(f"w{chr(code)}b")


@pytest.mark.parametrize("owner", ["web", "0", "dépôt", "a-b.c_d", "w" * 1000])
def test_what_can_be_the_owner_of_a_line(owner: str) -> None:
    assert subid.line(owner, IdRange(0, 1)) == f"{owner}:0:1\n".encode()
    assert subid.is_owner(owner)


@pytest.mark.parametrize(
    ("raw", "after"),
    [
        (b"", b"web:5:7\n"),
        (b"a:1:1\n", b"a:1:1\nweb:5:7\n"),
        (b"a:1:1", b"a:1:1\nweb:5:7\n"),
        (b"# end", b"# end\nweb:5:7\n"),
        (b"a:1:1\r\n", b"a:1:1\r\nweb:5:7\n"),
        (b"\n\n", b"\n\nweb:5:7\n"),
    ],
)
def test_new_lines_go_to_the_end_and_never_onto_a_line_without_its_end(
    raw: bytes, after: bytes
) -> None:
    assert subid.with_lines(raw, [b"web:5:7\n"]) == after


@pytest.mark.parametrize("raw", [b"", b"a:1:1", b"a:1:1\n"])
def test_adding_nothing_changes_nothing(raw: bytes) -> None:
    assert subid.with_lines(raw, []) == raw
    assert subid.without_lines(raw, []) == raw


@pytest.mark.parametrize(
    ("raw", "unwanted", "after"),
    [
        (b"a:1:1\nb:2:2\na:1:1\n", [b"a:1:1\n"], b"a:1:1\nb:2:2\n"),
        (b"a:1:1\nb:2:2\na:1:1\n", [b"a:1:1\n", b"a:1:1\n"], b"b:2:2\n"),
        (b"a:1:1\nb:2:2\n", [b"a:1:1\n", b"a:1:1\n"], b"b:2:2\n"),
        (b"b:2:2\na:1:1", [b"a:1:1\n"], b"b:2:2\n"),
        (b"a:1:1\r\n", [b"a:1:1\n"], b"a:1:1\r\n"),
        (b"# a:1:1\na:1:10\n", [b"a:1:1\n"], b"# a:1:1\na:1:10\n"),
    ],
)
def test_one_line_goes_for_each_that_is_named_the_last_one_first(
    raw: bytes, unwanted: list[bytes], after: bytes
) -> None:
    assert subid.without_lines(raw, unwanted) == after


@pytest.mark.parametrize(
    ("before", "after", "added"),
    [
        (b"", b"a:1:1\n", (b"a:1:1\n",)),
        (b"a:1:1\n", b"a:1:1\n", ()),
        (b"a:1:1", b"a:1:1\nb:1:1\n", (b"b:1:1\n",)),
        (b"a:1:1\n", b"a:1:1\na:1:1\n", (b"a:1:1\n",)),
        (b"a:1:1\nb:1:1\n", b"b:1:1\na:1:1\n", ()),
        (b"a:1:1\n", b"", ()),
        (b"a:1:1\n", b"a:1:1\r\n", (b"a:1:1\r\n",)),
    ],
)
def test_added_lines_are_those_that_were_not_there_as_often(
    before: bytes, after: bytes, added: tuple[bytes, ...]
) -> None:
    assert subid.added_lines(before, after) == added
