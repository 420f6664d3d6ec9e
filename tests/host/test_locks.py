"""shadow's locks: we hold them while we write, wait for them, and take over stale ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import PROGRAM, missing, needs_root, usernsplan
from usernsplan.errors import LockBusyError, UsernsplanError
from usernsplan.host.locks import left_behind, remove_stale, subid_locks
from usernsplan.layout import Layout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path


def gone() -> int:
    """The pid of an ended process."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
        return process.pid


def test_both_link_locks_hold_our_pid_without_a_newline_and_go_away(root: Path) -> None:
    with subid_locks(Layout(str(root))):
        for name in ("subuid.lock", "subgid.lock"):
            assert (root / "etc" / name).read_bytes().rstrip(b"\0") == str(os.getpid()).encode()
            assert (root / "etc" / name).stat().st_nlink == 1
    assert sorted(path.name for path in (root / "etc").iterdir()) == [".pwd.lock"]


@pytest.mark.parametrize("name", ["subuid.lock", "subgid.lock"])
def test_a_lock_of_a_living_process_is_waited_for_and_named(root: Path, name: str) -> None:
    (root / "etc" / name).write_text(str(os.getppid()))
    with (
        pytest.raises(LockBusyError, match=f"{name} is held by process {os.getppid()}"),
        subid_locks(Layout(str(root)), patience=0.2),
    ):
        pass
    assert (root / "etc" / name).read_text() == str(os.getppid())
    assert sorted(path.name for path in (root / "etc").iterdir()) == [".pwd.lock", name]


@pytest.mark.parametrize("ending", ["", "\0"])
def test_a_lock_whose_process_is_gone_is_taken_over(root: Path, ending: str) -> None:
    (root / "etc/subuid.lock").write_text(f"{gone()}{ending}")
    with subid_locks(Layout(str(root)), patience=1):
        pass
    assert sorted(path.name for path in (root / "etc").iterdir()) == [".pwd.lock"]


@pytest.mark.parametrize("content", ["", "\n", "nobody"])
def test_a_lock_without_a_pid_blocks_shadow_for_ever_so_it_is_named_and_left(
    root: Path, content: str
) -> None:
    (root / "etc/subgid.lock").write_text(content)
    done = usernsplan("allocate", "--strategy", "per-container", "web", "--root", root, status=5)
    assert f"{root}/etc/subgid.lock" in done.stderr
    assert (root / "etc/subgid.lock").read_text() == content
    assert not (root / "etc/subuid").exists()


@pytest.mark.parametrize("what", ["fifo", "symlink"])
def test_a_lock_that_is_no_file_is_named_and_does_not_block_us(root: Path, what: str) -> None:
    lock = root / "etc/subuid.lock"
    os.mkfifo(lock) if what == "fifo" else lock.symlink_to("/etc/hostname")
    with (
        pytest.raises(UsernsplanError, match=r"subuid\.lock"),
        subid_locks(Layout(str(root)), patience=0.2),
    ):
        pass
    assert lock.is_fifo() or lock.is_symlink()


def test_the_password_lock_of_another_process_is_waited_for(root: Path) -> None:
    code = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'w')\nfcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(root / "etc/.pwd.lock")]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(LockBusyError, match=r"pwd\.lock"),
            subid_locks(Layout(str(root)), patience=0.2),
        ):
            pass
        holder.communicate("")
    with subid_locks(Layout(str(root)), patience=0.2):
        pass


@needs_root
def test_usermod_waits_for_our_locks(root: Path) -> None:
    """The other direction, with the real tool: while we hold the locks, usermod changes nothing."""
    (root / "etc/passwd").write_text("alice:x:1000:1000::/:/bin/sh\n")
    (root / "etc/group").write_text("alice:x:1000:\n")
    (root / "etc/subuid").write_text("")
    (root / "etc/subgid").write_text("")
    program = shutil.which("usermod", path="/usr/sbin:/sbin") or missing("usermod")
    words = [program, "--prefix", str(root), "--add-subuids", "100000-165535", "alice"]
    with subid_locks(Layout(str(root))), subprocess.Popen(words, stderr=subprocess.PIPE) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1.5)
        assert (root / "etc/subuid").read_text() == ""
        (root / "etc/subuid").write_text("web:589824:65536\n")
        waiting.kill()
    for name in ("passwd.lock", "group.lock"):
        (root / "etc" / name).unlink(missing_ok=True)
    subprocess.run(words, check=True, capture_output=True)
    assert (root / "etc/subuid").read_text() == "web:589824:65536\nalice:100000:65536\n"


# useradd waits 15 s for a lock.
@pytest.mark.slow
@needs_root
def test_a_busy_lock_of_useradd_is_a_busy_lock(root: Path) -> None:
    (root / "etc/passwd.lock").write_text(str(os.getpid()))
    done = usernsplan("allocate", "--strategy", "per-container", "--root", root, status=5)
    assert "cannot lock" in done.stderr
    assert not (root / "etc/subuid").exists()


def test_a_request_to_stop_waits_until_what_was_begun_is_done(root: Path) -> None:
    """Ctrl-C may come at any write: all or nothing happens, and the user sees a message."""
    if shutil.which("strace") is None:
        missing("strace")
    outcomes = set()
    for number in (1, 3, 5, 8):
        tree = root / str(number)
        inject = f"inject=fsync:signal=INT:when={number}"
        # A parent in the background may have made us ignore SIGINT; Python then ignores it too.
        words = [
            "env",
            "--default-signal=INT",
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fsync",
            "-e",
            inject,
            *PROGRAM,
        ]
        words += ["allocate", "--strategy", "per-container", "web", "--root", str(tree)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 130, done
        assert "interrupted" in done.stderr
        listed = usernsplan("list", "--root", tree)
        assert "interrupted" not in listed.stderr
        outcomes.add("web" in listed.stdout)
        assert ("web" in listed.stdout) == (tree / "etc/subuid").exists()
    assert True in outcomes


def test_twenty_runs_at_once_lose_nothing(root: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "usernsplan",
        "allocate",
        "--strategy",
        "per-container",
        "--root",
        str(root),
    ]
    runs = [subprocess.Popen([*words, f"c{n:02}"], stdout=subprocess.DEVNULL) for n in range(20)]
    assert [run.wait(60) for run in runs] == [0] * 20
    lines = (root / "etc/subuid").read_text().splitlines()
    assert sorted(line.split(":")[0] for line in lines) == [
        f"usernsplan-c{n:02}" for n in range(20)
    ]
    assert sorted(int(line.split(":")[1]) for line in lines) == [
        589824 + 65536 * n for n in range(20)
    ]
    assert (root / "etc/subgid").read_text().splitlines() == lines


def test_what_lies_there_is_told_and_of_another_root_no_process_is_looked_for(root: Path) -> None:
    layout = Layout(str(root))
    assert left_behind(layout) == ()
    (root / "etc/subuid.lock").write_text(f"{gone()}\0")
    (root / "etc/subgid.lock").write_text(f"{os.getpid()}\n")
    (root / "etc/group.lock").symlink_to("nowhere")
    (root / "etc/shadow.lock").mkdir()
    found = {name: (pid, alive) for name, pid, alive in left_behind(layout)}
    assert found.pop("/etc/subuid.lock")[0] is not None
    assert found == dict.fromkeys(
        ("/etc/subgid.lock", "/etc/group.lock", "/etc/shadow.lock"), (None, None)
    )
    assert all(alive is None for _, _, alive in left_behind(layout))
    before = sorted(path.name for path in (root / "etc").iterdir())
    assert remove_stale(layout) == ()
    assert sorted(path.name for path in (root / "etc").iterdir()) == sorted([*before, ".pwd.lock"])


@pytest.mark.parametrize(
    ("content", "pid"),
    [
        (b"0", None),
        (b"4294967296", None),
        (b"99999999999999999999", None),
        (b"-5", -5),
        (b"+7", 7),
        (b" 7", 7),
        (b"7\n", None),
    ],
)
def test_a_lock_is_read_as_shadow_reads_it(tmp_path: Path, content: bytes, pid: int | None) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/subuid.lock").write_bytes(content)
    [(name, found, _)] = left_behind(Layout(str(tmp_path), str(tmp_path)))
    assert (name, found) == ("/etc/subuid.lock", pid)
