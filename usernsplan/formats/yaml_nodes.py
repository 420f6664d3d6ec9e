"""YAML that all readers understand alike: documents as nodes with lines, and their values. Pure.

YAML readers take ``1000:10`` for 60010, ``012345`` for 5349, ``on`` for true, and the last of two
equal keys. Here, a value that two readers could understand differently is an error with its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml

from usernsplan.errors import InvalidFileError, InvalidValueError, did_you_mean
from usernsplan.escape import shown_path
from usernsplan.ids import IdRange
from usernsplan.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

Read = Callable[[yaml.Node, str], Any]
TAG = "tag:yaml.org,2002:"
LONGEST = 8 << 20
_DECIMAL = pattern(r"0|[1-9][0-9]{0,9}")
_DEEPEST = 32
_TOO_DEEP = "nested too deeply"


def composed(raw: bytes, place: str) -> yaml.Node | None:
    """The document as nodes with lines; None for a file that is empty or has only comments.

    Raises InvalidFileError if it is not one YAML document.
    """
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidFileError(f"{place}:{line}", "not UTF-8") from error
    if len(raw) > LONGEST:
        raise InvalidFileError(place, f"longer than {LONGEST} bytes")
    try:
        depth, branching = 0, set()
        for event in yaml.parse(text, loader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.CollectionStartEvent):
                branching.add(event.anchor)
            if isinstance(event, yaml.AliasEvent) and event.anchor in branching:
                # A few nested aliases can expand to more than any machine can hold.
                raise InvalidFileError(
                    f"{place}:{line}", f"the alias *{event.anchor} stands for more than one value"
                )
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
                event, yaml.CollectionEndEvent
            )
            # Composing recurses once per level.
            if depth > _DEEPEST:
                raise InvalidFileError(f"{place}:{line}", _TOO_DEEP)
        return yaml.compose(text, loader)
    except yaml.MarkedYAMLError as error:
        raise _no_yaml(error, place) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # For an invalid character, the reader (without libyaml) has a position but no mark.
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise InvalidFileError(
            f"{place}:{line}", f"not YAML: {str(error).splitlines()[0]}"
        ) from error


def _no_yaml(error: yaml.MarkedYAMLError, place: str) -> InvalidFileError:
    mark = error.problem_mark or error.context_mark
    # libyaml 0.2.6 (PyYAML 6.0.4) stops at 1000 levels itself. It reads a line to its end to see
    # whether it is a key, so it may stop before any event shows the levels on that line.
    if mark and "nesting depth" in (error.problem or ""):
        return InvalidFileError(f"{place}:{mark.line + 1}", _TOO_DEEP)
    where = f"{place}:{mark.line + 1}:{mark.column + 1}" if mark else place
    return InvalidFileError(where, f"not YAML: {error.problem or error.context}")


class WrongError(Exception):
    """A wrong value and its place."""

    def __init__(self, node: yaml.Node, at: str, fact: str) -> None:
        super().__init__(fact)
        self.node, self.at = node, at


class Reader:
    """Reads values from nodes. It notes every error, so that the user sees all of them at once."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.wrong: list[tuple[int, str]] = []

    def document(self, node: yaml.Node, readers: dict[str, Read], *needed: str) -> dict[str, Any]:
        """The values of a file. Raises InvalidFileError with every error, its line and key."""
        try:
            found = self.fields(node, "", readers, *needed)
        except WrongError as error:
            # The document is not a mapping at all, so there is no other error.
            raise InvalidFileError(f"{self.place}:{line_of(error.node)}", str(error)) from error
        if not self.wrong:
            return found
        (line, first), *others = sorted(self.wrong, key=lambda one: one[0])
        more = [f"{self.place}:{line}: {fact}" for line, fact in others]
        wrong = InvalidFileError(f"{self.place}:{line}", "\n".join((first, *more)))
        wrong.lines = (f"{self.place}:{line}: {first}", *more)
        raise wrong

    def fields(
        self, node: yaml.Node, at: str, readers: dict[str, Read], *needed: str
    ) -> dict[str, Any]:
        """The values of a mapping, each read by its key's reader; notes and omits wrong ones."""
        if not isinstance(node, yaml.MappingNode) or node.tag != f"{TAG}map":
            raise WrongError(node, at, f"expected keys and values: {', '.join(readers)}")
        found: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for key_node, value in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            shown = shown_path(key)
            inside = f"{at}.{shown}" if at else shown
            with self.noting():
                if key in seen:
                    raise WrongError(
                        key_node, inside, f"duplicate key: the first is in line {seen[key]}"
                    )
                if key not in readers:
                    there = did_you_mean(key, readers, f"the keys are {', '.join(readers)}")
                    raise WrongError(key_node, inside, f"no such key; {there}")
                seen[key] = line_of(key_node)
                found[key] = readers[key](value, inside)
        for key in needed:
            if key not in seen:
                self.note(WrongError(node, at, f"the key '{key}' is missing"))
        return found

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note a WrongError in the body, and go on."""
        try:
            yield
        except WrongError as error:
            self.note(error)

    def note(self, error: WrongError) -> None:
        """Note an error with its line."""
        self.wrong.append((line_of(error.node), f"{error.at}: {error}" if error.at else str(error)))


def lines_of(node: yaml.Node) -> dict[str, int]:
    """The line of each key of a mapping."""
    return {str(key.value): line_of(key) for key, _ in node.value}


def line_of(node: yaml.Node) -> int:
    """The line of a node, counted from 1."""
    return int(node.start_mark.line) + 1


def items(node: yaml.Node, at: str) -> Iterator[tuple[yaml.Node, str]]:
    """The items of a list, each with its place. Raises WrongError for other nodes."""
    if not isinstance(node, yaml.SequenceNode) or node.tag != f"{TAG}seq":
        raise WrongError(node, at, "expected a list")
    for number, item in enumerate(node.value):
        yield item, f"{at}[{number}]"


def scalar(node: yaml.Node, at: str, kind: str, wanted: str) -> str:
    """The text of a scalar that all YAML readers take for this kind. Raises WrongError."""
    if not isinstance(node, yaml.ScalarNode):
        raise WrongError(node, at, f"expected {wanted}")
    if node.tag == TAG + kind:
        return str(node.value)
    kinds = {
        "int": "a number",
        "float": "a number",
        "bool": "true or false",
        "null": "nothing",
        "timestamp": "a date",
    }
    read = kinds.get(node.tag.removeprefix(TAG))
    if read and kind == "str" and node.value:
        raise WrongError(node, at, f"YAML reads {node.value!r} as {read}: put it in quotes")
    raise WrongError(
        node,
        at,
        f"{node.value!r} is not {wanted}"
        if node.value
        else f"the value is missing: expected {wanted}",
    )


def text(node: yaml.Node, at: str) -> str:
    """Printable text that is not empty."""
    found = scalar(node, at, "str", "text")
    if not found or not found.isprintable():
        raise WrongError(node, at, f"{found!r} is not printable text")
    return found


def names(node: yaml.Node, at: str) -> list[str]:
    """A list of texts without duplicates."""
    return list(dict.fromkeys(text(item, key) for item, key in items(node, at)))


def number(node: yaml.Node, at: str) -> int:
    """A plain decimal number from 0 on."""
    text = scalar(node, at, "int", "a whole number")
    if re.fullmatch("-[1-9][0-9]*|[1-9][0-9]{10,}", text):
        raise WrongError(node, at, f"{text} is not a possible number of ids")
    if not _DECIMAL.fullmatch(text):
        raise WrongError(
            node, at, f"{text!r} is not a plain decimal number: YAML may read another value"
        )
    return int(text)


def boolean(node: yaml.Node, at: str) -> bool:
    """The values true and false, the only words on which YAML 1.1 and 1.2 agree."""
    text = scalar(node, at, "bool", "true or false")
    if text not in {"true", "false"}:
        raise WrongError(node, at, f"YAML readers disagree about {text!r}: write true or false")
    return text == "true"


def one_of(node: yaml.Node, at: str, choices: tuple[str, ...]) -> str:
    """One of these texts."""
    found = text(node, at)
    if found not in choices:
        near = did_you_mean(found, choices)
        these = ", ".join(choices) + (f"; {near}" if near else "")
        raise WrongError(node, at, f"{found!r} is not one of {these}")
    return found


def id_range(node: yaml.Node, at: str) -> IdRange:
    """FIRST-LAST, both inclusive, or one id."""
    one = isinstance(node, yaml.ScalarNode) and node.tag == f"{TAG}int"
    text = str(number(node, at)) if one else scalar(node, at, "str", "a range FIRST-LAST")
    try:
        return IdRange.parse(f"{text}-{text}" if one else text)
    except InvalidValueError as error:
        raise WrongError(node, at, str(error)) from error


def absolute_path(node: yaml.Node, at: str) -> str:
    """An absolute path without '..'."""
    path = scalar(node, at, "str", "a path")
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise WrongError(node, at, f"{path!r} is not an absolute path without '..'")
    return path
