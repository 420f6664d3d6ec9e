"""Processes with write access to the volume swap whatever they can while fix-volume runs: nothing outside changes.

That these attackers are worth something is shown by walkers that do it the usual ways, each of which they lead out.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.command import slow
from tests.prefork import prefork
from tests.volume.attackers import (
    Arena,
    arena,
    attacked,
    exchange_works,
    of_containers_root,
    of_real_root,
    of_wanderers,
)
from tests.volume.tree import Host, differences, expected, shift, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.prefork import Ended
    from tests.volume.attackers import Attack
    from tests.volume.tree import Snapshot

# How long each of the four tests of the command lasts, at least; and how many runs of fix-volume and
# undo it has, against how many attempts, whatever time they take.
SECONDS, RUNS, STRIKES = (14.0, 24, 10_000) if os.environ.get("CI") == "true" else (2.0, 12, 3_000)
LONGEST = 100.0
# How long a usual walker may take until it is led out; it takes a moment.
PATIENCE = 30.0


class Seen(NamedTuple):
    """All of what lies beside the volume that an attacker cannot change himself."""

    outside: Snapshot
    folders: tuple[tuple[int, ...], ...]


def seen(ground: Arena) -> Seen:
    """Clocks too, where the attacker moves none: a change that the next run takes back is one."""
    outside = {
        # To link a file is to change its ctime and its number of links.
        path: replace(inode, ctime_ns=0, links=0) if path.startswith(b"shared") else inode
        for path, inode in snapshot(ground.outside).items()
    }
    # The yard is the attacker's own, but only its owner may change its owner and mode.
    yard, above = os.lstat(ground.yard), os.lstat(ground.volume.parent)
    return Seen(
        outside,
        ((yard.st_uid, yard.st_gid, yard.st_mode), (above.st_uid, above.st_gid, above.st_ctime_ns)),
    )


def changed(before: Seen, after: Seen) -> list[str]:
    found = differences(after.outside, before.outside)
    found += [
        f"{path!r}: its ctime"
        for path, inode in before.outside.items()
        if inode.ctime_ns != after.outside[path].ctime_ns
    ]
    if before.folders != after.folders:
        found.append(f"the yard, or what is above: {before.folders} became {after.folders}")
    return found


class Gang(NamedTuple):
    """Who attacks: with which uid (None: the container's root), and how."""

    uid: int | None
    attacks: Callable[[], list[list[Attack]]]


CONTAINER = Gang(None, of_containers_root)
WANDERERS = Gang(None, of_wanderers)
REAL = Gang(0, of_real_root)


def place(host: Host) -> tuple[Arena, int]:
    if not exchange_works(host.root):
        pytest.skip("this file system cannot exchange two names")
    [start] = host.allocate("web")
    return arena(host.volume, host.outside, start), start


@pytest.mark.parametrize(
    ("file_system", "gang"),
    [("tmpfs", CONTAINER), *slow(("ext4", CONTAINER), ("tmpfs", WANDERERS), ("tmpfs", REAL))],
    ids=[
        "containers-root-on-tmpfs",
        "containers-root-on-ext4",
        "wandering-links-on-tmpfs",
        "real-root-on-tmpfs",
    ],
)
def test_nothing_outside_changes_whatever_is_swapped_meanwhile(
    request: pytest.FixtureRequest, file_system: str, gang: Gang
) -> None:
    host = request.getfixturevalue(f"host_on_{file_system}")
    ground, start = place(host)
    before = seen(ground)
    words = (
        "--container",
        "web",
        "--mode",
        "shift",
        "--outside-links",
        "skip",
        "--jobs",
        "2",
        "--json",
    )
    endings: Counter[str] = Counter()
    end = time.monotonic() + SECONDS
    with (
        prefork() as server,
        attacked(ground.volume, start if gang.uid is None else gang.uid, gang.attacks) as attackers,
    ):

        def fix(*more: str) -> dict[str, Any]:
            ended = server.run(
                "fix-volume", ground.volume, *words, *more, "--root", host.root, status=None
            )
            return told("fix-volume", ended)

        def told(what: str, ended: Ended) -> dict[str, Any]:
            endings[f"{what} {ended.status}"] += 1
            assert ended.status in {0, 3}, ended
            assert changed(before, seen(ground)) == [], (what, ended, attackers.strikes())
            document: dict[str, Any] = json.loads(ended.out)
            assert document["changed"]
            return document

        def enough() -> bool:
            return sum(endings.values()) >= RUNS and attackers.strikes() >= STRIKES

        # On a busy machine it takes longer; only attackers that do not strike at all end it without enough.
        while time.monotonic() < end or (not enough() and time.monotonic() < end + LONGEST):
            run = fix()["run"]
            told("undo", server.run("undo", run, "--json", "--root", host.root, status=None))
            fix()
            fix("--reverse", "--keep-power")
        assert enough(), (endings, attackers.strikes())

    # And when they have gone, the volume can be put right: whatever is in it, but for names of files outside.
    host.fix(*words[:-1])
    now = snapshot(ground.volume)
    inside = {
        path: inode
        for path, inode in now.items()
        if inode.links == len(inode.names) or stat.S_ISDIR(inode.kind)
    }
    assert len(inside) > 100
    assert {inode.uid for inode in inside.values()} <= set(range(start, start + 65536))
    assert differences(inside, expected(inside, shift(start))) == []
    assert changed(before, seen(ground)) == []


@pytest.fixture
def host_on_tmpfs(host: Host) -> Host:
    return host


@pytest.fixture
def host_on_ext4(ext4: Path) -> Host:
    root = ext4 / "attacked"
    for name in ("etc", "srv/vol", "srv/outside"):
        (root / name).mkdir(parents=True)
    return Host(root, "ext4")


# The usual ways to walk, so that one sees the attackers succeed.


def chown_by_path(top: str, uid: int) -> None:
    """As most do: names are joined to paths, and lchown follows no symlink at the end of one."""
    for path, folders, files in os.walk(top):
        for name in folders + files:
            with suppress(FileNotFoundError):
                os.lchown(os.path.join(path, name), uid, uid)


def chmod_by_path(top: str, uid: int) -> None:
    """A chmod that puts the setuid bit back, in a folder that is pinned: chmod follows a symlink at the end."""
    del uid
    for _, _, files, folder in os.fwalk(top):
        for name in files:
            with suppress(FileNotFoundError):
                mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                if mode & stat.S_ISUID and not stat.S_ISLNK(mode):
                    os.chmod(name, stat.S_IMODE(mode), dir_fd=folder)


def chown_by_name(top: str, uid: int) -> None:
    """Folders are pinned, but a file is looked at and then changed by its name."""
    for _, _, files, folder in os.fwalk(top):
        for name in files:
            with suppress(FileNotFoundError):
                if os.stat(name, dir_fd=folder, follow_symlinks=False).st_nlink == 1:
                    os.chown(name, uid, uid, dir_fd=folder, follow_symlinks=False)


def chown_by_count(top: str, uid: int) -> None:
    """First all names of each inode are counted, and then what has no other name is changed, pinned."""
    counts: Counter[int] = Counter()
    for _, _, files, folder in os.fwalk(top):
        for name in files:
            with suppress(FileNotFoundError):
                counts[os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino] += 1
    for _, _, files, folder in os.fwalk(top):
        for name in files:
            with suppress(OSError):
                pinned = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
                found = os.fstat(pinned)
                if found.st_nlink == counts[found.st_ino] and found.st_nlink > 1:
                    os.fchown(pinned, uid, uid)
                os.close(pinned)


@pytest.mark.parametrize(
    ("walk", "gang"),
    # Real root swaps only folders, and symlinks to folders.
    [
        (chown_by_path, CONTAINER),
        *slow((chmod_by_path, CONTAINER), (chown_by_name, CONTAINER)),
        (chown_by_count, WANDERERS),
        (chown_by_path, REAL),
    ],
)
def test_these_attackers_lead_the_usual_walkers_out(
    host: Host, walk: Callable[[str, int], None], gang: Gang
) -> None:
    ground, start = place(host)
    before = seen(ground)
    end = time.monotonic() + PATIENCE
    with attacked(
        ground.volume, start if gang.uid is None else gang.uid, gang.attacks
    ) as attackers:
        rounds = 0
        while not changed(before, seen(ground)):
            walk(str(ground.volume), start if rounds % 2 else 0)
            rounds += 1
            assert time.monotonic() < end, (
                f"{attackers.strikes()} attacks in {rounds} rounds led to nothing"
            )
