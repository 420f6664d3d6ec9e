"""Colours of a terminal: something to see there, and nothing anywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Paint:
    """Paints text where ``on``; else it stays as it is."""

    on: bool = False
    # ECMA-48, "Select Graphic Rendition".
    _CODES: ClassVar[dict[str, int]] = {
        "bold": 1,
        "dim": 2,
        "red": 31,
        "green": 32,
        "yellow": 33,
        "blue": 34,
        "magenta": 35,
        "cyan": 36,
    }

    def __call__(self, text: str, colour: str) -> str:
        """The text in a colour, by its name."""
        return f"\x1b[{self._CODES[colour]}m{text}\x1b[0m" if self.on and text else text
