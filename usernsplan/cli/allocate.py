"""The command allocate."""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Optional

from usernsplan.cli.emit import emit
from usernsplan.cli.options import (
    ConfigFile,
    DryRun,
    Everywhere,
    Json,
    On,
    Root,
    Yes,
    hosts_of,
    id_range,
    note,
    one_of,
    text_of,
    typed,
)
from usernsplan.cli.run import run
from usernsplan.cli.words import Argument, Option
from usernsplan.engines import ENGINES
from usernsplan.errors import ExitStatus, InvalidValueError
from usernsplan.host import plan_file
from usernsplan.host.config import load as load_config
from usernsplan.host.files import layout_at
from usernsplan.layout import STDIN
from usernsplan.model import DEFAULT_NAME, PUBLISHED, AllocateRequest, PoolOptions
from usernsplan.planner.allocate import make_plan
from usernsplan.planner.defaults import of_request
from usernsplan.strategies import AUTO, NAMES, SLOT, named
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from usernsplan.engines import Pool
    from usernsplan.formats.config import Config
    from usernsplan.host.plan_file import FoundFile
    from usernsplan.model import HostState, Plan, Published


def options_of_pools() -> dict[str, Option]:
    """The options for engines' own pools, by parameter; the command gets them in ``pools``."""
    return {
        name: Option(option, metavar="N", help=f"{engine}: {text}")
        for engine, it in ENGINES.items()
        if (pool := it.pool)
        for name, option, text in _options_of(engine, pool)
    }


def _options_of(engine: str, pool: Pool) -> Iterator[tuple[str, str, str]]:
    """The options of an engine's pool: parameter, option and help."""
    configured = "that of the kubelet's configuration, or " if pool.each else ""
    usual = f"Default: {configured}{pool.containers}."
    yield _parameter(engine), pool.option, f"{pool.help}. {usual}"
    if pool.each:
        yield _each(engine), pool.each, f"ids for each pod. Default: {configured}{SLOT}."


def _each(engine: str) -> str:
    """The name of the parameter for the ids of each container in an engine's pool."""
    return f"{_parameter(engine)}_each"


def _parameter(engine: str) -> str:
    """The name of the parameter for an engine's pool."""
    return engine.replace("-", "_")


def allocate(
    names: Annotated[
        Optional[list[str]],
        Argument(
            metavar="[NAME]...", help="Containers to allocate. Default: those in the plan file."
        ),
    ] = None,
    names_from: Annotated[
        Optional[str],
        Option(metavar="FILE", help="Read names from FILE, one per line; '-' is standard input."),
    ] = None,
    docker: Annotated[
        bool, Option("--docker", help="Make Docker's own allocation, which has no name.")
    ] = False,
    strategy: Annotated[
        str,
        Option(metavar="S", help=f"One of: {', '.join(NAMES)}. Default: the host's strategy."),
    ] = "",
    size: Annotated[
        Optional[int], Option(help="per-container: ids for each container. Default: 65536.")
    ] = None,
    block: Annotated[
        Optional[int],
        Option(help="single-uid: ids reserved for each container. Default: 10000."),
    ] = None,
    container_id: Annotated[
        Optional[int], Option(help="single-uid: the one container id. Default: 0.")
    ] = None,
    dockerroot: Annotated[
        Optional[str],
        Option(
            metavar="N|auto",
            help="shared: host id of container root; 'auto' takes the first free id. Default: 2.",
        ),
    ] = None,
    identity: Annotated[
        bool, Option("--identity", help="shared: map every id to itself, even root.")
    ] = False,
    max_: Annotated[
        Optional[int],
        Option("--max", help="shared: last id; with --identity, number of ids. Default: 65535."),
    ] = None,
    start: Annotated[
        Optional[int], Option(help="First host id for one NAME; an error if it is taken.")
    ] = None,
    passes: Annotated[
        Optional[list[str]],
        Option(
            "--pass",
            metavar="K:HOST[:ID]",
            help="per-container: show a host id: u:1000, g:render:107, b:1000-1005 (repeatable).",
        ),
    ] = None,
    pool: Annotated[
        Optional[str],
        Option(metavar="FIRST-LAST", help="Take ranges from here. Default: the strategy's pool."),
    ] = None,
    owner: Annotated[
        Optional[str],
        Option(help="Owner of the lines for one NAME. Default: usernsplan-NAME."),
    ] = None,
    within: Annotated[
        str,
        Option(
            metavar="OWNER", help="Slices of the lines that OWNER has already. Changes no file."
        ),
    ] = "",
    no_lines: Annotated[
        bool,
        Option("--no-lines", help="Keep it in the ledger alone, for engines that need no line."),
    ] = False,
    local: Annotated[
        bool,
        Option("--local", help="In a fleet: these ids are this host's alone under this name."),
    ] = False,
    on: On = None,
    everywhere: Everywhere = False,
    daemon: Annotated[
        Optional[str],
        Option(metavar="NAME", help="Set Docker's userns-remap to this container."),
    ] = None,
    no_daemon_config: Annotated[
        bool, Option("--no-daemon-config", help="Do not change Docker's daemon.json.")
    ] = False,
    engines: Annotated[
        Optional[list[str]],
        Option(
            "--engine",
            metavar="E",
            help="Also grant what this engine needs (repeatable). Default: installed engines.",
        ),
    ] = None,
    publish: Annotated[
        Optional[str],
        Option(
            metavar="P",
            help="Let other programs see ranges: in userdb, passwd or none. Default: userdb.",
        ),
    ] = None,
    config: ConfigFile = None,
    root: Root = "/",
    dry_run: DryRun = False,
    check: Annotated[
        bool, Option("--check", help="Like --dry-run; exit 4 if something would change.")
    ] = False,
    json: Json = False,
    replace_remap: Annotated[
        bool,
        Option("--replace-remap", help="Replace a userns-remap that names another user."),
    ] = False,
    pass_privileged: Annotated[
        bool,
        Option(
            "--pass-privileged",
            help="Pass root, or a group that can become root, such as docker or disk.",
        ),
    ] = False,
    yes: Yes = False,
    **pools: Optional[int],
) -> None:
    """Give containers free host ids in subuid and subgid.

    Finds free ranges and writes /etc/subuid, /etc/subgid and Docker's daemon.json. Running the same
    command again changes nothing. If one name cannot get its ids, no name gets any.

    Without a name, the plan file lists the containers: ./usernsplan.yaml, or /etc/usernsplan.yaml
    (see 'usernsplan plan'). --docker makes Docker's own allocation. --strategy without a name does
    the same if /etc/usernsplan.yaml does not exist.

    /etc/usernsplan/config.yaml can set defaults for --strategy and its options, --pool, --engine
    and --publish.

    In a fleet, --on and --everywhere give the names the same ids on several hosts. This host does its
    part now; the others do theirs at their next 'usernsplan sync'. That takes an operator's role.

    --pass shows ids of the host in the container: u for a uid, g for a gid, b for both; a number, a
    range or a name; and the container id where that differs. The range keeps the ids that they take
    the place of.

    The command asks first if Docker would no longer see its containers, images or volumes. A script
    needs --yes; without it, the command refuses (exit 9).

    \b
    Examples:
      usernsplan allocate --strategy per-container web db
      usernsplan allocate --strategy per-container --docker    (daemon.json too)
      usernsplan allocate cache                          (the host's strategy)
      usernsplan allocate --names-from names.txt
      usernsplan allocate --strategy per-container box --engine lxc
      usernsplan allocate --strategy single-uid app --block 1
      usernsplan allocate media --pass u:1000 --pass g:render:107
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
    request = AllocateRequest(
        names=_names(names or (), names_from, docker=docker, daemon=daemon, engines=engines),
        strategy=named(strategy, options) if strategy else None,
        options=options,
        owner=owner,
        within=within,
        in_files=False if no_lines else None,
        local=local,
        passes=tuple(passes or ()),
        pass_privileged=pass_privileged,
        start=start,
        pool=id_range(pool),
        daemon=daemon,
        daemon_config=not no_daemon_config,
        replace_remap=replace_remap,
        engines=tuple(engines) if engines else None,
        pools={
            engine: options_of_pool
            for engine in ENGINES
            if (options_of_pool := _pool_options(engine, pools)) != PoolOptions()
        },
        publish=_published(publish),
    )
    defaults = load_config(layout_at(root), config)
    hosts = hosts_of(on, everywhere=everywhere)
    if hosts is not None:
        request = of_request(replace(request, yes=yes), defaults) if defaults else request
        if _ask(request, hosts, root, preview=dry_run or check, as_json=json) and check:
            sys.exit(ExitStatus.CHANGES_PENDING)
        return
    decide, asked = _decision(request, strategy, root, defaults, docker=docker)
    plan = run(decide, root, preview=dry_run or check, as_json=json, yes=yes, asked=asked)

    if check and plan.changed:
        sys.exit(ExitStatus.CHANGES_PENDING)
    if plan.unfinished:
        sys.exit(ExitStatus.DONE_IN_PART)


def _ask(
    request: AllocateRequest, hosts: Sequence[str], root: str, *, preview: bool, as_json: bool
) -> bool:
    """Allocate on other hosts, too; returns whether anything changes."""
    from usernsplan import asking  # noqa: PLC0415 - only in a fleet
    from usernsplan.report import asked as report  # noqa: PLC0415

    layout = layout_at(root)
    found = asking.allocate(layout, request, hosts, typed(), really=not preview)
    emit(report.result(found, layout, done=not preview), as_json=as_json)
    return found.changed


def _pool_options(engine: str, typed: dict[str, int | None]) -> PoolOptions:
    return PoolOptions(typed.get(_parameter(engine)), ids_each=typed.get(_each(engine)))


def _decision(
    request: AllocateRequest, strategy: str, root: str, config: Config | None, *, docker: bool
) -> tuple[Callable[[HostState], Plan], tuple[str, ...]]:
    """The function that decides, and the names: by the plan file if nothing is named, else by the request."""
    is_named = request.names or docker
    layout = layout_at(root)
    # With --strategy, the folder in which the user types the command makes no difference.
    file = None if is_named else plan_file.find(layout, here=not strategy)

    if file is not None:
        if replace(request, strategy=None, replace_remap=False) != AllocateRequest(()):
            raise InvalidValueError(
                f"{file.path} sets what is allocated; these options would change it",
                hint="write the options into the file, or name the containers",
            )
        return _by_file(file, strategy, root, config, replace_remap=request.replace_remap)

    # The pool of an engine has no name either.
    if not (is_named or strategy or (request.engines and "docker" not in request.engines)):
        raise InvalidValueError(
            "nothing to allocate: no name, no --strategy and no plan file",
            hint=f"name containers: {layout.command('allocate NAME')}; "
            f"or make Docker's own allocation: {layout.command('allocate --docker')}",
        )
    if not request.names and plan_file.is_here():
        note([f"--strategy, --docker and --engine ignore ./{plan_file.HERE}"])
    decide = partial(make_plan, request=of_request(request, config) if config else request)
    return decide, request.names or (DEFAULT_NAME,)


def _published(value: str | None) -> Published | None:
    """Where to publish. Raises InvalidValueError for anything else."""
    if value is None:
        return None
    one_of("publish", value, *PUBLISHED)
    return next(place for place in PUBLISHED if place == value)


def _dockerroot(value: str | None) -> int | str | None:
    """A host id, or AUTO for the first free one. Raises InvalidValueError for anything else."""
    if value is None or value == AUTO:
        return value
    if not re.fullmatch("-?[0-9]{1,20}", value):
        raise InvalidValueError(
            f"'{value}' is not a number", hint=f"use a host id or '{AUTO}'", option="dockerroot"
        )
    return int(value)


def _names(
    typed: Sequence[str],
    names_from: str | None,
    *,
    docker: bool,
    daemon: str | None,
    engines: Sequence[str] | None,
) -> tuple[str, ...]:
    """The names from the command line and from a file.

    Raises InvalidValueError for a file without names: it must not mean Docker's own allocation.
    """
    if docker and (typed or names_from is not None or daemon is not None):
        raise InvalidValueError(
            "--docker does not go with a name",
            hint="leave out one of them; --daemon NAME lets Docker use a container's allocation",
        )
    if docker and engines and "docker" not in engines:
        raise InvalidValueError(
            f"--docker does not go with --engine {engines[0]}",
            hint="leave out --engine, or add --engine docker",
        )
    if names_from is None:
        return tuple(typed)

    place = STDIN if names_from == "-" else names_from
    lines = (
        line.partition("#")[0].strip() for line in text_of("--names-from", names_from).splitlines()
    )
    found = tuple(line for line in lines if line)
    if not found:
        raise InvalidValueError(
            f"--names-from: {place} has no names; nothing was allocated",
            hint="write one name per line",
        )
    return (*typed, *found)


def _by_file(
    file: FoundFile, strategy: str, root: str, config: Config | None, *, replace_remap: bool
) -> tuple[Callable[[HostState], Plan], tuple[str, ...]]:
    """The function that decides by a plan file, and its names; --strategy may only repeat the file's."""
    from usernsplan import planfile  # noqa: PLC0415 - imports YAML and volumes

    loaded = planfile.found(layout_at(root), file, config)
    if strategy not in {"", loaded.spec.strategy}:
        raise InvalidValueError(
            f"--strategy {strategy}: {file.path} has {loaded.spec.strategy}",
            hint="leave out --strategy",
        )
    note([f"{file.path} sets what is allocated"])
    if loaded.elsewhere:
        note(["other hosts are asked for their part by 'usernsplan apply'"])
    return planfile.allocating(loaded, replace_remap=replace_remap), planfile.names(loaded)


allocate.more = ("engines", options_of_pools())  # type: ignore[attr-defined]
