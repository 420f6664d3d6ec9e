"""A name that other hosts of the fleet have: here it gets the same ids. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError, concerning
from usernsplan.ids import IdRange
from usernsplan.strategies import Shared
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.model import Fleet, HostState, Known
    from usernsplan.planner.resolve import Wanted


def as_in_fleet(state: HostState, wanted: Wanted) -> Wanted:
    """The same with the range that the name has in the fleet, so that a shared volume fits every host.

    Where hosts have the name, theirs; else the one that is quarantined for it. Raises RefusedError if
    the request is for other ids.
    """
    fleet = state.ledger.fleet
    is_open = not (wanted.known or wanted.local or wanted.within)
    if fleet is None or not is_open or isinstance(wanted.strategy, Shared):
        return wanted
    found = list(_known(fleet, wanted.name))
    if not found:
        return wanted

    where = ", ".join(
        dict.fromkeys(host for one in found for host in (*one.held, *one.quarantined))
    )
    spans = {(one.start, one.stop) for one in found}
    other = "use another name, or --local for ids that only this host has under it"
    if len(spans) > 1:
        raise RefusedError(
            f"in the fleet, '{wanted.name}' has several ranges (on {where}); no request means these",
            hint=other,
        )
    [(start, stop)] = spans
    ids = IdRange(start, stop - start)
    need = wanted.strategy.need
    if need is None or need.count != ids.count:
        raise RefusedError(
            f"in the fleet, '{wanted.name}' has {ids} (on {where}), which is {ids.count} ids",
            hint=other,
        )
    if wanted.start is not None and wanted.start != ids.start:
        with concerning(wanted.name, "start"):
            raise RefusedError(
                f"in the fleet, '{wanted.name}' has {ids} (on {where})",
                hint=f"leave the start out: this host gets {ids} too",
                option="start",
            )
    return replace(wanted, start=ids.start, is_of_fleet=True)


def _known(fleet: Fleet, name: str) -> Iterator[Known]:
    found = [one for one in fleet.known if one.name == name]
    yield from [one for one in found if one.held] or found
