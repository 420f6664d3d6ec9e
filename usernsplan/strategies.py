"""The three documented strategies: what each needs from the pool, and the mapping that it makes of it. Pure.

They are alternatives for a host, not ingredients: the planner keeps one host to one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from usernsplan.errors import InvalidValueError, RefusedError, did_you_mean
from usernsplan.ids import ID_LIMIT, IdRange
from usernsplan.mapping import Extent, IdMap, Mapping

if TYPE_CHECKING:
    from collections.abc import Mapping as Options

# systemd, the kubelet and incus all ask for container ranges whose base has its low 16 bits clear, so that the
# container id can be read off the host id: https://systemd.io/UIDS-GIDS/
SLOT = 65536
# What stands for the first DOCKERROOT that nobody has.
AUTO = "auto"
# The largest id that 16-bit tables and Docker's own default range can hold.
SHARED_SUBID_LAST = 65535
OPENSHIFT_IDS = IdRange(1000000000, 1000000000)
OPENSHIFT_BLOCK = 10000


@dataclass(frozen=True, slots=True)
class Need:
    """What an allocation takes for itself: ``count`` ids, the same for uids and gids, from a multiple of ``align``."""

    count: int
    align: int


class Strategy(Protocol):
    """One way to give a container its ids. Immutable; equal words make equal strategies."""

    name: ClassVar[str]

    @property
    def pool(self) -> IdRange | None:
        """Where this strategy's ranges are taken from, or None for the host's own pool (login.defs decides)."""

    @property
    def need(self) -> Need | None:
        """What must be taken from the pool for one allocation; None where nothing is."""

    def mapping(self, base: int | None) -> Mapping:
        """The mapping of an allocation whose range starts at ``base`` (None where nothing was needed)."""


@dataclass(frozen=True, slots=True)
class PerContainer:
    """Use case 3: every container has a range of its own.

    ``size`` ids from a base that is a multiple of 65536, the same for uids and gids.
    """

    name: ClassVar[str] = "per-container"
    size: int = SLOT

    def __post_init__(self) -> None:
        _check("size", 0, self.size)

    @property
    def pool(self) -> IdRange | None:
        return None

    @property
    def need(self) -> Need:
        return Need(self.size, SLOT)

    def mapping(self, base: int | None) -> Mapping:
        return _same(Extent(0, _known(base), self.size))


@dataclass(frozen=True, slots=True)
class SingleUid:
    """Use case 2, the OpenShift way: everything in a container is one uid and one gid of its own on the host.

    OpenShift gives every project a block of 10000 ids and runs it as the first: we keep its blocks, so that both can
    read each other's numbers. ``block`` 1 packs them. ``container_id`` is the one id that the container can use.
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
    """Use case 1, DOCKERROOT: container root is host id ``dockerroot``, and every id above it is itself.

    The map is 0 -> N and N+1..max -> itself, for uids and gids. ``identity`` is the variant 0..max-1 -> itself.
    ``filler``: Docker lays its ranges end to end from container id 0 and cannot skip ids, so for Docker the container
    ids 1..N are mapped too, to N ids taken from the pool that belong to nobody. ``auto``: the planner takes the first
    id that nobody has for ``dockerroot``.
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
                hint="max lies above dockerroot and is at most 4294967294",
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
    """The strategy of this name with these options, by the words of the command line without their dashes.

    All are numbers, but for ``dockerroot``, which may be "auto". Raises InvalidValueError for an option of another
    strategy: it is an error, not ignored.
    """
    if name not in _CLASSES:
        raise InvalidValueError(
            f"there is no strategy '{name}'" if name else "the strategy is missing",
            option="strategy",
            hint=did_you_mean(name, NAMES, f"one of: {', '.join(NAMES)}; see the README"),
        )
    if options.get("identity") and "dockerroot" in options:
        raise InvalidValueError(
            "not together with dockerroot",
            hint="with identity, container root is 0: leave one of the two out",
            option="identity",
        )
    fields = {option.replace("-", "_"): value for option, value in options.items()}
    for option, field in zip(options, fields, strict=True):
        if field not in _CLASSES[name].__dataclass_fields__:
            raise InvalidValueError(f"not an option of the strategy {name}", option=option)
    if fields.get("dockerroot") == AUTO:
        fields = {field: value for field, value in fields.items() if field != "dockerroot"} | {
            "auto": True
        }
    return _CLASSES[name](**fields)  # type: ignore[arg-type]


def with_defaults(
    name: str, said: Options[str, int | str], defaults: Options[str, int]
) -> dict[str, int | str]:
    """The options that were said for a strategy, and a host's defaults for the others that it has.

    Container root is one id, or itself: whichever of the two was said, the default of the other does not count.
    """
    rivals = {"identity": "dockerroot", "dockerroot": "identity"}
    fields = _CLASSES[name].__dataclass_fields__ if name in _CLASSES else ()
    fitting = {
        option: value
        for option, value in defaults.items()
        if option.replace("-", "_") in fields and said.get(rivals.get(option, ""), False) is False
    }
    return {**fitting, **said}


def options_of(
    strategy: str, mapping: Mapping, held: IdRange | None, *, usual: bool = False
) -> dict[str, int]:
    """The options by which ``named`` makes this mapping; with ``usual``, those too that have their usual value."""
    found = _options_of(strategy, mapping, held)
    return found if usual else _other_than(_CLASSES[strategy](), found)


def differing(wanted: Strategy, mapping: Mapping, held: IdRange | None) -> str:
    """The option that has another value in a mapping of the same strategy than what is wanted; "" for none."""
    return next(iter(_other_than(wanted, _options_of(wanted.name, mapping, held))), "")


def _other_than(strategy: Strategy, options: dict[str, int]) -> dict[str, int]:
    return {
        option: value
        for option, value in options.items()
        if value != getattr(strategy, option.replace("-", "_"))
    }


def _options_of(strategy: str, mapping: Mapping, held: IdRange | None) -> dict[str, int]:
    last = max(extent.container_range.last for extent in mapping.uids)
    if strategy == PerContainer.name:
        return {"size": last + 1}
    if strategy == SingleUid.name:
        return {"block": held.count if held else 1, "container-id": last}
    if mapping.uids.to_host(0) == 0:
        return {"identity": True, "max": last + 1}
    return {"dockerroot": mapping.uids.to_host(0) or 0, "max": last}


def in_subid(strategy: str, mapping: Mapping) -> bool:
    """Tell whether subuid and subgid carry a mapping of the strategy of this name.

    A shared map past 65535 is not written there: with a line such as 3:4294967292 in the file, every later useradd
    finds no free range ("Can't get unique subordinate UID range"), and root needs no line for OCI and Podman.
    """
    return (
        strategy != Shared.name
        or max(e.container + e.count - 1 for e in mapping.uids) <= SHARED_SUBID_LAST
    )


def _check(option: str, start: int, count: int) -> None:
    """Raise InvalidValueError, naming the option, for ids that cannot exist."""
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
        raise InvalidValueError("this strategy takes its ids from the pool: a base is needed")
    return base
