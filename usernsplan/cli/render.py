"""The command render."""

from __future__ import annotations

from typing import Annotated

import typer

from usernsplan import engines
from usernsplan.cli.options import Root, allocation_of, note, write_result
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger


def render(
    engine: Annotated[str, typer.Argument(metavar="|".join(engines.ENGINES), help="Who is to read it.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What 'usernsplan list' shows.")],
    root: Root = "/",
) -> None:
    """Print exactly what an engine reads for an allocation, to paste or to pipe.

    \b
    Examples:
      podman run $(usernsplan render podman web) IMAGE
      usernsplan render uid_map web > /proc/PID/uid_map
    """
    layout = layout_at(root)
    ledger = open_ledger(layout)
    state = None
    if engines.reads_host(engine):
        from usernsplan.host import read  # noqa: PLC0415 - most engines depend on nothing but the allocation

        state = read.state(layout, ledger)
    rendered = engines.render(engine, allocation_of(ledger.state(), name), state)
    write_result(rendered.text)
    note(rendered.notes)
