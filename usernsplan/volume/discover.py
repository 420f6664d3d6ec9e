"""The volumes of existing containers: ask an engine for their mounts and their ids."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

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
from usernsplan.host import procfs, programs
from usernsplan.layout import lies_in
from usernsplan.values import NamedTuple, replace
from usernsplan.volume import decide, protected

if TYPE_CHECKING:
    from usernsplan.fixing import FixRequest
    from usernsplan.formats.inspect import Inspected
    from usernsplan.layout import Layout
    from usernsplan.model import LedgerState

ENGINES = ("podman", "docker")


class Discovered(NamedTuple):
    """The request with paths instead of the names of containers, and notes for the user."""

    request: FixRequest
    notes: tuple[str, ...] = ()


def discover(layout: Layout, request: FixRequest, ledger: LedgerState) -> Discovered:
    """Ask the engine about the containers that a request names.

    Raises InvalidValueError or RefusedError if the ids of the containers are not certain, and
    UsernsplanError with the engine's message if it does not know them.
    """
    engine = request.discover
    if engine is None:
        return Discovered(request)
    if engine not in ENGINES:
        raise InvalidValueError(
            f"'{engine}' is not one of {', '.join(ENGINES)}",
            hint=did_you_mean(engine, ENGINES),
            option="discover",
        )
    if (
        not layout.is_host
        or request.uid_map
        or request.from_map
        or request.source
        or request.reverse
    ):
        raise InvalidValueError(
            "--discover cannot be used with --root, --reverse, --from or a map",
            hint="leave these out: --discover finds the containers of this machine and their maps",
        )
    if strange := [
        name for name in request.paths if not name.strip() or name.startswith("-") or "/" in name
    ]:
        raise InvalidValueError(
            f"'{strange[0]}' is not the name of a container",
            hint="with --discover, PATH... are names of containers",
        )
    _refuse_remote(engine)

    from usernsplan.formats import inspect  # noqa: PLC0415 - slow to load, and rarely needed

    found = inspect.parse(_ask((engine, "container", "inspect", *request.paths)), engine)
    names = {decide.whose(_seen(engine, one), request.container, ledger).name for one in found}
    if len(names) > 1:
        raise InvalidValueError(
            "these containers have different ids", hint="name them one at a time"
        )
    if not names:
        raise InvalidValueError(f"{engine} does not know {', '.join(request.paths)}")

    sources = dict.fromkeys(source for one in found for source in one.sources)
    left = {source: why for source in sources if (why := why_left(source))}
    chosen = [source for source in sources if source not in left]
    outer = [
        path
        for path in chosen
        if not any(path != other and lies_in(path, other) for other in chosen)
    ]

    notes = [f"{shown_path(source)} {why}: left as it is" for source, why in left.items()]
    if not outer:
        what = ", ".join(request.paths)
        raise InvalidValueError(
            "\n  ".join([f"{what}: no folder or file of the host is mounted there", *notes])
        )
    notes += [
        f"{shown_path(one.name)} is running: a second look finds what it writes during the run"
        for one in found
        if one.pid
    ]
    return Discovered(
        replace(request, paths=tuple(outer), container=names.pop(), discover=None), tuple(notes)
    )


def why_left(source: str) -> str:
    """Why a mounted path is not changed, or "" if it may be. Folders are judged later.

    Engines mount sockets and system files into containers, and nobody who names a container means
    those. Raises NotPermittedError if even root may not look at the path, instead of skipping it.
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
        return "is not a folder or file"
    danger = protected.danger(os.path.realpath(source), (), os.path.realpath)
    return "is a file of the system" if danger else ""


def _seen(engine: str, one: Inspected) -> Inspected:
    """Complete a container with facts of the machine: its process' map or the daemon's folder."""
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
    """Raise RefusedError if the engine's command talks to another machine, with other folders."""
    host = os.environ.get("CONTAINER_HOST") or os.environ.get("CONTAINER_CONNECTION") or ""
    if engine == "docker":
        context = ("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
        host = os.environ.get("DOCKER_HOST") or _ask(context).strip()
    if host and not host.startswith("unix://"):
        raise RefusedError(
            f"{engine} asks {host}, whose folders are not those of this machine",
            hint="run usernsplan there",
        )


def _ask(words: tuple[str, ...]) -> str:
    """The output of an engine's command. Raises UsernsplanError with its message if it fails."""
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
