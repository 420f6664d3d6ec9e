"""The command inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

from usernsplan import lookup
from usernsplan.cli.emit import emit
from usernsplan.cli.options import Json, note, note_interrupted
from usernsplan.cli.words import Argument, Option
from usernsplan.errors import InvalidValueError, UsernsplanError
from usernsplan.holdings import runs_as
from usernsplan.host import namespaces, process
from usernsplan.host.files import layout_at
from usernsplan.ids import IdSet, read_id
from usernsplan.ledger import open_ledger
from usernsplan.report import process as report
from usernsplan.values import replace
from usernsplan.whose import policies, privileges
from usernsplan.whose.ids import answers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.model import Namespace
    from usernsplan.whose.ids import IdContext

# How often to read a process again that changes while it is read.
_TRIES = 5


def inspect(
    pid: Annotated[Optional[str], Argument(metavar="[PID]", help="Process to show.")] = None,
    all_: Annotated[
        bool, Option("--all", help="List every user namespace of this machine instead.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what a process may do, and with which ids.

    Shows its user namespaces, ids and capabilities, and explains what they permit. Root sees the
    namespaces of all processes, other users only those of their own.

    \b
    Examples:
      usernsplan inspect 4711
      pid=$(podman inspect --format '{{.State.Pid}}' web) && usernsplan inspect $pid
      usernsplan inspect --all
    """
    if (pid is None) != all_:
        fact = "PID is missing" if pid is None else "--all does not go with a PID"
        raise InvalidValueError(fact, hint="name one PID, or use --all")
    if not namespaces.is_first():
        note(["usernsplan runs in a user namespace itself: 'the host' is what it sees from there"])
    if pid is None:
        _all(as_json=json)
    else:
        _one(pid, as_json=json)


def _one(word: str, *, as_json: bool) -> None:
    number = read_id(word)
    if not number:
        raise InvalidValueError(f"{word!r} is not a PID", hint="use a decimal number of at least 1")
    for _ in range(_TRIES):
        before = process.status(number)
        found = namespaces.running()
        line = namespaces.around(number, found)
        # If the process ends while we read it, this raises: we do not show what is left of it.
        status = process.status(number)
        if replace(before, state=status.state) == status and line == namespaces.around(
            number, found
        ):
            break
    else:
        raise UsernsplanError(
            f"process {number} changes too fast to read", hint="run the command again"
        )

    owners = [namespace.owner for namespace in line or () if namespace.owner is not None]
    ids = {*status.uids.all(), *status.gids.all(), *status.groups, *owners}
    facts = _facts(ids, line or (), found)
    one = privileges.Process(
        number, status, line, facts, answers(ids, facts), namespaces.is_first()
    )
    said = privileges.sentences(status, line, initial=one.initial)
    if line and (its := runs_as(facts.ledger.allocations, line[-1].mapping)) and its.policy:
        said += policies.sentences(status, its, facts.layout)
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
