"""Make a ledger with the code of an older version: see README.md in this folder.

Run with that version's package in PYTHONPATH: python make.py VERSION ROOT > vVERSION.sql
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from pathlib import Path

PLAN = """\
strategy: per-container
engines: [podman]
containers: [web, {name: db, size: 1000}, {name: box, engines: [lxc]}]
reservations: [{ids: 2000000-2000009, for: the NAS}]
"""
# The first version with the command, the second of 1 January 2026 in which it runs, the command.
STEPS = (
    (1, 1, "allocate --strategy per-container web db old"),
    (1, 2, "release old"),
    (2, 3, "fix-volume /srv/web --container web --mode shift"),
    (2, 3, "fix-volume /srv/db --container db --mode own"),
    # In one second: a release, a new range for the same name, and a volume with its ids.
    (1, 4, "release db"),
    (1, 4, "allocate --strategy per-container db --size 1000"),
    (2, 4, "fix-volume /srv/new --container db --mode own"),
    (3, 5, "allocate --strategy per-container box --engine lxc"),
    (4, 6, "apply --yes /plan.yaml"),
    (5, 7, "allocate --strategy per-container alice --owner alice --start 100000"),
    (7, 8, "allocate --strategy per-container quiet --no-lines --publish none"),
    (8, 9, "allocate shown --pass u:1000"),
    (10, 9, "harden web --profile seed"),
)
# It is killed after it writes the files and before the ledger has it.
KILLED = (9, "allocate --strategy per-container late")


def run(root: Path, second: int, words: str, *, kill: bool = False) -> None:
    """Run a command below ``root`` in a child whose clock shows this second."""
    if child := os.fork():
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(words)
        return
    from usernsplan.cli import main  # noqa: PLC0415
    from usernsplan.ledger.sqlite import SqliteLedger  # noqa: PLC0415

    moment = time.gmtime(1767225600 + second)
    time.gmtime = lambda *_: moment
    if kill:
        SqliteLedger.complete = lambda *_: os._exit(0)  # type: ignore[method-assign]
    sys.argv = ["usernsplan", *words.replace("/plan", f"{root}/plan").split(), "--root", str(root)]
    os.dup2(2, 1)
    try:
        main()
    except SystemExit as done:
        os._exit(int(done.code or 0))


def main() -> None:
    """Print the ledger as SQL."""
    version, root = int(sys.argv[1]), Path(sys.argv[2])
    for folder in ("etc", "srv/web", "srv/db", "srv/new"):
        (root / folder).mkdir(parents=True)
    lines = "alice:100000:65536\n" if version > 4 else ""  # version 5 began to note them
    (root / "etc/subuid").write_text(lines)
    (root / "etc/subgid").write_text(lines)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nalice:x:1000:\n")
    (root / "plan.yaml").write_text(PLAN)
    for since, second, words in STEPS:
        if since <= version:
            run(root, second, words)
    run(root, *KILLED, kill=True)
    db = sqlite3.connect(root / "var/lib/usernsplan/ledger.sqlite3")
    print("\n".join(db.iterdump()))
    print(f"PRAGMA user_version = {db.execute('PRAGMA user_version').fetchone()[0]};")


if __name__ == "__main__":
    main()
