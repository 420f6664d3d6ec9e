"""What ``podman container inspect`` and ``docker container inspect`` print: the part of it that volumes need."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from usernsplan.errors import InvalidFileError, InvalidValueError
from usernsplan.mapping import Extent, IdMap, Mapping


@dataclass(frozen=True, slots=True)
class Inspected:
    """One container: the host folders and files that are mounted in it, and its map where the engine tells it.

    ``pid`` is 0 where it does not run. Rootful Podman tells the map; for Docker it is the daemon's, unless the
    container asked for the host's namespace (``is_hosts``). ``root`` is where that daemon keeps what it has; inspect
    does not tell it.
    """

    name: str
    sources: tuple[str, ...]
    mapping: Mapping | None
    pid: int
    is_hosts: bool = False
    root: str = ""


def parse(text: str, engine: str) -> tuple[Inspected, ...]:
    """Read the JSON that the engine printed. Raises InvalidFileError where it is not what engines print."""
    try:
        return tuple(_container(entry) for entry in json.loads(text))
    # What Python reads of a number such as 1e999 is infinite, and so deep as it goes down itself nothing is nested.
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
            f"not what was expected: {error!r:.200}",
            hint=f"look at what {engine} prints; or name the folders themselves, with --container",
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
        raise ValueError(f"{number!r} is no process")
    return number


def _path(source: object) -> str:
    if not isinstance(source, str) or "\0" in source or not source.startswith("/"):
        raise ValueError(f"a mount from {source!r}, which is no absolute path")
    # One that no file can have, such as half of a surrogate pair.
    source.encode("utf-8", "surrogateescape")
    return source


def _map(texts: list[str]) -> IdMap:
    """Podman's container:host:count."""
    try:
        return IdMap(Extent(*map(int, text.split(":"))) for text in texts)
    except InvalidValueError as error:
        raise ValueError(str(error)) from error
