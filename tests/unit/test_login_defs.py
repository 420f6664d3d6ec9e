"""login.defs: the six keys as shadow reads them."""

from __future__ import annotations

import pytest

from usernsplan.errors import InvalidFileError
from usernsplan.formats.login_defs import LoginDefs, parse


def uid_min(raw: bytes) -> int:
    return parse(raw, "login.defs").sub_uid_min


@pytest.mark.parametrize(
    "raw",
    [b"", b"\n\n", b"# nothing\n", b"UID_MIN 1000\n", b"SUB_UID_MINIMUM 7\n", b"\xff\xfe 7\n"],
)
def test_where_the_file_is_silent_shadows_defaults_hold(raw: bytes) -> None:
    assert parse(raw, "f") == LoginDefs(100000, 600100000, 65536, 100000, 600100000, 65536)


def test_all_six_keys_are_read() -> None:
    names = [
        "SUB_UID_MIN",
        "SUB_UID_MAX",
        "SUB_UID_COUNT",
        "SUB_GID_MIN",
        "SUB_GID_MAX",
        "SUB_GID_COUNT",
    ]
    raw = "".join(f"{name} {number}\n" for number, name in enumerate(names, 1)).encode()
    assert parse(raw, "f") == LoginDefs(1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"SUB_UID_MIN 200000\n", 200000),
        (b"SUB_UID_MIN 200000", 200000),
        (b"SUB_UID_MIN\t\t200000\n", 200000),
        (b"\t SUB_UID_MIN  200000  \n", 200000),
        (b"SUB_UID_MIN 200000\r\n", 200000),
        (b'SUB_UID_MIN "200000"\n', 200000),
        (b"SUB_UID_MIN 0x30d40\n", 200000),
        (b"SUB_UID_MIN 0X30D40\n", 200000),
        (b"SUB_UID_MIN 0606500\n", 200000),
        (b"SUB_UID_MIN 0\n", 0),
        (b"SUB_UID_MIN 00\n", 0),
        (b"SUB_UID_MIN 1\nSUB_UID_MIN 200000\n", 200000),
        (b"#SUB_UID_MIN 200000\n", 100000),
        (b"# SUB_UID_MIN 200000\n", 100000),
        (b"  #SUB_UID_MIN 200000\n", 100000),
        (b"SUB_UID_MIN=200000\n", 100000),
        (b"sub_uid_min 200000\n", 100000),
        (b"\xff\xff\nSUB_UID_MIN 200000\n", 200000),
    ],
)
def test_a_number_is_read_as_shadow_reads_it(raw: bytes, value: int) -> None:
    assert uid_min(raw) == value


@pytest.mark.parametrize(
    "value",
    [
        "abc",
        "10x",
        "0x",
        "08",
        "1e5",
        "1_000",
        "100000 # c",
        "# 100000",
        '""',
        "1.5",
        "\u0661",
        "0b1",
        "0o7",
        "1 2",
    ],
)
def test_what_shadow_cannot_read_is_refused_with_its_line(value: str) -> None:
    with pytest.raises(InvalidFileError, match=r"^login\.defs:2: SUB_UID_MIN is"):
        uid_min(f"# c\nSUB_UID_MIN {value}\n".encode())


def test_a_number_of_thousands_of_digits_is_refused_with_its_line() -> None:
    with pytest.raises(InvalidFileError, match=r"^login\.defs:1: "):
        uid_min(b"SUB_UID_MIN " + b"9" * 5000)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"SUB_UID_MIN 9\nSUB_UID_MAX 5\n", LoginDefs(sub_uid_min=9, sub_uid_max=5)),
        (b"SUB_UID_COUNT 0\n", LoginDefs(sub_uid_count=0)),
        (b"SUB_GID_MAX 99999999999\n", LoginDefs(sub_gid_max=99999999999)),
    ],
)
def test_what_makes_no_sense_together_is_read_as_it_stands(raw: bytes, expected: LoginDefs) -> None:
    assert parse(raw, "f") == expected
