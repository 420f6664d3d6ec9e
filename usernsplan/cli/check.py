"""The command check."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from usernsplan import audit, checking
from usernsplan.cli import say
from usernsplan.cli.emit import colours, emit, write
from usernsplan.cli.options import (
    DryRun,
    Json,
    Root,
    agreed,
    note,
    one_of,
    typed,
    warn,
)
from usernsplan.errors import ExitStatus, InvalidValueError, UsernsplanError
from usernsplan.host.files import layout_at, real
from usernsplan.ledger import open_ledger
from usernsplan.model import Place
from usernsplan.report import audit as report
from usernsplan.report.audit import Repaired
from usernsplan.report.colour import Paint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.audit import Facts, Repair
    from usernsplan.audit.base import FilesCarrying, Misfits
    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import Finding, LedgerState, Quarantined

# What of a repair was told before it was asked for.
_LEFT = "USN126"
# As what an id is looked for in a volume; and of one volume, so many places are named.
_KINDS = {"owner": "uid", "group": "gid"}
_EXAMPLES = 3
_FORMATS = ("table", "github", "json")


def check(
    select: Annotated[
        Optional[list[str]],
        typer.Option(metavar="CODES", help="Only these: USN001,USN02 (repeatable)."),
    ] = None,
    ignore: Annotated[
        Optional[list[str]], typer.Option(metavar="CODES", help="All but these (repeatable).")
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            metavar="F",
            help="table, github (workflow commands) or json. Default: table.",
            show_default=False,
        ),
    ] = "table",
    explain: Annotated[
        Optional[str], typer.Option(metavar="CODE", help="Tell the whole story of a code.")
    ] = None,
    passwd: Annotated[
        Optional[str],
        typer.Option(metavar="FILE", help="An image's passwd: do the maps hold its largest id?"),
    ] = None,
    scan: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="DIR", help="Look in DIR for files that carry a released range (repeatable)."
        ),
    ] = None,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Look at every file of each volume that was fixed.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair what is safe, after showing it and asking.")
    ] = False,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    yes: Annotated[bool, typer.Option("--yes", help="--fix: do not ask.")] = False,
) -> None:
    """Find what clashes: shared ranges, misread lines, drift.

    Exit status: 0 where no error is found (or left), 1 where one is. --fix puts lost or sorted lines of ours back,
    completes an interrupted run and removes locks that nobody holds; what others wrote is never touched.

    \b
    Examples:
      usernsplan check
      usernsplan check --explain USN001
      usernsplan check --select USN05 --fix
      usernsplan check --scan /srv --format github
      usernsplan check --volumes
    """
    form = _form(format, as_json=json)
    if (dry_run or yes) and not fix:
        raise InvalidValueError(
            "--dry-run and --yes are about --fix", hint="without it nothing is written"
        )
    if explain is not None:
        _explain(explain, form)
        return
    codes = audit.chosen(select or (), ignore or ())
    layout = layout_at(root, exists=True)
    ledger = open_ledger(layout)
    facts, found = _look(layout, ledger, codes, passwd, scan, volumes=volumes)
    repaired = None
    if fix:
        repair = audit.repair_of(facts, found)
        done = _repaired(layout, ledger, repair, form, dry_run=dry_run, yes=yes)
        if done:
            _, found = _look(layout, ledger, codes, passwd, scan, volumes=volumes)
        repaired = Repaired(repair, is_done=done, is_preview=dry_run)
    _print(found, form, layout, repaired)
    if any(finding.severity == "error" for finding in found):
        raise typer.Exit(ExitStatus.FAILED)


def _form(name: str, *, as_json: bool) -> str:
    one_of("format", name, *_FORMATS)
    if as_json and name == "github":
        raise InvalidValueError("--json with --format github", hint="one of the two")
    return "json" if as_json else name


def _explain(code: str, form: str) -> None:
    emit(report.explained(code, Paint(colours())), as_json=form == "json")


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
    """What these folders carry of each released range; with something left that cannot be looked at, none is free."""
    from usernsplan.audit.base import FilesCarrying  # noqa: PLC0415 - only for --scan
    from usernsplan.escape import shown_path  # noqa: PLC0415
    from usernsplan.ids import IdSet  # noqa: PLC0415
    from usernsplan.volume import owned  # noqa: PLC0415

    named = sorted({owned.top_of(layout, folder) for folder in folders})
    tops, mounts = owned.each_once(named, cross_mounts=False)
    every = owned.count(tops, IdSet(q.reserved_range for q in released))
    missed = [(place.path, place.reason) for place in every.missed]
    missed += [(path, "something is mounted there: name it too") for path in mounts]
    note(f"not looked at: {shown_path(path)}: {reason}" for path, reason in missed)
    found = []
    for q in released:
        ids = IdSet((q.reserved_range,))
        if every.ids() & ids:
            one = every if len(released) == 1 else owned.count(tops, ids)
            found.append(FilesCarrying(q.name, q.reserved_range, one.entries, one.example))
        elif not missed:
            found.append(FilesCarrying(q.name, q.reserved_range, 0, ""))
    return tuple(found)


def _misfits(layout: Layout, ledger: LedgerState) -> Iterator[Misfits]:
    """What of each recorded volume has an owner whom its container does not have."""
    from collections import Counter  # noqa: PLC0415 - only for --volumes

    from usernsplan.audit.base import Misfits  # noqa: PLC0415
    from usernsplan.engines.mounts import standing  # noqa: PLC0415
    from usernsplan.escape import shown_path  # noqa: PLC0415
    from usernsplan.ids import ID_LIMIT, IdRange, IdSet  # noqa: PLC0415
    from usernsplan.volume import owned  # noqa: PLC0415

    maps, every = {a.name: a.mapping for a in ledger.allocations}, IdSet((IdRange(0, ID_LIMIT),))
    missed: list[Place] = []
    for volume in standing(ledger).values():
        mapping, top = maps[volume.name], layout.real.rstrip("/") + volume.path
        uids, gids = (every - IdSet(ids.host_ranges()) for ids in (mapping.uids, mapping.gids))
        entries, ids, examples = 0, Counter[str](), list[str]()
        try:
            # Where that really lies in the root: a folder above it may have become a symlink since it was recorded.
            place = real(layout, volume.path)
            for hit in owned.find(place, top, owned.Wanted(uids, gids), miss=missed.append):
                # An ACL may let others in on purpose; an owner without a place is nobody to the container.
                strange = [
                    f"{_KINDS[role]} {number}" for role, number in hit.roles if role in _KINDS
                ]
                entries += bool(strange)
                ids.update(strange)
                examples += [hit.path] if strange and len(examples) < _EXAMPLES else []
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
    note(f"not looked at: {shown_path(place.path)}: {place.reason}" for place in missed)


def _print(found: Sequence[Finding], form: str, layout: Layout, repaired: Repaired | None) -> None:
    paint = None if form == "github" else Paint(colours())
    emit(report.result(found, layout, paint, repaired), as_json=form == "json")


def _repaired(
    layout: Layout, ledger: Ledger, repair: Repair, form: str, *, dry_run: bool, yes: bool
) -> bool:
    """Show what is to be done, ask, do it; tell whether it was done."""
    # A result of the format that was asked for comes later, and alone.
    (write if form == "table" else say)(report.repair(repair, layout) + "\n")
    if repair.hindered_by:
        note(
            [
                f"nothing is put back while {layout.path(repair.hindered_by)} cannot be read as it should"
            ]
        )
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
    from usernsplan.host import locks  # noqa: PLC0415
    from usernsplan.planner.repair import make_repair  # noqa: PLC0415
    from usernsplan.planner.shown import exactly  # noqa: PLC0415

    layout_at(layout.root)  # what is written, is written below a host's root
    if repair.locks:
        locks.remove_stale(layout)
    if repair.plan and (repair.mends or repair.changes):
        plan = apply.carry_out(layout, ledger, exactly(repair.plan, make_repair), typed())
        warn(finding for finding in plan.findings if finding.code != _LEFT)
        note(f"next: {step}" for step in plan.next_steps)
