"""A host's defaults (config.yaml) for what a command line or a plan file leaves open. Pure.

An explicit option comes first, then the defaults, then what the host has, then the built-in value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import placed
from usernsplan.model import PoolOptions
from usernsplan.strategies import named, with_defaults
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.formats.config import Config
    from usernsplan.formats.spec import Spec, SpecEngine
    from usernsplan.model import AllocateRequest


def of_request(request: AllocateRequest, config: Config) -> AllocateRequest:
    """The request of a command line with the defaults of the host.

    Without a name it is about Docker's own allocation, so Docker is then one of its engines. Raises
    what strategies.named raises.
    """
    engines = request.engines
    if engines is None and config.engines is not None:
        engines = tuple(one.name for one in config.engines)
        engines = engines if request.names else (*engines, "docker")
    pools = pool_options(one for one in config.engines or () if one.name in (engines or ()))

    strategy = request.strategy
    if name := strategy.name if strategy else config.strategy:
        with placed(config.places):
            strategy = named(name, with_defaults(name, request.options, config.options))

    given = {
        "strategy": request.strategy,
        "pool": request.pool,
        "engines": request.engines,
        "publish": request.publish,
        **request.options,
    }
    return replace(
        request,
        places={key: place for key, place in config.places.items() if given.get(key) is None},
        strategy=strategy,
        defaults=config.options,
        pool=request.pool or config.pool,
        engines=engines,
        pools={**pools, **request.pools},
        publish=request.publish or config.publish,
    )


def of_spec(spec: Spec, config: Config) -> Spec:
    """A plan file with the defaults of the host, and with the places of those that it uses."""
    return replace(
        spec,
        defaults=config.options,
        pool=spec.pool or config.pool,
        places={key: place for key, place in config.places.items() if key not in spec.lines},
        engines=config.engines if spec.engines is None else spec.engines,
        publish=spec.publish or config.publish,
        containers=tuple(
            replace(
                one,
                volumes=tuple(replace(v, method=v.method or config.method) for v in one.volumes),
            )
            for one in spec.containers
        ),
    )


def pool_options(engines: Iterable[SpecEngine]) -> dict[str, PoolOptions]:
    """The options of the pools of these engines, by the engine's name, if it has any."""
    options = {
        one.name: PoolOptions(one.containers, one.start, one.ids_per_pod, one.publish)
        for one in engines
    }
    return {name: one for name, one in options.items() if one != PoolOptions()}
