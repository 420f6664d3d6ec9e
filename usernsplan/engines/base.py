"""What every engine's file has to answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from usernsplan.model import Allocation, HostState


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an engine can make a mapping, and if not, why."""

    can: bool
    why: str = ""


class Engine(Protocol):
    """One container engine."""

    def verdict(self, allocation: Allocation) -> Verdict:
        """Tell whether the engine can express this allocation."""

    def render(self, allocation: Allocation, state: HostState) -> str:
        """The text that it reads, without a final newline; only asked for where the verdict is that it can."""
