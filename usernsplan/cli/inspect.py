"""The command inspect."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from usernsplan import lookup
from usernsplan.cli.emit import emit
from usernsplan.cli.options import Json, note, note_interrupted
from usernsplan.errors import InvalidValueError, UsernsplanError
from usernsplan.host import namespaces, process
from usernsplan.host.files import layout_at
from usernsplan.ids import IdSet
from usernsplan.ledger import open_ledger
from usernsplan.report import process as report
from usernsplan.whose import privileges
from usernsplan.whose.ids import answers, read_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.model import Namespace
    from usernsplan.whose.ids import IdContext

# So often a process is looked at again that is changing while it is looked at.
_TRIES = 5


def inspect(
    pid: Annotated[
        Optional[str], typer.Argument(metavar="[PID]", help="A process of this machine.")
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every user namespace of this machine instead.")
    ] = False,
    json: Json = False,
) -> None:
    """Tell what a process may do, and as whom.

    Shows its user namespace, its ids and its capabilities, and what follows from them.

    \b
    Examples:
      usernsplan inspect 4711
      pid=$(podman inspect --format '{{.State.Pid}}' web) && usernsplan inspect $pid
      usernsplan inspect --all
    """
    if (pid is None) != all_:
        raise InvalidValueError(
            "which process?" if pid is None else "--all with a PID", hint="say one: PID or --all"
        )
    if not namespaces.is_first():
        note(["this runs in a user namespace itself: 'the host' is what can be seen from here"])
    if pid is None:
        _all(as_json=json)
    else:
        _one(pid, as_json=json)


def _one(word: str, *, as_json: bool) -> None:
    number = read_id(word)
    if not number:
        raise InvalidValueError(
            f"{word!r} is no process", hint="a PID is a decimal number from 1 on"
        )
    for _ in range(_TRIES):
        before = process.status(number)
        found = namespaces.running()
        line = namespaces.around(number, found)
        # One that ends meanwhile is told as that, and not by what is left of it.
        status = process.status(number)
        if replace(before, state=status.state) == status and line == namespaces.around(
            number, found
        ):
            break
    else:
        raise UsernsplanError(
            f"process {number} does not stay as it is for long enough to be looked at"
        )
    owners = [namespace.owner for namespace in line or () if namespace.owner is not None]
    ids = {*status.uids.all(), *status.gids.all(), *status.groups, *owners}
    facts = _facts(ids, line or (), found)
    one = privileges.Process(
        number, status, line, facts, answers(ids, facts), namespaces.is_first()
    )
    said = privileges.sentences(status, line, initial=one.initial)
    emit(report.result(one, said), as_json=as_json)
    note_interrupted(facts.ledger)


def _all(*, as_json: bool) -> None:
    found = namespaces.running()
    owners = {namespace.owner for namespace in found if namespace.owner is not None}
    facts = _facts(owners, found, found)
    names = {
        namespace.inode: process.name(namespace.pids[0]) for namespace in found if namespace.pids
    }
    complete = namespaces.sees_all() and namespaces.is_first()
    emit(report.all_namespaces(found, names, facts, complete=complete), as_json=as_json)
    note_interrupted(facts.ledger)


def _facts(ids: set[int], of: Iterable[Namespace], running: tuple[Namespace, ...]) -> IdContext:
    mappings = [namespace.mapping for namespace in of if namespace.mapping]
    ranges = IdSet(
        r
        for mapping in mappings
        for r in (*mapping.uids.host_ranges(), *mapping.gids.host_ranges())
    )
    layout = layout_at("/")
    facts, notes = lookup.facts(layout, open_ledger(layout), ids, ranges=ranges, namespaces=running)
    note(notes)
    return facts
