"""Run a decision and print it: the same for every command that changes the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from usernsplan import apply
from usernsplan.cli.options import agreed, is_asked, new_root, note, typed, warn, write_result
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.planner.shown import exactly

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.model import HostState, Plan


_REFUSED = 1


def run(
    decide: Callable[[HostState], Plan],
    root: str,
    *,
    preview: bool,
    as_json: bool,
    yes: bool = False,
) -> Plan:
    """Carry a decision out, or only preview it, and print the plan: the result to stdout, findings to stderr.

    Where it has consequences, somebody at the terminal is asked first, unless ``yes`` was said.
    """
    layout = layout_at(root)
    ledger = open_ledger(layout)
    new = new_root(layout, done=not preview)
    if preview:
        plan = apply.preview(layout, ledger, decide)
    else:
        if not yes and is_asked():
            shown = apply.preview(layout, ledger, decide)
            if shown.changed and shown.consequences:
                warn(shown.consequences)
                if not agreed("Do it all the same?"):
                    raise typer.Exit(_REFUSED)
                decide, yes = exactly(shown, decide), True
        plan = apply.carry_out(layout, ledger, decide, typed(), agreed=yes)
    new = new if plan.changed else []
    if as_json:
        note(new)
        from usernsplan.report import json_  # noqa: PLC0415 - one of the two

        write_result(json_.plan(plan, layout))
    else:
        from usernsplan.report import text  # noqa: PLC0415

        write_result("\n\n".join([*new, text.plan(plan, layout, done=not preview)]))
        warn(plan.findings)
    return plan
