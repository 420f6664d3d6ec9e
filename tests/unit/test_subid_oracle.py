"""What shadow's getsubids hands out is what we know to be claimed; a Grant is what it reads exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.oracle import getsubids, needs, under_etc
from tests.unit.subid_lines import of_length
from usernsplan.formats import nsswitch, subid
from usernsplan.formats.subid import Grant

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs("getsubids")


LINES = [
    b"web:100000:65536\n",
    b"web:100000:65536",
    b"1234:100000:65536\n",
    b"01234:100000:65536\n",
    b"web:100000:0\n",
    b"web:4294967290:65536\n",
    b"web:0x186a0:0x10\n",
    b"web:0303240:020\n",
    b"web:0100000:8\n",
    b"web:08:8\n",
    b"web: 5:7\n",
    b"web:\t5:\x0b7\n",
    b"web:+5:+7\n",
    b"web:5:7:9\n",
    b"web:5:7:\n",
    b"web:5:7 \n",
    b"web:5:7 # c\n",
    b"web:5:7\r\n",
    b" web:5:7\n",
    b"#web:5:7\n",
    b"+web:5:7\n",
    b"-web:5:7\n",
    b"other:x\nweb:5:7\n",
    b"other\n:::\n\xff:1:1\nweb:5:7\n",
    b"web:5:7\nweb:5:7\n1234:1:2\n",
    b"web:x:7\n",
    b"web::7\n",
    b"web:5\n",
    b"web:5:7\0\n",
    b"web\0:5:7\n",
    b"web:18446744073709551616:1\n",
    # strtoul(3) takes a minus sign and wraps around: this is 100000.
    b"web:-18446744073709451616:7\n",
    b"web:" + b"0" * 1014 + b"5:7\n",
    b"web:" + b"0" * 1016 + b"5:7\n",
    b"web:" + b"0" * 1017 + b"5:7\n",
    b"web:" + b"0" * 3000 + b"5:7\n",
]


@pytest.mark.parametrize("raw", LINES, ids=lambda raw: repr(raw[:40]) + str(len(raw)))
def test_every_range_that_getsubids_hands_out_is_one_of_our_readings(
    tmp_path: Path, raw: bytes
) -> None:
    lines = subid.parse(raw).by_owner()
    readings: list[tuple[int, int]] = []
    for line in lines.get("web", []) + lines.get("1234", []):
        readings += [(line.start, line.stop)] if isinstance(line, Grant) else line.spans
    assert set(getsubids(tmp_path, raw)) <= set(readings)


@pytest.mark.parametrize("raw", LINES, ids=lambda raw: repr(raw[:40]) + str(len(raw)))
def test_getsubids_reads_every_grant_as_we_do(tmp_path: Path, raw: bytes) -> None:
    grants = [
        line
        for line in subid.parse(raw).lines
        if isinstance(line, Grant) and line.owner in {"web", "1234"}
    ]
    answer = getsubids(tmp_path, raw)
    assert [
        (line.start, line.stop) for line in grants if (line.start, line.stop) not in answer
    ] == []


@pytest.mark.parametrize("length", [1022, 1023, 1024, 1025])
def test_shadow_reads_a_line_exactly_as_long_as_we_call_a_grant(
    tmp_path: Path, length: int
) -> None:
    raw = of_length(length)
    owner = raw.partition(b":")[0]
    accounts = b"root:x:0:0::/:\n" + owner + b":x:1234:1234::/:\n"
    answer = under_etc(tmp_path, {"subuid": raw, "passwd": accounts}, "getsubids", owner.decode())
    [line] = subid.parse(raw).lines
    assert (b" 5 7\n" in answer.stdout) is isinstance(line, Grant)


@pytest.mark.parametrize(
    "services",
    [
        b"",
        b"subid: files\n",
        b"subid: sss\n",
        b"#subid: sss\n",
        b"subid: sss files\n",
        b"subid: files sss\n",
    ],
)
def test_shadow_looks_elsewhere_first_exactly_where_we_read_another_first_service(
    tmp_path: Path, services: bytes
) -> None:
    raw = b"passwd: files\n" + services
    answer = under_etc(tmp_path, {"subuid": b"web:5:7\n", "nsswitch.conf": raw}, "getsubids", "web")
    assert (b"libsubid_sss" in answer.stderr) is (
        nsswitch.source(raw, "subid").services[0] != "files"
    )
