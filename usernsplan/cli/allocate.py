"""The command allocate."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Optional, TypeVar

import typer

from usernsplan.cli.options import ConfigFile, DryRun, Json, Root, Yes, id_range, note, text_of
from usernsplan.cli.run import run
from usernsplan.engines import ENGINES
from usernsplan.errors import ExitStatus, InvalidValueError
from usernsplan.host import plan_file
from usernsplan.host.config import load as load_config
from usernsplan.host.files import layout_at
from usernsplan.layout import STDIN
from usernsplan.model import AllocateRequest, PoolOptions
from usernsplan.planner import make_plan
from usernsplan.planner.defaults import of_request
from usernsplan.strategies import AUTO, NAMES, named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from usernsplan.formats.config import Config
    from usernsplan.host.plan_file import FoundFile
    from usernsplan.model import HostState, Plan

Names = Annotated[
    Optional[list[str]],
    typer.Argument(
        metavar="[NAME]...", help="Containers. None: those of the plan file, or Docker's own."
    ),
]
NamesFrom = Annotated[
    Optional[str],
    typer.Option(
        metavar="FILE", help="Names, one a line; '-' for standard input. Not an empty list."
    ),
]
OfDocker = Annotated[
    bool, typer.Option("--docker", help="Docker's own allocation, which has no name.")
]
StrategyName = Annotated[
    str,
    typer.Option(
        metavar="S", help=f"One of: {', '.join(NAMES)}. Default: the one that this host has."
    ),
]
Size = Annotated[Optional[int], typer.Option(help="per-container: ids for each. Default: 65536.")]
Block = Annotated[
    Optional[int], typer.Option(help="single-uid: ids set apart for each. Default: 10000.")
]
ContainerId = Annotated[
    Optional[int], typer.Option(help="single-uid: the id in the container. Default: 0.")
]
DockerRoot = Annotated[
    Optional[str],
    typer.Option(
        metavar="N|auto",
        help="shared: the host id of container root; auto: the first free one. Default: 2.",
    ),
]
Identity = Annotated[bool, typer.Option("--identity", help="shared: every id is itself, root too.")]
Max = Annotated[
    Optional[int],
    typer.Option("--max", help="shared: the last id; with --identity, how many. Default: 65535."),
]
Start = Annotated[
    Optional[int], typer.Option(help="The first host id of the one NAME: this or none.")
]
PoolRange = Annotated[
    Optional[str],
    typer.Option(metavar="FIRST-LAST", help="Take ranges from here. Default: by the strategy."),
]
Owner = Annotated[
    Optional[str],
    typer.Option(help="Owner of the lines of the one NAME. Default: usernsplan-NAME."),
]
Daemon = Annotated[
    Optional[str], typer.Option(metavar="NAME", help="Point Docker's remap at this one.")
]
NoDaemonConfig = Annotated[
    bool, typer.Option("--no-daemon-config", help="Leave Docker's daemon.json alone.")
]
EngineNames = Annotated[
    Optional[list[str]],
    typer.Option(
        "--engine",
        metavar="E",
        help="Grant what this engine needs, too (repeatable). Default: those found on the host.",
    ),
]
Check = Annotated[
    bool, typer.Option("--check", help="Like --dry-run; exit 4 if something would change.")
]
ReplaceRemap = Annotated[
    bool,
    typer.Option("--replace-remap", help="Point Docker's remap here though it names another user."),
]
_Command = TypeVar("_Command", bound="Callable[..., None]")


def _with_pools(command: _Command) -> _Command:
    """Give a command an option for each engine that has a pool; it gets them as keyword arguments.

    typer makes options of what inspect.signature tells of a function.
    """
    own = inspect.signature(command, eval_str=True)
    usual = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
    place = [one.name for one in usual].index("engines") + 1
    usual[place:place] = [
        inspect.Parameter(
            _parameter(engine),
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None,
            annotation=Annotated[
                Optional[int],
                typer.Option(
                    pool.option,
                    metavar="N",
                    help=f"{engine}: {pool.help}. Default: {pool.containers}.",
                ),
            ],
        )
        for engine, it in ENGINES.items()
        if (pool := it.pool)
    ]
    command.__signature__ = own.replace(parameters=usual)  # type: ignore[attr-defined]
    return command


def _parameter(engine: str) -> str:
    """The parameter that has what is said of an engine's pool."""
    return engine.replace("-", "_")


@_with_pools
def allocate(
    names: Names = None,
    names_from: NamesFrom = None,
    docker: OfDocker = False,
    strategy: StrategyName = "",
    size: Size = None,
    block: Block = None,
    container_id: ContainerId = None,
    dockerroot: DockerRoot = None,
    identity: Identity = False,
    max_: Max = None,
    start: Start = None,
    pool: PoolRange = None,
    owner: Owner = None,
    daemon: Daemon = None,
    no_daemon_config: NoDaemonConfig = False,
    engines: EngineNames = None,
    config: ConfigFile = None,
    root: Root = "/",
    dry_run: DryRun = False,
    check: Check = False,
    json: Json = False,
    replace_remap: ReplaceRemap = False,
    yes: Yes = False,
    **pools: Optional[int],
) -> None:
    """Give containers free host ids, in subuid and subgid.

    Finds free ranges and writes /etc/subuid, /etc/subgid and Docker's daemon.json. Running the same
    command again changes nothing. Either all names get their ids, or none does.

    Without a name, the plan file says what to allocate: ./usernsplan.yaml, or /etc/usernsplan.yaml
    (see 'usernsplan plan'). --docker makes Docker's own allocation. So does --strategy without a
    name, unless there is an /etc/usernsplan.yaml.

    Defaults for --strategy and its options, --pool and --engine stand in
    /etc/usernsplan/config.yaml.

    If Docker would no longer see containers, images or volumes that it has, the command asks first.
    A script needs --yes; without it, nothing is done (exit 9).

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
    of_strategy = {
        "size": size,
        "block": block,
        "container-id": container_id,
        "dockerroot": _dockerroot(dockerroot),
        "identity": identity or None,
        "max": max_,
    }
    options = {option: value for option, value in of_strategy.items() if value is not None}
    counts = {engine: pools.get(_parameter(engine)) for engine in ENGINES}
    request = AllocateRequest(
        names=_names(names or (), names_from, docker=docker, daemon=daemon, engines=engines),
        strategy=named(strategy, options) if strategy else None,
        options=options,
        owner=owner,
        start=start,
        pool=id_range(pool),
        daemon=daemon,
        daemon_config=not no_daemon_config,
        replace_remap=replace_remap,
        engines=tuple(engines) if engines else None,
        pools={e: PoolOptions(count) for e, count in counts.items() if count is not None},
    )
    defaults = load_config(layout_at(root), config)
    decide = _decision(request, strategy, root, defaults, docker=docker)
    plan = run(decide, root, preview=dry_run or check, as_json=json, yes=yes)

    if check and plan.changed:
        raise typer.Exit(ExitStatus.CHANGES_PENDING)
    if plan.unfinished:
        raise typer.Exit(ExitStatus.DONE_IN_PART)


def _decision(
    request: AllocateRequest, strategy: str, root: str, config: Config | None, *, docker: bool
) -> Callable[[HostState], Plan]:
    """What decides: the plan file where the command line names nothing to allocate, else the request."""
    # Where a command is typed is no part of what it says.
    is_named = request.names or docker
    file = None if is_named else plan_file.find(layout_at(root), here=not strategy)
    if file is not None:
        if replace(request, strategy=None, replace_remap=False) != AllocateRequest(()):
            raise InvalidValueError(
                f"{file.path} says what is allocated, and so do these options",
                hint="say it there, or name the containers",
            )
        return _by_file(file, strategy, root, config, replace_remap=request.replace_remap)

    # A pool of an engine needs no name either.
    if not (is_named or strategy or (request.engines and "docker" not in request.engines)):
        raise InvalidValueError(
            "nothing to allocate: no name, no --strategy, and no plan file",
            hint="name containers: 'usernsplan allocate NAME'; "
            "'usernsplan allocate --docker' is Docker's own",
        )
    if not request.names and plan_file.is_here():
        note(
            [f"./{plan_file.HERE} is not looked at where --strategy, --docker or --engine is said"]
        )
    return partial(make_plan, request=of_request(request, config) if config else request)


def _dockerroot(said: str | None) -> int | str | None:
    """A host id, or the word that stands for the first free one."""
    if said is None or said == AUTO:
        return said
    if not re.fullmatch("-?[0-9]{1,20}", said):
        raise InvalidValueError(
            f"'{said}' is not a number", hint=f"a host id, or '{AUTO}'", option="dockerroot"
        )
    return int(said)


def _names(
    typed: Sequence[str],
    names_from: str | None,
    *,
    docker: bool,
    daemon: str | None,
    engines: Sequence[str] | None,
) -> tuple[str, ...]:
    """The names that were typed, and those of a file.

    Raises InvalidValueError for a file without names: it means nobody, and never Docker's own.
    """
    if docker and (typed or names_from is not None or daemon is not None):
        raise InvalidValueError(
            "--docker with a name",
            hint="Docker's own allocation has none; --daemon NAME points Docker at a container's",
        )
    if docker and engines and "docker" not in engines:
        raise InvalidValueError(
            f"--docker with --engine {engines[0]}", hint="say --engine docker too, or neither"
        )
    if names_from is None:
        return tuple(typed)
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
    return (*typed, *found)


def _by_file(
    file: FoundFile, strategy: str, root: str, config: Config | None, *, replace_remap: bool
) -> Callable[[HostState], Plan]:
    """What a plan file says; --strategy may only say the same."""
    from usernsplan import planfile  # noqa: PLC0415 - YAML and volumes, only where there is such a file

    loaded = planfile.found(layout_at(root), file, config)
    if strategy not in {"", loaded.spec.strategy}:
        raise InvalidValueError(
            f"--strategy {strategy}: {file.path} says {loaded.spec.strategy}", hint="leave it out"
        )
    note([f"{file.path} says what is allocated"])
    return planfile.allocating(loaded, replace_remap=replace_remap)
