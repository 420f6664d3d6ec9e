"""The command map."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Optional

from usernsplan.cli.emit import colours, emit, write
from usernsplan.cli.options import Host, Json, OfFleet, Root, note, note_interrupted
from usernsplan.cli.words import Option
from usernsplan.errors import InvalidValueError
from usernsplan.escape import shown_path
from usernsplan.host import read
from usernsplan.host.files import layout_at
from usernsplan.host.unread import homes_unseen
from usernsplan.ledger import open_ledger
from usernsplan.report.result import Result
from usernsplan.space import Space, space

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.ledger import Ledger

_STDOUT = "-"


def map_(
    svg: Annotated[
        Optional[str],
        Option(metavar="FILE", help="Write an SVG picture; '-' is standard output."),
    ] = None,
    html: Annotated[
        Optional[str],
        Option(metavar="FILE", help="Write a page with zoom and a table; '-' is standard output."),
    ] = None,
    width: Annotated[
        Optional[int],
        Option(metavar="N", min=1, max=10000, help="Width in columns. Default: the terminal's."),
    ] = None,
    host: Host = None,
    fleet: OfFleet = False,
    root: Root = "/",
    json: Json = False,
) -> None:
    """Draw the host's ids: who has which, and what is free.

    Shows accounts, lines, allocations, quarantined ranges and conflicts. Each FILE is
    self-contained: it loads nothing from the network.

    \b
    Examples:
      usernsplan map
      usernsplan map --html ids.html
      usernsplan map --svg - > ids.svg
      usernsplan map --fleet
    """
    if [svg, html, _STDOUT if json else None].count(_STDOUT) > 1:
        raise InvalidValueError(
            "two results would go to standard output", hint="write one of them to a FILE"
        )
    if svg and html and os.path.realpath(svg) == os.path.realpath(html):
        raise InvalidValueError(
            f"{shown_path(svg)}: --svg and --html name the same file", hint="use two files"
        )
    layout = layout_at(root, exists=True)
    if host or fleet:
        from usernsplan.cli import across  # noqa: PLC0415 - only in a fleet

        of_fleet = across.views(layout, host)
        found, title, document = across.space(of_fleet, across.pool(layout))
        _show(found, title, lambda: document, svg, html, width, as_json=json)
        return

    store = open_ledger(layout)
    state, missed = read.with_homes(read.shown(layout, store.state))
    found = space(state)
    title = f"Ids of {'this host' if layout.is_host else shown_path(layout.root)}"
    from usernsplan.report import map_json  # noqa: PLC0415 - the pictures need none

    _show(found, title, partial(map_json.space, found), svg, html, width, as_json=json, of=store)
    note((*found.unseen, *homes_unseen(missed)))
    note_interrupted(state.ledger)


def _show(
    found: Space,
    title: str,
    document: Callable[[], str],
    svg: str | None,
    html: str | None,
    width: int | None,
    *,
    as_json: bool,
    of: Ledger | None = None,
) -> None:
    """Write the pictures, and print the result if no picture was asked for. ``of``: see emit."""
    for target, kind in ((svg, "svg"), (html, "html")):
        if target is not None:
            _write(target, _drawn(found, title, kind))
    if as_json or (svg is None and html is None):
        result = Result(partial(_terminal, found, title, width), document)
        emit(result, as_json=as_json, of=of)


def _terminal(found: Space, title: str, width: int | None) -> str:
    import shutil  # noqa: PLC0415 - slow, and only here

    from usernsplan.report import map_text  # noqa: PLC0415 - only one form is needed
    from usernsplan.report.colour import Paint  # noqa: PLC0415

    # Standard output is None if it is closed.
    encoding = (sys.stdout and sys.stdout.encoding) or "ascii"
    columns = width or shutil.get_terminal_size().columns
    style = map_text.Style(columns, encoding.lower().startswith("utf"), Paint(colours()))
    return map_text.picture(found, style, title)


def _drawn(found: Space, title: str, kind: str) -> str:
    from usernsplan.report import map_html, map_svg  # noqa: PLC0415 - only for pictures

    return map_svg.document(found, title) if kind == "svg" else map_html.document(found, title)


def _write(target: str, content: str) -> None:
    if target == _STDOUT:
        write(content.rstrip("\n"))
        return
    from usernsplan.host import output  # noqa: PLC0415 - only for files

    output.write(os.fspath(target), content.encode())
    note([f"wrote {shown_path(target)}"])
