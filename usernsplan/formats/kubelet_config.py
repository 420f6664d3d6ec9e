"""KubeletConfiguration, the kubelet's own file: how many ids a pod gets, and how many pods run. Pure.

Only these two keys are read. The kubelet reads YAML and JSON; of both, a value that two readers
could understand differently is an error here.
https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from usernsplan.errors import InvalidFileError
from usernsplan.formats import yaml_nodes as nodes
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# userNsUnitLength of Kubernetes, pkg/kubelet/apis/config/validation.
_UNIT = 65536
_MOST_IDS = 2**32 - 1


class KubeletConfig(NamedTuple):
    """What one file sets; None for what it leaves out. ``line`` is that of idsPerPod."""

    ids_per_pod: int | None = None
    max_pods: int | None = None
    line: int = 0


def parse(raw: bytes, place: str) -> KubeletConfig:
    """Read a KubeletConfiguration or a part of one; ``place`` is its path.

    Raises InvalidFileError if it is no YAML, or for values with which the kubelet does not start.
    """
    document = nodes.composed(raw, place)
    ids, line, pods = None, 0, None
    try:
        for node, key in _values(document, "", "userNamespaces"):
            for value, at in _values(node, key, "idsPerPod"):
                ids, line = nodes.number(value, at), nodes.line_of(value)
                if ids < _UNIT or ids % _UNIT or ids > _MOST_IDS:
                    raise nodes.WrongError(value, at, f"{ids} is not a multiple of {_UNIT}")
        for node, key in _values(document, "", "maxPods"):
            pods = nodes.number(node, key)
    except nodes.WrongError as error:
        fact = f"{error.at}: {error}: the kubelet does not start with it"
        raise InvalidFileError(f"{place}:{nodes.line_of(error.node)}", fact) from error
    return KubeletConfig(ids, pods, line)


def _values(node: yaml.Node | None, at: str, key: str) -> Iterator[tuple[yaml.Node, str]]:
    """The value of a key, with its name, if the mapping sets it. Raises WrongError for a second one."""
    if node is None or node.tag == f"{nodes.TAG}null":
        return
    inside = f"{at}.{key}" if at else key
    if not isinstance(node, yaml.MappingNode):
        raise nodes.WrongError(node, at or inside, "expected keys and values")
    found = [value for name, value in node.value if name.value == key]
    if found[1:]:
        raise nodes.WrongError(found[1], inside, "duplicate key")
    if found and found[0].tag != f"{nodes.TAG}null":
        yield found[0], inside
