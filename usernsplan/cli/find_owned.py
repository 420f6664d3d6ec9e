"""The command find-owned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from usernsplan.cli import say
from usernsplan.cli.options import Json, Root, note_interrupted, stream, write_result
from usernsplan.errors import InvalidValueError, UnknownNameError
from usernsplan.host.files import layout_at
from usernsplan.ids import IdRange, IdSet
from usernsplan.ledger import open_ledger
from usernsplan.volume import owned
from usernsplan.whose.ids import read_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.mapping import Mapping
    from usernsplan.model import LedgerState, Place
    from usernsplan.volume.owned import Hit, Wanted

_PART = 3


def find_owned(
    what: Annotated[str, typer.Argument(metavar="NAME|FIRST-LAST|ID", help="A container, a released one, or ids.")],
    dirs: Annotated[list[str], typer.Argument(metavar="DIR...", help="Where to look, below these folders.")],
    count: Annotated[bool, typer.Option("--count", help="How many, by what the id is to them, and by id.")] = False,
    null: Annotated[bool, typer.Option("--null", "-0", help="End each path with NUL, its bytes as they are.")] = False,
    cross_mounts: Annotated[bool, typer.Option("--cross-mounts", help="Enter what is mounted inside.")] = False,
    root: Root = "/",
    json: Json = False,
) -> None:
    """Find what carries ids of a range: as owner, as group, in an ACL, or as the root of a capability.

    Nothing is changed, and no symlink is followed. Exit status 3: something could not be looked at, and was named.

    \b
    Examples:
      usernsplan find-owned web /srv /var/lib
      usernsplan find-owned 1310720-1376255 --count /srv
      usernsplan find-owned web --null /srv | xargs -0 ls -ld
    """
    if null and (count or json):
        raise InvalidValueError("--null with --count or --json", hint="it is about a list of paths")
    layout = layout_at(root, exists=True)
    ledger = open_ledger(layout).state()
    wanted, mapping = _wanted(what, ledger)
    tops = [(owned.top_of(layout, path), path if layout.is_host else "") for path in dirs]
    missed: list[Place] = []

    def miss(place: Place) -> None:
        from usernsplan.report.text import shown_path  # noqa: PLC0415 - only where something is to be said

        missed.append(place)
        if not json:
            say(f"{shown_path(place.path)}: {place.reason}")

    def hits() -> Iterator[Hit]:
        for top, shown in tops:
            yield from owned.find(top, shown or top, wanted, cross_mounts=cross_mounts, miss=miss)

    if count:
        _count(what, hits(), missed, mapping, as_json=json)
    elif json:
        from usernsplan.report import owned as report  # noqa: PLC0415 - one of the three

        stream(report.streamed(what, hits(), missed))
    else:
        stream(_paths(hits(), null=null))
    note_interrupted(ledger)
    if missed:
        raise typer.Exit(_PART)


def _paths(hits: Iterator[Hit], *, null: bool) -> Iterator[str | bytes]:
    import os  # noqa: PLC0415

    from usernsplan.report.text import shown_path  # noqa: PLC0415 - one of the three

    for hit in hits:
        yield os.fsencode(hit.path) + b"\0" if null else shown_path(hit.path)


def _count(what: str, hits: Iterator[Hit], missed: Sequence[Place], mapping: Mapping | None, *, as_json: bool) -> None:
    from usernsplan.report import owned as report  # noqa: PLC0415 - one of the three

    found = owned.Count()
    for hit in hits:
        found.add(hit)
    found.missed += missed
    write_result(report.count_document(what, found, mapping) if as_json else report.count(found, mapping))


def _wanted(what: str, ledger: LedgerState) -> tuple[Wanted, Mapping | None]:
    """The ids that are meant: an allocation's come before a number that is spelt as its name."""
    for allocation in ledger.allocations:
        if allocation.name == what:
            mapping = allocation.mapping
            held = IdSet((allocation.held,) if allocation.held else ())
            uids, gids = IdSet(mapping.uids.host_ranges()), IdSet(mapping.gids.host_ranges())
            return owned.Wanted(uids | held, gids | held), mapping
    released = IdSet(q.held for q in ledger.quarantined if q.name == what)
    if not released:
        number = read_id(what)
        try:
            released = IdSet((IdRange.parse(what) if number is None else IdRange(number, 1),))
        except InvalidValueError as error:
            if what[:1].isdigit() and "-" in what:
                raise InvalidValueError(f"'{what}' is no range: {error}", hint=error.hint) from error
            raise UnknownNameError(
                f"'{what}' is neither allocated nor released, and no range of ids",
                hint="'usernsplan list' shows both; a range is FIRST-LAST",
            ) from error
    return owned.Wanted(released, released), None
