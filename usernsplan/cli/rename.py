"""The command rename."""

from __future__ import annotations

from typing import Annotated

from usernsplan import apply
from usernsplan.cli.options import DryRun, Json, Root
from usernsplan.cli.run import run
from usernsplan.cli.words import Argument
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger


def rename(
    old: Annotated[str, Argument(metavar="OLD", help="Name that 'usernsplan list' shows.")],
    new: Annotated[str, Argument(metavar="NEW", help="The name that it gets.")],
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Give an allocation another name.

    Ids, lines, records, volumes and history stay, and no file changes. The lines keep their owner,
    such as usernsplan-OLD; 'usernsplan show NEW' names it. In a plan file: {name: NEW, was: OLD}.

    Example: usernsplan rename db db2
    """
    layout = layout_at(root)
    decide = apply.renaming(layout, open_ledger(layout), old, new)
    run(decide, root, preview=dry_run, as_json=json, asked=(old, new))
