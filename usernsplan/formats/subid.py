"""/etc/subuid and /etc/subgid, subuid(5): parsed without loss, edited without touching other lines.

The readers of these files (shadow, moby, containers/storage, incus) disagree. A line that all of
them understand alike is a Grant. Any other line is an Odd, with every range that at least one
reader takes it for.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidValueError
from usernsplan.formats.limits import LINE_LIMIT
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.mapping import Extent
from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple, dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.mapping import Kind

# Which file grants which ids.
PATHS: dict[Kind, str] = {"uid": SUBUID, "gid": SUBGID}

_GRANT = pattern(rb"([^\s\0:#+-][^\s\0:#]*):(0|[1-9][0-9]{0,18}):(0|[1-9][0-9]{0,18})\n?")
# incus reads unsigned numbers of 32 bits, all others of 63 or more.
_INCUS_MODULUS = 2**32
_MEANT = pattern(r"\+?0{0,1100}([0-9]{1,19})(?![0-9a-fA-FxX])")


class Grant(NamedTuple):
    """``owner:start:count`` that every reader understands alike. It may be empty or end past 2^32.

    Only shadow from 4.20 on skips one that ends past 2^32, which the kernel refuses, too.

    ``number`` is the line number, from 1; ``raw`` is the line with its line end.
    """

    number: int
    raw: bytes
    owner: str
    start: int
    stop: int


class Odd(NamedTuple):
    """A line that readers understand differently, a comment or a blank line.

    ``owners`` and ``spans`` (start, stop) are what any reader could take it for. ``problem`` says
    what is wrong; it is "" for a comment or a blank line.
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

    ``exists`` is False if the host has no such file; readers treat that as an empty file. ``raw``
    are the bytes, exactly as they were read.
    """

    lines: tuple[Line, ...] = ()
    exists: bool = True
    raw: bytes = b""

    def claimed(self) -> IdSet:
        """Every id that any reader could give to any owner."""
        return IdSet.clipped(self._spans())

    def _spans(self) -> Iterator[tuple[int, int]]:
        for line in self.lines:
            if isinstance(line, Grant):
                yield line.start, line.stop
            else:
                yield from line.spans

    def by_owner(self) -> dict[str, list[Line]]:
        """The lines that any reader could give to an owner (a login name, or a uid in decimal)."""
        found: dict[str, list[Line]] = {}
        for line in self.lines:
            if isinstance(line, Grant):
                found.setdefault(line.owner, []).append(line)
            else:
                for owner in line.owners:
                    found.setdefault(owner, []).append(line)
        return found

    def odd_lines(self) -> tuple[Odd, ...]:
        """The lines that readers understand differently, without comments and blank lines."""
        return tuple(line for line in self.lines if isinstance(line, Odd) and line.problem)


@lru_cache(maxsize=4)
def parse(raw: bytes | None) -> SubidFile:
    """Read the bytes of the file (None: it does not exist). Raises nothing and loses nothing.

    Results are cached, because a command reads both files before it takes the locks and again
    under them.
    """
    if raw is None:
        return SubidFile(exists=False)
    lines = [_line(number, text) for number, text in enumerate(_split(raw), 1)]
    return SubidFile(tuple(lines), raw=raw)


def owners(*several: SubidFile, of: IdSet | None = None) -> frozenset[str]:
    """The owners that have a line in one of the files that every reader reads alike.

    ``of``: only those with a line that grants some of these ids.
    """
    return frozenset(
        line.owner
        for file in several
        for line in file.lines
        if isinstance(line, Grant) and (of is None or of.meets(line.start, line.stop))
    )


def is_owner(name: str) -> bool:
    """Tell whether every reader accepts this owner, at least in a line with a short range."""
    try:  # not suppress: this runs for every allocation of a host
        raw = f"{name}:0:1".encode()
    except UnicodeEncodeError:
        return False
    return len(raw) < LINE_LIMIT and bool(_GRANT.fullmatch(raw)) and not name[0].isspace()


def line(owner: str, ids: IdRange) -> bytes:
    """A line in the form that every reader accepts.

    Raises InvalidValueError for an owner that some reader would not accept.
    """
    try:  # not suppress: this runs for every allocation of a plan
        text = f"{owner}:{ids.start}:{ids.count}\n".encode()
    except UnicodeEncodeError:
        text = b""
    if isinstance(_line(1, text), Grant):
        return text
    raise InvalidValueError(f"{owner!r} cannot be the owner of a line in subuid(5)")


def by_start(lines: Iterable[Grant]) -> list[Grant]:
    """The lines of one owner as Podman lays them: containers/storage sorts them by their start.

    Docker takes them in the order of the file.
    """
    return sorted(lines, key=lambda line: line.start)


def end_to_end(lines: Iterable[Grant], first: int = 0) -> list[Extent]:
    """The map that engines make of one owner's lines: an extent a line, from ``first`` on.

    Raises InvalidValueError for a line of no id, and for one that ends past 2^32.
    """
    found = []
    for line in lines:
        found.append(Extent(first, line.start, line.stop - line.start))
        first += line.stop - line.start
    return found


def usermod(owner: str, parts: Iterable[tuple[Kind, IdRange]]) -> tuple[str, ...]:
    """The command that grants ids to an owner. It takes FIRST-LAST, even for one id."""
    options = (
        word for kind, ids in parts for word in (f"--add-sub{kind}s", f"{ids.start}-{ids.last}")
    )
    return ("usermod", *options, owner)


def with_lines(raw: bytes, new: Iterable[bytes]) -> bytes:
    """The file with the ``new`` lines at its end; a missing line end before them is added."""
    added = b"".join(new)
    joint = b"\n" if added and raw and not raw.endswith(b"\n") else b""
    return raw + joint + added


def without_lines(raw: bytes, unwanted: Iterable[bytes]) -> bytes:
    """The file without the ``unwanted`` lines. Each removes one equal line, the last one first."""
    left = Counter(unwanted)
    kept = []
    for text in reversed(_split(raw)):
        if left[ended(text)] > 0:
            left[ended(text)] -= 1
        else:
            kept.append(text)
    return b"".join(reversed(kept))


def added_lines(before: bytes, after: bytes) -> tuple[bytes, ...]:
    """The lines of ``after`` that ``before`` lacks; repeated lines count as often as they occur."""
    if not after:
        return ()
    # Nearly every change adds a few lines at the end of a file that may have 100,000.
    shared = min(before, after, key=len)
    if shared.endswith(b"\n") and before.startswith(shared) and after.startswith(shared):
        before, after = before[len(shared) :], after[len(shared) :]
    return tuple((counted(after) - counted(before)).elements())


def counted(raw: bytes) -> Counter[bytes]:
    """How often each line occurs in the file; a missing last line end makes no difference."""
    return Counter(map(ended, _split(raw)))


def ended(text: bytes) -> bytes:
    """A line with its line end, which the file's last one may lack."""
    return text if text.endswith(b"\n") else text + b"\n"


def _split(raw: bytes) -> list[bytes]:
    """The lines with their line ends. Only LF ends a line, as for every reader of this file."""
    pieces = raw.split(b"\n")
    last = pieces.pop()
    return [piece + b"\n" for piece in pieces] + ([last] if last else [])


def _line(number: int, raw: bytes) -> Line:
    match = _GRANT.fullmatch(raw)
    if match and len(raw) - raw.endswith(b"\n") < LINE_LIMIT:
        name, first, size = match.groups()
        start, count = int(first), int(size)
        try:  # not suppress: this runs for every line of every file
            owner = name.decode()
        except UnicodeDecodeError:
            return _odd(number, raw)
        # Go trims every Unicode blank; incus rejects numbers of more than 32 bits.
        if not owner[0].isspace() and start < _INCUS_MODULUS and count < _INCUS_MODULUS:
            return Grant(number, raw, owner, start, start + count)
    return _odd(number, raw)


def _odd(number: int, raw: bytes) -> Odd:
    text = raw.decode("utf-8", "surrogateescape").rstrip("\n")
    if text in {"", "\r"} or text.startswith("#"):
        return Odd(number, raw, (), (), "")

    # Imported here because it is slow to load, and few files have odd lines.
    from usernsplan.formats import readers  # noqa: PLC0415

    bare = text.strip(readers.GO_BLANKS)
    if not bare or bare.startswith("#"):
        return Odd(
            number,
            raw,
            (),
            (),
            "a comment or an empty line that begins with a blank: incus fails on the file",
        )
    fields = text.split(":")
    readings = readers.of_line(raw)
    takes = [(reading.reader, *take) for reading in readings for take in reading.takes]
    owners = tuple(
        dict.fromkeys((fields[0], fields[0].strip(), *(owner for _, owner, _, _ in takes)))
    )
    if len(fields) < 3:  # noqa: PLR2004 - owner, start, count
        return Odd(number, raw, owners, (), "expected owner:start:count")
    meant = _meant(fields[1], fields[2])
    # Docker replaces a number that it cannot hold with the largest one. The kernel then refuses the
    # map, so such a range is never in use.
    laid = (
        (start, count)
        for who, _, start, count in takes
        if who != "docker" or start + count <= ID_LIMIT
    )
    spans = tuple(
        dict.fromkeys((start, start + count) for start, count in (*meant, *laid) if count > 0)
    )
    return Odd(
        number, raw, owners, spans, _problem(raw, fields, readable=bool(meant or readings[0].takes))
    )


def _meant(start: str, count: str) -> tuple[tuple[int, int], ...]:
    """The range that the author of a line meant, whether a program reads it or not.

    Blanks are trimmed and a comment is cut off.
    """
    matches = [_MEANT.match(field.strip()) for field in (start, count)]
    numbers = [int(match[1]) for match in matches if match]
    return ((numbers[0], numbers[1]),) if len(numbers) == len(matches) else ()


def _problem(raw: bytes, fields: list[str], *, readable: bool) -> str:
    if len(raw.rstrip(b"\n")) >= LINE_LIMIT:
        return f"{len(raw)} bytes: shadow rejects a line of {LINE_LIMIT} or more"
    if not fields[0].strip():
        return "no owner"
    if not readable:
        return "start or count is not a number"
    if raw.endswith(b"\r\n"):
        return "ends in CR LF: shadow skips it, Docker, Podman and incus read it"
    match = _GRANT.fullmatch(raw)
    if match and max(int(match[2]), int(match[3])) >= _INCUS_MODULUS:
        return "a number of more than 32 bits: Docker cuts it, incus skips the line"
    return "readers disagree on it: write owner:start:count in decimal, without blanks or a comment"
