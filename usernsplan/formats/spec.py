"""usernsplan.yaml, the plan file: what a host should have. Text to values, with the line of everything in it.

What the keys mean together (a strategy's options, names that are taken) is decided in planner.desired. The same
grammar, for editors, is spec.schema.json beside this file; spec_writer writes such a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import yaml

from usernsplan.errors import InvalidFileError
from usernsplan.formats import yaml_nodes as nodes
from usernsplan.ids import ID_LIMIT, IdRange

STRATEGIES = ("shared", "single-uid", "per-container")
_USER = re.compile(r"[0-9]{1,10}(:[0-9]{1,10})?")


@dataclass(frozen=True, slots=True)
class SpecVolume:
    """A volume as its container is to have it: ``user`` is UID:GID of the container, "" with mode shift."""

    path: str
    mode: Literal["own", "shift"]
    user: str
    line: int


@dataclass(frozen=True, slots=True)
class SpecContainer:
    """One container: ``options`` are its strategy's, where they differ from what is said of all.

    ``engines`` are to be served for it, besides those of all.
    ``at`` is its key in the file, and ``lines`` are those of its own keys.
    """

    name: str
    line: int
    at: str
    owner: str | None = None
    start: int | None = None
    options: dict[str, int] = field(default_factory=dict)
    volumes: tuple[SpecVolume, ...] = ()
    engines: tuple[str, ...] = ()
    lines: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpecReservation:
    """Ids that are not to be given out, and why."""

    ids: IdRange
    why: str
    line: int
    at: str


@dataclass(frozen=True, slots=True)
class Spec:
    """A whole plan file. ``daemon``: the container that Docker's remap points at; False: leave daemon.json alone.

    ``engines`` None: those that the host has. ``pools`` and ``pool_starts``: for how many containers, and the first id,
    by the engine's name. ``place`` is the file's path, for messages, and ``lines`` are those of its keys. ``defaults``
    are the host's own for options of the strategy, and ``places`` tells where the host says what the file does not.
    """

    place: str
    strategy: str
    options: dict[str, int] = field(default_factory=dict)
    pool: IdRange | None = None
    engines: tuple[str, ...] | None = None
    pools: tuple[tuple[str, int], ...] = ()
    pool_starts: tuple[tuple[str, int], ...] = ()
    daemon: str | Literal[False] | None = None
    containers: tuple[SpecContainer, ...] = ()
    reservations: tuple[SpecReservation, ...] = ()
    lines: dict[str, int] = field(default_factory=dict)
    defaults: dict[str, int] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


def parse(raw: bytes, place: str) -> Spec:
    """Read a plan file; ``place`` is its path. Raises InvalidFileError, which names every error by line and key."""
    node = nodes.composed(raw, place)
    if node is None:
        raise InvalidFileError(
            f"{place}:1", "there is nothing in it", hint="'usernsplan export' writes one"
        )
    reader = Reader(place)
    readers: dict[str, nodes.Read] = {
        **reader.shared(),
        "daemon": _daemon,
        "containers": reader.containers,
        "reservations": reader.reservations,
        **OPTIONS,
    }
    found = reader.document(node, readers, "strategy")
    return Spec(
        place=place,
        strategy=found["strategy"],
        options={key: found[key] for key in OPTIONS if key in found},
        pool=found.get("pool"),
        daemon=found.get("daemon"),
        containers=found.get("containers", ()),
        reservations=found.get("reservations", ()),
        lines=nodes.lines_of(node),
        **engines_of(found.get("engines")),
    )


def engines_of(found: list[dict[str, Any]] | None) -> dict[str, Any]:
    """What a list of engines says, as the fields of a Spec."""
    if found is None:
        return {}
    return {
        "engines": tuple(one["name"] for one in found),
        "pools": tuple((one["name"], one["containers"]) for one in found if "containers" in one),
        "pool_starts": tuple((one["name"], one["start"]) for one in found if "start" in one),
    }


class Reader(nodes.Reader):
    """Makes the values of a plan file of nodes."""

    def shared(self) -> dict[str, nodes.Read]:
        """The keys that a plan file shares with config.yaml, but for OPTIONS, and how each is read."""
        return {
            "version": _version,
            "strategy": _strategy,
            "pool": nodes.id_range,
            "engines": self.engines,
        }

    def engines(self, node: yaml.Node, at: str) -> list[dict[str, Any]]:
        """Names of engines; and of a pool for how many containers, and its first id, where that is said."""
        found: list[dict[str, Any]] = []
        for item, key in nodes.items(node, at):
            with self.noting():
                if isinstance(item, yaml.ScalarNode):
                    found.append({"name": nodes.text(item, key)})
                else:
                    one = self.fields(
                        item,
                        key,
                        {"name": nodes.text, "containers": nodes.number, "start": nodes.number},
                        "name",
                    )
                    found.append({"name": f"\0{key}", **one})
                if found[-1]["name"] in {one["name"] for one in found[:-1]}:
                    raise nodes.WrongError(
                        item, key, f"'{found[-1]['name']}' stands here a second time"
                    )
        return found

    def containers(self, node: yaml.Node, at: str) -> tuple[SpecContainer, ...]:
        """The containers of a plan file, each name once."""
        found: dict[str, SpecContainer] = {}
        for item, key in nodes.items(node, at):
            with self.noting():
                one = self.container(item, key)
                if one.name in found:
                    raise nodes.WrongError(
                        item,
                        key,
                        f"'{one.name}' stands here a second time: line {found[one.name].line}",
                    )
                found[one.name] = one
        return tuple(found.values())

    def container(self, node: yaml.Node, at: str) -> SpecContainer:
        """One container: its name alone, or with keys of its own."""
        if isinstance(node, yaml.ScalarNode):
            return SpecContainer(nodes.text(node, at), nodes.line_of(node), at)
        own: dict[str, nodes.Read] = {
            "name": nodes.text,
            "owner": nodes.text,
            "start": nodes.number,
            "user": _user,
        }
        found = self.fields(
            node, at, {**own, "volumes": self.volumes, "engines": nodes.names, **OPTIONS}, "name"
        )
        user = found.get("user", "0:0")
        return SpecContainer(
            # Where there is none, that is noted, and nothing comes of the rest.
            name=found.get("name", f"\0{at}"),
            line=nodes.line_of(node),
            at=at,
            owner=found.get("owner"),
            start=found.get("start"),
            engines=tuple(found.get("engines", ())),
            options={key: found[key] for key in OPTIONS if key in found},
            lines=nodes.lines_of(node),
            volumes=tuple(
                replace(v, user=user) if v.mode == "own" and not v.user else v
                for v in found.get("volumes", ())
            ),
        )

    def volumes(self, node: yaml.Node, at: str) -> list[SpecVolume]:
        """The volumes of a container; those that name no user have that of their container."""
        found: dict[str, SpecVolume] = {}
        for item, key in nodes.items(node, at):
            with self.noting():
                if isinstance(item, yaml.ScalarNode):
                    one = SpecVolume(nodes.absolute_path(item, key), "own", "", nodes.line_of(item))
                else:
                    said = self.fields(
                        item,
                        key,
                        {"path": nodes.absolute_path, "mode": _mode, "user": _user},
                        "path",
                    )
                    one = SpecVolume(
                        said.get("path", f"\0{key}"),
                        said.get("mode", "own"),
                        said.get("user", ""),
                        nodes.line_of(item),
                    )
                if one.mode == "shift" and one.user:
                    raise nodes.WrongError(
                        item, key, "mode shift keeps owners apart: it has no user"
                    )
                if one.path in found:
                    raise nodes.WrongError(
                        item,
                        key,
                        f"{one.path} stands here a second time: line {found[one.path].line}",
                    )
                found[one.path] = one
        return list(found.values())

    def reservations(self, node: yaml.Node, at: str) -> tuple[SpecReservation, ...]:
        """The ranges that are reserved, each once."""
        found: dict[IdRange, SpecReservation] = {}
        for item, key in nodes.items(node, at):
            with self.noting():
                one = self.fields(
                    item, key, {"ids": nodes.id_range, "for": nodes.text}, "ids", "for"
                )
                if one.get("ids") in found:
                    raise nodes.WrongError(item, key, f"{one['ids']} stands here a second time")
                if len(one) == 2:  # noqa: PLR2004 - both, and none of them wrong
                    found[one["ids"]] = SpecReservation(
                        one["ids"], one["for"], nodes.line_of(item), key
                    )
        return tuple(found.values())


def _version(node: yaml.Node, at: str) -> int:
    if nodes.number(node, at) != 1:
        raise nodes.WrongError(node, at, "this usernsplan knows version 1 of the format")
    return 1


def _strategy(node: yaml.Node, at: str) -> str:
    return nodes.one_of(node, at, STRATEGIES)


def _mode(node: yaml.Node, at: str) -> str:
    return nodes.one_of(node, at, ("own", "shift"))


def _daemon(node: yaml.Node, at: str) -> str | Literal[False]:
    if (
        isinstance(node, yaml.ScalarNode)
        and node.tag == f"{nodes.TAG}bool"
        and not nodes.boolean(node, at)
    ):
        return False
    return nodes.text(node, at)


def _user(node: yaml.Node, at: str) -> str:
    """UID or UID:GID of the container, as UID:GID."""
    wanted = "a user of the container in numbers, '33:33'"
    if isinstance(node, yaml.ScalarNode) and node.tag == f"{nodes.TAG}int":
        if ":" in node.value:
            raise nodes.WrongError(
                node,
                at,
                f"YAML reads {node.value!r} as a number to the base of 60: put it in quotes",
            )
        text = str(nodes.number(node, at))
    else:
        text = nodes.scalar(node, at, "str", wanted)
    if not _USER.fullmatch(text):
        raise nodes.WrongError(node, at, f"{text!r} is not {wanted}")
    uid, gid = (int(number) for number in (text if ":" in text else f"{text}:0").split(":"))
    if max(uid, gid) >= ID_LIMIT:
        raise nodes.WrongError(node, at, f"{text!r}: there is no such id")
    return f"{uid}:{gid}"


# The options of strategies, as they stand in the file and on the command line.
OPTIONS: dict[str, nodes.Read] = {
    **dict.fromkeys(("size", "block", "container-id", "dockerroot", "max"), nodes.number),
    "identity": nodes.boolean,
}
