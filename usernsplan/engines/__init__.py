"""Allocation -> what one container engine reads. One engine is one file; this one is the list of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from usernsplan.errors import InvalidValueError, RefusedError

if TYPE_CHECKING:
    from usernsplan.engines.base import Engine, Rendered
    from usernsplan.model import Allocation, HostState

# What `render` is asked for -> the file it lives in; imported only when asked for.
ENGINES = {"uid_map": "kernel", "gid_map": "kernel", "docker": "docker", "podman": "podman", "oci": "oci"}


def engine(name: str) -> Engine:
    """The engine of this name. Raises InvalidValueError for one that we do not know."""
    if name not in ENGINES:
        raise InvalidValueError(f"no engine '{name}'", hint=f"one of: {', '.join(ENGINES)}")
    return cast("Engine", import_module(f"usernsplan.engines.{ENGINES[name]}").ENGINES[name])


def reads_host(name: str) -> bool:
    """Tell whether the engine's text depends on the host, which then has to be read for it."""
    return engine(name).reads_host


def render(name: str, allocation: Allocation, state: HostState | None = None) -> Rendered:
    """What the engine reads, and what it needs besides.

    Raises RefusedError where the engine cannot make this mapping, naming one that can: a wrong configuration is never
    printed.
    """
    chosen = engine(name)
    verdict = chosen.verdict(allocation)
    if not verdict.can:
        others = [other for other in ENGINES if engine(other).verdict(allocation).can]
        raise RefusedError(
            f"{name} cannot express the allocation '{allocation.name}': {verdict.why}", hint=f"{', '.join(others)} can"
        )
    return chosen.render(allocation, state)
