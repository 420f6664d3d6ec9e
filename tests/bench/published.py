"""newuidmap beside 10,000 published ranges, and beside 10,000 accounts with lines of their own.

It runs in a mount namespace of its own, over whose /etc nothing of the machine is written.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.timing import median, row
from usernsplan.formats import userdb
from usernsplan.model import Record

RANGES = 10_000
INSIDE = "inside"
MAP = "unshare --user sleep 9 & pid=$!; sleep 0.05; newuidmap $pid 0 589824 65536; kill $pid"


def main() -> None:
    """Print the figures."""
    if sys.argv[1:] != [INSIDE]:
        words = ("unshare", "--mount", sys.executable, "-m", "tests.bench.published", INSIDE)
        raise SystemExit(subprocess.run(words, check=False).returncode)
    with tempfile.TemporaryDirectory() as folder:
        # The upper folders of the overlays; with the namespace, all of it disappears.
        mount("tmpfs", folder)
        records = [Record(f"c{n:05}", 589824 + 65536 * n) for n in range(RANGES)]
        passwd, seconds = Path("/etc/passwd").read_text(), []
        for published in (True, False):
            upper, work = (Path(folder) / f"{name}{published}" for name in ("upper", "work"))
            upper.mkdir()
            work.mkdir()
            mount("overlay", "/etc", f"lowerdir=/etc,upperdir={upper},workdir={work}")
            lines = "root:589824:65536\n" + "".join(f"{r.name}:{r.number}:65536\n" for r in records)
            for name in ("subuid", "subgid"):
                Path(f"/etc/{name}").write_text(lines)
            if published:
                publish(records)
            else:
                accounts = (f"{r.name}:x:{r.number}:{r.number}::/:/bin/false\n" for r in records)
                Path("/etc/passwd").write_text(passwd + "".join(accounts))
            seconds.append(median(["sh", "-c", MAP]))
            subprocess.run(["umount", "-l", "/etc"], check=True)
        subprocess.run(["umount", "-l", folder], check=True)
    print(row(f"newuidmap beside {RANGES} published", seconds[0], f"{RANGES} accounts", seconds[1]))


def mount(kind: str, where: str, options: str = "mode=755") -> None:
    """Mount a file system in this namespace."""
    subprocess.run(["mount", "-t", kind, "-o", options, kind, where], check=True)


def publish(records: list[Record]) -> None:
    """Write the records as usernsplan does, without waiting for the disk."""
    folder = Path("/etc/userdb")
    folder.mkdir()
    for record in records:
        for name, content in userdb.entries(record).items():
            if isinstance(content, str):
                os.symlink(content, folder / name)
            else:
                (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
