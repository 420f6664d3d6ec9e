"""config.yaml, the defaults of a host: text to values.

They fill in what neither the command line nor a plan file sets. The file is YAML, and keys that it
shares with a plan file have the same form. config.schema.json beside this file is for editors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from usernsplan.formats import spec
from usernsplan.formats import yaml_nodes as nodes
from usernsplan.values import dataclass, field

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
