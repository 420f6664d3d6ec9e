"""A throw-away host: a copy of this machine in its own namespaces, on which a test may do as it likes.

Everything written goes to a tmpfs that disappears with the host; the machine's own /etc is never touched. A command
that is run in it is a direct child of the test process, so the Popen object that comes back is the real thing.

How it is built: a supervising shell makes a control group, and in it a chain of ``unshare`` ends in process 1 of the
new host, which is ``cat`` reading a pipe. When the pipe is closed (by the context manager, or because the test process
died) process 1 ends, the kernel kills whatever else lives in its pid namespace, and the supervisor removes the group.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias, TypeVar

import pytest

from tests.prefork import prefork
from usernsplan.volume.compiled import PURE

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]

# The distribution's folders first: a docker client of another release in /usr/local may refuse the daemon of this one.
SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"

PROGRAM = (sys.executable, "-m", "usernsplan")

# A fixed environment, so that a test does not depend on the shell it was started from.
ENVIRONMENT = {
    "PATH": SEARCH_PATH,
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PYTHONPATH": str(REPOSITORY),
}


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a command, with the step that this test is about."""
    chosen = {name: os.environ[name] for name in (PURE,) if name in os.environ}
    return ENVIRONMENT | chosen | (more or {})


# What a host gets afresh; a checkout or an interpreter that lives below one of these is bound in again.
FRESH = ("dev", "proc", "run", "sys", "tmp")

# From sched.h: Python has os.setns and os.unshare only since 3.12.
CLONE_FS = 0x200
CLONE_NEWNS = 0x20000
CLONE_NEWPID = 0x20000000

# Arguments: the control group's name, BUILD, the paths to bind.
# /sys/fs/cgroup is used because every kernel has it and nobody keeps a checkout there; the mounts on it are private.
# The new cgroup namespace begins at the new group, and every process moves one down from it: cgroup2 allows no
# processes in a group whose controllers are handed on, as engines do.
SUPERVISE = r"""
set -eu
umask 022
mount -t cgroup2 cgroup2 /sys/fs/cgroup
export group="/sys/fs/cgroup/$1" build="$2"
shift 2
mkdir "$group" "$group/init"
trap 'find "$group" -depth -type d -exec rmdir {} \;' EXIT
(
    echo 0 >"$group/cgroup.procs"
    exec unshare --cgroup sh -euc '
        echo 0 >"$group/init/cgroup.procs"
        exec unshare --mount --net --ipc --uts --pid --fork --kill-child --propagation private sh -euc "$build" sh "$@"
    ' sh "$@"
)
"""

# The machine's /proc is still there at first, so the first line reads the pid that the machine knows this shell by.
# pivot_root and not chroot: a process in a chroot may not make a user namespace. Rshared, as on a booted machine.
# With SIGCHLD ignored the kernel reaps orphans itself: a dead containerd-shim must not look alive to its daemon.
BUILD = """
read -r pid rest </proc/self/stat
stage=/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs "$stage"
mkdir "$stage/upper" "$stage/work" "$stage/root"
mount -t overlay -o "lowerdir=/,upperdir=$stage/upper,workdir=$stage/work" overlay "$stage/root"
cd "$stage/root"
mkdir -p dev proc run sys tmp var/lib/docker var/lib/containerd var/lib/containers
mount -t tmpfs -o mode=1777 tmpfs tmp
for folder in dev run var/lib/docker var/lib/containerd var/lib/containers; do
    mount -t tmpfs -o mode=755 tmpfs "$folder"
done
mkdir run/lock dev/pts dev/shm dev/net
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/fd /dev/stdin /dev/stdout /dev/stderr dev
cp -a /dev/fuse dev 2>/dev/null || :
cp -a /dev/net/tun dev/net 2>/dev/null || :
ln -s pts/ptmx dev/ptmx
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
rm -f etc/subuid etc/subgid etc/subuid- etc/subgid- etc/subuid.lock etc/subgid.lock etc/docker/daemon.json
touch etc/subuid etc/subgid
for path in "$@"; do
    mkdir -p ".$path"
    mount -o bind,ro "$path" ".$path"
done
mkdir .machine
pivot_root . .machine
cd /
umount -l /.machine
rmdir /.machine
mount --make-rshared /
ip link set lo up
echo "$pid"
exec env --ignore-signal=CHLD cat >/dev/null 2>&1
"""

# Run outside, but with the new pid namespace set for it by the caller. The group is joined before its namespace is
# entered: from within, a process of the outside could not be moved. Each step is an exec: the pid stays Popen.pid.
ENTER = r"""
umask 022
pid=$1 null=$2; shift 2
echo 0 >"/proc/$pid/root/sys/fs/cgroup/init/cgroup.procs" || exit 125
exec nsenter --target "$pid" --mount --net --ipc --uts --cgroup -- sh -c "exec \"\$@\" $null" sh "$@"
"""

Stream: TypeAlias = "int | IO[bytes] | IO[str]"

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)


class HostUnavailable(RuntimeError):  # noqa: N818 - it says what is the case, as the package's own exceptions do
    """No throw-away host can be had on this machine: no privileges, no namespaces, or no overlay."""


class CommandFailed(AssertionError):  # noqa: N818
    """A command in the host ended with a status other than 0, or did not end in time."""

    def __init__(self, what: str, result: subprocess.CompletedProcess[str]) -> None:
        """Show the whole command and all that it said."""
        super().__init__(
            f"{shlex.join(result.args)}: {what}\n-- stdout:\n{result.stdout}\n-- stderr:\n{result.stderr}"
        )
        self.result = result


class ThrowawayHost:
    """A context manager: fresh on entry, nothing left on exit. For idmapped mounts use /tmp: an overlay has none."""

    def __init__(self) -> None:
        """Nothing happens before the host is entered."""
        self.group = f"throwaway-{os.getpid()}-{next(_numbers)}"
        self.pid = 0
        self._supervisor: subprocess.Popen[str] | None = None
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        """Build the host, and return when it can be used."""
        argv = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            SUPERVISE,
            "sh",
            self.group,
            BUILD,
        ]
        # A file and not a pipe: what process 1 inherits must never fill up.
        with tempfile.TemporaryFile("w+") as errors:
            self._supervisor = subprocess.Popen(
                [*argv, *_paths_to_bind()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=ENVIRONMENT,
                start_new_session=True,  # Ctrl-C is for the test process, which then takes the host down in order
            )
            line = self._supervisor.stdout.readline() if self._supervisor.stdout else ""
            if not line:
                self._stop_supervisor()
                errors.seek(0)
                raise HostUnavailable(errors.read().strip() or "unshare failed without a word")
        self.pid = int(line)
        return self

    def __exit__(self, *exception: object) -> None:
        """End every process, and with the last one the mounts and the control group."""
        for process in self._processes:
            _end(process)
        self._stop_supervisor()

    def _stop_supervisor(self) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            _close_pipes(supervisor)
            supervisor.wait(timeout=30)

    def popen(
        self,
        *argv: str,
        env: dict[str, str] | None = None,
        stdin: Stream | None = None,
        stdout: Stream | None = None,
        stderr: Stream | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command inside, as root, in /; it ends with the host at the latest. ``env`` adds to ENVIRONMENT.

        A stream that nobody names is the host's own /dev/null: crun gives its standard input to the container's root,
        and the machine's /dev/null is not to be given away.
        """
        streams = {"<": stdin, ">": stdout, "2>": stderr}
        null = " ".join(f"{sign}/dev/null" for sign, stream in streams.items() if stream is None)

        def start() -> subprocess.Popen[str]:
            _enter(self.pid, "pid", CLONE_NEWPID)
            return subprocess.Popen(
                ["sh", "-c", ENTER, "sh", str(self.pid), null, *argv],
                env=environment(env),
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.DEVNULL if stdout is None else stdout,
                stderr=subprocess.DEVNULL if stderr is None else stderr,
                encoding="utf-8",
                errors="surrogateescape",
                start_new_session=True,
            )

        process = _in_own_thread(start)
        self._processes.append(process)
        return process

    def run(
        self,
        *argv: str,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        timeout: float = 60,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end, as root, in /; with ``check`` any status but 0 raises CommandFailed.

        usernsplan is forked from an interpreter that has read its modules, which takes a fifth of a start.
        """
        begins_as_usual = not any(name.startswith("PYTHON") for name in env or ())
        if argv[: len(PROGRAM)] == PROGRAM and input is None and begins_as_usual:
            return self._forked(argv, env or {}, check=check)
        stdin = None if input is None else subprocess.PIPE
        process = self.popen(
            *argv, env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        failure = ""
        try:
            stdout, stderr = process.communicate(input, timeout)
        except subprocess.TimeoutExpired as expired:
            stdout, stderr = (
                (said or b"").decode(errors="replace") for said in (expired.stdout, expired.stderr)
            )
            failure = f"still running, or its output still held open, after {timeout} s"
            _end(process)
        if check and process.returncode != 0:
            failure = failure or f"exit status {process.returncode}"
        result = subprocess.CompletedProcess(list(argv), process.returncode, stdout, stderr)
        if failure:
            raise CommandFailed(failure, result)
        return result

    def _forked(
        self, argv: tuple[str, ...], env: dict[str, str], *, check: bool
    ) -> subprocess.CompletedProcess[str]:
        with prefork() as forks:
            ended = forks.start(*argv[len(PROGRAM) :], env=environment(env), host=self.pid).wait()
        result = subprocess.CompletedProcess(list(argv), ended.status, ended.out, ended.err)
        if check and ended.status != 0:
            raise CommandFailed(f"exit status {ended.status}", result)
        return result

    def inside(self, function: Callable[[], T]) -> T:
        """Call a function of this process with the host's files in place of the machine's.

        Only the files: the process keeps its own pid and network, and so finds no /proc/self.
        """

        def call() -> T:
            # Threads share root and working directory until told otherwise, and setns refuses to change shared ones.
            if _libc.unshare(CLONE_FS) != 0:
                raise OSError(ctypes.get_errno(), "unshare(CLONE_FS)")
            _enter(self.pid, "mnt", CLONE_NEWNS)
            return function()

        return _in_own_thread(call)

    def write(self, path: str | Path, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file inside, and make its parent folders."""

        def write() -> None:
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
            target.chmod(mode)

        self.inside(write)

    def read(self, path: str | Path) -> bytes:
        """Read a file inside."""
        return self.inside(Path(path).read_bytes)

    def exists(self, path: str | Path) -> bool:
        """Whether a path exists inside."""
        return self.inside(Path(path).exists)

    def owner(self, path: str | Path) -> tuple[int, int]:
        """Return the host uid and host gid of a path inside; of a symlink itself, not of its target."""
        found = self.inside(Path(path).lstat)
        return found.st_uid, found.st_gid


def require(*programs: str) -> None:
    """Skip the test if this machine gives no throw-away hosts or lacks a program; in CI a missing program fails it."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for namespaces and mounts")
    if reason := _why_unavailable():
        pytest.skip(f"no throw-away host on this machine: {reason}")
    if missing := [
        program for program in programs if shutil.which(program, path=SEARCH_PATH) is None
    ]:
        report = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        report(f"not installed: {', '.join(missing)}")


@functools.cache
def _why_unavailable() -> str:
    try:
        with ThrowawayHost():
            return ""
    except (HostUnavailable, OSError) as error:
        return str(error)


@functools.cache
def _paths_to_bind() -> list[str]:
    """Find which of our own paths the overlay of / would not show: those below a fresh folder or on another mount."""
    wanted = {REPOSITORY, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    root = _mount_id(Path("/"))
    return [
        str(path) for path in sorted(wanted) if _mount_id(path) != root or path.parts[1] in FRESH
    ]


def _mount_id(path: Path) -> bytes:
    """Ask for the mount and not for st_dev, which a bind mount of the same file system does not change."""
    return subprocess.check_output(
        ["findmnt", "--noheadings", "--output", "ID", "--target", str(path)]
    )


def _in_own_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread made for it: what setns changed stays so, and must end with the call."""
    outcome: Future[T] = Future()

    def body() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001 - handed on to the caller
            outcome.set_exception(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return outcome.result()


def _enter(pid: int, name: str, kind: int) -> None:
    with Path(f"/proc/{pid}/ns/{name}").open("rb") as namespace:
        if _libc.setns(namespace.fileno(), kind) != 0:
            raise OSError(ctypes.get_errno(), f"setns to the {name} namespace of process {pid}")


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a process and its group, and reap it: process 1 cannot end while a dead one waits for its parent."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _close_pipes(process)


def _close_pipes(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # closing flushes what nobody will read
                pipe.close()
