"""The command capacity."""

from __future__ import annotations

from typing import Annotated, Optional

from usernsplan.cli.emit import emit
from usernsplan.cli.options import ConfigFile, Json, Root, id_range, note_interrupted
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
    root: Root = "/",
    json: Json = False,
) -> None:
    """Count the free ids, and how many users still fit.

    Shows the used and free ids of the pool, the largest gap, how many more ranges fit, and what
    other programs have of the pool. Also shows how many more users useradd can give ids.
    /etc/usernsplan/config.yaml can set a default for --pool.

    \b
    Examples:
      usernsplan capacity
      usernsplan capacity --size 1000000
      usernsplan capacity --json
    """
    layout = layout_at(root, exists=True)
    state = read.shown(layout, open_ledger(layout).state)
    defaults = load_config(layout, config)
    ids = id_range(pool) or (defaults.pool if defaults else None)
    found = pool_space(state, usual(state, size), ids)
    emit(report.result(found), as_json=json)
    note_interrupted(state.ledger)
