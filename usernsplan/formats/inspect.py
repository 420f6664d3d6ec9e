"""The output of ``podman container inspect`` and ``docker container inspect``, for volumes."""

from __future__ import annotations

import json
from typing import Any

from usernsplan.errors import InvalidFileError, InvalidValueError
from usernsplan.mapping import Extent, IdMap, Mapping
from usernsplan.values import dataclass


@dataclass(frozen=True, slots=True)
class Inspected:
    """One container: the host paths that are mounted in it, and its map if the engine prints it.

    ``pid`` is 0 if it does not run. Rootful Podman prints the map. Docker does not: there the map
    is the daemon's, unless the container uses the host's namespace (``is_hosts``). ``root`` is the
    data folder of that daemon; inspect does not print it either.
    """

    name: str
    sources: tuple[str, ...]
    mapping: Mapping | None
    pid: int
    is_hosts: bool = False
    root: str = ""


def parse(text: str, engine: str) -> tuple[Inspected, ...]:
    """Read the JSON that the engine printed. Raises InvalidFileError if it has another form."""
    try:
        return tuple(_container(entry) for entry in json.loads(text))
    # Python reads 1e999 as infinity (OverflowError). JSON nested too deeply is a RecursionError.
    except (
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        OverflowError,
        RecursionError,
    ) as error:
        raise InvalidFileError(
            f"{engine} container inspect",
            f"unexpected output: {error!r:.200}",
            hint=f"look at what {engine} prints, or name the folders yourself, with --container",
        ) from error


def _container(entry: dict[str, Any]) -> Inspected:
    mounts = [
        mount for mount in entry.get("Mounts") or [] if mount.get("Type") in {"bind", "volume"}
    ]
    config = entry.get("HostConfig") or {}
    maps = config.get("IDMappings") or {}
    return Inspected(
        name=str(entry["Name"]).removeprefix("/"),
        sources=tuple(
            dict.fromkeys(_path(mount["Source"]) for mount in mounts if mount.get("Source"))
        ),
        mapping=Mapping(_map(maps["UidMap"]), _map(maps["GidMap"])) if maps.get("UidMap") else None,
        pid=_pid((entry.get("State") or {}).get("Pid") or 0),
        is_hosts=config.get("UsernsMode") == "host",
    )


def _pid(number: object) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"{number!r} is not a pid")
    return number


def _path(source: object) -> str:
    if not isinstance(source, str) or "\0" in source or not source.startswith("/"):
        raise ValueError(f"a mount from {source!r}, which is not an absolute path")
    # Raises for text that no path can have, such as half of a surrogate pair.
    source.encode("utf-8", "surrogateescape")
    return source


def _map(texts: list[str]) -> IdMap:
    """Read Podman's extents, each container:host:count."""
    try:
        return IdMap(Extent(*map(int, text.split(":"))) for text in texts)
    except InvalidValueError as error:
        raise ValueError(str(error)) from error
