"""Measure whole processes: wall and CPU seconds in turns with a peer, peak memory, system calls."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE_EVERY = 0.01


def program() -> list[str]:
    """The command that users start; this checkout's code, if ``environment`` is given too."""
    installed = Path(sys.executable).parent / "usernsplan"
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "usernsplan"]


def environment() -> dict[str, str]:
    """What is measured is this checkout, with its bytecode kept: each worker would compile it again."""
    mine = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**mine, "PYTHONPATH": str(REPOSITORY)}


@dataclass(frozen=True)
class Taken:
    """What one process and all that it waited for took, in seconds."""

    wall: float
    user: float
    system: float

    @property
    def cpu(self) -> float:
        return self.user + self.system


@dataclass(frozen=True)
class Peak:
    """Highest memory in MB: the sum of PSS over our processes, and the RSS of the largest. Sampled."""

    together: float
    largest: float


def run(words: Sequence[str], statuses: Collection[int] = (0,)) -> Taken:
    """Run a command. What it says is kept out of the way, and shown if its status is another."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment()
        )
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in statuses:
            said.seek(0)
            text = said.read(4096).decode(errors="replace")
            sys.exit(f"{' '.join(words)[:400]}: status {process.returncode}\n{text}")
    return Taken(wall, used.ru_utime, used.ru_stime)


def by_turns(
    commands: Mapping[str, Sequence[str]],
    before: Callable[[str], object],
    after: Callable[[], object],
    rounds: int,
    statuses: Collection[int] = (0,),
) -> dict[str, list[Taken]]:
    """What each command took in each round. ``before`` (of each) and ``after`` (of the first) are untimed.

    Nothing waits to be written back when a command starts: it would pay for the one before it.
    """
    taken: dict[str, list[Taken]] = {name: [] for name in commands}
    for _ in range(rounds):
        for number, (name, words) in enumerate(commands.items()):
            before(name)
            os.sync()
            taken[name].append(run(words, statuses if number == 0 else (0,)))
            if number == 0:
                after()
    return taken


def median(
    words: Sequence[str], *, runs: int = 5, before: Callable[[], object] = lambda: None
) -> float:
    """Seconds that a command takes; ``before`` is run, untimed, ahead of each run. A failing command is an error."""
    taken = []
    for _ in range(runs):
        before()
        start = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def wall(taken: list[Taken]) -> float:
    return statistics.median(each.wall for each in taken)


def cpu(taken: list[Taken]) -> float:
    return statistics.median(each.cpu for each in taken)


def row(what: str, seconds: float, peer: str, peer_seconds: float) -> str:
    """One line of a result: both figures and how many times the peer's ours is."""
    return f"{what:<44} {seconds:8.3f} s   {peer:<36} {peer_seconds:8.3f} s   ratio {seconds / peer_seconds:.3f}"


def counted(words: Sequence[str], statuses: Collection[int] = (0,)) -> dict[str, int] | None:
    """How often all processes of a command made each system call; None where strace is missing."""
    if not (strace := shutil.which("strace")):
        return None
    with tempfile.NamedTemporaryFile() as table:
        options = ["-f", "-qq", "-c", "-U", "calls,name", "-o", table.name]
        run([strace, *options, *words], statuses)
        lines = [line.split() for line in Path(table.name).read_text().splitlines()]
    return {
        line[1]: int(line[0])
        for line in lines
        if len(line) == 2 and line[0].isdigit() and line[1] != "total"
    }


def peak(words: Sequence[str], statuses: Collection[int] = (0,)) -> Peak:
    """The peak memory of a process and its descendants; in a run of its own, which sampling makes slower."""
    together = largest = 0
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        words, stdin=quiet, stdout=quiet, stderr=quiet, env=environment()
    ) as process:
        while process.poll() is None:
            now = [memory_of(pid) for pid in descendants(process.pid)]
            together = max(together, sum(pss for pss, _ in now))
            largest = max(largest, *(rss for _, rss in now))
            time.sleep(SAMPLE_EVERY)
    if process.returncode not in statuses:
        sys.exit(f"{' '.join(words)[:400]}: status {process.returncode}")
    return Peak(together * 1024 / 1e6, largest * 1024 / 1e6)


def memory_of(pid: int) -> tuple[int, int]:
    """PSS now and the highest RSS so far, in KiB; nothing for a process that has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    sizes = {
        name: rest.split()[0]
        for name, _, rest in (
            line.partition(":") for line in (rollup + status).splitlines() if line.endswith("kB")
        )
    }
    return int(sizes.get("Pss", 0)), int(sizes.get("VmHWM", 0))


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
