"""The command release."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from usernsplan.cli.options import DryRun, Json, Root, Yes
from usernsplan.cli.run import run
from usernsplan.model import ReleaseRequest
from usernsplan.planner import make_release


def release(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="What 'usernsplan list' shows.")],
    forget: Annotated[
        bool, typer.Option("--forget", help="Give the released ranges of these names back to the pool.")
    ] = False,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    unset_remap: Annotated[
        bool, typer.Option("--unset-remap", help="Take Docker's userns-remap out with the lines that it needs.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Take allocations away: their lines go, and their ranges are kept back until they are forgotten.

    Files may still carry ids of a released range, and a container that got it would own them: so it is not given out
    again before 'usernsplan release --forget NAME'.

    Example: usernsplan release web
    """
    del yes  # nothing is asked here
    request = ReleaseRequest(tuple(names), forget=forget, unset_remap=unset_remap)
    run(partial(make_release, request=request), root, preview=dry_run, as_json=json)
