"""Maps that somebody wrote by hand: what no kernel or program takes, and what looks like a slip. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from usernsplan.claims.sources import OF_CONTAINERS
from usernsplan.errors import InvalidValueError
from usernsplan.ids import ID_LIMIT, OVERFLOW_ID
from usernsplan.mapping import KINDS, Extent, IdMap, around
from usernsplan.strategies import SLOT
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.ids import IdSet
    from usernsplan.mapping import Kind

# A gap of more container ids, or one between short extents, is no slip: somebody wants few ids.
_GAP, _LONG, _FEW = 100, 100, 3
# A map whose end is this near to the usual 65536 ids was meant to have these.
_NEAR = 1000


class Row(NamedTuple):
    """One line of a map. Its numbers may be impossible; ``at`` is its position in the container's map."""

    container: int
    host: int
    size: int
    at: int

    @property
    def end(self) -> int:
        """The container id after the last one."""
        return self.container + self.size

    @property
    def last(self) -> int:
        """The last host id."""
        return self.host + self.size - 1

    @property
    def base(self) -> int:
        """The host id that container id 0 would have."""
        return self.host - self.container

    @property
    def is_private(self) -> bool:
        """Tell whether the ids are those of containers, not ids of the host that pass through."""
        return self.host >= OF_CONTAINERS and self.host != self.container

    def __str__(self) -> str:
        return f"{self.container} {self.host} {self.size}"


class Found(NamedTuple):
    """What is wrong: the position of a line, the fact, and the line that was meant; "" if unknown.

    ``remedy`` is what to do where that is not to write the line that was meant.
    """

    at: int
    fact: str
    meant: str = ""
    remedy: str = ""


def refused(rows: Sequence[Row], kind: Kind) -> Found | None:
    """Why the kernel or LXC refuses a map; None if both take it.

    LXC wants container root mapped, as a uid and as a gid.
    """
    empty = next((row for row in rows if not row.size), None)
    if empty:
        return Found(empty.at, f"'{kind[0]} {empty}' maps no id: its count is 0")
    seen: dict[tuple[int, int, int], Row] = {}
    for row in rows:
        if row[:3] in seen:
            fact = f"'{kind[0]} {row}' is there twice: ids that overlap are no map for the kernel"
            return Found(row.at, fact, remedy="remove one of them; lxc.include may bring the other")
        seen[row[:3]] = row
    try:
        IdMap(Extent(row.container, row.host, row.size) for row in rows)
    except InvalidValueError as error:
        return Found(_culprit(rows).at, str(error), _split(rows, kind))

    if not any(row.container == 0 for row in rows):
        swapped = next((r for r in rows if r.host == 0 and r.container >= OF_CONTAINERS), None)
        if swapped:
            meant = f"{kind[0]} 0 {swapped.container} {swapped.size}"
            fact = f"'{kind[0]} {swapped}' has the host id first, so container root has no {kind}"
            return Found(swapped.at, fact, meant)
        alone = rows[0] if len(rows) == 1 and rows[0].is_private else None
        # Few ids may be left out on purpose, and then the host id goes with the container id.
        alone = alone if alone and alone.container >= _LONG else None
        meant = f"{kind[0]} 0 {alone.host} {alone.size}" if alone else ""
        return Found(rows[0].at, f"no line maps container root, {kind} 0", meant)
    return None


def lacks(kind: Kind, others: Sequence[Row]) -> Found:
    """The finding on a map without any line of this kind. ``others`` are its lines of the other one."""
    theirs: Kind = "gid" if kind == "uid" else "uid"
    base = next((row for row in sorted(others) if row.is_private), None)
    line = ""
    if base and base.host >= base.container:
        line = f"add {kind[0]} 0 {base.base} {max(row.end for row in others)}"
    return Found(0, f"it has a map of {theirs}s and none of {kind}s", remedy=line)


def _culprit(rows: Sequence[Row]) -> Row:
    """The first row that cannot be, or overlaps one before it; the last row otherwise."""
    for n, row in enumerate(rows):
        if max(row.end, row.last + 1) > ID_LIMIT:
            return row
        for other in rows[:n]:
            inside = row.container < other.end and other.container < row.end
            outside = row.host <= other.last and other.host <= row.last
            if inside or outside:
                return row
    return rows[-1]


def _split(rows: Sequence[Row], kind: Kind) -> str:
    """The map that was meant where one range was not split around the ids that pass; "" if unknown."""
    private = sorted(row for row in rows if row.is_private)
    passed = [row for row in rows if not row.is_private]
    if len(private) != 1:
        turned = _turned(rows, kind)
        if turned:
            return turned
    if not private or private[0].container or {row.base for row in private} != {private[0].base}:
        return _turned(rows, kind)
    end = max(row.end for row in private)
    size = SLOT if private[1:] and abs(end - SLOT) <= _NEAR else end
    return _around(private[0].base, size, passed, kind)


def _around(base: int, size: int, passed: Iterable[Row], kind: Kind) -> str:
    """The lines of a range that is split around ids that pass; "" if that is no map, or no split."""
    extents = [Extent(p.container, p.host, p.size) for p in passed]
    if not extents:
        return ""
    try:
        meant = around(base, size, extents)
    except InvalidValueError:
        return ""
    return ", ".join(f"{kind[0]} {extent}" for extent in meant)


def swapped(rows: Sequence[Row], kind: Kind, granted: IdSet) -> str:
    """The lines that were meant where a pass has the host id first, and no line grants the other one.

    The line for the pass is there: root:104:1 for the host's 104, which stands as container id.
    """
    private = sorted(row for row in rows if row.is_private)
    passed = [row for row in rows if not row.is_private]
    turned = [
        row._replace(container=row.host, host=row.container)
        if not granted.meets(row.host, row.last + 1)
        and granted.meets(row.container, row.end)
        and row.end <= OF_CONTAINERS
        else row
        for row in passed
    ]
    if turned == passed or not private or {row.base for row in private} != {private[0].base}:
        return ""
    return _around(private[0].base, max(row.end for row in rows), turned, kind)


def _turned(rows: Sequence[Row], kind: Kind) -> str:
    """The line that was meant where a pass has the host id first; "" for none."""
    wrong = _culprit(rows)
    for row in (wrong, *(r for r in rows if not r.is_private)):
        turned = row._replace(container=row.host, host=row.container)
        others = [other for other in rows if other is not row]
        try:
            IdMap(Extent(r.container, r.host, r.size) for r in (*others, turned))
        except InvalidValueError:
            continue
        if not row.is_private and row.container != row.host:
            return f"{kind[0]} {turned}"
    return ""


def slips(rows: Iterable[Row], kind: Kind, granted: IdSet) -> Iterator[Found]:
    """What looks like a slip in a map that the kernel takes.

    ``granted`` are the ids of the lines of the user who starts the container. Somebody who has
    several lines, or uses one to its last id, may want the ids as they are.
    """
    ordered = sorted(rows)
    private = [row for row in ordered if row.is_private]
    if not private:
        return
    found = [*_across(ordered, private, kind), *_shifts(private, kind, granted)]
    yield from found
    gaps = list(_gaps(ordered, private, kind))
    yield from gaps
    if ordered[1:] and private[0].container == 0 and not (found or gaps):
        before = private[-2] if private[1:] else None
        if not _is_packed(before, private[-1], granted):
            yield from _ends(ordered, private[-1], kind)


def _across(ordered: Sequence[Row], private: Sequence[Row], kind: Kind) -> Iterator[Found]:
    """Long extents of the container's own whose host ids begin among those of the host, by a digit."""
    base = private[0].base
    for row in ordered:
        is_low = row.host < OF_CONTAINERS < row.last and row.host != row.container
        if is_low and row.size >= _LONG and row.container:
            yield Found(
                row.at,
                f"'{kind[0]} {row}' gives the container the host ids {row.host}-{row.last}, and "
                f"those below {OF_CONTAINERS} are the host's; the rest of the map has "
                f"{base + row.container} there",
                f"{kind[0]} {row.container} {base + row.container} {_rest(row)}",
            )


def _shifts(private: Sequence[Row], kind: Kind, granted: IdSet) -> Iterator[Found]:
    """Extents whose host ids are a little off those of the others."""
    starts = {part.start for part in granted}
    # A line begins where container id 0 is meant to be; else the first extent says so.
    bases = [row.base for row in private if row.base in starts][:1] or [private[0].base]
    before = None
    for row in private:
        off = min((row.base - base for base in bases), key=abs)
        packed = _is_packed(before, row, granted)
        if 0 < abs(off) < _off_at_most(row.size) and row.host not in starts and not packed:
            right = row.host - off
            many = "1 id" if abs(off) == 1 else f"{abs(off)} ids"
            where = "above" if off > 0 else "below"
            yield Found(
                row.at,
                f"'{kind[0]} {row}' gives the container {kind} {row.container} the host id "
                f"{row.host}: {many} {where} the rest of the map, where it would be {right}",
                f"{kind[0]} {row.container} {right} {_rest(row)}",
            )
        elif off:
            bases.append(row.base)
        before = row


def _is_packed(before: Row | None, row: Row, granted: IdSet) -> bool:
    """Tell whether an extent goes on where the one before ends, and uses the line to its last id."""
    goes_on = before is not None and row.host == before.last + 1
    return goes_on and any(row.last + 1 == part.stop for part in granted)


def _off_at_most(count: int) -> int:
    """How far off an extent may be to look like a slip: few ids may be anywhere on purpose."""
    if count == 1:
        return _FEW
    return SLOT if count >= _LONG else _LONG


def _rest(row: Row) -> int:
    """The count with which a last extent reaches container id 65535, if that was nearly so."""
    return SLOT - row.container if abs(row.end - SLOT) <= _NEAR else row.size


def _gaps(ordered: Sequence[Row], private: Sequence[Row], kind: Kind) -> Iterator[Found]:
    """Container ids between two extents that no line maps."""
    first, last = private[0].container, private[-1].container
    for before, row in pairwise(ordered):
        missing = row.container - before.end
        if missing <= 0 or not first <= before.end <= last:
            continue
        beside_pass = not (before.is_private and row.is_private)
        long = min(before.size, row.size) >= _LONG
        if missing <= (_NEAR if beside_pass else _GAP if long else _FEW):
            ids = f"{before.end}-{row.container - 1}" if missing > 1 else f"{before.end}"
            yield Found(
                row.at,
                f"no line maps the container {kind}{'s' * (missing > 1)} {ids}, between "
                f"'{kind[0]} {before}' and '{kind[0]} {row}'",
            )


def _ends(ordered: Sequence[Row], last: Row, kind: Kind) -> Iterator[Found]:
    """A last extent that ends beside container id 65535, where the usual map ends."""
    over = last.end - SLOT
    meant = f"{kind[0]} {last.container} {last.host} {SLOT - last.container}"
    whole = last.size == SLOT and 0 < last.container < SLOT
    if last != ordered[-1] or last.container >= SLOT:
        return
    if whole or 0 < over <= _NEAR:
        yield Found(
            last.at,
            f"'{kind[0]} {last}' runs past container {kind} {SLOT - 1}, to {last.end - 1} "
            f"(host id {last.last})",
            meant,
        )
    elif -_NEAR <= over < 0 and last.end <= OVERFLOW_ID:
        yield Found(
            last.at,
            f"'{kind[0]} {last}' ends at container {kind} {last.end - 1}, so that nobody "
            f"({OVERFLOW_ID}) is not mapped",
            meant,
        )


def unlike(uids: Iterable[Row], gids: Iterable[Row], granted: dict[Kind, IdSet]) -> Found | None:
    """What looks like a slip between the two maps: container root's uid and gid are nearly alike."""
    root = [
        next((r for r in rows if r.container == 0 and r.is_private), None) for rows in (uids, gids)
    ]
    uid, gid = root
    if uid is None or gid is None or not 0 < abs(gid.host - uid.host) < SLOT:
        return None
    starts = [{part.start for part in granted[kind]} for kind in KINDS]
    if uid.host in starts[0] and gid.host in starts[1]:
        return None
    wrong, kind, right = (gid, "g", uid) if gid.host not in starts[1] else (uid, "u", gid)
    return Found(
        wrong.at,
        f"'{kind} {wrong}' and '{'u' if kind == 'g' else 'g'} {right}' give container root a uid and "
        f"a gid of the host that differ by {abs(gid.host - uid.host)}",
        f"{kind} 0 {right.host} {wrong.size}",
    )
