"""A system error at any call by which a command reads or locks: the error has place and remedy.

strace strikes a command at its n-th call of each kind: by default at one of each kind, in slow tests
at some of each. USERNSPLAN_STRIKES=1000 visits every place, which takes hours.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from tests.command import here, missing, needs_root, slow
from tests.prefork import prefork
from tests.volume.struck import Place, share_out, strike, trace
from usernsplan.errors import of_system

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.prefork import Ended, Prefork

pytestmark = [needs_root, pytest.mark.usefixtures("volume_step")]

# The calls that look up, open and lock. After a question mark, strace accepts unknown names.
CALLS = (
    "readlink",
    "openat",
    "fstat",
    "newfstatat",
    "lstat",
    "stat",
    "getdents64",
    "flock",
    "fcntl",
    "read",
    "access",
)
COMMANDS = {
    "list": ("list",),
    "check": ("check",),
    "allocate": ("allocate", "more", "--strategy", "per-container"),
    "fix-volume": ("fix-volume", "/srv/other", "--container", "web", "--jobs", "1"),
    "undo": ("undo", "RUN", "--jobs", "1"),
    "plan": ("plan",),
    "whois": ("whois", "589824"),
    "ledger": ("ledger", "rebuild", "--yes"),
}
STATUSES = {*range(10)}


def host(root: Path, command: str, server: Prefork | None = None) -> tuple[str, ...]:
    """A host with some of everything, and the command. ``server`` makes the host in a thread."""

    def run(*words: str) -> None:
        if server is None:
            here(*words, "--root", root)
        else:
            assert server.start(*words, "--root", root).wait().status == 0

    for name in ("etc", "srv/web/sub", "srv/other/sub", "usr/bin"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "etc/usernsplan.yaml").write_text(
        "strategy: per-container\ncontainers: [{name: web, volumes: [/srv/web]}]\n"
    )
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    run("allocate", "--strategy", "per-container", "web")
    run("fix-volume", "/srv/web", "--container", "web", "--jobs", "1")
    if command == "ledger":
        os.truncate(root / "var/lib/usernsplan/ledger.sqlite3", 0)
    [name] = [
        path.name for path in (root / "var/lib/usernsplan/runs").iterdir() if path.name != "lock"
    ]
    return (*(word.replace("RUN", name) for word in COMMANDS[command]), "--root", str(root))


def places(server: Prefork, words: tuple[str, ...]) -> list[Place]:
    whole = trace(server, words, ",".join(f"?{call}" for call in CALLS))
    assert whole.ended.status in {0, 1}, whole
    counts: Counter[tuple[int, str]] = Counter()
    for line in whole.trace:
        pid, _, rest = line.partition(" ")
        counts[int(pid), rest.strip().partition("(")[0]] += 1
    most: Counter[str] = Counter()
    for (_, call), number in counts.items():
        if call in CALLS:
            most[call] = max(most[call], number)
    # Before these calls, the process opens its output and waits for the start signal.
    first = {"read": 2, "openat": 4}
    return [
        Place(call, n) for call, found in most.items() for n in range(first.get(call, 1), found + 1)
    ]


def is_told(ended: Ended) -> bool:
    """Whether the failure is reported with a remedy."""
    if "cannot load a part of usernsplan" in ended.err:
        return "dmesg" in ended.err
    if ended.status in {0, 3} or (ended.status == 1 and not ended.err):
        return True
    lines = [
        line for line in ended.err.splitlines() if not line.startswith(("warning: ", "note: "))
    ]
    first = next((line for line in lines if line.startswith("usernsplan: ")), "")
    return (
        "[Errno" not in ended.err
        and ("/" in first or "PATH" in first)
        and "a system call" not in first
    )


@pytest.mark.parametrize(
    ("command", "blow"),
    [
        ("fix-volume", "error=EIO"),
        *slow(*((name, "error=EIO") for name in COMMANDS if name != "fix-volume")),
        *slow(
            *zip(
                COMMANDS,
                ("error=EACCES", "error=EDQUOT", "error=ENOENT", "error=EMFILE") * 2,
                strict=True,
            )
        ),
    ],
)
def test_an_error_of_the_system_anywhere_is_told(tmp_path: Path, command: str, blow: str) -> None:
    if shutil.which("strace") is None:
        missing("strace")
    most = int(os.environ.get("USERNSPLAN_STRIKES", "3" if os.environ.get("CI") == "true" else "1"))
    with prefork() as server:
        every = places(server, host(tmp_path / "whole", command))
    kinds: dict[str, list[Place]] = {}
    for place in every:
        kinds.setdefault(place.call, []).append(place)
    # Every command makes the first calls.
    steps = {call: max(1, len(found) // most) for call, found in kinds.items()}
    chosen = [p for call, found in kinds.items() for p in found[::-1][:: steps[call]][:most]]

    def check(server: Prefork, number: int, place: Place) -> None:
        root = tmp_path / str(number)
        words = host(root, command, server)
        ended = strike(server, words, place, blow).ended
        assert "Traceback" not in ended.err, ended.err
        assert ended.status in STATUSES, ended
        assert is_told(ended), ended
        shutil.rmtree(root)

    share_out(chosen, check)


@pytest.mark.parametrize("command", ["allocate", "check"])
def test_what_is_no_file_in_place_of_the_lock_is_told(tmp_path: Path, command: str) -> None:
    words = host(tmp_path, command)
    lock = tmp_path / "etc/.pwd.lock"
    lock.unlink()
    os.mkfifo(lock)
    if command == "check":
        here(*words, status=None)
        return
    before = (tmp_path / "etc/subuid").read_bytes()
    _, said = here(*words, status=9)
    assert f"{lock} is not a regular file" in said
    assert "put a regular file in its place" in said
    lock.unlink()
    lock.mkdir()
    _, said = here(*words, status=9)
    assert f"{lock} is not a regular file" in said
    assert (tmp_path / "etc/subuid").read_bytes() == before


def test_without_a_proc_a_volume_is_not_touched_and_its_place_is_told(tmp_path: Path) -> None:
    words = host(tmp_path, "fix-volume")
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/self/mountinfo")
    with mock.patch("usernsplan.host.mounts._mounts_of", side_effect=gone):
        _, said = here(*words, status=1)
        assert "/proc/self/mountinfo: no such file" in said
        assert "mount -t proc proc /proc" in said
        # A command that only reads shows what it can.
        assert "/srv/web" in here("list", "--root", tmp_path)[0]
    assert os.lstat(tmp_path / "srv/other/sub").st_uid == 0


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.EDQUOT, errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.ESTALE]
)
def test_every_error_of_the_system_has_a_remedy(number: int) -> None:
    error = of_system(OSError(number, os.strerror(number), "/srv/a\nb"))
    assert str(error).startswith("/srv/a\\nb: ")
    assert error.hint
    assert of_system(OSError(errno.EACCES, "Permission denied", "/x")).exit_status == 8


def test_what_nobody_foresaw_is_told_in_words(tmp_path: Path) -> None:
    for error, words in (
        (OSError(errno.EIO, "Input/output error", "/srv/x"), "/srv/x: input/output error"),
        (ImportError("No module named 'x'"), "cannot load a part of usernsplan"),
        (MemoryError(), "out of memory"),
        (RecursionError(), "nested too deeply"),
        (KeyError("x"), "internal error at mock.py:"),
    ):
        with mock.patch("usernsplan.ledger.sqlite.SqliteLedger.state", side_effect=error):
            out, said = here("list", "--root", tmp_path, status=1)
        assert out == ""
        assert words in said
        assert len(said.splitlines()) == 2


def _failing_at(
    place: Path, really: Callable[..., object], path: str, *more: int, dir_fd: int | None = None
) -> object:
    above = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else ""
    if os.path.join(above, path) == str(place):
        raise OSError(errno.EIO, "Input/output error", path)
    return really(path, *more, dir_fd=dir_fd)


def test_a_disk_that_fails_is_not_taken_for_a_name_that_is_not_there(tmp_path: Path) -> None:
    """An unreadable link must not lead out of the root or hide an engine."""
    words = host(tmp_path, "allocate")
    before = (tmp_path / "etc/subuid").read_bytes()
    for call, name in (("open", "bin"), ("open", "etc"), ("lstat", "usr/bin/podman")):
        place = tmp_path / name
        with mock.patch(f"os.{call}", partial(_failing_at, place, getattr(os, call))):
            _, said = here(*words, status=1)
        assert f"{place}" in said
        assert "input/output error" in said
        assert "dmesg" in said
        assert (tmp_path / "etc/subuid").read_bytes() == before
