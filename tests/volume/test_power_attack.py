"""Processes of a container want their own content in a file to which undo gives its power back: none gets it.

That these attackers are worth something is shown without the guard: power that is given to the inode in place, as a
chmod after the chown does, each of them turns into a setuid-root file with its own content.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import here, missing
from tests.volume.tree import finish, folder, write
from usernsplan.volume import renew, syscalls, walk
from usernsplan.volume.parts import TOP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.volume.tree import Host
    from usernsplan.volume.walk import OpenVolume

CONTENT = b"GOOD program\n"
EVIL = b"EVIL program\n"
MODE = 0o4755
UID = 589824
# Some attackers do each step when they are asked, the others all the time.
ASKED, FREE = ("held", "mapped"), ("events", "openers", "exchange")
# By default so many attempts, or so many as there is time for; a busy machine gets these few whatever time they take.
ATTEMPTS, SECONDS, FEWEST = 2_000, 0.5, 40
# The slow test: the attacker that opens and stores all the time got through once in 99,000 attempts, so it has the most.
MANY, LONG = 10_000, 60.0
# How long an attacker may take until it finds what has no guard; it takes a moment, but on a busy machine luck, too.
PATIENCE, NO_END = 120.0, 10**9


@pytest.fixture(scope="session")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        missing("cc")
    program = tmp_path_factory.mktemp("attacker") / "attacker"
    source = Path(__file__).with_name("power_attacker.c")
    subprocess.run(
        [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program, source],
        check=True,
    )
    return program


class Attacker:
    """A process of the container, in a folder of its own."""

    def __init__(self, process: subprocess.Popen[bytes], *, free: bool) -> None:
        self._process, self._free = process, free
        self.strikes = 0

    def ask(self, letter: bytes) -> None:
        """Have a step done: open, or store."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(letter)
        self._process.stdin.flush()
        assert self._process.stdout.read(1) == letter, (
            "an attacker failed to do what it is there for"
        )

    def stop(self) -> None:
        if self._process.returncode is None:
            if self._free:
                self._process.terminate()
            said = self._process.communicate(timeout=30)[0]
            assert self._process.returncode == 0, self._process.returncode
            self.strikes = int(said)


@contextmanager
def attacking(program: Path, attack: str, uid: int, place: Path) -> Iterator[Attacker]:
    words = [str(program), attack, str(uid)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=place
    ) as process:
        running = Attacker(process, free=attack in FREE)
        try:
            yield running
            running.stop()
        finally:
            process.kill()


@dataclass
class Spoils:
    """Every inode with power that was seen, looked at again later: a store may still be on its way."""

    found: int = 0
    _kept: deque[int] = field(default_factory=deque)

    def gather(self, place: Path) -> None:
        for name in os.listdir(place):
            with suppress(FileNotFoundError):
                file = os.open(place / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                known = {os.fstat(kept).st_ino for kept in self._kept}
                if has_power(file) and os.fstat(file).st_ino not in known:
                    self._kept.append(file)
                else:
                    os.close(file)
        while len(self._kept) > 100:
            self._examine(self._kept.popleft())

    def examine(self) -> int:
        """When the attacker is gone: how many have power and not the proved content."""
        while self._kept:
            self._examine(self._kept.popleft())
        return self.found

    def _examine(self, file: int) -> None:
        self.found += has_power(file) and os.pread(file, 4096, 0) != CONTENT
        os.close(file)


def has_power(file: int) -> bool:
    return bool(os.fstat(file).st_mode & 0o6000) or "security.capability" in os.listxattr(file)


def naive(
    volumes: Sequence[OpenVolume], wanted: renew.Wanted, log: renew.Swaps | None = None
) -> None:
    """What one would do without the guard: the mode comes back by a chmod, in the same inode."""
    del log
    [name] = wanted.names
    pinned = walk.folder(volumes[name.volume], name.parts)
    try:
        os.chmod(name.name, wanted.mode, dir_fd=pinned)
    except FileNotFoundError as error:
        raise renew.NotRenewedError("its name is gone") from error
    finally:
        os.close(pinned)


class Victim:
    """The calls by which undo brings one file back: a chown in place, which takes its power, and then a new inode."""

    def __init__(self, volume: OpenVolume, log: Path, *, guard: bool) -> None:
        self._volumes, self._log = (volume,), renew.Swaps(str(log))
        self._give = renew.renew if guard else naive
        self._proof = proof(log.parent)

    def give_back(self, inode: int) -> bool:
        """Tell whether the file has its power."""
        name = renew.Name(0, TOP.below("open"), "victim")
        place = walk.folder(self._volumes[0], name.parts)
        try:
            pinned = os.open(name.name, os.O_PATH | os.O_NOFOLLOW, dir_fd=place)
            if os.fstat(pinned).st_ino == inode:
                syscalls.chown_pinned(pinned, 0, 0)
            os.close(pinned)
        finally:
            os.close(place)
        wanted = renew.Wanted(inode, (name,), (0, 0), MODE, None, None, self._proof)
        try:
            self._give(self._volumes, wanted, self._log)
        except renew.NotRenewedError:
            return False
        return True


def proof(somewhere: Path) -> renew.Proof:
    """The proof of the content as it was: of another file that holds the same."""
    path = somewhere / "original"
    path.write_bytes(CONTENT)
    pinned = os.open(path, os.O_PATH)
    found = renew.proof_of(pinned, os.fstat(pinned), None)
    os.close(pinned)
    assert found
    return found


def ground(host: Host) -> Path:
    """A folder of the container's root, where a file of its own waits to be exchanged."""
    place = host.volume / "open"
    finish(folder(os.fsencode(place)), UID, UID, 0o755)
    finish(write(os.fsencode(place / "evil"), EVIL), UID, UID, 0o755)
    return place


def attempt(place: Path, yard: Path, victim: Victim, running: Attacker, *, asked: bool) -> bool:
    """Lay the file there as the container has it, and let undo and the attacker have their ways."""
    fresh = yard / "fresh"
    finish(write(os.fsencode(fresh), CONTENT), UID, UID, 0o755)
    inode = fresh.stat().st_ino
    fresh.rename(place / "victim")
    if asked:
        running.ask(b"o")
    else:
        # The attacker is to have it open already.
        time.sleep(random.random() / 3000)  # noqa: S311 - no secret
    try:
        given = victim.give_back(inode)
    except FileNotFoundError:
        given = False
    if asked:
        running.ask(b"s")
    return given


def clean(place: Path) -> None:
    """Take away what an attack by exchanges leaves behind: the attacker's own files, under names that he gave them."""
    for name in os.listdir(place):
        if name != "evil" or (place / name).lstat().st_uid == 0:
            with suppress(FileNotFoundError):
                (place / name).unlink()


def attacked(  # noqa: PLR0917 - one attack
    host: Host,
    program: Path,
    attack: str,
    guard: bool,
    attempts: int,
    seconds: float,
    enough: int = FEWEST,
) -> tuple[int, int]:
    """Attack; how often the file had its power in the end, and how many had power with the attacker's content."""
    place, yard = ground(host), host.outside
    volume = walk.volume(str(host.volume))
    victim, spoils = Victim(volume, host.root / "swaps", guard=guard), Spoils()
    made = given = 0
    end = time.monotonic() + seconds
    with attacking(program, attack, UID, place) as running:
        while made < attempts and (made < enough or time.monotonic() < end):
            given += attempt(place, yard, victim, running, asked=attack in ASKED)
            made += 1
            spoils.gather(place)
            if not guard and made % 20 == 0 and spoils.found:
                break
            clean(place)
        running.stop()
    os.close(volume.top)
    found = spoils.examine()
    print(
        f"{attack} on {host.file_system}, {'guarded' if guard else 'in place'}: {made} attempts, "
        f"{running.strikes} strikes, power given {given} times, {found} files with the attacker's content"
    )
    assert running.strikes, "the attacker did nothing"
    return given, found


@pytest.mark.parametrize("attack", [*ASKED, *FREE])
def test_no_file_with_the_attackers_content_has_power(
    volumes: Host, attacker: Path, attack: str
) -> None:
    given, found = attacked(
        volumes, attacker, attack, True, 300 if attack in ASKED else ATTEMPTS, SECONDS
    )
    assert found == 0
    assert given, "the file never got its power back: nothing was tried"


@pytest.mark.parametrize("attack", [*ASKED, *FREE])
def test_each_attacker_finds_files_where_power_is_given_in_place(
    host: Host, attacker: Path, attack: str
) -> None:
    _, found = attacked(host, attacker, attack, False, NO_END, PATIENCE)
    assert found


@pytest.mark.slow
def test_ten_thousand_attempts_give_no_power(volumes: Host, attacker: Path) -> None:
    given, found = attacked(volumes, attacker, "openers", True, MANY, LONG)
    assert found == 0
    assert given


# The command itself.


def undone(host: Host, program: Path, attack: str, rounds: int) -> tuple[int, int]:
    """Shift the volume and undo it while the attacker is at work; as ``attacked``."""
    [start] = host.allocate("web")
    place = host.volume / "open"
    finish(folder(os.fsencode(place)), 0, 0, 0o777)
    spoils = Spoils()
    given = strikes = 0
    for _ in range(rounds):
        for name in os.listdir(place):
            (place / name).unlink()
        finish(write(os.fsencode(place / "victim"), CONTENT), 0, 0, MODE)
        finish(write(os.fsencode(place / "evil"), EVIL), 1, 1, 0o755)
        run = host.fix("--mode", "shift")["run"]
        finish(os.fsencode(place / "evil"), start, start, 0o755)
        with attacking(program, attack, start, place) as running:
            if attack in ASKED:
                # Root's own it is in the container, so it is the attacker's to write to.
                running.ask(b"o")
            else:
                time.sleep(0.02)
            report: dict[str, Any] = json.loads(
                here("undo", run, "--json", "--root", host.root, status=None)[0]
            )
            spoils.gather(place)
            if attack in ASKED:
                running.ask(b"s")
            running.stop()
        strikes += running.strikes
        victims = [path for path in place.iterdir() if path.lstat().st_mode & stat.S_ISUID]
        given += bool(victims)
        if not victims:
            assert report["failed"], "a file without its power is named"
        spoils.gather(place)
        # What another run leaves unfinished is done before the next one begins.
        here("undo", run, "--also-changed", "--root", host.root, status=None)
        spoils.gather(place)
    found = spoils.examine()
    print(
        f"{attack} on {host.file_system}, undo: {rounds} rounds, {strikes} strikes, power given {given} times, "
        f"{found} files with the attacker's content"
    )
    return given, found


@pytest.mark.parametrize("attack", [*ASKED, *FREE])
def test_undo_gives_no_power_to_the_attackers_content(
    volumes: Host, attacker: Path, attack: str
) -> None:
    given, found = undone(volumes, attacker, attack, 3)
    assert found == 0
    if attack in ASKED:
        assert given == 3


@pytest.mark.parametrize("attack", [*ASKED, "events", "openers"])
def test_an_undo_that_gives_power_in_place_is_taken_in(
    host: Host, attacker: Path, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renew, "renew", naive)
    assert undone(host, attacker, attack, 2)[1]
