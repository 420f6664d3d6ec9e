"""A ledger that is made again, as a person reads it and as JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan.escape import line
from usernsplan.model import LedgerState, Quarantined
from usernsplan.report import json_
from usernsplan.report.result import Result
from usernsplan.report.text import allocations, table

if TYPE_CHECKING:
    from usernsplan.planner.rebuild import Rebuilt


_PREVIEW = ("nothing was written: this is what would be",)


def result(rebuilt: Rebuilt, kept: str | None, *, dry_run: bool) -> Result:
    """What a ledger that is made again holds; ``kept`` is where the damaged one is now."""
    return Result(
        partial(_text, rebuilt),
        partial(_document, rebuilt, kept, dry_run=dry_run),
        notes=_PREVIEW if dry_run else (),
    )


def _text(rebuilt: Rebuilt) -> str:
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


def _document(rebuilt: Rebuilt, kept: str | None, *, dry_run: bool) -> str:
    change = rebuilt.change
    return json_.document(
        "ledger-rebuild",
        changed=True,
        dry_run=dry_run,
        damaged=None if kept is None else json_.path_fields(kept),
        allocations=[json_.allocation_fields(a) for a in change.add],
        quarantined=[json_.named_range_fields(name, held) for name, held in change.quarantine],
        volumes=[json_.volume_fields(v) for v in change.volumes],
        left_out=[
            {"what": one.what, "why": one.why, "remedy": one.remedy or None}
            for one in rebuilt.left_out
        ],
    )
