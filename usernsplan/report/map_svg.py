"""The id space as an SVG picture: all ids, and a bar for each region that contains claims. Pure.

It has no scripts, links or fonts of its own. Each bar has a ``title``. Kinds differ by pattern as
well as by colour. Colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING

from usernsplan.escape import lines, shown_path
from usernsplan.mapping import KINDS
from usernsplan.report import scale
from usernsplan.space import BACKGROUND
from usernsplan.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from usernsplan.ids import IdRange
    from usernsplan.report.scale import Item, Region
    from usernsplan.space import Conflict, Kinds, Origin, Segment, Space

WIDTH, NARROW = 1160, 360
CONFLICT, CONFLICT_DARK = "#d40000", "#ff4d4d"
# After Okabe and Ito: distinct with any kind of colour vision. Light fills get dark text.
FILLS: dict[Origin, str] = {
    "allocation": "#0072b2",
    "filler": "#7fb2d6",
    "shared": "#56b4e9",
    "pass": "#8fd6f4",
    "subid": "#e69f00",
    "account": "#cc79a7",
    "group": "#a8598a",
    "namespace": "#009e73",
    "unlisted": "#d55e00",
    "quarantine": "#9a9a9a",
    "reservation": "#f0e442",
    "reserved": "#bdbdbd",
    "absent": "#6b6b6b",
    "useradd": "#f3cf80",
    "pool": "#9ecae1",
}
# The pattern over the fill, in a square of 8: one for each kind.
_SHAPES: dict[Origin, str] = {
    "filler": "M0 0h4v4h-4zM4 4h4v4h-4z",
    "shared": "M0 8L8 0M-2 2L2 -2M6 10L10 6",
    "pass": "M2 0v8M6 0v8",
    "subid": "M0 0L8 8M-2 6L2 10M6 -2L10 2",
    "account": "M0 4h8",
    "group": "M4 0v8",
    "namespace": "M0 4h8M4 0v8",
    "unlisted": "M0 2h8M0 6h8",
    "quarantine": "M0 0L8 8M8 0L0 8",
    "reservation": "M3 3h2v2h-2z",
    "reserved": "M2 2h1v1h-1zM6 6h1v1h-1z",
    "absent": "M0 8L8 0",
    "useradd": "M0 7h8",
    "pool": "M1 0v8",
}
_LEFT, _RIGHT = 34, 8
_BAR, _GROUND, _GAP, _HATCH = 32, 5, 6, 12
_LANE = _BAR + 2 * _GROUND
# A narrower bar is invisible; bars this close together are drawn as one.
_NARROWEST = 2.0
# Each bar has at least this part of the height of its lane.
_LOWEST = 0.25
_LETTER = 7.2
_NAMED = 3
_TITLED = 8
_SMALL = BACKGROUND - {"free"} | {"account", "group", "namespace", "pass"}
# The Tab key stops at bars, unless there are too many to go through.
_STOPS, _STOP = 60, ' tabindex="0"'

_INK = "#1b1f24"
STYLE = "".join(
    (
        "svg.ids{font:12px system-ui,sans-serif;color-scheme:light dark;max-width:100%;height:auto}",
        ".ids text{fill:#1b1f24}.ids .bg{fill:#fff}",
        ".ids .frame{fill:#f3f4f6;stroke:#9aa1a9}.ids .tick{stroke:#9aa1a9}.ids .axis{font-size:11px;fill:#4a525b}",
        ".ids .head{font-weight:600;font-size:14px}.ids .sub{font-weight:400;fill:#4a525b}.ids .big{font-size:20px}",
        ".ids .edge{stroke:#fff;stroke-width:1}.ids .k{pointer-events:none;paint-order:stroke;stroke-width:4px;",
        f"stroke-linejoin:round;fill:{_INK}}}.ids .k-allocation{{fill:#fff}}.ids .k-free{{fill:#4a525b;stroke:none}}",
        "".join(f".ids .k-{origin}{{stroke:{fill}}}" for origin, fill in FILLS.items()),
        f".clash{{stroke:{CONFLICT};fill:url(#p-conflict)}}.cf{{fill:{CONFLICT}}}.ids .flag{{fill:{CONFLICT}}}",
        ".ids .bang{fill:#fff;font-weight:700;font-size:11px;text-anchor:middle;pointer-events:none}",
        ".ids g.s rect{shape-rendering:crispEdges}.ids g.s:focus{outline:none}",
        ".ids g.s:focus rect,.ids g.s:hover rect{stroke:#000;stroke-width:2}",
        ".shape{fill:none;stroke:#1b1f24;stroke-width:1;stroke-opacity:.45}.whole{stroke:none;fill:#1b1f24;",
        "fill-opacity:.45}",
        "@media(prefers-color-scheme:dark){.ids text{fill:#e8eaed}.ids .bg{fill:#15181c}",
        ".ids .frame{fill:#23272e;stroke:#6b737c}.ids .tick{stroke:#6b737c}.ids .axis,.ids .sub{fill:#b3bac2}",
        f".ids .edge{{stroke:#15181c}}.ids .k{{fill:{_INK}}}.ids .k-allocation{{fill:#fff}}",
        ".ids .k-free{fill:#b3bac2}",
        f".clash{{stroke:{CONFLICT_DARK}}}.cf,.ids .flag{{fill:{CONFLICT_DARK}}}",
        ".ids g.s:focus rect,.ids g.s:hover rect{stroke:#fff}}",
    )
)


@dataclass(slots=True)
class _Bar:
    """Items drawn as one bar. ``reach`` is where they end, ``taken`` how much of it they cover."""

    left: float
    right: float
    items: list[Item]
    reach: float
    taken: float

    @property
    def share(self) -> float:
        """How full it is: a bar that is half free looks half free, but never too low to see."""
        return min(max(self.taken / (self.right - self.left), _LOWEST), 1)


def document(space: Space, title: str) -> str:
    """The picture as a complete SVG file."""
    body, height = _draw(space, WIDTH, 74)
    shown = _esc(title)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ids" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="group" aria-label="{shown}"><title>{shown}</title>'
        f'<style>{STYLE}</style>{DEFS}<rect class="bg" width="{WIDTH}" height="{height}"/>'
        f'<text class="head big" x="8" y="30">{shown}</text>'
        f'<text x="8" y="52">{_esc(summary(space))}</text>'
    )
    return head + body + "</svg>\n"


def part(space: Space, width: int, name: str) -> str:
    """The picture as part of a page that has ``STYLE`` and ``DEFS``; ``name`` is its class."""
    body, height = _draw(space, width, 8)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ids {name}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}" role="group" aria-label="The host\'s ids">{body}</svg>'
    )


def summary(space: Space) -> str:
    """The host's conflicts and capacity, on one line."""
    many = len(space.conflicts)
    parts = [f"{many:,} conflict{'s' * (many != 1)}" if many else "no conflicts"]
    if space.capacity:
        c = space.capacity
        least, most = ("", "") if c.is_complete else ("at least ", "at most ")
        parts.append(f"{least}{c.used:,} of {c.pool.total():,} ids of the pool used")
        room = f"room for {most}{c.more:,} more of {c.count:,}"
        parts.append("its containers share their ids" if c.shared else room)
    return " · ".join(parts)


def _patterns() -> Iterator[str]:
    for origin, fill in FILLS.items():
        solid = "whole" if origin in {"filler", "reservation", "reserved"} else "shape"
        shape = f'<path class="{solid}" d="{_SHAPES[origin]}"/>' if origin in _SHAPES else ""
        yield (
            f'<pattern id="p-{origin}" width="8" height="8" patternUnits="userSpaceOnUse">'
            f'<rect width="8" height="8" fill="{fill}"/>{shape}</pattern>'
        )
    yield (
        '<pattern id="p-conflict" width="8" height="8" patternUnits="userSpaceOnUse">'
        '<rect class="cf" width="8" height="8"/>'
        '<path d="M0 8L8 0M-2 2L2 -2M6 10L10 6" stroke="#fff" stroke-width="1.5"/></pattern>'
    )


DEFS = f"<defs>{''.join(_patterns())}</defs>"


def _draw(space: Space, width: int, top: float) -> tuple[str, int]:
    """All bars, one below the other, and the legend; and their total height."""
    out: list[str] = []
    items = scale.with_free(space)
    inner = width - _LEFT - _RIGHT
    whole = scale.Region(scale.WHOLE, items)
    words = "linear to 1000, then logarithmic; the height of a bar shows how full it is"
    y = _heading(out, width, top, "All ids", words)
    y = _lanes(out, whole, lambda n: _LEFT + inner * scale.share(n), y, named=False)
    y = _axis(out, [(n, _LEFT + inner * scale.share(n)) for n in scale.MARKS], width, y)
    for region in scale.regions(space, items):
        out.append(f'<g data-region="{region.ids.start}-{region.ids.stop}">')
        y = _heading(out, width, y, str(region.ids), scale.described(region, space))
        x_of = _linear(region.ids, inner)
        y = _lanes(out, region, x_of, y, named=True)
        out.append("</g>")
        y = _axis(
            out, [(n, x_of(n)) for n in scale.ticks(region.ids, max(inner // 130, 2))], width, y
        )
    y = _legend(out, items, width, y)
    return "".join(out), round(y + 8)


def _linear(ids: IdRange, inner: int) -> Callable[[int], float]:
    return lambda number: _LEFT + inner * (number - ids.start) / ids.count


def _heading(out: list[str], width: int, y: float, ids: str, words: str) -> float:
    room = int((width - _LEFT) / _LETTER) - len(ids) - 2
    if len(words) > room:
        # Too long for the line of the heading: use lines of its own.
        out.append(f'<text class="head" x="{_LEFT}" y="{y + 16}">{_esc(ids)}</text>')
        for line in wrap(words, int((width - _LEFT) / _LETTER)):
            y += 17
            out.append(f'<text class="sub" x="{_LEFT}" y="{y + 16}">{_esc(line)}</text>')
        return y + 24
    more = f'<tspan class="sub" dx="10">{_esc(words)}</tspan>'
    out.append(f'<text class="head" x="{_LEFT}" y="{y + 16}">{_esc(ids)} {more}</text>')
    return y + 24


def _lanes(
    out: list[str], region: Region, x_of: Callable[[int], float], y: float, *, named: bool
) -> float:
    """The lanes of a region: flags at the top, then claims, and areas below them."""
    flagged = any(c.ids.overlaps(region.ids) for item in region.items for c in item.conflicts)
    for lane in region.lanes():
        y += 16 if flagged else 0
        left, right = x_of(region.ids.start), x_of(region.ids.stop)
        out.append(
            f'<rect class="frame" x="{_n(left)}" y="{y}" width="{_n(right - left)}" height="{_LANE}"/>'
        )
        if lane != KINDS:
            out.append(f'<text class="axis" x="6" y="{y + 20}">{lane[0]}</text>')
        seen = [i for i in region.items if scale.is_in_lane(i.segment.kinds, lane)]
        for origin in scale.ORDER:
            bars = list(_bars((i for i in seen if i.segment.origin == origin), region.ids, x_of))
            stop = _STOP if len(bars) <= _STOPS and origin not in BACKGROUND else ""
            out += (
                _bar(bar, origin, y, stop) + (_label(bar, lane, y, x_of) if named else "")
                for bar in bars
            )
        here = {c for i in seen for c in i.conflicts if scale.is_in_lane(c.kinds, lane)}
        _clashes(out, [c for c in here if c.ids.overlaps(region.ids)], region, x_of, y)
        y += _LANE + _GAP
    return y - _GAP


def _bars(items: Iterable[Item], within: IdRange, x_of: Callable[[int], float]) -> Iterator[_Bar]:
    """The bars of one kind; neighbours that are too narrow are joined."""
    bar: _Bar | None = None
    for item in items:
        ids = item.segment.ids
        left, right = x_of(max(ids.start, within.start)), x_of(min(ids.stop, within.stop))
        if bar and _joins(bar, left, right):
            bar.taken += max(right - max(left, bar.reach), 0)
            bar.reach = max(bar.reach, right)
            bar.right = max(bar.right, right)
            bar.items.append(item)
            continue
        if bar:
            if bar.share < 1 and left - bar.right < _NARROWEST / 2:
                # So narrow a gap would be a hairline; the height of the bar shows it.
                bar.right = left
            yield bar
        bar = _Bar(left, max(right, left + _NARROWEST), [item], right, right - left)
    if bar:
        yield bar


def _joins(bar: _Bar, left: float, right: float) -> bool:
    """Tell whether a bar would be invisible next to this one: too narrow, or over the same ids."""
    narrow = right - left < _NARROWEST and left < bar.left + _NARROWEST
    return narrow or (left == bar.left and right == bar.right)


def _bar(bar: _Bar, origin: Origin, y: float, stop: str) -> str:
    top, height = y, float(_BAR)
    if origin == "free":
        # Invisible: it is there for its title.
        return (
            f'<g class="s" role="img"><title>{_esc(titled(bar.items))}</title>'
            f'<rect x="{_n(bar.left)}" y="{_n(top)}" width="{_n(bar.right - bar.left)}" '
            f'height="{_n(height)}" fill="transparent"/></g>'
        )
    if origin in BACKGROUND:
        top, height = y + _BAR + (_GROUND if origin == "useradd" else 0), _GROUND
    elif origin == "namespace":
        top, height = y + _BAR - 8, 8
    elif origin == "pass":
        # Above the account that has the id.
        top, height = y, 8
    elif origin in {"account", "group"}:
        top, height = y + 8, _BAR - 8
    else:
        height *= bar.share
        # Quarantined ranges hang from the top, so that later allocations do not hide them.
        top = y if origin == "quarantine" else y + _BAR - height
    # The width of the rounded edges: neighbours then meet without a gap.
    width = round(bar.right, 1) - round(bar.left, 1)
    edge = ' class="edge"' if width > 4 * _NARROWEST and origin not in BACKGROUND else ""
    return (
        f'<g class="s"{stop} role="img"><title>{_esc(titled(bar.items))}</title>'
        f'<rect{edge} x="{_n(bar.left)}" y="{_n(top)}" width="{_n(width)}" '
        f'height="{_n(height)}" fill="url(#p-{origin})"/></g>'
    )


def _label(bar: _Bar, lane: Kinds, y: float, x_of: Callable[[int], float]) -> str:
    """The name in a bar, if there is room: after a claim that covers the bar's beginning."""
    segment, conflicts = bar.items[0].segment, bar.items[0].conflicts
    if len(bar.items) > 1 or segment.origin in _SMALL:
        return ""
    start = segment.ids.start
    for clash in conflicts:
        covers = clash.ids.start <= start < clash.ids.stop < segment.ids.stop
        if covers and scale.is_in_lane(clash.kinds, lane):
            start = clash.ids.stop
    left = max(bar.left, x_of(start))
    label = _short(shown_path(segment.label), bar.right - left - 10)
    place = f'x="{_n(left + 6)}" y="{_n(y + 15)}"'
    return f'<text class="k k-{segment.origin}" {place}>{_esc(label)}</text>' if label else ""


def _clashes(
    out: list[str], found: list[Conflict], region: Region, x_of: Callable[[int], float], y: float
) -> None:
    """Conflicts: red hatching over the lower part of the bar, with a flag above it."""
    within = region.ids
    segments = {item.number: item.segment for item in region.items} if found else {}
    spans: list[tuple[float, float, list[Conflict]]] = []
    for conflict in sorted(found, key=lambda c: (c.ids, c.first, c.second)):
        left = x_of(max(conflict.ids.start, within.start))
        right = max(x_of(min(conflict.ids.stop, within.stop)), left + 2 * _NARROWEST)
        if spans and left < spans[-1][1]:
            spans[-1][2].append(conflict)
            spans[-1] = (spans[-1][0], max(right, spans[-1][1]), spans[-1][2])
        else:
            spans.append((left, right, [conflict]))
    stop = _STOP if len(spans) <= _STOPS else ""
    flag = -100.0
    for left, right, several in spans:
        title = [f"{len(several):,} conflict{'s' * (len(several) != 1)}"]
        title += [
            shown_path(scale.clash(c, segments[c.first], segments[c.second]))
            for c in several[:_TITLED]
        ]
        title += [f"and {len(several) - _TITLED:,} more"] if len(several) > _TITLED else []
        words = "\n".join(title)
        middle = (left + right) / 2
        out.append(
            f'<g class="s"{stop} role="img"><title>{_esc(words)}</title>'
            f'<rect class="clash" x="{_n(left)}" y="{_n(y + _BAR - _HATCH)}" '
            f'width="{_n(right - left)}" height="{_HATCH}"/></g>'
        )
        if middle - flag >= 2 * _LETTER:
            out.append(f'<path class="flag" d="M{_n(middle)} {y}l-7 -13h14z"/>')
            out.append(f'<text class="bang" x="{_n(middle)}" y="{y - 4}">!</text>')
            flag = middle


def _axis(out: list[str], marks: list[tuple[int, float]], width: int, y: float) -> float:
    """Numbers below a bar: the first, the last, and those between that do not touch another."""
    taken: list[tuple[float, float]] = []
    for number, x in [marks[0], marks[-1], *marks[1:-1]]:
        half = len(str(number)) * 6.4 / 2
        centre = min(max(x, _LEFT + half), width - _RIGHT - half)
        if all(centre + half + 8 < left or right + 8 < centre - half for left, right in taken):
            taken.append((centre - half, centre + half))
            out.append(f'<path class="tick" d="M{_n(x)} {y}v4"/>')
            place = f'x="{_n(centre)}" y="{y + 16}"'
            out.append(f'<text class="axis" text-anchor="middle" {place}>{number}</text>')
    return y + 30


def _legend(out: list[str], items: Iterable[Item], width: int, y: float) -> float:
    kinds = {item.segment.origin for item in items}
    found = [
        (f'fill="url(#p-{origin})"', scale.NAMES[origin]) for origin in FILLS if origin in kinds
    ]
    if any(item.conflicts for item in items):
        found.insert(0, ('class="clash"', "conflict"))
    x = float(_LEFT)
    for fill, name in found:
        step = 24 + len(name) * _LETTER + 14
        if x > _LEFT and x + step > width:
            x, y = float(_LEFT), y + 22
        out.append(f'<rect {fill} x="{_n(x)}" y="{y}" width="18" height="14"/>')
        out.append(f'<text x="{_n(x + 24)}" y="{y + 12}">{_esc(name)}</text>')
        x += step
    return y + 22


def titled(items: list[Item]) -> str:
    """The title of a bar."""
    if len(items) == 1:
        return described(items[0].segment, conflicts=len(items[0].conflicts))
    first, last = items[0].segment, items[-1].segment
    if first.origin == "free":
        room = sum(item.room for item in items)
        span = f"{first.ids.start}-{last.ids.last}"
        return f"{len(items):,} free ranges, {span}: room for {room:,} more"
    names = [shown_path(i.segment.label) for i in items[:_TITLED]]
    names += ["…", shown_path(last.label)] if len(items) > _TITLED else []
    stop = max(i.segment.ids.last for i in items)
    return f"{scale.counted(items)}, {first.ids.start}-{stop}: {', '.join(names)}"


def described(segment: Segment, *, conflicts: int = 0) -> str:
    """A segment on a few lines."""
    only = "" if segment.kinds == KINDS else f", as {scale.as_words(segment.kinds)} only"
    lines = [
        shown_path(scale.called(segment)),
        f"{segment.ids} ({scale.ids(segment.ids.count)}{only})",
    ]
    lines += map(shown_path, segment.details)
    lines += [f"in {conflicts:,} conflict{'s' * (conflicts != 1)}"] if conflicts else []
    return "\n".join(lines)


def _short(text: str, width: float) -> str:
    """As much of a text as fits; "" if that is too little to read."""
    room = int(width / _LETTER)
    if len(text) <= room:
        return text
    return text[: room - 1] + "…" if room > _NAMED else ""


def _esc(text: str) -> str:
    return escape(lines(text), quote=True)


def _n(number: float) -> str:
    """A coordinate, rounded to tenths, without a trailing ".0"."""
    return f"{number:.1f}".removesuffix(".0")
