"""The findings of an audit for people, GitHub's runner and programs; and the story of a code."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from usernsplan.audit import SEVERITIES, story
from usernsplan.escape import line as _safe
from usernsplan.escape import utf8
from usernsplan.patterns import pattern
from usernsplan.report.diff import unified
from usernsplan.report.json_ import (
    change_fields,
    document,
    finding_fields,
    path_fields,
    record_fields,
    streamed,
)
from usernsplan.report.result import Result
from usernsplan.report.text import records
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.audit import Repair
    from usernsplan.layout import Layout
    from usernsplan.model import Finding
    from usernsplan.report.colour import Paint

_COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}
# The severities of GitHub's runner.
_COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}
# How many lines are printed with one call.
_AT_A_TIME = 1000
_PLACE = pattern(r"(.*?)(?::([0-9]+))?(?::([0-9]+))?", re.DOTALL)


class Repaired(NamedTuple):
    """The repair of ``check --fix``, and whether it was done; a preview is never done."""

    repair: Repair
    is_done: bool
    is_preview: bool


def result(
    found: Sequence[Finding],
    layout: Layout,
    paint: Paint | None,
    repaired: Repaired | None = None,
    unseen: Sequence[str] = (),
) -> Result:
    """The findings of check; without ``paint``, the text is only commands for GitHub's runner.

    ``unseen`` are notes about what this user may not read.
    """
    return Result(
        partial(_text, found, paint),
        partial(_document, found, layout, repaired, unseen),
        notes=unseen,
    )


def _text(found: Sequence[Finding], paint: Paint | None) -> str | Iterator[str]:
    if paint is None:
        return github(found)
    # Colours pass only in a whole text, and nobody reads 100,000 findings on a terminal.
    return table(found, paint) if paint.on else _in_pieces(_lines(found, paint))


def table(found: Sequence[Finding], paint: Paint) -> str:
    """By severity: code, place, message and remedy of each finding; and the numbers of findings."""
    return "\n".join(_lines(found, paint))


def _in_pieces(lines: Iterator[str]) -> Iterator[str]:
    """Many lines at a time, so that a long text is printed fast and is never whole in memory."""
    while some := list(islice(lines, _AT_A_TIME)):
        yield "\n".join(some)


def _lines(found: Sequence[Finding], paint: Paint) -> Iterator[str]:
    for severity in SEVERITIES:
        several = [finding for finding in found if finding.severity == severity]
        if not several:
            continue
        colour = _COLOURS[severity]
        yield paint(_plural(severity, sum(map(_height, several))), colour)
        for finding in several:
            place = paint(f"{_safe(finding.place)}: ", "bold") if finding.place else ""
            yield f"  {paint(finding.code, colour)} {place}{_safe(finding.message)}"
            if finding.table:
                yield from _rows(finding)
            if finding.hint:
                yield f"         {_safe(finding.hint)}"
        yield ""
    yield summary(found)


def _height(finding: Finding) -> int:
    """The number of its lines."""
    return 1 + len(finding.table) + bool(finding.hint)


def _rows(finding: Finding) -> Iterator[str]:
    width = max(len(row[0]) for row in finding.table)
    for first, *others in finding.table:
        yield f"         {first:{width}}  {_safe('  '.join(filter(None, others)))}"


def summary(found: Sequence[Finding]) -> str:
    """The numbers of findings, on one line."""
    if not found:
        return "No problems found."
    counts = Counter(finding.severity for finding in found)
    first = next(one.code for s in SEVERITIES for one in found if one.severity == s)
    numbers = ", ".join(f"{counts[s]} {_plural(s, counts[s])}" for s in SEVERITIES if counts[s])
    return f"{numbers}; 'usernsplan check --explain {first}' explains the first."


def _plural(severity: str, count: int) -> str:
    return severity if count == 1 or severity == "info" else f"{severity}s"


def github(found: Sequence[Finding]) -> Iterator[str]:
    """A workflow command for each.

    https://docs.github.com/actions/reference/workflow-commands-for-github-actions
    """
    return map(_command, found)


def _command(finding: Finding) -> str:
    match = _PLACE.fullmatch(finding.place)
    file, line, column = match.groups() if match else ("", None, None)
    properties = {"file": file, "line": line, "col": column, "title": finding.code}
    words = ",".join(
        f"{key}={_property(_safe(value))}" for key, value in properties.items() if value
    )
    rows = (": ".join(filter(None, row)) for row in finding.table)
    message = "\n".join(map(_safe, filter(None, (finding.message, *rows, finding.hint))))
    return f"::{_COMMANDS[finding.severity]} {words}::{_data(message)}"


def _data(text: str) -> str:
    """Escape a message for the runner: actions/toolkit, packages/core/src/command.ts."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def repair(it: Repair, layout: Layout) -> str:
    """The changes that --fix would make."""
    lines = [unified(change, layout.path(change.path)) for change in it.changes]
    lines += ["\n".join(records(it.records, layout))] if it.records else []
    lines += [f"would remove {layout.path(path)}" for path in it.locks]
    lines += ["would close the interrupted run in the ledger"] if it.mends else []
    return "\n\n".join(lines) or "Nothing can be repaired."


def _document(
    found: Sequence[Finding], layout: Layout, repaired: Repaired | None, unseen: Sequence[str]
) -> Iterator[str]:
    counts = Counter(finding.severity for finding in found)
    more: dict[str, Any] = {}
    if repaired:
        it = repaired.repair
        more["repair"] = {
            "changed": it.needed if repaired.is_preview else repaired.is_done,
            "dry_run": repaired.is_preview,
            "changes": change_fields(it.changes, layout),
            "records": record_fields(it.records, layout),
            "mends": it.mends,
            "locks": [path_fields(layout.path(path)) for path in it.locks],
        }
    # A host of 100,000 lines may have as many findings.
    return streamed(
        "check",
        findings=map(fields, found),
        counts={severity: counts[severity] for severity in SEVERITIES},
        unseen=list(unseen),
        **more,
    )


def fields(finding: Finding) -> dict[str, Any]:
    """All fields of a finding."""
    return {
        **finding_fields(finding),
        "title": story(finding.code).title,
        "place": utf8(finding.place) or None,
        "table": [
            dict(zip(("reader", "takes", "remark"), row, strict=True)) for row in finding.table
        ],
        "overlaps": [
            {
                "place": utf8(one.place),
                "holder": utf8(one.holder),
                "ids": {"start": one.start, "count": one.stop - one.start},
            }
            for one in finding.overlaps
        ],
        "overlaps_left_out": finding.overlaps_left_out,
    }


def explained(code: str, paint: Paint) -> Result:
    """The story of a code."""
    found = story(code)
    severity = found.severity
    head = f"{paint(found.code, _COLOURS[severity])} ({severity}): {paint(found.title, 'bold')}"
    return Result(
        lambda: f"{head}\n\n{found.story}",
        lambda: document(
            "rule", code=found.code, severity=severity, title=found.title, story=found.story
        ),
    )
