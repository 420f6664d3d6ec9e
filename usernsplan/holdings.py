"""The lines in subuid and subgid that carry an allocation. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from usernsplan.formats import subid
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.strategies import in_subid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.model import Allocation


class Holding(NamedTuple):
    """What one owner is to have in one file: the lines that carry an allocation, in the order that Docker needs."""

    path: str
    owner: str
    wanted: list[bytes]

    def noted(self) -> list[tuple[str, str]]:
        """The lines as (path, line) pairs, as a ledger notes them."""
        return [(self.path, noted_line(raw)) for raw in self.wanted]


def holdings(allocation: Allocation, *owners: str) -> Iterator[Holding]:
    """What each of these owners is to have for an allocation; not said: its owner, and the further ones."""
    if in_subid(allocation.strategy, allocation.mapping):
        for owner in owners or (allocation.owner, *allocation.extra_owners):
            for path, ids in ((SUBUID, allocation.mapping.uids), (SUBGID, allocation.mapping.gids)):
                yield Holding(path, owner, [subid.line(owner, host) for host in ids.host_ranges()])


def noted_line(raw: bytes) -> str:
    """A line as a ledger notes it: without its end."""
    return raw.decode().rstrip("\n")
