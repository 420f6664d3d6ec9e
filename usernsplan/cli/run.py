"""Carry out a decision and print it: allocate and release share this."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from usernsplan import apply
from usernsplan.cli.emit import emit
from usernsplan.cli.options import agreed, is_asked, new_root, note, typed, warn
from usernsplan.errors import ExitStatus
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.planner.shown import exactly
from usernsplan.report import results

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from usernsplan.model import HostState, Plan


def run(
    decide: Callable[[HostState], Plan],
    root: str,
    *,
    preview: bool,
    as_json: bool,
    yes: bool = False,
    asked: Collection[str] = (),
) -> Plan:
    """Carry out or preview a decision about the names ``asked``, and print the plan.

    The result goes to standard output, findings to standard error. If the plan has consequences,
    the command asks first at a terminal, unless ``yes``.
    """
    layout = layout_at(root)
    ledger = open_ledger(layout, asked=asked)
    new = new_root(layout, done=not preview)

    if preview:
        plan = apply.preview(layout, ledger, decide)
    else:
        if not yes and is_asked():
            shown = apply.preview(layout, ledger, decide)
            if shown.changed and shown.consequences:
                warn(shown.consequences)
                if not agreed("Go on?"):
                    sys.exit(ExitStatus.FAILED)
                # The host may change while the user reads: do what they saw, or nothing.
                decide, yes = exactly(shown, decide), True
        plan = apply.carry_out(layout, ledger, decide, typed(), agreed=yes)
        if plan.ledger.rename:
            from usernsplan.volume import lasting  # noqa: PLC0415 - few plans rename

            lasting.rename(layout, (new_name for _, new_name in plan.ledger.rename))

    new = new if plan.changed else []
    note(new if as_json else ())
    emit(results.planned(plan, layout, new, done=not preview), as_json=as_json)
    return plan
