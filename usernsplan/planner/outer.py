"""The container around this host: the ids that its map lacks, and what would give them to it. Pure."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from usernsplan.errors import PoolExhaustedError
from usernsplan.ids import EVERY_ID, IdRange, IdSet
from usernsplan.mapping import KINDS
from usernsplan.strategies import SLOT

if TYPE_CHECKING:
    from usernsplan.model import Allocation, HostState
    from usernsplan.strategies import Need

# The default pool of the host around us has no room for a map of more ids than this.
_LARGEST = 1 << 29
# A map may have hundreds of lines.
_SHOWN = 3


def absent(state: HostState) -> IdSet:
    """The ids that do not exist here as uids, or not as gids; empty unless this is a container."""
    if state.exists == (EVERY_ID, EVERY_ID):
        return IdSet()
    return IdSet.union(EVERY_ID - ids for ids in state.exists)


def fact(state: HostState) -> str:
    """What the container's map has, with the place."""
    uids, gids = state.exists
    return (
        f"this host is a container, and its map has only {shown(uids & gids)} (/proc/self/uid_map)"
    )


def shown(ids: IdSet) -> str:
    """The first ranges of a set, and how many more there are."""
    first = IdSet(islice(ids, _SHOWN))
    more = sum(1 for _ in ids) - _SHOWN
    return (str(first) or "no ids") + (f" and {more} more ranges" if more > 0 else "")


def remedy(state: HostState, wanted: IdSet) -> str:
    """How the host around the container gives it the ``wanted`` ids that it lacks."""
    more = wanted & absent(state)
    first = next(iter(more))
    size = -(-max(ids.stop for ids in more) // SLOT) * SLOT
    whole = (
        "on the host around it, 'usernsplan allocate --strategy per-container NAME "
        f"--size {size}' makes such a map; or add them to its map there: "
        if size <= _LARGEST
        else "on the host around it, add them to its map: "
    )
    return (
        f"to run containers in it, its map needs {more.total()} more ids, container ids "
        f"{shown(more)}: {whole}"
        f"'lxc.idmap = u {first.start} HOST {first.count}' (LXC), "
        f"'uid HOST-LAST {first}' in raw.idmap (Incus, LXD), "
        f"'--uidmap {first.start}:HOST:{first.count}' (Podman), each for gids too"
    )


def refuse_absent(state: HostState, made: Allocation) -> None:
    """Raise PoolExhaustedError if an allocation needs ids that do not exist here."""
    if not absent(state):
        return
    held = (made.reserved_range,) if made.reserved_range else ()
    # A uid that passes through may be there where the gid of that number is not.
    wanted = {kind: IdSet((*held, *made.mapping[kind].host_ranges())) for kind in KINDS}
    ids = IdSet.union(wanted.values())
    if lacking := IdSet.union(
        wanted[kind] - exists for kind, exists in zip(KINDS, state.exists, strict=True)
    ):
        raise PoolExhaustedError(
            f"no room for '{made.name}': it needs {shown(lacking)}, but {fact(state)}; "
            "nothing was allocated",
            hint=remedy(state, ids),
        )


def no_room(state: HostState, bases: list[int], need: Need) -> PoolExhaustedError:
    """The error if only the container's map lacks the ranges that begin at these ``bases``."""
    ranges = IdSet(IdRange(base, need.count) for base in bases)
    return PoolExhaustedError(
        f"no room for {len(bases)} range{'s' * (len(bases) != 1)} of {need.count} ids: "
        f"{fact(state)}; nothing was allocated",
        hint=remedy(state, ranges),
    )
