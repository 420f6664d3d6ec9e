"""One more name beside 10,000 allocations, beside an earlier version of the package: CPU seconds, in turns.

git archive a5f4a7e | tar -x -C /tmp/before && python -m tests.bench.before /tmp/before
"""

from __future__ import annotations

import compileall
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.table import POOL
from tests.bench.timing import row

NAMES, RUNS = 10_000, 9


def main() -> None:
    """Print the least CPU seconds of each version, and the ratio."""
    if len(sys.argv) != 2:
        sys.exit("say the folder with the other version")
    versions = (Path(__file__).resolve().parents[2], Path(sys.argv[1]).resolve())
    for version in versions:
        compileall.compile_dir(version / "usernsplan", quiet=1)

    with tempfile.TemporaryDirectory() as folder:
        names = [f"c{number:05}" for number in range(NAMES)]
        for number, version in enumerate(versions):
            allocate(version, Path(folder, f"{number}"), *names)
        more: tuple[list[float], list[float]] = ([], [])
        again: tuple[list[float], list[float]] = ([], [])
        for _ in range(RUNS):
            for number, version in enumerate(versions):
                fresh = Path(folder, "fresh")
                shutil.copytree(Path(folder, f"{number}"), fresh, symlinks=True)
                more[number].append(allocate(version, fresh, "more"))
                again[number].append(allocate(version, fresh, "more"))
                shutil.rmtree(fresh)
    other = f"the version in {versions[1]}"
    print(row(f"one more beside {NAMES}, CPU", min(more[0]), other, min(more[1])))
    print(row("the same words again, CPU", min(again[0]), other, min(again[1])))


def allocate(version: Path, root: Path, *names: str) -> float:
    """Allocate with one version, and return the CPU seconds that it took."""
    words = ["allocate", "--strategy", "per-container", "--pool", POOL, "--root", str(root), *names]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "usernsplan", *words],
        cwd="/",  # or the version in the current folder would run
        env={**os.environ, "PYTHONPATH": str(version)},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
