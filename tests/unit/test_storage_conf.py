"""Options in a storage.conf that others wrote."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usernsplan.errors import InvalidFileError
from usernsplan.formats.storage_conf import with_options

OPTIONS = {"auto-userns-min-size": "65536", "root-auto-userns-user": '"containers"'}
WHOLE = b"""\
# The default storage
[storage]
driver = "overlay"   # kept
runroot = "/run/containers/storage"

[storage.options]
# auto-userns-min-size = 1024
auto-userns-min-size=1024
additionalimagestores = [
]

[storage.options.overlay]
auto-userns-min-size = 7
mountopt = "nodev"
"""


def test_a_key_is_changed_in_its_place_and_another_put_below_the_header() -> None:
    expected = WHOLE.replace(b"auto-userns-min-size=1024", b"auto-userns-min-size = 65536")
    expected = expected.replace(
        b"[storage.options]\n", b'[storage.options]\nroot-auto-userns-user = "containers"\n'
    )
    assert with_options(WHOLE, OPTIONS) == expected
    assert with_options(expected, OPTIONS) == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"[storage.options]\na = 1\n"),
        (b'[storage]\ndriver = "vfs"\n', b'[storage]\ndriver = "vfs"\n[storage.options]\na = 1\n'),
        (b'[storage]\ndriver = "vfs"', b'[storage]\ndriver = "vfs"\n[storage.options]\na = 1\n'),
        (b"[ storage.options ] # x\n", b"[ storage.options ] # x\na = 1\n"),
        (b"[storage.options]", b"[storage.options]\na = 1"),
        (b"[storage.options]\n[[more]]\na = 2\n", b"[storage.options]\na = 1\n[[more]]\na = 2\n"),
        (b'[storage.options]\n"a" = 2\n', b"[storage.options]\na = 1\n"),
    ],
)
def test_where_there_is_no_such_key_or_section_it_is_made(before: bytes, after: bytes) -> None:
    assert with_options(before, {"a": "1"}) == after


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with 3.11")
@given(
    st.lists(
        st.sampled_from([
            "[storage]", "[storage.options]", "[storage.options.overlay]", 'driver = "vfs"', "# a", "",
            "auto-userns-min-size = 1024", "x = 3",
        ])
    )
)  # fmt: skip
def test_a_toml_reader_finds_the_values_and_everything_else_as_it_was(lines: list[str]) -> None:
    import tomllib  # noqa: PLC0415 - since 3.11

    text = "\n".join(lines)
    try:
        before = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    storage = before.get("storage", {})
    ours = {"auto-userns-min-size": 65536, "root-auto-userns-user": "containers"}
    expected = before | {"storage": storage | {"options": storage.get("options", {}) | ours}}
    assert tomllib.loads(with_options(text.encode(), OPTIONS).decode()) == expected


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with 3.11")
@pytest.mark.parametrize("raw", [b"\xff\n", b"[storage.options", b"[storage]\noptions.a = 2\n"])
def test_what_would_be_no_toml_any_more_is_not_written(raw: bytes) -> None:
    with pytest.raises(InvalidFileError, match=r"storage\.conf: cannot take these options"):
        with_options(raw, {"a": "1"})
