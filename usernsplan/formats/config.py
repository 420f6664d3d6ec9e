"""config.yaml: the defaults of a host, for what neither the command line nor a plan file says.

It is the YAML of a plan file, and shared keys have the same form. The schema for editors is
config.schema.json beside this file. Text to values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from usernsplan.formats import spec
from usernsplan.formats import yaml_nodes as nodes

if TYPE_CHECKING:
    from usernsplan.ids import IdRange


@dataclass(frozen=True, slots=True)
class Config:
    """The defaults of a host, each as in a Spec. ``places``: the line of each key, for messages."""

    strategy: str = ""
    options: dict[str, int] = field(default_factory=dict)
    pool: IdRange | None = None
    engines: tuple[str, ...] | None = None
    pools: tuple[tuple[str, int], ...] = ()
    pool_starts: tuple[tuple[str, int], ...] = ()
    places: dict[str, str] = field(default_factory=dict)


def parse(raw: bytes, place: str) -> Config:
    """Read a config.yaml; ``place`` is its path.

    Raises InvalidFileError, which names the line and key of every error.
    """
    node = nodes.composed(raw, place)
    if node is None or node.tag == f"{nodes.TAG}null":
        return Config()
    reader = spec.Reader(place)
    # Add keys here that only this file has.
    found: dict[str, Any] = reader.document(node, {**reader.shared(), **spec.OPTIONS})
    return Config(
        strategy=found.get("strategy", ""),
        options={key: found[key] for key in spec.OPTIONS if key in found},
        pool=found.get("pool"),
        places={key: f"{place}:{line}: {key}" for key, line in nodes.lines_of(node).items()},
        **spec.engines_of(found.get("engines")),
    )
