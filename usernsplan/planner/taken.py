"""Which ids are taken on a host, and by what; and from which pool ranges come."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from usernsplan.errors import InvalidFileError, InvalidValueError, PoolExhaustedError
from usernsplan.formats import login_defs
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.layout import GROUP, LEDGER, LOGIN_DEFS, PASSWD, SUBGID, SUBUID
from usernsplan.planner.dockerroot import dockerroot_of
from usernsplan.reserved import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.formats.subid import SubidFile
    from usernsplan.model import HostState
    from usernsplan.strategies import Need, Strategy

# systemd hands out container ranges from here on, and below it useradd finds its own from 100000 up: whoever starts
# here stays out of useradd's way for its first six users and inside both conventions.
POOL_START = 524288


class Claim(NamedTuple):
    """Ids that somebody has, and who, in words that name the place."""

    whose: str
    ids: IdSet


def claims(
    state: HostState, subuid: SubidFile, subgid: SubidFile, *, running: bool = True
) -> tuple[Claim, ...]:
    """Everything that is taken on this host. uids and gids alike: a range of ours is the same for both.

    The two files are given apart from the state so that lines which are already ours can be left out, and so can what
    containers that are ``running`` have.
    """
    ledger = state.layout.path(LEDGER)
    forget = state.layout.inline("release --forget NAME")
    held = IdSet(a.reserved_range for a in state.ledger.allocations if a.reserved_range)
    roots = IdSet(IdRange(root, 1) for a in state.ledger.allocations if (root := dockerroot_of(a)))
    quarantined = IdSet(q.reserved_range for q in state.ledger.quarantined)
    return (
        *claims_of_others(state, subuid, subgid),
        *(
            Claim(f"kept for {entry.whose} ({entry.source})", IdSet((entry.ids,)))
            for entry in TABLE
        ),
        *([Claim("mapped by a running user namespace", state.namespaces)] if running else []),
        Claim(f"allocated in {ledger}", held),
        Claim(f"container root (DOCKERROOT) of an allocation in {ledger}", roots),
        *(
            Claim(f"reserved in {ledger}: {r.why}", IdSet((r.ids,)))
            for r in state.ledger.reservations
        ),
        Claim(f"released, and files may still carry it ({forget} frees it)", quarantined),
    )


def claims_of_others(state: HostState, subuid: SubidFile, subgid: SubidFile) -> tuple[Claim, ...]:
    """What the files of the host give to somebody."""
    path = state.layout.path
    return (
        Claim(f"granted by a line of {path(SUBUID)}", subuid.claimed()),
        Claim(f"granted by a line of {path(SUBGID)}", subgid.claimed()),
        Claim(f"an account of {path(PASSWD)} or a group of {path(GROUP)}", state.accounts.ids()),
    )


def free(pool: IdRange, taken: tuple[Claim, ...]) -> IdSet:
    """The ids of the pool that nobody has."""
    return IdSet.union(claim.ids for claim in taken).gaps(pool)


def holders(ids: IdRange, taken: tuple[Claim, ...]) -> Iterator[tuple[str, IdRange]]:
    """Who has some of these ids, and which."""
    for claim in taken:
        for overlap in claim.ids.within(ids):
            yield claim.whose, overlap


def pool_of(state: HostState, strategy: Strategy, wanted: IdRange | None) -> IdRange:
    """Where ranges are taken from: --pool, else what the strategy says, else the host's own pool."""
    return wanted or strategy.pool or default_pool(state.login_defs, state.layout.path(LOGIN_DEFS))


def default_pool(raw: bytes, place: str) -> IdRange:
    """A host's own pool: from 524288 up to SUB_UID_MAX in its login.defs, which lies at ``place``.

    The base is the same for uids and gids, so the smaller of SUB_UID_MAX and SUB_GID_MAX counts. Raises
    InvalidFileError where login.defs contradicts itself, and InvalidValueError where it leaves no pool.
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


def take(pool: IdRange, taken: tuple[Claim, ...], need: Need, wanted: int) -> list[int]:
    """The bases of ``wanted`` new ranges, first fit; all of them or PoolExhaustedError."""
    room = free(pool, taken)
    found = [fit for fit, _ in zip(room.fits(need.count, need.align), range(wanted), strict=False)]
    if len(found) < wanted:
        left = room - IdSet(found)
        aligned = f" at a multiple of {need.align}" if need.align > 1 else ""
        raise PoolExhaustedError(
            f"no room for {wanted - len(found)} of {wanted} ranges of {need.count} ids{aligned} in the pool {pool}; "
            f"the largest gap left holds {left.largest()} ids; nothing was allocated"
        )
    return [fit.start for fit in found]
