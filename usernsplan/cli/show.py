"""The commands that only look: list, show, history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from usernsplan.cli.options import Json, Root, note, note_interrupted, write_result
from usernsplan.host.files import layout_at
from usernsplan.host.volumes import recorded
from usernsplan.ledger import allocation_of, open_ledger

if TYPE_CHECKING:
    from usernsplan.layout import Layout
    from usernsplan.model import LedgerState, Volume


def list_(root: Root = "/", json: Json = False) -> None:
    """List what is allocated, and which released ranges are kept back.

    Example: usernsplan list --json
    """
    layout = layout_at(root, exists=True)
    ledger = open_ledger(layout).state()
    volumes, runs = _recorded(layout, ledger)
    if json:
        from usernsplan.report import json_  # noqa: PLC0415 - one of the two

        write_result(json_.allocations("list", ledger.allocations, ledger, volumes, runs))
    else:
        from usernsplan.report import text  # noqa: PLC0415

        write_result(text.allocations(ledger, volumes))
    note_interrupted(ledger)
    note("; ".join(run[1:]) for run in runs)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What 'usernsplan list' shows.")],
    root: Root = "/",
    json: Json = False,
) -> None:
    """Show one allocation: owner, strategy, both maps, since when.

    Example: usernsplan show web
    """
    layout = layout_at(root, exists=True)
    ledger = open_ledger(layout).state()
    found = allocation_of(ledger, name)
    volumes, runs = _recorded(layout, ledger, name)
    if json:
        from usernsplan.report import json_  # noqa: PLC0415 - one of the two

        write_result(json_.allocations("show", [found], None, volumes, runs))
    else:
        from usernsplan.report import text  # noqa: PLC0415

        write_result(text.allocation(found, volumes))
    note_interrupted(ledger)
    note("; ".join(run[1:]) for run in runs)


def _recorded(
    layout: Layout, ledger: LedgerState, name: str | None = None
) -> tuple[list[tuple[Volume, str, str]], list[tuple[str, str, str]]]:
    """The recorded volumes (of one container) that stand, each with what is wrong and the remedy; "" where it is right.

    And the runs of fix-volume that were interrupted: the name of each, the fact, and the remedy.
    """
    found = recorded(layout, ledger)
    told: list[tuple[str, str, str]] = []
    volumes: list[tuple[Volume, str, str]] = []
    if found.runs:
        from usernsplan.planner.runs import told as words  # noqa: PLC0415 - most hosts have none

        told = [(run.run, *words(run, layout)) for run in found.runs]
    if ledger.volumes:
        from usernsplan.planner.volumes import looks  # noqa: PLC0415 - the same

        volumes = [one for one in looks(ledger, found.volumes, layout) if name in {None, one[0].name}]
    return volumes, told


def history(root: Root = "/", json: Json = False) -> None:
    """Show what was done on this host: when, by whom, with which words, and what changed.

    Example: usernsplan history
    """
    entries = open_ledger(layout_at(root, exists=True)).history()
    if json:
        from usernsplan.report import json_  # noqa: PLC0415 - one of the two

        write_result(json_.history(entries))
    else:
        from usernsplan.report import text  # noqa: PLC0415

        write_result(text.history(entries))
