"""Folders below a volume: what is mounted there, how they are opened, and that nobody leads out of them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import accumulate
from pathlib import Path

import pytest

from tests.unit.oracle import needs
from usernsplan.host.mounts import MountPoint, all_mounts, parse
from usernsplan.volume import syscalls, walk
from usernsplan.volume.parts import TOP, Parts
from usernsplan.volume.walk import (
    Mounts,
    OpenVolume,
    Walker,
    folder,
    names,
    other_names,
    pin,
)

ROOT = MountPoint("8:1", "/", "/", "ext4")
# What a process sees at the start of a namespace: the file system's root, two more, and bind mounts of parts of them.
DATA = MountPoint("8:2", "/", "/data", "xfs")
HOST = [
    ROOT,
    DATA,
    MountPoint("0:5", "/", "/proc", "proc"),
    MountPoint("8:2", "/web", "/srv/web", "xfs"),
    MountPoint("8:1", "/var/lib/db", "/srv/db", "ext4"),
    MountPoint("8:2", "/web/static", "/data/other/static", "xfs"),
    MountPoint("8:2", "/webby", "/srv/webby", "xfs"),
]


# What is mounted


@pytest.mark.parametrize(
    ("line", "mount"),
    [
        (
            "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n",
            ("98:0", "/mnt1", "/mnt2", "ext3"),
        ),
        ("1 1 8:1 / / rw - ext4 /dev/sda1 rw\n", ("8:1", "/", "/", "ext4")),
        (
            "1 1 8:1 / /a rw shared:1 master:2 propagate_from:3 unbindable - tmpfs none rw\n",
            ("8:1", "/", "/a", "tmpfs"),
        ),
        (
            "1 1 8:1 /a\\040b /c\\011d\\012e\\134f\\043 rw - xfs x rw\n",
            ("8:1", "/a b", "/c\td\ne\\f#", "xfs"),
        ),
        ("1 1 8:1 / /a\\134040b rw - xfs x rw\n", ("8:1", "/", "/a\\040b", "xfs")),
        ("1 1 8:1 / /\udcff\u00fc rw - xfs x rw\n", ("8:1", "/", "/\udcff\u00fc", "xfs")),
        (
            "1 1 0:4 net:[4026531840] /run/netns/x rw - nsfs nsfs rw\n",
            ("0:4", "net:[4026531840]", "/run/netns/x", "nsfs"),
        ),
        (
            "1 1 8:1 / /a-b/- rw - fuse.sshfs a\\040-\\040b rw\n",
            ("8:1", "/", "/a-b/-", "fuse.sshfs"),
        ),
        ("1 1 8:1 /x//deleted /a rw - ext4 x rw\n", ("8:1", "/x//deleted", "/a", "ext4")),
    ],
)
def test_a_line_of_mountinfo_is_read_as_proc_5_writes_it(
    line: str, mount: tuple[str, str, str, str]
) -> None:
    assert parse(line)[:4] == mount


def test_the_options_of_a_mount_and_of_its_file_system_are_kept_apart() -> None:
    mapped = parse("1 1 8:1 / /a rw,relatime,idmapped shared:1 - ext4 /dev/x rw\n")
    assert (mapped.is_idmapped, mapped.number) == (True, os.makedev(8, 1))
    # Another option, and one of the file system, of nearly that name.
    assert not parse("1 1 8:1 / /a rw,noidmapped - ext4 /dev/x rw,idmapped\n").is_idmapped
    line = "1 1 0:70 / /m rw - overlay overlay rw,lowerdir=/a:/b,upperdir=/x\\040y\\054z,workdir=/w,metacopy=on\n"
    overlay = parse(line)
    assert [
        overlay.fs_option(name) for name in ("lowerdir", "upperdir", "metacopy", "dir", "rw")
    ] == [*("/a:/b", "/x y,z", "on", "", "")]


def test_our_own_mounts_are_read() -> None:
    found = all_mounts()
    assert "/proc" in {mount.point for mount in found if mount.kind == "proc"}
    assert len(found) == len(Path("/proc/self/mountinfo").read_bytes().split(b"\n")) - 1


# Runs in a mount namespace of its own: mounts at this name, and prints what is seen there.
_MOUNTED = """
import json, os, subprocess, sys
from usernsplan.host.mounts import all_mounts
from usernsplan.volume import walk
from usernsplan.volume.parts import TOP
top, name = sys.argv[1:]
os.mkdir(os.path.join(top, name))
subprocess.run(["mount", "-t", "tmpfs", "none", os.path.join(top, name)], check=True)
mounts = all_mounts()
below = walk.Mounts.below(top, mounts)
points = [os.path.join(top, name)]
print(json.dumps([below.names[TOP] == {name}, below.points(top) == points, below.crossed_by(TOP.below(name))]))
"""


@needs("mount")
@pytest.mark.parametrize(
    "name",
    [
        *("a b", "a\tb", "a\nb", "a\\b", "a\\040b", "a#b", " - ext4", "ü", "\udcff", "'\"$"),
        "a\rb",
    ],
)
def test_the_kernel_s_own_spelling_of_any_name_is_understood(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", _MOUNTED, tmp_path, name],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stdout == "[true, true, true]\n", done.stderr


def test_what_is_mounted_below_a_volume_is_known_by_the_parts_of_its_folder() -> None:
    mounts = Mounts.below("/srv", HOST)
    assert mounts.names == {TOP: {"web", "db", "webby"}}
    assert sorted(mounts.points("/srv")) == ["/srv/db", "/srv/web", "/srv/webby"]
    assert Mounts.below("/data", HOST).names == {Parts.of(["other"]): {"static"}}
    assert Mounts.below("/data/other", HOST).points("/data/other") == ["/data/other/static"]
    for path in ("/srv/web", "/srv/we", "/dat", "/data/othe", "/data/other/static"):
        assert Mounts.below(path, HOST).names == {}
    assert Mounts.below("/", HOST).names[TOP] == {"data", "proc"}
    assert sorted(Mounts.below("/", HOST).points("/"))[:2] == ["/data", "/data/other/static"]


def test_a_path_leads_through_a_mount_where_one_of_its_folders_is_one() -> None:
    mounts = Mounts.below(
        "/", [MountPoint("1:1", "/", "/a/b", "x"), MountPoint("1:1", "/", "/a/b/c/d", "x")]
    )
    for parts, crossed in (
        ((), False),
        (("a",), False),
        (("b",), False),
        (("a", "b"), True),
        (("a", "b", "x"), True),
        (("a", "bb"), False),
        (("x", "a", "b"), False),
        (("b", "c", "d"), False),
    ):
        assert mounts.crossed_by(Parts.of(parts)) is crossed, parts
    assert Mounts().crossed_by(Parts.of(["a"])) is False


@pytest.mark.parametrize(
    ("path", "others"),
    [
        ("/data/web", ["/srv/web"]),
        ("/data/web/x", ["/srv/web/x"]),
        ("/srv/web", ["/data/web"]),
        ("/srv/web/x/y", ["/data/web/x/y"]),
        ("/srv/web/static", ["/data/web/static", "/data/other/static"]),
        ("/data/other/static", ["/data/web/static", "/srv/web/static"]),
        ("/data/webby", ["/srv/webby"]),
        ("/data/webbys", []),
        ("/var/lib/db/pg", ["/srv/db/pg"]),
        ("/srv/db", ["/var/lib/db"]),
        ("/var/lib/dbx", []),
        ("/proc/self", []),
        ("/data", []),
        ("/", []),
    ],
)
def test_a_folder_has_the_names_that_bind_mounts_of_it_and_above_it_give(
    path: str, others: list[str]
) -> None:
    assert sorted(name for name in other_names(path, HOST) if name != path) == sorted(others)


def test_a_bind_mount_of_the_whole_root_gives_each_folder_another_name() -> None:
    mounts = [ROOT, MountPoint("8:1", "/", "/host", "ext4")]
    assert other_names("/etc", mounts) == ["/host/etc"]
    assert other_names("/host/etc", mounts) == ["/etc"]
    assert other_names("/host", mounts) == ["/"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/srv", "ext4"),
        ("/srv/web/x", "xfs"),
        ("/proc/1", "proc"),
        ("/processes", "ext4"),
        ("/data", "xfs"),
    ],
)
def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert walk.kind_of(path, HOST) == kind
    assert walk.kind_of("/data/x", [*HOST, MountPoint("0:9", "/", "/data", "tmpfs")]) == "tmpfs"


def test_a_mount_over_another_hides_it() -> None:
    mounts = [*HOST, MountPoint("0:9", "/", "/data", "tmpfs")]
    assert other_names("/data/web", mounts) == []


# Opening


@contextmanager
def opened(
    path: Path, *, has_openat2: bool = True, cross_mounts: bool = False
) -> Iterator[OpenVolume]:
    of = walk.volume(str(path), cross_mounts=cross_mounts)._replace(has_openat2=has_openat2)
    try:
        yield of
    finally:
        os.close(of.top)


@contextmanager
def there(of: OpenVolume, *parts: str) -> Iterator[os.stat_result]:
    descriptor = folder(of, Parts.of(parts))
    try:
        assert not os.get_inheritable(descriptor)
        os.listdir(descriptor)
        yield os.fstat(descriptor)
    finally:
        os.close(descriptor)


BOTH = pytest.mark.parametrize("has_openat2", [True, False])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = (tmp_path / "vol").resolve()
    (top / "a/b/c").mkdir(parents=True)
    (top / "file").touch()
    (tmp_path / "outside").mkdir()
    (top / "to-a").symlink_to("a")
    (top / "a/up").symlink_to("..")
    (top / "out").symlink_to(tmp_path / "outside")
    (top / "self").symlink_to("self")
    os.mkfifo(top / "fifo")
    return top


@BOTH
@pytest.mark.parametrize("parts", [(), ("a",), ("a", "b"), ("a", "b", "c")])
def test_a_folder_is_found_by_its_parts(
    tree: Path, has_openat2: bool, parts: tuple[str, ...]
) -> None:
    with opened(tree, has_openat2=has_openat2) as of, there(of, *parts) as seen:
        expected = tree.joinpath(*parts).stat()
        assert (seen.st_dev, seen.st_ino) == (expected.st_dev, expected.st_ino)


@BOTH
@pytest.mark.parametrize(
    "parts",
    [
        ("to-a",),
        ("to-a", "b"),
        ("a", "up"),
        ("a", "up", "a"),
        ("out",),
        ("self",),
        ("file",),
        ("file", "x"),
        ("fifo",),
        ("x",),
    ],
)
def test_no_symlink_is_followed_and_what_is_no_folder_is_gone(
    tree: Path, has_openat2: bool, parts: tuple[str, ...]
) -> None:
    with opened(tree, has_openat2=has_openat2) as of:
        with pytest.raises(OSError) as raised:  # noqa: PT011 - which one is what is asked
            folder(of, Parts.of(parts))
        assert raised.value.errno in walk.GONE


@BOTH
def test_a_folder_that_became_a_symlink_or_was_moved_away_leads_nowhere(
    tree: Path, has_openat2: bool
) -> None:
    with opened(tree, has_openat2=has_openat2) as of:
        (tree / "a").rename(tree.parent / "outside/a")
        for place in (None, tree.parent / "outside/a"):
            if place:
                (tree / "a").symlink_to(place)
            with pytest.raises(OSError) as raised:  # noqa: PT011 - which one is what is asked
                folder(of, Parts.of(("a", "b")))
            assert raised.value.errno in walk.GONE


@BOTH
def test_the_top_is_pinned_whatever_gets_its_name(tree: Path, has_openat2: bool) -> None:
    with opened(tree, has_openat2=has_openat2) as of:
        tree.rename(tree.parent / "moved")
        tree.symlink_to(tree.parent / "outside")
        with there(of, "a", "b") as seen:
            assert seen.st_ino == (tree.parent / "moved/a/b").stat().st_ino


def test_nothing_above_the_top_is_opened(tree: Path) -> None:
    with opened(tree) as of, pytest.raises(OSError) as raised:  # noqa: PT011 - which one is what is asked
        folder(of, Parts.of([".."]))
    assert raised.value.errno == errno.EXDEV


def test_nobody_leads_out_by_a_name_of_dots(tree: Path) -> None:
    # os.listdir never gives one, and a journal is root's.
    with opened(tree) as of, pytest.raises(OSError):  # noqa: PT011 - which one does not matter
        folder(of, Parts.of(("a", "..", "..", "outside")))


@BOTH
def test_a_folder_deeper_than_any_path_is_found(tree: Path, has_openat2: bool) -> None:
    name, depth = "d" * 200, 40
    with ExitStack() as stack:
        here = os.open(tree, os.O_PATH)
        stack.callback(os.close, here)
        for _ in range(depth):
            os.mkdir(name, dir_fd=here)
            here = os.open(name, os.O_PATH, dir_fd=here)
            stack.callback(os.close, here)
        bottom = os.fstat(here).st_ino
        of = stack.enter_context(opened(tree, has_openat2=has_openat2))
        with there(of, *[name] * depth) as seen:
            assert seen.st_ino == bottom
        for parts in ([name] * (depth + 1), [*[name] * 30, "x", *[name] * 9]):
            with pytest.raises(FileNotFoundError):
                folder(of, Parts.of(parts))
        os.symlink("/", "link", dir_fd=here)
        with pytest.raises(OSError) as raised:  # noqa: PT011 - which one is what is asked
            folder(of, Parts.of([*[name] * depth, "link"]))
        assert raised.value.errno in walk.GONE


@pytest.mark.parametrize("parts", [20, 15, 16, 31, 4000])
def test_every_length_of_a_path_is_taken(tree: Path, parts: int) -> None:
    """Of 255 bytes, or of one: the kernel's limits are 4096 bytes for a path and 255 for a name."""
    name = "é" * 127 if parts < 100 else "n"
    with ExitStack() as stack:
        here = os.open(tree, os.O_PATH)
        for _ in range(parts):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_PATH, dir_fd=here)
            os.close(here)
            here = below
        bottom = os.fstat(here).st_ino
        os.close(here)
        of = stack.enter_context(opened(tree))
        with there(of, *[name] * parts) as seen:
            assert seen.st_ino == bottom
        before = len(os.listdir("/proc/self/fd"))
        os.close(folder(of, Parts.of([name] * parts)))
        with pytest.raises(FileNotFoundError):
            folder(of, Parts.of([*[name] * parts, "x"]))
        assert len(os.listdir("/proc/self/fd")) == before
    subprocess.run(["rm", "-rf", tree / name], check=True)


@BOTH
def test_names_of_any_bytes_are_found(tree: Path, has_openat2: bool) -> None:
    for name in ("a\nb", " ", "\udcff\udcfe", "ü", "*", "-rf", "..."):
        (tree / "a" / name).mkdir()
        with opened(tree, has_openat2=has_openat2) as of, there(of, "a", name) as seen:
            assert seen.st_ino == (tree / "a" / name).stat().st_ino


@BOTH
def test_looking_leaks_no_descriptor_and_moves_no_atime(tree: Path, has_openat2: bool) -> None:
    os.utime(tree / "a", (1, 1))
    with opened(tree, has_openat2=has_openat2) as of:
        before = sorted(os.listdir("/proc/self/fd"))
        for parts in ((), ("a",), ("a", "b"), ("x",), ("to-a",), ("a", "x", "y")):
            with suppress(OSError):
                os.close(folder(of, Parts.of(parts)))
        assert sorted(os.listdir("/proc/self/fd")) == before
        if has_openat2:
            with there(of, "a"):
                pass
            assert (tree / "a").stat().st_atime == 1


def test_the_top_itself_is_opened_through_no_symlink(tree: Path) -> None:
    (tree.parent / "link").symlink_to(tree)
    for path in ("link", "link/a", "vol/to-a", "vol/file", "vol/x"):
        with pytest.raises(OSError) as raised:  # noqa: PT011 - which one is what is asked
            pin(str(tree.parent / path))
        assert raised.value.errno in walk.GONE
    descriptor = pin(str(tree / "a"))
    assert os.fstat(descriptor).st_ino == (tree / "a").stat().st_ino
    os.close(descriptor)
    descriptor = pin("/")
    assert os.fstat(descriptor).st_ino == Path("/").stat().st_ino
    os.close(descriptor)


def test_where_the_kernel_has_no_openat2_everything_is_opened_part_by_part(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(syscalls, "openat2", lacking)
    of = walk.volume(str(tree))
    assert of.has_openat2 is False
    with there(of, "a", "b") as seen:
        assert seen.st_ino == (tree / "a/b").stat().st_ino
    with pytest.raises(OSError) as raised:  # noqa: PT011 - which one is what is asked
        pin(str(tree / "to-a"))
    assert raised.value.errno in walk.GONE
    os.close(of.top)


@pytest.mark.parametrize("cross_mounts", [False, True])
def test_without_openat2_a_mount_is_known_from_mountinfo(tree: Path, cross_mounts: bool) -> None:
    mounts = Mounts({Parts.of(["a"]): frozenset({"b"})})
    with opened(tree, has_openat2=False) as real:
        of = real._replace(mounts=mounts, cross_mounts=cross_mounts)
        os.close(folder(of, Parts.of(["a"])))
        for parts in (("a", "b"), ("a", "b", "c")):
            if cross_mounts:
                os.close(folder(of, Parts.of(parts)))
                continue
            with pytest.raises(OSError) as raised:  # noqa: PT011 - which one is what is asked
                folder(of, Parts.of(parts))
            assert raised.value.errno == errno.EXDEV


def test_a_place_is_shown_by_its_path() -> None:
    of = OpenVolume("/srv/vol", -1, Mounts())
    assert [
        of.shown(TOP),
        of.shown(TOP, "f"),
        of.shown(Parts.of("ab")),
        of.shown(Parts.of("a"), "f"),
    ] == [*("/srv/vol", "/srv/vol/f", "/srv/vol/a/b", "/srv/vol/a/f")]
    slash = of._replace(path="/")
    assert [slash.shown(TOP), slash.shown(TOP, "f"), slash.shown(Parts.of("a"))] == [
        "/",
        "/f",
        "/a",
    ]


# Deep


@contextmanager
def chain(top: Path, depth: int) -> Iterator[list[int]]:
    """Folders d/d/d/… below the top, each with a folder s beside it. Yields the inodes of d, from the top's on."""
    inodes = [top.stat().st_ino]
    with ExitStack() as stack:
        here = os.open(top, os.O_PATH)
        for _ in range(depth):
            os.mkdir("s", dir_fd=here)
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_PATH, dir_fd=here)
            os.close(here)
            here = below
            inodes.append(os.fstat(here).st_ino)
        stack.callback(os.close, here)
        yield inodes
    subprocess.run(["rm", "-rf", top / "d"], check=True)


def inode_of(walker: Walker, of: OpenVolume, parts: Parts) -> int:
    descriptor = walker.folder(of, parts)
    try:
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


@BOTH
def test_a_walker_finds_each_folder_of_a_deep_chain_and_holds_few(
    tree: Path, has_openat2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down and up again, and across. With each folder it opens few others, and leaves none open."""
    monkeypatch.setattr(walk, "_HELD", 6)
    opens = 0
    opened_below = walk._opened

    def counting(of: OpenVolume, above: int, parts: list[str]) -> int:
        nonlocal opens
        opens += 1
        assert len(parts) <= 15
        return opened_below(of, above, parts)

    monkeypatch.setattr(walk, "_opened", counting)
    depth = 400
    with chain(tree, depth) as inodes, opened(tree, has_openat2=has_openat2) as of:
        before = len(os.listdir("/proc/self/fd"))
        walker = Walker()
        places = [*accumulate(["d"] * depth, Parts.below, initial=TOP)]
        for place in (*places, *reversed(places)):
            assert inode_of(walker, of, place) == inodes[place.depth]
            assert len(os.listdir("/proc/self/fd")) <= before + 6
        for place in places[:-1]:
            inode_of(walker, of, place.below("s"))
        assert opens < 3 * depth * 1.3
        with pytest.raises(FileNotFoundError):
            walker.folder(of, places[-1].below("x"))
        # A place that it has not made itself, and another volume.
        assert inode_of(walker, of, Parts.of("d" * depth)) == inodes[-1]
        with opened(tree / "d") as other:
            assert inode_of(walker, other, places[40]) == inodes[41]
        walker.close()
        assert len(os.listdir("/proc/self/fd")) == before


@BOTH
@pytest.mark.parametrize("level", [1, 14, 15, 16, 29, 30, 31, 40])
def test_nobody_leads_a_walker_out_of_a_deep_volume(
    tree: Path, has_openat2: bool, level: int
) -> None:
    """A folder above, below or among those that are held leaves the volume; a symlink to its like takes its name."""
    outside, named = tree.parent / "outside", tree / ("d/" * level)

    def found(walker: Walker, place: Parts) -> int:
        try:
            return inode_of(walker, of, place)
        except OSError as error:
            return -(error.errno or 0)

    with ExitStack() as stack:
        inodes = stack.enter_context(chain(tree, 45))
        stack.enter_context(chain(outside, 45))
        of = stack.enter_context(opened(tree, has_openat2=has_openat2))
        places = [*accumulate(["d"] * 45, Parts.below, initial=TOP)]
        for start in (45, 32, 16, 3):
            walker = Walker()
            assert inode_of(walker, of, places[start]) == inodes[start]
            named.rename(outside / "moved")
            named.symlink_to(outside / ("d/" * level))
            for place in (*reversed(places), *places):
                # A folder that is held was in the volume, so what is in it may be found, and nothing else.
                gone = {-code for code in walk.GONE} if place.depth >= level else set()
                assert found(walker, place) in {inodes[place.depth], *gone}
            named.unlink()
            (outside / "moved").rename(named)
            walker.close()


# Names


def test_the_names_of_a_small_folder_are_one_list(tree: Path) -> None:
    descriptor = pin(str(tree))
    [found] = names(descriptor, os.fstat(descriptor).st_size)
    assert sorted(found) == sorted(os.listdir(tree))
    os.close(descriptor)


@pytest.mark.parametrize("entries", [0, 1, 9, 10, 11, 35])
def test_those_of_a_very_large_one_are_several_and_none_is_missing_or_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: int
) -> None:
    monkeypatch.setattr(walk, "_BATCH", 10)
    for number in range(entries):
        (tmp_path / f"\udcff\n{number}").touch()
    descriptor = pin(str(tmp_path.resolve()))
    batches = list(names(descriptor, walk.BIG))
    assert [len(batch) for batch in batches] == [10] * (entries // 10) + [entries % 10] * bool(
        entries % 10
    )
    assert sorted(name for batch in batches for name in batch) == sorted(os.listdir(tmp_path))
    # A second reading starts anew.
    assert sorted(name for batch in names(descriptor, walk.BIG) for name in batch) == sorted(
        os.listdir(tmp_path)
    )
    os.close(descriptor)
