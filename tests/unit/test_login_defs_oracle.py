"""The first range that useradd hands out starts where we read that it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.oracle import needs, under_etc
from usernsplan.errors import InvalidFileError
from usernsplan.formats import login_defs, subid

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs("useradd")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SUB_UID_MIN 200000\nSUB_UID_COUNT 10\n",
        b"SUB_UID_MIN\t0x30d40\nSUB_UID_COUNT\t0x10\n",
        b"SUB_UID_MIN 01000000\nSUB_UID_COUNT 010\n",
        b'  SUB_UID_MIN  "200000"  \r\n',
        b"#SUB_UID_MIN 200000\n # SUB_UID_COUNT 5\n",
        b"SUB_UID_MIN 1\nSUB_UID_MIN 200000",
        b"SUB_UID_MIN=200000\n",
        b"SUB_UID_MIN 200000 # c\n",
        b"SUB_UID_MIN 08\n",
        b"SUB_UID_MIN abc\n",
        b'SUB_UID_MIN ""\n',
        b"SUB_UID_MIN\n",
        b"SUB_UID_MIN 200000\nSUB_UID_MIN \n",
        b'"SUB_UID_MIN 200000\n',
        b"SUB_UID_MIN abc\nSUB_UID_MIN 200000\n",
        b"SUB_UID_MIN +200000\n",
        b'SUB_UID_MIN "200000" c\n',
    ],
)
def test_useradd_takes_the_numbers_that_we_read(tmp_path: Path, raw: bytes) -> None:
    answer = under_etc(tmp_path, {"login.defs": raw}, "useradd", "--no-create-home", "fresh")
    assert answer.returncode == 0, answer.stderr
    refused = b"cannot parse" in answer.stderr
    try:
        found = login_defs.parse(raw, "login.defs")
    except InvalidFileError:
        assert refused
    else:
        assert not refused
        line = f"fresh:{found.sub_uid_min}:{found.sub_uid_count}\n".encode()
        assert [entry.raw for entry in subid.parse((tmp_path / "subuid").read_bytes()).lines] == [
            line
        ]
