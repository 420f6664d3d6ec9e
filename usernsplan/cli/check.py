"""The command check."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Optional

from usernsplan import audit, checking
from usernsplan.audit.base import FilesCarrying, Misfits
from usernsplan.cli import say
from usernsplan.cli.emit import colours, emit, write
from usernsplan.cli.options import (
    DryRun,
    Host,
    Json,
    OfFleet,
    Root,
    agreed,
    note,
    one_of,
    typed,
    warn,
)
from usernsplan.cli.words import Option
from usernsplan.errors import ExitStatus, InvalidValueError, UsernsplanError
from usernsplan.escape import shown_path
from usernsplan.fixing import Place
from usernsplan.host.files import layout_at, real
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.ledger import open_ledger
from usernsplan.report import audit as report
from usernsplan.report.audit import Repaired
from usernsplan.report.colour import Paint
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.audit import Facts, Repair
    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import Finding, LedgerState, Quarantined

# The finding of a repair that is shown before the question.
_LEFT = "USN126"
# A file's roles that --volumes examines, and how many files it names for each volume.
_KINDS = {"owner": "uid", "group": "gid"}
_EXAMPLES = 3
_FORMATS = ("table", "github", "json")


def check(
    select: Annotated[
        Optional[list[str]],
        Option(metavar="CODES", help="Only these findings: USN001,USN02 (repeatable)."),
    ] = None,
    ignore: Annotated[
        Optional[list[str]],
        Option(metavar="CODES", help="All findings except these (repeatable)."),
    ] = None,
    format: Annotated[
        str,
        Option(
            metavar="F",
            help="table, json or github (workflow commands). Default: table.",
            show_default=False,
        ),
    ] = "table",
    explain: Annotated[
        Optional[str],
        Option(metavar="CODE", help="Explain a code: the reason, the harm and the repair."),
    ] = None,
    passwd: Annotated[
        Optional[str],
        Option(metavar="FILE", help="Check that the maps hold the largest id of this passwd file."),
    ] = None,
    scan: Annotated[
        Optional[list[str]],
        Option(
            metavar="DIR", help="Search DIR for files that carry a quarantined range (repeatable)."
        ),
    ] = None,
    volumes: Annotated[
        bool, Option("--volumes", help="Examine every file of each recorded volume.")
    ] = False,
    fix: Annotated[
        bool, Option("--fix", help="Repair what is safe; show it and ask first.")
    ] = False,
    host: Host = None,
    fleet: OfFleet = False,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    yes: Annotated[bool, Option("--yes", help="--fix: repair without asking.")] = False,
) -> None:
    """Find conflicts: shared ranges, misread lines, drift.

    Reads subuid, subgid, the accounts, what programs take without a line, LXC's configs (also in
    homes), Docker's daemon.json and the ledger. Exits 1 if an error remains, otherwise 0.

    --fix restores lines and records of usernsplan that were lost or sorted, finishes an interrupted
    run and removes stale locks. It never changes what others wrote.

    With --fleet, looks at the ledger of the fleet instead: whether hosts agree, and what they have to do.

    \b
    Examples:
      usernsplan check
      usernsplan check --fleet
      usernsplan check --explain USN001
      usernsplan check --select USN05 --fix
      usernsplan check --scan /srv --format github
      usernsplan check --volumes
    """
    form = _form(format, as_json=json)
    if (dry_run or yes) and not fix:
        raise InvalidValueError(
            "--dry-run and --yes need --fix",
            hint="leave them out: without --fix, nothing is written",
        )
    if explain is not None:
        emit(report.explained(explain, Paint(colours())), as_json=form == "json")
        return

    codes = audit.chosen(select or (), ignore or ())
    layout = layout_at(root, exists=True)
    if host or fleet:
        from usernsplan.cli import across  # noqa: PLC0415 - only in a fleet

        of_fleet = across.views(layout, host, passwd=passwd, scan=scan, volumes=volumes, fix=fix)
        paint = None if form == "github" else Paint(colours())
        across.check(of_fleet, layout, codes, paint, as_json=form == "json")
        return
    ledger = open_ledger(layout)
    facts, found = _look(layout, ledger, codes, passwd, scan, volumes=volumes)

    repaired = None
    if fix:
        repair = audit.repair_of(facts, found)
        done = _repaired(layout, ledger, repair, form, dry_run=dry_run, yes=yes)
        if done:
            facts, found = _look(layout, ledger, codes, passwd, scan, volumes=volumes)
        repaired = Repaired(repair, is_done=done, is_preview=dry_run)

    paint = None if form == "github" else Paint(colours())
    shown = report.result(found, layout, paint, repaired, facts.unseen)
    emit(shown, as_json=form == "json", of=ledger)
    if any(finding.severity == "error" for finding in found):
        sys.exit(ExitStatus.FAILED)


def _form(name: str, *, as_json: bool) -> str:
    one_of("format", name, *_FORMATS)
    if as_json and name == "github":
        raise InvalidValueError(
            "--json does not go with --format github", hint="leave out one of them"
        )
    return "json" if as_json else name


def _look(
    layout: Layout,
    ledger: Ledger,
    codes: frozenset[str],
    passwd: str | None,
    scan: Sequence[str] | None,
    *,
    volumes: bool,
) -> tuple[Facts, tuple[Finding, ...]]:
    facts = checking.gather(layout, ledger, passwd=passwd)
    if scan:
        facts = replace(facts, scanned=_scanned(layout, facts.state.ledger.quarantined, scan))
    if volumes:
        facts = replace(facts, misfits=tuple(_misfits(layout, facts.state.ledger)))
    return facts, audit.check(facts, codes)


def _scanned(
    layout: Layout, released: Sequence[Quarantined], folders: Sequence[str]
) -> tuple[FilesCarrying, ...]:
    """The files below these folders that carry a quarantined range.

    If some place cannot be examined, no range counts as free of files.
    """
    from usernsplan.volume import owned, search  # noqa: PLC0415 - only for --scan

    named = sorted({owned.top_of(layout, folder) for folder in folders})
    tops, mounts = owned.each_once(named, cross_mounts=False)
    every = search.count(tops, IdSet(q.reserved_range for q in released))
    missed = [(place.path, place.reason) for place in every.missed]
    missed += [(path, "something is mounted there; scan it with another --scan") for path in mounts]
    note(f"not examined: {shown_path(path)}: {reason}" for path, reason in missed)

    found = []
    for q in released:
        if (one := every.among(IdSet((q.reserved_range,)))).entries:
            found.append(FilesCarrying(q.name, q.reserved_range, one.entries, one.example))
        elif not missed:
            found.append(FilesCarrying(q.name, q.reserved_range, 0, ""))
    return tuple(found)


def _misfits(layout: Layout, ledger: LedgerState) -> Iterator[Misfits]:
    """The files of each recorded volume whose owner the container's map lacks."""
    from collections import Counter  # noqa: PLC0415 - only for --volumes

    from usernsplan.engines.mounts import standing  # noqa: PLC0415
    from usernsplan.volume import owned, search  # noqa: PLC0415

    maps, every = {a.name: a.mapping for a in ledger.allocations}, IdSet((IdRange(0, ID_LIMIT),))
    missed: list[Place] = []
    for volume in standing(ledger).values():
        mapping, top = maps[volume.name], layout.real.rstrip("/") + volume.path
        uids, gids = (every - IdSet(ids.host_ranges()) for ids in (mapping.uids, mapping.gids))
        entries, ids, examples = 0, Counter[str](), list[str]()
        try:
            # A folder above the volume may have become a symlink since it was recorded.
            place = real(layout, volume.path)
            for found in search.find(place, top, owned.Wanted(uids, gids), miss=missed.append):
                # An ACL may admit others on purpose; an unmapped owner is nobody to the container.
                strange = [
                    f"{_KINDS[role]} {number}" for role, number in found.roles if role in _KINDS
                ]
                if strange:
                    entries += len(found.names)
                    ids.update(dict.fromkeys(strange, len(found.names)))
                    examples += islice(found.paths(), _EXAMPLES - len(examples))
        except UsernsplanError as error:
            missed.append(Place(top, str(error)))
        if entries:
            yield Misfits(
                volume.path,
                volume.name,
                entries,
                tuple(one for one, _ in ids.most_common()),
                (*examples,),
            )
    note(f"not examined: {shown_path(place.path)}: {place.reason}" for place in missed)


def _repaired(
    layout: Layout, ledger: Ledger, repair: Repair, form: str, *, dry_run: bool, yes: bool
) -> bool:
    """Show the repair, ask, and carry it out. Tell whether it was done."""
    # In another format, only the result may go to standard output.
    (write if form == "table" else say)(report.repair(repair, layout) + "\n")
    if repair.hindered_by:
        note([f"no line is restored until {layout.path(repair.hindered_by)} can be read"])
    warn(
        finding
        for finding in (repair.plan.findings if repair.plan else ())
        if finding.code == _LEFT
    )
    if not repair.needed or dry_run or not (yes or agreed("Apply this?")):
        return False
    _carry_out(layout, ledger, repair)
    return True


def _carry_out(layout: Layout, ledger: Ledger, repair: Repair) -> None:
    from usernsplan import apply  # noqa: PLC0415 - only for --fix
    from usernsplan.host import locks, read  # noqa: PLC0415
    from usernsplan.planner.repair import make_repair  # noqa: PLC0415
    from usernsplan.planner.shown import exactly  # noqa: PLC0415

    layout_at(layout.root)  # raises unless the root is a host's: files are written below it
    if repair.locks:
        locks.remove_stale(layout)
    if repair.plan and (repair.mends or repair.changes or repair.records):
        decide = exactly(repair.plan, make_repair)
        plan = apply.carry_out(layout, ledger, decide, typed(), look=read.compared)
        warn(finding for finding in plan.findings if finding.code != _LEFT)
        note(f"next: {step}" for step in plan.next_steps)
