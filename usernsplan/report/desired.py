"""What a plan file changes on a host, as text and JSON: the steps, the files, and the counts."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from usernsplan import escape
from usernsplan.errors import UsernsplanError
from usernsplan.escape import operand, shown_path, utf8
from usernsplan.layout import STDIN
from usernsplan.planner.desired import merged_changes
from usernsplan.report import json_
from usernsplan.report.diff import unified
from usernsplan.report.result import Result
from usernsplan.report.text import fixed as report_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from usernsplan.fixing import FixReport
    from usernsplan.formats.spec import Spec
    from usernsplan.layout import Layout
    from usernsplan.model import Finding
    from usernsplan.planner.desired import PlanDiff
    from usernsplan.report.colour import Paint

_COLOURS = {"+": "green", "~": "yellow", "-": "red"}


def planned(
    desired: PlanDiff, place: str, layout: Layout, first: Sequence[str], paint: Paint
) -> Result:
    """The plan before it is carried out; ``first`` are paragraphs above its text."""
    return Result(
        lambda: "\n\n".join((*first, _text(desired, place, layout, paint))),
        partial(_document, "plan", desired, place, layout),
        (*desired.allocate.findings, *desired.prune.findings),
        desired.allocate.unseen,
    )


def applied(  # noqa: PLR0913 - what was done, where, and what was shown before
    desired: PlanDiff,
    place: str,
    layout: Layout,
    fixed: Sequence[tuple[str, FixReport | UsernsplanError]],
    foreseen: Collection[Finding],
    *,
    changed: bool,
) -> Result:
    """The plan once it is carried out. The text omits what the plan has shown.

    Findings that were ``foreseen`` are omitted, too.
    """
    return Result(
        partial(_done, desired, place, layout, fixed),
        lambda: _document(
            "apply",
            desired,
            place,
            layout,
            changed=changed,
            volumes=_fixed(fixed, layout),
        ),
        [
            finding
            for finding in (*desired.allocate.findings, *desired.prune.findings)
            if finding not in foreseen
        ],
    )


def exported(spec: Spec, notes: Sequence[str]) -> Result:
    """A host as a plan file."""
    from usernsplan.formats.spec_writer import document, text  # noqa: PLC0415 - only for export

    return Result(
        lambda: text(spec).rstrip("\n"),
        lambda: json_.document("export", spec=document(spec), notes=list(notes)),
        notes=notes,
    )


def _text(desired: PlanDiff, place: str, layout: Layout, paint: Paint) -> str:
    """The text of the plan before it is carried out."""
    width = max((len(f"{step.kind} {shown_path(step.name)}") for step in desired.steps), default=0)
    steps = []
    for step in desired.steps:
        sign, what = paint(step.sign, _COLOURS[step.sign]), f"{step.kind} {shown_path(step.name)}"
        steps.append(f"  {sign} {what:<{width}}  {step.text}")
    parts = ["\n".join(steps)] if steps else []
    parts += [
        _painted(unified(change, layout.path(change.path)), paint)
        for change in merged_changes(desired)
    ]
    if desired.kept:
        more = f" and {len(desired.kept) - 10} more" if desired.kept[10:] else ""
        names = ", ".join(desired.kept[:10]) + more
        parts.append(f"Not in {shown_path(place)}, and kept (--prune releases them): {names}")
    parts.append(summary(desired, place))
    return "\n\n".join(parts)


def summary(desired: PlanDiff, place: str) -> str:
    """The last line of the text: the counts."""
    if not desired.pending:
        return f"Already up to date: the host matches {shown_path(place)}."
    count = counts(desired)
    volumes = "1 volume" if count["volumes"] == 1 else f"{count['volumes']} volumes"
    return (
        f"Plan: {count['add']} to add, {count['change']} to change, {count['remove']} to remove, "
        f"{volumes} to fix."
    )


def _done(
    desired: PlanDiff,
    place: str,
    layout: Layout,
    fixed: Sequence[tuple[str, FixReport | UsernsplanError]],
) -> str:
    """The text of the plan once it is carried out: volumes, and next steps."""
    parts = [
        "\n  ".join(
            filter(
                None,
                (f"{shown_path(path)}: not fixed: {escape.told(str(one))}", escape.told(one.hint)),
            )
        )
        if isinstance(one, UsernsplanError)
        else report_of(one, layout)
        for path, one in fixed
    ]
    is_fixed = any(isinstance(one, UsernsplanError) or one.kind == "fix-volume" for _, one in fixed)
    if not is_fixed and desired.to_fix:
        file = "FILE" if place == STDIN else operand(place)
        command = layout.inline(f"apply {file} --fix-volumes")
        parts.append(f"The volumes are not fixed yet; {command} fixes them.")
    steps = (*desired.allocate.next_steps, *desired.prune.next_steps)
    if steps:
        parts.append("\n".join(("Next:", *(f"  {step}" for step in steps))))
    return "\n\n".join(("Done.", *parts))


def _fixed(
    fixed: Sequence[tuple[str, FixReport | UsernsplanError]], layout: Layout
) -> list[dict[str, object]]:
    """The fixed volumes for JSON; ``error`` is not None for one that failed."""
    return [
        {**json_.path_fields(path), "error": json_.error_fields(one)}
        if isinstance(one, UsernsplanError)
        else {**json_.path_fields(path), "error": None, **json_.fixed_fields(one, layout)}
        for path, one in fixed
    ]


def counts(desired: PlanDiff) -> dict[str, int]:
    """The number of steps of each kind."""
    fixing = {"volume", "mount"}
    signs = Counter(s.sign for s in desired.steps if s.kind not in fixing or s.sign == "-")
    return {
        "add": signs["+"],
        "change": signs["~"],
        "remove": signs["-"],
        "volumes": desired.to_fix,
    }


def _document(kind: str, desired: PlanDiff, place: str, layout: Layout, **more: object) -> str:
    findings = (*desired.allocate.findings, *desired.prune.findings)
    return json_.document(
        kind,
        file=place,
        pending=desired.pending,
        counts=counts(desired),
        steps=[
            {
                "action": _ACTIONS[step.sign],
                "kind": step.kind,
                "name": utf8(step.name),
                "text": step.text,
            }
            for step in desired.steps
        ],
        allocations=[json_.allocation_fields(a) for a in desired.allocate.allocations],
        changes=json_.change_fields(merged_changes(desired), layout),
        records=json_.record_fields((*desired.allocate.records, *desired.prune.records), layout),
        kept=list(desired.kept),
        findings=[json_.finding_fields(f) for f in findings],
        next_steps=[*desired.allocate.next_steps, *desired.prune.next_steps],
        unseen=list(desired.allocate.unseen),
        **more,
    )


_ACTIONS = {"+": "add", "~": "change", "-": "remove"}


def _painted(diff: str, paint: Paint) -> str:
    """A diff with its lines in the colours of their signs, except the first two with the file names."""
    lines = diff.split("\n")
    return "\n".join(
        lines[:2]
        + [paint(line, _COLOURS[line[0]]) if line[:1] in {"+", "-"} else line for line in lines[2:]]
    )
