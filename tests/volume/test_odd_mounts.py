"""Mounts that are odd: dead, closed to root, read-only, idmapped, with owners of their own, overlays."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command import here, missing
from tests.volume.tree import Host, finish, mounted, simple, snapshot, write

START = 524288
SHIFT = ("--container", "web", "--mode", "shift")
NOBODY = 65534


@pytest.fixture
def web(volumes: Host) -> Host:
    """A host with an allocation, and a volume of two folders."""
    assert volumes.allocate("web") == [START]
    simple(volumes.volume, 7, 7)
    simple(volumes.volume / "a", 7, 7)
    simple(volumes.volume / "z", 7, 7)
    return volumes


def ids(path: Path) -> tuple[int, int]:
    seen = path.lstat()
    return seen.st_uid, seen.st_gid


def uids(top: Path) -> set[int]:
    """Every owner in a tree, without entering what cannot be entered."""
    return {path.lstat().st_uid for path in (top, *top.rglob("*"))}


def places(found: list[dict[str, str]]) -> list[str]:
    return [place["path"] for place in found]


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            missing(program)


def serving(words: list[str | Path]) -> int:
    """The process that serves a FUSE mount: the one with these words."""
    wanted = [os.fsencode(word) for word in words]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            said = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
        except OSError:
            continue
        if said == wanted:
            return int(pid)
    raise AssertionError(words)


@contextmanager
def bindfs(source: Path, point: Path, *options: str) -> Iterator[int]:
    """A FUSE mount that shows a folder; the process that serves it."""
    need("bindfs")
    words: list[str | Path] = ["bindfs", *options, source, point]
    subprocess.run(words, check=True)
    try:
        yield serving(words)
    finally:
        subprocess.run(["umount", "-l", point], check=True)


@contextmanager
def dead(source: Path, point: Path) -> Iterator[None]:
    """A FUSE mount whose process is gone: every call on it fails."""
    with bindfs(source, point) as pid:
        os.kill(pid, signal.SIGKILL)
        for _ in range(500):
            try:
                point.lstat()
            except OSError as error:
                if error.errno == errno.ENOTCONN:
                    break
            time.sleep(0.01)
        yield


@contextmanager
def of_another(source: Path, point: Path) -> Iterator[None]:
    """A FUSE mount that lets nobody in but its owner, not even root: what an account mounts without allow_root."""
    need("bindfs", "setpriv")
    source.chmod(0o755)
    # As fusermount(1), which may not be installed, or not be setuid, would do it.
    handle = os.open("/dev/fuse", os.O_RDWR)
    try:
        options = f"fd={handle},rootmode=40000,user_id={NOBODY},group_id={NOBODY}"
        subprocess.run(["mount", "-i", "-t", "fuse", "-o", options, "closed", point], check=True, pass_fds=[handle])
        yield
    finally:
        os.close(handle)
        subprocess.run(["umount", "-l", point], check=True)


# Mounts inside that cannot be looked at.


@pytest.mark.parametrize("words", [(), ("--cross-mounts",)])
@pytest.mark.parametrize("place", ["a/mount", "mount"])
def test_a_dead_mount_inside_is_left_out_alone(web: Host, place: str, words: tuple[str, ...]) -> None:
    point = web.volume / place
    point.mkdir()
    with dead(web.outside, point):
        for more in (("--dry-run",), ()):
            report = web.fix(*SHIFT, *words, *more)
            assert places(report["skipped"]) == [str(point)]
            assert report["failed"] == []
            assert report["counts"]["changed"] == 12
        run = report["run"]
        assert {path.lstat().st_uid for path in (web.volume, *(web.volume / "z").iterdir())} == {START + 7}
        assert ids(web.volume / "a") == ids(web.volume / "a/file-0") == (START + 7, START + 7)
        assert web.fix(*SHIFT, *words)["counts"]["changed"] == 0
        assert web.undo(run)["failed"] == []
        assert ids(web.volume / "a") == ids(web.volume / "a/file-0") == (7, 7)
    assert ids(point) == (0, 0)


@pytest.mark.parametrize("words", [(), ("--cross-mounts",)])
def test_a_mount_inside_that_lets_root_not_in_is_left_out_alone(web: Host, words: tuple[str, ...]) -> None:
    point = web.volume / "a/mount"
    point.mkdir()
    with of_another(web.outside, point):
        report = web.fix(*SHIFT, *words)
        assert places(report["skipped"]) == [str(point)]
        assert ids(web.volume / "a") == ids(web.volume / "z/file-0") == (START + 7, START + 7)


def test_a_dead_mount_is_no_trouble_for_who_looks_for_ids(web: Host) -> None:
    point = web.volume / "a/mount"
    point.mkdir()
    with dead(web.outside, point):
        printed, said = here("find-owned", "7", web.volume, "--count", "--root", web.root)
        assert "12" in printed
        assert "--cross-mounts" in said
        printed, said = here(
            "find-owned", "7", web.volume, "--count", "--cross-mounts", "--root", web.root, status=None
        )
        assert "12" in printed
        assert str(point) in said


# A PATH that cannot be looked at.


def test_a_path_that_root_may_not_see_is_not_missing(web: Host) -> None:
    point = web.volume / "a/mount"
    point.mkdir()
    with of_another(web.outside, point):
        for path in (point, point / "below/it"):
            told = web.refusal(*SHIFT, status=8, path=path)
            assert "permission denied" in told
            assert "allow_root" in told
            assert "does not exist" not in told
        told = here("find-owned", "7", point, "--root", web.root, status=8)[1]
        assert "permission denied" in told


def test_a_path_that_is_dead_is_not_missing(web: Host) -> None:
    point = web.volume / "a/mount"
    point.mkdir()
    with dead(web.outside, point):
        told = web.refusal(*SHIFT, status=1, path=point)
        assert os.strerror(errno.ENOTCONN).lower() in told
    assert "does not exist" in web.refusal(*SHIFT, status=2, path=web.volume / "nowhere")
    assert "does not exist" in web.refusal(*SHIFT, status=2, path=web.volume / "file-0/below")
