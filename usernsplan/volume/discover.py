"""The volumes of containers that exist already: an engine is asked for their mounts, and whose ids they have."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.engines import verdict
from usernsplan.errors import InvalidValueError, NotPermittedError, RefusedError, UsernsplanError
from usernsplan.formats import inspect
from usernsplan.host import procfs

if TYPE_CHECKING:
    from usernsplan.formats.inspect import Inspected
    from usernsplan.layout import Layout
    from usernsplan.model import Allocation, FixRequest, LedgerState

ENGINES = ("podman", "docker")


class Discovered(NamedTuple):
    """The request with paths in place of containers' names, and what is to be said of it."""

    request: FixRequest
    notes: tuple[str, ...] = ()


def discover(layout: Layout, request: FixRequest, ledger: LedgerState) -> Discovered:
    """Ask the engine about the containers that a request names.

    Raises InvalidValueError and RefusedError where it does not go without saying whose ids they have, and an error of
    the engine's own words where it does not know them.
    """
    engine = request.discover
    if engine is None:
        return Discovered(request)
    if engine not in ENGINES:
        raise InvalidValueError(f"--discover {engine}: one of {', '.join(ENGINES)}")
    if not layout.is_host or request.uid_map or request.source or request.reverse:
        raise InvalidValueError(
            "--discover with --root, --reverse, --from or a map",
            hint="it is about containers of this machine, and theirs",
        )
    if strange := [name for name in request.paths if not name.strip() or name.startswith("-") or "/" in name]:
        raise InvalidValueError(f"'{strange[0]}' is no name of a container", hint="with --discover, PATH... are names")
    _refuse_remote(engine)
    found = inspect.parse(_ask((engine, "container", "inspect", *request.paths)), engine)
    names = {_allocation(engine, one, request, ledger).name for one in found}
    if len(names) > 1:
        raise InvalidValueError("these containers have different ids", hint="name them one at a time")
    if not names:
        raise InvalidValueError(f"{engine} knows no container {', '.join(request.paths)}")
    sources = dict.fromkeys(source for one in found for source in one.sources)
    folders = [source for source in sources if os.path.isdir(source)]
    outer = [path for path in folders if not any(_lies_in(path, other) for other in folders)]
    if not outer:
        raise InvalidValueError(f"{', '.join(request.paths)}: no folder of the host is mounted there")
    notes = [f"{source} is no folder: left as it is" for source in sources if source not in folders]
    notes += [f"{one.name} is running: what it writes meanwhile is looked at once more" for one in found if one.pid]
    return Discovered(replace(request, paths=tuple(outer), container=names.pop(), discover=None), tuple(notes))


def _allocation(engine: str, one: Inspected, request: FixRequest, ledger: LedgerState) -> Allocation:
    """Whose ids a container has: told by its map where there is one, else by the daemon that would start it."""
    mapping = one.mapping or (procfs.mapping_of(one.pid) if one.pid else None)
    if one.is_hosts or (mapping is None and (one.pid or engine == "podman")):
        raise RefusedError(
            f"{one.name} has no user namespace: its ids are the host's", hint="give it one, then its volumes"
        )
    if mapping is not None:
        fitting = [a for a in ledger.allocations if (a.mapping.uids, a.mapping.gids) == (mapping.uids, mapping.gids)]
        what = f"{one.name} has the map {', '.join(map(str, mapping.uids))}"
    else:
        root = _ask(("docker", "info", "--format", "{{.DockerRootDir}}")).strip()
        # A remapped daemon keeps everything in a folder <uid>.<gid> of its containers' root.
        folder = os.path.basename(root)
        remaps = [a for a in ledger.allocations if verdict("docker", a).can]
        fitting = [a for a in remaps if folder == f"{a.mapping.uids.to_host(0)}.{a.mapping.gids.to_host(0)}"]
        what = f"{one.name} does not run, and its daemon keeps it in {root}"
    # A shared map is many containers'; the one of this name is meant, or the one that was said.
    names = {request.container} if request.container else {one.name}
    chosen = [a for a in fitting if a.name in names] or ([] if request.container else fitting)
    if len(chosen) != 1:
        wanted = f"'{request.container}'" if request.container else "one allocation" if fitting else "any allocation"
        raise RefusedError(f"{what}: not that of {wanted}", hint="'usernsplan list' shows what is allocated")
    return chosen[0]


def _refuse_remote(engine: str) -> None:
    """Raise RefusedError where the engine asks another machine, whose folders are not ours."""
    host = os.environ.get("CONTAINER_HOST") or os.environ.get("CONTAINER_CONNECTION") or ""
    if engine == "docker":
        context = ("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
        host = os.environ.get("DOCKER_HOST") or _ask(context).strip()
    if host and not host.startswith("unix://"):
        raise RefusedError(f"{engine} asks {host}: the folders there are not this machine's", hint="ask there")


def _ask(words: tuple[str, ...]) -> str:
    """What the engine prints. Raises an error of ours with what it says where it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - our words, and names that were looked at
            words, capture_output=True, text=True, errors="surrogateescape", stdin=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError as error:
        raise UsernsplanError(f"{words[0]} is not installed here") from error
    except PermissionError as error:
        raise NotPermittedError(f"{words[0]} cannot be run") from error
    if done.returncode:
        raise UsernsplanError(f"{' '.join(words[:3])}: {done.stderr.strip()}")
    return done.stdout


def _lies_in(path: str, folder: str) -> bool:
    return path != folder and f"{path}/".startswith(folder.rstrip("/") + "/")
