"""shadow from 4.20 on, asked what we say about it.

No distribution that we test on has it. Build it (./autogen.sh && make), copy getsubids, useradd, usermod and
libsubid.so.6 from its folders into one, and name that folder in NEW_SHADOW.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.oracle import needs, under_etc
from tests.unit.states import asked, carried_out, state
from tests.unit.subid_lines import LINES, short
from usernsplan import IdRange, make_plan
from usernsplan.audit import Facts, check
from usernsplan.claims import computed
from usernsplan.claims.useradd import useradd
from usernsplan.formats import readers, subid
from usernsplan.host import programs
from usernsplan.layout import Layout

FOLDER = Path(os.environ.get("NEW_SHADOW", "/nonexistent"))
pytestmark = [
    needs("useradd"),
    pytest.mark.skipif(not (FOLDER / "useradd").exists(), reason="NEW_SHADOW names no shadow 4.20"),
]
# Of the accounts of the oracle's /etc.
PEOPLE = {"root", "web", "0", "1234"}
DEFS = b"SUB_UID_DETERMINISTIC yes\nSUB_GID_DETERMINISTIC yes\nSUB_UID_MIN 100000\nSUB_UID_MAX 600100000\n"


def new(program: str, *words: str) -> tuple[str, ...]:
    return ("env", f"LD_LIBRARY_PATH={FOLDER}", str(FOLDER / program), *words)


def has_account(owner: str) -> bool:
    return owner in PEOPLE


@pytest.mark.parametrize("raw", [raw for raw, _ in LINES], ids=short)
@pytest.mark.parametrize("owner", ["web", "1234"])
def test_getsubids_sees_what_the_model_says(tmp_path: Path, raw: bytes, owner: str) -> None:
    reading = readers.of_line(raw, has_account)[1]
    assert reading.reader == "shadow 4.20"
    expected = [(start, count) for name, start, count in reading.takes if name in {"web", "1234"}]
    answer = under_etc(tmp_path, {"subuid": subid.ended(raw)}, *new("getsubids", owner))
    found = re.findall(rb"(?m)^\d+: \S+ (\d+) (\d+)$", answer.stdout)
    assert [(int(start), int(count)) for start, count in found] == expected
    if reading.fails:
        assert b"Non-text file" in answer.stderr


@pytest.mark.parametrize("owner", ["nobodyhere", "77"])
def test_an_owner_without_account_has_nothing(tmp_path: Path, owner: str) -> None:
    raw = f"{owner}:5:70000\n".encode()
    answer = under_etc(tmp_path, {"subuid": raw}, *new("getsubids", owner))
    assert answer.returncode == 1
    assert not readers.of_line(raw, has_account)[1].takes


def test_a_file_without_its_last_newline_has_nothing(tmp_path: Path) -> None:
    answer = under_etc(tmp_path, {"subuid": b"web:5:70000"}, *new("getsubids", "web"))
    assert b"Non-text file" in answer.stderr


@pytest.mark.parametrize("uid", [999, 1000, 1003, 10154, 10155, 60000])
@pytest.mark.parametrize(
    "raw",
    [
        DEFS,
        DEFS + b"SUB_UID_COUNT 1000\nUID_MIN 990\n",
        DEFS + b"SUB_UID_MAX 231072\n",
        DEFS + b"SUB_UID_MAX 231072\nUNSAFE_SUB_UID_DETERMINISTIC_WRAP Yes\n",
        DEFS + b"SUB_UID_MAX 9\n",
        b"SUB_UID_DETERMINISTIC yes\n",
        b'SUB_UID_DETERMINISTIC "yes"\n',
        b"SUB_UID_DETERMINISTIC yes\nSUB_UID_MIN 0x\nUID_MIN many\n",
        b"SUB_UID_DETERMINISTIC yes # c\n",
    ],
)
def test_useradd_writes_the_range_that_we_compute(tmp_path: Path, raw: bytes, uid: int) -> None:
    # With -F it does not ask whether the uid is that of a person.
    others = b"bob:100000:600000000\n" if b"# c" not in raw else b""
    answer = under_etc(
        tmp_path,
        {"login.defs": raw, "subuid": others},
        *new("useradd", "--no-create-home", "-F", "--uid", str(uid), "fresh"),
    )
    of_uids = [one for one in computed.read(raw) if one.kind == "uid"]
    written = re.findall(rb"fresh:(\d+):(\d+)\n", (tmp_path / "subuid").read_bytes())
    start = of_uids[0].start_of(uid) if of_uids else None
    if b"# c" in raw:
        assert written == [(b"100000", b"65536")]
    elif start is None:
        assert answer.returncode in {16, 18}
        assert not written
    else:
        assert written == [(b"%d" % start, b"%d" % of_uids[0].size)]


@pytest.mark.parametrize(
    ("raw", "taken"),
    [
        (DEFS + b"UID_MAX 1005\n", ()),
        (DEFS + b"UID_MAX 1005\n", (1003,)),
        (DEFS + b"UID_MAX 1005\nSUB_UID_MAX 296607\n", ()),
        (DEFS + b"UID_MAX 1005\nSUB_UID_MAX 296607\n", (1004,)),
        (DEFS + b"UID_MAX 1005\nSUB_UID_MAX 296607\n", (1005, 1001)),
    ],
)
def test_as_many_users_get_ids_as_we_say(
    tmp_path: Path, raw: bytes, taken: tuple[int, ...]
) -> None:
    passwd = b"".join(b"u%d:x:%d:1::/:/bin/sh\n" % (uid, uid) for uid in taken)
    said = useradd(state(login_defs=raw, passwd=passwd))
    assert said is not None
    words = " ".join(new("useradd", "--no-create-home", "-N"))
    loop = f"n=0; while [ $n -lt 20 ] && {words} fresh$n 2>/dev/null; do n=$((n+1)); done; echo $n"
    files = {"login.defs": raw, "passwd": passwd}
    answer = under_etc(tmp_path, files, "sh", "-c", loop)
    assert int(answer.stdout) == said.users


# 15500960-15566495 is uid 1235's by its uid, and 15532032 the first multiple of 65536 in it.
@pytest.mark.parametrize("start", [None, 15532032])
def test_a_useradd_that_computes_meets_only_a_range_that_was_asked_for(
    tmp_path: Path, start: int | None
) -> None:
    raw = DEFS.replace(b"SUB_UID_MAX", b"SUB_GID_MIN 100000\nSUB_GID_MAX 600100000\nSUB_UID_MAX")
    pool = IdRange(start, 65536) if start else None
    host = state(login_defs=raw, passwd=b"web:x:1234:1234::/:/bin/sh\n")
    after = carried_out(host, make_plan(host, asked("db", start=start, pool=pool)))
    given = {"subuid": after.subuid.raw, "subgid": after.subgid.raw, "login.defs": raw}
    # The uids after web's: 1235 to 1240.
    words_of_useradd = " ".join(new("useradd", "--no-create-home"))
    loop = f"for n in 1 2 3 4 5 6; do {words_of_useradd} fresh$n || exit; done"
    assert under_etc(tmp_path, given, "sh", "-c", loop).returncode == 0
    subuid, subgid = ((tmp_path / name).read_bytes() for name in ("subuid", "subgid"))
    assert subuid.count(b"fresh") == 6
    then = replace(after, subuid=subid.parse(subuid), subgid=subid.parse(subgid))
    found = {one.code for one in check(Facts(then), {"USN001", "USN002"})}
    assert found == (set() if start is None else {"USN002"})


def test_usermod_writes_one_id_too_many_and_check_says_so(tmp_path: Path) -> None:
    """4.20.2 takes the count for the last id: usermod.c, find_range."""
    answer = under_etc(tmp_path, {"login.defs": DEFS}, *new("usermod", "--add-subids", "web"))
    assert answer.returncode == 0
    lines = (tmp_path / "subuid").read_bytes()
    # web is 1234: 100000 + 234 * 65536.
    assert lines == b"web:15435424:65537\n"
    passwd = b"web:x:1234:1234::/:/bin/sh\n"
    host = state(lines, (tmp_path / "subgid").read_bytes(), login_defs=DEFS, passwd=passwd)
    [one, _] = check(Facts(host), {"USN091"})
    assert "uid 1235" in one.message


def test_store_by_uid_writes_the_uid_as_the_owner(tmp_path: Path) -> None:
    raw = b"SUB_UID_STORE_BY_UID yes\n"
    under_etc(tmp_path, {"login.defs": raw}, *new("usermod", "-v", "5-9", "web"))
    assert (tmp_path / "subuid").read_bytes() == b"1234:5:5\n"


def test_its_programs_are_recognized(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr/sbin").mkdir(parents=True)
    assert not programs.owners_need_accounts(Layout(str(tmp_path)))
    (tmp_path / "usr/sbin/useradd").write_bytes((FOLDER / "useradd").read_bytes())
    assert programs.owners_need_accounts(Layout(str(tmp_path)))
