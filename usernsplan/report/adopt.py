"""What stands on a host and can be adopted, as text and as a document."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from usernsplan import escape
from usernsplan.escape import utf8
from usernsplan.formats.passes import written
from usernsplan.mapping import KINDS
from usernsplan.report import json_
from usernsplan.report.result import Result
from usernsplan.report.text import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.layout import Layout
    from usernsplan.mapping import IdMap
    from usernsplan.model import Allocation, Finding
    from usernsplan.planner.standing import Found

# So many extents of a map are in a cell; --json has all.
_EXTENTS = 4
_HOSTS = " (the host's)"


def listed(
    found: Sequence[Found], layout: Layout, findings: Iterable[Finding], notes: Sequence[str]
) -> Result:
    """All that was found: what can be adopted, what the ledger has, and what is not understood."""
    heard = tuple(findings)
    return Result(
        partial(_text, found, layout),
        partial(_document, found, layout, heard, notes),
        heard,
        notes,
    )


def _text(found: Sequence[Found], layout: Layout) -> str:
    new = [one for one in found if one.is_new and one.allocation]
    known = [one for one in found if one.known]
    odd = [one for one in found if not one.known and not one.allocation]
    parts = []
    if new:
        rows = [
            (
                escape.line(one.name),
                _what(one, layout),
                *(_map(one.allocation, one.allocation.mapping[kind], kind) for kind in KINDS),
                _remark(one),
            )
            for one in new
            if one.allocation
        ]
        parts.append(table(("name", "what it is", "uid map", "gid map", ""), rows))
    else:
        parts.append("There is nothing to adopt.")
    if known:
        names = ", ".join(dict.fromkeys(escape.line(one.known) for one in known))
        parts.append(f"In the ledger already: {names}.")
    if odd:
        rows_ = [(_what(one, layout), _why(one)) for one in odd]
        parts.append(table(("not understood", "why"), rows_))
    if new:
        parts.append(
            f"Nothing was adopted. {layout.inline('adopt NAME')} adopts one, and "
            f"{layout.inline('adopt --all')} all that is certain; no file changes."
        )
    return "\n\n".join(parts)


def _what(one: Found, layout: Layout) -> str:
    place = [layout.path(one.place)] if one.place else []
    return "\n".join(map(escape.line, (one.what, *place)))


def _why(one: Found) -> str:
    return "\n".join(escape.line(text) for text in (one.why, one.hint) if text)


def _map(a: Allocation, ids: IdMap, kind: str) -> str:
    shown = {p.extent for p in a.passes if p.kind == kind}
    lines = [
        f"{e.container_range} -> {e.host_range}{_HOSTS if e in shown else ''}"
        for e in ids[:_EXTENTS]
    ]
    more = len(ids) - _EXTENTS
    return "\n".join([*lines, *([f"… and {more} more"] if more > 0 else [])])


def _remark(one: Found) -> str:
    a = one.allocation
    lines = [f"a slice of {a.within}'s lines"] if a and a.within else []
    if a and not a.within and not a.in_files:
        lines.append("it needs no line")
    if one.told:
        lines.append(one.told)
    if one.others:
        lines.append(f"shares ids with {' and '.join(one.others)}")
    return "\n".join(map(escape.line, lines))


def _document(
    found: Sequence[Found], layout: Layout, findings: Sequence[Finding], notes: Sequence[str]
) -> str:
    return json_.document(
        "adoptable",
        found=[_fields(one, layout) for one in found],
        findings=[json_.finding_fields(one) for one in findings],
        unseen=list(notes),
    )


def _fields(one: Found, layout: Layout) -> dict[str, Any]:
    a = one.allocation
    return {
        "name": utf8(one.name),
        "what": utf8(one.what),
        "place": utf8(layout.path(one.place)) if one.place else None,
        "known": one.known or None,
        "allocation": json_.allocation_fields(a) if a and not one.known else None,
        "pass": list(written(a.passes)) if a else [],
        "within": (a.within or None) if a else None,
        "others": [utf8(name) for name in one.others],
        "told": one.told or None,
        "why": one.why or None,
        "hint": one.hint or None,
    }
