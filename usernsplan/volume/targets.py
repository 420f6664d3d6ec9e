"""Which owner each inode gets, and which ids its ACL and capability: one pure rule for each mode. No I/O.

The rule for one id: what is in the source moves; what is in the target already stays; anything else is unmapped. So a
run can be repeated, except where source and target overlap: then the source wins, the run goes through staging ids that
nobody has, and the journal remembers how far it is. Own gives one owner and leaves what is in the target.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.mapping import Extent, IdMap, Mapping
from usernsplan.model import MODES, Mode
from usernsplan.volume import metadata, power

if TYPE_CHECKING:
    from collections.abc import Iterable

    Owner = tuple[int, int]

# Above what any pool gives out, so that no container can be running with these ids.
_STAGING = IdRange(3_000_000_000, ID_LIMIT - 3_000_000_000)


@dataclass(frozen=True, slots=True)
class Moves:
    """Where ids of one kind go: ``source`` maps old ids (as its container ids) to new ones (as its host ids).

    ``source_first``: an id on both sides is an old one. ``keep``: an id on neither side stays, instead of being
    unmapped. ``others``: new ids that others may have too. They stay like every new id, but in a volume that was not
    moved yet they are none of the container's: the first look counts them among those that have no place.
    """

    source: IdMap
    source_first: bool = False
    keep: bool = False
    others: IdSet = field(default_factory=IdSet)

    def __call__(self, old: int) -> int | None:
        """The new id, or None where the map lacks this one."""
        moved = self.source.to_host(old)
        if self.source.to_container(old) is not None and (moved is None or not self.source_first):
            return old
        return old if moved is None and self.keep else moved

    def lacks(self, old: int) -> bool:
        """Tell whether an id is on neither side, or on the new one only because it is another's."""
        return self.source.to_host(old) is None and (
            self.source.to_container(old) is None or old in self.others
        )

    def settled(self, now: int) -> bool:
        """Tell whether an id can be one that the run has left: a new one, or one that it keeps."""
        return self.source.to_container(now) is not None or (self.keep and self.lacks(now))

    def overlaps(self) -> bool:
        """Tell whether some id is both an old one and another's new one."""
        return any(
            max(old.container, new.host) < min(old.container + old.count, new.host + new.count)
            for old in self.source
            if old.container != old.host
            for new in self.source
        )

    def target(self) -> IdSet:
        """Every new id."""
        return IdSet(self.source.host_ranges())

    def all_ids(self) -> IdSet:
        """Every id on either side."""
        return self.target() | IdSet(e.container_range for e in self.source)


@dataclass(frozen=True, slots=True)
class OwnershipRule:
    """The whole rule. ``mode`` says whether everything gets one owner (own), which is ``owner``, or moves (shift).

    ``root`` is the new id of container root, for whom capabilities that were the host's count from now on; 0 in
    reverse; None where the map has no container root. ``same`` are the images that count as the ids that they come
    from, see power: what the host has by now, and no part of the rule itself.
    """

    uids: Moves
    gids: Moves
    root: int | None
    mode: Mode
    owner: Owner | None = None
    same: power.Images = field(default=power.NONE, compare=False)

    def __post_init__(self) -> None:
        """Raise ValueError for a mode that is unknown, or does not go with the owner."""
        if self.mode not in MODES or self.is_own != (self.owner is not None):
            raise ValueError(f"mode {self.mode!r:.40} with the owner {self.owner}")

    def same_work(self, other: OwnershipRule) -> bool:
        """Tell whether both bring the same owners to the same places.

        How an id on both sides is taken is no matter: a run of an older version took some of them otherwise, and what
        it left is finished by its own journal.
        """
        mine, theirs = (
            (
                rule.uids.source,
                rule.uids.keep,
                rule.gids.source,
                rule.gids.keep,
                rule.root,
                rule.mode,
                rule.owner,
            )
            for rule in (self, other)
        )
        return mine == theirs

    def after_it(self) -> OwnershipRule:
        """The same rule for a volume that it moved before: there every new id is the container's."""
        uids, gids = (replace(move, others=IdSet()) for move in (self.uids, self.gids))
        return replace(self, uids=uids, gids=gids)

    @property
    def is_own(self) -> bool:
        """Tell whether everything gets one owner."""
        return self.mode == "own"

    def owner_of(self, old: Owner) -> Owner | None:
        """The new owner and group, or None where the map lacks one of them."""
        if self.owner is not None:
            return self.owner
        uid, gid = self.uids(old[0]), self.gids(old[1])
        return None if uid is None or gid is None else (uid, gid)

    def acl(self, raw: bytes) -> metadata.MovedAcl:
        """An ACL's new bytes. Own changes none: its entries name others, whom somebody let in on purpose."""
        return (
            metadata.MovedAcl(raw) if self.is_own else metadata.moved_acl(raw, self.uids, self.gids)
        )

    def capability(self, raw: bytes) -> bytes | None:
        """A capability's new bytes, or None where the map lacks its root."""
        old = metadata.capability_rootid(raw)
        new = self.root if old == 0 else self.uids(old)
        if new is None:
            return raw if self.uids.keep else None
        return raw if new == old else metadata.capability_for(raw, new)

    def overlaps(self) -> bool:
        """Tell whether the run has to go through staging ids."""
        moves = () if self.is_own else (self.uids, self.gids)
        return any(move.source_first and move.overlaps() for move in moves)

    def to_json(self) -> dict[str, Any]:
        """The rule as the journal keeps it, beside its mode."""
        moves = {
            kind: {
                "source": move.source.triples(),
                "source_first": move.source_first,
                "keep": move.keep,
            }
            for kind, move in (("uids", self.uids), ("gids", self.gids))
        }
        return {**moves, "root": self.root, "owner": self.owner, "same": self.same.to_json()}

    @classmethod
    def from_json(cls, content: dict[str, Any], mode: Mode) -> OwnershipRule:
        """Read what to_json wrote. Raises TypeError, ValueError or LookupError for anything else."""
        uids, gids = (
            Moves(
                IdMap.of(*content[kind]["source"]),
                content[kind]["source_first"],
                content[kind]["keep"],
            )
            for kind in ("uids", "gids")
        )
        owner = content["owner"]
        for number in (content["root"], *(owner or ())):
            if number is not None and type(number) is not int:
                raise TypeError(f"{number!r:.40} is no id")
        for kind in ("uids", "gids"):
            if not all(isinstance(content[kind][word], bool) for word in ("source_first", "keep")):
                raise TypeError(f"{kind}: neither true nor false")
        # A run of an older version noted no images: then none counts as the id that it comes from.
        same = power.Images.from_json(content["same"]) if "same" in content else power.NONE
        return cls(uids, gids, content["root"], mode, (owner[0], owner[1]) if owner else None, same)


def shift(
    mapping: Mapping, *, reverse: bool = False, keep: bool = False, exclusive: IdSet | None = None
) -> OwnershipRule:
    """Container ids, as they lie on the host, become the container's host ids; or back.

    ``exclusive``: the host ids that nobody but the container has, where the volume was not shifted yet; None where every
    new id in it is the container's.
    """
    if reverse:
        uids, gids = (_moves(ids.invert(), keep=keep) for ids in (mapping.uids, mapping.gids))
        return OwnershipRule(uids, gids, 0, "shift")
    uids, gids = (
        _moves(ids, keep=keep, exclusive=exclusive) for ids in (mapping.uids, mapping.gids)
    )
    return OwnershipRule(uids, gids, uids(0), "shift")


def _moves(source: IdMap, *, keep: bool, exclusive: IdSet | None = None) -> Moves:
    """Where an id on both sides is an old one, and one on the new side alone is right only in what is exclusive."""
    only_new = IdSet(source.host_ranges()) - IdSet(extent.container_range for extent in source)
    others = IdSet() if exclusive is None else only_new - exclusive
    return Moves(source, source_first=True, keep=keep, others=others)


def own(mapping: Mapping, user: Owner, *, keep: bool = False) -> OwnershipRule:
    """Everything becomes the container's ``user`` (container ids). Raises InvalidValueError where the map lacks it."""
    uid, gid = mapping.uids.to_host(user[0]), mapping.gids.to_host(user[1])
    if uid is None or gid is None:
        kind, lacking = ("uid", user[0]) if uid is None else ("gid", user[1])
        raise InvalidValueError(
            f"the container has no {kind} {lacking}",
            hint="choose another --user; 'usernsplan show NAME' tells the map",
        )
    # What is right already has to stay so when it is done again: no staging, and no journal, tells old from new here.
    uids, gids = Moves(mapping.uids, keep=keep), Moves(mapping.gids, keep=keep)
    return OwnershipRule(uids, gids, mapping.uids.to_host(0), "own", (uid, gid))


def move(
    old: Mapping, new: Mapping, *, keep: bool = False, exclusive: IdSet | None = None
) -> OwnershipRule:
    """One container's host ids become another's: the same container ids. ``exclusive``: see shift."""
    uids, gids = (
        _moves(_through(former, latter), keep=keep, exclusive=exclusive)
        for former, latter in ((old.uids, new.uids), (old.gids, new.gids))
    )
    return OwnershipRule(uids, gids, new.uids.to_host(0), "shift")


def explicit(
    uids: IdMap, gids: IdMap, *, reverse: bool = False, keep: bool = False
) -> OwnershipRule:
    """The maps as they were typed: container ids become host ids, or back."""
    uid_moves, gid_moves = (
        Moves(m.invert() if reverse else m, source_first=True, keep=keep) for m in (uids, gids)
    )
    return OwnershipRule(uid_moves, gid_moves, 0 if reverse else uid_moves(0), "shift")


def _through(old: IdMap, new: IdMap) -> IdMap:
    if not any(a.container_range.overlaps(b.container_range) for a in old for b in new):
        raise InvalidValueError("the two containers have no container id in common")
    return old.invert().compose(new)


def staging(moves: Moves, used: Iterable[int]) -> IdMap:
    """Where the old ids go meanwhile: ids that are on neither side of the map and that nothing in the volume has.

    Raises RefusedError where there is no such room.
    """
    free = IdSet([_STAGING]) - moves.all_ids() - IdSet(IdRange(used_id, 1) for used_id in used)
    first = min(extent.container for extent in moves.source)
    span = max(extent.container + extent.count for extent in moves.source) - first
    room = free.first_fit(span)
    if room is not None:
        return IdMap([Extent(first, room.start, span)])
    extents = []
    for extent in moves.source:
        room = free.first_fit(extent.count)
        if room is None:
            raise RefusedError(
                "there is no room above 3000000000 for the ids of a move that overlaps itself"
            )
        extents.append(Extent(extent.container, room.start, room.count))
        free = free - IdSet([room])
    return IdMap(extents)
