"""dockerd and we agree on what is JSON. The daemon never starts: it is given a log level that does not exist."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.unit.oracle import needs
from usernsplan.errors import InvalidFileError
from usernsplan.formats.daemon_json import parse, with_remap, without_remap

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs("dockerd")


def dockerd_reads(folder: Path, raw: bytes) -> bool:
    """Tell whether it got past its file to the log level, or past JSON to a key that it does not know."""
    (folder / "daemon.json").write_bytes(raw)
    own = [f"--{name}={folder / name}" for name in ("data-root", "exec-root", "pidfile")]
    command = [
        "dockerd",
        "--config-file",
        str(folder / "daemon.json"),
        "--log-level=none-such",
        *own,
    ]
    answer = subprocess.run(
        ["unshare", "--mount", "--net", *command], capture_output=True, timeout=30, check=False
    )
    if re.search(
        rb"parse logging level|invalid logging level|don't match any configuration", answer.stderr
    ):
        return True
    assert b"unable to configure the Docker daemon" in answer.stderr, answer.stderr
    return False


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b' {\r\n\t"userns-remap": "x"\r\n} ',
        b'{"\\u0075serns-remap": "x"}',
        b'{"userns-remap": 5}',
        b'{"userns-remap": ["x"]}',
        b'{"debug": true,}',
        b'{"debug": NaN}',
        b'{"debug": tru}',
        b'{"mtu": 01}',
        b'{"labels": ["a\tb"]}',
        b"{'debug': true}",
        b"// c\n{}",
        b'{"debug": /* c */ true}',
        b"# c\n{}",
        b"\xef\xbb\xbf{}",
        b"{\xc2\xa0}",
        b"[]",
        b"{",
        b'"x"',
        b'{"a": 1}',
    ],
)
def test_we_read_a_file_exactly_when_the_daemon_does(tmp_path: Path, raw: bytes) -> None:
    try:
        read = bool(parse(raw, "f").text)
    except InvalidFileError:
        read = False
    assert dockerd_reads(tmp_path, raw) is read


@pytest.mark.parametrize(
    "raw", [b'{"debug": false, "debug": true}', b"{} x", b'{"userns-remap": null}']
)
def test_we_are_stricter_where_the_daemon_guesses(tmp_path: Path, raw: bytes) -> None:
    assert dockerd_reads(tmp_path, raw)
    with pytest.raises(InvalidFileError):
        parse(raw, "f")


@pytest.mark.parametrize(
    "raw", [b"", b"\n", b"{}", b"{ }\r\n", b'{"debug":false}', b'{\r\n\t"debug": false\r\n}']
)
def test_the_daemon_reads_what_we_write(tmp_path: Path, raw: bytes) -> None:
    after = with_remap(parse(raw, "f"), "default")
    assert dockerd_reads(tmp_path, after)
    assert dockerd_reads(tmp_path, without_remap(parse(after, "f")))
