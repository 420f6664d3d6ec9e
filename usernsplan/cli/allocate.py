"""The command allocate."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Optional

import typer

from usernsplan.cli.options import DryRun, Json, Root, Yes, id_range
from usernsplan.cli.run import run
from usernsplan.errors import InvalidValueError
from usernsplan.model import AllocateRequest
from usernsplan.planner import make_plan
from usernsplan.strategies import NAMES, PerContainer, Shared, SingleUid, Strategy

_PENDING, _PART = 4, 3


def allocate(
    names: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[NAME]...", help="Containers. None: Docker's own allocation, 'default'."),
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
    yes: Yes = False,
) -> None:
    """Give containers their ids: pick free ranges and write /etc/subuid, /etc/subgid and Docker's daemon.json.

    Said again with the same words it changes nothing. All names get their ids, or none does.

    \b
    Examples:
      usernsplan allocate --strategy per-container web db
      usernsplan allocate --strategy per-container      (Docker's own: daemon.json too)
      usernsplan allocate --strategy per-container box --engine lxc
      usernsplan allocate --strategy single-uid app --block 1
      usernsplan allocate --strategy shared --dockerroot 400 --dry-run
    """
    chosen = _strategy(
        strategy,
        size=size,
        block=block,
        container_id=container_id,
        dockerroot=dockerroot,
        identity=identity or None,
        max=max_,
    )
    pools = {"podman-auto": auto_containers, "kubernetes": pods}
    request = AllocateRequest(
        names=tuple(names or ()),
        strategy=chosen,
        owner=owner,
        start=start,
        pool=id_range(pool),
        daemon=daemon,
        daemon_config=not no_daemon_config,
        yes=yes,
        engines=tuple(engine) if engine else None,
        pools=tuple((name, count) for name, count in pools.items() if count is not None),
    )
    plan = run(partial(make_plan, request=request), root, preview=dry_run or check, as_json=json)
    if check and plan.changed:
        raise typer.Exit(_PENDING)
    if plan.unfinished:
        raise typer.Exit(_PART)


def _strategy(name: str, **words: int | None) -> Strategy:
    """The strategy that was asked for; an option of another one is an error, not ignored."""
    classes: dict[str, type[PerContainer | SingleUid | Shared]] = {c.name: c for c in (Shared, SingleUid, PerContainer)}
    if name not in classes:
        raise InvalidValueError(
            f"--strategy {name}: there is no such strategy" if name else "--strategy is missing",
            hint=f"one of: {', '.join(NAMES)}; 'usernsplan allocate --help' and the README tell them apart",
        )
    if words["identity"] and words["dockerroot"] is not None:
        raise InvalidValueError("--identity with --dockerroot", hint="with --identity, container root is 0")
    given = {word: value for word, value in words.items() if value is not None}
    strange = [word for word in given if word not in classes[name].__dataclass_fields__]
    if strange:
        option = "--" + strange[0].replace("_", "-")
        raise InvalidValueError(f"{option} is not an option of the strategy {name}")
    return classes[name](**given)  # type: ignore[arg-type]
