"""Mounts that show other ids, on each kind of file system: what is seen there, and where there can be none.

What fix-volume is to make of a tree on the disk, its mount is to show without touching the disk: the same oracle.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.command import PROGRAM, missing, slow, usernsplan
from tests.property.maps import id_maps
from tests.volume.tree import (
    Host,
    clocks,
    differences,
    expected,
    mounted,
    nasty,
    settled,
    shift,
    simple,
    snapshot,
)
from usernsplan import IdMap, Mapping
from usernsplan.host import idmap

START = 589824
IDMAP = ("--method", "idmap", "--container", "web")
SHIFT = (*IDMAP, "--mode", "shift")
NOBODY = 65534
MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-b", "4096"),
    "xfs": ("mkfs.xfs", "-q"),
    "btrfs": ("mkfs.btrfs", "-q"),
}


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            missing(program)


@contextmanager
def loop(kind: str, image: Path, at: Path) -> Iterator[Path]:
    """A fresh file system of this kind in a file."""
    need(MKFS[kind][0])
    with image.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run([*MKFS[kind], image], check=True, stdout=subprocess.DEVNULL)
    at.mkdir(parents=True, exist_ok=True)
    with mounted("-o", "loop", image, at):
        yield at
    image.unlink()


@contextmanager
def overlay(on: Path, at: Path) -> Iterator[None]:
    """An overlay of the layers ``on``/lower and ``on``/upper."""
    (on / "work").mkdir()
    at.mkdir(exist_ok=True)
    layers = f"lowerdir={on}/lower,upperdir={on}/upper,workdir={on}/work"
    with mounted("-t", "overlay", "-o", layers, "overlay", at):
        yield


@pytest.fixture
def web(host: Host) -> Iterator[Host]:
    """A host with an allocation; what is mounted on it in a test is gone afterwards."""
    assert host.allocate("web") == [START]
    (host.root / "srv").chmod(0o700)
    yield host
    with suppress(subprocess.CalledProcessError):
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if line.split()[1].startswith(f"{host.root}/"):
                subprocess.run(["umount", "-l", line.split()[1]], check=True)


@pytest.fixture
def filled(web: Host, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A tree with every hazard on a file system of the kind that the test names."""
    kind, top = request.param, web.root / "srv/fs"
    outside, vol = web.root / "srv/outside", top / "vol"
    with ExitStack() as stack:
        if kind in MKFS:
            stack.enter_context(loop(kind, web.root / "image", top))
        elif kind.startswith("overlay"):
            stack.enter_context(loop("ext4", web.root / "image", top))
            vol = top / kind.partition(" ")[2]
            for layer in ("lower", "upper"):
                (top / layer).mkdir()
        vol.mkdir(parents=True, exist_ok=True)
        nasty(vol, outside)
        if kind == "squashfs":
            need("mksquashfs")
            subprocess.run(
                ["mksquashfs", vol, web.root / "image", "-quiet", "-no-progress"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            stack.enter_context(mounted("-o", "loop", web.root / "image", vol))
        if kind.startswith("overlay"):
            stack.enter_context(overlay(top, web.root / "srv/merged"))
        yield vol


def shown_at(web: Host, *words: str | Path, path: Path) -> Path:
    """Mount a volume for web; where."""
    [mount] = web.fix(*words, path=path)["mounts"]
    return Path(mount["path"])


def make(at: Path, name: str, uid: int, gid: int) -> None:
    """Make a file as this user, who needs no way to the mount."""
    subprocess.run(["touch", name], cwd=at, user=uid, group=gid, extra_groups=[], check=True)


KINDS = ["tmpfs", "ext4", "xfs", "btrfs", "squashfs", "overlay lower", "overlay upper"]


@pytest.mark.parametrize("filled", KINDS, indirect=True)
def test_a_mount_shows_what_chown_would_make_and_the_disk_stays_as_it_is(
    web: Host, filled: Path
) -> None:
    before, times = snapshot(filled), clocks(filled)
    at = shown_at(web, *SHIFT, path=filled)
    assert differences(settled(snapshot(at)), settled(expected(before, shift(START)))) == []
    assert differences(snapshot(filled), before) == []
    assert [path for path, seen in clocks(filled).items() if seen[1:] != times[path][1:]] == []


WRITABLE = [kind for kind in KINDS if kind != "squashfs"]


@pytest.mark.parametrize("filled", WRITABLE, indirect=True)
def test_what_is_made_and_changed_in_a_mount_has_the_disk_s_ids(web: Host, filled: Path) -> None:
    at = shown_at(web, *SHIFT, path=filled)
    (filled / "open").mkdir()
    (filled / "open").chmod(0o777)
    make(at / "open", "made", START + 7, START + 8)
    os.chown(at / "open", START + 65535, START)
    os.mkfifo(filled / "open/fifo")
    os.lchown(at / "open/fifo", START + 33, START + 34)
    owners = [(filled / "open" / name).lstat() for name in ("made", ".", "fifo")]
    assert [(seen.st_uid, seen.st_gid) for seen in owners] == [(7, 8), (65535, 0), (33, 34)]
    # The host's own root has no id there.
    with pytest.raises(OSError, match=os.strerror(errno.EOVERFLOW)):
        (at / "open/by-root").touch()
    with pytest.raises(OSError, match=os.strerror(errno.EOVERFLOW)):
        os.chown(at / "open/made", START - 1, -1)


def test_an_overlay_over_mounts_shows_the_container_s_ids(web: Host) -> None:
    top = web.root / "srv/fs"
    with loop("ext4", web.root / "image", top):
        for layer in ("lower", "upper", "work"):
            (top / layer).mkdir()
        simple(top / "lower", 33, 34)
        at = shown_at(web, *SHIFT, path=top)
        merged = web.root / "srv/merged"
        merged.mkdir()
        layers = f"lowerdir={at}/lower,upperdir={at}/upper,workdir={at}/work"
        with mounted("-t", "overlay", "-o", layers, "overlay", merged):
            seen = {(path.lstat().st_uid, path.lstat().st_gid) for path in merged.iterdir()}
            assert seen == {(START + 33, START + 34)}


# --- Where there can be none ------------------------------------------------------------------------------------------


@contextmanager
def of_fuse(web: Host, at: Path) -> Iterator[None]:
    need("bindfs")
    source = web.root / "srv/source"
    source.mkdir()
    subprocess.run(["bindfs", source, at], check=True)
    yield
    subprocess.run(["umount", "-l", at], check=True)


@contextmanager
def merged(web: Host, at: Path) -> Iterator[None]:
    for layer in ("lower", "upper"):
        (web.root / "srv/layers" / layer).mkdir(parents=True)
    with overlay(web.root / "srv/layers", at):
        yield


@contextmanager
def of_kernel(kind: str, _: Host, at: Path) -> Iterator[None]:
    with mounted("-t", kind, kind, at):
        yield


@contextmanager
def mapped(web: Host, at: Path) -> Iterator[None]:
    source = web.root / "srv/source"
    source.mkdir()
    web.fix(*SHIFT, "--at", f"/srv/{at.name}", path=source)
    yield


IMPOSSIBLE: dict[str, tuple[Callable[[Host, Path], AbstractContextManager[None]], str]] = {
    "FUSE": (of_fuse, r"cannot have an idmap: its file system \(fuse\) is a program"),
    "merged overlay": (merged, "cannot have an idmap: a merged overlay cannot, its layers can"),
    "proc": (partial(of_kernel, "proc"), "is on proc, a file system of the kernel"),
    "sysfs": (partial(of_kernel, "sysfs"), "is on sysfs, a file system of the kernel"),
    "mapped already": (mapped, "is on the mount of .*srv/source for 'web', which shows other ids"),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_where_there_can_be_no_map_the_reason_is_said_and_nothing_is_made(
    web: Host, kind: str
) -> None:
    setting, why = IMPOSSIBLE[kind]
    web.volume.mkdir(exist_ok=True)
    with setting(web, web.volume):
        before = mount_lines(), web.run_names()
        said = web.refusal(*SHIFT, "--protected", "--at", "/srv/at", status=9)
        assert re.search(f"srv/vol {why}", said), said
        assert not (web.root / "srv/at").exists()
        assert (mount_lines(), web.run_names()) == before


def mount_lines() -> list[bytes]:
    return Path("/proc/self/mountinfo").read_bytes().splitlines()


# Installs a filter that answers ENOSYS to the system calls of the first argument, and becomes the others.
FILTER = """
import ctypes, os, struct, sys
calls = [int(word) for word in sys.argv[1].split(",")]
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
rows = [(LOAD, 0, 0, 0)]
rows += [(EQUAL, len(calls) - number, 0, call) for number, call in enumerate(calls)]
rows += [(RETURN, 0, 0, 0x7FFF0000), (RETURN, 0, 0, 0x00050000 | 38)]
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *row) for row in rows))
prctl = ctypes.CDLL(None, use_errno=True).prctl
what = struct.pack("@HP", len(rows), ctypes.addressof(program))
assert prctl(22, 2, what, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[2], sys.argv[2:])
"""
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR, STATMOUNT, LISTMOUNT = 428, 429, 442, 457, 458


def without(
    calls: tuple[int, ...], *words: str | Path, status: int
) -> subprocess.CompletedProcess[str]:
    """Run usernsplan where the kernel does not know these calls, or a filter says so."""
    numbers = ",".join(map(str, calls))
    done = subprocess.run(
        [sys.executable, "-c", FILTER, numbers, *PROGRAM, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("call", [OPEN_TREE, MOUNT_SETATTR, MOVE_MOUNT])
def test_a_kernel_without_the_calls_is_an_error_that_says_so_and_auto_is_chown(
    web: Host, call: int
) -> None:
    simple(web.volume, 33, 33)
    before = mount_lines()
    root = ("--root", web.root)
    done = without((call,), "fix-volume", web.volume, *SHIFT, *root, status=9)
    assert re.search(
        "srv/vol cannot .*(a filter of system calls|function not implemented)", done.stderr
    )
    assert mount_lines() == before
    if call == MOVE_MOUNT:
        # It is as old as open_tree, so nobody looks for it beforehand. Nothing stands in the way later.
        assert shown_at(web, *SHIFT, path=web.volume).exists()
        return
    words = ("--method", "auto", "--container", "web", "--mode", "shift")
    without((call,), "fix-volume", web.volume, *words, *root, status=0)
    assert {path.lstat().st_uid for path in web.volume.iterdir()} == {START + 33}
    assert mount_lines() == before


def test_a_kernel_that_tells_no_maps_is_asked_for_what_it_tells(web: Host) -> None:
    simple(web.volume, 33, 33)
    blind = (STATMOUNT, LISTMOUNT)
    root = ("--root", web.root)
    without(blind, "fix-volume", web.volume, *SHIFT, *root, status=0)
    at = web.root / "run/usernsplan/volumes/web/srv-vol"
    assert {path.lstat().st_uid for path in at.iterdir()} == {START + 33}
    before = mount_lines()
    without(blind, "fix-volume", web.volume, *SHIFT, *root, status=0)
    assert mount_lines() == before
    without(blind, "undo", "--last", *root, status=0)
    assert not at.exists()


# --- Other maps, modes, sources and places ---------------------------------------------------------------------------


def ids(path: Path | str) -> tuple[int, int]:
    seen = os.lstat(path)
    return seen.st_uid, seen.st_gid


def test_one_owner_is_shown_as_the_user_and_every_other_as_nobody(web: Host) -> None:
    simple(web.volume, 1000, 100)
    simple(web.volume / "other", 7, 8)
    at = shown_at(web, *IDMAP, "--user", "33:34", path=web.volume)
    assert {ids(path) for path in (at, *at.glob("file*"))} == {(START + 33, START + 34)}
    assert ids(at / "other") == (NOBODY, NOBODY)
    make(at, "made", START + 33, START + 34)
    assert ids(web.volume / "made") == (1000, 100)


def test_a_map_of_340_lines_whose_uids_and_gids_differ(web: Host) -> None:
    # A pass at the start, and 169 more with a piece of the range before each: 170 + 170 lines.
    passes = [f"--pass=u:{1000 + 2 * number}:{2 * number}" for number in range(170)]
    words = ("allocate", "--strategy", "per-container", "many", *passes, "--pass", "g:5000:7")
    usernsplan(*words, "--root", web.root)
    rendered = usernsplan("render", "uid_map", "many", "--root", web.root).stdout
    lines = [tuple(map(int, line.split())) for line in rendered.splitlines()]
    assert len(lines) == 340
    [start] = {host - inside for inside, host, count in lines if count > 1}
    web.volume.mkdir(exist_ok=True)
    for number in (0, 1, 2, 7, 338, 339, 65535):
        (web.volume / str(number)).touch()
        os.chown(web.volume / str(number), number, number)
    shift = ("--method", "idmap", "--container", "many", "--mode", "shift")
    at = shown_at(web, *shift, path=web.volume)
    assert {int(path.name): ids(path) for path in at.iterdir()} == {
        0: (1000, start),
        1: (start + 1, start + 1),
        2: (1002, start + 2),
        7: (start + 7, 5000),
        338: (1338, start + 338),
        339: (start + 339, start + 339),
        65535: (start + 65535, start + 65535),
    }


NAMES = [" line\nbreak ", os.fsdecode(b"\xff\xfe"), *slow(" blank s ", "back\\040slash", "käse")]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_source_and_mount_point_may_have_any_name(web: Host, name: str, kind: str) -> None:
    source, at = web.root / "srv" / name, web.root / "srv/at" / name
    at.parent.mkdir()
    if kind == "file":
        source.write_text("content")
    else:
        source.mkdir()
    os.chown(source, 33, 34)
    for words in (("--at", f"/srv/at/{name}"), ()):
        assert web.fix(*SHIFT, *words, path=source)["failed"] == []
        place = at if words else next((web.root / "run/usernsplan/volumes/web").iterdir())
        assert ids(place) == (START + 33, START + 34)
        # Nothing is left to be done, and undo finds it.
        assert web.fix(*SHIFT, *words, path=source)["run"] is None
        web.undo("--last")
        assert not place.exists()
    assert ids(source) == (33, 34)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_mount_that_only_reads_refuses_every_change(web: Host, kind: str) -> None:
    simple(web.volume, 33, 33)
    source = web.volume if kind == "folder" else web.volume / "file-0"
    at = shown_at(web, *SHIFT, "--read-only", path=source)
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        os.chown(at, START, START)
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        os.utime(at)
    os.utime(source)


def test_a_file_is_mounted_alone_and_written_in_place(web: Host) -> None:
    simple(web.volume, 33, 33)
    file = web.volume / "file-0"
    at = shown_at(web, *SHIFT, path=file)
    assert at.is_file()
    assert ids(at) == (START + 33, START + 33)
    at.write_text("new")
    assert file.read_text() == "new"
    assert {path.name for path in at.parent.iterdir()} == {at.name}


# --- Mounts inside ----------------------------------------------------------------------------------------------------


@pytest.fixture
def inner(web: Host) -> Path:
    """A mount in a mount in the volume."""
    first = web.volume / "first"
    first.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", first], check=True)
    (first / "second").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", first / "second"], check=True)
    os.chown(first, 33, 34)
    return first


def test_mounts_inside_are_named_and_left_out(web: Host, inner: Path) -> None:
    report = web.fix(*SHIFT)
    [note] = report["notes"]
    assert note.endswith(f"{inner}, {inner}/second")
    at = Path(report["mounts"][0]["path"])
    assert list((at / "first").iterdir()) == []
    assert web.undo("--last")["failed"] == []


def test_mounts_inside_are_shown_with_their_own_options_and_undone_together(
    web: Host, inner: Path
) -> None:
    before = mount_lines()
    report = web.fix(*SHIFT, "--cross-mounts")
    assert report["notes"] == []
    at = Path(report["mounts"][0]["path"])
    assert ids(at / "first") == (START + 33, START + 34)
    assert ids(at / "first/second") == (START, START)
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        (at / "first/second/new").touch()
    # What is mounted there later has no map, and stays outside.
    with mounted("-t", "tmpfs", "tmpfs", inner / "second"):
        assert ids(at / "first/second") == (START, START)
    assert web.undo("--last")["failed"] == []
    assert mount_lines() == before
    assert not at.exists()


def test_a_mount_inside_that_can_have_no_map_stops_all(web: Host, inner: Path) -> None:
    with of_fuse(web, inner / "second"):
        before = mount_lines()
        said = web.refusal(*SHIFT, "--cross-mounts", status=9)
        assert "srv/vol cannot have an idmap: what is mounted in it cannot: " in said
        assert f"{inner}/second (fuse)" in said
        # The read-only tmpfs below it can, and so can the one around it.
        assert said.count("(tmpfs)") == 0
        assert mount_lines() == before


# --- Any map ----------------------------------------------------------------------------------------------------------


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    uids=id_maps(),
    gids=id_maps(),
    owners=st.lists(st.tuples(*[st.integers(0, 40)] * 2), min_size=1, max_size=8),
    given_to=st.lists(st.tuples(*[st.integers(0, 40)] * 2), min_size=1, max_size=8),
)
def test_ids_in_a_mount_are_the_map_of_the_ids_on_disk_and_back(
    host: Host,
    uids: IdMap,
    gids: IdMap,
    owners: list[tuple[int, int]],
    given_to: list[tuple[int, int]],
) -> None:
    # A host id from 600000 on, so that the two sides are never taken for each other.
    maps = [
        [(disk, 600000 + host, count) for disk, host, count in one.triples()]
        for one in (uids, gids)
    ]
    mapping = Mapping(*(IdMap.of(*lines) for lines in maps))
    there = [{d + n: h + n for d, h, count in lines for n in range(count)} for lines in maps]
    back = [{seen: disk for disk, seen in one.items()} for one in there]
    host.volume.mkdir(exist_ok=True)
    file = host.volume / "file"
    file.touch()
    namespace = idmap.user_namespace(mapping)
    source = os.open(host.volume, os.O_PATH)
    try:
        tree = idmap.detached(source, namespace)
    finally:
        os.close(source)
        os.close(namespace)
    try:
        for pair in owners:
            os.chown(file, *pair)
            seen = os.stat("file", dir_fd=tree)
            wanted = [one.get(number, NOBODY) for one, number in zip(there, pair, strict=True)]
            assert [seen.st_uid, seen.st_gid] == wanted
        os.chown(file, *(next(iter(one)) for one in there))
        for pair in given_to:
            before = ids(file)
            to = [600000 + number for number in pair]
            if not all(number in one for one, number in zip(back, to, strict=True)):
                with pytest.raises(OSError, match=os.strerror(errno.EOVERFLOW)):
                    os.chown("file", *to, dir_fd=tree)
                assert ids(file) == before
            else:
                os.chown("file", *to, dir_fd=tree)
                assert ids(file) == (back[0][to[0]], back[1][to[1]])
    finally:
        os.close(tree)
