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
    with_lines: Annotated[
        bool, typer.Option("--with-lines", help="Take out lines too that stood there before they were adopted.")
    ] = False,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    yes: Yes = False,
) -> None:
    """Take allocations away: their lines go, and their ranges are kept back until they are forgotten.

    Files may still carry ids of a released range, and a container that got it would own them: so it is not given out
    again before 'usernsplan release --forget NAME'. Lines that usernsplan adopted and did not write stay.

    Example: usernsplan release web
    """
    request = ReleaseRequest(tuple(names), forget=forget, yes=yes, with_lines=with_lines)
    run(partial(make_release, request=request), root, preview=dry_run, as_json=json)
