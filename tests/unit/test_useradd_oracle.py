"""When useradd runs out of ranges: what we say, against the real one, which is run until it does."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.command import missing, needs_root
from tests.unit.states import state
from usernsplan.claims.useradd import useradd

if TYPE_CHECKING:
    from pathlib import Path

DEFS = "SUB_{0}_MIN {1}\nSUB_{0}_MAX {2}\nSUB_{0}_COUNT {3}\n"
NOBODY_S_LIMIT = 40


def defs(*area: int, gids: tuple[int, ...] = ()) -> bytes:
    return (DEFS.format("UID", *area) + DEFS.format("GID", *(gids or area))).encode()


@needs_root
@pytest.mark.parametrize(
    ("login_defs", "subuid", "subgid"),
    [
        (defs(100, 200, 10), b"", b""),
        (defs(100, 199, 10), b"", b""),
        (defs(100, 198, 10), b"", b""),
        (defs(100, 200, 10, gids=(100, 139, 10)), b"", b""),
        # holes between lines, unsorted, overlapping, below and above the area
        (defs(100, 200, 10), b"b:150:7\na:105:12\nc:110:3\nd:50:51\ne:190:100\n", b""),
        # what only some readers take for a line, and an empty line, which divides a hole
        (
            defs(100, 200, 10),
            b"#c:105:3\na:0x80:2\nb:0226:1\nd:115:0\n",
            b"x: 120:1:junk\ny:1:99 # c\nz:130\n",
        ),
        (defs(100, 200, 10), b"a:90:-20\nb:185:3\r\n:150:10\n", b"-a:120:60\n"),
        # the whole area is somebody's
        (defs(100, 200, 10), b"a:0:4294967295\n", b""),
        # no file, or no count: nothing of that sort
        (defs(100, 200, 10), b"a:100:50\n", None),
        (defs(100, 200, 10, gids=(100, 200, 0)), b"a:100:50\n", b"a:100:90\n"),
        # what it refuses before it looks
        (defs(1, 5, 5), b"", b""),
        (defs(1, 6, 5), b"", b""),
        (defs(200, 100, 10), b"", b""),
    ],
)
def test_as_many_users_get_ids_as_we_say(
    tmp_path: Path, login_defs: bytes, subuid: bytes, subgid: bytes | None
) -> None:
    if shutil.which("useradd") is None:
        missing("useradd")
    etc = tmp_path / "etc"
    etc.mkdir()
    files = {"passwd": b"", "group": b"", "shadow": b"", "gshadow": b"", "login.defs": login_defs}
    for name, content in {**files, "subuid": subuid, "subgid": subgid}.items():
        if content is not None:
            (etc / name).write_bytes(content)
    said = useradd(state(subuid, subgid, login_defs=login_defs))
    assert said is not None
    added = 0
    while added < NOBODY_S_LIMIT:
        words = ["useradd", "--prefix", str(tmp_path), "-K", "UID_MIN=1000", f"user{added}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            # "can't create subordinate user IDs", or group IDs
            assert done.returncode in {16, 18}, done.stderr
            break
        added += 1
    assert added == said.users
    given = [
        re.findall(rb"(?m)^user\d+:", (etc / name).read_bytes())
        for name in ("subuid", "subgid")
        if (etc / name).exists()
    ]
    assert max(map(len, given)) == added


def test_where_neither_sort_is_given_nobody_runs_out() -> None:
    found = useradd(state(None, None))
    assert found is not None
    assert found.users is None
