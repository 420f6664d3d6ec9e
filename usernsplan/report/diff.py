"""A file's change as a unified diff."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.model import Change

_Opcode = tuple[str, int, int, int, int]


def unified(change: Change, shown: str) -> str:
    """The change as ``diff -u`` writes it; bytes that are not UTF-8 appear escaped, a missing line end is said."""
    before, after = _lines(change.before or b""), _lines(change.after)
    out = [f"--- {shown if change.before is not None else '/dev/null'}", f"+++ {shown}"]
    if before == after:
        return ""
    for hunk in _hunks(before, after):
        (_, first, _, new_first, _), (_, _, last, _, new_last) = hunk[0], hunk[-1]
        out.append(f"@@ -{_span(first, last)} +{_span(new_first, new_last)} @@")
        for tag, start, stop, new_start, new_stop in hunk:
            if tag == "equal":
                out += (f" {_text(line)}" for line in before[start:stop])
            else:
                out += (f"-{_text(line)}" for line in before[start:stop])
                out += (f"+{_text(line)}" for line in after[new_start:new_stop])
    return "\n".join(out)


def _hunks(before: Sequence[bytes], after: Sequence[bytes]) -> Iterator[list[_Opcode]]:
    """What differs, with three lines around it.

    Lines that are the same at both ends are most of a long file: they are not compared again, so that a line added to
    100,000 costs no more than one added to three.
    """
    from difflib import SequenceMatcher  # noqa: PLC0415 - only where something changed

    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    stop, new_stop = len(before) - tail, len(after) - tail
    middle = SequenceMatcher(None, before[head:stop], after[head:new_stop], autojunk=False)
    moved = [(tag, a + head, b + head, c + head, d + head) for tag, a, b, c, d in middle.get_opcodes()]
    whole = SequenceMatcher(None, "", "")
    whole.opcodes = [  # type: ignore[attr-defined]
        *([("equal", 0, head, 0, head)] if head else []),
        *moved,
        *([("equal", stop, len(before), new_stop, len(after))] if tail else []),
    ]
    yield from whole.get_grouped_opcodes()


def _lines(content: bytes) -> list[bytes]:
    pieces = content.split(b"\n")
    if pieces[-1] == b"":
        pieces.pop()
    else:
        pieces[-1] += b"\n\\ No newline at end of file"
    return pieces


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")


def _common(first: Sequence[bytes], second: Sequence[bytes]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(first), len(second)))


def _span(start: int, stop: int) -> str:
    """Where a hunk stands, as diff counts: from 1; an empty one at the line before it; a single one without a count."""
    count = stop - start
    if count == 1:
        return f"{start + 1}"
    return f"{start + 1 if count else start},{count}"
