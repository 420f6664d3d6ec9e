"""The change of a file as a unified diff."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan import escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.model import Change

_CONTEXT = 3
# The mark of diff (" " same, "-" removed, "+" added) and the line.
_Marked = tuple[str, bytes]


def unified(change: Change, shown: str) -> str:
    """The change as ``diff -u`` writes it. Bytes that are not UTF-8 are escaped."""
    before, after, above = _without_start(change.before or b"", change.after)
    marked = _marked(_lines(before), _lines(after))
    shown = escape.line(shown)
    out = [f"--- {shown if change.before is not None else '/dev/null'}", f"+++ {shown}"]
    # The numbers of the next line in both files. What lies between two hunks is in both.
    old = new = above + 1
    last = 0
    for start, stop in _hunks(marked):
        hunk = marked[start:stop]
        old, new = old + start - last, new + start - last
        olds, news = (sum(m in {" ", mark} for m, _ in hunk) for mark in ("-", "+"))
        out.append(f"@@ -{_span(old, olds)} +{_span(new, news)} @@")
        out += (mark + line.decode("utf-8", "backslashreplace") for mark, line in hunk)
        old, new, last = old + olds, new + news, stop
    return "\n".join(out) if out[2:] else ""


def _without_start(before: bytes, after: bytes) -> tuple[bytes, bytes, int]:
    """Both files without what only is above, and how many lines that are.

    Nearly every change appends lines to a file that may have 100,000.
    """
    if not (before.endswith(b"\n") and after.startswith(before)):
        return before, after, 0
    at = len(before)
    for _ in range(_CONTEXT + 1):
        at = before.rfind(b"\n", 0, at)
    return before[at + 1 :], after[at + 1 :], before.count(b"\n", 0, at + 1)


def _marked(before: Sequence[bytes], after: Sequence[bytes]) -> list[_Marked]:
    """Every line of both files, marked. Takes linear time.

    Equal lines at both ends stay. Between them our changes only remove lines and append lines at the
    end. So a line that is not the next one of the new file is removed, and what remains of the new
    file is added.
    """
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    stop, new, new_stop = len(before) - tail, head, len(after) - tail
    marked = [(" ", line) for line in before[:head]]
    for line in before[head:stop]:
        kept = new < new_stop and line == after[new]
        marked.append((" " if kept else "-", line))
        new += kept
    marked += (("+", line) for line in after[new:new_stop])
    marked += ((" ", line) for line in before[stop:])
    return marked


def _hunks(marked: Sequence[_Marked]) -> Iterator[tuple[int, int]]:
    """The start and stop of each hunk: changes with their context; those that touch are one hunk."""
    start = stop = -1
    for at, (mark, _) in enumerate(marked):
        if mark == " ":
            continue
        if start >= 0 and at - _CONTEXT > stop:
            yield start, stop
            start = -1
        if start < 0:
            start = max(at - _CONTEXT, 0)
        stop = min(at + 1 + _CONTEXT, len(marked))
    if start >= 0:
        yield start, stop


def _span(first: int, count: int) -> str:
    """The lines of a hunk in one file, as diff counts: from 1; an empty one has the line before."""
    if count == 1:
        return f"{first}"
    return f"{first if count else first - 1},{count}"


def _lines(content: bytes) -> list[bytes]:
    pieces = content.split(b"\n")
    if pieces[-1] == b"":
        pieces.pop()
    else:
        pieces[-1] += b"\n\\ No newline at end of file"
    return pieces


def _common(first: Sequence[bytes], second: Sequence[bytes]) -> int:
    """The number of equal lines at the start."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(first), len(second)))
