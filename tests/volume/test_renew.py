"""A file with power gets a new inode in the place of the old one: whole, under all of its names, or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import signal
import stat
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import slow
from tests.prefork import prefork
from tests.volume.struck import (
    CASES,
    Grounds,
    finished,
    places,
    run_of,
    sample,
    share_out,
    strike,
    undone,
    was_killed,
)
from tests.volume.tree import (
    ACL,
    OLD,
    acl_of,
    capability_v2,
    capability_v3,
    clocks,
    differences,
    finish,
    mounted,
    parsed_acl,
    raw_acl,
    settled,
    snapshot,
    write,
)
from usernsplan.volume import renew, syscalls, walk
from usernsplan.volume.descriptors import attribute
from usernsplan.volume.metadata import CAPABILITY
from usernsplan.volume.parts import Parts
from usernsplan.volume.renew import NotRenewedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.prefork import Prefork
    from tests.volume.struck import Ground, Place, Words
    from tests.volume.tree import Host, Snapshot
    from usernsplan.volume.walk import OpenVolume

CONTENT = b"program\n" * 1000
BLOCK = 4096


def made(host: Host, name: str = "program", content: bytes = CONTENT, **more: Any) -> Path:
    """A file of root's without power, as undo leaves it before it gets its new inode."""
    path = host.volume / name
    path.parent.mkdir(exist_ok=True)
    finish(write(os.fsencode(path), content), mode=0o755, **more)
    return path


def proof_of(path: Path) -> renew.Proof | None:
    pinned = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        return renew.proof_of(pinned, os.fstat(pinned), attribute(pinned, CAPABILITY))
    finally:
        os.close(pinned)


def wanted(host: Host, *paths: Path, **more: Any) -> renew.Wanted:
    """A file that is to be setuid root's, under these names, with the content that it has now."""
    proof = proof_of(paths[0])
    assert proof
    names = tuple(
        renew.Name(0, Parts.of(path.relative_to(host.volume).parts[:-1]), path.name)
        for path in paths
    )
    plain = renew.Wanted(paths[0].stat().st_ino, names, (0, 0), 0o4755, None, None, proof)
    return replace(plain, **more)


@contextmanager
def opened(host: Host) -> Iterator[list[OpenVolume]]:
    volume = walk.volume(str(host.volume))
    try:
        yield [volume]
    finally:
        os.close(volume.top)


def log_of(host: Host) -> Path:
    return host.root / "swaps"


def renewed(host: Host, to_be: renew.Wanted) -> None:
    with opened(host) as volumes:
        renew.renew(volumes, to_be, renew.Swaps(str(log_of(host))))


def why_not(host: Host, to_be: renew.Wanted) -> str:
    with pytest.raises(NotRenewedError) as refused:
        renewed(host, to_be)
    return str(refused.value)


def foretold(host: Host, to_be: renew.Wanted) -> str:
    try:
        with opened(host) as volumes:
            renew.foretell(volumes, to_be)
    except NotRenewedError as error:
        return str(error)
    return ""


def mended(host: Host) -> None:
    with opened(host) as volumes:
        renew.mend(volumes, [str(log_of(host))])


def hidden(host: Host) -> list[Path]:
    return [path for path in host.volume.rglob("*") if path.name.startswith(".usernsplan-")]


def times(path: Path) -> tuple[int, int]:
    seen = path.stat()
    return seen.st_atime_ns, seen.st_mtime_ns


# What the new inode has.


def test_the_new_inode_has_content_attributes_and_times_of_the_old_one_and_what_is_wanted(
    volumes: Host,
) -> None:
    path = made(volumes, "sub/program", acl=acl_of(0o750, {7: 7}, {}))
    os.setxattr(path, "trusted.binary", bytes(range(256)))
    with suppress(OSError):  # on tmpfs since Linux 6.6
        os.setxattr(path, "user.comment", b"kept")
    for place, number in ((path, 5), (path.parent, 6)):
        os.utime(place, ns=(OLD + number, OLD - number))
    before, moments, inode = snapshot(volumes.volume), clocks(volumes.volume), path.stat().st_ino
    # The permissions of the group are the mask's, where there is one.
    acl = acl_of(0o750, {1000: 4, 1001: 5}, {100: 5}, mask=5)
    to_be = wanted(
        volumes, path, owner=(33, 42), mode=0o6750, acl=raw_acl(acl), capability=capability_v3(33)
    )
    assert foretold(volumes, to_be) == ""
    assert differences(snapshot(volumes.volume), before) == []

    renewed(volumes, to_be)
    before[b"sub/program"] = replace(
        before[b"sub/program"],
        uid=33,
        gid=42,
        mode=0o6750,
        acl=parsed_acl(raw_acl(acl)),
        capability=capability_v3(33),
    )
    assert differences(snapshot(volumes.volume), before) == []
    assert {name: clock[:2] for name, clock in clocks(volumes.volume).items()} == {
        name: clock[:2] for name, clock in moments.items()
    }
    new = path.stat()
    [swapped] = renew.swapped([str(log_of(volumes))])
    assert swapped[1:] == (new.st_dev, inode, new.st_ino)
    assert new.st_ino != inode


def test_an_acl_that_the_folder_gives_to_every_new_file_is_not_the_new_inodes(
    volumes: Host,
) -> None:
    path = made(volumes, "sub/program")
    os.setxattr(
        path.parent, "system.posix_acl_default", raw_acl(acl_of(0o777, {1000: 7}, {1000: 7}))
    )
    renewed(volumes, wanted(volumes, path))
    assert ACL not in os.listxattr(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o4755


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (0, {}),
        (5, {0: b"short"}),
        (64 << 20, {}),
        (64 << 20, {(32 << 20) + 5: b"middle", (64 << 20) - 3: b"end"}),
        ((3 << 20) + 17, {0: b"x" * (2 << 20)}),
    ],
    ids=["empty", "short", "hole", "holes", "pieces"],
)
def test_content_is_copied_and_holes_stay_holes(
    volumes: Host, size: int, pieces: dict[int, bytes]
) -> None:
    path = made(volumes, content=b"")
    with path.open("r+b") as file:
        file.truncate(size)
        for at, piece in pieces.items():
            file.seek(at)
            file.write(piece)
        os.fsync(file.fileno())
    before, blocks = path.read_bytes(), path.stat().st_blocks
    renewed(volumes, wanted(volumes, path))
    assert path.read_bytes() == before
    # Where a hole is not kept, it is at least a whole piece of a file system, 64 KiB and more.
    assert path.stat().st_blocks <= blocks + 64
    assert path.stat().st_mode & stat.S_ISUID


# What proves a content.


def test_a_proof_is_the_size_and_the_digest_of_each_block_with_its_place(volumes: Host) -> None:
    block = b"b" * BLOCK
    path = made(volumes, content=bytes(BLOCK) + block + b"end")
    digest = hashlib.sha256(b"%d:%s%d:%s" % (BLOCK, block, 2 * BLOCK, b"end")).hexdigest()
    assert proof_of(path) == renew.Proof(2 * BLOCK + 3, digest)


def test_a_hole_and_zeros_are_the_same_and_place_and_size_are_not(volumes: Host) -> None:
    zeros = made(volumes, "zeros", bytes(8 * BLOCK) + b"x" + bytes(BLOCK - 1))
    hole = made(volumes, "hole", b"")
    with hole.open("r+b") as file:
        file.seek(8 * BLOCK)
        file.write(b"x")
        file.truncate(9 * BLOCK)
    assert proof_of(hole) == proof_of(zeros) is not None
    others = [
        made(volumes, "sooner", bytes(7 * BLOCK) + b"x" + bytes(2 * BLOCK - 1)),
        made(volumes, "longer", bytes(8 * BLOCK) + b"x" + bytes(BLOCK)),
        made(volumes, "other", bytes(8 * BLOCK) + b"y" + bytes(BLOCK - 1)),
    ]
    assert len({proof_of(path) for path in (*others, hole)}) == 4


def test_nothing_proves_what_is_no_file_or_too_large_or_changes_meanwhile(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(host)
    assert proof_of(host.volume) is None
    os.mkfifo(host.volume / "fifo")
    assert proof_of(host.volume / "fifo") is None
    (host.volume / "symlink").symlink_to("program")
    assert proof_of(host.volume / "symlink") is None
    with monkeypatch.context() as patched:
        patched.setattr(renew, "_MOST", 4096)
        assert proof_of(path) is None
    assert proof_of(path)

    proved = renew._proved

    def write_too(file: int) -> renew.Proof:
        found = proved(file)
        path.write_bytes(CONTENT)
        return found

    monkeypatch.setattr(renew, "_proved", write_too)
    assert proof_of(path) is None


# Where it is left as it is.


def other_content(path: Path) -> None:
    path.write_bytes(CONTENT.replace(b"p", b"P"))


def one_more_byte(path: Path) -> None:
    path.write_bytes(CONTENT + b"\n")


def a_zero_more(path: Path) -> None:
    os.truncate(path, len(CONTENT) + 1)


def one_more_link(path: Path) -> None:
    os.link(path, path.with_name("more"))


def gone(path: Path) -> None:
    path.unlink()


def another_file(path: Path) -> None:
    # The old one stays, so that its number is not given again.
    path.rename(path.with_name("old"))
    finish(write(os.fsencode(path), CONTENT), mode=0o755)


def a_symlink(path: Path) -> None:
    path.rename(path.with_name("old"))
    path.symlink_to("old")


def a_fifo(path: Path) -> None:
    path.rename(path.with_name("old"))
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.rename(path.with_name("old"))
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (other_content, "content has changed"),
        (one_more_byte, "content has changed"),
        (a_zero_more, "content has changed"),
        (one_more_link, "it has 2 names, but 1 are known"),
        (gone, "no such file"),
        (another_file, "another file has its name now"),
        (a_symlink, "another file has its name now"),
        (a_fifo, "another file has its name now"),
        (a_folder, "another file has its name now"),
    ],
)
def test_what_is_not_proved_is_left_as_it_is_and_foretold(
    volumes: Host, change: Callable[[Path], None], why: str
) -> None:
    path = made(volumes)
    to_be = wanted(volumes, path)
    change(path)
    before = snapshot(volumes.volume)
    assert why in foretold(volumes, to_be)
    assert why in why_not(volumes, to_be)
    assert snapshot(volumes.volume) == before


def test_without_files_that_have_no_name_it_is_left_as_it_is(
    volumes: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(volumes)
    to_be = wanted(volumes, path)
    before = snapshot(volumes.volume)
    really = os.open

    def as_vfat(*words: Any, **others: Any) -> int:
        if words[1] & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return really(*words, **others)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", as_vfat)
        assert "O_TMPFILE" in why_not(volumes, to_be)
    assert snapshot(volumes.volume) == before


def test_without_room_it_is_left_as_it_is_and_the_room_is_there_again(host: Host) -> None:
    with mounted("-t", "tmpfs", "-o", "size=512k,mode=755", "tmpfs", host.volume):
        path = made(host, content=b"x" * 300_000)
        to_be = wanted(host, path)
        before, free = snapshot(host.volume), os.statvfs(host.volume).f_bfree
        assert "no space left" in why_not(host, to_be)
        assert snapshot(host.volume) == before
        assert os.statvfs(host.volume).f_bfree == free


def test_a_file_that_grows_while_it_is_copied_is_copied_no_further_than_it_was(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(host, content=b"x" * BLOCK)
    to_be = wanted(host, path)
    written: list[int] = []
    really = renew._write

    def grow(file: int, piece: bytes, at: int) -> None:
        written.append(at)
        really(file, piece, at)
        if len(written) < 50:
            with path.open("ab") as old:
                old.write(b"y" * BLOCK)

    monkeypatch.setattr(renew, "_write", grow)
    # What was added is no part of the proved content, which is all there.
    renewed(host, to_be)
    assert written == [0]
    assert path.read_bytes() == b"x" * BLOCK


def test_who_holds_a_lease_does_not_make_it_wait(volumes: Host) -> None:
    """An open(2) waits until a lease is given back, up to 45 s, for every file that has one."""
    path = made(volumes)
    to_be = wanted(volumes, path)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with path.open("r+b") as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            assert "temporarily unavailable" in why_not(volumes, to_be)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    finally:
        signal.signal(signal.SIGIO, before)
    renewed(volumes, to_be)


# All names or none.


def linked(host: Host) -> list[Path]:
    """One inode with names in three folders, each of another age."""
    one = made(host, "a/one")
    paths = [one, host.volume / "b/two", host.volume / "b/three", host.volume / "four"]
    for path in paths[1:]:
        path.parent.mkdir(exist_ok=True)
        os.link(one, path)
    for number, place in enumerate((host.volume / "a", host.volume / "b", host.volume)):
        os.utime(place, ns=(OLD + number, OLD - number))
    return paths


def test_all_names_in_all_folders_are_the_new_inodes(volumes: Host) -> None:
    paths = linked(volumes)
    before, moments, inode = (
        snapshot(volumes.volume),
        clocks(volumes.volume),
        paths[0].stat().st_ino,
    )
    renewed(volumes, wanted(volumes, *paths, capability=capability_v2()))
    after = snapshot(volumes.volume)
    changed = {
        name: replace(had, mode=0o4755, capability=capability_v2()) if had.links == 4 else had
        for name, had in before.items()
        if not stat.S_ISDIR(had.kind)
    }
    assert differences(after, before | changed) == []
    assert len({path.stat().st_ino for path in paths} | {inode}) == 2
    assert {name: clock[:2] for name, clock in clocks(volumes.volume).items()} == {
        name: clock[:2] for name, clock in moments.items()
    }


@pytest.mark.parametrize("wrong", range(4))
def test_where_one_name_is_another_files_all_names_stay_the_old_inodes(
    volumes: Host, wrong: int
) -> None:
    paths = linked(volumes)
    to_be = wanted(volumes, *paths)
    # The number of names is right all the same.
    paths[wrong].rename(volumes.volume / "a/elsewhere")
    finish(write(os.fsencode(paths[wrong]), b"another"), 7, 7, 0o640)
    before = snapshot(volumes.volume)
    assert "another file has its name now" in why_not(volumes, to_be)
    assert differences(snapshot(volumes.volume), before) == []
    assert hidden(volumes) == []
    assert renew.swapped([str(log_of(volumes))] if log_of(volumes).exists() else []) == []


def test_what_was_quicker_than_the_exchange_stays_and_gets_nothing(
    volumes: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attacker puts his own file under the name, between our look and the exchange, and takes the new one away."""
    path = made(volumes)
    old = path.stat().st_ino
    to_be = wanted(volumes, path)
    evil = os.fsencode(volumes.volume / "evil")
    finish(write(evil, CONTENT), 1000, 1000, 0o755)
    really = syscalls.exchange

    def after_him(place: int, one: str, other: str) -> None:
        monkeypatch.setattr(syscalls, "exchange", really)
        really(place, "evil", other)
        os.rename(one, "taken", src_dir_fd=place, dst_dir_fd=place)
        os.link("program", one, src_dir_fd=place, dst_dir_fd=place)
        really(place, one, other)

    monkeypatch.setattr(syscalls, "exchange", after_him)
    assert why_not(volumes, to_be)
    assert (volumes.volume / "evil").stat().st_ino == old
    taken = (volumes.volume / "taken").stat()
    assert (taken.st_uid, taken.st_gid, stat.S_IMODE(taken.st_mode)) == (0, 0, 0o600)
    assert [found for found in volumes.volume.iterdir() if found.stat().st_mode & 0o6000] == []


# Failures and kills.


class Killed(BaseException):
    """As a SIGKILL: nothing of ours runs after it."""


@dataclass
class Killer:
    """Kills at the n-th step that changes something, before it or after it."""

    number: int
    after: bool
    steps: int = 0

    def at(self, step: Callable[..., None]) -> Callable[..., None]:
        def killing(*words: Any, **more: Any) -> None:
            self.steps += 1
            if self.steps == self.number and not self.after:
                raise Killed
            step(*words, **more)
            if self.steps == self.number:
                raise Killed

        return killing


def killed(
    host: Host, to_be: renew.Wanted, killer: Killer, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Tell whether it came so far."""
    steps = [
        (syscalls, "link"),
        (syscalls, "exchange"),
        (renew, "_remove"),
        (renew.Swaps, "_write"),
        (os, "utime"),
    ]
    with monkeypatch.context() as patched:
        for where, name in steps:
            patched.setattr(where, name, killer.at(getattr(where, name)))
        try:
            renewed(host, to_be)
        except Killed:
            return True
    return False


def looks(host: Host) -> tuple[Snapshot, dict[bytes, tuple[int, int]]]:
    """All but the ctimes, with atimes and mtimes."""
    moments = {name: clock[:2] for name, clock in clocks(host.volume).items()}
    return settled(snapshot(host.volume)), moments


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_between_any_two_steps_is_mended(
    host: Host, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Finished where all names had been exchanged, and else taken back; and mended once more it changes nothing."""
    endings: Counter[str] = Counter()
    for number in range(1, 100):
        shutil.rmtree(host.volume)
        host.volume.mkdir()
        log_of(host).write_bytes(b"")
        paths = linked(host)
        to_be, (before, moments) = wanted(host, *paths), looks(host)
        whole = {
            name: replace(had, mode=0o4755) if had.links == 4 else had
            for name, had in before.items()
        }
        whole |= {name: had for name, had in before.items() if stat.S_ISDIR(had.kind)}
        if not killed(host, to_be, Killer(number, after), monkeypatch):
            break
        mended(host)
        [inode] = {path.stat().st_ino for path in paths}
        is_old = inode == to_be.inode
        endings["taken back" if is_old else "finished"] += 1
        now = looks(host)
        assert now == (before if is_old else whole, moments)
        assert [swap.new for swap in renew.swapped([str(log_of(host))])] == (
            [] if is_old else [inode]
        )
        mended(host)
        assert looks(host) == now
        assert hidden(host) == []
    # A line, two steps for each of four names, a line, two steps for each again, a line.
    assert sum(endings.values()) == 1 + 8 + 1 + 8 + 1 + 1, endings
    assert min(endings.values()) > 5, endings


@pytest.mark.parametrize("when", [renew._BEGUN, renew._DONE, renew._ENDED])
def test_a_log_that_cannot_be_written_leaves_all_names_or_none(
    volumes: Host, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    paths = linked(volumes)
    to_be = wanted(volumes, *paths)
    before = snapshot(volumes.volume)
    really = renew.Swaps.note

    def note(log: renew.Swaps, what: str, swap: renew._Swap) -> None:
        if what == when:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(log, what, swap)

    with monkeypatch.context() as patched:
        patched.setattr(renew.Swaps, "note", note)
        if when == renew._ENDED:
            # All has come about, and to look again, as the next run does, finds nothing left.
            renewed(volumes, to_be)
        else:
            assert "no space left" in why_not(volumes, to_be)
    assert hidden(volumes) == []
    if when == renew._ENDED:
        mended(volumes)
        assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o4755}
        assert len(renew.swapped([str(log_of(volumes))])) == 1
    else:
        assert differences(snapshot(volumes.volume), before) == []


def test_a_line_that_a_kill_cut_short_says_nothing(host: Host) -> None:
    path = made(host)
    renewed(host, wanted(host, path))
    [one] = renew.swapped([str(log_of(host))])
    with log_of(host).open("ab") as file:
        file.write(b'\n["done", 1, 2')
    assert renew.swapped([str(log_of(host))]) == [one]
    renewed(host, replace(wanted(host, path), mode=0o2755))
    assert len(renew.swapped([str(log_of(host))])) == 2


# Every call by which a file gets a new inode.
STEPS = (
    *("linkat", "renameat2", "unlinkat", "fsync", "write", "pwrite64", "ftruncate", "utimensat"),
    *("fchown", "fchownat", "fchmod", "fsetxattr"),
)


@pytest.mark.parametrize(
    ("file_system", "most"), [("tmpfs", 2), *slow(("ext4", 2), ("tmpfs", 10_000), ("ext4", 10_000))]
)
def test_undo_that_is_killed_anywhere_restores_everything_when_it_runs_again(
    request: pytest.FixtureRequest, file_system: str, most: int
) -> None:
    where: Path = request.getfixturevalue(file_system)
    grounds = Grounds(where / f"renewed-{most}", CASES["shift"], 1)

    def shifted(server: Prefork, ground: Ground) -> Words:
        finished(server, ground)
        return ("undo", str(run_of(ground)), "--root", ground.host.root)

    with prefork() as server:
        every = sample(places(server, shifted(server, grounds.new("whole")), STEPS), most)
    hits: Counter[str] = Counter()

    def check(server: Prefork, _: int, place: Place) -> None:
        ground = grounds.new(str(place))
        words = shifted(server, ground)
        if was_killed(strike(server, words, place, "signal=KILL")):
            hits[place.call] += 1
        undone(server, ground)
        assert hidden(ground.host) == []
        shutil.rmtree(ground.host.root)

    share_out(every, check)
    assert hits.keys() >= {
        "linkat",
        "renameat2",
        "unlinkat",
        "fchown",
        "fchmod",
        "fsetxattr",
        "ftruncate",
    }, hits
