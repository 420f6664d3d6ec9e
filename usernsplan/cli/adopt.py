"""The command adopt."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Optional

from usernsplan import apply
from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Json, Root
from usernsplan.cli.run import run
from usernsplan.cli.words import Argument, Option
from usernsplan.errors import InvalidValueError
from usernsplan.host import read
from usernsplan.host.files import layout_at
from usernsplan.host.unread import homes_unseen
from usernsplan.ledger import open_ledger
from usernsplan.model import AdoptRequest
from usernsplan.planner import adopt as planner
from usernsplan.report import adopt as report

if TYPE_CHECKING:
    from usernsplan.model import HostState
    from usernsplan.planner.standing import Found


def adopt(
    names: Annotated[
        Optional[list[str]],
        Argument(metavar="[NAME]...", help="Names that 'usernsplan adopt' lists."),
    ] = None,
    everything: Annotated[
        bool,
        Option("--all", help="Adopt all that is certain: what nobody else has ids of."),
    ] = False,
    pass_privileged: Annotated[
        bool,
        Option(
            "--pass-privileged",
            help="Adopt maps with ids that make the container a superuser of the host.",
        ),
    ] = False,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Take over what others made, without changing a file.

    Finds the lines of each owner in subuid and subgid, Docker's and the pools of Podman and the
    kubelet among them, and the containers of LXC, Proxmox VE, Incus, LXD and Podman (.container
    files) whose configuration has a map. Without a name it lists them: the name that each would
    get, its map, and what it did not understand, and why.

    An adopted allocation is like any other: 'list' shows it, 'fix-volume' and 'render' use it, and
    no new range takes its ids. Only the ledger changes. Its lines are not ours: 'release' leaves
    them. A container whose ids are a part of larger lines is a slice of these. Host ids that a map
    shows (a group such as render, an account) stay the host's. Nothing is published.
    What an account made gets the account's name in front: accounts choose names as they like.

    \b
    Examples:
      usernsplan adopt                   (lists)
      usernsplan adopt alice 101
      usernsplan adopt --all --dry-run
    """
    if names and everything:
        raise InvalidValueError("--all does not go with a name", hint="leave out one of them")
    if not names and not everything:
        layout = layout_at(root, exists=True)
        listed, notes, unseen = apply.foreseen(layout, open_ledger(layout), _listed)
        found, missed = listed
        emit(report.listed(found, layout, notes, (*unseen, *missed)), as_json=json)
        return
    request = AdoptRequest(
        tuple(names or ()), everything=everything, pass_privileged=pass_privileged
    )
    # Nothing stands below a root that does not exist.
    layout_at(root, exists=True)
    decide = partial(apply.adopting, request=request)
    run(decide, root, preview=dry_run, as_json=json, asked=request.names)


def _listed(state: HostState) -> tuple[tuple[Found, ...], tuple[str, ...]]:
    seen, missed = read.with_configs(state)
    return planner.found(seen), homes_unseen(missed)
