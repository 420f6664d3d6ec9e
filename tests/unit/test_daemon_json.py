"""daemon.json: what is refused and exactly where, and what an edit leaves byte for byte."""

from __future__ import annotations

import re

import pytest

from tests.each import each
from usernsplan.errors import InvalidFileError
from usernsplan.formats.daemon_json import DATA_ROOT, REMAP, parse, with_remap, without_remap


@each(
    ("raw", "place", "said"),
    [
        (b'{"a": }', "1:7", "value"),
        (b'{"a": 1', "1:8", "the file ends here"),
        (b'{"a"', "1:5", "the file ends here"),
        (b"{", "1:2", "the file ends here"),
        (b'{"a": [1, 2', "1:12", "the file ends here"),
        (b'{"a" 1}', "1:6", "expected ':'"),
        (b'{"a": 1 "b": 2}', "1:9", "expected ',' or '}'"),
        (b'{"a": [1 2]}', "1:10", "expected ',' or ']'"),
        (b'{\n  "a": 1,\n}\n', "3:1", "no trailing comma"),
        (b'{"a": [1, ]}', "1:11", "value"),
        (b'{\n  // remap\n  "a": 1\n}', "2:3", "no comment"),
        (b'{\n  "a": 1 /* c */\n}', "2:10", "expected ','"),
        (b"# c\n{}", "1:1", "expected an object"),
        (b"{}\n# c\n", "2:1", "unexpected text after"),
        (b"{} {}", "1:4", "unexpected text after"),
        (b'{"a": 1}}', "1:9", "unexpected text after"),
        (b"{'a': 1}", "1:2", "double quotes"),
        (b"{a: 1}", "1:2", "double quotes"),
        (b"[]", "1:1", "expected an object"),
        (b"\n null", "2:2", "expected an object"),
        (b'"userns-remap"', "1:1", "expected an object"),
        (b"\xef\xbb\xbf{}", "1:1", ""),
        (b'{"a": "\xff"}', "1:8", "not UTF-8"),
        (b'{\r\n  "a": "\xc3"}', "2:9", "not UTF-8"),
        (b'{"a": 01}', "1:8", "expected ','"),
        (b'{"a": 1.}', "1:8", "expected ','"),
        (b'{"a": +1}', "1:7", "value"),
        (b'{"a": 0x10}', "1:8", "expected ','"),
        (b'{"a": NaN}', "1:7", "not a JSON number"),
        (b'{"a": [1, -Infinity]}', "1:11", "not a JSON number"),
        (b'{"a": True}', "1:7", "value"),
        (b'{"a": tru}', "1:7", "value"),
        (b'{"a": "b\tc"}', "1:9", "control character"),
        (b'{"a": "b\nc"}', "1:9", "control character"),
        (b'{"a": "b\\x"}', "1:9", "escape"),
        (b'{"a": "b}', "1:7", "unterminated"),
        (b'{"a": 1,\n "a": 2}', "2:2", "duplicate key"),
        (b'{"a": {"b": 1,\n\t"b": 1}}', "2:2", "duplicate key"),
        (b'{"a": [{}, {"b": 1, "c": 2, "b": 3}]}', "1:29", "duplicate key"),
        (b'{"userns-remap": "a",\n "\\u0075serns-remap": "b"}', "2:2", "duplicate key"),
        (b'{"userns-remap": 5}', "1:18", "must be a string"),
        (b'{"userns-remap": true}', "1:18", "must be a string"),
        (b'{"userns-remap": null}', "1:18", "must be a string"),
        (b'{"userns-remap":\n ["a"]}', "2:2", "must be a string"),
        (b'{"\\u0075serns-remap": {}}', "1:23", "must be a string"),
        (b'{"data-root": 1.5}', "1:15", "must be a string"),
        (b'{"a":\xc2\xa01}', "1:6", "value"),
        (b"{\xc2\xa0}", "1:2", "double quotes"),
        ('{"é": 1, "é": 2}'.encode(), "1:10", "duplicate key"),
    ],
)
def test_what_the_daemon_would_stop_at_is_refused_with_line_and_column(
    raw: bytes, place: str, said: str
) -> None:
    with pytest.raises(InvalidFileError, match=rf"^daemon\.json:{place}: .*{re.escape(said)}"):
        parse(raw, "daemon.json")


def test_a_column_counts_characters_for_every_kind_of_error() -> None:
    for wrong in (b"?", b"\xff"):
        with pytest.raises(InvalidFileError, match=r"^f:1:7: "):
            parse('{"é": '.encode() + wrong + b"}", "f")


@pytest.mark.parametrize("depth", [300, 2000, 100_000])
def test_a_file_nested_too_deeply_is_refused_and_does_not_stop_the_program(depth: int) -> None:
    try:
        parse(b'{"a":' + b"[" * depth, "f")
    except InvalidFileError:
        return
    pytest.fail("an array that is never closed was read")


@pytest.mark.parametrize("raw", [b"", b"\n", b" \t\n\n"])
def test_an_empty_file_is_an_empty_configuration(raw: bytes) -> None:
    config = parse(raw, "f")
    assert (config.members, config.get(REMAP)) == ((), None)
    assert without_remap(config) == raw
    assert with_remap(config, "web") == b'{\n  "userns-remap": "web"\n}\n'


@pytest.mark.parametrize(
    ("raw", "remap", "root"),
    [
        (b"{}", None, None),
        (b'{"userns-remap": "web", "data-root": "/d"}', "web", "/d"),
        (b'{"userns-remap": ""}', "", None),
        (b'{"\\u0075serns-\\u0072emap":"\\u0077eb"}', "web", None),
        (b'{"a": {"userns-remap": "inner"}, "data-root": "\\/d"}', None, "/d"),
        (b'{"Userns-Remap": "web"}', None, None),
    ],
)
def test_a_key_is_found_at_the_top_level_however_it_is_written(
    raw: bytes, remap: str | None, root: str | None
) -> None:
    config = parse(raw, "f")
    assert (config.get(REMAP), config.get(DATA_ROOT)) == (remap, root)


@pytest.mark.parametrize(
    ("raw", "after"),
    [
        (b"{}", b'{\n  "userns-remap": "x"\n}'),
        (b"{ }\n", b'{\n  "userns-remap": "x"\n}\n'),
        (b'\n{"a":1}\n\n', b'\n{"a":1, "userns-remap":"x"}\n\n'),
        (b'{"a": 1}', b'{"a": 1, "userns-remap": "x"}'),
        (b'{ "a" : 1 }', b'{ "a" : 1, "userns-remap" : "x" }'),
        (b'{\n  "a": 1\n}\n', b'{\n  "a": 1,\n  "userns-remap": "x"\n}\n'),
        (
            b'{\n\t"a":\t{\n\t\t"b": 1\n\t}\n}',
            b'{\n\t"a":\t{\n\t\t"b": 1\n\t},\n\t"userns-remap":\t"x"\n}',
        ),
        (b'{\r\n    "a": 1\r\n}\r\n', b'{\r\n    "a": 1,\r\n    "userns-remap": "x"\r\n}\r\n'),
        (b'{"userns-remap": "old", "a":1}', b'{"userns-remap": "x", "a":1}'),
        (b'{"a":1,"\\u0075serns-remap" :\t""}', b'{"a":1,"\\u0075serns-remap" :\t"x"}'),
        (b'{"a": "}", "b": "{"}', b'{"a": "}", "b": "{", "userns-remap": "x"}'),
        ('{"é": "ü"}'.encode(), '{"é": "ü", "userns-remap": "x"}'.encode()),
    ],
)
def test_the_key_is_set_in_the_style_of_the_file_and_nothing_else_moves(
    raw: bytes, after: bytes
) -> None:
    assert with_remap(parse(raw, "f"), "x") == after


@pytest.mark.parametrize(
    ("raw", "after"),
    [
        (b"{}", b"{}"),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b'{"userns-remap": "x"}\n', b"{}\n"),
        (b'{\n  "userns-remap": "x"\n}\n', b"{}\n"),
        (b'{"userns-remap": "}"}', b"{}"),
        (b'{\n  "userns-remap": "x",\n  "a": 1\n}', b'{\n  "a": 1\n}'),
        (b'{\n  "a": 1,\n  "userns-remap": "x"\n}', b'{\n  "a": 1\n}'),
        (b'{"a": 1 , "userns-remap": "x" , "b": 2}', b'{"a": 1 , "b": 2}'),
        (b'{"a": {"userns-remap": "x"}}', b'{"a": {"userns-remap": "x"}}'),
        (b'{"a": 1,\r\n "\\u0075serns-remap": "x"}', b'{"a": 1}'),
    ],
)
def test_the_key_goes_with_its_comma_and_its_blanks(raw: bytes, after: bytes) -> None:
    assert without_remap(parse(raw, "f")) == after


def test_a_file_with_crlf_and_no_key_gets_no_bare_lf() -> None:
    assert b"\n" not in with_remap(parse(b"{\r\n}\r\n", "f"), "x").replace(b"\r\n", b"")


def test_a_value_is_escaped_as_json_wants_it() -> None:
    assert parse(with_remap(parse(b"{}", "f"), 'a"b\\c\né'), "f").get(REMAP) == 'a"b\\c\né'
