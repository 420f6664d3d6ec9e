"""Mounts that are odd: dead, closed to root, read-only, idmapped, with owners of their own, overlays."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command import PROGRAM, here, missing
from tests.volume.struck import wait_until
from tests.volume.tree import (
    CAPABILITY,
    Host,
    acl_of,
    capability_v2,
    differences,
    finish,
    maps,
    mounted,
    over,
    simple,
    snapshot,
    write,
)
from usernsplan.errors import NotPermittedError
from usernsplan.volume import discover, syscalls

START = 589824
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
        wait_until(lambda: is_dead(point), 60)
        yield


def is_dead(point: Path) -> bool:
    try:
        point.lstat()
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


@contextmanager
def of_another(source: Path, point: Path) -> Iterator[None]:
    """A FUSE mount that lets nobody in but its owner, not even root: what an account mounts without allow_root."""
    need("bindfs", "setpriv")
    source.chmod(0o755)
    # As fusermount(1), which may not be installed, or not be setuid, would do it.
    handle = os.open("/dev/fuse", os.O_RDWR)
    try:
        options = f"fd={handle},rootmode=40000,user_id={NOBODY},group_id={NOBODY}"
        subprocess.run(
            ["mount", "-i", "-t", "fuse", "-o", options, "closed", point],
            check=True,
            pass_fds=[handle],
        )
        yield
    finally:
        os.close(handle)
        subprocess.run(["umount", "-l", point], check=True)


# Mounts inside that cannot be looked at.


@pytest.mark.parametrize("words", [(), ("--cross-mounts",)])
@pytest.mark.parametrize("place", ["a/mount", "mount"])
def test_a_dead_mount_inside_is_left_out_alone(
    web: Host, place: str, words: tuple[str, ...]
) -> None:
    point = web.volume / place
    point.mkdir()
    with dead(web.outside, point):
        for more in (("--dry-run",), ()):
            report = web.fix(*SHIFT, *words, *more)
            assert places(report["skipped"]) == [str(point)]
            assert report["failed"] == []
            assert report["counts"]["changed"] == 12
        run = report["run"]
        assert {path.lstat().st_uid for path in (web.volume, *(web.volume / "z").iterdir())} == {
            START + 7
        }
        assert ids(web.volume / "a") == ids(web.volume / "a/file-0") == (START + 7, START + 7)
        assert web.fix(*SHIFT, *words)["counts"]["changed"] == 0
        assert web.undo(run)["failed"] == []
        assert ids(web.volume / "a") == ids(web.volume / "a/file-0") == (7, 7)
    assert ids(point) == (0, 0)


@pytest.mark.parametrize("words", [(), ("--cross-mounts",)])
def test_a_mount_inside_that_lets_root_not_in_is_left_out_alone(
    web: Host, words: tuple[str, ...]
) -> None:
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
            "find-owned",
            "7",
            web.volume,
            "--count",
            "--cross-mounts",
            "--root",
            web.root,
            status=None,
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


def test_what_root_may_not_see_is_not_left_in_silence_when_it_is_discovered(web: Host) -> None:
    point = web.volume / "a/mount"
    point.mkdir()
    with (
        of_another(web.outside, point),
        pytest.raises(NotPermittedError, match="permission denied"),
    ):
        discover.why_left(str(point))
    assert discover.why_left(str(point)) == ""


def test_a_path_that_is_dead_is_not_missing(web: Host) -> None:
    point = web.volume / "a/mount"
    point.mkdir()
    with dead(web.outside, point):
        told = web.refusal(*SHIFT, status=1, path=point)
        assert os.strerror(errno.ENOTCONN).lower() in told
    assert "does not exist" in web.refusal(*SHIFT, status=2, path=web.volume / "nowhere")
    assert "does not exist" in web.refusal(*SHIFT, status=2, path=web.volume / "file-0/below")


# What cannot be written to.


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    with mounted("--bind", path, path):
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        yield


def test_a_read_only_volume_is_foreseen_and_named_once(web: Host) -> None:
    before = snapshot(web.volume)
    with read_only(web.volume):
        for words in (("--dry-run",), ()):
            report = web.fix(*SHIFT, *words, status=3)
            assert report["failed"] == [{"path": str(web.volume), "reason": "it is read-only"}]
            assert report["counts"]["changed"] == 0
        assert report["run"] is None
    assert snapshot(web.volume) == before
    web.fix(*SHIFT)
    with read_only(web.volume):
        assert web.fix(*SHIFT)["counts"]["changed"] == 0


def test_a_single_read_only_file_is_foreseen_and_named(web: Host) -> None:
    path = web.volume / "file-1"
    with read_only(path):
        for words in (("--dry-run",), ()):
            report = web.fix(*SHIFT, *words, status=3, path=path)
            assert report["failed"] == [{"path": str(path), "reason": "it is read-only"}]
    assert ids(path) == (7, 7)


@pytest.fixture
def btrfs(private_mounts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A btrfs in a file."""
    assert private_mounts is None
    need("mkfs.btrfs", "btrfs")
    folder = tmp_path_factory.mktemp("btrfs")
    image, place = folder / "image", folder / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    if subprocess.run(
        ["mount", "-o", "loop", image, place], capture_output=True, check=False
    ).returncode:
        pytest.skip("this kernel has no btrfs")
    yield place
    subprocess.run(["umount", "-l", place], check=True)
    image.unlink()


def btrfs_property(path: Path, value: str) -> None:
    subprocess.run(["btrfs", "property", "set", path, "ro", value], check=True)


def test_a_read_only_subvolume_inside_is_foreseen_and_named_once(btrfs: Path) -> None:
    for name in ("etc", "srv/vol", "srv/outside"):
        (btrfs / name).mkdir(parents=True)
    host = Host(btrfs, "btrfs")
    host.allocate("web")
    simple(host.volume, 7, 7)
    inner = host.volume / "a/inner"
    inner.parent.mkdir()
    subprocess.run(["btrfs", "-q", "subvolume", "create", inner], check=True)
    for below in (inner, inner / "b", inner / "c"):
        simple(below, 7, 7)
    btrfs_property(inner, "true")
    try:
        for words in (("--dry-run",), ()):
            report = host.fix(*SHIFT, *words, status=3)
            assert report["failed"] == [{"path": str(inner), "reason": "it is read-only"}]
            assert report["counts"]["changed"] == 5
        assert ids(host.volume / "file-0") == (START + 7, START + 7)
        assert ids(inner / "b/file-0") == (7, 7)
    finally:
        btrfs_property(inner, "false")
    host.fix(*SHIFT)
    assert uids(host.volume) == {START, START + 7}


def is_elsewhere(pid: int) -> bool:
    """Whether a process has a user namespace of its own."""
    return os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")


def in_a_namespace(*words: str | Path) -> tuple[int, str]:
    """Run usernsplan as root of a user namespace that has the ids up to 999; its status, and what it printed."""
    need("unshare")
    wait = ["unshare", "--user", "sh", "-c", 'read _ && exec "$@"', "-", *PROGRAM, *map(str, words)]
    with subprocess.Popen(
        wait, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        wait_until(lambda: is_elsewhere(run.pid), 60)
        for kind in ("uid", "gid"):
            Path(f"/proc/{run.pid}/{kind}_map").write_text("0 0 1000")
        printed, _ = run.communicate("\n", timeout=120)
        return run.returncode, printed


def test_in_a_user_namespace_what_it_does_not_map_is_foreseen(host: Host) -> None:
    """Its root may give only what it has an id for, and only to such an id."""
    simple(host.volume, 0, 0)
    words = ("fix-volume", host.volume, "--root", host.root, "--dry-run", "--unmapped", "keep")
    status, printed = in_a_namespace(*words, *maps(over(0, 50, 10)))
    assert (status, "would change 4" in printed) == (0, True), printed
    status, printed = in_a_namespace(*words, *maps(over(0, 5000, 10)))
    assert (status, printed.count("this user namespace has no uid 5000")) == (3, 4), printed
    # An owner that it has no id for is shown as 65534.
    finish(write(os.fsencode(host.volume / "strange")), 200000, 0)
    status, printed = in_a_namespace(*words, *maps(over(0, 50, 10)), "--uid-map", "65534:60:1")
    assert (status, printed.count("its uid has no id in this user namespace")) == (3, 1), printed


# Idmapped mounts.

_LIBC = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *words: object) -> int:
    found = int(_LIBC.syscall(ctypes.c_long(number), *words))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


@contextmanager
def idmapped(source: Path, point: Path, start: int = 100000) -> Iterator[None]:
    """Mount a folder so that ids of the disk from 0 on are seen as those from ``start`` on."""
    sleeper = subprocess.Popen(["unshare", "--user", "sleep", "600"])
    try:
        wait_until(lambda: is_elsewhere(sleeper.pid), 60)
        for kind in ("uid", "gid"):
            Path(f"/proc/{sleeper.pid}/{kind}_map").write_text(f"0 {start} 65536")
        namespace = os.open(f"/proc/{sleeper.pid}/ns/user", os.O_RDONLY)
    finally:
        sleeper.kill()
        sleeper.wait()
    tree = _call(428, -100, os.fsencode(source), 1 | os.O_CLOEXEC)
    try:
        attributes = struct.pack("4Q", 0x100000, 0, 0, namespace)
        _call(442, tree, b"", 0x1000, attributes, ctypes.c_size_t(len(attributes)))
        _call(429, tree, b"", -100, os.fsencode(point), 4)
    finally:
        os.close(tree)
        os.close(namespace)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", point], check=True)


@pytest.mark.parametrize("words", [("--dry-run",), ()])
@pytest.mark.parametrize("below", ["", "a", "file-1"])
def test_an_idmapped_volume_is_refused_once_with_its_source(
    web: Host, below: str, words: tuple[str, ...]
) -> None:
    point = web.root / "srv/mapped"
    point.mkdir()
    before = snapshot(web.volume)
    with idmapped(web.volume, point):
        assert ids(point / "file-1") == (100007, 100007)
        told = web.refusal(*SHIFT, *words, status=9, path=point / below)
        assert f"fix the folder that is mounted here: {web.volume / below}\n" in told.replace(
            "/\n", "\n"
        )
    assert snapshot(web.volume) == before


def test_what_was_done_below_an_idmapped_mount_is_not_taken_back_through_it(web: Host) -> None:
    run = web.fix(*SHIFT)["run"]
    before = snapshot(web.volume)
    with idmapped(web.volume, web.volume):
        told = here("undo", run, "--root", web.root, status=9)[1]
        assert "fix the folder that is mounted here" in told
    assert snapshot(web.volume) == before
    web.undo(run)
    assert uids(web.volume) == {7}


def test_an_idmapped_mount_inside_is_never_entered(web: Host) -> None:
    simple(web.outside, 7, 7)
    point = web.volume / "a/mount"
    point.mkdir()
    with idmapped(web.outside, point):
        for words in (("--dry-run",), ()):
            report = web.fix(*SHIFT, "--cross-mounts", *words)
            assert places(report["skipped"]) == [str(point)]
            assert "idmapped" in report["skipped"][0]["reason"]
    assert uids(web.outside) == {7}
    assert ids(web.volume / "a/file-0") == (START + 7, START + 7)


# Overlays.


@contextmanager
def overlay(lower: Path, work: Path, point: Path, options: str = "") -> Iterator[Path]:
    """A merged overlay; its upper folder."""
    upper = work / "upper"
    for folder in (upper, work / "work"):
        folder.mkdir(parents=True)
    words = f"lowerdir={lower},upperdir={upper},workdir={work / 'work'}{options}"
    with mounted("-t", "overlay", "-o", words, "overlay", point):
        yield upper


@pytest.mark.parametrize("inside", [False, True])
def test_what_an_overlay_would_copy_up_is_refused_with_its_size(web: Host, inside: bool) -> None:
    simple(web.outside, 7, 7)
    (web.outside / "file-0").write_bytes(b"x" * 1000)
    (web.outside / "file-1").write_bytes(b"x" * 234)
    (web.outside / "file-2").write_bytes(b"x" * 66)
    os.link(web.outside / "file-1", web.outside / "again")
    finish(write(os.fsencode(web.outside / "setuid"), b"12345"), 7, 7, 0o4755)
    point = web.volume / "mount" if inside else web.root / "srv/merged"
    point.mkdir()
    words = (*SHIFT, "--cross-mounts") if inside else SHIFT
    path = web.volume if inside else point
    with overlay(web.outside, web.root / "srv/over lay", point) as upper:
        # Both names of the one are one file below, and would be two above.
        for more in (("--dry-run",), ()):
            told = web.refusal(*words, *more, status=9, path=path)
            assert "5 entries of 1539 bytes" in told
            assert str(web.outside) in told
            assert "--copy-up" in told
        assert list(upper.iterdir()) == []
        assert uids(web.volume) - {0} == {7}
        (point / "file-0").touch()
        assert "4 entries of 539 bytes" in web.refusal(*words, status=9, path=path)
        run = web.fix(*words, "--copy-up", path=path)["run"]
        assert uids(point) == {START, START + 7}
        assert web.fix(*words, path=path)["counts"]["changed"] == 0
        web.undo(run, status=3)
        assert ids(point / "file-0") == ids(point / "file-2") == ids(point / "setuid") == (7, 7)
    assert uids(web.outside) == {7}


def test_an_overlay_with_everything_above_is_a_volume_as_any(web: Host) -> None:
    point = web.root / "srv/merged"
    point.mkdir()
    with overlay(web.outside, web.root / "srv/over", point):
        simple(point / "below", 7, 7)
        finish(write(os.fsencode(point / "setuid")), 7, 7, 0o4755)
        web.fix(*SHIFT, path=point)
        assert uids(point) == {START, START + 7}
        assert (point / "setuid").stat().st_mode & 0o7777 == 0o4755


def test_what_was_made_in_an_overlay_is_known_though_its_upper_folder_is_hidden(web: Host) -> None:
    """As on a host whose / is an overlay: the mount table names folders that nobody can reach any more."""
    simple(web.outside, 7, 7)
    point = web.root / "srv/merged"
    point.mkdir()
    with (
        overlay(web.outside, web.root / "srv/over", point),
        mounted("-t", "tmpfs", "hides", web.root / "srv/over"),
    ):
        simple(point / "below", 7, 7)
        os.link(point / "below/file-0", point / "below/again")
        assert "3 entries of 21 bytes" in web.refusal(*SHIFT, status=9, path=point)
        web.fix(*SHIFT, path=point / "below")
        assert uids(point / "below") == {START + 7}
        assert uids(web.outside) == {7}


def test_a_single_file_of_an_overlay_is_refused_too(web: Host) -> None:
    simple(web.outside, 7, 7)
    point = web.root / "srv/merged"
    point.mkdir()
    with overlay(web.outside, web.root / "srv/over", point):
        assert "1 entry of 7 bytes" in web.refusal(*SHIFT, status=9, path=point / "file-1")
        other = web.volume / "file-1"
        with mounted("--bind", point / "file-1", other):
            assert "1 entry of 7 bytes" in web.refusal(*SHIFT, status=9, path=other)
        web.fix(*SHIFT, "--copy-up", path=point / "file-1")
        assert ids(point / "file-1") == (START + 7, START + 7)
    assert ids(web.outside / "file-1") == (7, 7)


def test_a_rootless_overlay_counts_as_all_below(web: Host) -> None:
    """Its kernel side says nothing of folders; bindfs stands for it, as only the name of the kind is looked at."""
    simple(web.outside, 7, 7)
    point = web.volume / "mount"
    point.mkdir()
    with bindfs(web.outside, point, "-o", "subtype=fuse-overlayfs"):
        assert "4 entries" not in (told := web.refusal(*SHIFT, status=9, path=point))
        assert "3 entries of 21 bytes" in told


# File systems that set their own owners.

OWN = ("--chown-ignore", "--chgrp-ignore")
FIXED = "this file system sets its own owners; see its uid= and gid= mount options"


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("setuid", [False, True])
def test_where_owners_are_fixed_nothing_is_changed_or_counted(
    web: Host, jobs: str, setuid: bool
) -> None:
    point = web.root / "srv/fuse"
    point.mkdir()
    simple(web.outside / "below", 7, 7)
    if setuid:
        for path in (web.outside / "below").iterdir():
            acl = acl_of(0o755, {33: 5}, {}, mask=5)
            finish(os.fsencode(path), 7, 7, 0o4755, acl=acl, capability=capability_v2())
    before = snapshot(web.outside)
    with bindfs(web.outside, point, *OWN):
        told = web.refusal(*SHIFT, "--jobs", jobs, status=9, path=point)
        assert FIXED in told
        assert str(point) in told
        assert web.run_names() == []
        for name in ("below/file-0", "below/file-1"):
            assert FIXED in web.refusal(*SHIFT, status=9, path=point / name)
    assert differences(snapshot(web.outside), before) == []
    assert web.run_names() == []


def test_a_top_alone_whose_owner_is_fixed_is_found_too(web: Host) -> None:
    point = web.root / "srv/fuse"
    point.mkdir()
    simple(web.outside, 7, 7)
    for path in (web.outside, *web.outside.iterdir()):
        os.chown(path, START, START)
    os.chown(web.outside, 7, 7)
    with bindfs(web.outside, point, *OWN):
        assert FIXED in web.refusal(*SHIFT, status=9, path=point)


@pytest.mark.parametrize(
    "rule", [(), (*maps(over(0, 5, 100)), "--drop-power")], ids=["shift", "overlap"]
)
def test_a_mount_inside_whose_owners_are_fixed_is_found_before_anything_is_changed(
    web: Host, rule: tuple[str, ...]
) -> None:
    point = web.volume / "z/mount"
    point.mkdir()
    simple(web.outside, 7, 7)
    finish(write(os.fsencode(web.volume / "setuid")), 7, 7, 0o4755)
    before = snapshot(web.volume)
    times = {path: path.lstat().st_ctime_ns for path in (web.volume / "a").iterdir()}
    with bindfs(web.outside, point, *OWN):
        told = web.refusal(*(rule or SHIFT), "--cross-mounts", status=9)
        assert FIXED in told
        assert str(point) in told
        # Without it, the mount is left out as any.
        assert places(web.fix(*(rule or SHIFT), "--dry-run")["skipped"]) == [str(point)]
    after = snapshot(web.volume)
    assert differences(after, before) == []
    assert {path: path.lstat().st_ctime_ns for path in times} == times
    assert web.run_names() == []


def test_a_fuse_that_takes_owners_is_a_volume_as_any(web: Host) -> None:
    """By a plain map: bindfs knows no id above 2147483647, and staging ids are."""
    point = web.root / "srv/fuse"
    point.mkdir()
    simple(web.outside, 7, 7)
    with bindfs(web.outside, point):
        report = web.fix(*SHIFT, path=point)
        assert report["counts"]["changed"] == 4
        assert uids(web.outside) == {START + 7}
        web.undo(report["run"])
        assert uids(web.outside) == {7}


# A change of owner that fails after the kernel took a capability away.


def failing(pinned: int, uid: int, gid: int) -> None:
    """As notify_change() does: what is killed first is gone when the file system says no."""
    del uid, gid
    path = f"/proc/self/fd/{pinned}"
    os.removexattr(path, CAPABILITY)
    os.chmod(path, 0o700)
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def test_what_a_failing_change_of_owner_took_is_put_back(
    web: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = web.volume / "file-1"
    finish(os.fsencode(path), 7, 7, 0o4755, capability=capability_v2())
    before = snapshot(web.volume)
    monkeypatch.setattr(syscalls, "chown_pinned", failing)
    report = web.fix(*SHIFT, status=3, path=path)
    assert report["failed"] == [{"path": str(path), "reason": os.strerror(errno.EDQUOT).lower()}]
    assert report["counts"]["changed"] == 0
    assert differences(snapshot(web.volume), before) == []


def test_what_cannot_be_put_back_is_said(web: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    path = web.volume / "file-1"
    finish(os.fsencode(path), 7, 7, 0o4755, capability=capability_v2())

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def worse(pinned: int, uid: int, gid: int) -> None:
        monkeypatch.setattr(os, "setxattr", refuse)
        failing(pinned, uid, gid)

    monkeypatch.setattr(syscalls, "chown_pinned", worse)
    [failed] = web.fix(*SHIFT, status=3, path=path)["failed"]
    assert "it lost its setuid bit or capability" in failed["reason"]


def test_a_full_quota_costs_no_capability(private_mounts: None, tmp_path: Path) -> None:
    """The real thing: the quota of the new owner is full, and root may not exceed it."""
    assert private_mounts is None
    need("mkfs.ext4", "setquota", "setpriv")
    image, place = tmp_path / "image", tmp_path / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "quota", image], check=True)
    options = ("-o", "loop,usrquota,grpquota")
    if subprocess.run(
        ["mount", *options, image, place], capture_output=True, check=False
    ).returncode:
        pytest.skip("this kernel has no quota")
    try:
        path = place / "srv/vol/file"
        for folder in ("etc", "srv/vol"):
            (place / folder).mkdir(parents=True)
        finish(write(os.fsencode(path), b"x" * 100_000), 7, 7, 0o4755, capability=capability_v2())
        before = snapshot(path.parent)
        subprocess.run(["setquota", "-u", str(START + 7), "1", "1", "1", "1", place], check=True)
        finish(write(os.fsencode(place / "other"), b"x"), START + 7, 0)
        bounded = ["setpriv", "--inh-caps=-sys_resource", "--bounding-set=-sys_resource"]
        words = ["fix-volume", str(path), *maps(over(0, START, 65536)), "--root", str(place)]
        done = subprocess.run(
            [*bounded, *PROGRAM, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 3, done
        assert "quota" in done.stdout + done.stderr
        assert differences(snapshot(path.parent), before) == []
    finally:
        subprocess.run(["umount", "-l", place], check=True)
