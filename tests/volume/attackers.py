"""Processes that may write in a volume and swap what is in it, over and over, while somebody walks through it.

``arena`` builds the volume and, beside it on the same file system, what they want to have changed. Each attack is one
short step that leaves the names as it found them; most steps fail now and then, and nobody minds.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import mmap
import os
import random
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from tests.volume.tree import acl_of, capability_v2, capability_v3, finish, folder, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Attack = Callable[[], None]

RENAME_EXCHANGE = 2
AT_FDCWD = -100
FILES = 60
# Deeper than what fix-volume opens by one path: from there on it goes by folders that it holds.
DEEP = "open-1-deep" + "/d" * 14

_libc = ctypes.CDLL(None, use_errno=True)


class Arena(NamedTuple):
    """A volume, what lies beside it, and a folder beside it that belongs to the attacker."""

    volume: Path
    outside: Path
    yard: Path


def arena(volume: Path, outside: Path, container_root: int) -> Arena:
    """Fill both folders. In the volume the attacker may always write in ``open-N``, whoever owns it at the moment."""
    top = os.fsencode(volume)
    for number, what in enumerate(("swap", "deep", "move", "files", "links", "mixed")):
        place = folder(top + b"/open-%d-%s" % (number, what.encode()))
        for _ in range(DEEP.count("/") if what == "deep" else 0):
            finish(place, 0, 0, 0o777)
            place = folder(place + b"/d")
        _fill(folder(place + b"/box"))
        _fill(folder(place + b"/box/box"))
        finish(place + b"/box/box", 33, 33, 0o777)
        finish(place + b"/box", 1000, 100, 0o777)
        finish(place, 0, 0, 0o777)
    finish(top, 0, 0, 0o777)

    there = os.fsencode(outside)
    # Of the same shape as what is swapped: a walk by path that is led here finds every name it looks for.
    _fill(folder(there + b"/box"))
    _fill(folder(there + b"/box/box"))
    default = acl_of(0o750, {1000: 7}, {100: 5})
    finish(folder(there + b"/listed"), 0, 0, 0o750, acl=default, default_acl=default)
    finish(there + b"/box/box", 0, 0, 0o700)
    finish(there + b"/box", 0, 0, 0o700)
    finish(write(there + b"/secret"), 0, 0, 0o600)
    # protected_hardlinks=1 (proc_sys_fs(5)) lets anybody link a file that he may read and write.
    finish(write(there + b"/shared"), 0, 0, 0o666)
    finish(write(there + b"/shared-in-group"), 33, 33, 0o666, acl=acl_of(0o666, {1000: 6}, {}))
    finish(write(there + b"/shared-wanderer"), 0, 0, 0o666)
    finish(write(there + b"/shared-wanderer-of-33"), 33, 33, 0o666)
    yard = outside.parent / "yard"
    finish(folder(os.fsencode(yard)), container_root, container_root, 0o777)
    finish(there, 0, 0, 0o755)
    return Arena(volume, outside, yard)


def _fill(place: bytes) -> None:
    for number in range(FILES):
        path = write(place + b"/file-%d" % number)
        kind = number % 6
        if kind == 0:
            finish(path, 33, 33, 0o6755)
        elif kind == 1:
            finish(
                path, 0, 0, 0o755, capability=capability_v2() if number % 4 else capability_v3(1000)
            )
        elif kind == 2:
            finish(path, 1000, 1000, 0o640, acl=acl_of(0o640, {33: 6}, {100: 4}))
        else:
            finish(path, number, number, 0o644)


# The attacks; the working directory is the volume.


def folder_for_symlink(place: str) -> Attack:
    """A folder and a symlink to a folder outside exchange their names."""
    trap = f"{place}-trap"
    with suppress(FileExistsError):
        os.symlink(_up(place) + "../outside/box", trap)
    return lambda: _exchange(place, trap)


def folder_for_symlink_by_two_renames(place: str) -> Attack:
    """The same in two steps, with a moment at which there is nothing."""

    def attack() -> None:
        os.rename(place, f"{place}-away")
        try:
            os.symlink(_up(place) + "../outside/box", place)
            os.unlink(place)
        finally:
            os.rename(f"{place}-away", place)

    return attack


def folder_out_and_in(place: str) -> Attack:
    """A folder leaves the volume, so that its ".." is a folder outside, and comes back."""
    away = f"../yard/{place.replace('/', '-')}"

    def attack() -> None:
        os.rename(place, away)
        os.rename(away, place)

    return attack


def folder_comes_and_goes(place: str) -> Attack:
    """A folder with something in it is made and removed; who has it open reads of it that it is no more."""

    def attack() -> None:
        os.makedirs(f"{place}/inner", exist_ok=True)
        os.rmdir(f"{place}/inner")
        os.rmdir(place)

    return attack


def file_for_symlink(place: str, target: str) -> Attack:
    """A file and a symlink to a file outside exchange their names."""
    trap = f"{place}-trap"
    with suppress(FileExistsError):
        os.symlink(_up(place) + f"../outside/{target}", trap)
    return lambda: _exchange(place, trap)


def file_for_hard_link(place: str, target: str) -> Attack:
    """A file and another name of a file outside exchange their names; one attack is there, the next one back."""
    trap = f"{place}-twin"
    there = False

    def attack() -> None:
        nonlocal there
        if there:
            _exchange(place, trap)
            there = False
            os.unlink(trap)
            return
        os.link(f"../outside/{target}", trap)
        try:
            _exchange(place, trap)
        except OSError:
            os.unlink(trap)
            raise
        there = True

    return attack


def wandering_hard_link(target: str, *folders: str) -> Attack:
    """Another name of a file outside goes from folder to folder: who counts names while it does may count it twice."""
    places = itertools.cycle([f"{folder}/wanderer" for folder in folders])
    here = next(places)

    def attack() -> None:
        nonlocal here
        with suppress(FileExistsError):
            os.link(f"../outside/{target}", here)
        there = next(places)
        os.rename(here, there)
        here = there

    return attack


def _up(place: str) -> str:
    return "../" * place.count("/")


def _exchange(one: str, other: str) -> None:
    if _libc.renameat2(AT_FDCWD, one.encode(), AT_FDCWD, other.encode(), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), one)


def of_containers_root() -> list[list[Attack]]:
    """What a process in a container can do, three attackers at once."""
    return [
        [
            folder_for_symlink("open-0-swap/box"),
            folder_for_symlink(f"{DEEP}/box/box"),
            *_of_tops(),
        ],
        [
            folder_out_and_in("open-2-move/box"),
            folder_out_and_in(f"{DEEP}/box"),
            folder_out_and_in("open-5-mixed/box/box"),
            *(
                folder_comes_and_goes(f"open-2-move/box/box/short-lived-{number}")
                for number in range(5)
            ),
            *(
                file_for_symlink(f"open-3-files/box/file-{number}", "box/file-0")
                for number in range(6)
            ),
            file_for_symlink("open-5-mixed/box/file-1", "secret"),
        ],
        [
            *(
                file_for_hard_link(f"open-4-links/box/file-{number}", "shared")
                for number in range(9)
            ),
            *(
                file_for_hard_link(f"open-4-links/box/box/file-{number}", "shared")
                for number in (3, 4, 5)
            ),
            file_for_hard_link("open-5-mixed/box/file-2", "shared-in-group"),
        ],
    ]


def of_wanderers() -> list[list[Attack]]:
    """What a process in a container can do with other names of files outside: who counts names, counts one twice."""
    return [
        [
            wandering_hard_link(
                "shared-wanderer",
                "open-3-files",
                "open-4-links/box/box",
                "open-5-mixed",
                "open-1-deep",
            ),
            wandering_hard_link("shared-wanderer-of-33", "open-0-swap", "open-5-mixed"),
        ],
        [
            wandering_hard_link(
                "shared", "open-3-files/box", "open-2-move/box/box", "open-0-swap/box/box"
            )
        ],
    ]


def of_real_root() -> list[list[Attack]]:
    """Folders and symlinks, by somebody whom no permission stops."""
    return [
        [
            folder_for_symlink("open-0-swap/box"),
            folder_for_symlink("open-2-move/box/box"),
            *_of_tops(),
        ],
        [
            folder_for_symlink_by_two_renames("open-3-files/box"),
            folder_out_and_in("open-5-mixed/box"),
        ],
    ]


def _of_tops() -> list[Attack]:
    return [
        folder_for_symlink("open-1-deep"),
        folder_for_symlink_by_two_renames("open-4-links/box/box"),
    ]


# The attackers.


class Attackers:
    """How often they struck so far."""

    def __init__(self, counters: memoryview) -> None:
        self._counters = counters

    def strikes(self) -> int:
        return sum(self._counters)


@contextmanager
def attacked(
    volume: Path, uid: int, gangs: Callable[[], list[list[Attack]]]
) -> Iterator[Attackers]:
    """While this is open, a process of this uid for each list of attacks goes through them, again and again."""
    # Traps are laid by root, in folders where anybody may write.
    back = Path.cwd()
    os.chdir(volume)
    try:
        lists = gangs()
    finally:
        os.chdir(back)
    shared = mmap.mmap(-1, 8 * len(lists))
    counters = memoryview(shared).cast("Q")
    children = []
    try:
        for number, attacks in enumerate(lists):
            pid = os.fork()
            if pid == 0:
                _strike(volume, uid, attacks, counters, number)
            children.append(pid)
        yield Attackers(counters)
    finally:
        ends = []
        for pid in children:
            os.kill(pid, signal.SIGTERM)
            ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        counters.release()
        shared.close()
    assert ends == [0] * len(lists), "an attacker failed to do what it is there for"


def _strike(
    volume: Path, uid: int, attacks: Sequence[Attack], counters: memoryview, number: int
) -> NoReturn:
    # Whatever happens, this copy of the test process must not go on as one.
    status = 1
    stopped: list[int] = []
    try:
        signal.signal(signal.SIGTERM, lambda signum, _: stopped.append(signum))
        parent = os.getppid()
        # First the folder, then the uid: what lies above the volume need not let everybody through.
        os.chdir(volume)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        chance = random.Random(number)  # noqa: S311 - no secret
        for attack in itertools.cycle(attacks):
            pause = chance.choice((0, 0, 0, 0.00001, 0.0003))
            for _ in range(chance.randrange(20, 400)):
                with suppress(OSError):
                    attack()
                    counters[number] += 1
                if pause:
                    time.sleep(pause)
            if stopped or os.getppid() != parent:
                break
        status = 0
    finally:
        os._exit(status)


def exchange_works(place: Path) -> bool:
    """Tell whether this file system can exchange two names at once."""
    one, other = place / "one", place / "other"
    one.touch()
    other.touch()
    try:
        _exchange(str(one), str(other))
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOSYS}:
            raise
        return False
    finally:
        one.unlink()
        other.unlink()
    return True
