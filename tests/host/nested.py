"""A user namespace in another one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A process in a namespace of its own that waits for its maps to be written from outside, and a child in a nested one.
NESTING = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x10000000) == 0, ctypes.get_errno()
print("made", flush=True)
sys.stdin.readline()
os.setgid(0)
os.setuid(0)
child = os.fork()
if child == 0:
    assert libc.unshare(0x10000000) == 0, ctypes.get_errno()
    # Whoever has changed its uid may not write to its own /proc entry before it is dumpable again.
    libc.prctl(4, 1, 0, 0, 0)
    for name, text in (("setgroups", "deny"), ("uid_map", "5 0 1"), ("gid_map", "5 0 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    print(os.getpid(), flush=True)
    if sys.argv[1] == "orphan":
        os.kill(os.getppid(), 9)
    sys.stdin.readline()
    os._exit(0)
os.waitpid(child, 0)
"""


@contextmanager
def nested(kind: str = "") -> Iterator[tuple[int, int]]:
    """The pids of a process whose namespace has 0-999 of 3000000 on, and of one nested in it, 5 of which is its 0."""
    process = subprocess.Popen(
        [sys.executable, "-c", NESTING, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == "made\n"
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text("0 3000000 1000\n")
        print(file=process.stdin, flush=True)
        yield process.pid, int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()
