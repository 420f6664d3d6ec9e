"""The number of users to whom useradd can still give subordinate ids. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.claims import computed
from usernsplan.errors import InvalidFileError
from usernsplan.formats import login_defs, readers
from usernsplan.formats.subid import Grant
from usernsplan.ids import ID_LIMIT, IdRange
from usernsplan.layout import LOGIN_DEFS
from usernsplan.mapping import KINDS
from usernsplan.values import dataclass

if TYPE_CHECKING:
    from usernsplan.claims.computed import Computed
    from usernsplan.formats.accounts import Accounts
    from usernsplan.formats.login_defs import Area, LoginDefs
    from usernsplan.formats.subid import Odd, SubidFile
    from usernsplan.model import HostState

_ULONG = 2**64


@dataclass(frozen=True, slots=True)
class Useradd:
    """What useradd can still give: ``counts`` uids and gids to each of ``users`` more users.

    ``areas`` are SUB_UID_MIN-SUB_UID_MAX and SUB_GID_MIN-SUB_GID_MAX, or, with a line number in
    ``computed``, the ids that useradd computes for the uids up to UID_MAX. ``uids`` and ``gids`` are
    the numbers of ranges that fit in each; None if useradd gives none of that kind (its file is
    missing, or its count is 0).
    """

    counts: tuple[int, int]
    areas: tuple[IdRange | None, IdRange | None]
    uids: int | None
    gids: int | None
    computed: tuple[int, int] = (0, 0)

    @property
    def users(self) -> int | None:
        """The number of users until one of the areas is full; None if useradd gives no ids."""
        return min((n for n in (self.uids, self.gids) if n is not None), default=None)


def useradd(state: HostState) -> Useradd | None:
    """What useradd can still give; None if login.defs cannot be read.

    The rule is that of shadow 4.13, lib/subordinateio.c: ``find_free_range`` sorts the lines by
    their start and takes the lowest hole of SUB_UID_COUNT ids in SUB_UID_MIN..SUB_UID_MAX. An empty
    line divides a hole. The owner of a line does not matter. useradd gives no ids of a kind whose
    file is missing. A useradd that computes ranges (claims.computed) does not look at lines.
    """
    try:
        defs = login_defs.parse(state.login_defs, state.layout.path(LOGIN_DEFS))
    except InvalidFileError:
        return None
    by_uid = {one.kind: one for one in computed.of_login_defs(defs)}
    uids, gids = (
        (area, state.subid(kind), by_uid.get(kind))
        for kind, area in zip(KINDS, defs.areas, strict=True)
    )
    return Useradd(
        (uids[0].size, gids[0].size),
        (_ids(uids[0], uids[2]), _ids(gids[0], gids[2])),
        _left(*uids, state.accounts, defs),
        _left(*gids, state.accounts, defs),
        defs.computed,
    )


def _ids(area: Area, one: Computed | None) -> IdRange | None:
    last = min(one.stop - 1 if one else area.last, ID_LIMIT - 1)
    return IdRange(area.first, last - area.first + 1) if area.first <= last else None


def _left(
    area: Area, file: SubidFile, one: Computed | None, accounts: Accounts, defs: LoginDefs
) -> int | None:
    if not file.exists or area.size == 0:
        return None
    if area.computed:
        return _next_uids(one, accounts, defs) if one else 0
    return _fits(file, area)


def _next_uids(one: Computed, accounts: Accounts, defs: LoginDefs) -> int:
    """How many accounts useradd makes until it takes a uid for which it can compute no range.

    It takes the uid after the highest one; once UID_MAX is in use, the lowest free one. If that has
    no range, useradd fails, and takes the same uid again the next time.
    """
    first, last, end = defs.uid_min, defs.uid_max, defs.uid_min + one.slots
    used = {user.uid for user in accounts.users if first <= user.uid <= last}
    if one.is_enough:
        return last - first + 1 - len(used)
    if last in used:
        return one.slots - sum(uid < end for uid in used)
    return max(end - max(used, default=first - 1) - 1, 0)


def _fits(file: SubidFile, area: Area) -> int:
    low, last, count = area.first, area.last, area.size
    # find_new_sub_uids refuses these before it searches.
    if low > last or count >= last or low + count - 1 > last:
        return 0
    fits = 0
    spans = [
        span
        for line in file.lines
        # Without a call for nearly every line.
        if (span := line[3:] if isinstance(line, Grant) else _span(line))
    ]
    for start, stop in sorted(spans):
        if start > last:
            break
        fits += max(start - low, 0) // count
        low = max(low, stop)
    return fits + max(last + 1 - low, 0) // count


def _span(line: Odd) -> tuple[int, int] | None:
    """The range that shadow takes a line for; None if it skips the line. Its unsigned long wraps."""
    taken = readers.as_shadow(line.raw)
    return taken and (taken[1], (taken[1] + taken[2]) % _ULONG)
