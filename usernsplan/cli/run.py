"""Run a decision and print it: the same for every command that changes the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from usernsplan import apply
from usernsplan.cli.emit import emit
from usernsplan.cli.options import agreed, is_asked, new_root, note, typed, warn
from usernsplan.errors import ExitStatus
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.planner.shown import exactly
from usernsplan.report import results

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.model import HostState, Plan


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
                    raise typer.Exit(ExitStatus.FAILED)
                decide, yes = exactly(shown, decide), True
        plan = apply.carry_out(layout, ledger, decide, typed(), agreed=yes)
    new = new if plan.changed else []
    note(new if as_json else ())
    emit(results.planned(plan, layout, new, done=not preview), as_json=as_json)
    return plan
