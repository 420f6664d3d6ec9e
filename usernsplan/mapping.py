"""uid_map and gid_map as values: translate, compose, invert. Pure.

A map that the kernel would refuse cannot be made. The rules are those of user_namespaces(7); writing to
/proc/PID/uid_map on Linux 6.18 confirmed them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from usernsplan.errors import InvalidValueError
from usernsplan.ids import ID_LIMIT, IdRange
from usernsplan.values import NamedTuple, dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

# What an id is: the two are numbered apart, and a number may be one's uid and another's gid.
Kind = Literal["uid", "gid"]
KINDS: tuple[Kind, Kind] = ("uid", "gid")
# What an id of each kind stands for.
CALLED: dict[Kind, str] = {"uid": "account", "gid": "group"}
# UID_GID_MAP_MAX_EXTENTS of the kernel, since Linux 4.15.
MAX_EXTENTS = 340
# A map must be written in one write(2) of less than a page.
MAX_BYTES = 4096


@dataclass(frozen=True, order=True, slots=True)
class Extent:
    """One line of a uid_map: container ids from ``container`` on are host ids from ``host`` on, ``count`` of them.

    Raises InvalidValueError unless both sides are ranges of ids that can exist.

    >>> str(Extent(0, 589824, 65536))
    '0 589824 65536'
    """

    container: int
    host: int
    count: int

    def __post_init__(self) -> None:
        latest = ID_LIMIT - self.count
        if self.count < 1 or not (0 <= self.host <= latest and 0 <= self.container <= latest):
            raise InvalidValueError(
                f"not an extent that the kernel accepts: '{self}'",
                hint="both sides must lie within 0-4294967294, and the count must be at least 1",
            )

    @property
    def container_range(self) -> IdRange:
        """The ids as the container sees them."""
        return IdRange(self.container, self.count)

    @property
    def host_range(self) -> IdRange:
        """The ids as the host sees them."""
        return IdRange(self.host, self.count)

    def __str__(self) -> str:
        return f"{self.container} {self.host} {self.count}"


class IdMap(tuple[Extent, ...]):
    """A whole uid_map or gid_map: at least one extent, in the order in which they are written.

    Raises InvalidValueError where the kernel answers EINVAL: an overlap on either side, more than 340 extents,
    4096 bytes or more of text, or no extent.

    >>> ids = IdMap.of((0, 589824, 1000), (1000, 1000, 1))
    >>> ids.to_host(33), ids.to_host(1000), ids.to_host(2000)
    (589857, 1000, None)
    >>> ids.to_container(589857)
    33
    """

    __slots__ = ()

    @classmethod
    def unlimited(cls, extents: Iterable[Extent]) -> Self:
        """A translation that no kernel has to take: of any length, and maybe empty.

        Raises InvalidValueError for an overlap on either side.
        """
        new = super().__new__(cls, tuple(extents))
        _refuse_overlap("container", sorted((e.container, e.count, e) for e in new))
        _refuse_overlap("host", sorted((e.host, e.count, e) for e in new))
        return new

    def __new__(cls, extents: Iterable[Extent]) -> Self:
        """Check the extents against the kernel's rules."""
        new = super().__new__(cls, tuple(extents))
        if len(new) == 1:
            return new
        if not new:
            raise InvalidValueError("the map has no extent; the kernel refuses it")
        if len(new) > MAX_EXTENTS:
            raise InvalidValueError(
                f"the map has {len(new)} extents; the kernel accepts at most {MAX_EXTENTS}"
            )
        if len(new.text()) >= MAX_BYTES:
            raise InvalidValueError(
                f"the map has {len(new.text())} bytes as text; the kernel accepts less than {MAX_BYTES}"
            )
        _refuse_overlap("container", sorted((e.container, e.count, e) for e in new))
        _refuse_overlap("host", sorted((e.host, e.count, e) for e in new))
        return new

    @classmethod
    def of(cls, *extents: tuple[int, int, int]) -> IdMap:
        """Make a map of (container, host, count) triples."""
        return cls(Extent(*extent) for extent in extents)

    @classmethod
    def parse(cls, text: str) -> IdMap:
        r"""Read the text of a /proc/PID/uid_map; any blanks may stand between the numbers.

        Raises InvalidValueError for other text, and for a map that the kernel would refuse.

        >>> IdMap.parse("         0     589824      65536\n").triples()
        [(0, 589824, 65536)]
        """
        try:
            return cls(Extent(*map(int, line.split())) for line in text.splitlines())
        except (TypeError, ValueError) as error:
            raise InvalidValueError(f"not the text of a uid_map: {error}") from error

    def text(self) -> str:
        """The map as it is written to /proc/PID/uid_map."""
        return "".join(f"{extent}\n" for extent in self)

    def to_host(self, container: int) -> int | None:
        """The host id of a container id; None if it is not mapped."""
        for extent in self:
            if extent.container <= container < extent.container + extent.count:
                return extent.host + container - extent.container
        return None

    def to_container(self, host: int) -> int | None:
        """The container id of a host id; None if it is not mapped: the container then sees 65534."""
        for extent in self:
            if extent.host <= host < extent.host + extent.count:
                return extent.container + host - extent.host
        return None

    def invert(self) -> IdMap:
        """The map from host ids to container ids.

        >>> IdMap.of((0, 589824, 10)).invert().triples()
        [(589824, 0, 10)]
        """
        return IdMap(Extent(e.host, e.container, e.count) for e in self)

    def compose(self, outer: IdMap) -> IdMap:
        """Follow this map, then ``outer``: the host ids of this map are container ids of ``outer``, as in nested namespaces.

        Ids that ``outer`` does not map drop out. Raises InvalidValueError if no id is left, or too many extents.

        >>> IdMap.of((0, 100, 50)).compose(IdMap.of((0, 589824, 120))).triples()
        [(0, 589924, 20)]
        """
        return IdMap(self.followed_by(outer))

    def followed_by(self, outer: IdMap) -> list[Extent]:
        """The extents of ``compose``: there may be more than a kernel takes, or none."""
        found = []
        for inner in self:
            for over in outer:
                start = max(inner.host, over.container)
                stop = min(inner.host + inner.count, over.container + over.count)
                if start < stop:
                    container = inner.container + start - inner.host
                    found.append(
                        Extent(container, over.host + start - over.container, stop - start)
                    )
        return found

    def is_end_to_end(self) -> bool:
        """Tell whether the extents follow each other without a gap from container id 0 on.

        Docker can make no other map: it lays the ranges of subuid end to end.
        """
        expected = 0
        for extent in self:
            if extent.container != expected:
                return False
            expected += extent.count
        return True

    def host_ranges(self) -> tuple[IdRange, ...]:
        """The host ranges, one for each extent, in the order of the map."""
        return tuple(e.host_range for e in self)

    def triples(self) -> list[tuple[int, int, int]]:
        """(container, host, count) for each extent, in order."""
        return [(e.container, e.host, e.count) for e in self]


# A map that is not written yet: the kernel has no extent for it, and it maps no id.
UNWRITTEN = tuple.__new__(IdMap)


def _refuse_overlap(side: str, ordered: list[Any]) -> None:
    for (start, count, first), (following, _, second) in pairwise(ordered):
        if following < start + count:
            raise InvalidValueError(
                f"'{first}' and '{second}' overlap in their {side} ids: the kernel refuses the map"
            )


@dataclass(frozen=True, slots=True)
class Mapping:
    """Both maps of one user namespace."""

    uids: IdMap
    gids: IdMap

    def __getitem__(self, kind: Kind) -> IdMap:
        """The map of one kind."""
        return self.uids if kind == "uid" else self.gids

    def is_same_as(self, other: Mapping) -> bool:
        """Tell whether both map the same ids alike. The kernel sorts maps of more than 5 extents."""
        return all(sorted(self[kind]) == sorted(other[kind]) for kind in KINDS)


class Pass(NamedTuple):
    """Host ids that a private map shows: an extent of the map, whose host ids stay the host's."""

    kind: Kind
    extent: Extent


def joined(passes: Iterable[Pass]) -> tuple[Pass, ...]:
    """The passes by kind and container id; those that continue each other become one."""
    every = sorted(passes)
    found: list[Pass] = []
    for kind in KINDS:
        for _, extent in (p for p in every if p.kind == kind):
            before = found[-1].extent if found and found[-1].kind == kind else None
            follows = before and (
                before.container + before.count == extent.container
                and before.host + before.count == extent.host
            )
            if before and follows:
                whole = Extent(before.container, before.host, before.count + extent.count)
                found[-1] = Pass(kind, whole)
            else:
                found.append(Pass(kind, extent))
    return tuple(found)


def around(base: int, count: int, passes: Iterable[Extent] = ()) -> IdMap:
    """Map container ids from 0 on to ``count`` ids from ``base`` on, but for what ``passes``.

    A container id that passes does not map to its own id of the range: that one stays unused.
    Raises InvalidValueError where IdMap does.

    >>> around(589824, 65536, [Extent(107, 104, 1)]).triples()
    [(0, 589824, 107), (107, 104, 1), (108, 589932, 65428)]
    """
    found: list[Extent] = []
    start = 0
    for extent in sorted(passes):
        stop = min(extent.container, count)
        if start < stop:
            found.append(Extent(start, base + start, stop - start))
        found.append(extent)
        start = max(start, extent.container + extent.count)
    if start < count:
        found.append(Extent(start, base + start, count - start))
    return IdMap(found)
