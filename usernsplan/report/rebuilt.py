"""A rebuilt ledger as text and as JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan.escape import line
from usernsplan.model import LedgerState, Quarantined
from usernsplan.report import json_
from usernsplan.report.result import Result
from usernsplan.report.text import allocations, table

if TYPE_CHECKING:
    from usernsplan.layout import Layout
    from usernsplan.planner.rebuild import Rebuilt

_PREVIEW = ("dry run: nothing was written",)


def result(rebuilt: Rebuilt, layout: Layout, kept: str | None, *, dry_run: bool) -> Result:
    """The content of a rebuilt ledger. ``kept`` is the path of the damaged one."""
    return Result(
        partial(_text, rebuilt),
        partial(_document, rebuilt, layout, kept, dry_run=dry_run),
        notes=_PREVIEW if dry_run else (),
    )


def _text(rebuilt: Rebuilt) -> str:
    change = rebuilt.change
    kept = tuple(Quarantined(name, held, "") for name, held in change.quarantine)
    parts = [allocations(LedgerState(change.add, kept))]
    if change.volumes:
        rows = [(line(v.path), v.name, f"{v.mode} {v.user}".strip()) for v in change.volumes]
        parts.append(table(("volume", "container", "mode"), rows))
    if change.mounts:
        mounts = [
            (line(m.at), line(m.source), m.name, f"{m.mode} {m.user}".strip())
            for m in change.mounts
        ]
        parts.append(table(("mount", "volume", "container", "mode"), mounts))
    lines = ["Left out, because usernsplan cannot know it:"]
    for one in rebuilt.left_out:
        lines.append(f"  {line(one.what)}: {line(one.why)}")
        lines += [f"    {line(text)}" for text in one.remedy.splitlines()]
    return "\n\n".join([*parts, "\n".join(lines)])


def _document(rebuilt: Rebuilt, layout: Layout, kept: str | None, *, dry_run: bool) -> str:
    change = rebuilt.change
    return json_.document(
        "ledger-rebuild",
        changed=True,
        dry_run=dry_run,
        damaged=None if kept is None else json_.path_fields(kept),
        allocations=[json_.allocation_fields(a) for a in change.add],
        quarantined=[json_.named_range_fields(name, held) for name, held in change.quarantine],
        volumes=[json_.volume_fields(v) for v in change.volumes],
        mounts=[json_.mount_fields(m, layout) for m in change.mounts],
        left_out=[
            {"what": one.what, "why": one.why, "remedy": one.remedy or None}
            for one in rebuilt.left_out
        ],
    )
