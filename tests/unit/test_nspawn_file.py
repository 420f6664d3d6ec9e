"""The ids that a .nspawn file gives to its machine. Expected values: systemd's source, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.each import each
from usernsplan import IdRange
from usernsplan.formats.nspawn_file import Fixed, private_users

VALUES = {
    "655360": (655360, 65536),
    "655360:131072": (655360, 131072),
    "655360:0x20000": (655360, 131072),
    "655360:0400000": (655360, 131072),
    "655360:0b100000000000000000": (655360, 131072),
    "655360:0o400000": (655360, 131072),
    "655360: +10": (655360, 10),
    # It maps the host's own ids, from the first one on, if a file says so.
    "0:10": (0, 10),
    "4294901759:65536": (4294901759, 65536),
    "4294901760:65536": None,
    "4294967295": None,
    "65535": None,
    "65534": (65534, 65536),
    "0xa0000": None,
    "0655360": None,
    " +655360": None,
    "+655360": None,
    "655360:0": None,
    "655360:08": None,
    "655360:-1": None,
    "655360:65536:0": None,
    "655360 # here": None,
    "655360:1_000": None,
    "655360:9999999999": None,
    f"655360:{'9' * 5000}": None,
    f"{'9' * 5000}": None,
    "": None,
    "yes": None,
    "On": None,
    "1": None,
    "0": None,
    "no": None,
    "pick": None,
    "identity": None,
    "managed": None,
}


@each("value", list(VALUES))
def test_a_value_means_what_systemd_takes_it_for(value: str) -> None:
    expected = VALUES[value]
    found = private_users(f"[Exec]\nPrivateUsers={value}\n".encode())
    assert found == (expected and Fixed(IdRange(*expected), 2))


FILES = {
    "the last one counts": (b"[Exec]\nPrivateUsers=1000000\nPrivateUsers=655360\n", 3),
    "what systemd ignores changes nothing": (
        b"[Exec]\nPrivateUsers=655360\nPrivateUsers=655360:x\nPrivateUsers\n",
        2,
    ),
    "a word takes it away": (b"[Exec]\nPrivateUsers=655360\nPrivateUsers=pick\n", None),
    "blanks around": (b"  [Exec]  \n\tPrivateUsers \t= 655360 \r\n", 2),
    "comments": (b"# x\n; y\n[Exec]\n  #PrivateUsers=1\nPrivateUsers=655360", 5),
    "another section": (b"[Files]\nPrivateUsers=655360\n", None),
    "no section": (b"PrivateUsers=655360\n", None),
    "the section goes on later": (b"[Exec]\n[Files]\nBind=/srv\n[Exec]\nPrivateUsers=655360\n", 5),
    "another case": (b"[exec]\nPrivateUsers=655360\n", None),
    "another key": (b"[Exec]\nprivateusers=655360\n", None),
    "continued": (b"[Exec]\nPrivateUsers=\\\n# between\n655360\n", 2),
    "continued, without an end": (b"[Exec]\nPrivateUsers=655360\\", 2),
    "a backslash that is one": (b"[Exec]\nX=\\\\\nPrivateUsers=655360\n", 3),
    "in a line that goes on": (b"[Exec]\nX=\\\nPrivateUsers=655360\n", None),
    "a byte order mark": (b"\xef\xbb\xbf[Exec]\nPrivateUsers=655360\n", 2),
    "a NUL ends a line": (b"[Exec]\0PrivateUsers=655360\0", 2),
    "other bytes": (b"\xff\xfe[Exec]\n[Exec]\n\xff=\xff\nPrivateUsers=655360\n", 4),
    "nothing": (b"", None),
}


@each("name", list(FILES))
def test_a_file_is_read_as_systemd_reads_it(name: str) -> None:
    raw, number = FILES[name]
    assert private_users(raw) == (number and Fixed(IdRange(655360, 65536), number))


@pytest.mark.parametrize("raw", [b"\\\n" * 100_000, b"[" * 1_000_000, b"=" * 1_000_000])
def test_no_file_takes_long(raw: bytes) -> None:
    assert private_users(b"[Exec]\n" + raw) is None


PIECES = st.sampled_from(
    (b"[Exec]", b"\n", b"\\", b"PrivateUsers", b"=", b"655360", b":", b"0x", b"\0", b"\xff", b" ")
)


@given(st.one_of(st.binary(), st.lists(PIECES).map(b"".join)))
def test_any_bytes_are_a_file(raw: bytes) -> None:
    fixed = private_users(raw)
    assert fixed is None or 1 <= fixed.number <= raw.count(b"\n") + raw.count(b"\0") + 1
