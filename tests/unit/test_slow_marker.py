"""Tests marked slow: off unless they are asked for, and never in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent.parent / "conftest.py"
TESTS = """
import pytest

@pytest.fixture
def costly():
    open("paid", "w").close()

@pytest.mark.slow
def test_one(costly): pass

@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_some(n): pass

@pytest.mark.spread(3)
@pytest.mark.parametrize("n", range(7))
def test_many(n): assert n in SPREAD
"""


@pytest.mark.parametrize(
    ("ci", "words", "on"), [("", (), False), ("true", (), True), ("", ("--slow",), True)]
)
def test_they_run_only_where_they_are_asked_for(
    ci: str, words: tuple[str, ...], on: bool, tmp_path: Path
) -> None:
    (tmp_path / "conftest.py").write_bytes(CONFTEST.read_bytes())
    # Of many cases the first, the last and one between them.
    spread = [*range(7)] if on else [0, 3, 6]
    (tmp_path / "test_it.py").write_text(f"SPREAD = {spread}\n{TESTS}")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  slow\n  spread\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", *words],
        cwd=tmp_path,
        env=environment | {"CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    how = "CI=true or --slow runs them"
    assert f"\nslow tests: {'on' if on else f'off ({how})'}\n" in done.stdout
    assert ("10 passed" if on else "4 passed, 6 skipped") in done.stdout
    assert ("SKIPPED [6]" in done.stdout and f"slow: {how}" in done.stdout) == (not on)
    # Nothing is set up for a test that does not run.
    assert (tmp_path / "paid").exists() == on
