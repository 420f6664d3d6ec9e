"""Where new ranges come from: the host's own pool, by its login.defs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError, InvalidValueError
from usernsplan.formats import login_defs
from usernsplan.ids import ID_LIMIT, IdRange
from usernsplan.layout import LOGIN_DEFS

if TYPE_CHECKING:
    from usernsplan.model import HostState
    from usernsplan.strategies import Strategy

# systemd hands out container ranges from here on, and useradd finds its own from 100000 up. A start
# here stays out of useradd's way for its first six users, and inside both conventions.
POOL_START = 524288


def pool_of(state: HostState, strategy: Strategy, wanted: IdRange | None) -> IdRange:
    """Where ranges come from: what was asked for, the strategy's, or the host's own pool."""
    return wanted or strategy.pool or default_pool(state.login_defs, state.layout.path(LOGIN_DEFS))


def default_pool(raw: bytes, place: str) -> IdRange:
    """A host's own pool: from 524288 up to SUB_UID_MAX in its login.defs, which lies at ``place``.

    The base is the same for uids and gids, so the smaller of SUB_UID_MAX and SUB_GID_MAX counts.
    Raises InvalidFileError where login.defs contradicts itself, and InvalidValueError where it
    leaves no pool.
    """
    defs = login_defs.parse(raw, place)
    for area in defs.areas:
        if area.first > area.last:
            raise InvalidFileError(
                place,
                f"{area.key}_MIN {area.first} lies above {area.key}_MAX {area.last}",
                hint="useradd fails with these too; correct them, or name a pool",
            )
    last = min(*(area.last for area in defs.areas), ID_LIMIT - 1)
    if last < POOL_START:
        raise InvalidValueError(
            f"{place}: SUB_UID_MAX or SUB_GID_MAX is {last}, below our pool's start {POOL_START}",
            hint="raise it, or name a pool to take ranges from",
        )
    return IdRange(POOL_START, last - POOL_START + 1)
