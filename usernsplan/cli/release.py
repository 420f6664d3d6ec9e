"""The command release."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Optional

from usernsplan.cli.emit import emit
from usernsplan.cli.options import (
    DryRun,
    Everywhere,
    Json,
    On,
    Root,
    Yes,
    hosts_of,
    id_range,
    typed,
)
from usernsplan.cli.run import run
from usernsplan.cli.words import Argument, Option
from usernsplan.errors import InvalidValueError
from usernsplan.host.files import layout_at
from usernsplan.model import ReleaseRequest
from usernsplan.planner.release import make_release

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from usernsplan.model import HostState, Plan


def release(
    names: Annotated[
        list[str], Argument(metavar="NAME...", help="Names that 'usernsplan list' shows.")
    ],
    forget: Annotated[
        bool,
        Option("--forget", help="Return the quarantined ranges of these names to the pool."),
    ] = False,
    with_lines: Annotated[
        bool,
        Option("--with-lines", help="Also remove adopted lines, which others wrote."),
    ] = False,
    range: Annotated[
        Optional[str],
        Option(
            metavar="FIRST-LAST",
            help="--forget: only this range of one NAME. Default: all its ranges.",
        ),
    ] = None,
    unseen: Annotated[
        bool,
        Option("--unseen", help="--forget: go on if something cannot be examined."),
    ] = False,
    scan: Annotated[
        Optional[list[str]],
        Option(
            metavar="DIR",
            help="--forget: also search DIR for files with the ids (repeatable).",
        ),
    ] = None,
    of: Annotated[
        Optional[str],
        Option(
            metavar="HOST",
            help="--forget: operators: of this host, which left the fleet, and not of this one.",
        ),
    ] = None,
    on: On = None,
    everywhere: Everywhere = False,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    unset_remap: Annotated[
        bool,
        Option("--unset-remap", help="Also remove Docker's userns-remap if it needs the lines."),
    ] = False,
    yes: Yes = False,
) -> None:
    """Release allocations; their ranges are quarantined.

    Removes their lines from subuid and subgid; adopted lines stay. Files may still carry ids of a
    released range, and a container that got the range would own them. So the range is quarantined
    until 'usernsplan release --forget NAME'. Refuses while a volume is mounted with these ids.

    --forget first searches every recorded volume and each --scan DIR. It refuses if a file there
    carries the ids, or if it cannot examine something (see --unseen).

    In a fleet, a range is given out again when each host that had it has forgotten it. --on and
    --everywhere also ask other hosts, which do it at their next 'usernsplan sync'. That takes an
    operator's role.

    \b
    Examples:
      usernsplan release web
      usernsplan release --forget web --scan /srv --scan /home
    """
    if with_lines and forget:
        raise InvalidValueError(
            "--with-lines does not go with --forget",
            hint="leave out --with-lines: a quarantined range has no lines",
        )
    if (range is not None or scan or unseen) and not forget:
        raise InvalidValueError(
            "--range, --scan and --unseen need --forget",
            hint="add --forget, or leave them out",
        )
    if of is not None:
        from usernsplan.cli import leases  # noqa: PLC0415 - only in a fleet

        others = (range, scan, on, dry_run, unseen, everywhere, json)
        if not forget or any(others):
            raise InvalidValueError("--of goes with --forget alone", hint="leave out the others")
        leases.forget(root, names, of, yes=yes)
        return

    request = ReleaseRequest(
        tuple(names),
        forget=forget,
        unset_remap=unset_remap,
        unseen=unseen,
        with_lines=with_lines,
        range=id_range(range, "--range"),
    )
    hosts = hosts_of(on, everywhere=everywhere)
    if hosts is not None:
        _ask(request, hosts, root, preview=dry_run, as_json=json)
        return
    decide: Callable[[HostState], Plan] = partial(make_release, request=request)
    if forget:
        from usernsplan.volume import forget as looking  # noqa: PLC0415 - only --forget reads files

        decide = looking.looked(request, root, scan or ())
    # Of a fleet, the other hosts that still have these ranges are looked up.
    run(decide, root, preview=dry_run, as_json=json, asked=names if forget else ())


def _ask(
    request: ReleaseRequest, hosts: Sequence[str], root: str, *, preview: bool, as_json: bool
) -> None:
    """Release on other hosts, too."""
    if request != ReleaseRequest(request.names):
        raise InvalidValueError(
            "other hosts can be asked to release names, without further options",
            hint="leave the other options out; or run the command on each host",
        )
    from usernsplan import asking  # noqa: PLC0415 - only in a fleet
    from usernsplan.report import asked as report  # noqa: PLC0415

    layout = layout_at(root)
    found = asking.release(layout, request, hosts, typed(), really=not preview)
    emit(report.result(found, layout, done=not preview), as_json=as_json)
