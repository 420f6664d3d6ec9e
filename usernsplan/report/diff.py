"""A file's change as a unified diff."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from usernsplan.model import Change

_CONTEXT = 3


def unified(change: Change, shown: str) -> str:
    """The change as ``diff -u`` writes it; bytes that are not UTF-8 appear escaped, a missing line end is said."""
    import difflib  # noqa: PLC0415 - only where something changed

    before, after = _lines(change.before or b""), _lines(change.after)
    # What is the same at both ends is most of a long file; comparing only the rest keeps a line added to 100,000 cheap.
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    head, tail = max(head - _CONTEXT, 0), max(tail - _CONTEXT, 0)
    diff = difflib.unified_diff(
        before[head : len(before) - tail],
        after[head : len(after) - tail],
        shown if change.before is not None else "/dev/null",
        shown,
        lineterm="",
        n=_CONTEXT,
    )
    return "\n".join(_moved(line, head) if line.startswith("@@ ") else line for line in diff)


def _lines(content: bytes) -> list[str]:
    pieces = content.decode("utf-8", "backslashreplace").split("\n")
    if pieces[-1] == "":
        pieces.pop()
    elif content:
        pieces[-1] += "\n\\ No newline at end of file"
    return pieces


def _common(first: list[str], second: list[str]) -> int:
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _moved(hunk: str, by: int) -> str:
    """A hunk's header with its line numbers counted from the file's first line."""
    return " ".join(
        word[0] + ",".join(str(int(n) + by if i == 0 else n) for i, n in enumerate(word[1:].split(",")))
        if word[0] in "-+"
        else word
        for word in hunk.split(" ")
    )
