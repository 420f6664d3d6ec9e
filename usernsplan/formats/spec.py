"""usernsplan.yaml, the plan file: text to values, with the line of each.

It describes what a host should have. planner.desired decides what the keys mean together (the
options of a strategy, names that are taken). spec.schema.json beside this file has the same grammar
for editors, and spec_writer writes such a file.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml

from usernsplan.errors import InvalidFileError, InvalidValueError
from usernsplan.formats import passes
from usernsplan.formats import yaml_nodes as nodes
from usernsplan.harden.policy import KEYS, policy_of
from usernsplan.ids import ID_LIMIT, IdRange
from usernsplan.patterns import pattern
from usernsplan.values import dataclass, field, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from usernsplan.harden.policy import Policy

STRATEGIES = ("shared", "single-uid", "per-container")
# Where other programs see a range.
Publish = Literal["userdb", "passwd", "none"]
PUBLISH = get_args(Publish)
# How a volume is given, as with fix-volume.
Method = Literal["chown", "idmap", "auto"]
METHODS = get_args(Method)
_USER = pattern(r"[0-9]{1,10}(:[0-9]{1,10})?")


@dataclass(frozen=True, slots=True)
class SpecEngine:
    """An engine to serve. An engine with a pool may have a number of containers and a first id.

    ``ids_per_pod`` is for the kubelet's pool. ``publish`` is for a pool instead of that of the file.
    """

    name: str
    containers: int | None = None
    start: int | None = None
    ids_per_pod: int | None = None
    publish: Publish | None = None


@dataclass(frozen=True, slots=True)
class SpecVolume:
    """A volume of a container. ``user`` is the container's UID:GID; "" with mode shift.

    ``method`` None: that of the host. The rest is about the mount of method idmap: the mount point
    ``at`` ("": one of ours), whether it returns at boot (``persist``), what keeps others from the
    source (``protect``), and whether it shows the mounts in the volume (``cross_mounts``).
    """

    path: str
    mode: Literal["own", "shift"]
    user: str
    line: int
    method: Method | None = None
    at: str = ""
    persist: bool = False
    read_only: bool = False
    protect: Literal["", "nosuid", "parent"] = ""
    cross_mounts: bool = False


@dataclass(frozen=True, slots=True)
class SpecContainer:
    """One container. Its ``options`` of the strategy replace those of the whole file.

    ``engines`` are served for it in addition to those of the whole file. ``at`` is its key in the
    file, and ``lines`` are the lines of its own keys. ``in_files`` is its key lines: whether subuid
    and subgid have it, or the ledger alone; None: the file does not say. ``publish`` is for it
    instead of that of the file. ``passes``, ``within``, ``was``, ``adopt``, ``map``,
    ``pass_privileged`` and ``local`` are as in ContainerOptions. ``harden`` is its policy, False for none; None:
    the file does not say.
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
    in_files: bool | None = None
    publish: Publish | None = None
    passes: tuple[str, ...] = ()
    within: str = ""
    was: str = ""
    adopt: bool = False
    map: tuple[str, ...] = ()
    pass_privileged: bool = False
    local: bool = False
    harden: Policy | Literal[False] | None = None


@dataclass(frozen=True, slots=True)
class SpecReservation:
    """Ids that are never given out, and why."""

    ids: IdRange
    why: str
    line: int
    at: str


@dataclass(frozen=True, slots=True)
class Spec:
    """A whole plan file.

    ``engines`` None: those that the host has. ``publish``: as in AllocateRequest.
    ``daemon`` is the container to which Docker's remap
    points; False: daemon.json stays as it is. ``place`` is the path of the file, for messages, and
    ``lines`` are the lines of its keys. ``defaults`` are the host's own options of the strategy, and
    ``places`` are where the host sets what the file leaves open. ``in_files`` and ``harden`` are
    for containers that do not say it themselves. ``hosts`` are hosts of a fleet, each with the names
    of its containers; "*" is all of them.
    """

    place: str
    strategy: str
    options: dict[str, int] = field(default_factory=dict)
    pool: IdRange | None = None
    engines: tuple[SpecEngine, ...] | None = None
    daemon: str | Literal[False] | None = None
    containers: tuple[SpecContainer, ...] = ()
    reservations: tuple[SpecReservation, ...] = ()
    lines: dict[str, int] = field(default_factory=dict)
    defaults: dict[str, int] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    publish: Publish | None = None
    in_files: bool | None = None
    harden: Policy | Literal[False] | None = None
    hosts: tuple[tuple[str, tuple[str, ...]], ...] = ()


def parse(raw: bytes, place: str) -> Spec:
    """Read a plan file; ``place`` is its path.

    Raises InvalidFileError, which names every error by line and key.
    """
    node = nodes.composed(raw, place)
    if node is None:
        raise InvalidFileError(
            f"{place}:1", "the file is empty", hint="'usernsplan export' writes a plan file"
        )

    reader = Reader(place)
    readers: dict[str, nodes.Read] = {
        **reader.shared(),
        "daemon": _daemon,
        "lines": nodes.boolean,
        "containers": reader.containers,
        "reservations": reader.reservations,
        "harden": reader.policy,
        "hosts": _hosts,
        **OPTIONS,
    }
    found = reader.document(node, readers, "strategy")
    return Spec(
        place=place,
        strategy=found["strategy"],
        options={key: found[key] for key in OPTIONS if key in found},
        pool=found.get("pool"),
        engines=found.get("engines"),
        daemon=found.get("daemon"),
        containers=found.get("containers", ()),
        reservations=found.get("reservations", ()),
        lines=nodes.lines_of(node),
        publish=found.get("publish"),
        in_files=found.get("lines"),
        harden=found.get("harden"),
        hosts=found.get("hosts", ()),
    )


class Reader(nodes.Reader):
    """Turns nodes into the values of a plan file."""

    def shared(self) -> dict[str, nodes.Read]:
        """The keys that a plan file shares with config.yaml, except OPTIONS, and their readers."""
        return {
            "version": _version,
            "strategy": _strategy,
            "pool": nodes.id_range,
            "engines": self.engines,
            "publish": _publish,
        }

    def engines(self, node: yaml.Node, at: str) -> tuple[SpecEngine, ...]:
        """The engines, each name once."""
        readers: dict[str, nodes.Read] = {
            "name": nodes.text,
            "containers": nodes.number,
            "start": nodes.number,
            "ids-per-pod": nodes.number,
            "publish": _publish,
        }
        found: dict[str, SpecEngine] = {}
        for item, key in nodes.items(node, at):
            with self.noting():
                if isinstance(item, yaml.ScalarNode):
                    one = SpecEngine(nodes.text(item, key))
                else:
                    own = self.fields(item, key, readers, "name")
                    # A missing name is noted as an error, so this one is never used.
                    one = SpecEngine(
                        own.get("name", f"\0{key}"),
                        own.get("containers"),
                        own.get("start"),
                        own.get("ids-per-pod"),
                        own.get("publish"),
                    )
                if one.name in found:
                    raise nodes.WrongError(item, key, f"'{one.name}' appears a second time")
                found[one.name] = one
        return tuple(found.values())

    def containers(self, node: yaml.Node, at: str) -> tuple[SpecContainer, ...]:
        """The containers, each name once."""
        found: dict[str, SpecContainer] = {}
        for item, key in nodes.items(node, at):
            with self.noting():
                one = self.container(item, key)
                if one.name in found:
                    first = found[one.name].line
                    fact = f"'{one.name}' appears a second time; the first is in line {first}"
                    raise nodes.WrongError(item, key, fact)
                found[one.name] = one
        return tuple(found.values())

    def container(self, node: yaml.Node, at: str) -> SpecContainer:
        """One container: only its name, or a mapping with keys of its own."""
        if isinstance(node, yaml.ScalarNode):
            return SpecContainer(nodes.text(node, at), nodes.line_of(node), at)
        readers: dict[str, nodes.Read] = {
            "name": nodes.text,
            "owner": nodes.text,
            "start": nodes.number,
            "lines": nodes.boolean,
            "publish": _publish,
            "user": _user,
            "volumes": self.volumes,
            "engines": nodes.names,
            "pass": _passes,
            "pass-privileged": nodes.boolean,
            "within": nodes.text,
            "was": nodes.text,
            "adopt": nodes.boolean,
            "local": nodes.boolean,
            "map": _map,
            "harden": self.policy,
            **OPTIONS,
        }
        found = self.fields(node, at, readers, "name")
        user = found.get("user", "0:0")
        return SpecContainer(
            # A missing name is noted as an error, so this one is never used.
            name=found.get("name", f"\0{at}"),
            line=nodes.line_of(node),
            at=at,
            owner=found.get("owner"),
            start=found.get("start"),
            engines=tuple(found.get("engines", ())),
            in_files=found.get("lines"),
            publish=found.get("publish"),
            passes=tuple(found.get("pass", ())),
            within=found.get("within", ""),
            was=found.get("was", ""),
            adopt=found.get("adopt", False),
            local=found.get("local", False),
            map=tuple(found.get("map", ())),
            pass_privileged=found.get("pass-privileged", False),
            harden=found.get("harden"),
            options={key: found[key] for key in OPTIONS if key in found},
            lines=nodes.lines_of(node),
            volumes=tuple(
                replace(v, user=user) if v.mode == "own" and not v.user else v
                for v in found.get("volumes", ())
            ),
        )

    def policy(self, node: yaml.Node, at: str) -> Policy | Literal[False]:
        """What a container may do: a profile, or a mapping of the options of harden; or "none"."""
        if isinstance(node, yaml.ScalarNode):
            name = nodes.text(node, at)
            found: dict[str, Any] = {} if name == "none" else {"profile": name}
        else:
            found = self.fields(node, at, _OF_POLICIES, "profile")
        if not found:
            return False
        with _about(node, at):
            # A missing profile is noted as an error, so this policy is never used.
            return policy_of(
                {"profile": "default"}
                | {field: found[key] for field, key in KEYS.items() if key in found}
            )

    def volumes(self, node: yaml.Node, at: str) -> list[SpecVolume]:
        """The volumes of a container. ``user`` is "" if the volume names none.

        Each path is there once, but for mounts at different mount points.
        """
        found: list[SpecVolume] = []
        for item, key in nodes.items(node, at):
            with self.noting():
                line = nodes.line_of(item)
                if isinstance(item, yaml.ScalarNode):
                    one = SpecVolume(nodes.absolute_path(item, key), "own", "", line)
                else:
                    one = self.volume(item, key)

                if one.mode == "shift" and one.user:
                    raise nodes.WrongError(
                        item, key, "'user' is only for mode own; mode shift keeps every owner"
                    )
                if first := next((other for other in found if _is_twice(one, other)), None):
                    fact = f"{one.path} appears a second time; the first is in line {first.line}"
                    raise nodes.WrongError(item, key, fact)
                found.append(one)
        return found

    def volume(self, node: yaml.Node, at: str) -> SpecVolume:
        """One volume with keys of its own. Raises WrongError."""
        readers: dict[str, nodes.Read] = {
            "path": nodes.absolute_path,
            "mode": _mode,
            "user": _user,
            "method": method,
            **_OF_MOUNTS,
        }
        own = self.fields(node, at, readers, "path")
        one = SpecVolume(
            # A missing path is noted as an error, so this one is never used.
            path=own.get("path", f"\0{at}"),
            mode=own.get("mode", "own"),
            user=own.get("user", ""),
            line=nodes.line_of(node),
            method=own.get("method"),
            at=own.get("at", ""),
            persist=own.get("persist", False),
            read_only=own.get("read-only", False),
            protect=own.get("protect", ""),
            cross_mounts=own.get("cross-mounts", False),
        )
        if one.method != "idmap" and (keys := [key for key in own if key in _OF_MOUNTS]):
            raise nodes.WrongError(node, at, f"'{keys[0]}' is only for method idmap")
        return one

    def reservations(self, node: yaml.Node, at: str) -> tuple[SpecReservation, ...]:
        """The reserved ranges, each once."""
        readers: dict[str, nodes.Read] = {"ids": nodes.id_range, "for": nodes.text}
        found: dict[IdRange, SpecReservation] = {}
        for item, key in nodes.items(node, at):
            with self.noting():
                own = self.fields(item, key, readers, "ids", "for")
                if own.get("ids") in found:
                    raise nodes.WrongError(item, key, f"{own['ids']} appears a second time")
                if own.keys() == readers.keys():
                    line = nodes.line_of(item)
                    found[own["ids"]] = SpecReservation(own["ids"], own["for"], line, key)
        return tuple(found.values())


def _is_twice(one: SpecVolume, other: SpecVolume) -> bool:
    """Tell whether a container has a volume twice: it may have two mounts at different places."""
    both_mounts = one.method == other.method == "idmap"
    return one.path == other.path and not (both_mounts and one.at != other.at)


def _hosts(node: yaml.Node, at: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Hosts of a fleet, each with the names of its containers."""
    if not isinstance(node, yaml.MappingNode) or node.tag != f"{nodes.TAG}map":
        raise nodes.WrongError(node, at, "expected a mapping of hosts")
    found: dict[str, tuple[str, ...]] = {}
    for key, value in node.value:
        host = nodes.text(key, at)
        if host in found:
            raise nodes.WrongError(key, at, f"{host!r} appears a second time")
        found[host] = tuple(nodes.names(value, f"{at}.{host}"))
    return tuple(found.items())


def _families(node: yaml.Node, at: str) -> list[str]:
    """Address families, by name or number."""
    return [
        str(nodes.number(item, key))
        if isinstance(item, yaml.ScalarNode) and item.tag == f"{nodes.TAG}int"
        else nodes.text(item, key)
        for item, key in nodes.items(node, at)
    ]


def _arch(node: yaml.Node, at: str) -> str:
    return nodes.one_of(node, at, ("native", "all"))


def _passes(node: yaml.Node, at: str) -> list[str]:
    """The passes, as --pass takes them."""
    return _each(node, at, passes.parse)


def _map(node: yaml.Node, at: str) -> list[str]:
    """The extents of a map: "u 0 100000 65536"."""
    found = _each(node, at, passes.parse_extent)
    with _about(node, at):
        passes.parse_map(found)
    return found


def _each(node: yaml.Node, at: str, check: Callable[[str], object]) -> list[str]:
    found = []
    for item, key in nodes.items(node, at):
        text = nodes.text(item, key)
        with _about(item, key):
            check(text)
        found.append(text)
    return found


@contextmanager
def _about(node: yaml.Node, at: str) -> Iterator[None]:
    """Give an error of a value its place."""
    try:
        yield
    except InvalidValueError as error:
        hint = error.in_file or error.hint
        raise nodes.WrongError(node, at, f"{error}; {hint}" if hint else str(error)) from error


def _version(node: yaml.Node, at: str) -> int:
    if nodes.number(node, at) != 1:
        raise nodes.WrongError(node, at, "this usernsplan knows only version 1 of the format")
    return 1


def _strategy(node: yaml.Node, at: str) -> str:
    return nodes.one_of(node, at, STRATEGIES)


def _publish(node: yaml.Node, at: str) -> str:
    return nodes.one_of(node, at, PUBLISH)


def _mode(node: yaml.Node, at: str) -> str:
    return nodes.one_of(node, at, ("own", "shift"))


def method(node: yaml.Node, at: str) -> str:
    """How volumes are given; config.yaml has this key too."""
    return nodes.one_of(node, at, METHODS)


def _protect(node: yaml.Node, at: str) -> str:
    return nodes.one_of(node, at, ("nosuid", "parent"))


def _daemon(node: yaml.Node, at: str) -> str | Literal[False]:
    is_bool = isinstance(node, yaml.ScalarNode) and node.tag == f"{nodes.TAG}bool"
    if is_bool and not nodes.boolean(node, at):
        return False
    return nodes.text(node, at)


def _user(node: yaml.Node, at: str) -> str:
    """A container's UID or UID:GID, as UID:GID. A UID alone goes with gid 0."""
    wanted = "a user of the container in numbers, '33:33'"
    if isinstance(node, yaml.ScalarNode) and node.tag == f"{nodes.TAG}int":
        if ":" in node.value:
            raise nodes.WrongError(
                node, at, f"YAML reads {node.value!r} as a number to base 60; put it in quotes"
            )
        text = str(nodes.number(node, at))
    else:
        text = nodes.scalar(node, at, "str", wanted)

    if not _USER.fullmatch(text):
        raise nodes.WrongError(node, at, f"{text!r} is not {wanted}")
    uid, _, gid = text.partition(":")
    if max(int(uid), int(gid or 0)) >= ID_LIMIT:
        raise nodes.WrongError(node, at, f"{text!r}: there is no such id")
    return f"{int(uid)}:{int(gid or 0)}"


# The options of strategies, as in the file and on the command line.
OPTIONS: dict[str, nodes.Read] = {
    **dict.fromkeys(("size", "block", "container-id", "dockerroot", "max"), nodes.number),
    "identity": nodes.boolean,
}

# The keys of a policy, as the options of harden.
_OF_POLICIES: dict[str, nodes.Read] = {
    "profile": nodes.text,
    **dict.fromkeys(("cap-add", "cap-drop", "allow-syscall", "deny-syscall"), nodes.names),
    **dict.fromkeys(("allow-family", "deny-family"), _families),
    "allow-new-privileges": nodes.boolean,
    "arch": _arch,
    **dict.fromkeys(("selinux-type", "selinux-level"), nodes.text),
}

# The keys of a volume that are about its mount, as the options of mount-volume.
_OF_MOUNTS: dict[str, nodes.Read] = {
    "at": nodes.absolute_path,
    "persist": nodes.boolean,
    "read-only": nodes.boolean,
    "protect": _protect,
    "cross-mounts": nodes.boolean,
}
