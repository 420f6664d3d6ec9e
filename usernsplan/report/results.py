"""The results of commands, each as text and as a document."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan.report import json_, text
from usernsplan.report.result import Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.engines.base import Rendered, Verdict
    from usernsplan.layout import Layout
    from usernsplan.model import (
        Allocation,
        Change,
        FixReport,
        HistoryEntry,
        LedgerState,
        Plan,
        RenderRequest,
        RunSeen,
        Volume,
    )
    from usernsplan.volume.prune import Pruned


def planned(plan: Plan, layout: Layout, first: Sequence[str], *, done: bool) -> Result:
    """Allocate, release or forget; ``first`` are paragraphs that stand above the text."""
    return Result(
        lambda: "\n\n".join((*first, text.plan(plan, layout, done=done))),
        partial(json_.plan, plan, layout, done=done),
        plan.findings,
    )


def allocations(
    ledger: LedgerState,
    volumes: Sequence[tuple[Volume, str, str]],
    runs: Sequence[tuple[str, str, str]],
) -> Result:
    """What list shows. ``volumes`` and ``runs`` are as in json_.allocations_fields."""
    return Result(
        partial(text.allocations, ledger, volumes),
        partial(json_.allocations, ledger, volumes, runs),
    )


def allocation(
    found: Allocation,
    volumes: Sequence[tuple[Volume, str, str]],
    runs: Sequence[tuple[str, str, str]],
    of_it: Sequence[RunSeen],
    layout: Layout,
) -> Result:
    """What show shows; ``of_it`` are its runs of fix-volume."""
    return Result(
        partial(text.allocation, found, volumes, of_it),
        partial(json_.allocation, found, volumes, runs, of_it, layout),
    )


def history(entries: Sequence[HistoryEntry]) -> Result:
    """What was done, oldest first."""
    return Result(partial(text.history, entries), partial(json_.history, entries))


def runs(found: Sequence[RunSeen], layout: Layout) -> Result:
    """The runs of fix-volume, oldest first."""
    return Result(partial(text.runs, found), partial(json_.runs, found, layout))


def pruned(found: Pruned, *, dry_run: bool) -> Result:
    """Which journals were removed, and why the others stay."""
    return Result(
        partial(text.pruned, found.removed, dry_run=dry_run),
        partial(json_.pruned, found.removed, found.kept, dry_run=dry_run),
        notes=(f"run {name} stays: {why}" for name, why in found.kept),
    )


def fixed(report: FixReport, layout: Layout) -> Result:
    """What fix-volume or undo did."""
    return Result(
        partial(text.fixed, report, layout),
        partial(json_.fixed, report, layout),
        notes=report.notes,
    )


def rendered(
    request: RenderRequest,
    found: Rendered,
    changes: Sequence[Change] | None,
    layout: Layout,
    *,
    done: bool,
) -> Result:
    """What an engine reads; with ``changes``, what bringing it to its place below ``layout`` changed."""
    return Result(
        lambda: found.text if changes is None else text.placed(changes, layout, done=done),
        partial(json_.rendered, request, found, changes, layout, done=done),
        notes=found.notes,
    )


def engines(found: Sequence[tuple[str, Sequence[tuple[str, Verdict]]]]) -> Result:
    """What each engine can express, by allocation or strategy."""
    return Result(partial(text.engines, found), partial(json_.engines, found))
