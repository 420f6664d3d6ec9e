"""The unified diff: what `diff -u` would write, on files of any length."""

from __future__ import annotations

import pytest

from usernsplan.model import Change
from usernsplan.report.diff import unified


def numbered(*numbers: int) -> bytes:
    return b"".join(b"%d\n" % number for number in numbers)


@pytest.mark.parametrize(
    ("before", "after", "hunks"),
    [
        (b"", b"a\n", ["@@ -0,0 +1 @@", "+a"]),
        (b"a\n", b"", ["@@ -1 +0,0 @@", "-a"]),
        (b"a\n", b"a\nb\n", ["@@ -1 +1,2 @@", " a", "+b"]),
        (b"a\n", b"b\na\n", ["@@ -1 +1,2 @@", "+b", " a"]),
        (b"a", b"a\nb\n", ["@@ -1 +1,2 @@", "-a", "\\ No newline at end of file", "+a", "+b"]),
        (b"a\n", b"a", ["@@ -1 +1 @@", "-a", "+a", "\\ No newline at end of file"]),
        (b"a\n", b"a\r\n", ["@@ -1 +1 @@", "-a", "+a\r"]),
        (b"\n\n", b"\n", ["@@ -1,2 +1 @@", " ", "-"]),
        (b"caf\xc3\xa9\n", b"caf\xe9\n", ["@@ -1 +1 @@", "-café", "+caf\\xe9"]),
        (b"@@ -1 +1 @@\n", b"--- x\n", ["@@ -1 +1 @@", "-@@ -1 +1 @@", "+--- x"]),
        (numbered(*range(10)), numbered(*range(11)), ["@@ -8,3 +8,4 @@", " 7", " 8", " 9", "+10"]),
        (
            numbered(*range(9)),
            numbered(99, *range(9)),
            ["@@ -1,3 +1,4 @@", "+99", " 0", " 1", " 2"],
        ),
        (
            numbered(*range(9)),
            numbered(0, 1, 2, 3, 9, 5, 6, 7, 8),
            ["@@ -2,7 +2,7 @@", " 1", " 2", " 3", "-4", "+9", " 5", " 6", " 7"],
        ),
        (
            numbered(*range(20)),
            numbered(*range(1, 19)),
            [
                "@@ -1,4 +1,3 @@",
                "-0",
                " 1",
                " 2",
                " 3",
                "@@ -17,4 +16,3 @@",
                " 16",
                " 17",
                " 18",
                "-19",
            ],
        ),
        (
            numbered(7, 7, 7, 7, 7),
            numbered(7, 7, 7, 7),
            ["@@ -2,4 +2,3 @@", " 7", " 7", " 7", "-7"],
        ),
    ],
)
def test_a_change_is_shown_as_diff_u_shows_it(
    before: bytes, after: bytes, hunks: list[str]
) -> None:
    shown = unified(Change("etc/f", before, after), "/etc/f")
    assert shown.split("\n") == ["--- /etc/f", "+++ /etc/f", *hunks]


def test_a_new_file_comes_from_dev_null() -> None:
    assert (
        unified(Change("etc/f", None, b"a\n"), "/etc/f")
        == "--- /dev/null\n+++ /etc/f\n@@ -0,0 +1 @@\n+a"
    )


@pytest.mark.parametrize("content", [b"", b"a", b"a\n", b"\xff"])
def test_no_change_shows_nothing(content: bytes) -> None:
    assert unified(Change("f", content, content), "f") == ""


@pytest.mark.parametrize(("before", "after"), [(b"\\xff\n", b"\xff\n"), (b"\xff", b"\\xff")])
def test_a_change_is_never_shown_as_nothing(before: bytes, after: bytes) -> None:
    assert unified(Change("f", before, after), "f") != ""


def test_a_line_at_the_end_of_a_hundred_thousand_is_one_hunk_with_its_true_numbers() -> None:
    raw = numbered(*range(100_000))
    shown = unified(Change("f", raw, raw + b"web:1:2\n"), "f").split("\n")
    assert shown[2:] == ["@@ -99998,3 +99998,4 @@", " 99997", " 99998", " 99999", "+web:1:2"]
