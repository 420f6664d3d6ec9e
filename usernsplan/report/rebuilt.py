"""A ledger that is made again, as a person reads it and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.escape import line
from usernsplan.model import LedgerState, Quarantined
from usernsplan.report import json_
from usernsplan.report.text import allocations, table

if TYPE_CHECKING:
    from usernsplan.planner.rebuild import Rebuilt


def text(rebuilt: Rebuilt) -> str:
    """What it holds, and what it lacks."""
    change = rebuilt.change
    kept = tuple(Quarantined(name, held, "") for name, held in change.quarantine)
    parts = [allocations(LedgerState(change.add, kept))]
    if change.volumes:
        rows = [(line(v.path), v.name, f"{v.mode} {v.user}".strip()) for v in change.volumes]
        parts.append(table(("volume", "whose", "how"), rows))
    lines = ["Left out, because it cannot be known:"]
    for one in rebuilt.left_out:
        lines.append(f"  {line(one.what)}: {line(one.why)}")
        lines += [f"    {line(text)}" for text in one.remedy.splitlines()]
    return "\n\n".join([*parts, "\n".join(lines)])


def document(rebuilt: Rebuilt, kept: str | None, *, done: bool) -> str:
    """The same as JSON; ``kept`` is where the damaged ledger is now."""
    change = rebuilt.change
    return json_.document(
        "ledger-rebuild",
        written=done,
        damaged=kept,
        allocations=[json_.allocation_fields(a) for a in change.add],
        quarantined=[
            {"name": name, "start": held.start, "count": held.count}
            for name, held in change.quarantine
        ],
        volumes=[
            {**json_.path_fields(v.path), "name": v.name, "mode": v.mode, "user": v.user or None}
            for v in change.volumes
        ],
        left_out=[
            {"what": one.what, "why": one.why, "remedy": one.remedy or None}
            for one in rebuilt.left_out
        ],
    )
