"""Values as a person reads them in a terminal."""

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
    """The table, then the diff of each file, then what to do next; ``done`` tells a report from a preview."""
    parts = [table(_HEADERS, [_row(a) for a in plan.allocations])] if plan.allocations else []
    parts += [unified(change, layout.path(change.path)) for change in plan.changes]
    if not done and plan.account_commands:
        parts.append(
            "\n".join(
                f"would run: {shell(*layout.account_command(command))}"
                for command in plan.account_commands
            )
        )
    if not plan.changed:
        parts.append(
            "No file changes, but something is left to do." if plan.unfinished else UP_TO_DATE
        )
    elif not done:
        parts.append(DRY_RUN)
    if plan.kind == "release":
        kept = ", ".join(f"{held} ({name})" for name, held in plan.ledger.quarantine)
        gone = f"{'Released' if done else 'Would be released'}: {', '.join(plan.ledger.remove)}."
        parts.append(f"{gone} Kept back until forgotten: {kept}." if kept else gone)
    if plan.kind == "forget":
        freed = [f"{one.name} ({one.reserved_range})" for one in plan.freed] or plan.ledger.forget
        word = "Forgotten" if done else "Would be forgotten"
        parts.append(f"{word}: {', '.join(freed)}. The ranges can be given out again.")
    if plan.next_steps:
        parts.append("\n".join(("Next:", *(f"  {step}" for step in plan.next_steps))))
    return "\n\n".join(parts)


def findings(found: Iterable[Finding]) -> str:
    """Warnings, one paragraph each."""
    return "\n".join(
        escape.told(f"{f.severity}: {f.message} [{f.code}]" + (f"\n  {f.hint}" if f.hint else ""))
        for f in found
    )


def allocations(ledger: LedgerState, volumes: Iterable[tuple[Volume, str, str]] = ()) -> str:
    """Everything that is allocated, what was released and is not given out again yet, and which volumes look wrong.

    ``volumes`` are recorded volumes, each with what is wrong ("" where it is right) and the remedy.
    """
    parts = ["Nothing is allocated."]
    if ledger.allocations:
        parts = [
            table((*_HEADERS, "strategy"), [(*_row(a), a.strategy) for a in ledger.allocations])
        ]
    if ledger.quarantined:
        rows = [(q.name, str(q.reserved_range), q.since) for q in ledger.quarantined]
        parts.append(table(("released", "ids kept back", "since"), rows))
    if wrong := [
        (shown_path(v.path), v.name, f"{fact}\n{remedy}") for v, fact, remedy in volumes if fact
    ]:
        parts.append(table(("volume", "recorded as", "what is wrong, and what mends it"), wrong))
    return "\n\n".join(parts)


def allocation(
    a: Allocation, volumes: Iterable[tuple[Volume, str, str]] = (), of_it: Iterable[RunSeen] = ()
) -> str:
    """One allocation, everything that is known of it; ``volumes`` as for allocations, ``of_it`` are its runs."""
    rows = [
        ("name", a.name),
        ("owner", ", and ".join((a.owner, *a.extra_owners))),
        ("strategy", a.strategy),
        ("since", a.since),
    ]
    if a.reserved_range:
        rows.append(("held", f"{a.reserved_range} ({a.reserved_range.count} ids, uids and gids)"))
    for kind in KINDS:
        rows += [
            ("" if index else f"{kind}_map", _extent(*extent))
            for index, extent in enumerate(a.mapping[kind].triples())
        ]
    for v, fact, remedy in volumes:
        how = f"{shown_path(v.path)} ({' '.join(filter(None, (v.mode, v.user)))})"
        rows.append(("volume", f"{how}: {fact}\n{remedy}" if fact else f"{how}: looks right"))
    its = list(of_it)
    if len(its) > _PLACES_SHOWN:
        rows.append(
            (
                "run",
                f"… {len(its) - _PLACES_SHOWN} earlier ones ('usernsplan history --runs' has them)",
            )
        )
    for one in its[-_PLACES_SHOWN:]:
        rows.append(
            (
                "run",
                f"{one.run} ({_how_far(one)}): {shown_path(one.mode or '')} {', '.join(map(shown_path, one.paths))}",
            )
        )
    return table((), rows)


def history(entries: Sequence[HistoryEntry]) -> str:
    """What was done, oldest first."""
    if not entries:
        return "Nothing was done yet."
    rows = []
    for entry in entries:
        shown = list(entry.changed[:_LINES_SHOWN])
        if len(entry.changed) > _LINES_SHOWN:
            shown.append(f"… and {len(entry.changed) - _LINES_SHOWN} more (--json has them)")
        rows.append(
            (entry.at, who(entry.actor), "\n".join(map(escape.line, (entry.command, *shown))))
        )
    return table(("when", "who", "command, and what changed"), rows)


def runs(found: Sequence[RunSeen]) -> str:
    """Runs of fix-volume, oldest first."""
    if not found:
        return "There is no run of fix-volume."
    rows = []
    for one in found:
        paths = [shown_path(path) for path in one.paths[:_PLACES_SHOWN]]
        if len(one.paths) > _PLACES_SHOWN:
            paths.append(f"… and {len(one.paths) - _PLACES_SHOWN} more (--json has them)")
        if one.problem:
            paths = [one.problem, one.hint]
        who = [
            shown_path(word or "")
            for word in (one.run, one.at, _how_far(one), one.container, one.mode)
        ]
        rows.append((*who, "\n".join(paths), f"{one.size} bytes"))
    return table(("run", "when", "state", "container", "mode", "volumes", "journal"), rows)


def _how_far(one: RunSeen) -> str:
    """How far a run is, for people."""
    if one.problem:
        return "nobody can tell"
    if one.is_at_work:
        return f"{one.state}, at work"
    if one.state in {"changing", "undoing"}:
        return f"{one.state}, interrupted"
    return "undone in part" if one.state == "undone" and one.can_undo else one.state


def pruned(removed: Sequence[tuple[str, int]], *, dry_run: bool) -> str:
    """Which journals of runs were removed, or would be, and how many bytes that is."""
    verb = "would remove" if dry_run else "removed"
    lines = [f"{verb} run {name} ({size} bytes)" for name, size in removed[:_PLACES_SHOWN]]
    if len(removed) > _PLACES_SHOWN:
        lines.append(f"{verb} … and {len(removed) - _PLACES_SHOWN} more (--json has them)")
    count = "1 run" if len(removed) == 1 else f"{len(removed)} runs"
    return "\n".join(
        [*lines, f"{verb.capitalize()} {count}, {sum(size for _, size in removed)} bytes."]
    )


def fixed(report: FixReport, layout: Layout) -> str:
    """What a fix-volume or an undo did, or would do."""
    counts = report.counts
    who = f" for {report.container} ({report.mode})" if report.mode and report.container else ""
    would, did = (
        ("would restore", "restored") if report.kind == "undo" else ("would change", "changed")
    )
    verb = would if report.dry_run else did
    kinds = [f"{counts[kind]} {word}" for kind, word in _KINDS.items() if counts[kind]]
    of_them = f" ({', '.join(kinds)})" if kinds else ""
    lines = [f"{', '.join(map(shown_path, report.volumes))}{who}"]
    lines.append(
        f"  {verb} {counts['changed']}{of_them}, already right {counts['right']}, in {report.seconds:.1f} s"
    )
    if counts["stragglers"]:
        lines.append(
            f"  {counts['stragglers']} of these appeared while the run was at work; something is writing there"
        )
    if report.flattened:
        lines.append(
            f"  {report.flattened} different owners become one; --mode shift would keep them apart"
        )
    for kind, kept in (("uid", report.kept_uids), ("gid", report.kept_gids)):
        if kept:
            lines.append(
                f"  kept, without a place in the map: {', '.join(f'{kind} {i} ({n})' for i, n in kept.items())}"
            )
    if report.dropped:
        lose = "would lose" if report.dry_run else "lost"
        what = "setuid, setgid or capability, which would have become another id's"
        lines.append(f"  {len(report.dropped)} {lose} {what}")
    for word, places in (
        ("lost", report.dropped),
        ("skipped", report.skipped),
        ("failed", report.failed),
    ):
        lines += [
            f"  {word}: {shown_path(place.path)}: {place.reason}"
            for place in places[:_PLACES_SHOWN]
        ]
        if len(places) > _PLACES_SHOWN:
            lines.append(f"  {word}: … and {len(places) - _PLACES_SHOWN} more (--json has them)")
    if report.dry_run:
        lines.append(DRY_RUN)
    elif report.run and report.kind == "fix-volume":
        lines.append(f"Undo: {layout.command(f'undo {shell(report.run)}')}")
    return "\n".join(lines)


def placed(changes: Sequence[Change], layout: Layout, *, done: bool) -> str:
    """What writing the files changed, or would change."""
    if not changes:
        return UP_TO_DATE
    parts = [unified(change, layout.path(change.path)) for change in changes]
    return "\n\n".join(parts if done else [*parts, DRY_RUN])


def engines(found: Sequence[tuple[str, Sequence[tuple[str, Verdict]]]]) -> str:
    """Which engine can express what: with the reasons for one allocation, without for several."""
    if len(found) == 1:
        [(name, verdicts)] = found
        return table(
            ("engine", f"'{name}'", "why"), [(engine, it.fit, it.why) for engine, it in verdicts]
        )
    names = [engine for engine, _ in found[0][1]]
    cells = [[it.fit for _, it in verdicts] for _, verdicts in found]
    return table(("engine", *(name for name, _ in found)), list(zip(names, *cells, strict=True)))


def who(actor: Actor) -> str:
    """Who ran a command."""
    via = f" (sudo by {actor.sudo_uid})" if actor.sudo_uid is not None else ""
    login = f", login {actor.login_uid}" if actor.login_uid is not None else ""
    return f"uid {actor.uid}{via}{login}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, aligned; numbers stay the text that they are."""
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
