"""The command capacity."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from usernsplan.claims.useradd import useradd
from usernsplan.cli.emit import emit
from usernsplan.cli.options import ConfigFile, Json, Root, id_range, note_interrupted
from usernsplan.host import read
from usernsplan.host.config import load as load_config
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.report import capacity as report
from usernsplan.space import Space, usual
from usernsplan.space import capacity as figures


def capacity(
    size: Annotated[
        Optional[int],
        typer.Option(help="Ids of a range. Default: 65536; with single-uid, the host's blocks."),
    ] = None,
    pool: Annotated[
        Optional[str],
        typer.Option(metavar="FIRST-LAST", help="Look at these ids. Default: by the strategy."),
    ] = None,
    config: ConfigFile = None,
    root: Root = "/",
    json: Json = False,
) -> None:
    """Count the ids that are left, and tell when useradd runs out.

    Shows used and free ids, the largest gap, and room for how many more allocations. Defaults for
    --pool stand in /etc/usernsplan/config.yaml.

    \b
    Examples:
      usernsplan capacity
      usernsplan capacity --size 1000000
      usernsplan capacity --json
    """
    layout = layout_at(root, exists=True)
    state = read.state(layout, open_ledger(layout).state)
    defaults = load_config(layout, config)
    ids = id_range(pool) or (defaults.pool if defaults else None)
    found = Space((), (), figures(state, usual(state, size), ids), useradd(state))
    emit(report.result(found), as_json=json)
    note_interrupted(state.ledger)
