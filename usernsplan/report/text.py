"""Values as text for a terminal."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from usernsplan import escape
from usernsplan.escape import shell, shown_path
from usernsplan.formats import passes
from usernsplan.holdings import has_lines
from usernsplan.ids import IdSet
from usernsplan.layout import USERDB
from usernsplan.mapping import KINDS
from usernsplan.report.diff import unified
from usernsplan.report.recorded import Recorded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.engines.base import Support
    from usernsplan.fixing import FixReport
    from usernsplan.formats.accounts import Accounts
    from usernsplan.layout import Layout
    from usernsplan.mapping import Extent, IdMap, Kind, Mapping, Pass
    from usernsplan.model import (
        Actor,
        Allocation,
        Change,
        Finding,
        HistoryEntry,
        LedgerState,
        Plan,
        RecordChange,
        RunSeen,
    )

_HEADERS = ("name", "owner", "container ids", "host uids", "host gids")
# A history entry of thousands of names would bury the others; --json has all of it.
_LINES_SHOWN = 8
NOTHING = Recorded()
_PLACES_SHOWN = 20
_PASSES_SHOWN = 3
_EXTENTS_SHOWN = 2
_RECORDS = 10
UP_TO_DATE = "Already up to date."
DRY_RUN = "Dry run: nothing was written."
_KINDS = {
    "setuid": "setuid or setgid",
    "capability": "with a capability",
    "acl": "with an ACL",
    "device": "devices",
    "hard_link": "hard-linked",
}


def plan(plan: Plan, layout: Layout, *, done: bool) -> str:
    """A plan: the table, the diff of each file, and the next steps. Without ``done``, a preview."""
    parts = [table(_HEADERS, [_row(a) for a in plan.allocations])] if plan.allocations else []
    parts += plan_parts(plan, layout)
    if not done and (plan.account_commands or plan.accounts_gone):
        removed = tuple(("userdel", one.name) for one in plan.accounts_gone)
        words = (*plan.account_commands, *removed)
        commands = (shell(*layout.account_command(one)) for one in words)
        parts.append("\n".join(f"would run: {command}" for command in commands))

    if not plan.changed:
        parts.append(
            "No file changes, but something is left to do." if plan.unfinished else UP_TO_DATE
        )
    elif not done:
        parts.append(DRY_RUN)

    if plan.kind == "release":
        kept = ", ".join(f"{ids} ({name})" for name, ids in plan.ledger.quarantine)
        gone = f"{'Released' if done else 'Would be released'}: {', '.join(plan.ledger.remove)}."
        parts.append(f"{gone} Quarantined until forgotten: {kept}." if kept else gone)
    if plan.kind == "forget":
        freed = [f"{one.name} ({one.reserved_range})" for one in plan.freed] or plan.ledger.forget
        word = "Forgotten" if done else "Would be forgotten"
        parts.append(f"{word}: {', '.join(freed)}. The ranges can be allocated again.")
    for one in plan.allocations if plan.kind == "harden" else ():
        parts.append(f"Policy of {one.name}: {policy_words(one)}.")
    for old, new in plan.ledger.rename if plan.kind == "rename" else ():
        parts.append(f"{'Renamed' if done else 'Would be renamed'}: {old} is now {new}.")
    if plan.next_steps:
        parts.append("\n".join(("Next:", *(f"  {step}" for step in plan.next_steps))))
    return "\n\n".join(parts)


def plan_parts(plan: Plan, layout: Layout) -> Iterable[str]:
    """The diff of each file, and the records."""
    yield from (unified(change, layout.path(change.path)) for change in plan.changes)
    if plan.records:
        yield "\n".join(records(plan.records, layout))


def records(changes: Iterable[RecordChange], layout: Layout) -> Iterable[str]:
    """One line for each record of systemd that comes or goes, and one for all after the first few."""
    place = escape.line(layout.path(USERDB))
    for sign, several in groupby(changes, key=lambda one: one.sign):
        found = [record for _, record in several]
        for record in found[:_RECORDS]:
            name = escape.line(record.name)
            yield f"{sign} {place}/{name}.user and .group, with the id {record.number}"
        if more := found[_RECORDS:]:
            last = escape.line(more[-1].name)
            yield f"{sign} {len(more)} more, up to {last} with the id {more[-1].number}"


def findings(found: Iterable[Finding]) -> str:
    """Findings, one paragraph each."""
    return "\n".join(
        escape.told(f"{f.severity}: {f.message} [{f.code}]" + (f"\n  {f.hint}" if f.hint else ""))
        for f in found
    )


def allocations(
    ledger: LedgerState, recorded: Recorded = NOTHING, accounts: Accounts | None = None
) -> str:
    """All allocations, the quarantined ranges, and the volumes and mounts that look wrong.

    ``accounts`` name the ids that pass through.
    """
    parts = ["Nothing is allocated."]
    if ledger.allocations:
        parts = [
            table(
                (*_HEADERS, "strategy"),
                [
                    (*_row(a, accounts), a.strategy + " (local)" * a.local)
                    for a in ledger.allocations
                ],
            )
        ]
    if ledger.quarantined:
        rows = [(q.name, str(q.reserved_range), q.since) for q in ledger.quarantined]
        parts.append(table(("released", "quarantined ids", "since"), rows))
    if wrong := [
        (shown_path(v.path), v.name, f"{fact}\n{remedy}")
        for v, fact, remedy in recorded.volumes
        if fact
    ]:
        parts.append(table(("volume", "recorded as", "what is wrong, and the remedy"), wrong))
    if wrong := [
        (shown_path(m.at), m.name, f"{fact}\n{remedy}")
        for m, facts in recorded.mounts
        for fact, remedy in facts
    ]:
        parts.append(table(("mount", "of", "what is wrong, and the remedy"), wrong))
    return "\n\n".join(parts)


def allocation(
    a: Allocation,
    recorded: Recorded = NOTHING,
    runs: Iterable[RunSeen] = (),
    accounts: Accounts | None = None,
) -> str:
    """One allocation with its volumes and mounts, and all its ``runs``.

    ``accounts`` name the ids that pass through.
    """
    rows = [
        ("name", a.name),
        ("owner", ", and ".join(_owners(a))),
        ("strategy", a.strategy),
        ("since", a.since),
    ]
    if a.reserved_range:
        ids = f"{a.reserved_range} ({a.reserved_range.count} ids, uids and gids)"
        rows.append(("reserved", ids))
    for kind in KINDS:
        passed = {p.extent for p in a.passes if p.kind == kind}
        rows += [
            (
                "" if index else f"{kind}_map",
                _extent(extent.container, extent.host, extent.count)
                + (", passes through" if extent in passed else ""),
            )
            for index, extent in enumerate(a.mapping[kind])
        ]
    rows += [
        ("" if index else "passes", passes.told(one, accounts))
        for index, one in enumerate(a.passes)
    ]
    if unused := _unused(a):
        rows.append(("unused", unused))
    if a.local:
        rows.append(("local", "under this name, these ids are this host's alone"))
    if a.policy:
        rows.append(("policy", policy_words(a)))

    for v, fact, remedy in recorded.volumes:
        how = f"{shown_path(v.path)} ({' '.join(filter(None, (v.mode, v.user)))})"
        rows.append(("volume", f"{how}: {fact}\n{remedy}" if fact else f"{how}: looks right"))
    for m, facts in recorded.mounts:
        how = f"{shown_path(m.at)} of {shown_path(m.source)} ({' '.join(filter(None, (m.mode, m.user)))})"
        looks = "\n".join(line for fact in facts for line in fact if line) or "looks right"
        rows.append(("mount", f"{how}: {looks}"))
    its = list(runs)
    if earlier := its[:-_PLACES_SHOWN]:
        rows.append(("run", f"… {len(earlier)} earlier ones ('usernsplan history --runs')"))
    for one in its[-_PLACES_SHOWN:]:
        paths = ", ".join(map(shown_path, one.paths))
        rows.append(("run", f"{one.run} ({_how_far(one)}): {shown_path(one.mode or '')} {paths}"))
    return table((), rows)


def history(entries: Sequence[HistoryEntry]) -> str:
    """The entries of the history, oldest first."""
    if not entries:
        return "The history is empty."
    rows = [
        (
            entry.at,
            who(entry.actor),
            "\n".join(map(escape.line, (entry.command, *_few(entry.changed, _LINES_SHOWN)))),
        )
        for entry in entries
    ]
    return table(("when", "who", "command, and what changed"), rows)


def runs(found: Sequence[RunSeen]) -> str:
    """Runs of fix-volume, oldest first."""
    if not found:
        return "There is no run of fix-volume."
    rows = []
    for one in found:
        paths = [one.problem, one.hint] if one.problem else _few([*map(shown_path, one.paths)])
        cells = (one.run, one.at, _how_far(one), one.container, one.method, one.mode)
        rows.append(
            (*(shown_path(cell or "") for cell in cells), "\n".join(paths), f"{one.size} bytes")
        )
    return table(
        ("run", "when", "state", "container", "method", "mode", "volumes", "journal"), rows
    )


def _few(lines: Sequence[str], most: int = _PLACES_SHOWN) -> list[str]:
    """The first ``most`` lines, and how many more --json has."""
    more = len(lines) - most
    return [*lines[:most], *([f"… and {more} more (--json has them)"] if more > 0 else [])]


def _how_far(one: RunSeen) -> str:
    """The state of a run, for people."""
    if one.problem:
        return "unknown"
    if one.is_at_work:
        return f"{one.state}, at work"
    if one.state in {"changing", "undoing"}:
        return f"{one.state}, interrupted"
    return "undone in part" if one.state == "undone" and one.can_undo else one.state


def pruned(removed: Sequence[tuple[str, int]], *, dry_run: bool) -> str:
    """The journals that were removed, or would be, with their sizes."""
    verb = "would remove" if dry_run else "removed"
    lines = _few([f"run {name} ({size} bytes)" for name, size in removed])
    count = "1 run" if len(removed) == 1 else f"{len(removed)} runs"
    total = f"{verb.capitalize()} {count}, {sum(size for _, size in removed)} bytes."
    return "\n".join([*(f"{verb} {line}" for line in lines), total])


def fixed(report: FixReport, layout: Layout) -> str:
    """The report of fix-volume or undo: what it did, or would do."""
    if report.mounts or report.kind == "restore":
        return _mounted(report, layout)
    counts = report.counts
    who = f" for {report.container} ({report.mode})" if report.mode and report.container else ""
    would, did = (
        ("would restore", "restored") if report.kind == "undo" else ("would change", "changed")
    )
    verb = would if report.dry_run else did
    kinds = [f"{counts[kind]} {word}" for kind, word in _KINDS.items() if counts[kind]]
    of_them = f" ({', '.join(kinds)})" if kinds else ""
    right = f"already right {counts['right']}, in {report.seconds:.1f} s"
    lines = [
        f"{', '.join(map(shown_path, report.volumes))}{who}",
        f"  {verb} {counts['changed']}{of_them}, {right}",
    ]

    if new := counts["stragglers"]:
        lines.append(f"  {new} of these appeared during the run: something writes to the volume")
    if owners := report.flattened:
        lines.append(f"  {owners} different owners become one; --mode shift would keep them apart")
    for kind, kept in (("uid", report.kept_uids), ("gid", report.kept_gids)):
        if kept:
            ids = ", ".join(f"{kind} {i} ({n})" for i, n in kept.items())
            lines.append(f"  unchanged, because the map lacks them: {ids}")
    if report.dropped:
        lose = "would lose" if report.dry_run else "lost"
        what = "setuid, setgid or a capability that would pass to another id"
        lines.append(f"  {len(report.dropped)} {lose} {what}")
    for word, places in (
        ("lost", report.dropped),
        ("skipped", report.skipped),
        ("failed", report.failed),
    ):
        shown = _few([f"{shown_path(place.path)}: {place.reason}" for place in places])
        lines += [f"  {word}: {one}" for one in shown]

    if report.dry_run:
        lines.append(DRY_RUN)
    elif report.run and report.kind == "fix-volume":
        lines.append(f"Undo: {layout.command(f'undo {shell(report.run)}')}")
    return "\n".join(lines)


def _mounted(report: FixReport, layout: Layout) -> str:
    """The report of a run with the method idmap, or of its undo."""
    failed = {place.path for place in report.failed}
    is_idle = report.kind == "undo" and not report.counts["changed"]
    lines = []
    for mount in () if is_idle else report.mounts:
        place = layout.path(mount.at)
        how = f"for {mount.name} ({mount.mode}) at {shown_path(place)}"
        did = "would be " if report.dry_run else ""
        verb = f"{did}{'unmounted' if report.kind == 'undo' else 'mounted'}"
        if layout.place(mount.at) not in failed:
            lines.append(f"{shown_path(layout.path(mount.source))} {verb} {how}")
    lines += _few([f"failed: {shown_path(p.path)}: {p.reason}" for p in report.failed])
    if failed and not report.counts["changed"]:
        lines.append("  nothing was changed")
    if failed and report.kind == "undo":
        lines.append(f"Then run it again: {layout.command(f'undo {shell(report.run or str())}')}")
    elif not report.counts["changed"] and not failed:
        lines.append("Nothing had to be unmounted." if is_idle else "  nothing had to be changed")
    if report.dry_run:
        lines.append(DRY_RUN)
    elif report.run and report.kind == "fix-volume":
        lines.append(f"Undo: {layout.command(f'undo {shell(report.run)}')}")
    return "\n".join(lines)


def placed(changes: Sequence[Change], layout: Layout, *, done: bool) -> str:
    """The diffs of the files that render wrote, or would write."""
    if not changes:
        return UP_TO_DATE
    parts = [unified(change, layout.path(change.path)) for change in changes]
    return "\n\n".join(parts if done else [*parts, DRY_RUN])


def engines(found: Sequence[tuple[str, Sequence[Support]]]) -> str:
    """What each engine supports: with reasons for one allocation, without for several."""
    if len(found) == 1:
        [(name, supports)] = found
        if any(it.parts for it in supports):
            return _with_parts(name, supports)
        rows = [(it.engine, it.verdict.fit, it.verdict.why) for it in supports]
        return table(("engine", f"'{name}'", "why"), rows)

    names = [it.engine for it in found[0][1]]
    cells = [[it.verdict.fit for it in supports] for _, supports in found]
    return table(("engine", *(name for name, _ in found)), list(zip(names, *cells, strict=True)))


def _with_parts(name: str, supports: Sequence[Support]) -> str:
    """What each engine makes of an allocation and of each part of its policy; then the reasons."""
    asked = list(dict.fromkeys(part for it in supports for part in it.parts or ()))
    rows, reasons = [], []
    for it in supports:
        parts = it.parts or {}
        fits = (parts[part].fit if part in parts else "" for part in asked)
        rows.append((it.engine, it.verdict.fit, *fits))

        by_reason: dict[str, list[str]] = {}
        for part, verdict in {f"'{name}'": it.verdict, **parts}.items():
            if verdict.why:
                by_reason.setdefault(verdict.why, []).append(part)
        reasons += [(it.engine, ", ".join(alike), why) for why, alike in by_reason.items()]

    head = table(("engine", f"'{name}'", *asked), rows)
    return f"{head}\n\n{table(('engine', 'of', 'why'), reasons)}"


def who(actor: Actor) -> str:
    """The user who ran a command."""
    via = f" (sudo by {actor.sudo_uid})" if actor.sudo_uid is not None else ""
    login = f", login {actor.login_uid}" if actor.login_uid is not None else ""
    return f"uid {actor.uid}{via}{login}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns. Numbers stay as they are written."""
    from tabulate import tabulate  # noqa: PLC0415 - a third of list's start-up

    return tabulate(rows, headers, tablefmt="simple" if headers else "plain", disable_numparse=True)


def _owners(a: Allocation) -> tuple[str, ...]:
    """The owners of the lines."""
    if a.within:
        return (f"(within {a.within})",)
    return (a.owner, *a.extra_owners) if has_lines(a) else ("(no lines)",)


def _row(a: Allocation, accounts: Accounts | None = None) -> tuple[str, ...]:
    container = [str(extent.container_range) for extent in a.mapping.uids]
    if a.passes:
        # The holes of one kind are no holes of the container.
        container = [*map(str, IdSet(e.container_range for e in a.mapping.uids))]
    return (
        a.name,
        ", ".join(_owners(a)),
        ", ".join(container),
        *(_hosts(a, kind, accounts) for kind in KINDS),
    )


def _hosts(a: Allocation, kind: Kind, accounts: Accounts | None) -> str:
    """The host ids of one kind: its own as one range, even with holes, and those that pass."""
    if not a.passes:
        return _ranges(a.mapping[kind])
    passed = [p for p in a.passes if p.kind == kind]
    hidden = {p.extent for p in passed}
    own = [e.host_range for e in a.mapping[kind] if e not in hidden]
    held = a.reserved_range
    if held and all(held.start <= ids.start and ids.stop <= held.stop for ids in own):
        own = [held]
    shown = [_passed(one, accounts) for one in passed[:_PASSES_SHOWN]]
    more = f" and {len(passed) - _PASSES_SHOWN} more" if passed[_PASSES_SHOWN:] else ""
    through = f"passes {', '.join(shown)}{more}" if shown else ""
    return ", ".join(filter(None, [*map(str, own), through]))


def _passed(one: Pass, accounts: Accounts | None) -> str:
    whose = passes.names_in(one.kind, one.extent.host_range, accounts)
    name = "".join(f" ({escape.line(who)})" for _, who in whose) if one.extent.count == 1 else ""
    return f"{passes.words(one.extent)}{name}"


def _unused(a: Allocation) -> str:
    """The ids of the reserved range that no map has, because others pass in their place."""
    if not (a.passes and a.reserved_range):
        return ""
    found = []
    for kind in KINDS:
        unused = IdSet((a.reserved_range,)) - IdSet(a.mapping[kind].host_ranges())
        if unused:
            found.append(f"{kind}s {unused}")
    return f"{'; '.join(found)} (reserved, but not mapped)" if found else ""


def _ranges(ids: IdMap) -> str:
    return ", ".join(map(str, ids.host_ranges()))


def ids_told(mapping: Mapping) -> str:
    """The map of an idmapped mount: ids on disk, and as which they appear."""
    if mapping.uids == mapping.gids:
        return _disk_ids(mapping.uids)
    return f"uids {_disk_ids(mapping.uids)}; gids {_disk_ids(mapping.gids)}"


def _disk_ids(ids: IdMap) -> str:
    few = ", ".join(map(_disk_extent, ids[:_EXTENTS_SHOWN]))
    more = len(ids) - _EXTENTS_SHOWN
    return f"{few} and {more} more" if more > 0 else few


def _disk_extent(one: Extent) -> str:
    if one.count == 1:
        return f"{one.container} as {one.host}"
    return f"{one.container_range} as {one.host_range}"


def policy_words(a: Allocation) -> str:
    """What the container may do, as the options of harden that say so."""
    if a.policy is None:
        return "none"
    from usernsplan.harden.policy import flags  # noqa: PLC0415 - many hosts have no policy

    return shell(*flags(a.policy))


def _extent(container: int, host: int, count: int) -> str:
    if count == 1:
        return f"{container} -> {host}"
    return f"{container}-{container + count - 1} -> {host}-{host + count - 1}"
