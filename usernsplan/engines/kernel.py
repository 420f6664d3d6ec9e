"""The kernel itself: the lines of /proc/PID/uid_map and gid_map, container host count, user_namespaces(7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from usernsplan.engines.base import EXACTLY, Rendered, Verdict
from usernsplan.mapping import KINDS

if TYPE_CHECKING:
    from usernsplan.engines.base import RenderContext
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation


@dataclass(frozen=True, slots=True)
class MapFile:
    """One of the two files; a map that the kernel would refuse cannot have been made."""

    reads_host: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset()
    idmap: ClassVar[Literal["no"]] = "no"
    kind: Kind

    def verdict(self, allocation: Allocation) -> Verdict:
        """Always: an IdMap keeps the kernel's rules."""
        del allocation
        return EXACTLY

    def render(self, allocation: Allocation, asked: RenderContext) -> Rendered:
        """One extent a line, to be written in one write(2)."""
        del asked
        return Rendered(allocation.mapping[self.kind].text().removesuffix("\n"))


ENGINES = {f"{kind}_map": MapFile(kind) for kind in KINDS}
