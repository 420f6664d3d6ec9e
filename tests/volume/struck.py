"""A small tree of thorny entries, the runs that carry it, and blows at any system call of a run.

strace strikes a process at its n-th call of one kind, with a signal or with an error. With ``-f`` it counts for each
process on its own and strikes every one that comes so far; without, it sees only the process that was started.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.command import here, missing
from tests.prefork import prefork
from tests.volume.tree import (
    Host,
    Rule,
    acl_of,
    age,
    capability_v2,
    capability_v3,
    differences,
    expected,
    finish,
    folder,
    maps,
    over,
    own,
    reverse,
    shift,
    snapshot,
    walk,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.prefork import Ended, Prefork, Run
    from tests.volume.tree import Inode, Snapshot

    Words = tuple[str | Path, ...]

START = 589824  # where per-container begins to give ranges out
HALF = 32768

# For strace, which takes unknown names after a question mark: changes of an owner, and looks at what an entry has.
OWNERS = "?chown,?lchown,fchown,fchownat"
LOOKS = "listxattr,llistxattr,flistxattr,?listxattrat"

# Every call that changes something of a volume, and every one by which a journal or a ledger is written. A strace that does
# not know the newest of them does not strike them.
INODES = (
    *("chown", "lchown", "fchown", "fchownat", "chmod", "fchmod", "fchmodat", "fchmodat2"),
    *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    *("setxattrat", "removexattrat"),
    *("utimensat", "utime", "utimes"),
)
RECORDS = (
    *(
        "write",
        "writev",
        "pwrite64",
        "ftruncate",
        "truncate",
        "fallocate",
        "fsync",
        "fdatasync",
        "sync_file_range",
    ),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("unlink", "unlinkat", "rmdir", "mkdir", "mkdirat"),
)
FEW = 6
CALLS = INODES + RECORDS
# Every one by which a run learns what a volume holds, and that is used for little else. The others, such as stat and open,
# tests/volume/test_crash.py strikes at one entry.
READS = (
    *("openat2", "fchdir", "getdents64", "statx"),
    *("listxattr", "llistxattr", "flistxattr", "getxattr", "lgetxattr", "fgetxattr"),
    *("listxattrat", "getxattrat"),
)


# The tree, and the runs.


def thorny(top: Path, pick: Callable[[int], int], *, v2: bool = True) -> None:
    """Few entries, each of which more than one call has to carry. ``pick`` gives the id that stands for a number."""
    root = os.fsencode(top) + b"/"
    capability = capability_v2() if v2 else capability_v3(pick(0))
    users, groups = {pick(33): 6, pick(1000): 4}, {pick(5): 5, pick(100): 1}
    finish(write(root + b"plain"), pick(0), pick(0))
    finish(write(root + b"web"), pick(33), pick(33), 0o640)
    finish(write(root + b"setuid"), pick(33), pick(42), 0o4755)
    finish(write(root + b"setgid"), pick(0), pick(42), 0o2755)
    finish(write(root + b"all-bits"), pick(7), pick(8), 0o7777)
    finish(write(root + b"capable"), pick(0), pick(0), 0o755, capability=capability)
    finish(
        write(root + b"capable-of-1000"),
        pick(1000),
        pick(5),
        0o755,
        capability=capability_v3(pick(1000)),
    )
    finish(write(root + b"listed"), pick(33), pick(33), 0o640, acl=acl_of(0o640, users, groups, 4))
    everything = root + b"everything"
    finish(
        write(everything),
        pick(1000),
        pick(100),
        0o6750,
        acl=acl_of(0o6750, users, groups),
        capability=capability,
    )
    os.symlink(b"setuid", root + b"symlink")
    finish(root + b"symlink", pick(1000), pick(42))
    os.mkfifo(root + b"fifo")
    finish(root + b"fifo", pick(7), pick(7), 0o620, acl=acl_of(0o620, users, groups))

    both = folder(root + b"both")
    finish(write(both + b"/inner"), pick(65534), pick(65534), 0o4711, acl=acl_of(0o711, users, {}))
    os.link(root + b"setuid", both + b"/setuid")
    finish(
        both,
        pick(1000),
        pick(5),
        0o2770,
        acl=acl_of(0o770, users, groups),
        default_acl=acl_of(0o750, users, groups),
    )
    same = folder(root + b"same")
    for number in range(4):
        finish(write(same + b"/%d" % number), pick(0), pick(0))
    finish(folder(same + b"/empty"), pick(0), pick(0), 0o1777)
    finish(same, pick(0), pick(0), 0o755)
    locked = folder(folder(root + b"deep") + b"/locked")
    finish(write(locked + b"/inner"), pick(8), pick(7), 0)
    os.link(everything, locked + b"/everything")
    os.link(root + b"fifo", locked + b"/fifo")
    finish(locked, pick(33), pick(42), 0)
    finish(root + b"deep", pick(42), pick(33), 0o711)
    finish(os.fsencode(top), pick(0), pick(0), 0o755)
    age(top)


def broad(top: Path, folders: int = 60, files: int = 500) -> list[bytes]:
    """A tree that takes a while; the path of a setuid file in each of its folders."""
    root = os.fsencode(top)
    found = []
    for number in range(folders):
        place = folder(root + b"/%d" % number)
        for name in range(files):
            os.close(os.open(place + b"/%d" % name, os.O_CREAT | os.O_WRONLY, 0o644))
        finish(write(place + b"/setuid"), 33, 33, 0o4755)
        finish(place, 33, 33, 0o755)
        found.append(place + b"/setuid")
    return found


Owners = Counter[tuple[int, int, int]]


def owners(top: Path) -> Owners:
    """How many entries of a big tree have which owner, group and mode."""
    return Counter((found.st_uid, found.st_gid, found.st_mode) for _, _, _, found in walk(top))


def shifted(before: Owners, by: int = START) -> Owners:
    """The same, shifted."""
    return Counter(
        {(by + uid, by + gid, mode): count for (uid, gid, mode), count in before.items()}
    )


def some_shifted(paths: list[bytes]) -> bool:
    return any(os.lstat(path).st_uid >= START for path in paths)


def _in_both_halves(number: int) -> int:
    """Ids that are old ones only, and ids that are at once old ones and new ones of others."""
    return {1000: HALF + 33, 42: HALF, 7: HALF + 7, 65534: 2 * HALF - 1}.get(number, number)


@dataclass(frozen=True)
class Case:
    """Words of fix-volume, the tree that they are for, and what they mean."""

    words: tuple[str, ...]
    rule: Rule
    pick: Callable[[int], int] = int
    v2: bool = True


_SWAP = ((1000, 1001, 1), (1001, 1000, 1))
_SWAPPED = Rule(_SWAP, _SWAP, None, source_wins=True)
# Container gid 107 is the host's 104; and the tree has both.
_HOLES = Rule(
    ((0, START, 65536),),
    ((0, START, 107), (107, 104, 1), (108, START + 108, 65428)),
    START,
    source_wins=True,
    images=False,
)


def _at_holes(number: int) -> int:
    return {5: 107, 42: 104, 7: HALF + 7}.get(number, number)


CASES = {
    "shift": Case(("--container", "web", "--mode", "shift"), shift(START)),
    "own": Case(("--container", "web"), own(START)),
    "overlap": Case((*maps(over(0, HALF)), "--drop-power"), over(0, HALF), _in_both_halves),
    "swap": Case(
        (*maps(_SWAPPED), "--drop-power"), _SWAPPED, lambda number: 1000 + number % 2, v2=False
    ),
    "holes": Case((*maps(_HOLES), "--drop-power"), _HOLES, _at_holes),
    "from-map": Case(
        ("--container", "web", "--from-map", f"b 0 {START + HALF} 65536"),
        over(START + HALF, START),
        lambda number: START + HALF + _at_holes(number),
    ),
    "reverse": Case(
        ("--container", "web", "--mode", "shift", "--reverse", "--drop-power"),
        reverse(START),
        lambda number: START + number,
    ),
}


class Ground(NamedTuple):
    """A host with an untouched volume, and what a run makes of it."""

    host: Host
    words: Words
    before: Snapshot
    after: Snapshot

    def seen(self) -> Snapshot:
        """The volume as it is now."""
        return snapshot(self.host.volume)

    def wrong(self) -> list[str]:
        """What is not as it is to be in the end."""
        return differences(self.seen(), self.after)

    def other(self) -> list[str]:
        """What is not as it was."""
        return differences(self.seen(), self.before)

    def is_right(self, path: bytes, inode: Inode) -> bool:
        """Whether an entry is as it is to be in the end."""
        return inode.of_any_time() == self.after[path].of_any_time()


class Grounds:
    """As many equal grounds as one likes, each on a fresh host."""

    def __init__(self, place: Path, case: Case, jobs: int) -> None:
        self._place, self._case, self._jobs = place, case, jobs
        self._ledger = place / "ledger"
        (self._ledger / "etc").mkdir(parents=True)
        here("allocate", "--strategy", "per-container", "web", "--root", self._ledger)

    def new(self, name: str) -> Ground:
        host = Host(self._place / name, "any")
        shutil.copytree(self._ledger, host.root)
        host.volume.mkdir(parents=True)
        thorny(host.volume, self._case.pick, v2=self._case.v2)
        before = snapshot(host.volume)
        words = (
            "fix-volume",
            str(host.volume),
            *self._case.words,
            "--jobs",
            str(self._jobs),
            "--root",
            str(host.root),
        )
        return Ground(host, words, before, expected(before, self._case.rule))


# Blows.


class Place(NamedTuple):
    """The n-th call of one kind; ``alone``: of the process that was started, and of no other."""

    call: str
    number: int
    alone: bool = False

    def __str__(self) -> str:
        return f"{self.call}-{self.number}" + ("-alone" if self.alone else "")


class Traced(NamedTuple):
    """How a traced run ended, and what strace noted."""

    ended: Ended
    trace: list[str]
    pid: int
    left: list[int]

    def killed(self) -> set[int]:
        """The processes that were killed."""
        return {int(line.split()[0]) for line in self.trace if "+++ killed by SIGKILL" in line}


def trace(
    server: Prefork,
    words: Words,
    calls: str,
    *more: str,
    follow: bool = True,
    meanwhile: Callable[[Run, Path], None] | None = None,
) -> Traced:
    """Run usernsplan under strace; ``meanwhile`` is called when it has begun."""
    if shutil.which("strace") is None:
        missing("strace")
    run = server.start(*words)
    log = run.folder / "trace"
    # -D would leave us without a child to wait for; -I 4 keeps strace deaf to what is sent to the run's own group.
    options = [*(["-f"] if follow else []), "-qq", "-o", str(log), "-e", f"trace={calls}", *more]
    with subprocess.Popen(
        ["strace", *options, "-p", str(run.pid)], stderr=subprocess.PIPE, text=True
    ) as tracer:
        wait_until(lambda: tracer.poll() is not None or _is_traced(run.pid), 30)
        run.go()
        if meanwhile:
            meanwhile(run, log)
        ended = run.wait()
        left = run.left()
        if left:
            # Or strace would wait for them.
            os.killpg(run.pid, signal.SIGKILL)
        said = tracer.communicate(timeout=30)[1]
    assert "nvalid" not in said, said
    # Without -f there is no pid before the call; with it there is.
    lines = log.read_text(errors="replace").splitlines()
    return Traced(
        ended, lines if follow else [f"{run.pid} {line}" for line in lines], run.pid, left
    )


def half_way(
    server: Prefork, words: Words, number: int, then: Callable[[Run], None], calls: str = OWNERS
) -> Traced:
    """Run it, and call ``then`` while all of it stands still, since a process of it is at its n-th change of owner.

    Or at its n-th call of another kind.
    """

    def stand_still(run: Run, log: Path) -> None:
        assert stopped(run, log), "it was done before it was half-way"
        os.killpg(run.pid, signal.SIGSTOP)
        then(run)
        os.killpg(run.pid, signal.SIGCONT)
        # Another worker comes to its n-th change later, and is not to stand there for ever.
        known = 1
        while run.living():
            if (now := log.read_text(errors="replace").count("--- stopped by SIGSTOP")) > known:
                known = now
                # It may have ended since it was last looked at.
                with suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGCONT)
            time.sleep(0.005)

    return trace(
        server,
        words,
        calls,
        "-e",
        f"inject={calls}:signal=STOP:when={number}",
        meanwhile=stand_still,
    )


def _is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text(
        encoding="ascii", errors="replace"
    )


def wait_until(answer: Callable[[], bool], patience: float) -> None:
    end = time.monotonic() + patience
    while not answer():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def places(server: Prefork, words: Words, kinds: tuple[str, ...] = CALLS) -> list[Place]:
    """Every place of a whole run: calls by kind and number, of any process and of the first one alone."""
    whole = trace(server, words, ",".join(f"?{call}" for call in kinds))
    assert whole.ended.status == 0, whole
    counts: Counter[tuple[int, str]] = Counter()
    for line in whole.trace:
        pid, _, rest = line.partition(" ")
        call = rest.strip().partition("(")[0]
        if call in kinds:
            counts[int(pid), call] += 1
    most: Counter[str] = Counter()
    for (_, call), count in counts.items():
        most[call] = max(most[call], count)
    every = [Place(call, number) for call, count in most.items() for number in range(1, count + 1)]
    shared = {call for pid, call in counts if pid != whole.pid}
    every += [
        Place(call, number, alone=True)
        for (pid, call), count in counts.items()
        if pid == whole.pid and call in shared
        for number in range(1, count + 1)
    ]
    return every


def sample(of: list[Place], most: int) -> list[Place]:
    """At most so many of each kind of call, the first and the last among them; of what only records, a few will do."""
    kinds: dict[tuple[str, bool], list[Place]] = {}
    for place in of:
        kinds.setdefault((place.call, place.alone), []).append(place)
    chosen = []
    for (call, _), found in kinds.items():
        count = min(most, len(found), FEW if call in RECORDS else len(found))
        chosen += [found[round(at * (len(found) - 1) / max(1, count - 1))] for at in range(count)]
    return chosen


def strike(server: Prefork, words: Words, place: Place, blow: str) -> Traced:
    """Run it, struck at this place; ``blow`` is signal=KILL or error=EIO."""
    inject = f"inject={place.call}:{blow}:when={place.number}"
    return trace(server, words, place.call, "-e", inject, follow=not place.alone)


def strike_all(server: Prefork, words: Words, place: Place) -> Traced:
    """As when the power fails: every process of the run is killed while one of them stands at this place."""

    def kill(run: Run, log: Path) -> None:
        if stopped(run, log):
            os.killpg(run.pid, signal.SIGKILL)

    inject = f"inject={place.call}:signal=STOP:when={place.number}"
    return trace(server, words, place.call, "-e", inject, meanwhile=kill)


def stopped(run: Run, log: Path) -> bool:
    """Wait until a process of the run stands still; False where it ended without."""

    def stands() -> bool:
        return log.exists() and "--- stopped by SIGSTOP" in log.read_text(errors="replace")

    wait_until(lambda: stands() or not alive(run.pid), 60)
    return stands()


def alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] not in {"Z", "X"}


@contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{where}: {error}") from error


def share_out(every: list[Place], check: Callable[[Prefork, int, Place], None]) -> None:
    """Visit every place, on as many processors as there are."""
    numbered = list(enumerate(every))
    lanes = os.cpu_count() or 1

    def lane(first: int) -> None:
        with prefork() as server:
            for number, place in numbered[first::lanes]:
                with _named(f"struck at {place}, number {number}"):
                    check(server, number, place)

    with ThreadPoolExecutor(lanes) as pool:
        lanes_done = [pool.submit(lane, first) for first in range(lanes)]
    for done in lanes_done:
        done.result()


# After a blow.


def run_of(ground: Ground) -> str | None:
    """The name of the one run that has begun: a kill may leave a folder that does not yet say what it is."""
    runs = [path.parent.name for path in ground.host.runs.glob("*/run.json")]
    assert len(runs) < 2, runs
    return runs[0] if runs else None


def undone(server: Prefork, ground: Ground) -> None:
    """Take the run back. What a worker was at when it was killed, others may have changed: that wants a word."""
    if run := run_of(ground):
        words = ("undo", run, "--root", ground.host.root)
        first = server.run(*words, status=None)
        if first.status == 3:
            left = re.findall(r"failed: (.*?): (.*)", first.out)
            assert left, first
            assert all("--also-changed" in why for _, why in left), first
            inodes = {
                (found.st_dev, found.st_ino) for found in (os.lstat(path) for path, _ in left)
            }
            assert len(inodes) <= 2, first
            server.run(*words, "--also-changed")
        else:
            assert first.status == 0, first
    assert ground.other() == []


def finished(server: Prefork, ground: Ground) -> None:
    server.run(*ground.words)
    assert ground.wrong() == []


def was_killed(struck: Traced) -> bool:
    """Whether a process of the run was hit, of which the command then has to say something."""
    killed = struck.killed()
    assert "Traceback" not in struck.ended.err, struck
    assert struck.left == [], struck
    if struck.pid in killed:
        assert struck.ended.status == -signal.SIGKILL, struck
    elif killed:
        assert struck.ended.status not in {0, -signal.SIGKILL}, struck
        assert struck.ended.err.startswith("usernsplan: "), struck
    return bool(killed)
