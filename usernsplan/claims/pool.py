"""The pool that new ranges come from: by default that of the host's login.defs. Pure."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from usernsplan.claims import computed
from usernsplan.errors import InvalidFileError, InvalidValueError
from usernsplan.formats import login_defs
from usernsplan.formats.subid import Grant
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.layout import LOGIN_DEFS
from usernsplan.reserved import INSTANCES
from usernsplan.strategies import SLOT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.claims.computed import Computed
    from usernsplan.formats.subid import Line
    from usernsplan.model import HostState, Unlisted
    from usernsplan.strategies import Strategy

# systemd gives out container ranges from 524288 on, and useradd from 100000 up. A pool that starts
# here follows both conventions, and useradd has room for its first seven users below it. The slot
# 524288-589823 belongs to snapd; see reserved.py.
POOL_START = 589824
# The ids of LXD's and Incus's instances (INSTANCES) lie across the default pool of most hosts, so
# where they are taken the pool goes on behind them, up to the last id that systemd leaves to
# containers.
BEHIND_INSTANCES = IdRange(1001062400, 1879048192 - 1001062400)


def pool_of(state: HostState, strategy: Strategy, wanted: IdRange | None) -> IdSet:
    """The part of the pool that exists here; it may be empty. See ``whole_pool``."""
    uids, gids = state.exists
    return whole_pool(state, strategy, wanted) & uids & gids


def whole_pool(state: HostState, strategy: Strategy, wanted: IdRange | None) -> IdSet:
    """The pool: the requested one, else that of the strategy, else the default pool of the host."""
    if own := wanted or strategy.pool:
        return IdSet((own,))
    place = state.layout.path(LOGIN_DEFS)
    return default_pool(state.login_defs, place, state.unlisted, state.subuid.lines)


def default_pool(
    raw: bytes, place: str, unlisted: Iterable[Unlisted] = (), lines: Iterable[Line] = ()
) -> IdSet:
    """The default pool of a host: from 589824 up to SUB_UID_MAX in its login.defs.

    Where useradd computes ranges from uids, it begins behind them and ends where systemd's ids of
    containers do: up to SUB_UID_MAX almost every id is some uid's. Where one of ``unlisted`` or a
    line has all ids of INSTANCES, as root's line on most hosts with Incus, the pool also has those
    of BEHIND_INSTANCES. ``place`` is the path of login.defs. A range is the same for uids and gids,
    so the smaller of SUB_UID_MAX and SUB_GID_MAX counts. Raises
    InvalidFileError if login.defs contradicts itself, and InvalidValueError if it leaves no pool.
    """
    defs = login_defs.parse(raw, place)
    for area in defs.areas:
        if area.first > area.last:
            raise InvalidFileError(
                place,
                f"{area.key}_MIN {area.first} is above {area.key}_MAX {area.last}",
                hint="correct them, since useradd fails with them, too; or name a pool",
            )
    if areas := computed.of_login_defs(defs):
        return _behind(max(areas, key=lambda one: one.stop), place)
    last = min(*(area.last for area in defs.areas), ID_LIMIT - 1)
    if last < POOL_START:
        raise InvalidValueError(
            f"{place}: SUB_UID_MAX or SUB_GID_MAX is {last}, below the start of the default pool, "
            f"{POOL_START}",
            hint="raise it, or name a pool",
        )
    pool = IdSet((IdRange(POOL_START, last - POOL_START + 1),))
    grants = (line for line in lines if isinstance(line, Grant))
    spans = chain(((u.start, u.stop) for u in unlisted), ((g.start, g.stop) for g in grants))
    if any(start <= INSTANCES.start and INSTANCES.stop <= stop for start, stop in spans):
        return pool | IdSet((BEHIND_INSTANCES,))
    return pool


def _behind(area: Computed, place: str) -> IdSet:
    """The pool behind the ranges that useradd computes."""
    start = max(POOL_START, -(-area.stop // SLOT) * SLOT)
    if start >= BEHIND_INSTANCES.stop:
        raise InvalidValueError(
            f"{place}:{area.number}: useradd computes ranges of uids up to {area.stop - 1}, and "
            f"the ids of containers end at {BEHIND_INSTANCES.stop - 1}: no pool is left",
            hint="lower UID_MAX there, or set SUB_UID_MAX and SUB_GID_MAX, or name a pool",
        )
    return IdSet((IdRange(start, BEHIND_INSTANCES.stop - start),))
