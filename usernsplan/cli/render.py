"""The command render."""

from __future__ import annotations

from typing import Annotated

import typer

from usernsplan import engines
from usernsplan.cli.options import Root, note, show
from usernsplan.errors import UnknownNameError
from usernsplan.host import files, read
from usernsplan.ledger import open_ledger


def render(
    engine: Annotated[str, typer.Argument(metavar="|".join(engines.ENGINES), help="Who is to read it.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What 'usernsplan list' shows.")],
    root: Root = "/",
) -> None:
    """Print exactly what an engine reads for an allocation, to paste or to pipe.

    Examples: podman run $(usernsplan render podman web) IMAGE;  usernsplan render uid_map web > /proc/PID/uid_map
    """
    engines.engine(engine)
    layout = files.layout_at(root)
    state = read.state(layout, open_ledger(layout))
    found = [a for a in state.ledger.allocations if a.name == name]
    if not found:
        raise UnknownNameError(f"nothing is allocated under the name '{name}'")
    rendered = engines.render(engine, found[0], state)
    show(rendered.text)
    note(rendered.notes)
