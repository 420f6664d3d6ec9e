"""What a plan file renames, and what it may have renamed without saying so. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import engine_of_pool
from usernsplan.errors import InvalidValueError, RefusedError, concerning
from usernsplan.escape import shell
from usernsplan.model import DEFAULT_NAME
from usernsplan.planner import rename
from usernsplan.planner.stories import advise

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from usernsplan.formats.spec import Spec, SpecContainer
    from usernsplan.model import Allocation, Finding, HostState


def of_spec(
    state: HostState, spec: Spec
) -> tuple[tuple[tuple[str, str], ...], tuple[Finding, ...]]:
    """The new names that the file gives with ``was``, and the findings on them.

    A container that has its new name already is done; on a host that never had the old one, it is
    a new container. Raises RefusedError or InvalidValueError for a name that cannot be given.
    """
    known = {a.name: a for a in state.ledger.allocations}
    names = {one.name for one in spec.containers}
    found: dict[str, str] = {}
    told: list[Finding] = []
    for one in spec.containers:
        if not one.was:
            continue
        with concerning(one.name, "was"):
            if one.was in names:
                raise InvalidValueError(
                    f"this file has a container '{one.was}', too",
                    hint="a name can be given to one container only",
                )
            if one.was in found:
                raise InvalidValueError(
                    f"'{one.was}' is the former name of '{found[one.was]}', too",
                    hint="one container has a former name",
                )
            if one.was not in known:
                _refuse_released(state, one.was, one.name, known)
                continue
            rename.check_new(state.ledger, state.layout, known[one.was], one.name)
        found[one.was] = one.name
        told += rename.findings(state, known[one.was], one.name)
    return tuple(found.items()), tuple(told)


def _refuse_released(state: HostState, was: str, name: str, known: Container[str]) -> None:
    """Raise RefusedError if a former name was released: its files would not be the new one's."""
    if name not in known and any(q.name == was for q in state.ledger.quarantined):
        again = state.layout.inline(f"allocate {shell(was)}")
        raise RefusedError(
            f"'{was}' was released, so '{name}' cannot get its range",
            hint=f"run {again} first, which gives it its range again; or leave this out",
        )


def maybe(spec: Spec, new: Iterable[Allocation], gone: Iterable[Allocation]) -> Iterator[Finding]:
    """A finding for each new container that may be one of this host with another name.

    ``gone`` are the allocations of this host that the file does not name.
    """
    left = [
        a for a in gone if not engine_of_pool(a) and a.name != DEFAULT_NAME and a.reserved_range
    ]
    said = {one.name: one for one in spec.containers}
    for a in new:
        if a.event or a.name not in said:
            continue
        one = said[a.name]
        same = [old for old in left if _could_be(old, a, one)]
        if len(same) == 1:
            line = f"{{name: {a.name}, was: {same[0].name}}}"
            yield advise(
                "USN171",
                f"{spec.place}:{one.line}: '{a.name}' is new here, and the file no longer names "
                f"'{same[0].name}', which has the same options",
                f"if only the name changed, write {line}: then its ids and its volumes stay",
            )


def _could_be(old: Allocation, new: Allocation, said: SpecContainer) -> bool:
    """Tell whether a new container has all that the file says in common with one of this host."""
    held = old.reserved_range
    same = (old.strategy, old.in_files, old.within, len(old.passes))
    return (
        held is not None
        and new.reserved_range is not None
        and same == (new.strategy, new.in_files, new.within, len(new.passes))
        and held.count == new.reserved_range.count
        and (said.start is None or said.start == held.start)
        and (said.owner is None or said.owner == old.owner)
    )
