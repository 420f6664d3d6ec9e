"""Colours for a terminal, and none for anything else."""

from __future__ import annotations

from typing import ClassVar

from usernsplan.values import dataclass


@dataclass(frozen=True, slots=True)
class Paint:
    """Paints text if ``on``, else leaves it as it is."""

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
        """The text in the colour of this name."""
        return f"\x1b[{self._CODES[colour]}m{text}\x1b[0m" if self.on and text else text
