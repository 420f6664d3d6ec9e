"""The number of users to whom useradd can still give subordinate ids. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError
from usernsplan.formats import login_defs, readers
from usernsplan.formats.subid import Grant
from usernsplan.ids import ID_LIMIT, IdRange
from usernsplan.layout import LOGIN_DEFS

if TYPE_CHECKING:
    from usernsplan.formats.login_defs import Area
    from usernsplan.formats.subid import Line, SubidFile
    from usernsplan.model import HostState

_ULONG = 2**64


@dataclass(frozen=True, slots=True)
class Useradd:
    """What useradd can still give: ``counts`` uids and gids to each of ``users`` more users.

    ``areas`` are SUB_UID_MIN-SUB_UID_MAX and SUB_GID_MIN-SUB_GID_MAX. ``uids`` and ``gids`` are the
    numbers of ranges that fit in each; None if useradd gives none of that kind (its file is missing,
    or its count is 0).
    """

    counts: tuple[int, int]
    areas: tuple[IdRange | None, IdRange | None]
    uids: int | None
    gids: int | None

    @property
    def users(self) -> int | None:
        """The number of users until one of the areas is full; None if useradd gives no ids."""
        return min((n for n in (self.uids, self.gids) if n is not None), default=None)


def useradd(state: HostState) -> Useradd | None:
    """What useradd can still give; None if login.defs cannot be read.

    The rule is that of shadow 4.13, lib/subordinateio.c: ``find_free_range`` sorts the lines by
    their start and takes the lowest hole of SUB_UID_COUNT ids in SUB_UID_MIN..SUB_UID_MAX. An empty
    line divides a hole. The owner of a line does not matter. useradd gives no ids of a kind whose
    file is missing.
    """
    try:
        uids, gids = login_defs.parse(state.login_defs, state.layout.path(LOGIN_DEFS)).areas
    except InvalidFileError:
        return None
    return Useradd(
        (uids.size, gids.size),
        (_ids(uids), _ids(gids)),
        _fits(state.subuid, uids),
        _fits(state.subgid, gids),
    )


def _ids(area: Area) -> IdRange | None:
    last = min(area.last, ID_LIMIT - 1)
    return IdRange(area.first, last - area.first + 1) if area.first <= last else None


def _fits(file: SubidFile, area: Area) -> int | None:
    _, low, last, count = area
    if not file.exists or count == 0:
        return None
    # find_new_sub_uids refuses these before it searches.
    if low > last or count >= last or low + count - 1 > last:
        return 0
    fits = 0
    for start, stop in [
        *sorted(span for line in file.lines if (span := _span(line))),
        (last + 1, last + 1),
    ]:
        fits += max(min(start, last + 1) - low, 0) // count
        low = max(low, stop)
    return fits


def _span(line: Line) -> tuple[int, int] | None:
    """The range that shadow takes a line for; None if it skips the line. Its unsigned long wraps."""
    if isinstance(line, Grant):
        return line.start, line.stop
    taken = readers.as_shadow(line.raw)
    return taken and (taken[1], (taken[1] + taken[2]) % _ULONG)
