"""The command capacity."""

from __future__ import annotations

from typing import Annotated, Optional

from usernsplan.cli.emit import emit
from usernsplan.cli.options import (
    ConfigFile,
    Host,
    Json,
    OfFleet,
    Root,
    id_range,
    note_interrupted,
)
from usernsplan.cli.words import Option
from usernsplan.host import read
from usernsplan.host.config import load as load_config
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.report import capacity as report
from usernsplan.space import pool_space, usual


def capacity(
    size: Annotated[
        Optional[int],
        Option(help="Ids in each range. Default: 65536, or the host's single-uid block."),
    ] = None,
    pool: Annotated[
        Optional[str],
        Option(metavar="FIRST-LAST", help="Count these ids. Default: the strategy's pool."),
    ] = None,
    config: ConfigFile = None,
    host: Host = None,
    fleet: OfFleet = False,
    root: Root = "/",
    json: Json = False,
) -> None:
    """Count the free ids, and how many users still fit.

    Shows the used and free ids of the pool, the largest gap, how many more ranges fit, and what
    other programs have of the pool. Also shows how many more users useradd can give ids.
    With --fleet, counts the ids of this host's pool that no host of the fleet has.
    /etc/usernsplan/config.yaml can set a default for --pool.

    \b
    Examples:
      usernsplan capacity
      usernsplan capacity --size 1000000
      usernsplan capacity --json
      usernsplan capacity --fleet
    """
    layout = layout_at(root, exists=True)
    defaults = load_config(layout, config)
    ids = id_range(pool) or (defaults.pool if defaults else None)
    if host or fleet:
        from usernsplan.cli import across  # noqa: PLC0415 - only in a fleet

        of_fleet = across.views(layout, host)
        across.capacity(of_fleet, across.pool(layout, ids), size, as_json=json)
        return
    store = open_ledger(layout)
    state = read.shown(layout, store.state)
    found = pool_space(state, usual(state, size), ids)
    emit(report.result(found), as_json=json, of=store)
    note_interrupted(state.ledger)
