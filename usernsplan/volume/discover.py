"""The volumes of containers that exist already: an engine is asked for their mounts, and whose ids they have."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.errors import (
    InvalidValueError,
    NotPermittedError,
    RefusedError,
    UsernsplanError,
    did_you_mean,
    of_system,
    reason_of,
)
from usernsplan.escape import indented, shown_path
from usernsplan.formats import inspect
from usernsplan.host import procfs, programs
from usernsplan.volume import decide, protected

if TYPE_CHECKING:
    from usernsplan.formats.inspect import Inspected
    from usernsplan.layout import Layout
    from usernsplan.model import FixRequest, LedgerState

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
        raise InvalidValueError(
            f"'{engine}' is none of {', '.join(ENGINES)}",
            hint=did_you_mean(engine, ENGINES),
            option="discover",
        )
    if not layout.is_host or request.uid_map or request.source or request.reverse:
        raise InvalidValueError(
            "--discover with --root, --reverse, --from or a map",
            hint="it is about containers of this machine, and theirs",
        )
    if strange := [
        name for name in request.paths if not name.strip() or name.startswith("-") or "/" in name
    ]:
        raise InvalidValueError(
            f"'{strange[0]}' is no name of a container", hint="with --discover, PATH... are names"
        )
    _refuse_remote(engine)
    found = inspect.parse(_ask((engine, "container", "inspect", *request.paths)), engine)
    names = {decide.whose(_seen(engine, one), request.container, ledger).name for one in found}
    if len(names) > 1:
        raise InvalidValueError(
            "these containers have different ids", hint="name them one at a time"
        )
    if not names:
        raise InvalidValueError(f"{engine} knows no container {', '.join(request.paths)}")
    sources = dict.fromkeys(source for one in found for source in one.sources)
    left = {source: why for source in sources if (why := why_left(source))}
    chosen = [source for source in sources if source not in left]
    outer = [
        path
        for path in chosen
        if not any(path != other and decide.lies_in(path, other) for other in chosen)
    ]
    notes = [f"{shown_path(source)} {why}: left as it is" for source, why in left.items()]
    if not outer:
        what = ", ".join(request.paths)
        raise InvalidValueError(
            "\n  ".join([f"{what}: no folder or file of the host is mounted there", *notes])
        )
    notes += [
        f"{shown_path(one.name)} is running: what it writes meanwhile is looked at once more"
        for one in found
        if one.pid
    ]
    return Discovered(
        replace(request, paths=tuple(outer), container=names.pop(), discover=None), tuple(notes)
    )


def why_left(source: str) -> str:
    """Why what is mounted from here is not the container's to have, or "" where it may be; folders are judged later.

    Engines mount sockets and files of the system into containers, and nobody means them when he names the container.
    Raises NotPermittedError where even root is not let in: what cannot be seen is not left in silence.
    """
    try:
        mode = os.stat(source).st_mode
    except PermissionError as error:
        raise NotPermittedError(f"{shown_path(source)}: permission denied") from error
    except OSError as error:
        return f"cannot be looked at ({reason_of(error)})"
    if stat.S_ISDIR(mode):
        return ""
    if not stat.S_ISREG(mode):
        return "is no folder or file"
    danger = protected.danger(os.path.realpath(source), (), os.path.realpath)
    return "is a file of the system" if danger else ""


def _seen(engine: str, one: Inspected) -> Inspected:
    """A container with what only the machine can tell: the map of its process, or the folder of its daemon."""
    if one.is_hosts or one.mapping is not None:
        return one
    if one.pid:
        return replace(one, mapping=procfs.mapping_of(one.pid))
    return replace(
        one,
        root=_ask(("docker", "info", "--format", "{{.DockerRootDir}}")).strip()
        if engine == "docker"
        else "",
    )


def _refuse_remote(engine: str) -> None:
    """Raise RefusedError where the engine asks another machine, whose folders are not ours."""
    host = os.environ.get("CONTAINER_HOST") or os.environ.get("CONTAINER_CONNECTION") or ""
    if engine == "docker":
        context = ("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
        host = os.environ.get("DOCKER_HOST") or _ask(context).strip()
    if host and not host.startswith("unix://"):
        raise RefusedError(
            f"{engine} asks {host}: the folders there are not this machine's", hint="ask there"
        )


def _ask(words: tuple[str, ...]) -> str:
    """What the engine prints. Raises an error of ours with what it says where it fails."""
    try:
        status, out, err = programs.output(words)
    except FileNotFoundError as error:
        raise UsernsplanError(f"{words[0]} is not installed here") from error
    except PermissionError as error:
        raise NotPermittedError(f"{words[0]} cannot be run") from error
    except OSError as error:
        raise of_system(error, words[0]) from error
    if status:
        raise UsernsplanError(f"{' '.join(words[:3])}: {indented(err)}")
    return out
