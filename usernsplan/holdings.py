"""What carries an allocation on a host: lines in subuid and subgid, and records that publish it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.formats import subid
from usernsplan.formats.limits import INCUS_LEAST
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.mapping import KINDS
from usernsplan.model import POOL_OWNERS, Record
from usernsplan.strategies import SLOT, Shared, in_subid
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.mapping import Kind, Mapping
    from usernsplan.model import Allocation, HostState

# The size of the pieces of a range for Allocation.split_owners. Incus takes every line of root with
# INCUS_LEAST ids or more for its own instances; newuidmap joins adjacent lines.
_PIECE = INCUS_LEAST // 2


class Holding(NamedTuple):
    """An allocation's lines of one owner in the file of this path, in the order that Docker needs."""

    kind: Kind
    owner: str
    wanted: list[bytes]
    path: str

    def noted(self) -> list[tuple[str, str]]:
        """The lines as (path, line) pairs, as the ledger stores them."""
        return [(self.path, noted_line(raw)) for raw in self.wanted]


def has_lines(allocation: Allocation) -> bool:
    """Tell whether lines of subuid and subgid grant an allocation; if not, only the ledger has it."""
    return allocation.in_files and in_subid(allocation.strategy, allocation.mapping)


def holdings(allocation: Allocation, *owners: str) -> Iterator[Holding]:
    """The lines that an allocation needs for these owners; by default, for all of its owners."""
    if has_lines(allocation):
        for owner in owners or (allocation.owner, *allocation.extra_owners):
            uids = _lines(allocation, "uid", owner)
            # Both maps are almost always the same.
            is_same = allocation.mapping.gids is allocation.mapping.uids
            yield Holding("uid", owner, uids, SUBUID)
            gids = uids if is_same else _lines(allocation, "gid", owner)
            yield Holding("gid", owner, gids, SUBGID)


def _lines(allocation: Allocation, kind: Kind, owner: str) -> list[bytes]:
    return [subid.line(owner, ids) for ids in granted(allocation, kind, owner)]


def own_ids(allocation: Allocation, kind: Kind) -> IdSet:
    """The host ids that an allocation has for itself: neither the host's nor another container's.

    They are its reserved range, and what its map has besides; ids that pass through are the host's,
    and so are those of a shared map.
    """
    held = IdSet((allocation.reserved_range,) if allocation.reserved_range else ())
    if allocation.strategy == Shared.name:
        return held
    passed = IdSet(p.extent.host_range for p in allocation.passes if p.kind == kind)
    return held | (IdSet(allocation.mapping[kind].host_ranges()) - passed)


def all_own_ids(allocation: Allocation) -> IdSet:
    """The same of both kinds: an id is here if it is its own as a uid or as a gid."""
    return IdSet.union(own_ids(allocation, kind) for kind in KINDS)


def granted(allocation: Allocation, kind: Kind, owner: str) -> list[IdRange]:
    """The ranges of an owner's lines: those of the map, in pieces for one of ``split_owners``."""
    ranges = list(allocation.mapping[kind].host_ranges())
    if owner not in allocation.split_owners:
        return ranges
    return [piece for ids in ranges for piece in pieces(ids)]


def pieces(ids: IdRange) -> list[IdRange]:
    """A range in pieces that Incus does not take for itself."""
    if ids.count < INCUS_LEAST:
        return [ids]
    starts = range(ids.start, ids.stop, _PIECE)
    return [IdRange(start, min(_PIECE, ids.stop - start)) for start in starts]


def sees_records(state: HostState) -> bool:
    """Tell whether programs that look up accounts see systemd's records."""
    return "systemd" in state.passwd_source.services


def is_seen_as_account(state: HostState, owner: str) -> bool:
    """Tell whether programs that look up an account find the one that publishes the owner's range.

    dockerd asks getent(1) for the user and the group of this name.
    """
    seen = {"passwd", "userdb"} if sees_records(state) else {"passwd"}
    return any(a.owner == owner and a.published in seen for a in state.ledger.allocations)


def noted_line(raw: bytes) -> str:
    """A line as the ledger stores it: without its line end."""
    return raw.decode().rstrip("\n")


def records(allocation: Allocation) -> Iterator[Record]:
    """The records that make the range of an allocation visible to programs that take ids.

    systemd looks only at the first of 65536 ids, so there is one record for each of these. None has
    the name of a pool's owner: whether that is an account is for the engine and its user to say.
    """
    held = allocation.reserved_range
    return records_of_range(allocation.owner, held.start, held.count) if held else iter(())


def records_of_range(owner: str, start: int, count: int) -> Iterator[Record]:
    """The records of a range of an owner: see ``records``."""
    yield Record(f"{owner}--0" if owner in POOL_OWNERS else owner, start)
    first = start - start % SLOT + SLOT
    # Nearly every allocation has one record, and there may be 10,000.
    if first < start + count:
        further = enumerate(range(first, start + count, SLOT), 1)
        yield from (Record(f"{owner}--{number}", base) for number, base in further)


def runs_as(allocations: Iterable[Allocation], mapping: Mapping | None) -> Allocation | None:
    """The allocation of a running container with this map; None where none fits, or several do.

    They have the same root, and all other uids of the container are of the allocation: it may map
    fewer than it has.
    """
    if mapping is None or not mapping.uids:
        return None
    root, theirs = mapping.uids.to_host(0), mapping.uids.host_ranges()
    found = [
        a
        for a in allocations
        if a.mapping.uids.to_host(0) == root
        and all(map(IdSet(a.mapping.uids.host_ranges()).holds, theirs))
    ]
    return found[0] if len(found) == 1 else None
