"""The figures of a pool as a person reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.report import scale
from usernsplan.report.text import table

if TYPE_CHECKING:
    from usernsplan.space import Space


def text(space: Space) -> str:
    """What is used and free, how many more there is room for, and when useradd runs out."""
    rows = scale.figures(space.capacity) if space.capacity else []
    return table((), [*rows, ("useradd", scale.useradd_words(space.useradd))])
