"""Values as JSON documents. output.schema.json describes each kind.

Within one FORMAT_VERSION, fields are only added.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING, Any

from usernsplan.escape import shell, utf8
from usernsplan.holdings import has_lines
from usernsplan.layout import USERDB
from usernsplan.report.diff import unified

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.engines.base import Rendered, Support
    from usernsplan.errors import UsernsplanError
    from usernsplan.fixing import FixReport, Place
    from usernsplan.harden.policy import Policy
    from usernsplan.ids import IdRange
    from usernsplan.layout import Layout
    from usernsplan.mapping import IdMap, Pass
    from usernsplan.model import (
        Allocation,
        Change,
        Finding,
        HistoryEntry,
        LedgerState,
        Plan,
        RecordChange,
        RenderRequest,
        RunSeen,
        Volume,
        VolumeMount,
    )
    from usernsplan.report.recorded import Facts, Recorded

FORMAT_VERSION = 2
# The margin of what is in a list of a document.
_OF_ITEMS = "\n    "
# What every document has besides, while it is printed.
_BESIDES: dict[str, Any] = {}
# About as many characters of a long document are printed with one call.
_AT_A_TIME = 1 << 16


def plan(plan: Plan, layout: Layout, *, done: bool) -> str:
    """The document of allocate, release, release --forget or rename."""
    return document(plan.kind, **plan_fields(plan, layout, done=done))


def plan_fields(plan: Plan, layout: Layout, *, done: bool) -> dict[str, Any]:
    """A plan; remap has its volumes besides."""
    return {
        "changed": plan.changed,
        "dry_run": not done,
        "unfinished": plan.unfinished,
        "allocations": [allocation_fields(a) for a in plan.allocations],
        "changes": change_fields(plan.changes, layout),
        "account_commands": [
            shell(*layout.account_command(command)) for command in plan.account_commands
        ],
        "findings": [
            finding_fields(f) for f in (*(() if done else plan.consequences), *plan.findings)
        ],
        "next_steps": list(plan.next_steps),
        "records": record_fields(plan.records, layout),
        "accounts_gone": [one.name for one in plan.accounts_gone],
        "freed": [named_range_fields(q.name, q.reserved_range) for q in plan.freed],
        "unseen": list(plan.unseen),
    }


def range_fields(ids: IdRange) -> dict[str, int]:
    """A range of ids: first id and count."""
    return {"start": ids.start, "count": ids.count}


def named_range_fields(name: str, ids: IdRange) -> dict[str, Any]:
    """A range and the name that has, or had, it."""
    return {"name": name, "range": range_fields(ids)}


def extent_fields(ids: IdMap) -> list[dict[str, int]]:
    """The extents of a map, in its order."""
    return [
        {"container": container, "host": host, "count": count}
        for container, host, count in ids.triples()
    ]


def disk_fields(ids: IdMap) -> list[dict[str, int]]:
    """The extents of an idmapped mount: ids on disk, and the host ids as which they appear."""
    return [{"disk": disk, "host": host, "count": count} for disk, host, count in ids.triples()]


def finding_fields(f: Finding) -> dict[str, Any]:
    """A finding, as several documents have it."""
    return {"code": f.code, "severity": f.severity, "message": f.message, "hint": f.hint or None}


def change_fields(changes: Iterable[Change], layout: Layout) -> list[dict[str, str]]:
    """Files that change, as several documents have them."""
    return [
        {**path_fields(layout.path(c.path)), "diff": unified(c, layout.path(c.path))}
        for c in changes
    ]


def record_fields(changes: Iterable[RecordChange], layout: Layout) -> list[dict[str, Any]]:
    """Records of systemd that come or go, as several documents have them."""
    return [
        {
            "sign": sign,
            "name": record.name,
            "id": record.number,
            **path_fields(layout.path(f"{USERDB}/{record.name}.user")),
        }
        for sign, record in changes
    ]


def error_fields(error: UsernsplanError) -> dict[str, Any]:
    """An error: its stable code, message, remedy and exit status."""
    return {
        "code": error.code,
        "message": utf8("\n".join(error.lines or (str(error),))),
        "hint": utf8(error.hint) or None,
        "exit_status": int(error.exit_status),
        "notes": [utf8(note) for note in error.notes],
    }


def allocations(ledger: LedgerState, recorded: Recorded, layout: Layout) -> str:
    """The document of list: allocations_fields and the quarantined ranges."""
    return document(
        "list",
        **allocations_fields(ledger.allocations, recorded, layout),
        quarantined=[
            {**named_range_fields(q.name, q.reserved_range), "since": q.since}
            for q in ledger.quarantined
        ],
    )


def allocations_fields(
    found: Iterable[Allocation], recorded: Recorded, layout: Layout
) -> dict[str, Any]:
    """The fields that list and show share."""
    return {
        "allocations": [allocation_fields(a) for a in found],
        "volumes": [
            {
                **volume_fields(v),
                "right": not fact,
                "wrong": fact or None,
                "hint": remedy or None,
            }
            for v, fact, remedy in recorded.volumes
        ],
        "unfinished_runs": [
            {"run": run, "message": fact, "hint": remedy} for run, fact, remedy in recorded.runs
        ],
        "mounts": [
            {**mount_fields(mount, layout), **looks_fields(wrong)}
            for mount, wrong in recorded.mounts
        ],
    }


def looks_fields(wrong: Facts) -> dict[str, Any]:
    """Whether something is right, and what is wrong with it."""
    return {
        "right": not wrong,
        "wrong": [{"message": fact, "hint": remedy or None} for fact, remedy in wrong],
    }


def allocation(
    found: Allocation,
    recorded: Recorded,
    all_runs: Iterable[RunSeen],
    layout: Layout,
) -> str:
    """The document of show: allocations_fields and all runs of fix-volume for this name."""
    its = [run_fields(one, layout) for one in all_runs]
    return document("show", **allocations_fields([found], recorded, layout), runs=its)


def volume_fields(v: Volume) -> dict[str, Any]:
    """A recorded volume, as several documents have it."""
    return {**path_fields(v.path), "name": v.name, "mode": v.mode, "user": v.user or None}


def history(entries: Iterable[HistoryEntry]) -> str:
    """The document of history, oldest first."""
    return document(
        "history",
        entries=[{**deed_fields(e), "lines": list(e.changed)} for e in entries],
    )


def runs(found: Iterable[RunSeen], layout: Layout) -> str:
    """The document of history --runs and of undo without RUN, oldest first."""
    return document("runs", runs=[run_fields(one, layout) for one in found])


def run_fields(one: RunSeen, layout: Layout) -> dict[str, Any]:
    """A run of fix-volume, as several documents have it."""
    return {
        "run": one.run,
        "at": one.at or None,
        "state": one.state or None,
        "at_work": one.is_at_work,
        "container": one.container,
        "method": one.method,
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
    """The document of history --prune-runs."""
    return document(
        "prune-runs",
        changed=bool(removed),
        dry_run=dry_run,
        removed=[{"run": name, "bytes": size} for name, size in removed],
        bytes=sum(size for _, size in removed),
        kept=[{"run": name, "reason": why} for name, why in kept],
    )


def fixed(report: FixReport, layout: Layout) -> str:
    """The document of fix-volume or undo."""
    return document(report.kind, **fixed_fields(report, layout))


def fixed_fields(report: FixReport, layout: Layout) -> dict[str, Any]:
    """The report of fix-volume or undo; apply has several of them."""
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
        "skipped": _places(report.skipped),
        "failed": _places(report.failed),
        "dropped": _places(report.dropped),
        "mounts": [mount_fields(one, layout) for one in report.mounts],
        "notes": list(report.notes),
    }


def mount_fields(mount: VolumeMount, layout: Layout) -> dict[str, Any]:
    """An idmapped mount of a volume, as it was asked for."""
    return {
        **path_fields(layout.path(mount.at)),
        "source": path_fields(layout.path(mount.source)),
        "container": mount.name,
        "mode": mount.mode,
        "user": mount.user or None,
        "uid_map": disk_fields(mount.mapping.uids),
        "gid_map": disk_fields(mount.mapping.gids),
        "options": list(mount.options),
        "lasting": mount.lasting or None,
        "protect": mount.protect or None,
    }


def _places(places: Iterable[Place]) -> list[dict[str, str]]:
    return [{**path_fields(place.path), "reason": place.reason} for place in places]


def rendered(
    request: RenderRequest,
    found: Rendered,
    changes: Sequence[Change] | None,
    layout: Layout,
    *,
    done: bool,
) -> str:
    """The document of render. ``changes`` are the files that --out or --bundle wrote."""
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


def engines(found: Iterable[tuple[str, Iterable[Support]]]) -> str:
    """The document of render --list: what each engine supports, by allocation or strategy."""
    return document(
        "engines",
        engines=[
            {
                "engine": it.engine,
                "of": name,
                "fit": it.verdict.fit,
                "why": it.verdict.why,
                **_parts(it),
            }
            for name, supports in found
            for it in supports
        ],
    )


def _parts(it: Support) -> dict[str, Any]:
    if it.parts is None:
        return {}
    parts = it.parts.items()
    return {"policy": [{"part": part, "fit": one.fit, "why": one.why} for part, one in parts]}


def deed_fields(e: HistoryEntry) -> dict[str, Any]:
    """Who changed something, when, and with which command."""
    return {
        "at": e.at,
        "uid": e.actor.uid,
        "sudo_uid": e.actor.sudo_uid,
        "login_uid": e.actor.login_uid,
        "command": e.command,
    }


def path_fields(path: str) -> dict[str, str]:
    """A path; if it is not UTF-8, also its bytes in base64."""
    try:
        path.encode()
    except UnicodeEncodeError:
        import base64  # noqa: PLC0415 - seldom needed

        raw = path.encode("utf-8", "surrogateescape")
        return {"path": raw.decode("utf-8", "replace"), "path_b64": base64.b64encode(raw).decode()}
    return {"path": path}


def allocation_fields(a: Allocation) -> dict[str, Any]:
    """An allocation with all its fields."""
    return {
        "name": a.name,
        "owner": a.owner,
        "extra_owners": list(a.extra_owners),
        "split_owners": list(a.split_owners),
        "strategy": a.strategy,
        "uid_map": extent_fields(a.mapping.uids),
        "gid_map": extent_fields(a.mapping.gids),
        "reserved_range": range_fields(a.reserved_range) if a.reserved_range else None,
        "lines": has_lines(a),
        "since": a.since or None,
        "published": a.published,
        "passes": pass_fields(a.passes),
        "within": a.within or None,
        "local": a.local,
        "policy": policy_fields(a.policy) if a.policy else None,
    }


def policy_fields(policy: Policy) -> dict[str, Any]:
    """A policy, without what is as in its profile."""
    from usernsplan.harden.policy import written  # noqa: PLC0415 - many hosts have no policy

    return written(policy)


def pass_fields(passes: Iterable[Pass]) -> list[dict[str, Any]]:
    """Host ids that a private map shows: kind, container id, host id, count."""
    return [
        {"kind": p.kind, "container": e.container, "host": e.host, "count": e.count}
        for p in passes
        for e in [p.extent]
    ]


def document(kind: str, **fields: Any) -> str:
    """A document of this kind with these fields."""
    return "".join(_pieces(kind, fields))


def streamed(kind: str, **fields: Any) -> Iterator[str]:
    """The same, some lines at a time, so that a long document is never whole in memory.

    A field that is an iterator becomes a list, whose items are made while they are printed.
    """
    held = ""
    for piece in _pieces(kind, fields):
        held += piece
        if len(held) > _AT_A_TIME:
            lines, _, held = held.rpartition("\n")
            if lines:
                yield lines
    yield held


@contextmanager
def besides(**fields: Any) -> Iterator[None]:
    """Give these fields to each document that is made meanwhile, whatever its kind is."""
    _BESIDES.update(fields)
    try:
        yield
    finally:
        _BESIDES.clear()


def _pieces(kind: str, fields: dict[str, Any]) -> Iterator[str]:
    mark = "{"
    envelope = {"format_version": FORMAT_VERSION, "kind": kind, **_BESIDES}
    for key, value in {**envelope, **fields}.items():
        yield f"{mark}\n  {_quoted(key)}: "
        if isinstance(value, Iterator):
            yield from _items(value)
        else:
            yield laid_out(value, "\n  ")
        mark = ","
    yield "\n}"


def _items(values: Iterable[Any]) -> Iterator[str]:
    mark = "["
    for value in values:
        yield f"{mark}\n    {laid_out(value, _OF_ITEMS)}"
        mark = ","
    yield "\n  ]" if mark == "," else "[]"


def laid_out(value: Any, margin: str = "\n") -> str:  # noqa: ANN401 - whatever JSON can hold
    """The text of json.dumps with indent=2, in a third of its time; ``margin`` begins each line."""
    if isinstance(value, str):
        return _quoted(value)
    if type(value) is int:
        return str(value)
    if value is None:
        return "null"
    inner = f"{margin}  "
    if isinstance(value, dict):
        rows = [
            f"{inner}{_quoted(key if isinstance(key, str) else json.dumps(key))}:"
            # Nearly every value is a text: without a call for it.
            f" {_quoted(one) if type(one) is str else laid_out(one, inner)}"
            for key, one in value.items()
        ]
        return f"{{{','.join(rows)}{margin}}}" if rows else "{}"
    if isinstance(value, (list, tuple)):
        rows = [inner + laid_out(one, inner) for one in value]
        return f"[{','.join(rows)}{margin}]" if rows else "[]"
    return json.dumps(value)
