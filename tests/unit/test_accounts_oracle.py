"""glibc's getent and we see the same accounts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.unit.oracle import needs, under_etc
from usernsplan.formats.accounts import groups, users

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs("getent")

FIRST = b"root:x:0:0::/root:/bin/sh\n"


@pytest.mark.parametrize(
    "line",
    [
        b"web:x:1000:1001::/:/bin/sh\n",
        b"web:x:1000:1001",
        b"web:x:1000\n",
        b"web:x:0x10:1::/:\n",
        b"broken\n\nweb:x:5:6::/:\n",
        b"#old:x:1000:1000::/:\nweb:x:1000:1000::/:\n",
        b"  web:x:1000:1000::/:\n",
        b"web:x: 9:9::/:\n",
        b"web:x:+9:9::/:\n",
        b"web:x:\xd9\xa1:1::/:\n",
    ],
)
def test_getent_lists_the_accounts_that_we_read(tmp_path: Path, line: bytes) -> None:
    answer = under_etc(tmp_path, {"passwd": FIRST + line}, "getent", "--service=files", "passwd")
    listed = re.findall(r"^([^:]*):[^:]*:(\d+):(\d+):", answer.stdout.decode(), re.MULTILINE)
    assert [(user.name, str(user.uid), str(user.gid)) for user in users(FIRST + line)] == listed


@pytest.mark.parametrize(
    "line",
    [
        b"web:x:1000:a,b\n",
        b"web:x:7",
        b"web:x\n",
        b"web:x::\n",
        b"#old:x:7:\nweb:x:7:\n",
        b" web:x:7:\n",
        b"web:x:+7:\n",
    ],
)
def test_getent_lists_the_groups_that_we_read(tmp_path: Path, line: bytes) -> None:
    answer = under_etc(
        tmp_path, {"group": b"root:x:0:\n" + line}, "getent", "--service=files", "group"
    )
    listed = re.findall(r"^([^:]*):[^:]*:(\d+):", answer.stdout.decode(), re.MULTILINE)
    assert [(group.name, str(group.gid)) for group in groups(b"root:x:0:\n" + line)] == listed
