"""The results of commands, each as text and as a document."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan.report import explained as text_explained
from usernsplan.report import json_, text
from usernsplan.report.result import Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.engines.base import Rendered, Support
    from usernsplan.fixing import Explained, FixReport
    from usernsplan.formats.accounts import Accounts
    from usernsplan.layout import Layout
    from usernsplan.model import (
        Allocation,
        Change,
        HistoryEntry,
        LedgerState,
        Plan,
        RenderRequest,
        RunSeen,
    )
    from usernsplan.report.recorded import Recorded
    from usernsplan.volume.prune import Pruned


def planned(plan: Plan, layout: Layout, first: Sequence[str], *, done: bool) -> Result:
    """Allocate, release or forget; ``first`` are paragraphs that stand above the text."""
    return Result(
        lambda: "\n\n".join((*first, text.plan(plan, layout, done=done))),
        partial(json_.plan, plan, layout, done=done),
        plan.findings,
        plan.unseen,
    )


def allocations(
    ledger: LedgerState, recorded: Recorded, layout: Layout, accounts: Accounts | None = None
) -> Result:
    """What list shows. ``accounts`` name the ids that pass through."""
    return Result(
        partial(text.allocations, ledger, recorded, accounts),
        partial(json_.allocations, ledger, recorded, layout),
    )


def allocation(
    found: Allocation,
    recorded: Recorded,
    of_it: Sequence[RunSeen],
    layout: Layout,
    accounts: Accounts | None = None,
) -> Result:
    """What show shows; ``of_it`` are its runs of fix-volume, ``accounts`` name what passes."""
    return Result(
        partial(text.allocation, found, recorded, of_it, accounts),
        partial(json_.allocation, found, recorded, of_it, layout),
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


def explained(found: Sequence[Explained]) -> Result:
    """What each method would mean for volumes."""
    return Result(partial(text_explained.text, found), partial(text_explained.document, found))


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


def engines(found: Sequence[tuple[str, Sequence[Support]]]) -> Result:
    """What each engine can express, by allocation or strategy."""
    return Result(partial(text.engines, found), partial(json_.engines, found))
