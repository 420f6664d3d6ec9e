"""What ledger init, join, leave and status tell, as text and as JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from usernsplan.escape import line, shell
from usernsplan.ledger.durable import Durability, doubts
from usernsplan.report import json_
from usernsplan.report.result import Result
from usernsplan.report.text import table
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.errors import UsernsplanError
    from usernsplan.layout import Layout
    from usernsplan.ledger.fleet import Standing
    from usernsplan.model import Finding

_PREVIEW = ("dry run: nothing was written",)
_REPLICATION = {
    "none": "one server, without a standby",
    "synchronous": "each change waits for a synchronous standby",
    "asynchronous": "not each change waits for a standby",
    "unknown": "it has a standby",
}


class Init(NamedTuple):
    """A ledger of a fleet: the version that it had (None: it was made), and the one that it has."""

    place: str
    before: int | None
    version: int


class Join(NamedTuple):
    """A host that joined: its names, those that are this host's alone, those that are quarantined."""

    place: str
    host: str
    names: tuple[str, ...]
    local: tuple[str, ...]
    quarantined: tuple[str, ...]
    changed: bool
    dry_run: bool
    findings: tuple[Finding, ...] = ()


class Leave(NamedTuple):
    """A host that left. ``host`` is None if the server did not know it; ``place`` if none is known."""

    place: str | None
    host: str | None
    changed: bool
    forgotten: bool
    dry_run: bool
    findings: tuple[Finding, ...] = ()


class HostRow(NamedTuple):
    """What the server has of a host: how many events and names, and how many wishes, refused ones apart."""

    name: str
    role: str
    version: str
    joined: str
    seen: str
    event: int
    names: int
    wishes: int
    refused: int


class Status(NamedTuple):
    """A host and its fleet. ``place`` is None without one, ``agreed`` in seconds ago.

    ``names`` and ``event`` are of the host's own file; None if it is damaged. With an ``error``, the
    server could not be asked.
    """

    place: str | None = None
    host: str = ""
    agreed: int = 0
    names: int | None = None
    event: int | None = None
    version: int | None = None
    hosts: tuple[HostRow, ...] = ()
    standing: Standing | None = None
    durability: Durability | None = None
    error: UsernsplanError | None = None


def made(done: Init) -> Result:
    """What init tells."""
    return Result(partial(_init_text, done), partial(_init_document, done))


def _init_text(done: Init) -> str:
    if done.before == done.version:
        return f"{done.place} has a ledger of version {done.version} already."
    if done.before:
        return f"{done.place}: the ledger had version {done.before}; it has version {done.version} now."
    return (
        f"{done.place} has a ledger of version {done.version} now.\n\n"
        "Next:\n"
        "  CREATE ROLE host_NAME LOGIN IN ROLE usernsplan_host  # in SQL, for each host\n"
        "  usernsplan ledger join URL                           # on each host, with its role"
    )


def _init_document(done: Init) -> str:
    return json_.document(
        "ledger-init",
        changed=done.before != done.version,
        place=done.place,
        version=done.version,
        former_version=done.before,
    )


def joined(done: Join) -> Result:
    """What join tells."""
    notes = _PREVIEW if done.dry_run else ()
    return Result(partial(_join_text, done), partial(_join_document, done), done.findings, notes)


def _join_text(done: Join) -> str:
    verb = "would join" if done.dry_run else "joined"
    verb = verb if done.changed else "is already in"
    parts = [f"This host {verb} the fleet of {done.place} as '{line(done.host)}'."]
    for what, names in (
        ("names", done.names),
        ("of these, with ids that are this host's alone", done.local),
        ("quarantined", done.quarantined),
    ):
        if names:
            parts.append(f"  {what}: {', '.join(map(line, names))}")
    return "\n".join(parts)


def _join_document(done: Join) -> str:
    return json_.document(
        "ledger-join",
        changed=done.changed,
        dry_run=done.dry_run,
        place=done.place,
        host=done.host,
        names=list(done.names),
        local=list(done.local),
        quarantined=list(done.quarantined),
        findings=[json_.finding_fields(f) for f in done.findings],
    )


def left(done: Leave) -> Result:
    """What leave tells."""
    notes = _PREVIEW if done.dry_run else ()
    return Result(partial(_leave_text, done), partial(_leave_document, done), done.findings, notes)


def _leave_text(done: Leave) -> str:
    if not done.changed:
        return "This host is in no fleet."
    verb = "would leave" if done.dry_run else "left"
    where = f" of {done.place}" if done.place else ""
    first = f"This host {verb} the fleet{where}, and keeps its names and ids."
    return f"{first} The server was not asked." if done.forgotten else first


def _leave_document(done: Leave) -> str:
    return json_.document(
        "ledger-leave",
        changed=done.changed,
        dry_run=done.dry_run,
        place=done.place,
        host=done.host,
        forgotten=done.forgotten,
        findings=[json_.finding_fields(f) for f in done.findings],
    )


def status(found: Status, layout: Layout) -> Result:
    """What status tells."""
    return Result(partial(_status_text, found, layout), partial(_status_document, found, layout))


def _status_text(found: Status, layout: Layout) -> str:
    if found.place is None:
        return "This host is in no fleet."
    has = "its ledger is damaged" if found.names is None else f"{found.names} names"
    rows = [("ledger", found.place), ("this host", f"{line(found.host)}, {has}")]
    if found.standing:
        rows.append(("agreement", _agreement(found)))
    if found.error or (found.standing and found.standing.how != "agrees"):
        rows.append(("agreed last", f"{_ago(found.agreed)} ago"))
    if found.version is not None:
        rows.append(("version", str(found.version)))
    if found.durability:
        rows.append(("durability", _REPLICATION[found.durability.replication]))
    parts = [table((), rows)]
    if found.hosts:
        headers = ("host", "last seen", "usernsplan", "names", "asked for", "refused")
        cells = [
            tuple(map(line, map(str, (h.name, h.seen, h.version, h.names, h.wishes, h.refused))))
            for h in found.hosts
        ]
        parts.append(table(headers, cells))
    parts += [f"warning: {fact}\n  {remedy}" for fact, remedy in _warnings(found, layout)]
    return "\n\n".join(parts)


def _agreement(found: Status) -> str:
    how, on_server, here = found.standing or ("", 0, 0)
    return {
        "agrees": f"both have {here} events",
        "pending": "a command of this host is at work, or was interrupted",
        "ahead": f"the server has {on_server} events of this host, which has {here}",
        "behind": f"the server has {on_server} events of this host, which has {here}",
        "damaged": f"the server has all {on_server} events of this host",
        "other": "the server has events of another machine under this name",
    }[how]


def _ago(seconds: int) -> str:
    for unit, word in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds // unit} {word}"
    return f"{seconds} seconds"


def _warnings(found: Status, layout: Layout) -> Iterator[tuple[str, str]]:
    """What is wrong, each with its remedy."""
    how = found.standing.how if found.standing else ""
    if how == "other":
        yield (
            "another machine uses the name of this host, or its ledger was replaced",
            f"give one of them another name: {layout.command('ledger leave')}, then join --name NAME",
        )
    elif how not in {"", "agrees"}:
        yield (
            "this host and the server differ",
            f"bring both to one state: {layout.command('sync')}",
        )
    for refused in (h for h in found.hosts if h.refused):
        yield (
            f"{line(refused.name)} refused {refused.refused} of what it was asked for",
            f"see why, there: {shell('usernsplan', 'sync')}",
        )
    if found.durability:
        yield from doubts(found.durability)


def _status_document(found: Status, layout: Layout) -> str:
    error, standing, durability = found.error, found.standing, found.durability
    return json_.document(
        "ledger-status",
        place=found.place,
        host=found.host or None,
        names=found.names,
        event=found.event,
        agreed_seconds_ago=None if found.place is None else found.agreed,
        version=found.version,
        standing=standing.how if standing else None,
        events_on_server=standing.on_server if standing else None,
        durability=_durability_fields(durability) if durability else None,
        hosts=[host._asdict() for host in found.hosts],
        warnings=[{"fact": fact, "remedy": remedy} for fact, remedy in _warnings(found, layout)],
        error=json_.error_fields(error) if error else None,
    )


def _durability_fields(found: Durability) -> dict[str, Any]:
    return {
        "replication": found.replication,
        "synchronous_commit": found.synchronous_commit,
        "standbys": len(found.standbys),
    }
