"""The maps in the configs of LXC and Proxmox VE: by hand, and as the real lxc-info reads them."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.each import each
from usernsplan.formats.lxc import Cleared, Include, MapLine, Refused, config, proxmox, setting

if TYPE_CHECKING:
    from pathlib import Path

    from usernsplan.mapping import Kind

U: Kind = "uid"
G: Kind = "gid"
UID = MapLine(1, U, 0, 100000, 65536)

# The bytes of a config, and what LXC 5.0 prints for "lxc-info -c lxc.idmap"; None: it does not load.
CASES: list[tuple[bytes, list[str] | None]] = [
    (b"", []),
    (
        b"lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n",
        ["u 0 100000 65536", "g 0 100000 65536"],
    ),
    (b" \tlxc.idmap=u 0 100000 65536", ["u 0 100000 65536"]),
    (b"lxc.idmap\t=\tu\t0\t100000\t65536\t\n", ["u 0 100000 65536"]),
    (b"lxc.idmap = u 0 0x186a0 0200000\n", ["u 0 100000 65536"]),
    (b"lxc.idmap = u 0 +5 1\n", ["u 0 5 1"]),
    (b"lxc.idmap = \"u 0 5 1\"\nlxc.idmap = 'u 1 6 1' \n", ["u 0 5 1", "u 1 6 1"]),
    (b"lxc.idmap = u 0 5 1\nlxc.idmap =\nlxc.idmap = u 0 6 1\n", ["u 0 6 1"]),
    (b'lxc.idmap = u 0 5 1\nlxc.idmap = ""\n', []),
    (b"#lxc.idmap = u 0 5 1\n  # lxc.idmap = u 1 2 3\nlxc.idmap = u 0 6 1\n", ["u 0 6 1"]),
    (b"foo\nfoo lxc.idmap = u 0 5 1\nlxc.idmap = u 0 6 1\n", ["u 0 6 1"]),
    (b"lxc.idmap = u 0 5 1\rlxc.idmap = u 1 6 1\r\n", ["u 0 5 1", "u 1 6 1"]),
    (b"lxc.idmap = u 0 5 1\n\0lxc.idmap = u 1 6 1\n", ["u 0 5 1"]),
    (b"lxc.idmap = u 0 99999999999 1\n", ["u 0 99999999999 1"]),
    (b"lxc.idmap = u 0 5 18446744073709551615\n", ["u 0 5 18446744073709551615"]),
    (b"lxc.idmap = u 0 5 18446744073709551616\n", None),
    (b"lxc.idmap = b 0 100000 65536\n", None),
    (b"lxc.idmap = u 0 5 1 # web\n", None),
    (b"lxc.idmap = u0 5 1\n", None),
    (b"lxc.idmap = u 0 -5 1\n", None),
    (b"lxc.idmap = u 0 08 1\n", None),
    (b"lxc.idmap = u 0 0x 1\n", None),
    (b"lxc.idmap = u 0 5\n", None),
    (b"lxc.idmap : u 0 5 1\n", None),
]


def shown(raw: bytes) -> list[str]:
    """The map as lxc-info prints it."""
    found: list[str] = []
    for line in config(raw):
        if isinstance(line, Cleared):
            found.clear()
        elif isinstance(line, MapLine):
            found.append(f"{line.kind[0]} {line.container} {line.host} {line.size}")
    return found


@each(("raw", "expected"), CASES)
def test_a_config_of_lxc(raw: bytes, expected: list[str] | None) -> None:
    assert shown(raw) == (expected or [])


@pytest.mark.parametrize(("raw", "expected"), CASES)
def test_lxc_itself_reads_it_so(tmp_path: Path, raw: bytes, expected: list[str] | None) -> None:
    if shutil.which("lxc-info") is None:
        pytest.skip("not installed: lxc-info")
    (tmp_path / "web").mkdir()
    (tmp_path / "web/config").write_bytes(raw)
    words = ("lxc-info", "--lxcpath", str(tmp_path), "--name", "web", "--config", "lxc.idmap")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if expected is None:
        assert "Failed to load config" in done.stderr + done.stdout
        return
    printed = done.stdout.removeprefix("lxc.idmap =").strip().splitlines()
    assert [line.strip() for line in printed if line.strip()] == expected


def test_each_line_has_its_number_and_an_old_name_is_read() -> None:
    raw = b"lxc.uts.name = web\r\nlxc.id_map = u 0 100000 65536\n\nlxc.include = /etc/a b\nlxc.idmap=\n"
    old = Refused(2, "lxc.id_map = u 0 100000 65536")
    assert config(raw) == (UID._replace(number=2), old, Include(4, "/etc/a b"), Cleared(5))


def test_a_line_without_a_sign_is_told_apart_from_no_line() -> None:
    # LXC refuses the config; Proxmox VE leaves the line out, and the container has the usual map.
    raw = b"#lxc.idmap u 0 1 1\nlxc.idmap u 0 5 1\n lxc.idmap: u 0 5 1\nlxc.idmapped x\n"
    assert config(raw) == (Refused(2, "lxc.idmap u 0 5 1"), Refused(3, "lxc.idmap: u 0 5 1"))
    raw = b"unprivileged: 1\nlxc.idmap u 0 5 1\nlxc.idmap : u 0 5 1\n"
    assert proxmox(raw) == (
        Refused(2, "lxc.idmap u 0 5 1"),
        Refused(3, "lxc.idmap : u 0 5 1"),
        UID,
        UID._replace(kind=G),
    )


@each(
    ("raw", "expected"),
    [
        (b"arch: amd64\nhostname: web\n", ()),
        (b"unprivileged: 0\n", ()),
        (b"unprivileged: 1\n", (UID, UID._replace(kind=G))),
        (b"#unprivileged: 1\n", ()),
        (
            b"unprivileged: 1\nlxc.idmap: u 0 100000 1000\nlxc.idmap = u 1000 1000 1\n",
            (MapLine(2, U, 0, 100000, 1000), MapLine(3, U, 1000, 1000, 1)),
        ),
        # A container with a map of its own is unprivileged without the key.
        (b"lxc.idmap: g 0 200000 65536\n", (MapLine(1, G, 0, 200000, 65536),)),
        # Snapshots, and what waits for the next start, are not the present config.
        (b"arch: amd64\n\n[before]\nunprivileged: 1\nlxc.idmap: u 0 5 1\n", ()),
        (b"arch: amd64\n[pve:pending]\nlxc.idmap: u 0 5 1\n", ()),
    ],
)
def test_a_config_of_proxmox(raw: bytes, expected: tuple[MapLine, ...]) -> None:
    assert proxmox(raw) == expected


@each(
    ("raw", "expected"),
    [
        (b"", None),
        (b"lxc.lxcpath = /srv/lxc\n", "/srv/lxc"),
        (b" \tlxc.lxcpath=/srv/lxc\nlxc.lxcpath = /other", "/srv/lxc"),
        (b"#lxc.lxcpath = /srv/lxc\n", None),
        (b"lxc.lxcpath2 = /srv/lxc\n", None),
        (b"x lxc.lxcpath = /srv/lxc\n", None),
    ],
)
def test_a_setting_of_lxc_conf(raw: bytes, expected: str | None) -> None:
    assert setting(raw, "lxc.lxcpath") == expected


@given(st.binary() | st.text(alphabet="lxc.idmap=u 0159\n\r[]:\"'").map(str.encode))
def test_no_bytes_break_them(raw: bytes) -> None:
    config(raw)
    proxmox(raw)
    setting(raw, "lxc.lxcpath")
