"""fix-volume beside `chown -hR` and fuidshift, on tmpfs and on ext4 in a loop file; its memory; its system calls.

Needs root, util-linux and e2fsprogs; works in a private mount namespace and in a temporary folder (TMPDIR says where).
Both file systems lie below a --root in that folder, and the journal on the disk that holds it; nothing else on the
machine changes. The peers take turns with us, each from the same owners and with nothing left to write back; the median
of the rounds counts, the fastest and the slowest are shown below it. Whether the owners came out right is looked at
after each of our runs, untimed.

Run it with a venv into which usernsplan is installed, not as editable: its bytecode is compiled then, as users have it
(PYTHONDONTWRITEBYTECODE keeps a source tree from ever being compiled, and each worker would pay for that), and it is
not the source tree in the current folder that is measured:

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install . && /tmp/venv/bin/python -m tests.bench.volume
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.timing import row

FOLDER = 100
SMALL = 20_000
SHIFTED = 100_000
MAPS = ("--uid-map", f"0:{SHIFTED}:65536", "--gid-map", f"0:{SHIFTED}:65536")
# What the issue asks for.
SHIFT_BOUND, AGAIN_BOUND, FUIDSHIFT_BOUND, MEMORY_BOUND = 1.8, 0.8, 1 / 5, 150
SAMPLE_EVERY = 0.02


@dataclass(frozen=True)
class Taken:
    """What one process and all that it waited for took, in seconds."""

    wall: float
    user: float
    system: float


def run(words: Sequence[str]) -> Taken:
    """Run a command that is not to fail. What it says is kept out of the way and shown if it does."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(
                f"{' '.join(words)}: status {process.returncode}\n{said.read().decode(errors='replace')}"
            )
    return Taken(wall, used.ru_utime, used.ru_stime)


def by_turns(
    commands: Mapping[str, Sequence[str]],
    before: Callable[[], object],
    after: Callable[[], object],
    rounds: int,
) -> dict[str, list[Taken]]:
    """What each command took in each round; ``after`` is for the first of them."""
    taken: dict[str, list[Taken]] = {name: [] for name in commands}
    for _ in range(rounds):
        for number, (name, words) in enumerate(commands.items()):
            before()
            os.sync()
            taken[name].append(run(words))
            if number == 0:
                after()
    return taken


def told(what: str, ours: list[Taken], peer: str, theirs: list[Taken], bound: float | None) -> str:
    """The row, the bound of the issue, and below it what the medians do not say."""
    first = row(what, median(ours), peer, median(theirs))
    asked = (
        ""
        if bound is None
        else f"   asked: {bound:.3f} {'met' if median(ours) <= bound * median(theirs) else 'MISSED'}"
    )
    return f"{first}{asked}\n{'':<4}{spread(ours):<53}   {spread(theirs)}"


def median(taken: list[Taken]) -> float:
    return statistics.median(each.wall for each in taken)


def spread(taken: list[Taken]) -> str:
    """Fastest and slowest, and the processors' seconds: user and system."""
    walls = [each.wall for each in taken]
    user, system = (
        statistics.median(column) for column in ([e.user for e in taken], [e.system for e in taken])
    )
    return f"{min(walls):.3f}-{max(walls):.3f} s, user {user:.2f}, system {system:.2f}"


def build(tree: Path, files: int) -> None:
    """Files of root in folders of 100, those in folders of 100."""
    for first in range(0, files, FOLDER):
        folder = tree / f"d{first // FOLDER**2:04}" / f"d{first // FOLDER % FOLDER:02}"
        folder.mkdir(parents=True)
        pinned = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        for number in range(first, min(first + FOLDER, files)):
            os.close(os.open(f"file-{number:07}", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=pinned))
        os.close(pinned)


@contextlib.contextmanager
def mounted(kind: str, host: Path, files: int) -> Iterator[Path]:
    """A fresh file system below ``host`` with room for that many files, and a folder on it for the tree."""
    on = host / "srv" / kind
    on.mkdir(parents=True)
    image = host / f"{kind}.img"
    if kind == "ext4":
        inodes = files + files // 10 + 4096
        with image.open("wb") as file:
            file.truncate(inodes * 256 + files // FOLDER * 16_384 + (512 << 20))
        # Made whole now, lest the kernel go on making it while we measure; and with the journal that a large disk has:
        # where it is full, whoever changes inodes waits for the disk.
        subprocess.run(
            [
                "mkfs.ext4",
                "-q",
                "-F",
                "-E",
                "lazy_itable_init=0,lazy_journal_init=0",
                "-J",
                "size=256",
                "-N",
                str(inodes),
                image,
            ],
            check=True,
        )
        subprocess.run(["mount", "-o", "loop", image, on], check=True)
    else:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=100%,nr_inodes=0", "bench", on], check=True
        )
    try:
        tree = on / "volume"
        tree.mkdir()
        yield tree
    finally:
        subprocess.run(["umount", on], check=True)
        image.unlink(missing_ok=True)


class Bench:
    """One host of ours, and the commands that are run on it."""

    def __init__(self, host: Path, jobs: int, rounds: int) -> None:
        self.host, self.rounds = host, rounds
        program = Path(sys.executable).parent / "usernsplan"
        self.program = [str(program)] if program.exists() else [sys.executable, "-m", "usernsplan"]
        self.options = ["--jobs", str(jobs), "--root", str(host)]

    def ours(self, tree: Path, *more: str) -> list[str]:
        return [*self.program, "fix-volume", str(tree), *more, *self.options]

    def fresh(self, tree: Path) -> None:
        """All is root's, and no run was ever made."""
        subprocess.run(["chown", "-hR", "0:0", tree], check=True)
        shutil.rmtree(self.host / "var/lib/usernsplan/runs", ignore_errors=True)

    def compare(self, kind: str, files: int) -> None:
        """All that is timed on one file system."""
        allocate = [
            *self.program,
            "allocate",
            "--strategy",
            "per-container",
            kind,
            "--root",
            str(self.host),
            "--json",
        ]
        done = json.loads(subprocess.run(allocate, check=True, stdout=subprocess.PIPE).stdout)
        owned = done["allocations"][0]["uid_map"][0]["host"]
        chown = f"chown -hR, {kind}"
        with mounted(kind, self.host, files) as tree:
            build(tree, files)

            def fresh() -> None:
                self.fresh(tree)

            def shifted() -> None:
                expect_owner(tree, SHIFTED)

            to = ["chown", "-hR", f"{SHIFTED}:{SHIFTED}", str(tree)]
            both = {"ours": self.ours(tree, *MAPS), "chown": to}
            taken = by_turns(both, fresh, shifted, self.rounds)
            print(
                told(f"shift {files} files", taken["ours"], chown, taken["chown"], SHIFT_BOUND),
                flush=True,
            )
            if shutil.which("fuidshift"):
                range_ = f"b:0:{SHIFTED}:65536"
                theirs = by_turns(
                    {"fuidshift": ["fuidshift", str(tree), range_]}, fresh, shifted, 1
                )["fuidshift"]
                print(
                    told(
                        f"shift {files} files",
                        taken["ours"],
                        "fuidshift, once",
                        theirs,
                        FUIDSHIFT_BOUND,
                    ),
                    flush=True,
                )
            else:
                print("fuidshift is not installed: nothing to compare with")

            def done() -> None:
                fresh()
                run(both["ours"])

            def right() -> None:
                fresh()
                run(both["chown"])

            for what, before in (
                ("shift again, after our run", done),
                ("shift of what was right before", right),
            ):
                taken = by_turns(both, before, shifted, self.rounds)
                print(told(what, taken["ours"], chown, taken["chown"], AGAIN_BOUND), flush=True)

            own = {
                "ours": self.ours(tree, "--mode", "own", "--container", kind),
                "chown": ["chown", "-hR", f"{owned}:{owned}", str(tree)],
            }
            taken = by_turns(own, fresh, lambda: expect_owner(tree, owned), self.rounds)
            print(
                told(f"own {files} files", taken["ours"], chown, taken["chown"], None), flush=True
            )

            back = {
                "ours": self.ours(tree, *MAPS, "--reverse"),
                "chown": ["chown", "-hR", "0:0", str(tree)],
            }
            taken = by_turns(back, right, lambda: expect_owner(tree, 0), self.rounds)
            print(
                told(
                    "shift --reverse: no folder is root's",
                    taken["ours"],
                    chown,
                    taken["chown"],
                    None,
                ),
                flush=True,
            )

    def memory(self, files: int) -> None:
        """The peaks of a first run."""
        with mounted("tmpfs-memory", self.host, files) as tree:
            build(tree, files)
            self.fresh(tree)
            pss, rss = peaks(self.ours(tree, *MAPS))
            expect_owner(tree, SHIFTED)
        asked = f"asked: PSS below {MEMORY_BOUND} MB {'met' if pss < MEMORY_BOUND else 'MISSED'}"
        print(
            f"memory at {files} files, all processes: peak PSS {pss:.0f} MB, peak RSS {rss:.0f} MB   {asked}"
        )
        runs = self.host / "var/lib/usernsplan/runs"
        size = sum(path.stat().st_size for path in runs.rglob("*"))
        print(f"journal of that run: {size / 1e6:.2f} MB", flush=True)

    def system_calls(self) -> None:
        """Which calls are made how often, by the first and by the second run."""
        if not shutil.which("strace"):
            print("strace is not installed: no system calls are counted")
            return
        with mounted("tmpfs-strace", self.host, SMALL) as tree:
            build(tree, SMALL)
            inodes = SMALL + SMALL // FOLDER + -(-SMALL // FOLDER**2) + 1
            idle = counted([*self.program, "fix-volume", "--help"], self.host)
            for which in ("first", "second"):
                calls = counted(self.ours(tree, *MAPS), self.host)
                print(
                    f"system calls per inode, {which} run on {inodes} inodes, the start of a process left out:"
                )
                for name in idle.keys() & calls.keys():
                    calls[name] -= idle[name]
                top = sorted(calls.items(), key=lambda call: -call[1])[:10]
                print(f"{'':<4}all {sum(calls.values()) / inodes:.2f}: ", end="")
                print(", ".join(f"{name} {count / inodes:.2f}" for name, count in top), flush=True)


def expect_owner(tree: Path, owner: int) -> None:
    """A run that is fast because it leaves something out is no result."""
    wrong = [
        "find",
        str(tree),
        "!",
        "(",
        "-uid",
        str(owner),
        "-gid",
        str(owner),
        ")",
        "-print",
        "-quit",
    ]
    if found := subprocess.run(wrong, check=True, stdout=subprocess.PIPE).stdout:
        sys.exit(f"not owned by {owner}: {os.fsdecode(found)}")


def counted(words: Sequence[str], folder: Path) -> dict[str, int]:
    """How often each system call was made, by all of the processes."""
    table = folder / "strace"
    run(["strace", "-f", "-qq", "-c", "-U", "calls,name", "-o", str(table), *words])
    lines = [line.split() for line in table.read_text().splitlines()]
    return {
        line[1]: int(line[0])
        for line in lines
        if len(line) == 2 and line[0].isdigit() and line[1] != "total"
    }


def peaks(words: Sequence[str]) -> tuple[float, float]:
    """The highest sums of PSS and of RSS over a process and its descendants, in MB. The two need not coincide."""
    highest = [0, 0]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            now = [memory_of(pid) for pid in descendants(process.pid)]
            highest = [
                max(was, sum(one[which] for one in now)) for which, was in enumerate(highest)
            ]
            time.sleep(SAMPLE_EVERY)
    if process.returncode:
        sys.exit(f"{' '.join(words)}: status {process.returncode}")
    return highest[0] * 1024 / 1e6, highest[1] * 1024 / 1e6


def memory_of(pid: int) -> tuple[int, int]:
    """PSS and RSS in KiB; nothing for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    sizes = {
        name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)
    }
    return sizes["Pss"], sizes["Rss"]


def descendants(root: int) -> set[int]:
    """A process and all below it. Not every kernel has /proc/PID/task/PID/children."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # The name in parentheses may hold anything; what follows the last one does not.
                parents[int(name)] = int(
                    Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1]
                )
    found, new = {root}, {root}
    while new := {pid for pid, parent in parents.items() if parent in new} - found:
        found |= new
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=300_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--memory-files", type=int, default=1_000_000, help="0: leave that part out"
    )
    parser.add_argument("--unshared", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if os.geteuid():
        sys.exit("only root can mount and chown")
    if not words.unshared:
        again = [sys.executable, "-m", "tests.bench.volume", *sys.argv[1:], "--unshared"]
        sys.exit(
            subprocess.run(
                ["unshare", "--mount", "--propagation", "private", *again], check=False
            ).returncode
        )
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), words.jobs, words.rounds)
        on = f"Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} cores"
        print(f"{' '.join(bench.program)}; {on}, load average {os.getloadavg()[0]:.2f}", flush=True)
        for kind in ("tmpfs", "ext4"):
            bench.compare(kind, words.files)
        if words.memory_files:
            bench.memory(words.memory_files)
        bench.system_calls()


if __name__ == "__main__":
    main()
