"""The part of a plan file that is for one host of a fleet, and what others are asked for. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError, did_you_mean
from usernsplan.formats.spec import SpecContainer
from usernsplan.values import NamedTuple, replace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.formats.spec import Spec

EVERY = "*"
# Of a container, what another host can be asked for: a name, its range, and where it stands in the file.
_ASKABLE = frozenset({"name", "line", "at", "start", "options", "lines"})


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
        if key not in _ASKABLE and getattr(one, key) != getattr(plain, key):
            raise InvalidFileError(
                f"{spec.place}:{one.line}",
                f"{one.at}: '{one.name}' is for other hosts too, which can be asked for a name, its "
                f"start and the options of the strategy, but not for {key.replace('_', '-')}",
                hint="leave it out here, and give it on the host itself",
            )
