"""What shadow, Docker, Podman and Incus each make of /etc/subuid and /etc/subgid: of one line, and for one owner.

The model of a reader is the program as it is today: shadow (newuidmap, getsubids; 4.13 ran), dockerd (moby/sys/user,
read; 20.10 ran, and where it differs the remark says so), Podman (containers/storage in pure Go; a build with libsubid,
as Debian's, reads as shadow does, and the remark says so) and Incus (read; LXD 5.0, its ancestor, ran).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.formats.subid import LINE_LIMIT
from usernsplan.ids import ID_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from usernsplan.formats.subid import SubidFile

READERS = ("shadow", "docker", "podman", "incus")

# owner, start, count; what a reader takes may be negative, empty, or past every id.
Entry = tuple[str, int, int]

# Incus and LXD use no range that cannot hold the ids that POSIX programs expect, 0 to 65535.
INCUS_LEAST = 65536
# bufio.MaxScanTokenSize of Go: with a line as long as that bufio.Scanner stops.
SCANNER_LIMIT = 65536
# What Go's unicode.IsSpace calls a blank, which is not all that str.strip does.
GO_BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_GO_NUMBER = re.compile(r"([+-]?)0*([0-9]+)")
_GO_MODULUS = 2**63
# strtoul(3) with base 0: blanks and a sign first, then hexadecimal, octal or decimal.
_C_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?)(?:0[xX]0*([1-9a-fA-F][0-9a-fA-F]*|0)|0+([1-7][0-7]*|0)|(0|[1-9][0-9]*))")
_C_MODULUS = 2**64
_LAID_MODULUS = 2**32
_INCUS_NUMBER = re.compile(r"0*([1-9][0-9]*|0)")
# More digits than these are past 64 bits in every base, and int() need not count them.
_DIGITS = 22
_FIELDS = 3
_REST = f"a line of {SCANNER_LIMIT} bytes or more: from there on nothing is read"
_NOTHING = "no line for this owner"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reader takes, and what there is to say about it.

    ``takes`` holds (owner as the line has it, start, count) in the order in which the reader lays them. ``fails`` says
    that it gives up on the file; for one line, that it does so because of this line, if only for the line's owner.
    """

    reader: str
    takes: tuple[Entry, ...]
    remark: str
    fails: bool = False


class _Seen(NamedTuple):
    """What a reader makes of one line.

    ``fails`` says what it gives up because of the line: "" nothing, "all" the file, "own" the file where the owner of
    the line is asked for, "last" the file where it is the last line, "rest" this line and what follows.
    """

    owner: str = ""
    entry: Entry | None = None
    remark: str = ""
    fails: str = ""


def of_line(raw: bytes) -> tuple[Reading, ...]:
    """What each of READERS takes one line for, its line end included or not; no bytes are an error."""
    text = _text(raw.partition(b"\n")[0])
    seen = (_shadow(text), _docker(text), _podman(text), _incus(text))
    return tuple(
        Reading(reader, (line.entry,) if line.entry else (), line.remark, line.fails not in {"", "last"})
        for reader, line in zip(READERS, seen, strict=True)
    )


def as_shadow(raw: bytes) -> Entry | None:
    """What useradd of shadow takes one line for, also one that begins with # as a comment would; None: it skips it."""
    text = _text(raw.partition(b"\n")[0])
    return None if text[:1] in {"+", "-"} or _length(text) >= LINE_LIMIT else _shadow_entry(text)


def of_owner(file: SubidFile, owner: str, uid: int | None) -> tuple[Reading, ...]:
    """What each of READERS hands to an owner out of the whole file, in the order in which it lays the ranges.

    ``uid`` is the owner's number, by which lines may name him too; None where he has no account.
    """
    names = {owner} if uid is None else {owner, str(uid)}
    return (
        _shadow_for(file.raw, names),
        _docker_for(file.raw, names),
        _podman_for(file.raw, names),
        _incus_for(file.raw, owner, uid),
    )


def differ(readings: Iterable[Reading]) -> bool:
    """Whether they do not all take the same in the same order, or one gives up where another does not."""
    return len({(reading.takes, reading.fails) for reading in readings}) > 1


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _comment(text: str) -> bool:
    return not text or text.startswith("#")


def _joined(*remarks: str) -> str:
    return "; ".join(dict.fromkeys(filter(None, remarks)))


class _File(NamedTuple):
    """What a reader makes of all lines; ``end`` is the first by which it gives up the file, or the rest of it."""

    seen: tuple[_Seen, ...]
    by_owner: dict[str, list[int]]
    end: _Seen

    def of(self, names: Iterable[str]) -> list[_Seen]:
        """The lines of an owner who has these names, in file order."""
        return [self.seen[at] for at in sorted(at for name in names for at in self.by_owner.get(name, ()))]


# Remembered, because one file is read for many owners.
@lru_cache(maxsize=8)
def _file(see: Callable[[str], _Seen], raw: bytes) -> _File:
    seen = tuple(map(see, _shadow_lines(raw) if see is _shadow else _go_lines(raw)))
    by_owner: dict[str, list[int]] = {}
    for at, line in enumerate(seen):
        if line.entry or line.fails == "own":
            by_owner.setdefault(_fold(line.owner) if see is _incus else line.owner, []).append(at)
    return _File(seen, by_owner, next((line for line in seen if line.fails in {"all", "rest", "last"}), _Seen()))


def _handed(reader: str, mine: Sequence[_Seen], *remarks: str) -> Reading:
    """What a reader hands out that lays every line of the owner's, and the remarks on these lines and others."""
    takes = tuple(line.entry for line in mine if line.entry)
    nothing = "" if takes else _NOTHING
    return Reading(reader, takes, _joined(*(line.remark for line in mine), nothing, *remarks))


def _refused(takes: Iterable[Entry]) -> str:
    """Why the kernel would refuse these ranges as one map, or ""."""
    ranges = sorted((start, start + count) for _, start, count in takes)
    if any(start < 0 or stop <= start or stop > ID_LIMIT for start, stop in ranges):
        return "the kernel refuses this map: a range is empty or lies outside the ids that exist"
    if any(stop > start for (_, stop), (start, _) in pairwise(ranges)):
        return "the kernel refuses this map: ranges overlap"
    return ""


# --- shadow: lib/commonio.c, and subordinate_parse in lib/subordinateio.c


def _shadow(text: str) -> _Seen:
    if "\0" in text:
        remark = "a NUL hides its end: it joins the next line, and as the last line it fails the whole file"
        return _Seen(remark=remark, fails="last")
    # No account has a name that begins so, which getsubids would nonetheless look for.
    if _comment(text.strip(GO_BLANKS)):
        return _Seen()
    if text[0] in "+-":
        return _Seen(remark="ignored: it begins with + or -, as entries for NIS do")
    if _length(text) >= LINE_LIMIT:
        return _Seen(remark=f"ignored: {LINE_LIMIT} bytes or more")
    entry = _shadow_entry(text)
    if entry is None:
        return _Seen(remark="ignored: a field is missing, empty, or not a number as C reads it")
    more = "the newest shadow ignores it: more than three fields" if text.count(":") >= _FIELDS else ""
    return _Seen(entry[0], entry, more)


def _shadow_entry(text: str) -> Entry | None:
    owner, *numbers = (*text.split(":"), "", "")[:_FIELDS]
    start, count = map(_c_number, numbers)
    return None if not owner or start is None or count is None else (owner, start, count)


def _c_number(field: str) -> int | None:
    match = _C_NUMBER.fullmatch(field)
    if not match:
        return None
    sign, hexadecimal, octal, decimal = match.groups()
    digits, base = (hexadecimal, 16) if hexadecimal else (octal, 8) if octal else (decimal, 10)
    value = int(digits, base) if len(digits) <= _DIGITS else _C_MODULUS
    if value >= _C_MODULUS:
        return None
    # A minus sign is no error to strtoul(3): the value wraps.
    return (_C_MODULUS - value) % _C_MODULUS if sign == "-" else value


def _shadow_for(raw: bytes, names: set[str]) -> Reading:
    file = _file(_shadow, raw)
    if file.end.fails:
        return Reading("shadow", (), "the file cannot be read: a NUL in its last line", fails=True)
    whole = not raw or raw.endswith(b"\n")
    newer = "" if whole else "a newer shadow fails on the file: its last line has no line end"
    return _handed("shadow", file.of(names), newer)


def _shadow_lines(raw: bytes) -> list[str]:
    """Lines as fgets(3) and strrchr(3) find them: a NUL hides the line end, and the next line is read over it.

    A NUL that is left in a line found no next one.
    """
    lines, kept = [], b""
    *whole, last = raw.split(b"\n")
    for piece in whole:
        head, nul, _ = piece.partition(b"\0")
        kept += head
        if not nul:
            lines.append(_text(kept))
            kept = b""
    hidden = b"\0" if kept and not last else b""
    return [*lines, _text(kept + last.partition(b"\0")[0] + hidden)]


# --- Go's readers: lines as bufio.ScanLines finds them, numbers as strconv reads them


def _go_lines(raw: bytes) -> list[str]:
    """The lines, and as the last one the first that is too long for bufio.Scanner."""
    lines = []
    for piece in raw.split(b"\n"):
        lines.append(_text(piece))
        if len(piece) >= SCANNER_LIMIT:
            break
    return lines


def _go_number(field: str) -> tuple[int, bool]:
    """What strconv.ParseInt gives in base 10 and 64 bits, and whether without an error: 0, or the limit, with one."""
    match = _GO_NUMBER.match(field)
    if not match:
        return 0, False
    sign, digits = match.groups()
    value = int(digits) if len(digits) <= _DIGITS else _C_MODULUS
    # Past 64 bits it stops, and does not see what follows the digits.
    if value < _C_MODULUS and match.end() < len(field):
        return 0, False
    if sign == "-":
        return -min(value, _GO_MODULUS), value <= _GO_MODULUS
    return min(value, _GO_MODULUS - 1), value < _GO_MODULUS


# --- Docker: ParseSubIDFilter and lookupSubRangesFile of moby/sys/user


def _docker(line: str) -> _Seen:
    if _length(line) >= SCANNER_LIMIT:
        return _Seen(remark=f"dockerd does not start: a line of {SCANNER_LIMIT} bytes or more", fails="all")
    text = line.strip(GO_BLANKS)
    if _comment(text):
        return _Seen()
    fields = text.split(":")
    owner, *numbers = (*fields, "", "")[:_FIELDS]
    (start, start_read), (count, count_read) = map(_go_number, numbers)
    remarks = [] if start_read else [f"it cannot read the start and takes {start}"]
    remarks += [] if count_read else [f"it cannot read the count and takes {count}"]
    if len(fields) != _FIELDS:
        remarks.append("Docker 20.10 does not start, whosever line it is")
    elif remarks:
        remarks.append("Docker 20.10 does not start if the line is its user's")
    # The daemon goes on with 64 bits, the map of a container has 32.
    laid = (start % _LAID_MODULUS, count % _LAID_MODULUS)
    if laid != (start, count):
        remarks.append(f"cut to 32 bits: {laid[0]}:{laid[1]}")
    if remarks and laid[0] == 0 < laid[1]:
        remarks.insert(0, "container root becomes host root")
    return _Seen(owner, (owner, *laid), _joined(*remarks))


def _docker_for(raw: bytes, names: set[str]) -> Reading:
    file = _file(_docker, raw)
    if file.end.fails:
        return Reading("docker", (), file.end.remark, fails=True)
    mine = file.of(names)
    older = []
    # Docker 20.10 and Podman come from one parser.
    if _file(_podman_go, raw).end.fails:
        older.append("Docker 20.10 does not start: a line has not three fields")
    if len({line.owner for line in mine}) > 1:
        older.append("Docker 20.10 takes only the lines that name the owner by number")
    return _handed("docker", mine, _refused(line.entry for line in mine if line.entry), *older)


# --- Podman: parseSubidFile of containers/storage


def _podman(line: str) -> _Seen:
    seen, shadow = _podman_go(line), _shadow(line)
    same = (seen.entry, seen.fails) == (shadow.entry, shadow.fails)
    return seen if same else seen._replace(remark=_joined(seen.remark, "built with libsubid it reads as shadow does"))


def _podman_go(line: str) -> _Seen:
    if _length(line) >= SCANNER_LIMIT:
        return _Seen(remark=_REST, fails="rest")
    text = line.strip(GO_BLANKS)
    if _comment(text):
        return _Seen()
    fields = text.split(":")
    if len(fields) != _FIELDS:
        return _Seen(remark="the whole file fails, whosever line it is: not three fields", fails="all")
    (start, start_read), (count, count_read) = map(_go_number, fields[1:])
    if not (start_read and count_read):
        remark = "the whole file fails for this owner: start or count is not a number"
        return _Seen(fields[0], remark=remark, fails="own")
    return _Seen(fields[0], (fields[0], start, count))


def _podman_for(raw: bytes, names: set[str]) -> Reading:
    file = _file(_podman_go, raw)
    mine = file.of(names)
    end = next((line for line in (file.end, *mine) if line.fails in {"all", "own"}), file.end)
    takes = () if end.fails in {"all", "own"} else _sorted(line.entry for line in mine if line.entry)
    libsubid = takes != _sorted(_shadow_for(raw, names).takes)
    remarks = (
        end.remark,
        "" if takes or end.fails else _NOTHING,
        _refused(takes),
        "built with libsubid it takes what shadow does, sorted by start" if libsubid else "",
    )
    return Reading("podman", takes, _joined(*remarks), fails=bool(end.fails))


def _sorted(takes: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(takes, key=itemgetter(1)))


# --- Incus: getFromShadow of its shared/idmap


def _incus(line: str) -> _Seen:
    if _length(line) >= SCANNER_LIMIT:
        return _Seen(remark=_REST, fails="rest")
    text = line.removesuffix("\r").partition("#")[0]
    if not text:
        return _Seen()
    fields = text.split(":")
    if len(fields) < _FIELDS:
        return _Seen(remark="the whole file fails, whosever line it is: not three fields before a #", fails="all")
    matches = [_INCUS_NUMBER.fullmatch(field) for field in fields[1:_FIELDS]]
    numbers = [int(match[1]) for match in matches if match and len(match[1]) <= _DIGITS]
    if len(numbers) < len(matches) or max(numbers) > ID_LIMIT:
        return _Seen(remark="ignored: start or count is not a decimal number below 2^32")
    start, count = numbers
    small = f"Incus uses no range of fewer than {INCUS_LEAST}" if count < INCUS_LEAST else ""
    return _Seen(fields[0], (fields[0], start, count), small)


def _incus_for(raw: bytes, owner: str, uid: int | None) -> Reading:
    file = _file(_incus, raw)
    if file.end.fails == "all":
        return Reading("incus", (), file.end.remark, fails=True)
    mine, alike = file.of([_fold(owner)]), ""
    if not mine and uid is not None:
        mine, alike = file.of([str(uid)]), "LXD looks for the name alone"
    takes = tuple(line.entry for line in mine if line.entry and line.entry[2] >= INCUS_LEAST)
    if len(takes) > 1:
        alike = alike or "LXD takes only the first of these"
    remarks = [line.remark for line in mine]
    return Reading(
        "incus", takes, _joined(*remarks, alike if mine else _NOTHING, file.end.remark), bool(file.end.fails)
    )


def _fold(name: str) -> str:
    """A name as strings.EqualFold of Go compares it: letter by letter, whatever its case."""
    return "".join(letter.upper().lower() if len(letter.upper()) == 1 else letter.lower() for letter in name)
