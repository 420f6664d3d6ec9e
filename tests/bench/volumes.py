"""The command volumes over 1,000 idmapped mounts, beside the same command where nothing is mounted.

Needs root, and a file system on TMPDIR that can have idmapped mounts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.timing import median, row
from tests.volume.mounted import mount_many
from tests.volume.tree import unshare_mounts
from usernsplan.planner.mounts import VOLUMES

MANY = 1000
# Seconds above the start.
BOUND = 0.3


def main() -> None:
    """Print the figures."""
    unshare_mounts()
    program = [sys.executable, "-m", "usernsplan"]
    with tempfile.TemporaryDirectory() as folder:
        none, many = Path(folder) / "none", Path(folder) / "many"
        for root in (none, many):
            (root / "etc").mkdir(parents=True)
            words = ["allocate", "--strategy", "per-container", "web", "--root", str(root)]
            subprocess.run([*program, *words], check=True, stdout=subprocess.DEVNULL)
        mount_many(many, "web", MANY)
        start = median([*program, "volumes", "--root", str(none)], runs=9)
        for option in ([], ["--json"]):
            taken = median([*program, "volumes", *option, "--root", str(many)], runs=9)
            print(
                row(f"{' '.join(['volumes', *option])}, {MANY} mounts", taken, "no mounts", start),
                f"  asked: {BOUND} s above it {'met' if taken - start < BOUND else 'MISSED'}",
            )
        for point in (many / VOLUMES[1:] / "web").iterdir():
            subprocess.run(["umount", point], check=True)


if __name__ == "__main__":
    main()
