"""A plan file out of a Spec: text, or plain lists and dictionaries. The grammar is that of spec."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import yaml

from usernsplan.formats.yaml_nodes import TAG

if TYPE_CHECKING:
    from usernsplan.formats.spec import Spec, SpecContainer
    from usernsplan.ids import IdRange

# What no reader of YAML takes for anything but text, where PyYAML's rules of 1.1 do not.
_WORD = re.compile(r"[A-Za-z/][A-Za-z0-9/._-]+")


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
    """A range as spec reads it."""
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
    return dumper.represent_scalar(f"{TAG}str", value, style=style)


_Dumper.add_representer(str, _quoted)
