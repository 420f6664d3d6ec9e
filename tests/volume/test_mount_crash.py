"""Killed at any system call that changes something: the same words, or undo, put all right.

At no time is a mount half-made, or its source open; and the ledger has no mount that does not stand,
unless the run is known as unfinished.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from tests.command import here, slow
from tests.documents import document_in
from tests.prefork import Prefork, prefork
from tests.volume.bystanders import open_ground
from tests.volume.struck import (
    RECORDS,
    Place,
    half_way,
    places,
    sample,
    share_out,
    strike,
)
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.volume import journal
from usernsplan.volume.state import CHANGING, UNDOING

MOUNTING = (
    *("open_tree", "mount_setattr", "move_mount", "umount2", "unshare"),
    *("fchmod", "fchown", "fchmodat"),
)
CALLS = MOUNTING + RECORDS
AT = "/run/usernsplan/volumes/web/srv-own-web"


class Ground:
    """A host with an untouched volume, and the words that mount it."""

    def __init__(self, root: Path, protect: str) -> None:
        self.root, self.protect = root, protect
        self.volume = root / "srv/own/web"
        self.volume.mkdir(parents=True)
        (self.volume / "file").touch()
        self.words = (
            *("mount-volume", "/srv/own/web", "--mode", "shift", "--protect", protect),
            *("--root", root),
        )

    def options(self, path: Path | str) -> str:
        """The options of the mount on top at a path; "" if there is none."""
        found = ""
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            fields = line.split()
            found = fields[5] if fields[4] == str(path) else found
        return found

    @property
    def stands(self) -> bool:
        return bool(self.options(f"{self.root}{AT}"))

    @property
    def is_protected(self) -> bool:
        if self.protect == "parent":
            return self.volume.parent.stat().st_mode & 0o7777 == 0o700
        return "nosuid" in self.options(self.volume).split(",")

    def recorded(self) -> list[tuple[str, str]]:
        """The mounts of the ledger, each with its run."""
        state = open_ledger(layout_at(str(self.root))).state()
        return [(m.at, m.run) for m in state.mounts]

    def runs(self) -> dict[str, str]:
        return {run.run: run.state for run in journal.runs(layout_at(str(self.root)))}

    def is_sane(self) -> None:
        """What is true at any time."""
        if self.stands:
            assert "idmapped" in self.options(f"{self.root}{AT}").split(",")
            assert (self.root / AT[1:] / "file").stat().st_uid == 589824
            assert self.is_protected
        unfinished = {CHANGING, UNDOING} & set(self.runs().values())
        if self.recorded():
            assert self.stands or unfinished
        if self.stands or self.is_protected:
            assert self.recorded() or self.runs()

    def is_mounted(self) -> None:
        assert self.stands
        assert self.is_protected
        [(at, run)] = self.recorded()
        assert at == AT
        assert self.runs()[run] == "done"

    def is_as_before(self) -> None:
        assert not self.stands
        assert not self.is_protected
        assert not (self.root / AT[1:]).exists()
        assert self.recorded() == []
        assert self.options(self.volume) == ""
        assert self.volume.parent.stat().st_mode & 0o7777 == 0o755


class Grounds:
    """As many equal grounds as one likes."""

    def __init__(self, place: Path, protect: str) -> None:
        self._place, self._protect, self._count = place, protect, count()
        (place / "ledger/etc").mkdir(parents=True)
        passwd = place / "ledger/etc/passwd"
        passwd.write_text("root:x:0:0::/root:/bin/sh\n", encoding="ascii")
        words = ("allocate", "--strategy", "per-container", "web", "--root", place / "ledger")
        here(*words)

    def new(self) -> Ground:
        root = self._place / f"host-{next(self._count)}"
        shutil.copytree(self._place / "ledger", root)
        return Ground(root, self._protect)


@pytest.fixture
def place(private_mounts: None) -> Iterator[Path]:
    assert private_mounts is None
    with open_ground() as ground:
        yield ground


def undo(server: Prefork, ground: Ground) -> None:
    for run, state in ground.runs().items():
        if state != "looking":
            ended = server.run("undo", run, "--root", ground.root, status=None)
            assert ended.status == 0, ended


MANY = 10_000


@pytest.mark.parametrize(
    ("protect", "most"), [("nosuid", 1), ("parent", 1), *slow(("nosuid", MANY), ("parent", MANY))]
)
def test_killed_anywhere_it_is_finished_or_undone(place: Path, protect: str, most: int) -> None:
    grounds = Grounds(place, protect)
    with prefork() as server:
        every = sample(places(server, grounds.new().words, CALLS), most)
    hits: Counter[str] = Counter()

    def check(server: Prefork, number: int, struck: Place) -> None:
        ground = grounds.new()
        if strike(server, ground.words, struck, "signal=KILL").killed():
            hits[struck.call] += 1
        ground.is_sane()
        if number % 3 == 1:
            undo(server, ground)
            ground.is_as_before()
        server.run(*ground.words)
        ground.is_mounted()
        again = server.run(*ground.words, "--json")
        assert document_in(again.out)["changed"] is False
        undo(server, ground)
        ground.is_as_before()

    share_out(every, check)
    assert hits.keys() >= {"open_tree", "mount_setattr", "move_mount"}
    assert hits.keys() & {"rename", "renameat", "renameat2", "unlink", "unlinkat"}


@pytest.mark.parametrize(
    ("protect", "most"), [("nosuid", 1), ("parent", 1), *slow(("nosuid", MANY), ("parent", MANY))]
)
def test_an_undo_that_is_killed_anywhere_is_finished(place: Path, protect: str, most: int) -> None:
    grounds = Grounds(place, protect)

    def mounted(server: Prefork) -> tuple[Ground, tuple[str | Path, ...]]:
        ground = grounds.new()
        server.run(*ground.words)
        [run] = ground.runs()
        return ground, ("undo", run, "--root", ground.root)

    with prefork() as server:
        every = sample(places(server, mounted(server)[1], CALLS), most)
    hits: Counter[str] = Counter()

    def check(server: Prefork, number: int, struck: Place) -> None:
        ground, words = mounted(server)
        if strike(server, words, struck, "signal=KILL").killed():
            hits[struck.call] += 1
        ground.is_sane()
        server.run(*words)
        ground.is_as_before()
        if number % 2:
            server.run(*ground.words)
            ground.is_mounted()

    share_out(every, check)
    assert "umount2" in hits


def test_of_two_commands_for_one_place_one_waits_for_nobody(place: Path) -> None:
    grounds = Grounds(place, "nosuid")
    ground = grounds.new()
    (ground.root / "srv/own/other").mkdir()
    (ground.root / "mnt").mkdir()
    at = ("--at", "/mnt/one")
    other = ("mount-volume", "/srv/own/other", *ground.words[2:], *at)
    said: list[str] = []

    def meanwhile(run: object) -> None:
        del run
        # LockBusyError: another run is at work on this mount point.
        said.append(here(*other, status=5)[1])

    with prefork() as server:
        first = half_way(server, (*ground.words, *at), 1, meanwhile, calls="move_mount")
    assert first.ended.status == 0, first.ended
    assert "is at work" in said[0]
    assert ground.recorded()[0][0] == "/mnt/one"
    refused = here(*other, status=9)[1]
    assert "/mnt/one" in refused
    assert len(ground.recorded()) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_a_source_that_is_exchanged_meanwhile_is_refused(place: Path, number: int) -> None:
    ground = Grounds(place, "nosuid").new()
    victim = place / "victim"
    victim.mkdir()
    before = ground.volume.stat().st_ino

    def exchange(run: object) -> None:
        del run
        ground.volume.rename(ground.root / "srv/own/away")
        victim.rename(ground.volume)

    # The first mount protects, the second one is the container's.
    with prefork() as server:
        ended = half_way(server, ground.words, number, exchange, calls="open_tree").ended
    assert ended.status != 0, ended
    assert not ground.stands
    assert ground.recorded() == []
    assert ground.runs() == {}
    assert (ground.root / "srv/own/away").stat().st_ino == before
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if str(ground.root) in line] == []


def test_a_source_that_is_swapped_all_the_time_is_never_mounted_by_mistake(place: Path) -> None:
    """What is mounted is what was looked at, or nothing."""
    grounds = Grounds(place, "nosuid")
    with ExitStack() as stack, prefork() as server:
        ground = grounds.new()
        secret = ground.root / "srv/own/secret"
        secret.mkdir()
        (secret / "secret").touch()
        swapper = subprocess.Popen(
            ["python3", "-c", _SWAP, str(ground.volume), str(secret)], stdin=subprocess.DEVNULL
        )
        stack.callback(swapper.wait)
        stack.callback(swapper.kill)
        statuses = Counter(server.run(*ground.words, status=None).status for _ in range(20))
        swapper.send_signal(signal.SIGSTOP)
        for run, state in ground.runs().items():
            if state == "done":
                point = Path(f"{ground.root}{AT}")
                names = sorted(os.listdir(point)) if ground.stands else []
                noted = journal.run(layout_at(str(ground.root)), run).volumes[0].inode
                assert names == [] or point.stat().st_ino == noted
        assert statuses


_SWAP = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
one, other = (os.fsencode(path) for path in sys.argv[1:])
while True:
    libc.renameat2(-100, one, -100, other, 2)
"""
