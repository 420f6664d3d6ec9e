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
    """What differs, with three lines around it; in time that grows with the lines and not with their square.

    What is the same at both ends stays. Between, we only take lines out and put lines at the end: so a line that is not
    the next of the new file has gone, and what the new file has beyond the old one has come.
    """
    from difflib import SequenceMatcher  # noqa: PLC0415 - only where something changed

    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    stop, new_stop = len(before) - tail, len(after) - tail
    opcodes: list[_Opcode] = [("equal", 0, head, 0, head)]
    old, new = head, head
    while old < stop:
        tag = "equal" if new < new_stop and before[old] == after[new] else "delete"
        kept = tag == "equal"
        if opcodes[-1][0] == tag:
            _, start, _, new_start, _ = opcodes.pop()
        else:
            start, new_start = old, new
        old, new = old + 1, new + kept
        opcodes.append((tag, start, old, new_start, new))
    opcodes.append(("insert", stop, stop, new, new_stop))
    opcodes.append(("equal", stop, len(before), new_stop, len(after)))
    # The matcher only groups what it is given: comparing is done.
    matcher = SequenceMatcher(None, "", "")
    matcher.opcodes = [code for code in opcodes if code[1] < code[2] or code[3] < code[4]]  # type: ignore[attr-defined]
    yield from matcher.get_grouped_opcodes()


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
