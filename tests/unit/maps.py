"""Maps as triples, and whether we make a map of them."""

from __future__ import annotations

from usernsplan.errors import InvalidValueError
from usernsplan.mapping import IdMap

Triple = tuple[int, int, int]


def can_be_made(extents: list[Triple]) -> bool:
    try:
        return bool(IdMap.of(*extents))
    except InvalidValueError:
        return False


def exactly(size: int) -> list[tuple[int, int, int]]:
    """340 extents of 12 bytes each are 4080; each host id of five digits adds one."""
    return [(1000 + i, (10000 if i < size - 4080 else 1000) + i, 1) for i in range(340)]
