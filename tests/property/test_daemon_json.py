"""Random configurations in random styles: an edit is exact, and what is accepted is what strict JSON is."""

from __future__ import annotations

import json
from itertools import pairwise, takewhile
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usernsplan.errors import InvalidFileError
from usernsplan.formats.daemon_json import DATA_ROOT, REMAP, parse, with_remap, without_remap

Json = dict[str, object]

TEXT = st.text(max_size=6) | st.sampled_from(
    ['"', "\\", "{", "}", ",", ":", "//", "é", "\U0001f433", "\n"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.just(REMAP), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = (TEXT | st.sampled_from(["log-driver", "hosts", "labels"])).filter(
    lambda key: key not in {REMAP, DATA_ROOT}
)
CONFIGS = st.dictionaries(KEYS, VALUES, max_size=5)
NEW = st.sampled_from(["default", "web", "100000:100000", 'a"b', "é"])


@st.composite
def written(draw: st.DrawFn, config: Json) -> bytes:
    """Write a configuration with any indentation, separators, escapes, line ends, and blanks around it."""
    text = json.dumps(
        dict(draw(st.permutations(list(config.items())))),
        indent=draw(st.sampled_from([None, 0, 1, 2, 4, "\t"])),
        separators=(
            draw(st.sampled_from([",", ", ", " ,\n"])),
            draw(st.sampled_from([":", ": ", " : ", ":\n\t"])),
        ),
        ensure_ascii=draw(st.booleans()),
    )
    text = (
        draw(st.sampled_from(["", "\n", "  "])) + text + draw(st.sampled_from(["", "\n", " \n\n"]))
    )
    return (text.replace("\n", "\r\n") if draw(st.booleans()) else text).encode()


def same_at_both_ends(one: bytes, two: bytes) -> int:
    """Count the bytes that two files share from the start on, and from the end back."""

    def same(first: bytes, second: bytes) -> int:
        return len(
            list(takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
        )

    return same(one, two) + same(one[::-1], two[::-1])


def strictly(raw: bytes) -> Json | None:
    """Read it with the standard library, made as strict as we mean to be: an object, or None for a refusal."""

    def no_constant(name: str) -> NoReturn:
        raise ValueError(name)

    def no_duplicates(pairs: list[tuple[str, object]]) -> Json:
        keys = sorted(key for key, _ in pairs)
        if any(one == two for one, two in pairwise(keys)):
            raise ValueError(keys)
        return dict(pairs)

    try:
        found = json.loads(
            raw.decode(), parse_constant=no_constant, object_pairs_hook=no_duplicates
        )
    except ValueError:
        return None
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key, ""), str) for key in (REMAP, DATA_ROOT)
    ):
        return None
    return found


@given(st.data(), CONFIGS, NEW)
def test_the_file_with_the_key_says_the_same_and_the_key(
    data: st.DataObject, config: Json, new: str
) -> None:
    raw = data.draw(written(config))
    after = with_remap(parse(raw, "f"), new)
    assert json.loads(after) == {**config, REMAP: new}
    assert list(json.loads(after))[-1] == REMAP
    if config:
        # One piece was put in, and both sides of it are the file as it was.
        assert same_at_both_ends(raw, after) >= len(raw)
        assert without_remap(parse(after, "f")) == raw
    assert json.loads(without_remap(parse(after, "f"))) == config


@given(st.data(), CONFIGS, NEW)
def test_only_the_value_changes_where_the_key_is_there(
    data: st.DataObject, config: Json, new: str
) -> None:
    raw = data.draw(written({**config, REMAP: "\x01sentinel"}))
    assert raw.count(b'"\\u0001sentinel"') == 1
    after = with_remap(parse(raw, "f"), new)
    assert after == raw.replace(b'"\\u0001sentinel"', json.dumps(new).encode())
    assert with_remap(parse(after, "f"), new) == after
    assert parse(after, "f").get(REMAP) == new


@given(st.data(), CONFIGS)
def test_the_file_without_the_key_says_the_rest_in_the_same_bytes(
    data: st.DataObject, config: Json
) -> None:
    raw = data.draw(written({**config, REMAP: "web"}))
    after = without_remap(parse(raw, "f"))
    assert json.loads(after) == config
    assert list(json.loads(after)) == [key for key in json.loads(raw) if key != REMAP]
    # One piece was taken out, and what is left is the file as it was.
    assert same_at_both_ends(raw, after) >= len(after)
    assert without_remap(parse(after, "f")) == after


@given(st.data(), CONFIGS)
def test_every_member_is_where_the_reader_says_it_is(data: st.DataObject, config: Json) -> None:
    raw = data.draw(written(config))
    read = parse(raw, "f")
    assert {m.key: json.loads(read.text[m.value_at : m.end]) for m in read.members} == config
    assert all(json.JSONDecoder().raw_decode(read.text, m.key_at)[0] == m.key for m in read.members)


SOUP = st.text(alphabet='{}[]:,"\\ \n\tu0159ae.-+/\ufeff', max_size=24).map(str.encode)
PIECES = st.lists(
    st.sampled_from(
        [
            '"a"',
            '"\\u0061"',
            '"userns-remap"',
            "{",
            "}",
            "[",
            "]",
            ":",
            ":",
            ",",
            "1",
            "-",
            "0",
            "NaN",
            " ",
            "//",
        ]
    ),
    max_size=14,
).map(lambda pieces: ("{" + "".join(pieces) + "}").encode())


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    raw = draw(
        written(
            draw(st.dictionaries(TEXT | st.sampled_from([REMAP, DATA_ROOT]), VALUES, max_size=4))
        )
    )
    at = draw(st.integers(0, len(raw)))
    return (
        raw[:at]
        + draw(st.sampled_from([b"", b",", b'"', b"}", b"\xff", b"1", b"//", b"\\"]))
        + raw[at + draw(st.integers(0, 2)) :]
    )


@pytest.mark.parametrize(
    "texts", [SOUP, PIECES, damaged()], ids=["characters", "tokens", "damaged files"]
)
@given(data=st.data())
def test_a_file_is_read_exactly_when_strict_json_is_an_object(
    texts: st.SearchStrategy[bytes], data: st.DataObject
) -> None:
    raw = data.draw(texts)
    if not raw.strip():
        return
    place, keys = "", []
    try:
        keys = [member.key for member in parse(raw, "f").members]
    except InvalidFileError as error:
        place = str(error)
    expected = strictly(raw)
    if expected is not None:
        assert (keys, place) == (list(expected), "")
        return
    assert place
    line, column = map(int, place.split(":")[1:3])
    rows = raw.split(b"\n")
    assert 1 <= line <= len(rows)
    assert 1 <= column <= len(rows[line - 1]) + 1
