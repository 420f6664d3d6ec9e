"""The command allocate."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from usernsplan.cli.options import DryRun, Json, Root, Yes, id_range, note
from usernsplan.cli.run import run
from usernsplan.errors import InvalidValueError
from usernsplan.host import plan_file
from usernsplan.host.files import layout_at
from usernsplan.model import AllocateRequest
from usernsplan.planner import make_plan
from usernsplan.strategies import NAMES, named

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.host.plan_file import Found
    from usernsplan.model import HostState, Plan

_PENDING, _PART = 4, 3


def allocate(
    names: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[NAME]...", help="Containers. None: those of the plan file, else Docker's own."),
    ] = None,
    strategy: Annotated[str, typer.Option(metavar="S", help=f"One of: {', '.join(NAMES)}.")] = "",
    size: Annotated[Optional[int], typer.Option(help="per-container: ids for each (65536).")] = None,
    block: Annotated[Optional[int], typer.Option(help="single-uid: ids set apart for each (10000).")] = None,
    container_id: Annotated[Optional[int], typer.Option(help="single-uid: the id in the container (0).")] = None,
    dockerroot: Annotated[Optional[int], typer.Option(help="shared: the host id of container root (2).")] = None,
    identity: Annotated[bool, typer.Option("--identity", help="shared: every id is itself, root too.")] = False,
    max_: Annotated[
        Optional[int], typer.Option("--max", help="shared: the last id (65535); with --identity, how many.")
    ] = None,
    start: Annotated[Optional[int], typer.Option(help="The first host id of the one NAME: this or none.")] = None,
    pool: Annotated[Optional[str], typer.Option(metavar="FIRST-LAST", help="Take ranges from here.")] = None,
    owner: Annotated[Optional[str], typer.Option(help="Owner of the lines of the one NAME (usernsplan-NAME).")] = None,
    daemon: Annotated[Optional[str], typer.Option(metavar="NAME", help="Point Docker's remap at this one.")] = None,
    no_daemon_config: Annotated[
        bool, typer.Option("--no-daemon-config", help="Leave Docker's daemon.json alone.")
    ] = False,
    engine: Annotated[
        Optional[list[str]],
        typer.Option(metavar="E", help="Grant what this engine needs besides (repeatable; those found on the host)."),
    ] = None,
    auto_containers: Annotated[
        Optional[int], typer.Option(metavar="N", help="podman-auto: a pool for so many containers (100).")
    ] = None,
    pods: Annotated[
        Optional[int], typer.Option(metavar="N", help="kubernetes: a kubelet's line for so many (110).")
    ] = None,
    root: Root = "/",
    dry_run: DryRun = False,
    check: Annotated[bool, typer.Option("--check", help="Like --dry-run; exit 4 if something would change.")] = False,
    json: Json = False,
    replace_remap: Annotated[
        bool, typer.Option("--replace-remap", help="Point Docker's remap here though it names another user.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Give containers their ids: pick free ranges and write /etc/subuid, /etc/subgid and Docker's daemon.json.

    Said again with the same words it changes nothing. All names get their ids, or none does. Without a name, it is what
    ./usernsplan.yaml or /etc/usernsplan.yaml says (see 'usernsplan plan'), or where there is none, Docker's own.

    \b
    Examples:
      usernsplan allocate --strategy per-container web db
      usernsplan allocate --strategy per-container      (Docker's own: daemon.json too)
      usernsplan allocate --strategy per-container box --engine lxc
      usernsplan allocate --strategy single-uid app --block 1
      usernsplan allocate --strategy shared --dockerroot 400 --dry-run
    """
    options = {
        "size": size,
        "block": block,
        "container-id": container_id,
        "dockerroot": dockerroot,
        "identity": identity or None,
        "max": max_,
    }
    said = {option: value for option, value in options.items() if value is not None}
    pools = {"podman-auto": auto_containers, "kubernetes": pods}
    file = None if names else plan_file.find(layout_at(root))
    if file is not None:
        others = (start, pool, owner, daemon, engine, *said.values(), *pools.values(), no_daemon_config or None)
        if any(value is not None for value in others):
            hint = "say it there, or name the containers"
            raise InvalidValueError(f"{file.path} says what is allocated, and so do these options", hint=hint)
        decide = _by_file(file, strategy, root, replace_remap=replace_remap)
    else:
        request = AllocateRequest(
            names=tuple(names or ()),
            strategy=named(strategy, said),
            owner=owner,
            start=start,
            pool=id_range(pool),
            daemon=daemon,
            daemon_config=not no_daemon_config,
            replace_remap=replace_remap,
            engines=tuple(engine) if engine else None,
            pools=tuple((name, count) for name, count in pools.items() if count is not None),
        )
        decide = partial(make_plan, request=request)
    del yes  # nothing is asked here
    plan = run(decide, root, preview=dry_run or check, as_json=json)
    if check and plan.changed:
        raise typer.Exit(_PENDING)
    if plan.unfinished:
        raise typer.Exit(_PART)


def _by_file(file: Found, strategy: str, root: str, *, replace_remap: bool) -> Callable[[HostState], Plan]:
    """What a plan file says; --strategy may only say the same."""
    from usernsplan import planfile  # noqa: PLC0415 - YAML and volumes, only where there is such a file

    loaded = planfile.found(layout_at(root), file)
    if strategy not in {"", loaded.spec.strategy}:
        raise InvalidValueError(f"--strategy {strategy}: {file.path} says {loaded.spec.strategy}", hint="leave it out")
    note([f"{file.path} says what is allocated"])
    return planfile.allocating(loaded, replace_remap=replace_remap)
