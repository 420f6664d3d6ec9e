"""The commands that only look: list, show, history."""

from __future__ import annotations

from typing import Annotated

import typer

from usernsplan.cli.options import Json, Root, note_interrupted, write_result
from usernsplan.host.files import layout_at
from usernsplan.ledger import allocation_of, open_ledger


def list_(root: Root = "/", json: Json = False) -> None:
    """List what is allocated, and which released ranges are kept back.

    Example: usernsplan list --json
    """
    ledger = open_ledger(layout_at(root, exists=True)).state()
    if json:
        from usernsplan.report import json_  # noqa: PLC0415 - one of the two

        write_result(json_.allocations("list", ledger.allocations, ledger))
    else:
        from usernsplan.report import text  # noqa: PLC0415

        write_result(text.allocations(ledger))
    note_interrupted(ledger)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What 'usernsplan list' shows.")],
    root: Root = "/",
    json: Json = False,
) -> None:
    """Show one allocation: owner, strategy, both maps, since when.

    Example: usernsplan show web
    """
    ledger = open_ledger(layout_at(root, exists=True)).state()
    found = allocation_of(ledger, name)
    if json:
        from usernsplan.report import json_  # noqa: PLC0415 - one of the two

        write_result(json_.allocations("show", [found]))
    else:
        from usernsplan.report import text  # noqa: PLC0415

        write_result(text.allocation(found))
    note_interrupted(ledger)


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
