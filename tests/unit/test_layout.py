"""Names below a root, and words for a shell."""

from __future__ import annotations

import os
import subprocess

import pytest

from usernsplan.layout import Layout, is_name, quoted


@pytest.mark.parametrize("name", ["/", "/srv", "/srv/a b", "/srv/\udcff\n", "/srv/...", "/srv/..a"])
def test_a_name_below_a_root(name: str) -> None:
    assert is_name(name)
    for layout in (Layout("/", "/"), Layout("tree", "/mnt/tree")):
        assert layout.below(layout.place(name)) == name


@pytest.mark.parametrize(
    "path", ["", "srv", "..", "/..", "/srv/..", "/srv/../etc", "//", "//srv", "/srv/", "/a//b", "/.", "/a\0", 5, None]
)
def test_what_is_no_name_below_a_root(path: object) -> None:
    assert not is_name(path)


def test_what_lies_outside_has_no_name_below_the_root() -> None:
    layout = Layout("tree", "/mnt/tree")
    assert [layout.below(path) for path in ("/mnt", "/mnt/tree2", "/srv", "/")] == [None] * 4


@pytest.mark.parametrize(
    "word", ["", "plain", "a b", "it's", "$(reboot)", "\x1b[2J'\\n", "\udcff\udcfe", "a\nb", "é\t"]
)
def test_a_shell_reads_a_quoted_word_as_it_is(word: str) -> None:
    said = quoted(word)
    assert said.isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {said}"], capture_output=True, check=True)
    assert done.stdout == os.fsencode(word)
