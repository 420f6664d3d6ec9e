"""Names and ids that other hosts of the fleet have: a name gets the same ids here. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError, concerning
from usernsplan.escape import line
from usernsplan.ids import IdRange
from usernsplan.mapping import KINDS
from usernsplan.strategies import Shared
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.layout import Layout
    from usernsplan.model import Clash, Fleet, HostState, Known
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


def refused(clashes: Sequence[Clash], layout: Layout) -> RefusedError:
    """The error for a decision that gives this host ids of others, or a name other ids than elsewhere."""
    show = layout.inline("list --fleet")
    is_of_names = all(one.name == one.other for one in clashes)
    hint = (
        "a name has the same ids on every host: use another name, or release it there first"
        if is_of_names
        else "take other ids, or release the name there first"
    )
    error = RefusedError(
        "other hosts of the fleet have these names or ids; nothing was changed",
        hint=f"{hint}; {show} shows who has what",
    )
    error.lines = (str(error), *clash_lines(clashes))
    return error


def clash_lines(clashes: Iterable[Clash]) -> Iterator[str]:
    """A line for each clash; one for uids and gids that clash alike."""
    kinds: dict[Clash, list[str]] = {}
    for clash in clashes:
        kinds.setdefault(clash._replace(kind=""), []).append(clash.kind)
    for clash, found in kinds.items():
        words = " and ".join(f"{kind}s" for kind in KINDS if kind in found)
        ids = f"{words} {clash.start}-{clash.stop - 1}"
        where = line(clash.hosts)
        if clash.name == clash.other:
            yield f"  '{line(clash.name)}' has the {ids} on {where}, and other ids here"
        else:
            yield f"  {ids} of '{line(clash.name)}' here are those of '{line(clash.other)}' on {where}"


def _known(fleet: Fleet, name: str) -> Iterator[Known]:
    found = [one for one in fleet.known if one.name == name]
    yield from [one for one in found if one.held] or found
