"""What every engine's file has to answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from usernsplan.model import Allocation, HostState


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an engine can make a mapping, and if not, why."""

    can: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What an engine reads: ``text`` to paste, without a final newline, and ``notes`` on what it needs besides."""

    text: str
    notes: tuple[str, ...] = ()


class Engine(Protocol):
    """One container engine.

    ``reads_host`` tells whether its text depends on the host, too; where it does not, no host is read for it.
    """

    reads_host: ClassVar[bool]

    def verdict(self, allocation: Allocation) -> Verdict:
        """Tell whether the engine can express this allocation."""

    def render(self, allocation: Allocation, state: HostState | None) -> Rendered:
        """What it reads; asked for only where it can. ``state`` is given where it reads the host."""
