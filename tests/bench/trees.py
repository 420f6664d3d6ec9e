"""File systems of their own, and trees of each shape that people (or attackers) have.

A builder makes all for root in a fresh folder, and returns how many entries (names) the tree has.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDER = 100
NAMES_EACH = 20
# Of an ACL's xattr, from acl(5) and linux/posix_acl.h.
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 0x10, 0x20
UNNAMED = 0xFFFFFFFF


@contextlib.contextmanager
def mounted(kind: str, on: Path, files: int, images: Path) -> Iterator[Path]:
    """A fresh file system on a new folder, with room for that many files, and a folder on it for the tree."""
    on.mkdir(parents=True, exist_ok=True)
    image = images / f"{on.name}.img"
    if kind == "ext4":
        inodes = files + files // 10 + 4096
        with image.open("wb") as file:
            # Inodes, folders, and names of 255 bytes.
            file.truncate(inodes * (256 + 512) + files // FOLDER * 16_384 + (640 << 20))
        # Made whole now, lest the kernel go on making it while we measure; and with the journal that a large disk has:
        # where it is full, whoever changes inodes waits for the disk.
        made_now = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
        options = ["-q", "-F", "-E", made_now, "-J", "size=256", "-N", str(inodes)]
        subprocess.run(["mkfs.ext4", *options, image], check=True)
        subprocess.run(["mount", "-o", "loop", image, on], check=True)
    else:
        options = ["-t", "tmpfs", "-o", "size=100%,nr_inodes=0"]
        subprocess.run(["mount", *options, "bench", on], check=True)
    try:
        tree = on / "volume"
        tree.mkdir()
        yield tree
    finally:
        subprocess.run(["umount", on], check=True)
        image.unlink(missing_ok=True)


def shared(count: int, make: Callable[[range], None]) -> None:
    """Make the things 0 to ``count`` in two processes."""
    half = count // 2
    child = os.fork()
    if child == 0:
        try:
            make(range(half))
        except BaseException as error:  # noqa: BLE001 - a forked process must not run on as the benchmark
            print(f"{error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    make(range(half, count))
    if os.waitpid(child, 0)[1]:
        sys.exit("the tree could not be made")


@contextlib.contextmanager
def opened(folder: str | Path) -> Iterator[int]:
    pinned = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield pinned
    finally:
        os.close(pinned)


def create(name: str, folder: int, mode: int = 0o644) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=folder))


def place(tree: Path, number: int) -> Path:
    """The folder with that number: a hundred of them in each folder of the top."""
    return tree / f"d{number // FOLDER:04}" / f"d{number % FOLDER:02}"


def plain(tree: Path, files: int, each: Callable[[str, int, int], None] = lambda *_: None) -> int:
    """Files in folders of 100, those in folders of 100; ``each`` gets a name, its folder and its number."""
    folders = -(-files // FOLDER)

    def make(numbers: range) -> None:
        for number in numbers:
            folder = place(tree, number)
            folder.mkdir(parents=True, exist_ok=True)
            with opened(folder) as pinned:
                for file in range(number * FOLDER, min((number + 1) * FOLDER, files)):
                    create(f"file-{file:07}", pinned)
                    each(f"file-{file:07}", pinned, file)

    shared(folders, make)
    return files + folders + -(-folders // FOLDER) + 1


def open_to_all(tree: Path, files: int) -> int:
    """The same, and everybody may write to each folder."""
    entries = plain(tree, files)
    subprocess.run(["find", tree, "-type", "d", "-exec", "chmod", "0777", "{}", "+"], check=True)
    return entries


def with_setuid(tree: Path, files: int) -> int:
    """The same, and each file has the setuid bit."""
    entries = plain(tree, files)
    set_setuid(tree)
    return entries


def set_setuid(tree: Path) -> None:
    subprocess.run(["find", tree, "-type", "f", "-exec", "chmod", "4755", "{}", "+"], check=True)


def with_acls(tree: Path, files: int) -> int:
    """The same, and each file has an ACL with twelve named entries, of other ids than its neighbours."""

    def give(name: str, folder: int, number: int) -> None:
        first = 1000 + number % 997
        entries = [(USER_OBJ, 6, UNNAMED), *((USER, 4, first + at) for at in range(6))]
        entries += [(GROUP_OBJ, 4, UNNAMED), *((GROUP, 4, first + at) for at in range(6))]
        entries += [(MASK, 4, UNNAMED), (OTHER, 4, UNNAMED)]
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
        os.setxattr(f"/proc/self/fd/{folder}/{name}", "system.posix_acl_access", acl)

    return plain(tree, files, give)


def many_named(tree: Path, files: int) -> int:
    """Files with 20 names each, in 20 folders far from each other."""
    return linked(tree, files, NAMES_EACH)


def two_named(tree: Path, files: int) -> int:
    """Files with two names each, in folders far from each other."""
    return linked(tree, files, 2)


def linked(tree: Path, files: int, names: int) -> int:
    """Name number n, in folder n // 100, is one of the file number n % files."""
    folders = -(-files * names // FOLDER)

    def make(numbers: range) -> None:
        for number in numbers:
            with opened(tree / f"d{number:04}") as pinned:
                for name in range(number * FOLDER, min((number + 1) * FOLDER, files)):
                    create(f"name-{name:07}", pinned)

    def link(numbers: range) -> None:
        with opened(tree) as top:
            for name in numbers:
                first = name % files
                os.link(
                    f"d{first // FOLDER:04}/name-{first:07}",
                    f"d{name // FOLDER:04}/name-{name:07}",
                    src_dir_fd=top,
                    dst_dir_fd=top,
                )

    for number in range(folders):
        (tree / f"d{number:04}").mkdir()
    shared(-(-files // FOLDER), make)
    shared(files * (names - 1), lambda part: link(range(part.start + files, part.stop + files)))
    return files * names + folders + 1


def chain(tree: Path, levels: int) -> int:
    """Each folder has one folder: far deeper than a path can say."""
    return deep(tree, levels, ["down"])


def comb(tree: Path, levels: int) -> int:
    """The same, and each folder has a second one."""
    return deep(tree, levels, ["down", "side"])


def deep(tree: Path, levels: int, names: list[str]) -> int:
    folder = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        for name in names:
            os.mkdir(name, dir_fd=folder)
        below = os.open(names[0], os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    return levels * len(names) + 1


def flat(tree: Path, files: int, width: int = 7) -> int:
    """All files in one folder."""

    def make(numbers: range) -> None:
        with opened(tree) as pinned:
            for number in numbers:
                create(f"{number:0{width}}", pinned)

    shared(files, make)
    return files + 1


def long_named(tree: Path, files: int) -> int:
    """All files in one folder, with the longest names that there are."""
    return flat(tree, files, 255)


def give_some(tree: Path, owner: int) -> None:
    """Every hundredth file of a plain tree gets this owner and group."""
    for number in itertools.count():
        folder = place(tree, number)
        if not folder.exists():
            return
        os.chown(folder / f"file-{number * FOLDER:07}", owner, owner)
