"""What other hosts of a fleet were asked, as text and as JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan.escape import line
from usernsplan.report import json_, text
from usernsplan.report.result import Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.layout import Layout
    from usernsplan.model import Asked


def result(found: Asked, layout: Layout, *, done: bool) -> Result:
    """What this host did, and what the others will do at their next sync."""
    plan = found.plan
    return Result(
        lambda: "\n\n".join(
            (
                *([text.plan(plan, layout, done=done)] if plan and plan.changed else ()),
                "\n".join(lines(found, done=done)),
            )
        ),
        partial(_document, found, layout, done=done),
        plan.findings if plan else (),
        plan.unseen if plan else (),
    )


def lines(found: Asked, *, done: bool) -> Iterator[str]:
    """What the others were asked, a line for each host."""
    ids = {a.name: a.reserved_range for a in found.allocations}
    asked = dict[str, list[str]]()
    for host, name in found.new:
        asked.setdefault(host, []).append(name)
    verb = "asked" if done else "would ask"
    for host, names in asked.items():
        shown = ", ".join(
            f"{line(name)} ({ids[name]})" if ids.get(name) else line(name) for name in names
        )
        yield f"{verb} {line(host)} to {found.ask} {shown}"
    if asked:
        yield "Each host does it at its next 'usernsplan sync'."
    elif not found.changed:
        has = "have" if found.ask == "allocate" else "lack"
        yield f"Nothing to ask: the hosts {has} these names, or are asked already."


def _document(found: Asked, layout: Layout, *, done: bool) -> str:
    return json_.document(
        "asked",
        changed=found.changed,
        dry_run=not done,
        ask=found.ask,
        hosts=list(found.hosts),
        asked=[{"host": host, "name": name} for host, name in found.new],
        ranges=[
            {"name": a.name, "start": a.reserved_range.start, "count": a.reserved_range.count}
            for a in found.allocations
            if a.reserved_range
        ],
        here=None if found.plan is None else json_.plan_fields(found.plan, layout, done=done),
    )
