"""The figures of a pool."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan.report import map_json, scale
from usernsplan.report.result import Result
from usernsplan.report.text import table

if TYPE_CHECKING:
    from usernsplan.space import Space


def result(space: Space) -> Result:
    """The figures as text and as a document."""
    return Result(partial(text, space), partial(map_json.capacity, space))


def text(space: Space) -> str:
    """The used and free ids, the room for more ranges, and what useradd has left."""
    rows = scale.figures(space.capacity) if space.capacity else []
    return table((), [*rows, ("useradd", scale.useradd_words(space.useradd))])
