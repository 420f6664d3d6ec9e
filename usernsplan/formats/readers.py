"""How shadow, Docker, Podman and Incus each read a line of /etc/subuid or /etc/subgid.

Each model is the program of today:

* shadow: newuidmap and getsubids. Tested with 4.13.
* shadow 4.20: the same programs from that release on. Tested with 4.20.2. Of the releases between
  them, 4.15 already skips numbers below 0, and 4.18 lines with more than three fields.
* Docker: the source of moby/sys/user. Tested with 20.10; a remark says where that differs.
* Podman: containers/storage in pure Go. A build with libsubid, such as Debian's, reads as shadow
  does; a remark says so.
* Incus: its source. Tested with LXD 5.0, its ancestor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.formats.limits import INCUS_LEAST, LINE_LIMIT, SCANNER_LIMIT
from usernsplan.ids import ID_LIMIT
from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple, dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

READERS = ("shadow", "shadow 4.20", "docker", "podman", "incus")

# (owner, start, count). A reader may take numbers that are negative, zero or past every id.
Entry = tuple[str, int, int]

# The blanks of Go's unicode.IsSpace; str.strip removes more.
GO_BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_GO_NUMBER = pattern(r"([+-]?)0*([0-9]+)")
_GO_MODULUS = 2**63
# strtoul(3) with base 0: blanks and a sign first, then hexadecimal, octal or decimal.
_C_NUMBER = pattern(
    r"[ \t\n\v\f\r]*([+-]?)(?:0[xX]0*([1-9a-fA-F][0-9a-fA-F]*|0)|0+([1-7][0-7]*|0)|(0|[1-9][0-9]*))"
)
_C_MODULUS = 2**64
_LAID_MODULUS = 2**32
# The largest id_t.
_LAST = 2**32 - 1
_INCUS_NUMBER = pattern(r"0*([1-9][0-9]*|0)")
# A number with more digits is past 64 bits in every base; int() of a very long one would be slow.
_DIGITS = 22
_FIELDS = 3
_REST = f"a line of {SCANNER_LIMIT} bytes or more: this line and the rest of the file are not read"


@dataclass(frozen=True, slots=True)
class Reading:
    """How one reader understands a line, with a remark for the user.

    ``takes`` holds one (owner as the line has it, start, count), or nothing. ``fails``: the reader
    gives up on the whole file because of this line, perhaps only for the line's owner.
    """

    reader: str
    takes: tuple[Entry, ...]
    remark: str
    fails: bool = False


class _Seen(NamedTuple):
    """A Reading without its reader's name; a line is at most one entry."""

    entry: Entry | None = None
    remark: str = ""
    fails: bool = False


def _anybody(owner: str) -> bool:  # noqa: ARG001 - see of_line
    return True


def of_line(raw: bytes, has_account: Callable[[str], bool] = _anybody) -> tuple[Reading, ...]:
    """How each of READERS understands one line, with or without its line end; takes any bytes.

    ``has_account`` tells whether an account has an owner as its name, or as its uid. Without it,
    every owner has one.
    """
    text = _text(raw.partition(b"\n")[0])
    seen = (
        _shadow(text),
        _shadow_420(text, has_account),
        _docker(text),
        _podman(text),
        _incus(text),
    )
    return tuple(
        Reading(reader, (line.entry,) if line.entry else (), line.remark, line.fails)
        for reader, line in zip(READERS, seen, strict=True)
    )


def as_shadow(raw: bytes) -> Entry | None:
    """How useradd understands one line, even one that begins with "#"; None: it skips it."""
    text = _text(raw.partition(b"\n")[0])
    return None if text[:1] in {"+", "-"} or _length(text) >= LINE_LIMIT else _shadow_entry(text)


def differ(readings: Iterable[Reading]) -> bool:
    """Tell whether the readers take different entries, or only some of them give up."""
    return len({(reading.takes, reading.fails) for reading in readings}) > 1


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _comment(text: str) -> bool:
    return not text or text.startswith("#")


def _joined(*remarks: str) -> str:
    return "; ".join(dict.fromkeys(filter(None, remarks)))


# --- shadow: lib/commonio.c, and subordinate_parse in lib/subordinateio.c


def _shadow(text: str) -> _Seen:
    if "\0" in text:
        return _Seen(
            remark="a NUL hides the line end: the line joins the next one; as the last line it "
            "fails the whole file"
        )
    # getsubids would look for an owner that begins with "#", but no account has such a name.
    if _comment(text.strip(GO_BLANKS)):
        return _Seen()
    if text[0] in "+-":
        return _Seen(remark="ignored: it begins with + or -, as entries for NIS do")
    if _length(text) >= LINE_LIMIT:
        return _Seen(remark=f"ignored: {LINE_LIMIT} bytes or more")
    entry = _shadow_entry(text)
    if entry is None:
        return _Seen(remark="ignored: a field is missing, empty, or not a number as C reads it")
    return _Seen(entry)


def _shadow_420(text: str, has_account: Callable[[str], bool]) -> _Seen:
    if "\0" in text:
        return _Seen(remark="the whole file fails: a NUL hides the line end", fails=True)
    seen = _shadow(text)
    if seen.entry is None:
        return seen
    owner, start, count = seen.entry
    if text.count(":") >= _FIELDS:
        return _Seen(remark="ignored: more than three fields")
    # The limits of id_t, and no sign before a number that is not 0.
    is_negative = any(
        value and "-" in field
        for field, value in zip(text.split(":")[1:], (start, count), strict=True)
    )
    if is_negative or start > _LAST or count > min(_LAST, _LAST + 1 - start):
        return _Seen(remark=f"ignored: a number below 0, or ids past {_LAST}")
    if not has_account(owner):
        return _Seen(remark="ignored: no account has the owner as its name or uid")
    return seen


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
    # strtoul(3) accepts a minus sign, and the value wraps.
    return (_C_MODULUS - value) % _C_MODULUS if sign == "-" else value


# --- Go's readers: numbers as strconv reads them


def _go_number(field: str) -> tuple[int, bool]:
    """What strconv.ParseInt returns for base 10 and 64 bits, and whether it returns no error.

    With an error the number is 0, or the limit that it exceeds.
    """
    match = _GO_NUMBER.match(field)
    if not match:
        return 0, False
    sign, digits = match.groups()
    value = int(digits) if len(digits) <= _DIGITS else _C_MODULUS
    # ParseInt stops past 64 bits, before it sees what follows the digits.
    if value < _C_MODULUS and match.end() < len(field):
        return 0, False
    if sign == "-":
        return -min(value, _GO_MODULUS), value <= _GO_MODULUS
    return min(value, _GO_MODULUS - 1), value < _GO_MODULUS


# --- Docker: ParseSubIDFilter and lookupSubRangesFile of moby/sys/user


def _docker(line: str) -> _Seen:
    if _length(line) >= SCANNER_LIMIT:
        return _Seen(
            remark=f"dockerd does not start: a line of {SCANNER_LIMIT} bytes or more", fails=True
        )
    text = line.strip(GO_BLANKS)
    if _comment(text):
        return _Seen()
    fields = text.split(":")
    owner, *numbers = (*fields, "", "")[:_FIELDS]
    (start, start_read), (count, count_read) = map(_go_number, numbers)
    remarks = [] if start_read else [f"it cannot read the start and takes {start}"]
    remarks += [] if count_read else [f"it cannot read the count and takes {count}"]
    if len(fields) != _FIELDS:
        remarks.append("Docker 20.10 does not start, for any owner")
    elif remarks:
        remarks.append("Docker 20.10 does not start if its user owns the line")
    # The daemon calculates with 64 bits, but the map of a container has 32.
    laid = (start % _LAID_MODULUS, count % _LAID_MODULUS)
    if laid != (start, count):
        remarks.append(f"cut to 32 bits: {laid[0]}:{laid[1]}")
    if remarks and laid[0] == 0 < laid[1]:
        remarks.insert(0, "container root becomes host root")
    return _Seen((owner, *laid), _joined(*remarks))


# --- Podman: parseSubidFile of containers/storage


def _podman(line: str) -> _Seen:
    seen, shadow = _podman_go(line), _shadow(line)
    # With a NUL the result depends on the next line.
    same = "\0" not in line and (seen.entry, seen.fails) == (shadow.entry, shadow.fails)
    return (
        seen
        if same
        else seen._replace(
            remark=_joined(seen.remark, "a build with libsubid reads it as shadow does")
        )
    )


def _podman_go(line: str) -> _Seen:
    if _length(line) >= SCANNER_LIMIT:
        return _Seen(remark=_REST, fails=True)
    text = line.strip(GO_BLANKS)
    if _comment(text):
        return _Seen()
    fields = text.split(":")
    if len(fields) != _FIELDS:
        return _Seen(remark="the whole file fails, for any owner: not three fields", fails=True)
    (start, start_read), (count, count_read) = map(_go_number, fields[1:])
    if not (start_read and count_read):
        remark = "the whole file fails for this owner: start or count is not a number"
        return _Seen(remark=remark, fails=True)
    return _Seen((fields[0], start, count))


# --- Incus: getFromShadow of its shared/idmap


def _incus(line: str) -> _Seen:
    if _length(line) >= SCANNER_LIMIT:
        return _Seen(remark=_REST, fails=True)
    text = line.removesuffix("\r").partition("#")[0]
    if not text:
        return _Seen()
    fields = text.split(":")
    if len(fields) < _FIELDS:
        return _Seen(
            remark="the whole file fails, for any owner: not three fields before a #",
            fails=True,
        )
    matches = [_INCUS_NUMBER.fullmatch(field) for field in fields[1:_FIELDS]]
    numbers = [int(match[1]) for match in matches if match and len(match[1]) <= _DIGITS]
    if len(numbers) < len(matches) or max(numbers) > ID_LIMIT:
        return _Seen(remark="ignored: start or count is not a decimal number below 2^32")
    start, count = numbers
    small = (
        f"Incus does not use a range of fewer than {INCUS_LEAST} ids" if count < INCUS_LEAST else ""
    )
    return _Seen((fields[0], start, count), small)
