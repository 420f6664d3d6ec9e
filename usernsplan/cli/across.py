"""The commands that look, for --host and --fleet: the ledger of the fleet instead of this host."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from usernsplan.cli.emit import emit
from usernsplan.cli.options import note
from usernsplan.errors import ExitStatus, InvalidValueError, UnknownNameError
from usernsplan.escape import line
from usernsplan.ledger.views import Views
from usernsplan.report import across as report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.fleetwide import NameSeen
    from usernsplan.formats.accounts import Accounts
    from usernsplan.ids import IdRange, IdSet
    from usernsplan.layout import Layout
    from usernsplan.report.colour import Paint
    from usernsplan.space import Capacity, Space


def views(layout: Layout, host: str | None, **others: object) -> Views:
    """The ledger of the fleet. Raises InvalidValueError for options that are about this host alone."""
    option = "host" if host else "fleet"
    for name, value in others.items():
        if value:
            raise InvalidValueError(
                f"--{option} does not go with --{name.replace('_', '-')}",
                hint="leave out one of them: this is about the ledger of the fleet, not about this host",
            )
    return Views(layout, host, option=option)


def list_(found: Views, *, as_json: bool) -> None:
    """List: a name once where hosts agree."""
    emit(report.names(_of(found), found.hosts(), found.names(), found.released()), as_json=as_json)


def show(found: Views, name: str, *, as_json: bool) -> None:
    """Show a name."""
    seen, wishes = _named(found, name), [one for one in found.wishes() if one.name == name]
    recorded = (found.volumes(name), found.mounts(name)) if found.host else ()
    emit(report.name(_of(found), seen, wishes, *recorded), as_json=as_json)


def whois(found: Views, ids: Sequence[int], *, as_json: bool) -> None:
    """Show which names of which hosts have ids, and which hosts have them of their own."""
    emit(report.whose(_of(found), ids, found.whose(ids)), as_json=as_json)


def in_container(
    found: Views, name: str, words: Sequence[str], image: Accounts, *, as_json: bool
) -> None:
    """Show the host ids of a container's ids, where hosts agree about them."""
    from usernsplan.cli.whois import inside  # noqa: PLC0415 - it imports this module

    seen = _named(found, name)
    if len({one.allocation.mapping for one in seen}) > 1:
        raise InvalidValueError(
            f"'{name}' has not the same ids on all hosts",
            hint="name one of them: --host HOST; 'usernsplan check --fleet' says where they differ",
        )
    inside(seen[0].allocation, name, words, image, as_json=as_json)


def history(found: Views, *, as_json: bool) -> None:
    """Show the events of hosts."""
    emit(report.history(_of(found), found.events()), as_json=as_json)


def pool(layout: Layout, wanted: IdRange | None = None) -> IdSet:
    """The pool from which this host takes ranges: where other hosts look for theirs is not known here."""
    from usernsplan.claims.pool import whole_pool  # noqa: PLC0415 - only for figures
    from usernsplan.host import config, read  # noqa: PLC0415
    from usernsplan.ledger import open_ledger  # noqa: PLC0415
    from usernsplan.strategies import PerContainer  # noqa: PLC0415

    if wanted is None and (defaults := config.load(layout, None)):
        wanted = defaults.pool
    state = read.shown(layout, open_ledger(layout).state)
    return whole_pool(state, PerContainer(), wanted)


def capacity(found: Views, pool: IdSet, size: int | None, *, as_json: bool) -> None:
    """Count the ids that no host has."""
    from functools import partial  # noqa: PLC0415 - only here

    from usernsplan.report.result import Result  # noqa: PLC0415
    from usernsplan.report.scale import figures  # noqa: PLC0415
    from usernsplan.report.text import table  # noqa: PLC0415

    room = _room(found, pool, size)
    emit(
        Result(lambda: table((), figures(room)), partial(report.capacity, _of(found), room)),
        as_json=as_json,
    )


def space(found: Views, pool: IdSet) -> tuple[Space, str, str]:
    """The space of the fleet for a picture, its title, and its document."""
    from usernsplan.report import fleet_space  # noqa: PLC0415 - only here

    seen, is_whole = found.stretches()
    room = _room(found, pool, None)
    fleet = f"the fleet of {line(found.place)}"
    title = f"Ids of {line(found.host)} in {fleet}" if found.host else f"Ids of {fleet}"
    if not is_whole:
        note(["not all is shown: there are too many pieces; --host shows one host"])
    pieces = fleet_space.joined(seen)
    document = report.stretches(_of(found), pieces, room, whole=is_whole)
    return fleet_space.space(seen, room), title, document


def check(
    found: Views, layout: Layout, codes: frozenset[str], paint: Paint | None, *, as_json: bool
) -> None:
    """Print what is wrong with the fleet, and exit 1 if an error is among it."""
    from usernsplan import audit  # noqa: PLC0415 - only here
    from usernsplan.audit.fleet import CODES  # noqa: PLC0415
    from usernsplan.host import read  # noqa: PLC0415
    from usernsplan.ledger import open_ledger  # noqa: PLC0415
    from usernsplan.report import audit as shown  # noqa: PLC0415

    seen = found.checked()
    # These rules look at nothing of this host.
    state, _ = read.what_can_be_read(layout, open_ledger(layout).state)
    findings = audit.check(audit.Facts(state, fleet=seen), codes & CODES)
    notes = ["more was found than is listed; repair this first"] if seen.left_out else []
    emit(shown.result(findings, layout, paint, None, notes), as_json=as_json)
    if any(finding.severity == "error" for finding in findings):
        sys.exit(ExitStatus.FAILED)


def _room(found: Views, pool: IdSet, size: int | None) -> Capacity:
    from usernsplan.report.fleet_space import capacity  # noqa: PLC0415 - only for figures
    from usernsplan.strategies import PerContainer  # noqa: PLC0415

    chosen = PerContainer() if size is None else PerContainer(size)
    return capacity(pool, found.taken(), chosen.name, chosen.need)


def _named(found: Views, name: str) -> tuple[NameSeen, ...]:
    seen = found.name(name)
    if not seen:
        where = f"on {line(found.host)}" if found.host else "in the fleet"
        raise UnknownNameError(
            f"nothing is allocated under the name '{name}' {where}",
            hint="'usernsplan list --fleet' shows what is allocated",
        )
    return seen


def _of(found: Views) -> report.Of:
    return report.Of(found.place, found.host)
