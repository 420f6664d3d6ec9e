"""The command find-owned."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

from usernsplan.cli import say
from usernsplan.cli.emit import emit
from usernsplan.cli.options import Json, Root, note, note_interrupted
from usernsplan.cli.words import Argument, Option
from usernsplan.engines import engine_of_pool
from usernsplan.errors import (
    ExitStatus,
    InvalidValueError,
    NotPermittedError,
    UnknownNameError,
    did_you_mean,
)
from usernsplan.escape import shown_path
from usernsplan.holdings import own_ids
from usernsplan.host.files import layout_at
from usernsplan.ids import IdRange, IdSet, read_id
from usernsplan.layout import lies_in
from usernsplan.ledger import open_ledger
from usernsplan.mapping import KINDS
from usernsplan.model import LedgerState
from usernsplan.report import owned as report
from usernsplan.strategies import Shared
from usernsplan.volume import owned, search

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.fixing import Place
    from usernsplan.layout import Layout
    from usernsplan.mapping import Kind, Mapping
    from usernsplan.model import Allocation, VolumeMount
    from usernsplan.volume.owned import Found, Wanted

_FEW = 5


def find_owned(
    what: Annotated[
        str,
        Argument(
            metavar="NAME|FIRST-LAST|ID",
            help="A name (allocated or quarantined), a range, or an id.",
        ),
    ],
    dirs: Annotated[list[str], Argument(metavar="DIR...", help="Folders to search.")],
    count: Annotated[
        bool, Option("--count", help="Print only numbers: by role and by id.")
    ] = False,
    null: Annotated[
        bool,
        Option("--null", "-0", help="End each path with NUL instead of a line end; no escapes."),
    ] = False,
    cross_mounts: Annotated[
        bool, Option("--cross-mounts", help="Also search file systems mounted below DIR.")
    ] = False,
    root: Root = "/",
    json: Json = False,
) -> None:
    """Find files that carry ids of a range.

    Searches owners, groups, ACLs and the root ids of capabilities. Changes nothing and follows no
    symlink. With --cross-mounts, too, no idmapped mount of ours below DIR is searched: its files have
    other ids on disk, at its source. Host ids that pass through to a container are the host's: search for them by number.
    Exits 3 if it cannot examine something, and lists that.

    \b
    Examples:
      usernsplan find-owned web /srv /var/lib
      usernsplan find-owned 1310720-1376255 --count /srv
      usernsplan find-owned web --null /srv | xargs -0 ls -ld
    """
    if null and (count or json):
        raise InvalidValueError(
            "--null does not go with --count or --json",
            hint="leave out --null: it is for a list of paths",
        )

    layout = layout_at(root, exists=True)
    ledger = _ledger(layout, what)
    wanted, mapping = _wanted(what, ledger)
    tops = {owned.top_of(layout, path): path if layout.is_host else "" for path in reversed(dirs)}
    ours = _standing(layout, ledger)
    kept, left_out = owned.each_once(reversed(tops), cross_mounts=cross_mounts, closed=ours)
    met = [
        (mount, searched)
        for place, mount in ours.items()
        if (searched := any(lies_in(top, place) for top in kept)) or place in left_out
    ]
    missed: list[Place] = []

    def miss(place: Place) -> None:
        missed.append(place)
        if not json:
            say(f"{shown_path(place.path)}: {place.reason}")

    def found() -> Iterator[Found]:
        for top in kept:
            yield from search.find(
                top, tops[top] or top, wanted, cross_mounts=cross_mounts, closed=ours, miss=miss
            )

    if count:
        counted = owned.Count(missed=missed)
        for one in found():
            counted.add(one)
        emit(
            report.counted(what, counted, mapping, report.Met(left_out, met, layout)), as_json=json
        )
    else:
        emit(
            report.found(what, found(), missed, report.Met(left_out, met, layout), null=null),
            as_json=json,
        )
    note(_left_out([point for point in left_out if point not in ours]))
    note(report.shown_otherwise(mount, layout, searched=searched) for mount, searched in met)
    note_interrupted(ledger)
    if missed:
        sys.exit(ExitStatus.DONE_IN_PART)


def _standing(layout: Layout, ledger: LedgerState) -> dict[str, VolumeMount]:
    """By real mount point, the recorded mounts that stand."""
    if not ledger.mounts:
        return {}
    from usernsplan.host.standing import standing  # noqa: PLC0415 - most hosts have no mounts

    now = standing()
    places = ((layout.place(mount.at), mount) for mount in ledger.mounts)
    return {place: m for place, m in places if place in now and now[place].mount.is_idmapped}


def _left_out(points: Sequence[str]) -> Iterator[str]:
    """The mounts that were not searched: files below them may carry the ids too."""
    if points:
        few = ", ".join(shown_path(point) for point in points[:_FEW])
        more = f" and {len(points) - _FEW} more" if len(points) > _FEW else ""
        yield f"not searched, because mounted: {few}{more}; use --cross-mounts"


def _ledger(layout: Layout, what: str) -> LedgerState:
    """The state of the ledger; empty if this user may not read it and ``what`` is a range."""
    try:
        return open_ledger(layout).state()
    except NotPermittedError:
        if _ids(what) is None:
            raise
        return LedgerState()


def _wanted(what: str, ledger: LedgerState) -> tuple[Wanted, Mapping | None]:
    """The ids to search for. A name comes first: an allocation may be named like a number."""
    for allocation in ledger.allocations:
        if allocation.name == what:
            # Only the engine of a pool knows which of its ids a container has.
            shown = None if engine_of_pool(allocation) else allocation.mapping
            uids, gids = (_carried_by(allocation, kind) for kind in KINDS)
            return owned.Wanted(uids, gids), shown

    released = IdSet(q.reserved_range for q in ledger.quarantined if q.name == what)
    if not released:
        try:
            released = IdSet((_ids(what) or IdRange.parse(what),))
        except InvalidValueError as error:
            if what[:1].isdigit() and "-" in what:
                raise InvalidValueError(
                    f"'{what}' is not a range: {error}", hint=error.hint
                ) from error
            raise UnknownNameError(
                f"'{what}' is not allocated, not quarantined and not a range",
                hint=did_you_mean(
                    what,
                    [*(a.name for a in ledger.allocations), *(q.name for q in ledger.quarantined)],
                    "'usernsplan list' shows the names; a range is FIRST-LAST",
                ),
            ) from error
    return owned.Wanted(released, released), None


def _carried_by(allocation: Allocation, kind: Kind) -> IdSet:
    """The host ids that files of a container have. Ids that pass are the host's, and not counted.

    A shared container has hardly any ids but the host's.
    """
    its = own_ids(allocation, kind)
    if allocation.strategy == Shared.name:
        return its | IdSet(allocation.mapping[kind].host_ranges())
    return its


def _ids(what: str) -> IdRange | None:
    """The range of ID or FIRST-LAST; None for anything else."""
    number = read_id(what)
    if number is not None:
        return IdRange(number, 1)
    with suppress(InvalidValueError):
        return IdRange.parse(what)
    return None
