"""The command release."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from usernsplan.cli.options import DryRun, Json, Root, Yes, id_range
from usernsplan.cli.run import run
from usernsplan.errors import InvalidValueError
from usernsplan.model import ReleaseRequest
from usernsplan.planner import make_release

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.model import HostState, Plan


def release(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="What 'usernsplan list' shows.")
    ],
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Give the released ranges of these names back to the pool."),
    ] = False,
    with_lines: Annotated[
        bool,
        typer.Option(
            "--with-lines", help="Take out lines too that stood there before they were adopted."
        ),
    ] = False,
    range: Annotated[
        Optional[str],
        typer.Option(
            metavar="FIRST-LAST", help="--forget: which of the released ranges of the one NAME."
        ),
    ] = None,
    unseen: Annotated[
        bool,
        typer.Option("--unseen", help="--forget: also where something could not be looked at."),
    ] = False,
    scan: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="DIR",
            help="--forget: look in DIR too for files that carry the ids (repeatable).",
        ),
    ] = None,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    unset_remap: Annotated[
        bool,
        typer.Option(
            "--unset-remap", help="Take Docker's userns-remap out with the lines that it needs."
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Release allocations; their ranges stay in quarantine.

    Their lines are taken out of subuid and subgid. Files may still carry ids of a released range,
    and a container that got the range would own them. So nobody gets it before
    'usernsplan release --forget NAME'. Lines that usernsplan adopted and did not write stay.

    --forget looks first at every volume that was fixed, and at --scan DIR, and is refused while a file there carries
    the ids, or where something cannot be looked at (--unseen: forget it all the same).

    \b
    Examples:
      usernsplan release web
      usernsplan release --forget web --scan /srv --scan /home
    """
    del yes  # nothing is asked here
    if with_lines and forget:
        raise InvalidValueError(
            "--with-lines with --forget", hint="the lines of what is forgotten are gone already"
        )
    if (range is not None or scan or unseen) and not forget:
        raise InvalidValueError(
            "--range, --scan and --unseen are about --forget",
            hint="say --forget, or leave them out",
        )
    request = ReleaseRequest(
        tuple(names),
        forget=forget,
        unset_remap=unset_remap,
        unseen=unseen,
        with_lines=with_lines,
        range=id_range(range, "--range"),
    )
    decide: Callable[[HostState], Plan] = partial(make_release, request=request)
    if forget:
        from usernsplan.volume import forget as looking  # noqa: PLC0415 - only where files are to be looked at

        decide = looking.looked(request, root, scan or ())
    run(decide, root, preview=dry_run, as_json=json)
