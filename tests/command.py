"""Run usernsplan as its users do: as a process, with the interpreter that runs the tests."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import pytest

from usernsplan.cli import main

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can mount, chown, make files immutable or add users"
)

PROGRAM = (sys.executable, "-m", "usernsplan")


def usernsplan(
    *words: str | Path, status: int = 0, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it, expect this exit status, and never a traceback."""
    done = subprocess.run(
        [*PROGRAM, *map(str, words)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == status, f"{words}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def missing(program: str) -> NoReturn:
    """Skip for the lack of a program; where everything is to be there, that is a failure."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{program} is not installed")


def here(*words: str | Path, status: int | None = 0) -> tuple[str, str]:
    """Run it inside this process, for tests that run it hundreds of times; return what it printed, and warned of.

    The exit status is to be ``status``, or any where that is None.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["usernsplan", *map(str, words)]),
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
    document: dict[str, Any] = json.loads(usernsplan(*words, "--json", status=status).stdout)
    assert document["format_version"] == 1
    return document


def files_of(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file below a root: inode, mtime and content, to see whether anything was touched."""
    return {
        str(path.relative_to(root)): (path.lstat().st_ino, path.lstat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
