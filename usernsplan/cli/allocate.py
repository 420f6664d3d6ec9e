"""The command allocate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from usernsplan.cli.options import DryRun, Json, Root, Yes, id_range, note, text_of
from usernsplan.cli.run import run
from usernsplan.errors import ExitStatus, InvalidValueError
from usernsplan.host import plan_file
from usernsplan.host.files import layout_at
from usernsplan.layout import STDIN
from usernsplan.model import AllocateRequest
from usernsplan.planner import make_plan
from usernsplan.planner.unsaid import strategy_of
from usernsplan.strategies import AUTO, NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from usernsplan.host.plan_file import FoundFile
    from usernsplan.model import HostState, Plan


def allocate(
    names: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="[NAME]...", help="Containers. None: those of the plan file, or Docker's own."
        ),
    ] = None,
    names_from: Annotated[
        Optional[str],
        typer.Option(
            metavar="FILE", help="Names, one a line; '-' for standard input. Not an empty list."
        ),
    ] = None,
    docker: Annotated[
        bool, typer.Option("--docker", help="Docker's own allocation, which has no name.")
    ] = False,
    strategy: Annotated[
        str,
        typer.Option(metavar="S", help=f"One of: {', '.join(NAMES)} (the one that this host has)."),
    ] = "",
    size: Annotated[
        Optional[int], typer.Option(help="per-container: ids for each (65536).")
    ] = None,
    block: Annotated[
        Optional[int], typer.Option(help="single-uid: ids set apart for each (10000).")
    ] = None,
    container_id: Annotated[
        Optional[int], typer.Option(help="single-uid: the id in the container (0).")
    ] = None,
    dockerroot: Annotated[
        Optional[str],
        typer.Option(
            metavar="N|auto",
            help="shared: the host id of container root (2); auto: the first free one.",
        ),
    ] = None,
    identity: Annotated[
        bool, typer.Option("--identity", help="shared: every id is itself, root too.")
    ] = False,
    max_: Annotated[
        Optional[int],
        typer.Option("--max", help="shared: the last id (65535); with --identity, how many."),
    ] = None,
    start: Annotated[
        Optional[int], typer.Option(help="The first host id of the one NAME: this or none.")
    ] = None,
    pool: Annotated[
        Optional[str], typer.Option(metavar="FIRST-LAST", help="Take ranges from here.")
    ] = None,
    owner: Annotated[
        Optional[str], typer.Option(help="Owner of the lines of the one NAME (usernsplan-NAME).")
    ] = None,
    daemon: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Point Docker's remap at this one.")
    ] = None,
    no_daemon_config: Annotated[
        bool, typer.Option("--no-daemon-config", help="Leave Docker's daemon.json alone.")
    ] = False,
    engine: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="E",
            help="Grant what this engine needs besides (repeatable; those found on the host).",
        ),
    ] = None,
    auto_containers: Annotated[
        Optional[int],
        typer.Option(metavar="N", help="podman-auto: a pool for so many containers (100)."),
    ] = None,
    pods: Annotated[
        Optional[int],
        typer.Option(metavar="N", help="kubernetes: a kubelet's line for so many (110)."),
    ] = None,
    root: Root = "/",
    dry_run: DryRun = False,
    check: Annotated[
        bool, typer.Option("--check", help="Like --dry-run; exit 4 if something would change.")
    ] = False,
    json: Json = False,
    replace_remap: Annotated[
        bool,
        typer.Option(
            "--replace-remap", help="Point Docker's remap here though it names another user."
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Give containers their ids: pick free ranges and write /etc/subuid, /etc/subgid and Docker's daemon.json.

    Said again with the same words it changes nothing. All names get their ids, or none does. Without a name, it is what
    ./usernsplan.yaml or /etc/usernsplan.yaml says (see 'usernsplan plan'). With --docker it is Docker's own allocation;
    with --strategy and no name too, unless /etc/usernsplan.yaml says otherwise. Where Docker would no longer see
    containers, images or volumes that it has, it asks first; a script says --yes, or nothing is done (exit 9).

    \b
    Examples:
      usernsplan allocate --strategy per-container web db
      usernsplan allocate --strategy per-container --docker      (daemon.json too)
      usernsplan allocate cache                         (by the strategy that this host has)
      usernsplan allocate --names-from names.txt
      usernsplan allocate --strategy per-container box --engine lxc
      usernsplan allocate --strategy single-uid app --block 1
      usernsplan allocate --strategy shared --dockerroot 400 --dry-run
    """
    options = {
        "size": size,
        "block": block,
        "container-id": container_id,
        "dockerroot": _dockerroot(dockerroot),
        "identity": identity or None,
        "max": max_,
    }
    said: dict[str, int | str] = {
        option: value for option, value in options.items() if value is not None
    }
    pools = {"podman-auto": auto_containers, "kubernetes": pods}
    wanted = _names(names or (), names_from, docker=docker, daemon=daemon, engine=engine)
    # Where a command is typed is no part of what it says.
    file = None if wanted or docker else plan_file.find(layout_at(root), here=not strategy)
    if file is not None:
        others = (
            start,
            pool,
            owner,
            daemon,
            engine,
            *said.values(),
            *pools.values(),
            no_daemon_config or None,
        )
        if any(value is not None for value in others):
            hint = "say it there, or name the containers"
            raise InvalidValueError(
                f"{file.path} says what is allocated, and so do these options", hint=hint
            )
        decide = _by_file(file, strategy, root, replace_remap=replace_remap)
    else:
        # A pool of an engine needs no name either.
        if not (wanted or docker or strategy or (engine and "docker" not in engine)):
            raise InvalidValueError(
                "nothing to allocate: no name, no --strategy, and no plan file",
                hint="name containers: 'usernsplan allocate NAME'; 'usernsplan allocate --docker' is Docker's own",
            )
        ids = id_range(pool)
        if not wanted and plan_file.is_here():
            note(
                [
                    f"./{plan_file.HERE} is not looked at where --strategy, --docker or --engine is said"
                ]
            )

        def decide(state: HostState) -> Plan:
            request = AllocateRequest(
                names=wanted,
                strategy=strategy_of(state, strategy, said, wanted),
                owner=owner,
                start=start,
                pool=ids,
                daemon=daemon,
                daemon_config=not no_daemon_config,
                replace_remap=replace_remap,
                engines=tuple(engine) if engine else None,
                pools=tuple((name, count) for name, count in pools.items() if count is not None),
            )
            return make_plan(state, request)

    plan = run(decide, root, preview=dry_run or check, as_json=json, yes=yes)
    if check and plan.changed:
        raise typer.Exit(ExitStatus.CHANGES_PENDING)
    if plan.unfinished:
        raise typer.Exit(ExitStatus.DONE_IN_PART)


def _dockerroot(said: str | None) -> int | str | None:
    """A host id, or the word that stands for the first free one."""
    if said is None or said == AUTO:
        return said
    if not re.fullmatch("-?[0-9]{1,20}", said):
        raise InvalidValueError(
            f"--dockerroot {said}: not a number", hint=f"a host id, or '{AUTO}'"
        )
    return int(said)


def _names(
    named: Sequence[str],
    names_from: str | None,
    *,
    docker: bool,
    daemon: str | None,
    engine: Sequence[str] | None,
) -> tuple[str, ...]:
    """The names that were said, and those of a file. Raises InvalidValueError for an empty list, which means nobody."""
    if docker and (named or names_from is not None or daemon is not None):
        raise InvalidValueError(
            "--docker with a name",
            hint="Docker's own allocation has none; --daemon NAME points Docker at a container's",
        )
    if docker and engine and "docker" not in engine:
        raise InvalidValueError(
            f"--docker with --engine {engine[0]}", hint="say --engine docker too, or neither"
        )
    if names_from is None:
        return tuple(named)
    place = STDIN if names_from == "-" else names_from
    # As in a text for people: what follows a # is a comment.
    lines = (
        line.partition("#")[0].strip() for line in text_of("--names-from", names_from).splitlines()
    )
    found = tuple(line for line in lines if line)
    if not found:
        raise InvalidValueError(
            f"--names-from: {place} names nobody", hint="one name a line; nothing was allocated"
        )
    return (*named, *found)


def _by_file(
    file: FoundFile, strategy: str, root: str, *, replace_remap: bool
) -> Callable[[HostState], Plan]:
    """What a plan file says; --strategy may only say the same."""
    from usernsplan import planfile  # noqa: PLC0415 - YAML and volumes, only where there is such a file

    loaded = planfile.found(layout_at(root), file)
    if strategy not in {"", loaded.spec.strategy}:
        raise InvalidValueError(
            f"--strategy {strategy}: {file.path} says {loaded.spec.strategy}", hint="leave it out"
        )
    note([f"{file.path} says what is allocated"])
    return planfile.allocating(loaded, replace_remap=replace_remap)
