"""The id space as a picture for a terminal: bars of characters, a list and figures. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from usernsplan.escape import shown_path
from usernsplan.ids import IdRange, IdSet
from usernsplan.mapping import KINDS
from usernsplan.report import scale
from usernsplan.space import BACKGROUND
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.report.colour import Paint
    from usernsplan.report.scale import Item, Region
    from usernsplan.space import Kinds, Origin, Space


class Style(NamedTuple):
    """How to draw: ``width`` in columns, whether the terminal shows Unicode, and its colours."""

    width: int
    unicode: bool
    paint: Paint


class _Mark(NamedTuple):
    character: str
    plain: str
    colour: str


_MARKS: dict[Origin, _Mark] = {
    "allocation": _Mark("█", "#", "blue"),
    "filler": _Mark("▞", "f", "blue"),
    "shared": _Mark("░", "~", "cyan"),
    "pass": _Mark("p", "p", "cyan"),
    "subid": _Mark("▒", "=", "yellow"),
    "account": _Mark("a", "a", "magenta"),
    "group": _Mark("g", "g", "magenta"),
    "namespace": _Mark("◆", "n", "green"),
    "unlisted": _Mark("o", "o", "yellow"),
    "quarantine": _Mark("x", "x", "dim"),
    "reservation": _Mark("r", "r", "cyan"),
    "reserved": _Mark("·", ".", "dim"),
    "absent": _Mark("≠", "/", "dim"),
    "useradd": _Mark("─", "-", "dim"),
    "pool": _Mark("_", "_", "dim"),
}
_CONFLICT = _Mark("!", "!", "red")
_NEXT = _Mark("▓", "%", "blue")  # every other allocation: neighbours differ
_HEIGHTS = " ▁▂▃▄▅▆▇"
_RANK = {origin: rank for rank, origin in enumerate(scale.ORDER)}
# A cell of these shows how much of it is taken.
_SHADED = {_RANK["allocation"], _RANK["subid"]}
_PART = _Mark("▁▄▇", ":+", "blue")
_NARROWEST = 40
_MARGIN = 5
# Lines listed for each region, and conflicts; --json has all.
_LISTED = 12
# A shorter piece of a name is unreadable.
_NAMED = 3


def picture(space: Space, style: Style, title: str) -> str:
    """The whole picture: all ids, the regions, conflicts, figures and a legend."""
    style = style._replace(width=max(style.width, _NARROWEST))
    items = scale.items(space)
    regions = scale.regions(space, items)
    parts = [
        [style.paint(_cut(title, style.width, style), "bold"), *_whole(items, style)],
        *([*_region(region, space, style)] for region in regions),
        [*_clashes(space, style)],
        [*_left(space, style)],
        [*_legend(items, style, space)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _whole(items: Sequence[Item], style: Style) -> Iterator[str]:
    cells = style.width - _MARGIN - 1
    edges = [scale.at(cell / cells) for cell in range(cells + 1)]
    for lane in scale.Region(scale.WHOLE, tuple(items)).lanes():
        yield _bar(items, edges, lane, style, named=False)
    yield _axis([(n, scale.share(n)) for n in scale.MARKS], cells)


def _region(region: Region, space: Space, style: Style) -> Iterator[str]:
    cells = style.width - _MARGIN - 1
    ids = region.ids
    edges = [ids.start + ids.count * cell // cells for cell in range(cells + 1)]
    claims = region.claims()
    words = _wrapped(f"{ids}  {scale.described(region, space)}", style, _MARGIN)
    yield from (words[0].replace(str(ids), style.paint(str(ids), "bold"), 1), *words[1:])
    for lane in region.lanes():
        yield _bar(region.items, edges, lane, style, named=True)
    yield _axis([(n, (n - ids.start) / ids.count) for n in scale.ticks(ids, cells // 22)], cells)
    # People know their accounts: list only those with conflicts.
    listed = [i for i in claims if i.conflicts or not scale.is_account(i.segment)]
    yield from (_line(item, style) for item in listed[:_LISTED])
    if len(listed) > _LISTED:
        more = f"  … {len(listed) - _LISTED:,} more, {listed[_LISTED].segment.ids.start}-…"
        yield more if style.unicode else more.replace("…", "...")


class _Cell(NamedTuple):
    """What a cell shows: the topmost claim in it, by its number."""

    rank: int = -1
    mark: _Mark = _Mark(" ", " ", "")
    number: int = -1


def _bar(
    items: Iterable[Item], edges: Sequence[int], lane: Kinds, style: Style, *, named: bool
) -> str:
    """A lane: each cell shows its topmost claim, or a conflict; names are put where there is room."""
    shown = [i for i in items if _is_in(i.segment.ids, i.segment.kinds, edges, lane)]
    cells = _topmost(shown, edges)
    clashes = (c for item in shown for c in item.conflicts if _is_in(c.ids, c.kinds, edges, lane))
    for its in {_cells_of(clash.ids, edges) for clash in clashes}:
        for cell in its:
            cells[cell] = _Cell(mark=_CONFLICT)
    text = [cell.mark.character if style.unicode else cell.mark.plain for cell in cells]
    for item in shown if named else ():
        if item.segment.origin not in BACKGROUND:
            _write_name(text, cells, item)
    lead = "" if lane == KINDS else lane[0]
    edge = "│" if style.unicode else "|"
    coloured = zip(text, (cell.mark.colour for cell in cells), strict=True)
    return f"{lead:>{_MARGIN - 1}}{edge}{_painted(coloured, style.paint)}{edge}"


def _topmost(shown: Iterable[Item], edges: Sequence[int]) -> list[_Cell]:
    """What each cell shows, without conflicts."""
    cells = [_Cell()] * (len(edges) - 1)
    odd = False
    for item in shown:
        ids, origin = item.segment.ids, item.segment.origin
        mark, its = _MARKS[origin], _cells_of(ids, edges)
        if origin == "allocation" and ids.count >= edges[its.start + 1] - edges[its.start]:
            odd = not odd
            mark = mark if odd else _NEXT
        new = _Cell(_RANK[origin], mark, item.number)
        for cell in its:
            if new.rank >= cells[cell].rank:
                cells[cell] = new
    for cell, share in enumerate(_shares(shown, edges)):
        if cells[cell].rank in _SHADED:
            cells[cell] = cells[cell]._replace(mark=_filled(cells[cell].mark, share))
    return cells


def _shares(items: Iterable[Item], edges: Sequence[int]) -> list[float]:
    """The part of each cell's ids that is taken, 0 to 1."""
    taken = [0] * (len(edges) - 1)
    for ids in IdSet(item.segment.ids for item in items if item.segment.origin not in BACKGROUND):
        if ids.overlaps(IdRange(edges[0], edges[-1] - edges[0])):
            for cell in _cells_of(ids, edges):
                taken[cell] += min(ids.stop, edges[cell + 1]) - max(ids.start, edges[cell])
    widths = (after - before for before, after in pairwise(edges))
    return [ids / width if width else 1 for ids, width in zip(taken, widths, strict=True)]


def _filled(mark: _Mark, share: float) -> _Mark:
    """A mark as high as its cell is full: a cell that is half free looks half free."""
    eighths = max(round(8 * share), 1)
    if eighths >= len(_HEIGHTS):
        return mark
    return _Mark(_HEIGHTS[eighths], "+" if eighths > len(_HEIGHTS) / 2 else ":", mark.colour)


def _is_in(ids: IdRange, kinds: Kinds, edges: Sequence[int], lane: Kinds) -> bool:
    """Tell whether a lane shows some of these ids between these edges."""
    return scale.is_in_lane(kinds, lane) and ids.start < edges[-1] and ids.stop > edges[0]


def _cells_of(ids: IdRange, edges: Sequence[int]) -> range:
    """The cells of some ids; a cell that is narrower than one id belongs to that id."""
    first = bisect_right(edges, max(ids.start, edges[0])) - 1
    return range(first, max(bisect_left(edges, min(ids.stop, edges[-1])), first + 1))


def _write_name(text: list[str], cells: Sequence[_Cell], item: Item) -> None:
    """Write a name after the first cell of its bar, if enough cells in a row show that bar."""
    mine = [n for n, cell in enumerate(cells) if cell.number == item.number]
    if len(mine) < _NAMED:
        return
    run = [n for place, n in enumerate(mine) if n == mine[0] + place][1:-1]
    label = item.segment.label
    if label.isascii() and label.isprintable() and len(run) >= min(len(label), _NAMED):
        for place, letter in zip(run, label, strict=False):
            text[place] = letter


def _painted(text: Iterable[tuple[str, str]], paint: Paint) -> str:
    """Paint neighbours of one colour together."""
    runs = (
        ("".join(letter for letter, _ in run), colour)
        for colour, run in groupby(text, key=lambda one: one[1])
    )
    return "".join(paint(run, colour) if colour else run for run, colour in runs)


def _axis(marks: Iterable[tuple[int, float]], cells: int) -> str:
    """Numbers below a bar, without those that would touch; the last one ends with the bar."""
    line = [" "] * (cells + _MARGIN + 1)
    ordered = list(marks)
    for number, part in [ordered[-1], *ordered[:-1]]:
        text = str(number)
        start = min(_MARGIN + round(part * cells), cells + _MARGIN - len(text))
        free = line[max(start - 1, 0) : start + len(text) + 1]
        if not "".join(free).strip():
            line[start : start + len(text)] = text
    return "".join(line).rstrip()


def _line(item: Item, style: Style) -> str:
    segment = item.segment
    mark = _CONFLICT if item.conflicts else _MARKS[segment.origin]
    only = "" if segment.kinds == KINDS else f" ({scale.as_words(segment.kinds)})"
    has_more = segment.origin in {"subid", "quarantine", "namespace"} and segment.details
    more = f"  {segment.details[0]}" if has_more else ""
    # The owner comes first: a narrow terminal cuts the rest.
    origin = "" if scale.called(segment) == segment.label else f"  {scale.NAMES[segment.origin]}"
    text = f"{segment.ids!s:<21} {shown_path(segment.label)}{origin}{only}{more}"
    character = mark.character if style.unicode else mark.plain
    return "  " + style.paint(character, mark.colour) + " " + _cut(text, style.width - 4, style)


def _clashes(space: Space, style: Style) -> Iterator[str]:
    found = list(scale.clashes(space))
    if found:
        many = "conflict" if len(found) == 1 else "conflicts"
        head = _wrapped(f"{len(found):,} {many}: different owners for the same ids", style, 4)
        yield from (style.paint(line, "red") for line in head)
        for words in found[:_LISTED]:
            first, *more = _wrapped(f"  ! {shown_path(words)}", style, 4)
            yield from (style.paint(first[:4], "red") + first[4:], *more)
        if len(found) > _LISTED:
            dots = "…" if style.unicode else "..."
            yield f"  {dots} {len(found) - _LISTED:,} more (--json has them)"


def _left(space: Space, style: Style) -> Iterator[str]:
    for name, words in scale.left(space):
        yield from _wrapped(f"{name:<12} {words}", style, 13)


def _legend(items: Iterable[Item], style: Style, space: Space) -> Iterator[str]:
    """The meaning of the characters that the picture has."""
    kinds = {item.segment.origin for item in items}
    found = [(_MARKS[origin], scale.NAMES[origin]) for origin in scale.NAMES if origin in kinds]
    if any(item.conflicts for item in items):
        found.insert(0, (_CONFLICT, "conflict"))
    if kinds & {"allocation", "subid"}:
        found.append((_PART, "partly taken" if space.unseen else "partly free"))
    line, length = "", 0
    for mark, name in found:
        marks = (mark, _NEXT) if name == "allocation" else (mark,)
        character = "".join(m.character if style.unicode else m.plain for m in marks)
        if length and length + len(character) + len(name) + 3 > style.width:
            yield line
            line, length = "", 0
        line += ("  " if length else "") + style.paint(character, mark.colour) + f" {name}"
        length += len(character) + len(name) + (3 if length else 1)
    if line:
        yield line


def _wrapped(text: str, style: Style, indent: int) -> list[str]:
    """A text on as many lines as it needs."""
    from textwrap import wrap  # noqa: PLC0415 - slow, and not for JSON

    return wrap(text, style.width, subsequent_indent=" " * indent, break_on_hyphens=False)


def _cut(text: str, width: int, style: Style) -> str:
    """A text cut to a width."""
    mark = "…" if style.unicode else "..."
    return text if len(text) <= width else text[: width - len(mark)] + mark
