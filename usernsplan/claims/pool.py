"""The pool that new ranges come from: by default that of the host's login.defs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError, InvalidValueError
from usernsplan.formats import login_defs
from usernsplan.ids import ID_LIMIT, IdRange
from usernsplan.layout import LOGIN_DEFS

if TYPE_CHECKING:
    from usernsplan.model import HostState
    from usernsplan.strategies import Strategy

# systemd gives out container ranges from here on, and useradd from 100000 up. A pool that starts
# here follows both conventions, and useradd has room for its first six users below it.
POOL_START = 524288


def pool_of(state: HostState, strategy: Strategy, wanted: IdRange | None) -> IdRange:
    """The pool: the requested one, else that of the strategy, else the default pool of the host."""
    return wanted or strategy.pool or default_pool(state.login_defs, state.layout.path(LOGIN_DEFS))


def default_pool(raw: bytes, place: str) -> IdRange:
    """The default pool of a host: from 524288 up to SUB_UID_MAX in its login.defs.

    ``place`` is the path of login.defs. A range is the same for uids and gids, so the smaller of
    SUB_UID_MAX and SUB_GID_MAX counts. Raises InvalidFileError if login.defs contradicts itself, and
    InvalidValueError if it leaves no pool.
    """
    defs = login_defs.parse(raw, place)
    for area in defs.areas:
        if area.first > area.last:
            raise InvalidFileError(
                place,
                f"{area.key}_MIN {area.first} is above {area.key}_MAX {area.last}",
                hint="correct them, since useradd fails with them, too; or name a pool",
            )
    last = min(*(area.last for area in defs.areas), ID_LIMIT - 1)
    if last < POOL_START:
        raise InvalidValueError(
            f"{place}: SUB_UID_MAX or SUB_GID_MAX is {last}, below the start of the default pool, "
            f"{POOL_START}",
            hint="raise it, or name a pool",
        )
    return IdRange(POOL_START, last - POOL_START + 1)
