"""How long a command takes to start, beside a bare interpreter; and what the libraries that we could import take.

Run it in a venv into which usernsplan is installed, with its bytecode compiled: that is what users start.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.bench.timing import median, row

RUNS = 25


def main() -> None:
    """Print the figures."""
    program = str(Path(sys.executable).parent / "usernsplan")
    bare = median([sys.executable, "-c", "pass"], runs=RUNS)
    with tempfile.TemporaryDirectory() as root:
        median(
            [program, "allocate", "--strategy", "per-container", "web", "db", "--root", root],
            runs=1,
        )
        commands = (
            "list",
            "list --json",
            "show web",
            "render podman web",
            "whois 589857",
            "check",
            "map",
            "plan --schema",
        )
        for words in (*map(str.split, commands), ["inspect", str(os.getpid())], ["--help"]):
            rooted = [] if words[0] in {"--help", "inspect"} else ["--root", root]
            taken = median([program, *words, *rooted], runs=RUNS)
            print(row(f"usernsplan {' '.join(words)}", taken, "python -c pass", bare))
    for library in ("typer", "tabulate", "sqlite3", "json", "yaml", "rich.progress"):
        taken = median([sys.executable, "-c", f"import {library}"], runs=RUNS)
        print(row(f"import {library}", taken, "python -c pass", bare))


if __name__ == "__main__":
    main()
