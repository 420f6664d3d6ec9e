"""A Spec as a plan file: text, or plain lists and dictionaries. The grammar is that of spec."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

import yaml

from usernsplan.formats.yaml_nodes import TAG
from usernsplan.harden.policy import keys
from usernsplan.patterns import pattern

if TYPE_CHECKING:
    from usernsplan.formats.spec import Spec, SpecContainer, SpecEngine, SpecVolume
    from usernsplan.harden.policy import Policy
    from usernsplan.ids import IdRange

# Every reader of YAML takes these for text, also where PyYAML's rules of 1.1 differ from 1.2.
_WORD = pattern(r"[A-Za-z/][A-Za-z0-9/._-]+")


def schema() -> str:
    """The JSON Schema of plan files, which ships beside this file."""
    path = os.path.join(os.path.dirname(__file__), "spec.schema.json")
    with open(path, encoding="utf-8") as file:
        return file.read().rstrip("\n")


def text(spec: Spec) -> str:
    """The text of the plan file. Values that are the default are left out."""
    found = document(spec)
    return str(yaml.dump(found, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000))


def document(spec: Spec) -> dict[str, Any]:
    """The plan file as plain lists and dictionaries."""
    found: dict[str, Any] = {"version": 1, "strategy": spec.strategy, **spec.options}
    if spec.pool is not None:
        found["pool"] = _ids(spec.pool)
    if spec.in_files is not None:
        found["lines"] = spec.in_files
    if spec.engines is not None:
        found["engines"] = [_engine(one) for one in spec.engines]
    if spec.harden is not None:
        found["harden"] = _policy(spec.harden) or "none"
    if spec.publish is not None:
        found["publish"] = spec.publish
    if spec.daemon is not None:
        found["daemon"] = spec.daemon
    found["containers"] = [_container(one) for one in spec.containers]
    if spec.hosts:
        found["hosts"] = {host: list(names) for host, names in spec.hosts}
    if spec.reservations:
        found["reservations"] = [{"ids": _ids(r.ids), "for": r.why} for r in spec.reservations]
    return found


def _ids(ids: IdRange) -> str | int:
    """A range as spec reads it."""
    return str(ids) if ids.count > 1 else ids.start


def _engine(one: SpecEngine) -> str | dict[str, Any]:
    keys = {
        "name": one.name,
        "containers": one.containers,
        "start": one.start,
        "ids-per-pod": one.ids_per_pod,
        "publish": one.publish,
    }
    given = _given(keys)
    return given if len(given) > 1 else one.name


def _container(one: SpecContainer) -> dict[str, Any]:
    return _given(
        {
            "name": one.name,
            "owner": one.owner,
            "start": one.start,
            "lines": one.in_files,
            "publish": one.publish,
            "engines": list(one.engines) or None,
            "was": one.was or None,
            "within": one.within or None,
            "adopt": one.adopt or None,
            "local": one.local or None,
            **one.options,
            "pass": list(one.passes) or None,
            "pass-privileged": one.pass_privileged or None,
            "map": list(one.map) or None,
            "harden": "none" if one.harden is False else _policy(one.harden),
            "volumes": [_volume(v) for v in one.volumes] or None,
        }
    )


def _volume(one: SpecVolume) -> dict[str, Any]:
    return _given(
        {
            "path": one.path,
            "mode": one.mode,
            "user": one.user or None,
            "method": one.method,
            "at": one.at or None,
            "persist": one.persist or None,
            "read-only": one.read_only or None,
            "protect": one.protect or None,
            "cross-mounts": one.cross_mounts or None,
        }
    )


def _policy(one: Policy | Literal[False] | None) -> str | dict[str, Any] | None:
    """A policy: its profile, if that says all."""
    found = keys(one) if one else {}
    return found if len(found) > 1 else found.get("profile")


def _given(all_keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in all_keys.items() if value is not None}


class _Dumper(yaml.SafeDumper):
    """Quotes every text that is not plainly a word or a path.

    Readers of YAML 1.1 and of 1.2 then agree on it.
    """


def _quoted(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None if _WORD.fullmatch(value) else "'" if value.isprintable() else '"'
    return dumper.represent_scalar(f"{TAG}str", value, style=style)


_Dumper.add_representer(str, _quoted)
