"""A host's defaults (config.yaml) for what a command line or a plan file leaves open. Pure.

Whatever was said comes first, then the defaults, then what the host has, then what is built in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from usernsplan.errors import placed
from usernsplan.model import PoolOptions
from usernsplan.strategies import named, with_defaults

if TYPE_CHECKING:
    from usernsplan.formats.config import Config
    from usernsplan.formats.spec import Spec
    from usernsplan.model import AllocateRequest


def of_request(request: AllocateRequest, config: Config) -> AllocateRequest:
    """The request of a command line with the defaults of the host.

    Without a name it is about Docker's own allocation, so that Docker is one of its engines. Raises what
    strategies.named raises.
    """
    engines = request.engines
    if engines is None and config.engines is not None:
        engines = config.engines if request.names else (*config.engines, "docker")
    pools = {
        engine: PoolOptions(dict(config.pools).get(engine), dict(config.pool_starts).get(engine))
        for engine in engines or ()
        if engine in dict((*config.pools, *config.pool_starts))
    }

    strategy = request.strategy
    if name := strategy.name if strategy else config.strategy:
        with placed(config.places):
            strategy = named(name, with_defaults(name, request.options, config.options))
    said = {
        "strategy": request.strategy,
        "pool": request.pool,
        "engines": request.engines,
        **request.options,
    }
    return replace(
        request,
        places={key: place for key, place in config.places.items() if said.get(key) is None},
        strategy=strategy,
        defaults=config.options,
        pool=request.pool or config.pool,
        engines=engines,
        pools={**pools, **request.pools},
    )


def of_spec(spec: Spec, config: Config) -> Spec:
    """What a plan file says, with the defaults of the host, and the places of those that it leaves to them."""
    found = replace(
        spec,
        defaults=config.options,
        pool=spec.pool or config.pool,
        places={key: place for key, place in config.places.items() if key not in spec.lines},
    )
    if spec.engines is not None:
        return found
    return replace(
        found, engines=config.engines, pools=config.pools, pool_starts=config.pool_starts
    )
