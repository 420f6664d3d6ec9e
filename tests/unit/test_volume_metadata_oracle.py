"""What we make of ACLs and capabilities is what setfacl and setcap write, and what getfacl and getcap read."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.command import needs_root
from tests.unit.xattrs import EFFECTIVE, REVISION_2, REVISION_3
from usernsplan.volume.metadata import (
    ACL_ACCESS,
    ACL_DEFAULT,
    CAPABILITY,
    capability_for,
    capability_rootid,
    moved_acl,
)
from usernsplan.volume.special import after_chown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_root

SHIFT = 100000


def run(*words: str | Path) -> str:
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def has(*programs: str) -> None:
    lacking = [program for program in programs if shutil.which(program) is None]
    if lacking:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            f"{', '.join(lacking)} not installed"
        )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    path.chmod(0o640)
    try:
        os.setxattr(path, ACL_ACCESS, b"")
    except OSError as error:
        if error.errno == 95:
            pytest.skip("this file system has no ACLs")
    return path


def up(number: int) -> int:
    return number + SHIFT


def up_twice(number: int) -> int:
    return number + 2 * SHIFT


@pytest.mark.parametrize(
    "entries",
    [
        ("u:33:rw",),
        ("g:33:r",),
        ("u:33:rw", "u:0:r", "u:65535:rwx", "g:33:r", "g:5:rx", "m::rw"),
        ("u:0:---", "g:0:---", "m::---"),
        (),
    ],
)
def test_a_moved_acl_is_the_one_that_setfacl_writes_for_the_moved_ids(
    tmp_path: Path, file: Path, entries: tuple[str, ...]
) -> None:
    has("setfacl", "getfacl")
    other = tmp_path / "other"
    other.write_bytes(b"")
    other.chmod(0o640)
    for entry in entries:
        kind, number, mode = entry.split(":")
        moved = (
            f"{kind}:{int(number) + (SHIFT if kind == 'u' else 2 * SHIFT)}:{mode}"
            if number
            else f"{kind}::{mode}"
        )
        run("setfacl", "--modify", entry, file)
        run("setfacl", "--modify", moved, other)
    if not entries:
        assert ACL_ACCESS not in os.listxattr(file)
        return
    raw = os.getxattr(file, ACL_ACCESS)
    moved_raw = moved_acl(raw, up, up_twice).raw
    assert moved_raw == os.getxattr(other, ACL_ACCESS)
    os.setxattr(file, ACL_ACCESS, moved_raw)
    shown = [
        [line for line in run("getfacl", "-pn", path).splitlines() if not line.startswith("#")]
        for path in (file, other)
    ]
    assert shown[0] == shown[1]


def test_a_default_acl_is_moved_as_setfacl_writes_it(tmp_path: Path, file: Path) -> None:
    has("setfacl")
    assert file.parent == tmp_path
    for name, added in (("one", 0), ("other", SHIFT)):
        (tmp_path / name).mkdir()
        words = ",".join(
            f"d:{kind}:{number + added}:rx" for kind in "ug" for number in (7, 5000, 1)
        )
        run("setfacl", "--modify", words, tmp_path / name)
    raw, other = (os.getxattr(tmp_path / name, ACL_DEFAULT) for name in ("one", "other"))
    assert moved_acl(raw, up, up).raw == other


@pytest.mark.parametrize("what", ["cap_net_raw=ep", "cap_net_raw,cap_bpf=p", "cap_chown=eip"])
def test_a_capability_is_shifted_as_setcap_writes_it_for_a_root(
    tmp_path: Path, file: Path, what: str
) -> None:
    has("setcap", "getcap")
    other = tmp_path / "other"
    other.write_bytes(b"")
    run("setcap", what, file)
    run("setcap", "-n", str(SHIFT), what, other)
    raw, shifted = (os.getxattr(path, CAPABILITY) for path in (file, other))
    assert [int.from_bytes(each[:4], "little") & 0xFF000000 for each in (raw, shifted)] == [
        REVISION_2,
        REVISION_3,
    ]
    assert bool(raw[0] & EFFECTIVE) is ("e" in what.partition("=")[2])
    assert (capability_rootid(raw), capability_rootid(shifted)) == (0, SHIFT)
    assert capability_for(raw, SHIFT) == shifted
    assert capability_for(shifted, 0) == raw
    os.setxattr(file, CAPABILITY, capability_for(raw, SHIFT))
    assert run("getcap", "-n", file).replace(str(file), "") == run("getcap", "-n", other).replace(
        str(other), ""
    )
    assert f"[rootid={SHIFT}]" in run("getcap", "-n", file)


def every_mode(path: Path) -> Iterator[tuple[int, int]]:
    """Every mode, and what the kernel leaves of it at a chown that changes nothing."""
    for mode in range(0o10000):
        path.chmod(mode)
        before = path.lstat().st_mode
        os.chown(path, 0, 0)
        yield before, path.lstat().st_mode & 0o7777


@pytest.mark.parametrize("kind", ["file", "folder", "fifo"])
def test_what_chown_leaves_of_each_mode_is_known(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
    assert [oct(before) for before, left in every_mode(path) if after_chown(before) != left] == []
