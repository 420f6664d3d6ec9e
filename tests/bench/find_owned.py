"""find-owned beside `find -uid -gid`, which sees neither ACLs nor capabilities: a tree of 100,000 files, on TMPDIR.

Needs root, to give files away.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.bench.timing import median, row

FILES, FOLDER = 100_000, 100
FIRST, LAST = 3_000_000, 3_065_535


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, FILES, FOLDER):
            here = Path(folder) / f"{first // FOLDER // FOLDER}" / f"{first // FOLDER}"
            here.mkdir(parents=True)
            for number in range(FOLDER):
                (here / f"{number}").touch()
            if first % 10_000 == 0:
                os.chown(here / "7", FIRST + 33, FIRST + 33)
        between = ["(", "-uid", f"+{FIRST - 1}", "-uid", f"-{LAST + 1}", "-o"]
        between += ["-gid", f"+{FIRST - 1}", "-gid", f"-{LAST + 1}", ")"]
        find = median(["find", folder, "-xdev", *between])
        acls = median(
            [
                "sh",
                "-c",
                f"find {folder} -xdev {' '.join(map(repr, between))}; getfacl -RPns {folder}",
            ]
        )
        ours = [
            sys.executable,
            "-m",
            "usernsplan",
            "find-owned",
            f"{FIRST}-{LAST}",
            folder,
            "--root",
            "/",
        ]
        listed, counted = median(ours), median([*ours, "--count"])
    print(row(f"find-owned, {FILES} files", listed, "find -uid -gid", find))
    print(row(f"find-owned --count, {FILES} files", counted, "find -uid -gid", find))
    print(row(f"find-owned, {FILES} files", listed, "find, and getfacl -R for ACLs", acls))


if __name__ == "__main__":
    main()
