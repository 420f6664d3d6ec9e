"""What sync did, as text and as JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan.escape import line, shown_path
from usernsplan.report import json_
from usernsplan.report.result import Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.model import Plan, Synced, Timer, Wish

_PREVIEW = ("dry run: nothing was written",)


def result(found: Synced, *, dry_run: bool) -> Result:
    """What was done, or would be."""
    findings = (
        *found.findings,
        *(finding for _, plan in found.done for finding in plan.findings),
        *found.repair.findings,
    )
    return Result(
        lambda: "\n".join(_lines(found, dry_run=dry_run)),
        partial(_document, found, dry_run=dry_run),
        findings,
        _PREVIEW if dry_run else (),
    )


def timer(found: Timer, *, dry_run: bool) -> Result:
    """What became of the timer."""
    verb = "installed" if found.installed else "removed"
    said = f"would be {verb}" if dry_run else verb
    text = f"{said}: {', '.join(map(shown_path, found.paths))}"
    if not found.changed:
        text = f"The timer is {'installed already' if found.installed else 'not installed'}."
    return Result(
        lambda: text,
        lambda: json_.document(
            "sync-timer",
            installed=found.installed,
            changed=found.changed,
            dry_run=dry_run,
            units=list(found.paths),
            notes=list(found.notes),
        ),
        (),
        (*found.notes, *(_PREVIEW if dry_run else ())),
    )


def _lines(found: Synced, *, dry_run: bool) -> Iterator[str]:
    if not found.changed and not found.refused:
        yield "This host is what the ledger of the fleet says of it."
        return
    for wish, plan in found.done:
        for a in plan.allocations if wish.strategy else ():
            verb = "would allocate" if dry_run else "allocated"
            yield f"{verb} {a.name}: {', '.join(map(str, a.mapping.uids.host_ranges()))}"
        if not wish.strategy:
            yield f"{'would release' if dry_run else 'released'} {line(wish.name)}"
    for name in found.repair.restored:
        yield f"{'would restore' if dry_run else 'restored'} the lines of {name}"
    if found.agreed:
        yield (
            "brought both ledgers to one state"
            if not dry_run
            else "would bring both ledgers to one state"
        )
    for one in found.refused:
        what = f"{'allocate' if one.wish.strategy else 'release'} {line(one.wish.name)}"
        yield f"refused to {what}, which {line(one.wish.role)} asked at {one.wish.at}: {line(one.why)}"
        yield from (f"  {line(text)}" for text in one.hint.splitlines())


def _document(found: Synced, *, dry_run: bool) -> str:
    return json_.document(
        "sync",
        changed=found.changed,
        dry_run=dry_run,
        agreed=found.agreed,
        done=[_done(wish, plan) for wish, plan in found.done],
        refused=[
            _wish(one.wish) | {"why": one.why, "hint": one.hint or None} for one in found.refused
        ],
        restored=list(found.repair.restored),
        findings=[
            json_.finding_fields(finding)
            for finding in (
                *found.findings,
                *(finding for _, plan in found.done for finding in plan.findings),
                *found.repair.findings,
            )
        ],
    )


def _done(wish: Wish, plan: Plan) -> dict[str, object]:
    has = plan.allocations if wish.strategy else ()
    held = next((a.reserved_range for a in has if a.name == wish.name), None)
    return _wish(wish) | {"reserved_range": json_.range_fields(held) if held else None}


def _wish(wish: Wish) -> dict[str, object]:
    return {
        "name": wish.name,
        "ask": "allocate" if wish.strategy else "release",
        "role": wish.role,
        "at": wish.at,
    }
