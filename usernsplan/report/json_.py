"""Values as JSON documents of FORMAT_VERSION: fields are only ever added. output.schema.json describes each kind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from usernsplan.escape import shell, utf8
from usernsplan.report.diff import unified

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.engines.base import Rendered, Verdict
    from usernsplan.errors import UsernsplanError
    from usernsplan.ids import IdRange
    from usernsplan.layout import Layout
    from usernsplan.mapping import IdMap
    from usernsplan.model import (
        Allocation,
        Change,
        Finding,
        FixReport,
        HistoryEntry,
        LedgerState,
        Plan,
        RenderRequest,
        RunSeen,
        Volume,
    )

FORMAT_VERSION = 2


def plan(plan: Plan, layout: Layout, *, done: bool) -> str:
    """The result of allocate, release or forget."""
    return document(
        plan.kind,
        changed=plan.changed,
        dry_run=not done,
        unfinished=plan.unfinished,
        allocations=[allocation_fields(a) for a in plan.allocations],
        changes=change_fields(plan.changes, layout),
        account_commands=[
            shell(*layout.account_command(command)) for command in plan.account_commands
        ],
        findings=[finding_fields(f) for f in plan.findings],
        next_steps=list(plan.next_steps),
        freed=[named_range_fields(q.name, q.reserved_range) for q in plan.freed],
    )


def range_fields(ids: IdRange) -> dict[str, int]:
    """A range of ids: the first, and how many."""
    return {"start": ids.start, "count": ids.count}


def named_range_fields(name: str, ids: IdRange) -> dict[str, Any]:
    """A range that a name has, or had."""
    return {"name": name, "range": range_fields(ids)}


def extent_fields(ids: IdMap) -> list[dict[str, int]]:
    """The extents of a map, in its order."""
    return [
        {"container": container, "host": host, "count": count}
        for container, host, count in ids.triples()
    ]


def finding_fields(f: Finding) -> dict[str, Any]:
    """A finding, as it stands in several results."""
    return {"code": f.code, "severity": f.severity, "message": f.message, "hint": f.hint or None}


def change_fields(changes: Iterable[Change], layout: Layout) -> list[dict[str, str]]:
    """Files that change, as they stand in several results."""
    return [
        {**path_fields(layout.path(c.path)), "diff": unified(c, layout.path(c.path))}
        for c in changes
    ]


def error_fields(error: UsernsplanError) -> dict[str, Any]:
    """An error: its stable code, what is wrong, the remedy, and the exit status of its own."""
    return {
        "code": error.code,
        "message": utf8("\n".join(error.lines or (str(error),))),
        "hint": utf8(error.hint) or None,
        "exit_status": int(error.exit_status),
        "notes": [utf8(note) for note in error.notes],
    }


def allocations(
    ledger: LedgerState,
    volumes: Iterable[tuple[Volume, str, str]],
    runs: Iterable[tuple[str, str, str]],
) -> str:
    """The result of list: what is allocated, and what is in quarantine; the rest as in allocations_fields."""
    return document(
        "list",
        **allocations_fields(ledger.allocations, volumes, runs),
        quarantined=[
            {**named_range_fields(q.name, q.reserved_range), "since": q.since}
            for q in ledger.quarantined
        ],
    )


def allocations_fields(
    found: Iterable[Allocation],
    volumes: Iterable[tuple[Volume, str, str]],
    runs: Iterable[tuple[str, str, str]],
) -> dict[str, Any]:
    """What list and show have in common.

    ``volumes`` are recorded volumes, each with what is wrong ("" where it is right) and the remedy; ``runs`` are the
    runs of fix-volume that were interrupted, each with the fact and the remedy.
    """
    return {
        "allocations": [allocation_fields(a) for a in found],
        "volumes": [
            {
                **volume_fields(v),
                "right": not fact,
                "wrong": fact or None,
                "hint": remedy or None,
            }
            for v, fact, remedy in volumes
        ],
        "unfinished_runs": [
            {"run": run, "message": fact, "hint": remedy} for run, fact, remedy in runs
        ],
    }


def allocation(
    found: Allocation,
    volumes: Iterable[tuple[Volume, str, str]],
    runs: Iterable[tuple[str, str, str]],
    of_it: Iterable[RunSeen],
    layout: Layout,
) -> str:
    """The result of show: as allocations has it, and all runs of fix-volume for it."""
    its = [run_fields(one, layout) for one in of_it]
    return document("show", **allocations_fields([found], volumes, runs), runs=its)


def volume_fields(v: Volume) -> dict[str, Any]:
    """A recorded volume, as it stands in several results."""
    return {**path_fields(v.path), "name": v.name, "mode": v.mode, "user": v.user or None}


def history(entries: Iterable[HistoryEntry]) -> str:
    """The result of history, oldest first."""
    return document(
        "history",
        entries=[{**deed_fields(e), "lines": list(e.changed)} for e in entries],
    )


def runs(found: Iterable[RunSeen], layout: Layout) -> str:
    """The result of history --runs, and of undo without a run; oldest first."""
    return document("runs", runs=[run_fields(one, layout) for one in found])


def run_fields(one: RunSeen, layout: Layout) -> dict[str, Any]:
    """A run of fix-volume, as it stands in several results."""
    return {
        "run": one.run,
        "at": one.at or None,
        "state": one.state or None,
        "at_work": one.is_at_work,
        "container": one.container,
        "mode": one.mode,
        "volumes": [path_fields(path) for path in one.paths],
        "bytes": one.size,
        "can_undo": one.can_undo,
        "undo": layout.command(f"undo {one.run}") if one.can_undo else None,
        "problem": one.problem or None,
        "hint": one.hint or None,
    }


def pruned(
    removed: Sequence[tuple[str, int]], kept: Iterable[tuple[str, str]], *, dry_run: bool
) -> str:
    """The result of history --prune-runs."""
    return document(
        "prune-runs",
        changed=bool(removed),
        dry_run=dry_run,
        removed=[{"run": name, "bytes": size} for name, size in removed],
        bytes=sum(size for _, size in removed),
        kept=[{"run": name, "reason": why} for name, why in kept],
    )


def fixed(report: FixReport, layout: Layout) -> str:
    """The result of fix-volume or undo."""
    return document(report.kind, **fixed_fields(report, layout))


def fixed_fields(report: FixReport, layout: Layout) -> dict[str, Any]:
    """What a fix-volume or undo did, also as a part of another result."""
    return {
        "run": report.run,
        "dry_run": report.dry_run,
        "changed": bool(report.counts["changed"]),
        "container": report.container,
        "mode": report.mode,
        "volumes": [path_fields(path) for path in report.volumes],
        "seconds": round(report.seconds, 3),
        "undo": layout.command(f"undo {shell(report.run)}")
        if report.run and report.kind == "fix-volume"
        else None,
        "counts": report.counts,
        "flattened": report.flattened,
        "kept": {"uids": report.kept_uids, "gids": report.kept_gids},
        "skipped": [
            {**path_fields(place.path), "reason": place.reason} for place in report.skipped
        ],
        "failed": [{**path_fields(place.path), "reason": place.reason} for place in report.failed],
        "dropped": [
            {**path_fields(place.path), "reason": place.reason} for place in report.dropped
        ],
        "notes": list(report.notes),
    }


def rendered(
    request: RenderRequest,
    found: Rendered,
    changes: Sequence[Change] | None,
    layout: Layout,
    *,
    done: bool,
) -> str:
    """The result of render; with ``changes``, what bringing it to its place below ``layout`` changed."""
    more: dict[str, Any] = {}
    if changes is not None:
        more = {
            "changed": bool(changes),
            "dry_run": not done,
            "changes": change_fields(changes, layout),
        }
    return document(
        "render",
        engine=request.engine,
        allocation=request.name,
        text=found.text,
        files=[
            {"path": file.path, "content": file.content, "into": file.into} for file in found.files
        ],
        notes=list(found.notes),
        **more,
    )


def engines(found: Iterable[tuple[str, Iterable[tuple[str, Verdict]]]]) -> str:
    """The result of render --list: what each engine can express, by allocation or strategy."""
    return document(
        "engines",
        engines=[
            {"engine": engine, "of": name, "fit": it.fit, "why": it.why}
            for name, verdicts in found
            for engine, it in verdicts
        ],
    )


def deed_fields(e: HistoryEntry) -> dict[str, Any]:
    """Who did something, when, and with which words."""
    return {
        "at": e.at,
        "uid": e.actor.uid,
        "sudo_uid": e.actor.sudo_uid,
        "login_uid": e.actor.login_uid,
        "command": e.command,
    }


def path_fields(path: str) -> dict[str, str]:
    """A path, and its bytes where they are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        import base64  # noqa: PLC0415 - seldom needed

        raw = path.encode("utf-8", "surrogateescape")
        return {"path": raw.decode("utf-8", "replace"), "path_b64": base64.b64encode(raw).decode()}
    return {"path": path}


def allocation_fields(a: Allocation) -> dict[str, Any]:
    """An allocation, whole."""
    return {
        "name": a.name,
        "owner": a.owner,
        "extra_owners": list(a.extra_owners),
        "strategy": a.strategy,
        "uid_map": extent_fields(a.mapping.uids),
        "gid_map": extent_fields(a.mapping.gids),
        "reserved_range": range_fields(a.reserved_range) if a.reserved_range else None,
        "since": a.since or None,
    }


def document(kind: str, **fields: Any) -> str:
    """A result: what it is, and its fields."""
    return json.dumps({"format_version": FORMAT_VERSION, "kind": kind, **fields}, indent=2)
