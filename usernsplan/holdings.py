"""The lines in subuid and subgid that carry an allocation. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from usernsplan.formats import subid
from usernsplan.mapping import KINDS
from usernsplan.strategies import in_subid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation


class Holding(NamedTuple):
    """An allocation's lines of one owner in one file, in the order that Docker needs."""

    kind: Kind
    owner: str
    wanted: list[bytes]

    @property
    def path(self) -> str:
        """The path of the file."""
        return subid.PATHS[self.kind]

    def noted(self) -> list[tuple[str, str]]:
        """The lines as (path, line) pairs, as the ledger stores them."""
        return [(self.path, noted_line(raw)) for raw in self.wanted]


def holdings(allocation: Allocation, *owners: str) -> Iterator[Holding]:
    """The lines that an allocation needs for these owners; by default, for all of its owners."""
    if in_subid(allocation.strategy, allocation.mapping):
        for owner in owners or (allocation.owner, *allocation.extra_owners):
            for kind in KINDS:
                ranges = allocation.mapping[kind].host_ranges()
                yield Holding(kind, owner, [subid.line(owner, ids) for ids in ranges])


def noted_line(raw: bytes) -> str:
    """A line as the ledger stores it: without its line end."""
    return raw.decode().rstrip("\n")
