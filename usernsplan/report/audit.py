"""What an audit found: for a person, for GitHub's runner, for a program; and the story of a rule."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from usernsplan.audit import SEVERITIES, story
from usernsplan.escape import line as _safe
from usernsplan.escape import utf8
from usernsplan.report.diff import unified
from usernsplan.report.json_ import change_fields, document, finding_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.audit import Repair
    from usernsplan.layout import Layout
    from usernsplan.model import Finding
    from usernsplan.report.colour import Paint

_COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}
# What GitHub's runner calls them.
_COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}
_PLACE = re.compile(r"(.*?)(?::([0-9]+))?(?::([0-9]+))?", re.DOTALL)


def table(found: Sequence[Finding], paint: Paint) -> str:
    """By severity: code, place and message of each, with the remedy below; and how many there are."""
    parts = []
    for severity in SEVERITIES:
        lines = []
        for finding in (f for f in found if f.severity == severity):
            place = f"{_safe(finding.place)}: " if finding.place else ""
            lines.append(
                f"  {paint(finding.code, _COLOURS[severity])} {paint(place, 'bold')}{_safe(finding.message)}"
            )
            width = max((len(row[0]) for row in finding.table), default=0)
            lines += [
                f"         {row[0]:{width}}  {_safe('  '.join(filter(None, row[1:])))}"
                for row in finding.table
            ]
            lines += [f"         {_safe(finding.hint)}"] if finding.hint else []
        if lines:
            parts.append(
                "\n".join((paint(_plural(severity, len(lines)), _COLOURS[severity]), *lines))
            )
    return "\n\n".join((*parts, summary(found)))


def summary(found: Sequence[Finding]) -> str:
    """How many there are, in a line."""
    if not found:
        return "Nothing found."
    counts = Counter(finding.severity for finding in found)
    first = next(
        finding.code for severity in SEVERITIES for finding in found if finding.severity == severity
    )
    numbers = ", ".join(f"{counts[s]} {_plural(s, counts[s])}" for s in SEVERITIES if counts[s])
    return f"{numbers}; 'usernsplan check --explain {first}' tells the story of one."


def _plural(severity: str, count: int) -> str:
    return severity if count == 1 or severity == "info" else f"{severity}s"


def github(found: Sequence[Finding]) -> str:
    """A workflow command for each: https://docs.github.com/actions/reference/workflow-commands-for-github-actions."""
    return "\n".join(map(_command, found))


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
    """As the runner unescapes a message: actions/toolkit, packages/core/src/command.ts."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def repair(it: Repair, layout: Layout) -> str:
    """What --fix would do."""
    lines = [unified(change, layout.path(change.path)) for change in it.changes]
    lines += [f"would remove {layout.path(path)}" for path in it.locks]
    lines += ["would end the interrupted run in the ledger"] if it.mends else []
    return "\n\n".join(lines) or "Nothing can be repaired."


def as_json(
    found: Sequence[Finding], layout: Layout, repaired: tuple[Repair, bool] | None = None
) -> str:
    """The result of check; of ``check --fix``, what it would repair, and whether it did."""
    counts = Counter(finding.severity for finding in found)
    more: dict[str, Any] = {}
    if repaired:
        it, done = repaired
        locks = [layout.path(path) for path in it.locks]
        more["repair"] = {
            "done": done,
            "changes": change_fields(it.changes, layout),
            "mends": it.mends,
            "locks": locks,
        }
    return document(
        "check",
        findings=[fields(f) for f in found],
        counts={severity: counts[severity] for severity in SEVERITIES},
        **more,
    )


def fields(finding: Finding) -> dict[str, Any]:
    """A finding, whole."""
    more: dict[str, Any] = {}
    if finding.table:
        more["table"] = [
            dict(zip(("reader", "takes", "remark"), row, strict=True)) for row in finding.table
        ]
    if finding.overlaps:
        more["overlaps"] = [
            {
                "place": one.place,
                "holder": utf8(one.holder),
                "ids": {"start": one.start, "count": one.stop - one.start},
            }
            for one in finding.overlaps
        ]
        more["overlaps_left_out"] = finding.overlaps_left_out
    return {
        **finding_fields(finding),
        "title": story(finding.code).title,
        "place": finding.place,
        **more,
    }


def explained(code: str, paint: Paint) -> str:
    """The story of a code."""
    found = story(code)
    head = f"{paint(found.code, _COLOURS[found.severity])} ({found.severity}): {paint(found.title, 'bold')}"
    return f"{head}\n\n{found.story}"


def explained_json(code: str) -> str:
    """The story of a code, for a program."""
    found = story(code)
    return document(
        "rule", code=found.code, severity=found.severity, title=found.title, story=found.story
    )
