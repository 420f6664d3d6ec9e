"""usernsplan as a process, hundreds of times: forked from an interpreter that has read its modules already.

What runs is ``main`` with the words typed, in a session of its own, with its output in files. Because the process waits
for a word before it begins, a tracer can be attached that never sees the interpreter start, which takes most of the
time that strace costs.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import usernsplan
from tests.signatures import read_all
from usernsplan.cli import main
from usernsplan.volume import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# A run that takes longer hangs: killed, and the test fails.
PATIENCE = 180.0


class Ended(NamedTuple):
    """How a run ended: its exit status, or minus the signal; and what it said."""

    status: int
    out: str
    err: str


class Run:
    """One process: first it waits; ``go`` lets it begin, ``wait`` waits for its end."""

    def __init__(self, server: Prefork, pid: int, folder: Path) -> None:
        self.pid = pid
        self.folder = folder
        self._server = server
        self._gone = False
        self._ended = False

    def go(self) -> None:
        self._gone = True
        self._server.say("go")

    def wait(self) -> Ended:
        if not self._gone:
            self.go()
        hangs = not self._server.answers(PATIENCE)
        if hangs:
            os.killpg(self.pid, signal.SIGKILL)
        status = int(self._server.heard())
        self._ended = True
        assert not hangs, f"it hung: {self.said()}"
        return Ended(status, *self.said())

    def said(self) -> tuple[str, str]:
        out, err = (
            (self.folder / name).read_text(errors="surrogateescape") for name in ("out", "err")
        )
        return out, err

    def abandon(self) -> None:
        """End what a test that failed left behind, so that the next one can begin."""
        if not self._ended:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()

    def living(self) -> list[int]:
        """The processes of the run that are alive."""
        return _session(self.pid)

    def left(self, patience: float = 10.0) -> list[int]:
        """The processes of the run that live on after it; an orphan gets this long to notice."""
        end = time.monotonic() + patience
        while (found := _session(self.pid)) and time.monotonic() < end:
            time.sleep(0.01)
        return found


class Prefork:
    """An interpreter that forks one run after the other. Not for several threads: each makes its own."""

    def __init__(self, *through: str) -> None:
        """``through`` is a program with its options that starts the interpreter, such as setpriv."""
        self._folder = tempfile.TemporaryDirectory()
        self._runs = 0
        self._last: Run | None = None
        self._process = subprocess.Popen(
            [*through, sys.executable, "-m", "tests.prefork"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
        )

    def close(self) -> None:
        if self._last:
            self._last.abandon()
        self._process.communicate()
        self._folder.cleanup()

    def start(
        self,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        host: int | None = None,
    ) -> Run:
        """Fork a run with these words, in this environment and folder, or in those of this process.

        ``host`` is process 1 of a throw-away host, which the run enters before it begins.
        """
        if self._last:
            self._last.abandon()
        self._runs += 1
        folder = Path(self._folder.name) / str(self._runs)
        folder.mkdir()
        self.say(
            json.dumps(
                [
                    str(folder),
                    str(cwd or Path.cwd()),
                    dict(os.environ if env is None else env),
                    host,
                    *map(str, words),
                ]
            )
        )
        self._last = Run(self, int(self.heard()), folder)
        return self._last

    def run(self, *words: str | Path, status: int | None = 0) -> Ended:
        """Run it to its end; without a traceback, and with this status unless that is None."""
        ended = self.start(*words).wait()
        assert "Traceback" not in ended.err, ended.err
        assert status in {None, ended.status}, (words, ended)
        return ended

    def say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def answers(self, patience: float) -> bool:
        # Nothing is left in the buffer: each answer is a line that was asked for.
        assert self._process.stdout
        return bool(select.select([self._process.stdout], [], [], patience)[0])

    def heard(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the forking interpreter has died"
        return line


# Those that nobody uses at the moment, by the mount namespace that they were started in.
_IDLE: dict[int, list[Prefork]] = {}


@contextmanager
def prefork() -> Iterator[Prefork]:
    """Lend an interpreter that nobody else uses meanwhile: one of an earlier test, if that ended well."""
    idle = _IDLE.setdefault(os.stat("/proc/self/ns/mnt").st_ino, [])
    try:
        server = idle.pop()
    except IndexError:
        server = Prefork()
        atexit.register(server.close)
    try:
        yield server
    except BaseException:
        atexit.unregister(server.close)
        server.close()
        raise
    idle.append(server)


def _session(leader: int) -> list[int]:
    """The living processes of a session, from proc_pid_stat(5)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                text = Path("/proc", name, "stat").read_text(encoding="ascii", errors="replace")
            except OSError:
                continue
            state, _, _, session = text.rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in {"Z", "X"}:
                found.append(int(name))
    return found


# The interpreter that forks.


def _serve() -> None:
    for module in pkgutil.walk_packages(usernsplan.__path__, "usernsplan."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    read_all()
    # What is frozen no collection touches, so a fork does not copy its pages.
    gc.freeze()
    for line in sys.stdin:
        folder, cwd, environment, host, *words = json.loads(line)
        begin, held = os.pipe()
        waits, ready = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(held)
            os.close(waits)
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(environment)
            # It was read before, in another environment.
            importlib.reload(compiled)
            _become(folder, ready, begin, words, host)
        os.close(begin)
        os.close(ready)
        # A tracer that is attached now sees, and counts, only what usernsplan does.
        os.read(waits, 1)
        os.close(waits)
        _answer(pid)
        assert sys.stdin.readline() == "go\n"
        os.close(held)
        _answer(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _become(folder: str, ready: int, begin: int, words: list[str], host: int | None) -> NoReturn:
    os.setsid()
    for number, name, flags in (
        (0, "/dev/null", os.O_RDONLY),
        (1, "out", os.O_WRONLY),
        (2, "err", os.O_WRONLY),
    ):
        opened = os.open(os.path.join(folder, name), flags | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["usernsplan", *words]
    os.close(ready)
    os.read(begin, 1)
    os.close(begin)
    if host is not None:
        _enter(host)
    status = 1
    try:
        main()
        status = 0
    except SystemExit as request:
        status = request.code if isinstance(request.code, int) else int(request.code is not None)
    except BaseException:  # noqa: BLE001 - what nobody catches the interpreter shows, and a test looks for it
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _enter(host: int) -> None:
    """Go on as a process of a throw-away host: in its control group, its namespaces and its root, with its /dev/null.

    A process keeps its pid namespace, so a child goes on, and this process ends as it does.
    """
    namespaces = [
        os.open(f"/proc/{host}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        for name in ("pid", "net", "ipc", "uts", "cgroup", "mnt")
    ]
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(namespace: int) -> None:
        if libc.setns(namespace, 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(namespace)

    enter(namespaces.pop(0))
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status < 0:
            os.kill(os.getpid(), -status)
        os._exit(status)
    os.umask(0o022)
    # Before its namespace is entered: from within, a process of the outside could not be moved.
    Path(f"/proc/{host}/root/sys/fs/cgroup/init/cgroup.procs").write_text("0")
    for namespace in namespaces:
        enter(namespace)
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


if __name__ == "__main__":
    _serve()
