"""Values as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan import escape
from usernsplan.escape import shell, shown_path
from usernsplan.mapping import KINDS
from usernsplan.report.diff import unified

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.engines.base import Verdict
    from usernsplan.layout import Layout
    from usernsplan.mapping import IdMap
    from usernsplan.model import (
        Actor,
        Allocation,
        Change,
        Finding,
        FixReport,
        HistoryEntry,
        LedgerState,
        Plan,
        RunSeen,
        Volume,
    )

_HEADERS = ("name", "owner", "container ids", "host uids", "host gids")
# A history entry of thousands of names would bury the others; --json has all of it.
_LINES_SHOWN = 8
_PLACES_SHOWN = 20
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
    parts += [unified(change, layout.path(change.path)) for change in plan.changes]
    if not done and plan.account_commands:
        commands = (shell(*layout.account_command(one)) for one in plan.account_commands)
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
    if plan.next_steps:
        parts.append("\n".join(("Next:", *(f"  {step}" for step in plan.next_steps))))
    return "\n\n".join(parts)


def findings(found: Iterable[Finding]) -> str:
    """Findings, one paragraph each."""
    return "\n".join(
        escape.told(f"{f.severity}: {f.message} [{f.code}]" + (f"\n  {f.hint}" if f.hint else ""))
        for f in found
    )


def allocations(ledger: LedgerState, volumes: Iterable[tuple[Volume, str, str]] = ()) -> str:
    """All allocations, the quarantined ranges, and the volumes that look wrong.

    ``volumes`` are recorded volumes, each with what is wrong ("" if it is right) and the remedy.
    """
    parts = ["Nothing is allocated."]
    if ledger.allocations:
        parts = [
            table((*_HEADERS, "strategy"), [(*_row(a), a.strategy) for a in ledger.allocations])
        ]
    if ledger.quarantined:
        rows = [(q.name, str(q.reserved_range), q.since) for q in ledger.quarantined]
        parts.append(table(("released", "quarantined ids", "since"), rows))
    if wrong := [
        (shown_path(v.path), v.name, f"{fact}\n{remedy}") for v, fact, remedy in volumes if fact
    ]:
        parts.append(table(("volume", "recorded as", "what is wrong, and the remedy"), wrong))
    return "\n\n".join(parts)


def allocation(
    a: Allocation, volumes: Iterable[tuple[Volume, str, str]] = (), runs: Iterable[RunSeen] = ()
) -> str:
    """One allocation with its ``volumes`` (as for allocations) and its ``runs`` of fix-volume."""
    rows = [
        ("name", a.name),
        ("owner", ", and ".join((a.owner, *a.extra_owners))),
        ("strategy", a.strategy),
        ("since", a.since),
    ]
    if a.reserved_range:
        ids = f"{a.reserved_range} ({a.reserved_range.count} ids, uids and gids)"
        rows.append(("reserved", ids))
    for kind in KINDS:
        rows += [
            ("" if index else f"{kind}_map", _extent(*extent))
            for index, extent in enumerate(a.mapping[kind].triples())
        ]

    for v, fact, remedy in volumes:
        how = f"{shown_path(v.path)} ({' '.join(filter(None, (v.mode, v.user)))})"
        rows.append(("volume", f"{how}: {fact}\n{remedy}" if fact else f"{how}: looks right"))
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
        cells = (one.run, one.at, _how_far(one), one.container, one.mode)
        rows.append(
            (*(shown_path(cell or "") for cell in cells), "\n".join(paths), f"{one.size} bytes")
        )
    return table(("run", "when", "state", "container", "mode", "volumes", "journal"), rows)


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


def placed(changes: Sequence[Change], layout: Layout, *, done: bool) -> str:
    """The diffs of the files that render wrote, or would write."""
    if not changes:
        return UP_TO_DATE
    parts = [unified(change, layout.path(change.path)) for change in changes]
    return "\n\n".join(parts if done else [*parts, DRY_RUN])


def engines(found: Sequence[tuple[str, Sequence[tuple[str, Verdict]]]]) -> str:
    """What each engine supports: with reasons for one allocation, without for several."""
    if len(found) == 1:
        [(name, verdicts)] = found
        return table(
            ("engine", f"'{name}'", "why"), [(engine, it.fit, it.why) for engine, it in verdicts]
        )
    names = [engine for engine, _ in found[0][1]]
    cells = [[it.fit for _, it in verdicts] for _, verdicts in found]
    return table(("engine", *(name for name, _ in found)), list(zip(names, *cells, strict=True)))


def who(actor: Actor) -> str:
    """The user who ran a command."""
    via = f" (sudo by {actor.sudo_uid})" if actor.sudo_uid is not None else ""
    login = f", login {actor.login_uid}" if actor.login_uid is not None else ""
    return f"uid {actor.uid}{via}{login}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns. Numbers stay as they are written."""
    from tabulate import tabulate  # noqa: PLC0415 - a third of list's start-up

    return tabulate(rows, headers, tablefmt="simple" if headers else "plain", disable_numparse=True)


def _row(a: Allocation) -> tuple[str, ...]:
    container = ", ".join(str(extent.container_range) for extent in a.mapping.uids)
    return (
        a.name,
        ", ".join((a.owner, *a.extra_owners)),
        container,
        _ranges(a.mapping.uids),
        _ranges(a.mapping.gids),
    )


def _ranges(ids: IdMap) -> str:
    return ", ".join(map(str, ids.host_ranges()))


def _extent(container: int, host: int, count: int) -> str:
    if count == 1:
        return f"{container} -> {host}"
    return f"{container}-{container + count - 1} -> {host}-{host + count - 1}"
