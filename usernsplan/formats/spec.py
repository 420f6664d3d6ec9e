"""usernsplan.yaml, the plan file: what a host should have. Text to values, with the line of everything in it.

YAML's own readers take ``1000:10`` for 60010, ``012345`` for 5349, ``on`` for true, and the last of two equal keys.
Here the text is composed into nodes, and what two readers could understand differently is an error with its place. What
the keys mean together (a strategy's options, names that are taken) is decided in planner.desired. The same grammar, for
editors, is spec.schema.json beside this file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import yaml

from usernsplan.errors import InvalidFileError, InvalidValueError
from usernsplan.escape import shown_path
from usernsplan.ids import ID_LIMIT, IdRange

if TYPE_CHECKING:
    from collections.abc import Iterator

_Read = Callable[[yaml.Node, str], Any]
STRATEGIES = ("shared", "single-uid", "per-container")
_TAG = "tag:yaml.org,2002:"
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,9}")
_USER = re.compile(r"[0-9]{1,10}(:[0-9]{1,10})?")
# What no reader of YAML takes for anything but text, where PyYAML's rules of 1.1 do not.
_WORD = re.compile(r"[A-Za-z/][A-Za-z0-9/._-]+")
LONGEST = 8 << 20
_DEEPEST = 32
_TOO_DEEP = "nested too deeply for a plan file"


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
    by the engine's name. ``place`` is the file's path, for messages, and ``lines`` are those of its keys.
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


def parse(raw: bytes, place: str) -> Spec:
    """Read a plan file; ``place`` is its path. Raises InvalidFileError, which names every error by line and key."""
    node = _composed(raw, place)
    try:
        return _Reader(place).spec(node)
    except _WrongError as error:
        raise InvalidFileError(f"{place}:{_line(error.node)}", str(error)) from error


def schema() -> str:
    """The JSON Schema of plan files, as it ships beside this file."""
    with open(
        os.path.join(os.path.dirname(__file__), "spec.schema.json"), encoding="utf-8"
    ) as file:
        return file.read().rstrip("\n")


def text(spec: Spec) -> str:
    """The file that says this; what is as it usually is, is left out."""
    found = document(spec)
    return str(yaml.dump(found, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000))


def document(spec: Spec) -> dict[str, Any]:
    """The same as plain lists and dictionaries."""
    pools, starts = dict(spec.pools), dict(spec.pool_starts)
    said = {
        name: {
            key: of[name] for key, of in (("containers", pools), ("start", starts)) if name in of
        }
        for name in spec.engines or ()
    }
    engines = [{"name": name, **more} if more else name for name, more in said.items()]
    found: dict[str, Any] = {"version": 1, "strategy": spec.strategy, **spec.options}
    if spec.pool is not None:
        found["pool"] = _said(spec.pool)
    if spec.engines is not None:
        found["engines"] = engines
    if spec.daemon is not None:
        found["daemon"] = spec.daemon
    found["containers"] = [_container(one) for one in spec.containers]
    if spec.reservations:
        found["reservations"] = [{"ids": _said(r.ids), "for": r.why} for r in spec.reservations]
    return found


def _said(ids: IdRange) -> str | int:
    """A range as _range reads it."""
    return str(ids) if ids.count > 1 else ids.start


def _container(one: SpecContainer) -> dict[str, Any]:
    said = {
        "name": one.name,
        "owner": one.owner,
        "start": one.start,
        "engines": list(one.engines) or None,
        **one.options,
    }
    volumes = [
        {"path": v.path, "mode": v.mode, **({"user": v.user} if v.user else {})}
        for v in one.volumes
    ]
    return {key: value for key, value in said.items() if value is not None} | (
        {"volumes": volumes} if volumes else {}
    )


class _Dumper(yaml.SafeDumper):
    """Quotes every text that is not plainly a word or a path: readers of YAML 1.1 and 1.2 take it for the same then."""


def _quoted(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None if _WORD.fullmatch(value) else "'" if value.isprintable() else '"'
    return dumper.represent_scalar(f"{_TAG}str", value, style=style)


_Dumper.add_representer(str, _quoted)


def _composed(raw: bytes, place: str) -> yaml.Node:
    """The document as nodes, which know their lines. Raises InvalidFileError for what is no YAML document."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidFileError(f"{place}:{line}", "not UTF-8") from error
    if len(raw) > LONGEST:
        raise InvalidFileError(place, f"longer than {LONGEST} bytes: that is no plan file")
    try:
        depth, branching = 0, set()
        for event in yaml.parse(text, loader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.CollectionStartEvent):
                branching.add(event.anchor)
            if isinstance(event, yaml.AliasEvent) and event.anchor in branching:
                # A few of these in each other say more than any machine can hold.
                raise InvalidFileError(
                    f"{place}:{line}", f"the alias *{event.anchor} stands for more than one value"
                )
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
                event, yaml.CollectionEndEvent
            )
            # Composing goes down as deep as the text does.
            if depth > _DEEPEST:
                raise InvalidFileError(f"{place}:{line}", _TOO_DEEP)
        node = yaml.compose(text, loader)
    except yaml.MarkedYAMLError as error:
        raise _no_yaml(error, place) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # A character that may not be there, or that there is not (without libyaml): the reader counts, and has no mark.
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise InvalidFileError(
            f"{place}:{line}", f"not YAML: {str(error).splitlines()[0]}"
        ) from error
    if node is None:
        raise InvalidFileError(
            f"{place}:1", "there is nothing in it", hint="'usernsplan export' writes one"
        )
    return node


def _no_yaml(error: yaml.MarkedYAMLError, place: str) -> InvalidFileError:
    mark = error.problem_mark or error.context_mark
    # libyaml 0.2.6 (PyYAML 6.0.4) ends at 1000 levels itself, and it reads a line to its end to know whether that is
    # a key: it may notice before any event has told of the levels on that line.
    if mark and "nesting depth" in (error.problem or ""):
        return InvalidFileError(f"{place}:{mark.line + 1}", _TOO_DEEP)
    where = f"{place}:{mark.line + 1}:{mark.column + 1}" if mark else place
    return InvalidFileError(where, f"not YAML: {error.problem or error.context}")


class _WrongError(Exception):
    """What is wrong with a value, and where."""

    def __init__(self, node: yaml.Node, at: str, fact: str) -> None:
        super().__init__(fact)
        self.node, self.at = node, at


class _Reader:
    """Takes nodes apart. What is wrong is noted, so that all of it can be told at once."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.wrong: list[tuple[int, str]] = []

    def spec(self, node: yaml.Node) -> Spec:
        readers: dict[str, _Read] = {
            "version": _version,
            "strategy": _strategy,
            "pool": _range,
            "engines": self.engines,
            "daemon": _daemon,
            "containers": self.containers,
            "reservations": self.reservations,
            **_OPTIONS,
        }
        found = self.fields(node, "", readers, "strategy")
        if self.wrong:
            (line, first), *others = sorted(self.wrong, key=lambda one: one[0])
            more = [f"{self.place}:{line}: {fact}" for line, fact in others]
            error = InvalidFileError(f"{self.place}:{line}", "\n".join((first, *more)))
            error.lines = (f"{self.place}:{line}: {first}", *more)
            raise error
        return Spec(
            place=self.place,
            strategy=found["strategy"],
            options={key: found[key] for key in _OPTIONS if key in found},
            pool=found.get("pool"),
            engines=tuple(one["name"] for one in found["engines"]) if "engines" in found else None,
            pools=tuple(
                (one["name"], one["containers"])
                for one in found.get("engines", ())
                if "containers" in one
            ),
            pool_starts=tuple(
                (one["name"], one["start"]) for one in found.get("engines", ()) if "start" in one
            ),
            daemon=found.get("daemon"),
            containers=found.get("containers", ()),
            reservations=found.get("reservations", ()),
            lines=_lines(node),
        )

    def engines(self, node: yaml.Node, at: str) -> list[dict[str, Any]]:
        """Names of engines; and of a pool for how many containers, and its first id, where that is said."""
        found: list[dict[str, Any]] = []
        for item, key in _items(node, at):
            with self.noting():
                if isinstance(item, yaml.ScalarNode):
                    found.append({"name": _text(item, key)})
                else:
                    one = self.fields(
                        item, key, {"name": _text, "containers": _number, "start": _number}, "name"
                    )
                    found.append({"name": f"\0{key}", **one})
                if found[-1]["name"] in {one["name"] for one in found[:-1]}:
                    raise _WrongError(item, key, f"'{found[-1]['name']}' stands here a second time")
        return found

    def containers(self, node: yaml.Node, at: str) -> tuple[SpecContainer, ...]:
        found: dict[str, SpecContainer] = {}
        for item, key in _items(node, at):
            with self.noting():
                one = self.container(item, key)
                if one.name in found:
                    raise _WrongError(
                        item,
                        key,
                        f"'{one.name}' stands here a second time: line {found[one.name].line}",
                    )
                found[one.name] = one
        return tuple(found.values())

    def container(self, node: yaml.Node, at: str) -> SpecContainer:
        if isinstance(node, yaml.ScalarNode):
            return SpecContainer(_text(node, at), _line(node), at)
        own: dict[str, _Read] = {"name": _text, "owner": _text, "start": _number, "user": _user}
        found = self.fields(
            node, at, {**own, "volumes": self.volumes, "engines": _names, **_OPTIONS}, "name"
        )
        user = found.get("user", "0:0")
        return SpecContainer(
            # Where there is none, that is noted, and nothing comes of the rest.
            name=found.get("name", f"\0{at}"),
            line=_line(node),
            at=at,
            owner=found.get("owner"),
            start=found.get("start"),
            engines=tuple(found.get("engines", ())),
            options={key: found[key] for key in _OPTIONS if key in found},
            lines=_lines(node),
            volumes=tuple(
                replace(v, user=user) if v.mode == "own" and not v.user else v
                for v in found.get("volumes", ())
            ),
        )

    def volumes(self, node: yaml.Node, at: str) -> list[SpecVolume]:
        """The volumes of a container; those that name no user have that of their container."""
        found: dict[str, SpecVolume] = {}
        for item, key in _items(node, at):
            with self.noting():
                if isinstance(item, yaml.ScalarNode):
                    one = SpecVolume(_path(item, key), "own", "", _line(item))
                else:
                    said = self.fields(
                        item, key, {"path": _path, "mode": _mode, "user": _user}, "path"
                    )
                    one = SpecVolume(
                        said.get("path", f"\0{key}"),
                        said.get("mode", "own"),
                        said.get("user", ""),
                        _line(item),
                    )
                if one.mode == "shift" and one.user:
                    raise _WrongError(item, key, "mode shift keeps owners apart: it has no user")
                if one.path in found:
                    raise _WrongError(
                        item,
                        key,
                        f"{one.path} stands here a second time: line {found[one.path].line}",
                    )
                found[one.path] = one
        return list(found.values())

    def reservations(self, node: yaml.Node, at: str) -> tuple[SpecReservation, ...]:
        found: dict[IdRange, SpecReservation] = {}
        for item, key in _items(node, at):
            with self.noting():
                one = self.fields(item, key, {"ids": _range, "for": _text}, "ids", "for")
                if one.get("ids") in found:
                    raise _WrongError(item, key, f"{one['ids']} stands here a second time")
                if len(one) == 2:  # noqa: PLR2004 - both, and none of them wrong
                    found[one["ids"]] = SpecReservation(one["ids"], one["for"], _line(item), key)
        return tuple(found.values())

    def fields(
        self, node: yaml.Node, at: str, readers: dict[str, _Read], *needed: str
    ) -> dict[str, Any]:
        """The values of a mapping, each read by what its key asks for; those that are wrong are noted, and left out."""
        if not isinstance(node, yaml.MappingNode) or node.tag != f"{_TAG}map":
            raise _WrongError(node, at, f"expected keys and values: {', '.join(readers)}")
        found: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for key_node, value in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            shown = shown_path(key)
            inside = f"{at}.{shown}" if at else shown
            with self.noting():
                if key in seen:
                    raise _WrongError(
                        key_node, inside, f"this key stands here a second time: line {seen[key]}"
                    )
                if key not in readers:
                    raise _WrongError(
                        key_node, inside, f"no such key; there are {', '.join(readers)}"
                    )
                seen[key] = _line(key_node)
                found[key] = readers[key](value, inside)
        for key in needed:
            if key not in seen:
                self.note(_WrongError(node, at, f"the key '{key}' is missing"))
        return found

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note what is wrong, and go on."""
        try:
            yield
        except _WrongError as error:
            self.note(error)

    def note(self, error: _WrongError) -> None:
        self.wrong.append((_line(error.node), f"{error.at}: {error}" if error.at else str(error)))


def _lines(node: yaml.Node) -> dict[str, int]:
    return {str(key.value): _line(key) for key, _ in node.value}


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _items(node: yaml.Node, at: str) -> Iterator[tuple[yaml.Node, str]]:
    if not isinstance(node, yaml.SequenceNode) or node.tag != f"{_TAG}seq":
        raise _WrongError(node, at, "expected a list")
    for number, item in enumerate(node.value):
        yield item, f"{at}[{number}]"


def _scalar(node: yaml.Node, at: str, kind: str, wanted: str) -> str:
    """The text of a scalar that every reader of YAML takes for this kind."""
    if not isinstance(node, yaml.ScalarNode):
        raise _WrongError(node, at, f"expected {wanted}")
    if node.tag == _TAG + kind:
        return str(node.value)
    kinds = {
        "int": "a number",
        "float": "a number",
        "bool": "true or false",
        "null": "nothing",
        "timestamp": "a date",
    }
    read = kinds.get(node.tag.removeprefix(_TAG))
    if read and kind == "str" and node.value:
        raise _WrongError(
            node, at, f"YAML reads {node.value!r} as {read}: put it in quotes to have text"
        )
    raise _WrongError(
        node,
        at,
        f"{node.value!r} is not {wanted}" if node.value else f"nothing is there: expected {wanted}",
    )


def _text(node: yaml.Node, at: str) -> str:
    text = _scalar(node, at, "str", "text")
    if not text or not text.isprintable():
        raise _WrongError(node, at, f"{text!r}: text that can be printed is needed")
    return text


def _names(node: yaml.Node, at: str) -> list[str]:
    return list(dict.fromkeys(_text(item, key) for item, key in _items(node, at)))


def _number(node: yaml.Node, at: str) -> int:
    text = _scalar(node, at, "int", "a whole number")
    if re.fullmatch("-[1-9][0-9]*|[1-9][0-9]{10,}", text):
        raise _WrongError(node, at, f"{text} is no number of ids")
    if not _DECIMAL.fullmatch(text):
        raise _WrongError(
            node, at, f"{text!r} is not a number in plain decimal: YAML may read it as another"
        )
    return int(text)


def _boolean(node: yaml.Node, at: str) -> bool:
    text = _scalar(node, at, "bool", "true or false")
    if text not in {"true", "false"}:
        raise _WrongError(node, at, f"{text!r} is read in two ways: write true or false")
    return text == "true"


def _version(node: yaml.Node, at: str) -> int:
    if _number(node, at) != 1:
        raise _WrongError(node, at, "this usernsplan knows version 1 of the format")
    return 1


def _strategy(node: yaml.Node, at: str) -> str:
    return _one_of(node, at, STRATEGIES)


def _mode(node: yaml.Node, at: str) -> str:
    return _one_of(node, at, ("own", "shift"))


def _one_of(node: yaml.Node, at: str, choices: tuple[str, ...]) -> str:
    text = _text(node, at)
    if text not in choices:
        raise _WrongError(node, at, f"{text!r} is none of {', '.join(choices)}")
    return text


def _daemon(node: yaml.Node, at: str) -> str | Literal[False]:
    if isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}bool" and not _boolean(node, at):
        return False
    return _text(node, at)


def _range(node: yaml.Node, at: str) -> IdRange:
    """FIRST-LAST, both inclusive, or one id."""
    one = isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}int"
    text = str(_number(node, at)) if one else _scalar(node, at, "str", "a range FIRST-LAST")
    try:
        return IdRange.parse(f"{text}-{text}" if one else text)
    except InvalidValueError as error:
        raise _WrongError(node, at, str(error)) from error


def _user(node: yaml.Node, at: str) -> str:
    """UID or UID:GID of the container, as UID:GID."""
    wanted = "a user of the container in numbers, '33:33'"
    if isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}int":
        if ":" in node.value:
            raise _WrongError(
                node,
                at,
                f"YAML reads {node.value!r} as a number to the base of 60: put it in quotes",
            )
        text = str(_number(node, at))
    else:
        text = _scalar(node, at, "str", wanted)
    if not _USER.fullmatch(text):
        raise _WrongError(node, at, f"{text!r} is not {wanted}")
    uid, gid = (int(number) for number in (text if ":" in text else f"{text}:0").split(":"))
    if max(uid, gid) >= ID_LIMIT:
        raise _WrongError(node, at, f"{text!r}: there is no such id")
    return f"{uid}:{gid}"


def _path(node: yaml.Node, at: str) -> str:
    path = _scalar(node, at, "str", "a path")
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise _WrongError(node, at, f"{path!r} is not an absolute path without '..'")
    return path


# The options of strategies, as they stand in the file and on the command line.
_OPTIONS: dict[str, _Read] = {
    **dict.fromkeys(("size", "block", "container-id", "dockerroot", "max"), _number),
    "identity": _boolean,
}
