"""The ranges that useradd computes from uids, where login.defs says so. Pure.

With SUB_UID_DETERMINISTIC, shadow from 4.20 on gives a user the ids from SUB_UID_MIN +
(uid - UID_MIN) * SUB_UID_COUNT (lib/find_new_sub_uids.c), and with SUB_GID_DETERMINISTIC gids,
also by the uid. It reads no line first, so every such range belongs to a uid, whether an account
has it yet or not. New ranges of ours therefore come from behind the whole area. What belongs to an
account that exists is refused to everybody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.formats import login_defs
from usernsplan.formats.subid import Grant
from usernsplan.ids import OVERFLOW_ID, IdSet
from usernsplan.layout import LOGIN_DEFS
from usernsplan.mapping import KINDS
from usernsplan.model import Unlisted
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.formats.accounts import Accounts
    from usernsplan.formats.login_defs import LoginDefs
    from usernsplan.formats.subid import SubidFile
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation

PROGRAM = "useradd"


class Computed(NamedTuple):
    """The ranges of one kind: ``slots`` of ``size`` ids each from ``first`` on, one for each uid.

    The first belongs to ``uid_min``. ``users`` are how many of them the uids up to UID_MAX have, and
    ``is_enough`` says that each of these uids has one. ``wraps``: more uids have the same ranges
    again. ``number`` is the line in login.defs.
    """

    kind: Kind
    first: int
    size: int
    slots: int
    users: int
    uid_min: int
    wraps: bool
    number: int
    is_enough: bool

    @property
    def stop(self) -> int:
        """The end of the area: the first id behind the range of UID_MAX."""
        return self.first + self.users * self.size

    def start_of(self, uid: int) -> int | None:
        """The first id that a user gets; None if useradd and usermod refuse the uid."""
        slot = uid - self.uid_min
        if slot < 0 or (slot >= self.slots and not self.wraps):
            return None
        return self.first + slot % self.slots * self.size

    def uids(self, start: int, stop: int) -> range:
        """The uids up to UID_MAX whose ranges have some of these ids; without those that wrap."""
        first, last = (start - self.first) // self.size, (stop - 1 - self.first) // self.size
        return range(self.uid_min + max(first, 0), self.uid_min + min(last + 1, self.users))


def of_login_defs(defs: LoginDefs) -> tuple[Computed, ...]:
    """What useradd computes, of each kind; without a kind for which no range fits."""
    found = []
    for kind, area in zip(KINDS, defs.areas, strict=True):
        slots = (area.last - area.first + 1) // area.size if area.computed and area.size else 0
        people = defs.uid_max - defs.uid_min + 1
        users = min(slots, people)
        if users > 0:
            ids = (area.first, area.size, slots, users)
            is_enough = area.wraps or people <= slots
            found.append(Computed(kind, *ids, defs.uid_min, area.wraps, area.computed, is_enough))
    return tuple(found)


def read(raw: bytes) -> tuple[Computed, ...]:
    """What useradd computes by the bytes of a login.defs, even if some of its numbers are wrong.

    The default pool, and ``check``, report these.
    """
    return of_login_defs(login_defs.as_useradd(raw))


def of_accounts(
    one: Computed, accounts: Accounts, lines: SubidFile, allocations: Iterable[Allocation]
) -> Iterator[Unlisted]:
    """What the accounts will have by no line: their ranges, without what is theirs already."""
    names = {str(user.uid): user.name for user in reversed(accounts.users)}
    own: dict[str, list[tuple[int, int]]] = {}
    for line in lines.lines:
        if isinstance(line, Grant):
            own.setdefault(names.get(line.owner, line.owner), []).append((line.start, line.stop))
    for a in allocations:
        if a.reserved_range:
            own.setdefault(a.owner, []).append((a.reserved_range.start, a.reserved_range.stop))

    for user in {user.uid: user for user in reversed(accounts.users)}.values():
        start = None if user.uid == OVERFLOW_ID else one.start_of(user.uid)
        if start is None:
            continue
        what = f"the range of {user.name} by its uid {user.uid}"
        ids = IdSet.clipped([(start, start + one.size)])
        for part in ids - IdSet.clipped(own.get(user.name, ())):
            yield Unlisted(
                PROGRAM, what, one.kind, part.start, part.stop, path=LOGIN_DEFS, number=one.number
            )


def area(one: Computed) -> Unlisted:
    """The whole area, for which any uid up to UID_MAX may come."""
    last = one.uid_min + one.users - 1
    what = f"computes ranges of the uids {one.uid_min}-{last}"
    return Unlisted(
        PROGRAM, what, one.kind, one.first, one.stop, path=LOGIN_DEFS, number=one.number
    )
