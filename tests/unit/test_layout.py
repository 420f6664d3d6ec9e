"""Names below a root."""

from __future__ import annotations

import pytest

from tests.each import each
from usernsplan.layout import Layout, is_name


@pytest.mark.parametrize("name", ["/", "/srv", "/srv/a b", "/srv/\udcff\n", "/srv/...", "/srv/..a"])
def test_a_name_below_a_root(name: str) -> None:
    assert is_name(name)
    for layout in (Layout("/", "/"), Layout("tree", "/mnt/tree")):
        assert layout.below(layout.place(name)) == name


@each(
    "path",
    [
        "",
        "srv",
        "..",
        "/..",
        "/srv/..",
        "/srv/../etc",
        "//",
        "//srv",
        "/srv/",
        "/a//b",
        "/.",
        "/a\0",
        5,
        None,
    ],
)
def test_what_is_no_name_below_a_root(path: object) -> None:
    assert not is_name(path)


def test_what_lies_outside_has_no_name_below_the_root() -> None:
    layout = Layout("tree", "/mnt/tree")
    assert [layout.below(path) for path in ("/mnt", "/mnt/tree2", "/srv", "/")] == [None] * 4
