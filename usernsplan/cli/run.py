"""Run a decision and print it: the same for every command that changes the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan import apply
from usernsplan.cli.options import typed, warn, write_result
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.model import HostState, Plan


def run(decide: Callable[[HostState], Plan], root: str, *, preview: bool, as_json: bool) -> Plan:
    """Carry a decision out, or only preview it, and print the plan: the result to stdout, findings to stderr."""
    layout = layout_at(root)
    ledger = open_ledger(layout)
    plan = apply.preview(layout, ledger, decide) if preview else apply.carry_out(layout, ledger, decide, typed())
    if as_json:
        from usernsplan.report import json_  # noqa: PLC0415 - one of the two

        write_result(json_.plan(plan, layout))
    else:
        from usernsplan.report import text  # noqa: PLC0415

        write_result(text.plan(plan, layout, done=not preview))
        warn(plan.findings)
    return plan
