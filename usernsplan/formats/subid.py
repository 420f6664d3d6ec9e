"""/etc/subuid and /etc/subgid, subuid(5): parsed without loss, and edited without touching what others wrote.

The readers of these files disagree (shadow, moby, containers/storage, incus). A line that all of them read alike is a
Grant; anything else is kept as Odd, with every range that at least one reader takes it for.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.errors import InvalidValueError
from usernsplan.ids import IdRange, IdSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# shadow reads lines into a buffer of this size and rejects what does not fit.
LINE_LIMIT = 1024
_GRANT = re.compile(rb"([^\s\0:#+-][^\s\0:#]*):(0|[1-9][0-9]{0,18}):(0|[1-9][0-9]{0,18})\n?")
# Go reads signed 64 bits, C unsigned ones; longer numbers are none to anybody.
_GO_MAX, _C_MODULUS = 2**63 - 1, 2**64
_NUMBER = re.compile(r"([+-]?)(?:0[xX]([0-9a-fA-F]{1,16})|(0{0,1100}[0-9]{1,22}))(?![0-9a-fA-F])")


class Grant(NamedTuple):
    """``owner:start:count``, understood alike by every reader. It may be empty, and it may end past 2^32."""

    number: int
    raw: bytes
    owner: str
    start: int
    stop: int


class Odd(NamedTuple):
    """A line on which readers differ, or that is none: ``problem`` says why, "" for a comment or a blank line.

    ``owners`` and ``spans`` (start, stop) are what any reader could take it for.
    """

    number: int
    raw: bytes
    owners: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    problem: str


Line = Grant | Odd


@dataclass(frozen=True, slots=True)
class SubidFile:
    """One of the two files: its lines, in order; their ``raw`` bytes together are the file.

    ``exists`` is False where the host has no such file, which readers take for an empty one.
    """

    lines: tuple[Line, ...] = ()
    exists: bool = True

    @property
    def raw(self) -> bytes:
        """The file's bytes, exactly as they were read."""
        return b"".join(line.raw for line in self.lines)

    def claimed(self) -> IdSet:
        """Every id that some reader could hand to some owner."""
        return IdSet.clipped(self._spans())

    def _spans(self) -> Iterator[tuple[int, int]]:
        for line in self.lines:
            if isinstance(line, Grant):
                yield line.start, line.stop
            else:
                yield from line.spans

    def by_owner(self) -> dict[str, list[Line]]:
        """The lines that some reader could take for a grant to this owner (a login name, or a uid in decimal)."""
        found: dict[str, list[Line]] = {}
        for line in self.lines:
            for owner in (line.owner,) if isinstance(line, Grant) else line.owners:
                found.setdefault(owner, []).append(line)
        return found

    def odd_lines(self) -> tuple[Odd, ...]:
        """The lines that not every reader understands alike; comments and blank lines are none."""
        return tuple(line for line in self.lines if isinstance(line, Odd) and line.problem)


@lru_cache(maxsize=4)
def parse(raw: bytes | None) -> SubidFile:
    """Read the bytes of the file (None: there is none); nothing is an error, nothing is lost.

    Remembered, because a run reads both files before it takes the locks and again under them.
    """
    if raw is None:
        return SubidFile(exists=False)
    return SubidFile(tuple(_line(number, text) for number, text in enumerate(_split(raw), 1)))


def line(owner: str, ids: IdRange) -> bytes:
    """The one form that every reader takes. Raises InvalidValueError for an owner that would break it."""
    with suppress(UnicodeEncodeError):
        text = f"{owner}:{ids.start}:{ids.count}\n".encode()
        if isinstance(_line(1, text), Grant):
            return text
    raise InvalidValueError(f"{owner!r} cannot be the owner of a line in subuid(5)")


def with_lines(raw: bytes, new: Iterable[bytes]) -> bytes:
    """The file with ``new`` lines at its end, and a line end before them where the last line had none."""
    added = b"".join(new)
    joint = b"\n" if added and raw and not raw.endswith(b"\n") else b""
    return raw + joint + added


def without_lines(raw: bytes, unwanted: Iterable[bytes]) -> bytes:
    """The file less ``unwanted`` lines: one line goes for each one that is named, the last such line first."""
    left = Counter(unwanted)
    kept = []
    for text in reversed(_split(raw)):
        if left[ended(text)] > 0:
            left[ended(text)] -= 1
        else:
            kept.append(text)
    return b"".join(reversed(kept))


def added_lines(before: bytes, after: bytes) -> tuple[bytes, ...]:
    """The lines of ``after`` that ``before`` does not have, as often as they are more."""
    return tuple((counted(after) - counted(before)).elements())


def counted(raw: bytes) -> Counter[bytes]:
    """How often each line stands in the file, a missing line end aside."""
    return Counter(map(ended, _split(raw)))


def ended(text: bytes) -> bytes:
    """A line with its line end, which the file's last one may lack."""
    return text if text.endswith(b"\n") else text + b"\n"


def _split(raw: bytes) -> list[bytes]:
    """The lines with their line ends; LF alone ends a line, as for every reader of this file."""
    pieces = raw.split(b"\n")
    last = pieces.pop()
    return [piece + b"\n" for piece in pieces] + ([last] if last else [])


def _line(number: int, raw: bytes) -> Line:
    match = _GRANT.fullmatch(raw)
    if match and len(raw.rstrip(b"\n")) < LINE_LIMIT:
        owner, start, count = match.groups()
        with suppress(UnicodeDecodeError):
            if max(int(start), int(count)) <= _GO_MAX:
                return Grant(number, raw, owner.decode(), int(start), int(start) + int(count))
    return _odd(number, raw)


def _odd(number: int, raw: bytes) -> Odd:
    text = raw.decode("utf-8", "surrogateescape").rstrip("\n")
    if not text.strip() or text.lstrip().startswith("#"):
        return Odd(number, raw, (), (), "")
    fields = text.split(":")
    owner = fields[0]
    owners = tuple(dict.fromkeys((owner, owner.strip())))
    if len(fields) < 3:  # noqa: PLR2004 - owner, start, count
        return Odd(number, raw, owners, (), "expected owner:start:count")
    starts, counts = _readings(fields[1]), _readings(fields[2])
    spans = tuple((start, start + count) for start in starts for count in counts)
    return Odd(number, raw, owners, spans, _problem(raw, fields, spans))


def _readings(field: str) -> tuple[int, ...]:
    """What readers make of a number: blanks trimmed or not, a comment cut off, decimal only or C's bases too."""
    match = _NUMBER.match(field.strip())
    if not match:
        return ()
    sign, hexadecimal, digits = match.groups()
    if hexadecimal:
        # moby takes what it cannot read for 0.
        found = [int(hexadecimal, 16), 0]
    else:
        found = [int(digits)] + ([int(digits, 8)] if digits[0] == "0" and not set(digits) & {"8", "9"} else [])
    if sign == "-":
        # strtoul does not fail: it wraps.
        found = [(_C_MODULUS - value) % _C_MODULUS for value in found]
    return tuple(dict.fromkeys(value for value in found if value < _C_MODULUS))


def _problem(raw: bytes, fields: list[str], spans: tuple[tuple[int, int], ...]) -> str:
    if len(raw.rstrip(b"\n")) >= LINE_LIMIT:
        return f"{len(raw)} bytes: shadow rejects a line of {LINE_LIMIT} or more"
    if not fields[0].strip():
        return "no owner"
    if not spans:
        return "start or count is not a number"
    if raw.endswith(b"\r\n"):
        return "ends in CR LF: shadow and incus skip it, Docker reads it"
    return "readers disagree on it: write owner:start:count in decimal, without blanks or a comment"
