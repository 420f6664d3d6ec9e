"""The commands ledger init, join, leave, status and rebuild."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated, Optional

from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Json, Root, agreed, note, typed
from usernsplan.cli.words import Argument, Option
from usernsplan.errors import ExitStatus, InvalidValueError
from usernsplan.host.files import layout_at
from usernsplan.ledger import member, open_ledger

_PLACE = "The database, as libpq takes it, without a password."
_RISK = (
    "If the server still exists, it keeps the ids of this host, and other hosts may have ids that "
    "this one gives out from now on. Leave without asking it?"
)


def ledger() -> None:
    """Share the ledger of ids with other hosts, or repair it.

    \b
    Examples:
      usernsplan ledger join postgresql://ledger.example/usernsplan
      usernsplan ledger status
      usernsplan ledger rebuild --dry-run
    """


def init(
    url: Annotated[str, Argument(metavar="URL", help=_PLACE)],
    json: Json = False,
) -> None:
    """Make the ledger of a fleet in a database, or upgrade it.

    Run it once, as the role that owns the database. It makes the schema usernsplan, and the groups
    of roles usernsplan_host and usernsplan_operator. Running it again changes nothing, unless this
    usernsplan has a newer version of the schema.

    Example: usernsplan ledger init postgresql://owner@ledger.example/usernsplan
    """
    from usernsplan import joining  # noqa: PLC0415 - only in a fleet
    from usernsplan.report import fleet as report  # noqa: PLC0415

    emit(report.made(joining.init(url)), as_json=json)


def join(
    url: Annotated[
        Optional[str], Argument(metavar="[URL]", help=f"{_PLACE} Default: that of config.yaml.")
    ] = None,
    name: Annotated[
        str,
        Option(
            metavar="NAME",
            help="The host's name in the fleet. Default: its own.",
            show_default=False,
        ),
    ] = "",
    local: Annotated[
        Optional[list[str]],
        Option(metavar="NAME", help="A container whose ids are this host's alone (repeatable)."),
    ] = None,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Make this host one of a fleet, with all that it has.

    Lists every clash with ids of other hosts and then changes nothing. Writes the place of the
    ledger into config.yaml. After a kill, the same command goes on. On a host that has joined,
    --local takes names out of the fleet: there, other hosts may have other ids.

    \b
    Examples:
      usernsplan ledger join postgresql://ledger.example/usernsplan --dry-run
      usernsplan ledger join service=usernsplan --name web1 --local db
    """
    from usernsplan import joining  # noqa: PLC0415 - only in a fleet
    from usernsplan.report import fleet as report  # noqa: PLC0415

    done = joining.join(
        layout_at(root, exists=True),
        url or "",
        name,
        local=local or (),
        command=typed(),
        dry_run=dry_run,
    )
    emit(report.joined(done), as_json=json)


def leave(
    forget: Annotated[
        bool, Option("--forget", help="Leave a ledger that does not exist any more.")
    ] = False,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    yes: Annotated[bool, Option("--yes", help="With --forget, do not ask.")] = False,
) -> None:
    """Make this host one of its own again; it keeps its names and ids.

    The fleet gives its ids to no other name until an operator says that no file carries them:
    'release --forget NAME --of HOST'. Names that are this host's alone are forgotten. A host that
    works on a volume does not leave. With --forget the server is not asked, and what it has of this
    host stays.

    \b
    Examples:
      usernsplan ledger leave --dry-run
      usernsplan ledger leave --forget
    """
    from usernsplan import joining  # noqa: PLC0415 - only in a fleet
    from usernsplan.report import fleet as report  # noqa: PLC0415

    if forget and not (dry_run or yes) and not agreed(_RISK):
        sys.exit(ExitStatus.FAILED)
    done = joining.leave(layout_at(root, exists=True), forget=forget, dry_run=dry_run)
    emit(report.left(done), as_json=json)


def status(root: Root = "/", json: Json = False) -> None:
    """Show the fleet's hosts, and whether this one agrees with them.

    Warns if the server could lose what it acknowledged. If it cannot be reached, shows what this
    host knows, and exits with 10.

    Example: usernsplan ledger status --json
    """
    from usernsplan import joining  # noqa: PLC0415 - only in a fleet
    from usernsplan.report import fleet as report  # noqa: PLC0415

    layout = layout_at(root, exists=True)
    found = joining.status(layout)
    emit(report.status(found, layout), as_json=json)
    if found.error:
        raise found.error


def rebuild(
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    yes: Annotated[bool, Option("--yes", help="Write it without asking.")] = False,
) -> None:
    """Rebuild a lost or damaged ledger from the host.

    Reads the lines in subuid and subgid and the journals of fix-volume. Shows the new ledger, then
    asks. Leaves out what it cannot know, and lists it; it never guesses. Keeps the damaged ledger
    beside the new one. Refuses if the ledger can be read (exit 9).

    \b
    Examples:
      usernsplan ledger rebuild --dry-run
      usernsplan ledger rebuild --yes
    """
    from usernsplan import apply  # noqa: PLC0415 - only here
    from usernsplan.planner.rebuild import make_rebuilt  # noqa: PLC0415
    from usernsplan.report import rebuilt as report  # noqa: PLC0415
    from usernsplan.volume.given import given  # noqa: PLC0415

    layout = layout_at(root, exists=True)
    if member.read(layout):
        raise member.has_its_state(layout)
    store = open_ledger(layout)
    found, left = given(layout)
    make = partial(make_rebuilt, given=found, unread=left)
    shown, _ = apply.rebuild(layout, store, make, really=False)
    if json and not (dry_run or yes):
        raise InvalidValueError("--json cannot prompt", hint="use --dry-run or --yes")
    if dry_run or not json:
        emit(report.result(shown, layout, None, dry_run=dry_run), as_json=json)
    if dry_run:
        return
    if not yes and not agreed("Write this ledger?"):
        sys.exit(ExitStatus.FAILED)

    done, kept = apply.rebuild(layout, store, make, typed(), expected=shown, really=True)
    if json:
        emit(report.result(done, layout, kept, dry_run=False), as_json=True)
    else:
        note(["wrote the ledger", *([f"the damaged ledger is now {kept}"] if kept else [])])


ledger.commands = {  # type: ignore[attr-defined]
    "init": init,
    "join": join,
    "leave": leave,
    "status": status,
    "rebuild": rebuild,
}
