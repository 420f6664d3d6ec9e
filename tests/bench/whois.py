"""whois on a host of 10,000 allocations, beside what people use: grep and awk over subuid; and a bare interpreter.

awk answers only which line holds an id; grep cannot compare numbers at all, and is here for the time of reading.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.timing import median, row

NAMES, MANY = 10_000, 1_000_000
# The default pool ends at 600100000 and holds 9147 ranges of 65536.
POOL = "589824-1879048191"
ID = 589824 + 65536 * 7777 + 33
BOUND = 0.3


def main() -> None:
    """Print the figures."""
    program = [sys.executable, "-m", "usernsplan"]
    names = [f"c{number:05}" for number in range(NAMES)]
    with tempfile.TemporaryDirectory() as folder:
        root, many = Path(folder) / "host", Path(folder) / "many"
        allocate = [
            *program,
            "allocate",
            "--strategy",
            "per-container",
            "--pool",
            POOL,
            "--root",
            str(root),
            *names,
        ]
        subprocess.run(allocate, check=True, stdout=subprocess.DEVNULL)
        # Of ten thousand owners, a hundred times each.
        many.write_text(
            "".join(f"{589824 + 65536 * (number % NAMES) + number % 5}\n" for number in range(MANY))
        )
        subuid = str(root / "etc/subuid")
        whois = [*program, "whois", "--root", str(root)]
        script = f"$2 <= {ID} && {ID} < $2 + $3"
        bare = median([sys.executable, "-c", "pass"], runs=15)
        one = median([*whois, str(ID)], runs=15)
        print(
            row("whois, one id", one, "python -c pass", bare),
            f"  asked: {BOUND} s {'met' if one < BOUND else 'MISSED'}",
        )
        print(
            row(
                "whois, one id",
                one,
                "awk over subuid",
                median(["awk", "-F:", script, subuid], runs=15),
            )
        )
        print(
            row(
                "whois, one id",
                one,
                "grep over subuid",
                median(["grep", "-c", f":{ID - 33}:", subuid], runs=15),
            )
        )
        print(
            row(
                "whois --json, one id",
                median([*whois, str(ID), "--json"], runs=15),
                "python -c pass",
                bare,
            )
        )
        print(
            row(
                "inspect --all",
                median([*program, "inspect", "--all"], runs=15),
                "python -c pass",
                bare,
            )
        )
        shell = f"{' '.join(whois)} < {many}"
        taken = median(["sh", "-c", shell], runs=3)
        print(
            row(
                f"whois, {MANY} lines, 50,000 ids",
                taken,
                "sort -u of them",
                median(["sort", "-u", str(many)], runs=3),
            )
        )


if __name__ == "__main__":
    main()
