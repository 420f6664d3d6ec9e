"""What other hosts of a fleet can be asked for, and the part of a plan file that is for this one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError, InvalidValueError, RefusedError, did_you_mean
from usernsplan.formats.spec import SpecContainer
from usernsplan.model import AllocateRequest, Plan
from usernsplan.planner.release import make_release
from usernsplan.strategies import PerContainer, SingleUid
from usernsplan.values import NamedTuple, replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.formats.spec import Spec
    from usernsplan.model import Allocation, HostState, ReleaseRequest

EVERY = "*"
# The options of a request that other hosts can be asked for.
_OF_REQUEST = frozenset(
    {"names", "strategy", "options", "defaults", "places", "start", "pool", "yes"}
)
# Of a container, what another host can be asked for: a name, its range, and where it stands in the file.
_OF_CONTAINER = frozenset({"name", "line", "at", "start", "options", "lines"})


class Elsewhere(NamedTuple):
    """Names that other hosts are to have, with these options of the strategy. No hosts: all."""

    hosts: tuple[str, ...]
    names: tuple[str, ...]
    options: tuple[tuple[str, int], ...]
    start: int | None


def here(spec: Spec, host: str | None) -> Spec:
    """The file as ``host`` has to be: with the containers that no key of hosts names, or one for it.

    ``host`` None is a host of its own. Raises InvalidFileError for names that the file lacks, and
    for other hosts where there is no fleet.
    """
    known = {one.name for one in spec.containers}
    for key, names in spec.hosts:
        place = f"{spec.place}:{spec.lines['hosts']}"
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known, "list it under containers")
                raise InvalidFileError(
                    place, f"hosts: this file has no container '{name}'", hint=hint
                )
        if host is None and key != EVERY:
            raise InvalidFileError(
                place,
                f"hosts: this host is in no fleet, so there is no host '{key}'",
                hint="'usernsplan ledger join URL' joins one; or leave the key out",
            )
    elsewhere = {name for _, names in spec.hosts for name in names}
    mine = {name for key, names in spec.hosts for name in names if key in {EVERY, host}}
    return replace(
        spec,
        hosts=(),
        containers=tuple(
            one for one in spec.containers if one.name in mine or one.name not in elsewhere
        ),
    )


def elsewhere(spec: Spec, host: str) -> Iterator[Elsewhere]:
    """What other hosts are asked for, names that are alike together. Raises InvalidFileError."""
    of_name: dict[str, list[str]] = {}
    for key, names in spec.hosts:
        for name in names:
            of_name.setdefault(name, []).append(key)
    groups: dict[tuple[Elsewhere, str], list[str]] = {}
    for one in spec.containers:
        keys = of_name.get(one.name, [])
        others = () if EVERY in keys else tuple(key for key in keys if key != host)
        if not keys or (not others and EVERY not in keys):
            continue
        _refuse(spec, one)
        options = tuple(sorted(one.options.items()))
        # A start is for one name.
        apart = one.name if one.start is not None else ""
        groups.setdefault((Elsewhere(others, (), options, one.start), apart), []).append(one.name)
    for (alike, _), several in groups.items():
        yield alike._replace(names=tuple(several))


def _refuse(spec: Spec, one: SpecContainer) -> None:
    plain = SpecContainer(one.name, one.line, one.at)
    for key in SpecContainer.__dataclass_fields__:
        if key not in _OF_CONTAINER and getattr(one, key) != getattr(plain, key):
            raise InvalidFileError(
                f"{spec.place}:{one.line}",
                f"{one.at}: '{one.name}' is for other hosts too, which can be asked for a name, its "
                f"start and the options of the strategy, but not for {key.replace('_', '-')}",
                hint="leave it out here, and give it on the host itself",
            )


def refuse_unaskable(request: AllocateRequest) -> None:
    """Raise InvalidValueError for a request that is no business of other hosts."""
    plain = AllocateRequest(request.names)
    if not request.names or any(
        getattr(request, key) != getattr(plain, key)
        for key in AllocateRequest.__dataclass_fields__
        if key not in _OF_REQUEST
    ):
        raise InvalidValueError(
            "other hosts can be asked for names with a strategy, its options, --start and --pool",
            hint="leave the other options out; or run the command on each host",
        )


def options_of(made: Sequence[Allocation]) -> tuple[str, dict[str, int]]:
    """The strategy of allocations, and the options that make the same again."""
    one = made[0]
    held = one.reserved_range
    if held is None or one.strategy not in {PerContainer.name, SingleUid.name}:
        raise InvalidValueError(
            f"'{one.name}' has no range of its own that other hosts could have",
            hint="use the strategy per-container or single-uid",
        )
    if any(a.reserved_range is None or a.reserved_range.count != held.count for a in made):
        raise InvalidValueError(
            "these names have ranges of different sizes", hint="ask for each size by itself"
        )
    if any(a.local for a in made):
        local = next(a.name for a in made if a.local)
        raise RefusedError(
            f"'{local}' has ids that are this host's alone", hint="ask for another name"
        )
    if one.strategy == PerContainer.name:
        return one.strategy, {"size": held.count}
    return one.strategy, {"block": held.count, "container-id": one.mapping.uids[0].container}


def released(state: HostState, request: ReleaseRequest) -> Plan:
    """The release of those of the names that this host has; nothing if it has none."""
    known = {a.name for a in state.ledger.allocations}
    names = tuple(name for name in request.names if name in known)
    return make_release(state, replace(request, names=names)) if names else Plan("release")
