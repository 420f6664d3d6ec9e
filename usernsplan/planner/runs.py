"""An interrupted run of fix-volume: the fact, and the commands that finish or undo it. Pure.

check, plan, list, show and render all use these texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError
from usernsplan.escape import shell, shown_path
from usernsplan.layout import meet
from usernsplan.model import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.layout import Layout
    from usernsplan.model import RunSeen, Severity, UnfinishedRun

# The codes of the two findings, and their severity. audit.volumes explains them.
INTERRUPTED, UNKNOWN = "USN070", "USN071"
SEVERITY: Severity = "error"


def told(run: UnfinishedRun, layout: Layout) -> tuple[str, str]:
    """The fact about a run, and the remedy."""
    if run.problem:
        return run.problem, run.hint
    paths = ", ".join(shown_path(path) for path in run.paths)
    undo = layout.command(f"undo {shell(run.run)}")
    if run.is_undoing:
        return f"undoing run {run.run} on {paths} was interrupted", f"finish it: {undo}"
    finish = run.command or "call fix_volume again as before"
    return (
        f"run {run.run} on {paths} was interrupted",
        f"finish it: {finish}; or undo it: {undo}",
    )


def last_to_undo(runs: Sequence[RunSeen]) -> RunSeen | None:
    """The last run that can be undone; None if there is none.

    Raises RefusedError if a later run cannot be read, because it may be the last one.
    """
    for one in reversed(runs):
        if one.problem:
            raise RefusedError(
                f"it is unknown which run was the last: {one.problem}", hint=one.hint
            )
        if one.can_undo:
            return one
    return None


def findings(runs: Iterable[UnfinishedRun], layout: Layout) -> tuple[Finding, ...]:
    """Interrupted runs as findings of a plan."""
    return tuple(
        Finding(UNKNOWN if run.problem else INTERRUPTED, SEVERITY, *told(run, layout))
        for run in runs
    )


def half_way(path: str, runs: Iterable[UnfinishedRun]) -> UnfinishedRun | None:
    """The interrupted run that left the tree at, above or below a real path half-way."""
    return next((run for run in runs if any(meet(path, other) for other in run.paths)), None)
