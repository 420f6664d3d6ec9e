"""The id space as an HTML page: picture, zoomable view, figures, and a table of everything. Pure.

The page is one file and fetches nothing. Its Content-Security-Policy allows only its own style and
script, by their hashes. Without scripts it still has the picture, the figures and the table. The
script reads the table, so the page has every name only once, as text.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from usernsplan.escape import lines, shown_path
from usernsplan.mapping import KINDS
from usernsplan.report import map_svg, scale

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.report.scale import Item
    from usernsplan.space import Kinds, Space

# The script gets at most this many conflicts of a segment.
_MARKED = 50
# The page lists at most this many conflicts above, and in a row of the table; it counts the rest.
_LISTED, _NAMED = 20, 3


def document(space: Space, title: str) -> str:
    """The whole page."""
    script, style = (_file(name) for name in ("map.js", "map.css"))
    style += map_svg.STYLE
    allowed = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    shown = _esc(title)
    parts = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        f'<meta http-equiv="Content-Security-Policy" content="{allowed}">\n',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
        '<meta name="color-scheme" content="light dark">\n',
        '<meta name="referrer" content="no-referrer">\n',
        f"<title>{shown}</title>\n<style>{style}</style>\n</head>\n<body>\n",
        f'<svg class="defs" width="0" height="0" aria-hidden="true">{map_svg.DEFS}</svg>\n',
        f'<header><h1>{shown}</h1><p><a href="#all">To the table</a></p></header>\n<main>\n',
        *_figures(space),
        *_conflicts(space),
        '<section aria-labelledby="h-picture"><h2 id="h-picture">The picture</h2>\n',
        map_svg.part(space, map_svg.WIDTH, "wide"),
        map_svg.part(space, map_svg.NARROW, "narrow"),
        "\n</section>\n",
        _ZOOM.format(' data-unseen="yes"' if space.unseen else ""),
        *_table(scale.with_free(space)),
        f"</main>\n<script>{script}</script>\n</body>\n</html>\n",
    )
    return "".join(parts)


# The script shows this section: without it nothing can be zoomed.
_ZOOM = """<section id="zoom" aria-labelledby="h-zoom" hidden><h2 id="h-zoom">A closer look</h2>
<p class="buttons"><label>Go to <select id="where"></select></label>
<button type="button" id="in">Zoom in</button> <button type="button" id="out">Zoom out</button>
<button type="button" id="left">Left</button> <button type="button" id="right">Right</button></p>
<div id="view"{} role="group" aria-label="The ids, closer"></div>
<p class="hint">
Zoom with the wheel or + and -; move by dragging or with the arrow keys; click a bar to go to it.</p></section>
<p id="detail" aria-hidden="true" hidden></p>
"""


def _figures(space: Space) -> Iterator[str]:
    yield '<section aria-labelledby="h-figures"><h2 id="h-figures">What is left</h2>\n<dl>'
    unseen = (("not seen", shown_path(note)) for note in space.unseen)
    for name, words in (*scale.left(space), *unseen):
        yield f"<div><dt>{_esc(name)}</dt><dd>{_esc(words)}</dd></div>"
    yield "</dl></section>\n"


def _conflicts(space: Space) -> Iterator[str]:
    found = list(scale.clashes(space))
    if found:
        yield '<section aria-labelledby="h-clash"><h2 id="h-clash" class="bad">'
        many = f"{len(found):,} conflict{'s' * (len(found) != 1)}"
        yield f"{many}: different owners for the same ids</h2>\n<ul>"
        yield from (f"<li>{_esc(shown_path(words))}</li>" for words in found[:_LISTED])
        if len(found) > _LISTED:
            yield f"<li>and {len(found) - _LISTED:,} more: see the table</li>"
        yield "</ul></section>\n"


def _table(items: Iterable[Item]) -> Iterator[str]:
    yield '<section aria-labelledby="h-all"><h2 id="h-all">Everything</h2>\n'
    yield '<div class="scroll" tabindex="0" role="region" aria-labelledby="h-all"><table id="all">'
    yield "<caption>Every claim on ids of this host, and the free ids of the pool, by first id"
    yield "</caption>\n<thead><tr>"
    for head in ("First", "Last", "Ids", "As", "Kind", "Name", "Details"):
        yield f'<th scope="col">{head}</th>'
    yield "</tr></thead>\n<tbody>\n"
    for item in items:
        segment = item.segment
        details = [shown_path(words) for words in segment.details]
        bad, clashes = "", f' data-n="{item.room}"' if segment.origin == "free" else ""
        if item.conflicts:
            places = " ".join(
                f"{c.ids.start}-{c.ids.stop}-{_as(c.kinds)}" for c in item.conflicts[:_MARKED]
            )
            bad, clashes = ' class="bad"', f' data-c="{places}"'
            words = ", ".join(str(c.ids) for c in item.conflicts[:_NAMED])
            more = len(item.conflicts) - _NAMED
            details.insert(0, f"CONFLICT at {words}" + (f" and {more:,} more" if more > 0 else ""))
        yield (
            f'<tr data-k="{segment.origin}" data-s="{_as(segment.kinds)}"{clashes}{bad}>'
            f"<td>{segment.ids.start}</td><td>{segment.ids.last}</td><td>{segment.ids.count}</td>"
            f"<td>{scale.as_words(segment.kinds)}</td><td>{scale.NAMES[segment.origin]}</td>"
            f'<th scope="row">{_esc(shown_path(segment.label))}</th>'
            f"<td>{_esc('; '.join(details))}</td></tr>\n"
        )
    yield "</tbody></table></div></section>\n"


def _as(kinds: Kinds) -> str:
    """Kinds as one word, for the script."""
    return "both" if kinds == KINDS else kinds[0]


def _file(name: str) -> str:
    return resources.files("usernsplan.report").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _esc(text: str) -> str:
    return escape(lines(text), quote=True)
