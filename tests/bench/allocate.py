"""10,000 allocations in one command, one more on that host, and the same through usermod.

usermod --prefix takes and gives the same locks and rewrites the same file, once for each range; 200 are run and scaled.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.timing import median, row

NAMES, SAMPLE = 10_000, 200
# The default pool ends at 600100000 and holds 9147 ranges of 65536.
POOL = "589824-1879048191"


def main() -> None:
    """Print the figures."""
    usermod = shutil.which("usermod", path="/usr/sbin:/sbin") or sys.exit(
        "usermod is not installed"
    )
    names = [f"c{number:05}" for number in range(NAMES)]
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs, many = (Path(folder) / name for name in ("ours", "theirs", "many"))
        allocate = [
            sys.executable,
            "-m",
            "usernsplan",
            "allocate",
            "--strategy",
            "per-container",
            "--pool",
            POOL,
        ]
        bulk = [*allocate, "--root", str(ours), *names]
        all_names = median(bulk, before=lambda: shutil.rmtree(ours, ignore_errors=True))

        def fresh() -> None:
            shutil.rmtree(many, ignore_errors=True)
            shutil.copytree(ours, many)

        one_more = median([*allocate, "--root", str(many), "more"], before=fresh)
        again = median([*allocate, "--root", str(many), "more"])

        (theirs / "etc").mkdir(parents=True)
        for name in ("subuid", "subgid"):
            (theirs / "etc" / name).touch()
        useradd = shutil.which("useradd", path="/usr/sbin:/sbin") or sys.exit(
            "useradd is not installed"
        )
        subprocess.run([useradd, "--prefix", theirs, "peer"], check=True)
        ranges = (
            f"{base}-{base + 65535}" for base in range(589824, 589824 + 65536 * SAMPLE, 65536)
        )
        script = "".join(
            f"{usermod} --prefix {theirs} --add-subuids {r} --add-subgids {r} peer\n"
            for r in ranges
        )
        scaled = median(["sh", "-c", script], runs=1) * NAMES / SAMPLE
    print(
        row(
            f"{NAMES} names in one command",
            all_names,
            f"usermod, {SAMPLE} runs x {NAMES // SAMPLE}",
            scaled,
        )
    )
    print(row(f"one more beside {NAMES}", one_more, "usermod, one run", scaled / NAMES))
    print(row("the same words again", again, "usermod, one run", scaled / NAMES))


if __name__ == "__main__":
    main()
