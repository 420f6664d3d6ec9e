"""mount-volume beside `mount --bind` and `chown -hR`, over the same files, and what our start-up takes of it.

Needs root and util-linux; works in a private mount namespace and in a temporary folder (TMPDIR says where). All take
turns; each mount is taken away, and the owners are put back, untimed. The median of the rounds counts. That the mount
shows the right owner is looked at after each of our runs, untimed.

Run it with a venv into which usernsplan is installed, not as editable, as tests.bench.volume says:

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install . && /tmp/venv/bin/python -m tests.bench.mount
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.volume import Taken, build, by_turns, median, mounted, run, spread

# What the issue asks for: seconds above the start-up.
BOUND = 0.010
START = 589824


def program() -> list[str]:
    installed = Path(sys.executable).parent / "usernsplan"
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "usernsplan"]


def processors(taken: list[Taken]) -> float:
    return statistics.median(each.user + each.system for each in taken)


def compare(kind: str, host: Path, files: int, rounds: int) -> None:
    """One table for one kind of file system."""
    rooted = ["--root", str(host)]
    with mounted(kind, host, files) as tree:
        build(tree, files)
        at, bound = host / kind, host / f"bound-{kind}"
        bound.mkdir()
        words = ["--container", "web", "--mode", "shift", "--at", f"/{kind}", *rooted]
        commands = {
            "mount-volume": [*program(), "mount-volume", f"/srv/{kind}/volume", *words],
            "its start-up": [*program(), "mount-volume", "--help"],
            "mount --bind": ["mount", "--bind", str(tree), str(bound)],
            "chown -hR": ["chown", "-hR", f"{START}:{START}", str(tree)],
        }

        def fresh() -> None:
            if bound.is_mount():
                run(["umount", str(bound)])
            if at.is_mount():
                run([*program(), "undo", "--last", *rooted])
            # Only chown changes it: the top is the last that it gets to.
            if tree.stat().st_uid:
                run(["chown", "-hR", "0:0", str(tree)])

        def right() -> None:
            if not at.is_mount() or (at / "d0000/d00/file-0000000").stat().st_uid != START:
                sys.exit("the mount shows other owners")

        taken = by_turns(commands, fresh, right, rounds)
        fresh()

    ours = median(taken["mount-volume"])
    print(f"\n{files} files on {kind}")
    for what, found in taken.items():
        ratio = f"   ratio {ours / median(found):8.3f}" if what != "mount-volume" else " " * 18
        print(f"  {what:<16} {median(found):8.3f} s{ratio}   {spread(found)}")
    above = ours - median(taken["its start-up"])
    asked = "met" if above <= BOUND else "MISSED"
    busy = processors(taken["mount-volume"]) - processors(taken["its start-up"])
    print(
        f"  above start-up   {above:8.3f} s   asked: {BOUND:.3f} {asked}   processors {busy:.3f} s"
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--unshared", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if os.geteuid():
        sys.exit("only root can mount and chown")
    if not words.unshared:
        again = [sys.executable, "-m", "tests.bench.mount", *sys.argv[1:], "--unshared"]
        private = ["unshare", "--mount", "--propagation", "private"]
        sys.exit(subprocess.run([*private, *again], check=False).returncode)
    with tempfile.TemporaryDirectory() as folder:
        host = Path(folder)
        allocate = ["allocate", "--strategy", "per-container", "web", "--start", str(START)]
        run([*program(), *allocate, "--root", folder])
        (host / "srv").mkdir(mode=0o700)
        on = f"Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} cores"
        print(f"{' '.join(program())}; {on}, load average {os.getloadavg()[0]:.2f}", flush=True)
        for kind in ("tmpfs", "ext4"):
            compare(kind, host, words.files, words.rounds)


if __name__ == "__main__":
    main()
