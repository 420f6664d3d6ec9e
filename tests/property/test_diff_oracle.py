"""The real patch program makes the new file of the old one and our diff."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from usernsplan.model import Change
from usernsplan.report.diff import unified

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")

# Few different lines, so that equal ones make the diff ambiguous; some of them look like a diff themselves.
LINE = st.sampled_from(
    [
        b"a",
        b"b",
        b"c",
        b"",
        b"web:1:2",
        b"-- f",
        b"++ f",
        b"@@ -1 +1 @@",
        b"\\ No newline",
        b"\xc3\xa9\r",
    ]
)


def contents(lines: st.SearchStrategy[list[bytes]]) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda pieces, end: b"\n".join(pieces) + (b"\n" if end and pieces else b""),
        lines,
        st.booleans(),
    )


@st.composite
def edits(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw two files of few lines, or one long file with a few places changed, to meet hunks far apart."""
    if draw(st.booleans()):
        return draw(contents(st.lists(LINE, max_size=12))), draw(
            contents(st.lists(LINE, max_size=12))
        )
    before = [
        b"%d" % (number % draw(st.sampled_from([3, 1000])))
        for number in range(draw(st.integers(1, 60)))
    ]
    after = list(before)
    for at in draw(st.lists(st.integers(0, len(before) - 1), max_size=3)):
        after[at : at + draw(st.integers(0, 2))] = draw(st.lists(LINE, max_size=2))
    return draw(contents(st.just(before))), draw(contents(st.just(after)))


@settings(
    max_examples=examples(300),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits())
# A hunk without context after its last change is at the end of the file to patch.
@example((b"0\n1\n2\n0\n1\n2\n0\n1\n", b"0\n1\n1\n2\n0\n1\n"))
def test_patch_makes_the_new_file_of_the_old_one(tmp_path: Path, edit: tuple[bytes, bytes]) -> None:
    before, after = edit
    shown = unified(Change("f", before, after), "f")
    assert bool(shown) is (before != after)
    if not shown:
        return
    (tmp_path / "old").write_bytes(before)
    (tmp_path / "diff").write_text(shown + "\n", encoding="utf-8", newline="")
    # No fuzz and no offset: the numbers in the hunks must be right, not nearly right.
    command = ["patch", "--binary", "--fuzz=0", "--output=new", "old", "diff"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, ""), (answer.stdout, shown)
    assert "offset" not in answer.stdout
    assert (tmp_path / "new").read_bytes() == after
