"""The kernel: lines (container, host, count) of uid_map and gid_map. user_namespaces(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines.base import EXACTLY, Engine, Rendered, Verdict
from usernsplan.mapping import KINDS
from usernsplan.values import dataclass

if TYPE_CHECKING:
    from usernsplan.engines.base import RenderContext
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation


@dataclass(frozen=True, slots=True)
class MapFile(Engine):
    """One of the two files. An IdMap that the kernel would refuse cannot exist."""

    kind: Kind

    def verdict(self, allocation: Allocation) -> Verdict:
        """Any map: an IdMap obeys the kernel's rules."""
        del allocation
        return EXACTLY

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """One extent in each line. The kernel wants all of them in one write(2)."""
        del context
        return Rendered(allocation.mapping[self.kind].text().removesuffix("\n"))


ENGINES = {f"{kind}_map": MapFile(kind) for kind in KINDS}
