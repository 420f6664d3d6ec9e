"""The owner that each inode gets, and the ids of its ACL and capability: a pure rule per mode.

The rule for one id: an id in the source moves; an id in the target stays; any other id is
unmapped. So a run can be repeated, unless source and target overlap. Then the source wins, the
run uses staging ids that nobody has, and the journal records how far it is. Own gives everything
one owner and leaves what is in the target.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.mapping import Extent, IdMap, Mapping
from usernsplan.model import MODES, Mode
from usernsplan.values import NamedTuple, dataclass, field, replace
from usernsplan.volume import metadata, power

if TYPE_CHECKING:
    from collections.abc import Iterable

    Owner = tuple[int, int]

# The sets of ids that the journal keeps. It has others only while a run looks.
_SETS = ("more", "lost")
# How many ACLs are kept with what they become.
_ACLS = 4096
# Above every pool, so no container can run with these ids.
_STAGING = IdRange(3_000_000_000, ID_LIMIT - 3_000_000_000)


class _Side(NamedTuple):
    """One side of a map as a table: a look-up takes as long for 340 extents as for a few.

    ``rows`` has the count and the distance to the other side for each of ``starts``, which ascend.
    """

    starts: tuple[int, ...]
    rows: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, extents: Iterable[tuple[int, int, int]]) -> _Side:
        """The side whose first ids come first in the extents (id here, id there, count)."""
        ordered = sorted(extents)
        return cls(
            tuple(here for here, _, _ in ordered),
            tuple((count, there - here) for here, there, count in ordered),
        )

    def other(self, number: int) -> int | None:
        """The id on the other side; None if this side lacks it."""
        at = bisect_right(self.starts, number) - 1
        if at < 0:
            return None
        count, distance = self.rows[at]
        return number + distance if number < self.starts[at] + count else None


@dataclass(frozen=True, slots=True)
class Moves:
    """Where ids of one kind go: ``source`` maps old ids (container side) to new ids (host side).

    ``source_first``: an id on both sides is an old one. ``keep``: an id on neither side stays,
    instead of being unmapped. ``others``: new ids that others may have too. They stay like every
    new id, but in a volume that was not moved yet they are not the container's: the first look
    counts them as unmapped. ``more`` are new ids to which no old id goes: they stay. ``lost`` are
    old ids that go nowhere, and are another one's new id: they are unmapped.
    """

    source: IdMap
    source_first: bool = False
    keep: bool = False
    others: IdSet = field(default_factory=IdSet)
    more: IdSet = field(default_factory=IdSet)
    lost: IdSet = field(default_factory=IdSet)
    _old: _Side = field(init=False, repr=False, compare=False)
    _new: _Side = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the tables of both sides."""
        triples = self.source.triples()
        object.__setattr__(self, "_old", _Side.of(triples))
        object.__setattr__(self, "_new", _Side.of((new, old, n) for old, new, n in triples))

    def __call__(self, old: int) -> int | None:
        """The new id; None if the map lacks this one."""
        if self.lost and old in self.lost:
            return old if self.keep else None
        moved = self._old.other(old)
        if self.is_new(old) and (moved is None or not self.source_first):
            return old
        return old if moved is None and self.keep else moved

    def is_new(self, number: int) -> bool:
        """Tell whether an id is on the new side."""
        return self._new.other(number) is not None or bool(self.more and number in self.more)

    def was(self, new: int) -> int | None:
        """The old id that becomes this one; None if none does."""
        return self._new.other(new)

    def lacks(self, old: int) -> bool:
        """Tell whether an id is on neither side, or on the new side only as an id of others."""
        if self.lost and old in self.lost:
            return True
        return self._old.other(old) is None and (not self.is_new(old) or old in self.others)

    def settled(self, now: int) -> bool:
        """Tell whether the run may have left this id: a new id, or one that it keeps."""
        return self.is_new(now) or (self.keep and self.lacks(now))

    def both(self) -> IdSet:
        """The ids that are old ids, and also the new id of another one."""
        moved = IdSet(e.container_range for e in self.source if e.container != e.host)
        return (moved | self.lost) & self.target()

    def overlaps(self) -> bool:
        """Tell whether some id is both an old id and the new id of another one."""
        return bool(self.both())

    def target(self) -> IdSet:
        """Every new id."""
        return IdSet(self.source.host_ranges()) | self.more

    def only_new(self) -> IdSet:
        """The new ids that are no old ones: where they are found, something was moved already."""
        return self.target() - IdSet(e.container_range for e in self.source) - self.lost

    def only_old(self) -> IdSet:
        """The old ids that are no new ones: where they are found, something was not moved yet."""
        return IdSet(e.container_range for e in self.source) - self.target()

    def all_ids(self) -> IdSet:
        """Every id on either side."""
        return self.target() | IdSet(e.container_range for e in self.source)


@dataclass(frozen=True, slots=True)
class OwnershipRule:
    """The complete rule. ``mode`` is own (everything gets ``owner``) or shift (ids move).

    ``root`` is the new id of container root, which capabilities of host root then belong to; 0
    in reverse; None if the map has no container root. ``same`` are the images that count as the
    ids that they come from, see power. They depend on the host's state, so they do not affect
    equality.
    """

    uids: Moves
    gids: Moves
    root: int | None
    mode: Mode
    owner: Owner | None = None
    same: power.Images = field(default=power.NONE, compare=False)
    # The ACLs that were moved already: a volume has few, and many files with the same.
    _acls: dict[bytes, metadata.MovedAcl] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown mode, or one that does not fit the owner."""
        object.__setattr__(self, "_acls", {})
        if self.mode not in MODES or self.is_own != (self.owner is not None):
            raise ValueError(f"mode {self.mode!r:.40} with the owner {self.owner}")

    def same_work(self, other: OwnershipRule) -> bool:
        """Tell whether both rules give the same owners to the same ids.

        ``source_first`` does not matter: older versions treated some ids on both sides
        differently, and their unfinished runs are finished by their own journals.
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

    def trusting(self) -> OwnershipRule:
        """The same rule for a volume that is known to have new ids: none on both sides is old."""
        uids, gids = (
            replace(move, source_first=False, lost=IdSet()) for move in (self.uids, self.gids)
        )
        return replace(self, uids=uids, gids=gids)

    def after_it(self) -> OwnershipRule:
        """The same rule for a volume that it has moved: every new id there is the container's."""
        uids, gids = (replace(move, others=IdSet()) for move in (self.uids, self.gids))
        return replace(self, uids=uids, gids=gids)

    @property
    def is_own(self) -> bool:
        """Tell whether everything gets one owner."""
        return self.mode == "own"

    def owner_of(self, old: Owner) -> Owner | None:
        """The new owner and group; None if the map lacks one of them."""
        if self.owner is not None:
            return self.owner
        uid, gid = self.uids(old[0]), self.gids(old[1])
        return None if uid is None or gid is None else (uid, gid)

    def acl(self, raw: bytes) -> metadata.MovedAcl:
        """The new bytes of an ACL. Own changes no ACL: its entries admit other users on purpose."""
        if self.is_own:
            return metadata.MovedAcl(raw)
        moved = self._acls.get(raw)
        if moved is None:
            if len(self._acls) >= _ACLS:
                self._acls.clear()
            moved = self._acls[raw] = metadata.moved_acl(raw, self.uids, self.gids)
        return moved

    def capability(self, raw: bytes) -> bytes | None:
        """The new bytes of a capability; None if the map lacks its root."""
        old = metadata.capability_rootid(raw)
        new = self.root if old == 0 else self.uids(old)
        if new is None:
            return raw if self.uids.keep else None
        return raw if new == old else metadata.capability_for(raw, new)

    def overlaps(self) -> bool:
        """Tell whether the run needs staging ids."""
        moves = () if self.is_own else (self.uids, self.gids)
        return any(move.source_first and move.overlaps() for move in moves)

    def to_json(self) -> dict[str, Any]:
        """The rule as the journal keeps it. The journal keeps the mode separately."""
        moves = {
            kind: {
                "source": move.source.triples(),
                "source_first": move.source_first,
                "keep": move.keep,
                **{word: _written(ids) for word in _SETS if (ids := getattr(move, word))},
            }
            for kind, move in (("uids", self.uids), ("gids", self.gids))
        }
        return {**moves, "root": self.root, "owner": self.owner, "same": self.same.to_json()}

    @classmethod
    def from_json(cls, content: dict[str, Any], mode: Mode) -> OwnershipRule:
        """Read what to_json wrote. Raises TypeError, ValueError or LookupError if malformed."""
        uids, gids = (
            Moves(
                read_map(content[kind]["source"]),
                content[kind]["source_first"],
                content[kind]["keep"],
                **{word: _read(content[kind].get(word, [])) for word in _SETS},
            )
            for kind in ("uids", "gids")
        )

        owner = content["owner"]
        for number in (content["root"], *(owner or ())):
            if number is not None and type(number) is not int:
                raise TypeError(f"{number!r:.40} is not an id")
        for kind in ("uids", "gids"):
            if not all(isinstance(content[kind][word], bool) for word in ("source_first", "keep")):
                raise TypeError(f"{kind}: neither true nor false")
        # Older versions recorded no images: then no id counts as its image.
        same = power.Images.from_json(content["same"]) if "same" in content else power.NONE
        return cls(uids, gids, content["root"], mode, (owner[0], owner[1]) if owner else None, same)


def shift(
    mapping: Mapping, *, reverse: bool = False, keep: bool = False, exclusive: IdSet | None = None
) -> OwnershipRule:
    """Container ids on disk become the container's host ids; with ``reverse``, the other way round.

    ``exclusive`` are the host ids that only the container has, for a volume that was not shifted
    yet; None if every new id in it is the container's.
    """
    if reverse:
        uids, gids = (_moves(ids.invert(), keep=keep) for ids in (mapping.uids, mapping.gids))
        return OwnershipRule(uids, gids, 0, "shift")
    uids, gids = (
        _moves(ids, keep=keep, exclusive=exclusive) for ids in (mapping.uids, mapping.gids)
    )
    return OwnershipRule(uids, gids, _root(mapping.uids, keep=keep), "shift")


def _root(uids: IdMap, *, keep: bool) -> int | None:
    """The new id of container root. A map without one gives none, even if host root passes."""
    root = uids.to_host(0)
    return 0 if root is None and keep else root


def read_map(content: list[list[int]]) -> IdMap:
    """A map as a journal keeps it. Raises TypeError or ValueError for any other content."""
    if not content:
        raise ValueError("a map without extents")
    return IdMap.unlimited(Extent(*extent) for extent in content)


def _written(ids: IdSet) -> list[list[int]]:
    return [[one.start, one.count] for one in ids]


def _read(content: list[list[int]]) -> IdSet:
    return IdSet(IdRange(*ids) for ids in content)


def _moves(source: IdMap, *, keep: bool, exclusive: IdSet | None = None) -> Moves:
    """An id on both sides is old; one only on the new side is right only if it is exclusive."""
    only_new = IdSet(source.host_ranges()) - IdSet(extent.container_range for extent in source)
    others = IdSet() if exclusive is None else only_new - exclusive
    return Moves(source, source_first=True, keep=keep, others=others)


def own(mapping: Mapping, user: Owner, *, keep: bool = False) -> OwnershipRule:
    """Everything gets the container's ``user`` (container ids). InvalidValueError if unmapped."""
    uid, gid = mapping.uids.to_host(user[0]), mapping.gids.to_host(user[1])
    if uid is None or gid is None:
        kind, lacking = ("uid", user[0]) if uid is None else ("gid", user[1])
        raise InvalidValueError(
            f"the container has no {kind} {lacking}",
            hint="choose another --user; 'usernsplan show NAME' prints the map",
        )
    # Without staging and journal nothing tells old ids from new ones, so right ids must stay.
    uids, gids = Moves(mapping.uids, keep=keep), Moves(mapping.gids, keep=keep)
    return OwnershipRule(uids, gids, mapping.uids.to_host(0), "own", (uid, gid))


def move(
    old: Mapping, new: Mapping, *, keep: bool = False, exclusive: IdSet | None = None
) -> OwnershipRule:
    """The host ids of one map become those of another one. ``exclusive``: see shift."""
    uids, gids = (
        _between(former, latter, keep=keep, exclusive=exclusive)
        for former, latter in ((old.uids, new.uids), (old.gids, new.gids))
    )
    return OwnershipRule(uids, gids, new.uids.to_host(0), "shift")


def _between(old: IdMap, new: IdMap, *, keep: bool, exclusive: IdSet | None) -> Moves:
    """From the host ids of ``old`` to those of ``new``, by way of the container id."""
    moves = _moves(_through(old, new), keep=keep, exclusive=exclusive)
    there = IdSet(new.host_ranges())
    gone = IdSet(old.host_ranges()) - IdSet(e.container_range for e in moves.source)
    more = there - moves.target()
    others = moves.others if exclusive is None else moves.others | (more - exclusive)
    return replace(moves, more=more, lost=gone & there, others=others)


def explicit(
    uids: IdMap, gids: IdMap, *, reverse: bool = False, keep: bool = False
) -> OwnershipRule:
    """Container ids become host ids by maps from the command line; or the other way round."""
    uid_moves, gid_moves = (
        Moves(m.invert() if reverse else m, source_first=True, keep=keep) for m in (uids, gids)
    )
    root = 0 if reverse else _root(uids, keep=keep)
    return OwnershipRule(uid_moves, gid_moves, root, "shift")


def _through(old: IdMap, new: IdMap) -> IdMap:
    extents = old.invert().followed_by(new)
    if not extents:
        raise InvalidValueError("the two maps have no container ids in common")
    return IdMap.unlimited(extents)


def staging(moves: Moves, used: Iterable[int]) -> IdMap:
    """The map from old ids to staging ids: on neither side of ``moves``, and not ``used`` on disk.

    Raises RefusedError if there is not enough room.
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
                "not enough free ids above 3000000000 to stage a move whose map overlaps itself"
            )
        extents.append(Extent(extent.container, room.start, room.count))
        free = free - IdSet([room])
    return IdMap.unlimited(extents)
