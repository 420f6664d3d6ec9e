"""What a plan file changes on a host, in text and JSON: the steps, the files, and a line that counts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from usernsplan import escape
from usernsplan.errors import UsernsplanError
from usernsplan.escape import operand, shown_path
from usernsplan.layout import STDIN
from usernsplan.planner.desired import merged_changes
from usernsplan.report import json_
from usernsplan.report.diff import unified
from usernsplan.report.text import fixed as report_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.layout import Layout
    from usernsplan.model import FixReport, Volume
    from usernsplan.planner.desired import PlanDiff
    from usernsplan.report.colour import Paint

_COLOURS = {"+": "green", "~": "yellow", "-": "red"}


def text(desired: PlanDiff, place: str, layout: Layout, paint: Paint) -> str:
    """The plan as it is shown before it is carried out."""
    width = max((len(f"{step.kind} {shown_path(step.name)}") for step in desired.steps), default=0)
    steps = [
        f"  {paint(step.sign, _COLOURS[step.sign])} {f'{step.kind} {shown_path(step.name)}':<{width}}  {step.text}"
        for step in desired.steps
    ]
    parts = ["\n".join(steps)] if steps else []
    parts += [
        _painted(unified(change, layout.path(change.path)), paint)
        for change in merged_changes(desired)
    ]
    if desired.kept:
        names = ", ".join(desired.kept[:10]) + (
            f" and {len(desired.kept) - 10} more" if desired.kept[10:] else ""
        )
        parts.append(f"Not in {shown_path(place)}, and kept (--prune lets it go): {names}")
    parts.append(summary(desired, place))
    return "\n\n".join(parts)


def summary(desired: PlanDiff, place: str) -> str:
    """The last line."""
    if not desired.pending:
        return f"Nothing to do: the host is as {shown_path(place)} says."
    count = counts(desired)
    volumes = (
        f", {count['volumes']} volumes to fix" if count["volumes"] != 1 else ", 1 volume to fix"
    )
    return f"Plan: {count['add']} to add, {count['change']} to change, {count['remove']} to remove{volumes}."


def done(
    desired: PlanDiff,
    place: str,
    layout: Layout,
    fixed: Sequence[tuple[Volume, FixReport | UsernsplanError]],
) -> str:
    """What is to be told after it was carried out: volumes, and what is left to do."""
    parts = [
        f"{shown_path(volume.path)}: not fixed: {escape.told(str(one))}"
        if isinstance(one, UsernsplanError)
        else report_of(one, layout)
        for volume, one in fixed
    ]
    if not fixed and desired.volumes:
        file = "FILE" if place == STDIN else operand(place)
        parts.append(
            f"The volumes are left: {layout.inline(f'apply {file} --fix-volumes')} fixes them."
        )
    steps = (*desired.allocate.next_steps, *desired.prune.next_steps)
    if steps:
        parts.append("\n".join(("Next:", *(f"  {step}" for step in steps))))
    return "\n\n".join(("Done.", *parts))


def fixed(
    fixed: Sequence[tuple[Volume, FixReport | UsernsplanError]], layout: Layout
) -> list[dict[str, object]]:
    """The volumes that were fixed, for JSON; ``error`` where one could not be."""
    return [
        {**json_.path_fields(volume.path), "error": str(one), "hint": one.hint}
        if isinstance(one, UsernsplanError)
        else {**json_.path_fields(volume.path), "error": None, **json_.fixed_fields(one, layout)}
        for volume, one in fixed
    ]


def counts(desired: PlanDiff) -> dict[str, int]:
    """How many steps of each kind there are."""
    signs = Counter(step.sign for step in desired.steps if step.kind != "volume")
    return {
        "add": signs["+"],
        "change": signs["~"],
        "remove": signs["-"],
        "volumes": len(desired.volumes),
    }


def document(
    desired: PlanDiff, place: str, layout: Layout, *, applied: bool | None = None, **more: object
) -> str:
    """The same as JSON; ``applied``: whether it was carried out, None where only the plan was asked for."""
    findings = (*desired.allocate.findings, *desired.prune.findings)
    return json_.document(
        "plan" if applied is None else "apply",
        file=place,
        pending=desired.pending,
        **({} if applied is None else {"applied": applied}),
        counts=counts(desired),
        steps=[
            {
                "action": _ACTIONS[step.sign],
                "kind": step.kind,
                "name": json_.path_fields(step.name)["path"],
                "text": step.text,
            }
            for step in desired.steps
        ],
        allocations=[json_.allocation_fields(a) for a in desired.allocate.allocations],
        changes=json_.change_fields(merged_changes(desired), layout),
        kept=list(desired.kept),
        findings=[json_.finding_fields(f) for f in findings],
        next_steps=[*desired.allocate.next_steps, *desired.prune.next_steps],
        **more,
    )


_ACTIONS = {"+": "add", "~": "change", "-": "remove"}


def _painted(diff: str, paint: Paint) -> str:
    """A diff with its lines in the colours of their signs; the first two lines name the files."""
    lines = diff.split("\n")
    return "\n".join(
        lines[:2]
        + [paint(line, _COLOURS[line[0]]) if line[:1] in {"+", "-"} else line for line in lines[2:]]
    )
