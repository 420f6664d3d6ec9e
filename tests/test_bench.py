"""The table of tests/bench: it runs, each row at a hundredth of its size, and says what was found. No clock decides."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.table import KEYS, Asked, Case, Peer, Row, lines, markdown
from tests.bench.timing import Peak, Taken
from tests.command import needs_root, slow


@needs_root
@pytest.mark.parametrize("rows", [("shift-tmpfs",), *slow((KEYS,))])
def test_one_command_prints_the_rows(tmp_path: Path, rows: tuple[str, ...]) -> None:
    written = tmp_path / "table.json"
    words = ["--small", "--runs", "1", "--rows", ",".join(rows), "--json", str(written)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.table", *words],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(written.read_text())["rows"]
    assert tuple(row["key"] for row in found) == rows
    printed = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    for row in found:
        assert len(row["ours"]) >= 1
        assert row["peak_mb"]["together"] > 1
        assert any(f"| {row['what']} " in line for line in printed)


def taken(*walls: float) -> list[Taken]:
    return [Taken(wall, wall / 2, wall / 4) for wall in walls]


def test_a_row_has_medians_ratios_and_what_was_missed() -> None:
    peers = [Peer("chown", ["chown"], most=1), Peer("half", ["half"], times=2), Peer("none", ["-"])]
    asked = [Asked("MB", 150), Asked("µs each", 15)]
    case = Case("key", "a tree", ["ours"], peers, 1000, asked)
    theirs = {"chown": taken(1, 1, 9), "half": taken(2, 2, 2)}
    row = Row(case, taken(1, 2, 8), theirs, Peak(30, 20.4), {"statx": 2000, "chown": 500})
    assert list(lines(row)) == [
        [
            "a tree",
            "chown",
            "2.00 (1.50)",
            "1.00 (0.750)",
            "2.00 (2.00)",
            "≤ 1 of it, **missed**; ≤ 150 MB; ≤ 15 µs each, **missed**: 2000",
            "30 (20)",
            "2.50",
        ],
        ["", "half", "", "4.00 (3.00)", "0.50 (0.50)", "", "", ""],
    ]


def test_a_row_without_a_peer_has_a_line() -> None:
    row = Row(
        Case("key", "check", ["check"], [], asked=[Asked("s", 3)]), taken(2), {}, Peak(9, 9), None
    )
    assert "| check | " in " ".join(markdown([row]).split())
    assert list(lines(row)) == [["check", "", "2.00 (1.50)", "", "", "≤ 3 s", "9 (9)", ""]]
