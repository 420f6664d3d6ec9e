"""Run usernsplan: as a process, or in this one."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import io
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from unittest import mock

import pytest

from tests.documents import document_in
from tests.prefork import Ended, Prefork
from tests.signatures import remember
from usernsplan.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.mark import ParameterSet

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can mount, chown, make files immutable or add users"
)

PROGRAM = (sys.executable, "-m", "usernsplan")


def slow(*parameters: object) -> list[ParameterSet]:
    """Sets of parameters of a test, to be tried only where the slow tests run."""
    return [
        pytest.param(*one, marks=pytest.mark.slow)
        if isinstance(one, tuple)
        else pytest.param(one, marks=pytest.mark.slow)
        for one in parameters
    ]


def usernsplan(
    *words: str | Path,
    status: int | None = 0,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run it as a process, expect this exit status (None: any), and never a traceback.

    The process is forked from an interpreter that has read its modules, because a start takes longer
    than most commands. Only an environment that says how Python begins needs a start from nothing.
    """
    whole = {**os.environ, **(env or {})}
    if any(name.startswith("PYTHON") for name in env or ()):
        words = (*PROGRAM, *words)
        started = subprocess.run(
            list(map(str, words)),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=whole,
            cwd=cwd,
            check=False,
            timeout=120,
        )
        ended = Ended(started.returncode, started.stdout, started.stderr)
    else:
        forks = _forks(os.stat("/proc/self/ns/mnt").st_ino)
        ended = forks.start(*words, env=whole, cwd=cwd).wait()

    assert "Traceback" not in ended.err, ended.err
    assert status in {None, ended.status}, (
        f"{words}: status {ended.status}\n{ended.out}\n{ended.err}"
    )
    return subprocess.CompletedProcess(list(map(str, words)), ended.status, ended.out, ended.err)


@functools.cache
def _forks(mounts: int) -> Prefork:
    """One for each mount namespace that this process has been in: what was forked before sees the mounts of before."""
    del mounts
    server = Prefork()
    atexit.register(server.close)
    return server


@contextlib.contextmanager
def open_to_others(place: Path) -> Iterator[None]:
    """Let everybody read a place and enter the folders above it, which are shut again: others' mounts rely on that."""
    shut = {
        path: mode
        for path in (place, *place.parents)
        if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o005 != 0o005
    }
    for path, mode in shut.items():
        path.chmod(mode | 0o055)
    try:
        yield
    finally:
        for path, mode in shut.items():
            path.chmod(mode)


def missing(program: str) -> NoReturn:
    """Skip for the lack of a program; where everything is to be there, that is a failure."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{program} is not installed")


def here(*words: str | Path, status: int | None = 0) -> tuple[str, str]:
    """Run it inside this process, for tests that run it hundreds of times; return what it printed, and warned of.

    The exit status is to be ``status``, or any where that is None.
    """
    remember()
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["usernsplan", *map(str, words)]),
        # A command freezes its garbage when it ends; this process goes on, and would keep that of each.
        mock.patch.object(gc, "freeze"),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        ended = 0
        try:
            main()
        except SystemExit as request:
            ended = int(request.code or 0)
    assert status in {None, ended}, f"{words}: status {ended}\n{err.getvalue()}"
    return out.getvalue(), err.getvalue()


def json_of(*words: str | Path, status: int = 0) -> dict[str, Any]:
    """Run it with --json and read what it printed."""
    return document_in(usernsplan(*words, "--json", status=status).stdout)


def extents(*triples: tuple[int, int, int]) -> list[dict[str, int]]:
    """A map as documents have it."""
    return [
        {"container": container, "host": host, "count": count} for container, host, count in triples
    ]


def ids(start: int, count: int) -> dict[str, int]:
    """A range as documents have it."""
    return {"start": start, "count": count}


def files_of(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file below a root: inode, mtime and content, to see whether anything was touched."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_ino,
            path.lstat().st_mtime_ns,
            path.read_bytes(),
        )
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
