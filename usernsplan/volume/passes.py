"""One pass over a volume: what each inode becomes in it, by the rule of the run. Pure.

A map that does not overlap itself needs one pass. A map that does needs two: every old id
becomes a staging id, which nobody has, and then its new id. So a kill at any time leaves no id
that could be both old and new.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from usernsplan.values import dataclass, replace
from usernsplan.volume import power

if TYPE_CHECKING:
    from usernsplan.mapping import IdMap
    from usernsplan.volume.targets import Moves, Owner, OwnershipRule


# How many owners to keep the answers of a pass for; most volumes have few.
MOST_OWNERS = 4096


class Leg(IntEnum):
    """The direction and stage of a pass; the journal keeps the number as "stage"."""

    BACK = -1
    STRAIGHT = 0
    TO_STAGING = 1
    FROM_STAGING = 2


@dataclass(frozen=True, slots=True)
class Form:
    """The attributes of an inode that a run may change.

    ``mode`` is st_mode, with the inode's type. ACLs and capability are raw, None for none.
    """

    owner: Owner
    mode: int
    acl: bytes | None = None
    default_acl: bytes | None = None
    capability: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over the volumes of a run.

    ``staging`` maps the old uids and the old gids to their staging ids, if the map overlaps
    itself. Only the pass that reaches the new owners changes ACLs and capabilities. The journal
    has their old bytes, so one look tells whether they were changed.
    """

    rule: OwnershipRule
    leg: Leg = Leg.STRAIGHT
    staging: tuple[IdMap, IdMap] | None = None

    def owners(self, first: Owner) -> tuple[tuple[Owner, ...], Owner]:
        """The owners to replace, and the new one, for an inode whose first owner was ``first``."""
        last = self.rule.owner_of(first) or first
        between = (self._staged(0, first[0], last[0]), self._staged(1, first[1], last[1]))

        match self.leg:
            case Leg.STRAIGHT:
                return (first,), last
            case Leg.TO_STAGING:
                return (first,), between
            case Leg.FROM_STAGING:
                return (between,), last
        return (last, between), first

    def forms(self, first: Form) -> tuple[Form, Form]:
        """The form to replace, and the new one. The owner to replace may be any of owners().

        The new form lacks the power that this run's rule does not let it keep, see power.lawful.
        """
        olds, new = self.owners(first.owner)
        if self.leg == Leg.TO_STAGING:
            return replace(first, owner=olds[0]), replace(first, owner=new)

        last = power.lawful(first, self.whole(first), self.rule.same, own=self.rule.is_own)
        return (last, first) if self.leg == Leg.BACK else (replace(first, owner=olds[0]), last)

    def whole(self, first: Form) -> Form:
        """The form after the run if the inode kept all its power."""
        return Form(
            self.rule.owner_of(first.owner) or first.owner,
            first.mode,
            first.acl and self.rule.acl(first.acl).raw,
            first.default_acl and self.rule.acl(first.default_acl).raw,
            first.capability and (self.rule.capability(first.capability) or first.capability),
        )

    def first(self, now: Owner) -> Owner | None:
        """The owner before the run of an inode found during this pass; None if unknown."""
        if self.leg != Leg.FROM_STAGING:
            return now
        uid, gid = self._first(0, now[0]), self._first(1, now[1])
        return None if uid is None or gid is None else (uid, gid)

    def wanted(self, now: Owner) -> Owner | None:
        """The owner that this pass gives to what it finds: the same if right, None if unmapped."""
        if self.leg in {Leg.STRAIGHT, Leg.BACK}:
            return self.rule.owner_of(now)

        staged = [self._unstaged(kind, now[kind]) is not None for kind in (0, 1)]
        if self.leg == Leg.FROM_STAGING:
            if not any(staged) and all(self._moves(kind).settled(now[kind]) for kind in (0, 1)):
                return now
            first = self.first(now)
            return None if first is None else self.rule.owner_of(first)

        if any(staged):
            return now
        return None if self.rule.owner_of(now) is None else self.owners(now)[1]

    def _moves(self, kind: int) -> Moves:
        return (self.rule.uids, self.rule.gids)[kind]

    def _staged(self, kind: int, first: int, last: int) -> int:
        """The id between the two passes."""
        between = self.staging[kind].to_host(first) if self.staging and first != last else None
        return last if between is None else between

    def _unstaged(self, kind: int, now: int) -> int | None:
        """The old id of a staging id; None for any other id."""
        return self.staging[kind].to_container(now) if self.staging else None

    def _first(self, kind: int, now: int) -> int | None:
        first = self._unstaged(kind, now)
        return now if first is None and self._moves(kind)(now) == now else first
