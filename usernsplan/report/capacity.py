"""The figures of a pool."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from usernsplan.escape import shown_path
from usernsplan.report import map_json, scale
from usernsplan.report.result import Result
from usernsplan.report.text import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.ids import IdSet
    from usernsplan.space import Part, Space

# So many of the others are shown, and so many ranges or places of each; --json has all.
_SHOWN, _FEW = 8, 3


def result(space: Space) -> Result:
    """The figures as text and as a document."""
    return Result(partial(text, space), partial(map_json.capacity, space), notes=space.unseen)


def text(space: Space) -> str:
    """The used and free ids, the room for more ranges, what useradd has left, and who else has ids."""
    rows = scale.figures(space.capacity) if space.capacity else []
    others = [_described(part) for part in space.parts[:_SHOWN]]
    if len(space.parts) > _SHOWN:
        others.append(f"and {len(space.parts) - _SHOWN:,} more (--json has them)")
    named = zip(("others", *[""] * len(others)), others, strict=False)
    return table((), [*rows, ("useradd", scale.useradd_words(space.useradd)), *named])


def _described(part: Part) -> str:
    """Who has ids of the pool, which, and the place that says so."""
    places = ", ".join(_few(map(shown_path, part.places), len(part.places)))
    ids = ", ".join(_few(map(str, part.ids), _count(part.ids)))
    return f"{shown_path(part.holder)}: {ids}" + (f" ({places})" if places else "")


def _count(ids: IdSet) -> int:
    return sum(1 for _ in ids)


def _few(words: Iterator[str], count: int) -> Iterator[str]:
    yield from islice(words, _FEW)
    if count > _FEW:
        yield f"and {count - _FEW:,} more"
