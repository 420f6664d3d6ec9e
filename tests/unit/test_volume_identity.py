"""By what hosts know a volume that they share: made of mounts as the kernel writes them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import needs_root
from tests.each import each
from usernsplan.host import identity, mounts

if TYPE_CHECKING:
    from collections.abc import Iterator


def known(lines: str, path: str, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """What a host with these mounts says of a path: the file systems, and the paths in these."""
    found = [mounts.parse(line) for line in lines.split("\n")]
    monkeypatch.setattr(identity, "all_mounts", lambda: found)
    return {(one.system, one.inside) for one in identity.shared(path, cross_mounts=False)}


NFS = "41 29 0:50 / /srv rw - nfs4 nas:/export rw,vers=4.2,addr=192.0.2.7"


@each(
    ("one", "path", "other", "same"),
    [
        # As NFS 4 and as NFS 3; by another name of the server; a folder below the export.
        (NFS, "/srv/web", "9 1 0:40 / /mnt/a rw - nfs nas.example:/export rw,addr=192.0.2.7", "/mnt/a/web"),
        (NFS, "/srv/web", "9 1 0:40 / /w rw - nfs4 nas:/export/web rw,addr=192.0.2.7", "/w"),
        # A bind mount of a part of it. Some kernels show the path from the server's top as its root.
        (NFS, "/srv/web", "9 1 0:40 /web /w rw - nfs4 nas:/export rw,addr=192.0.2.7", "/w"),
        (NFS, "/srv/web", "9 1 0:40 /export /m rw - nfs4 nas:/export rw,addr=192.0.2.7", "/m/web"),
        (
            "9 1 0:4 / /srv rw - ceph 192.0.2.2:6789,192.0.2.1:6789:/data rw,name=a",
            "/srv/web",
            "9 1 0:5 / /c rw - ceph 192.0.2.1:6789,192.0.2.2:6789:/ rw,name=b",
            "/c/data/web",
        ),
        (
            "9 1 0:4 / /srv rw - ceph a@b7d4e6.fs=/data rw",
            "/srv/web",
            "9 1 0:5 / /c rw - ceph other@b7d4e6.fs=/ rw",
            "/c/data/web",
        ),
        (
            "9 1 0:4 / /srv rw - fuse.glusterfs one:/vol rw",
            "/srv/web",
            "9 1 0:5 / /c rw - fuse.glusterfs two:/vol/web rw",
            "/c",
        ),
        (
            r"9 1 0:4 / /srv rw - cifs //Nas/Share rw",
            "/srv/web",
            r"9 1 0:5 / /c rw - smb3 //nas/share/web rw",
            "/c",
        ),
        ("9 1 0:4 / /srv rw - virtiofs tag rw", "/srv/web", "9 1 0:5 /web /c rw - virtiofs tag rw", "/c"),
        ("9 1 0:4 / /srv rw - 9p share rw", "/srv/a", "9 1 0:5 / /c rw - 9p share rw", "/c/a"),
        ("9 1 0:4 / /srv rw - fuse.sshfs u@h:/d rw", "/srv/a", "9 1 0:5 / /c rw - fuse.sshfs v@h:/d/a rw", "/c"),
    ],
)  # fmt: skip
def test_hosts_that_reach_one_folder_in_different_ways_say_the_same(
    monkeypatch: pytest.MonkeyPatch, one: str, path: str, other: str, same: str
) -> None:
    assert known(one, path, monkeypatch) & known(other, same, monkeypatch)


@each(
    ("other", "path"),
    [
        ("9 1 0:40 / /srv rw - nfs4 nas:/export rw,addr=192.0.2.8", "/srv/web"),
        ("9 1 0:40 / /srv rw - nfs4 nas:/other rw,addr=192.0.2.7", "/srv/web"),
        ("9 1 0:40 / /srv rw - nfs4 nas:/export rw,addr=192.0.2.7", "/srv/db"),
        ("9 1 0:40 / /srv rw - ceph 192.0.2.7:/export rw", "/srv/web"),
        # What a machine has for itself may have the same name on each.
        ("9 1 8:1 / /srv rw - ext4 /dev/sda1 rw", "/srv/web"),
        ("9 1 0:40 / /srv rw - overlay overlay rw,lowerdir=/a,upperdir=/b,workdir=/c", "/srv/web"),
        ("9 1 0:40 / /srv rw - fuse.fuse-overlayfs fuse-overlayfs rw", "/srv/web"),
    ],
)
def test_different_folders_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, other: str, path: str
) -> None:
    assert not known(NFS, "/srv/web", monkeypatch) & known(other, path, monkeypatch)


def test_bytes_that_are_no_text_are_told_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    [(_, inside)] = known(NFS, os.fsdecode(b"/srv/\xff"), monkeypatch)
    assert inside == r"/export/\xff"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, mounted at one and, of a part of it, at other."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "disk", one], check=True)
    (one / "web/in").mkdir(parents=True)
    subprocess.run(["mount", "--bind", one / "web", other], check=True)
    yield tmp_path
    subprocess.run(["umount", other, one], check=True)


@needs_root
def test_what_nobody_knows_is_known_by_its_number_or_its_name(disk: Path) -> None:
    [found] = identity.shared(str(disk / "one/web/in"), cross_mounts=False)
    assert identity.shared(str(disk / "other/in"), cross_mounts=False) == (found,)
    assert found.inside == "/web/in"
    assert found.inode.endswith(f".{(disk / 'one/web/in').stat().st_ino:x}")
    # The folder around it is of this machine alone; what is mounted in it is not.
    assert identity.shared(str(disk), cross_mounts=False) == ()
    inside = identity.shared(str(disk), cross_mounts=True)
    assert {one.inside for one in inside} == {"", "/web"}
