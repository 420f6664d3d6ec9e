"""The three strategies: what each takes from the pool, and the mapping that it makes. Pure.

A host uses one of them: the planner refuses to mix them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from usernsplan.errors import InvalidValueError, RefusedError, did_you_mean
from usernsplan.ids import ID_LIMIT, IdRange
from usernsplan.mapping import KINDS, Extent, IdMap, Mapping, Pass, around
from usernsplan.values import dataclass, fields

if TYPE_CHECKING:
    from collections.abc import Mapping as Options

# systemd, the kubelet and Incus want container ranges whose base has its low 16 bits clear. Then a
# host id shows its container id: https://systemd.io/UIDS-GIDS/
SLOT = 65536
# The value of dockerroot that stands for the first id that nobody has.
AUTO = "auto"
# The largest id that 16-bit tables and Docker's own default range can hold.
SHARED_SUBID_LAST = 65535
OPENSHIFT_IDS = IdRange(1000000000, 1000000000)
OPENSHIFT_BLOCK = 10000


@dataclass(frozen=True, slots=True)
class Need:
    """What an allocation takes: ``count`` uids and the same gids, from a multiple of ``align``."""

    count: int
    align: int


class Strategy(Protocol):
    """One way to give a container its ids. Immutable; equal options make equal strategies."""

    name: ClassVar[str]

    @property
    def pool(self) -> IdRange | None:
        """The pool of this strategy; None for the host's own pool, which login.defs sets."""

    @property
    def need(self) -> Need | None:
        """What one allocation takes from the pool; None for nothing."""

    def mapping(self, base: int | None) -> Mapping:
        """The mapping of an allocation whose range starts at ``base`` (None without a need)."""


@dataclass(frozen=True, slots=True)
class PerContainer:
    """Use case 3: each container has its own range.

    ``size`` ids, the same for uids and gids; the base is a multiple of ``align``, which is more than
    65536 only for the pool of an engine that needs it. Host ids in ``passes`` take the place of ids
    of the range, which stay reserved; they are as ``mapping.joined`` makes them.
    """

    name: ClassVar[str] = "per-container"
    size: int = SLOT
    align: int = SLOT
    passes: tuple[Pass, ...] = ()

    def __post_init__(self) -> None:
        _check("size", 0, self.size)

    @property
    def pool(self) -> IdRange | None:
        return None

    @property
    def need(self) -> Need:
        return Need(self.size, self.align)

    def mapping(self, base: int | None) -> Mapping:
        if not self.passes:
            return _same(Extent(0, _known(base), self.size))
        uids, gids = (
            around(_known(base), self.size, (p.extent for p in self.passes if p.kind == kind))
            for kind in KINDS
        )
        return Mapping(uids, uids if uids == gids else gids)


@dataclass(frozen=True, slots=True)
class SingleUid:
    """Use case 2, as OpenShift does it: a container has one uid and one gid of its own.

    OpenShift gives every project a block of 10000 ids and runs it as the first one. We use the same
    blocks, so that the numbers of both agree. ``block`` 1 packs them without gaps. ``container_id``
    is the only id in the container.
    """

    name: ClassVar[str] = "single-uid"
    block: int = OPENSHIFT_BLOCK
    container_id: int = 0

    def __post_init__(self) -> None:
        _check("block", 0, self.block)
        _check("container-id", self.container_id, 1)

    @property
    def pool(self) -> IdRange | None:
        return OPENSHIFT_IDS

    @property
    def need(self) -> Need:
        return Need(self.block, self.block)

    def mapping(self, base: int | None) -> Mapping:
        return _same(Extent(self.container_id, _known(base), 1))


@dataclass(frozen=True, slots=True)
class Shared:
    """Use case 1, DOCKERROOT: container root is host id ``dockerroot``; higher ids are themselves.

    For dockerroot N, the map is 0 -> N and N+1..max -> itself, for uids and gids. With ``identity`` it is 0..max-1 ->
    itself. With ``auto``, the planner sets ``dockerroot`` to the first id that nobody has.

    ``filler``: Docker puts its ranges end to end from container id 0 and cannot skip ids. So for
    Docker, container ids 1..N map to N ids from the pool that nobody else has.
    """

    name: ClassVar[str] = "shared"
    dockerroot: int = 2
    max: int = SHARED_SUBID_LAST
    identity: bool = False
    filler: bool = False
    auto: bool = False

    def __post_init__(self) -> None:
        if self.identity:
            _check("max", 0, self.max)
        elif self.dockerroot < 1:
            raise RefusedError(
                f"{self.dockerroot} would make container root the host's root",
                hint="choose an id of 1 or more; with identity, no id changes",
                option="dockerroot",
            )
        elif not self.dockerroot < self.max < ID_LIMIT:
            raise InvalidValueError(
                f"dockerroot {self.dockerroot} with max {self.max} leaves no map",
                hint="max must be above dockerroot and at most 4294967294",
                option="dockerroot",
            )

    @property
    def pool(self) -> IdRange | None:
        return None

    @property
    def need(self) -> Need | None:
        return Need(self.dockerroot, 1) if self.filler and not self.identity else None

    def mapping(self, base: int | None) -> Mapping:
        if self.identity:
            return _same(Extent(0, 0, self.max))
        root, above = self.dockerroot, self.dockerroot + 1
        middle = [Extent(1, _known(base), root)] if self.need else []
        return _same(Extent(0, root, 1), *middle, Extent(above, above, self.max - root))


_CLASSES: dict[str, type[PerContainer | SingleUid | Shared]] = {
    c.name: c for c in (Shared, SingleUid, PerContainer)
}
NAMES = tuple(_CLASSES)


def named(name: str, options: Options[str, int | str]) -> PerContainer | SingleUid | Shared:
    """The strategy of this name; ``options`` are those of the command line without dashes.

    Values are numbers; ``dockerroot`` may also be "auto". Raises InvalidValueError, also for an
    option of another strategy.
    """
    if name not in _CLASSES:
        raise InvalidValueError(
            f"there is no strategy '{name}'" if name else "the strategy is missing",
            option="strategy",
            hint=did_you_mean(name, NAMES, f"choose one of {', '.join(NAMES)}; see the README"),
        )
    if options.get("identity") and "dockerroot" in options:
        raise InvalidValueError(
            "does not go with dockerroot",
            hint="leave out one of them: with identity, container root is host id 0",
            option="identity",
        )

    fields: dict[str, int | str] = {}
    for option, value in options.items():
        field = option.replace("-", "_")
        if field not in _CLASSES[name].__dataclass_fields__:
            raise InvalidValueError(f"not an option of the strategy {name}", option=option)
        fields[field] = value
    if fields.get("dockerroot") == AUTO:
        del fields["dockerroot"]
        fields["auto"] = True
    return _CLASSES[name](**fields)  # type: ignore[arg-type]


def with_defaults(
    name: str, given: Options[str, int | str], defaults: Options[str, int]
) -> dict[str, int | str]:
    """The options given for a strategy, and the host's defaults for its other options.

    ``identity`` and ``dockerroot`` exclude each other: if one is given, the other has no default.
    """
    rivals = {"identity": "dockerroot", "dockerroot": "identity"}
    known = {one.name for one in fields(_CLASSES[name])} if name in _CLASSES else ()
    fitting = {
        option: value
        for option, value in defaults.items()
        if option.replace("-", "_") in known and given.get(rivals.get(option, ""), False) is False
    }
    return {**fitting, **given}


def options_of(
    strategy: str, mapping: Mapping, held: IdRange | None, *, usual: bool = False
) -> dict[str, int]:
    """The options with which ``named`` makes this mapping; ``usual`` adds those at their default."""
    found = _options_of(strategy, mapping, held)
    return found if usual else _other_than(_CLASSES[strategy](), found)


def differing(wanted: Strategy, mapping: Mapping, held: IdRange | None) -> str:
    """The first option in which a mapping of its strategy differs from ``wanted``; "" for none."""
    option = next(iter(_other_than(wanted, _options_of(wanted.name, mapping, held))), "")
    if not option and isinstance(wanted, PerContainer) and held:
        return "pass" if wanted.mapping(held.start) != mapping else ""
    return option


def _other_than(strategy: Strategy, options: dict[str, int]) -> dict[str, int]:
    return {
        option: value
        for option, value in options.items()
        if value != getattr(strategy, option.replace("-", "_"))
    }


def _options_of(strategy: str, mapping: Mapping, held: IdRange | None) -> dict[str, int]:
    last = max(extent.container_range.last for extent in mapping.uids)
    if strategy == PerContainer.name:
        return {"size": held.count if held else last + 1}
    if strategy == SingleUid.name:
        return {"block": held.count if held else 1, "container-id": last}
    if mapping.uids.to_host(0) == 0:
        return {"identity": True, "max": last + 1}
    return {"dockerroot": mapping.uids.to_host(0) or 0, "max": last}


def in_subid(strategy: str, mapping: Mapping) -> bool:
    """Tell whether subuid and subgid get lines for a mapping of this strategy.

    A shared map past 65535 gets none. With a line such as 3:4294967292 in the file, every later
    useradd finds no free range ("Can't get unique subordinate UID range"). OCI and Podman as root
    need no line.
    """
    return (
        strategy != Shared.name
        or max(e.container + e.count - 1 for e in mapping.uids) <= SHARED_SUBID_LAST
    )


def _check(option: str, start: int, count: int) -> None:
    """Raise InvalidValueError about this option if the ids cannot exist."""
    try:
        IdRange(start, count)
    except InvalidValueError as error:
        error.option = option
        raise


def _same(*extents: Extent) -> Mapping:
    ids = IdMap(extents)
    return Mapping(ids, ids)


def _known(base: int | None) -> int:
    if base is None:
        raise InvalidValueError("this strategy takes its ids from the pool and needs a base")
    return base
