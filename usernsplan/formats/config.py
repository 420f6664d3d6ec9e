"""config.yaml, the defaults of a host: text to values.

They fill in what neither the command line nor a plan file sets. The file is YAML, and keys that it
shares with a plan file have the same form. config.schema.json beside this file is for editors.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from usernsplan.errors import InvalidFileError
from usernsplan.formats import spec
from usernsplan.formats import yaml_nodes as nodes
from usernsplan.values import dataclass, field, replace

if TYPE_CHECKING:
    from usernsplan.formats.spec import Method, SpecEngine
    from usernsplan.ids import IdRange


@dataclass(frozen=True, slots=True)
class Config:
    """The defaults of a host, each as in a Spec; ``method`` is how volumes are given.

    ``places``: the line of each key, for messages. ``ledger`` is the place of the fleet's ledger, as
    libpq takes it; "" for a host of its own.
    """

    strategy: str = ""
    options: dict[str, int] = field(default_factory=dict)
    pool: IdRange | None = None
    engines: tuple[SpecEngine, ...] | None = None
    places: dict[str, str] = field(default_factory=dict)
    publish: Literal["userdb", "passwd", "none"] | None = None
    method: Method | None = None
    ledger: str = ""


def parse(raw: bytes, place: str) -> Config:
    """Read a config.yaml; ``place`` is its path.

    Raises InvalidFileError, which names the line and key of every error.
    """
    node = nodes.composed(raw, place)
    if node is None or node.tag == f"{nodes.TAG}null":
        return Config()
    reader = spec.Reader(place)
    # The keys that only this file has.
    own: dict[str, nodes.Read] = {"method": spec.method, "ledger": nodes.text}
    found: dict[str, Any] = reader.document(node, {**reader.shared(), **spec.OPTIONS, **own})
    return Config(
        strategy=found.get("strategy", ""),
        options={key: found[key] for key in spec.OPTIONS if key in found},
        pool=found.get("pool"),
        engines=found.get("engines"),
        places={key: f"{place}:{line}: {key}" for key, line in nodes.lines_of(node).items()},
        publish=found.get("publish"),
        method=found.get("method"),
        ledger=found.get("ledger", ""),
    )


def with_ledger(raw: bytes, place: str, url: str) -> bytes:
    """A config.yaml with the place of a ledger at its end; all else stays as it is written.

    Raises InvalidFileError for a file in which a line at the end would mean something else.
    """
    before = raw if raw.endswith(b"\n") or not raw else raw + b"\n"
    # A JSON string is one of YAML, too.
    return _meaning(raw, before + f"ledger: {json.dumps(url)}\n".encode(), place, url)


def without_ledger(raw: bytes, place: str) -> bytes:
    """A config.yaml without the place of a ledger; b"" if nothing else is in it.

    Raises InvalidFileError for a file that would mean something else without these lines.
    """
    lines = raw.splitlines(keepends=True)
    node: Any = nodes.composed(raw, place)
    for key, value in node.value if node is not None else ():
        if key.value == "ledger":
            del lines[key.start_mark.line : value.end_mark.line + 1]
    after = _meaning(raw, b"".join(lines), place, "")
    return after if after.strip() else b""


def _meaning(before: bytes, after: bytes, place: str, url: str) -> bytes:
    """The bytes after a change, if they mean what those before mean, with this ledger."""
    wanted = replace(parse(before, place), places={}, ledger=url)
    with suppress(InvalidFileError):
        if replace(parse(after, place), places={}) == wanted:
            return after
    remedy = f"write this line yourself: ledger: {json.dumps(url)}" if url else "remove it yourself"
    raise InvalidFileError(place, "the key 'ledger' does not fit in a line of its own", hint=remedy)
