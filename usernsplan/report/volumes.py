"""The volumes of containers, as text and as JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from usernsplan.escape import line, shown_path
from usernsplan.report.json_ import document, looks_fields, mount_fields, path_fields
from usernsplan.report.result import Result
from usernsplan.report.text import ids_told, table
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.layout import Layout
    from usernsplan.ledger.leases import Lease
    from usernsplan.model import Volume, VolumeMount


class Row(NamedTuple):
    """A volume of a container, by the name of this and by path; ``at`` is a mount point or "".

    ``wrong`` are facts with their remedies. Either ``volume`` or ``mount`` is what the ledger has.
    ``is_told``: the kernel tells the map of the mount.
    """

    name: str
    path: str
    at: str = ""
    wrong: tuple[tuple[str, str], ...] = ()
    volume: Volume | None = None
    mount: VolumeMount | None = None
    is_told: bool = False


def result(rows: Sequence[Row], layout: Layout) -> Result:
    """What volumes shows."""
    return Result(
        partial(_text, rows, layout),
        lambda: document("volumes", volumes=[_fields(row, layout) for row in rows]),
    )


def _text(rows: Sequence[Row], layout: Layout) -> str:
    if not rows:
        return "No volume is recorded."
    headers = ("container", "volume", "method", "mode", "mounted at", "ids on disk", "lasting")
    parts = [table((*headers, "looks"), [_cells(row, layout) for row in rows])]
    wrong = [
        (shown_path(layout.path(row.at or row.path)), row.name, _told(fact, remedy))
        for row in rows
        for fact, remedy in row.wrong
    ]
    if wrong:
        parts.append(table(("volume", "container", "what is wrong, and the remedy"), wrong))
    return "\n\n".join(parts)


def _told(fact: str, remedy: str) -> str:
    return f"{fact}\n{remedy}" if remedy else fact


def _cells(row: Row, layout: Layout) -> tuple[str, ...]:
    path, looks = shown_path(layout.path(row.path)), "wrong" if row.wrong else "right"
    if (mount := row.mount) is None:
        volume = row.volume
        mode = " ".join(filter(None, (volume.mode, volume.user))) if volume else ""
        return row.name, path, "chown", mode, "", "", "", looks
    mode = " ".join(filter(None, (mount.mode, mount.user)))
    at = shown_path(layout.path(mount.at)) + (" (ro)" if "ro" in mount.options else "")
    if not row.wrong and not row.is_told:
        looks = "right; map not told"
    lasting = "yes" if mount.lasting else "no"
    return row.name, path, "idmap", mode, at, ids_told(mount.mapping), lasting, looks


def _fields(row: Row, layout: Layout) -> dict[str, Any]:
    mount, volume = row.mount, row.volume
    known = mount or volume
    return {
        **path_fields(layout.path(row.path)),
        "container": row.name,
        "method": "idmap" if mount else "chown",
        "mode": known.mode if known else None,
        "user": (known.user if known else "") or None,
        "mount": None if mount is None else mount_fields(mount, layout),
        "map_told": row.is_told if mount else None,
        **looks_fields(row.wrong),
    }


def leases(found: Sequence[Lease]) -> Result:
    """What volumes --fleet shows: who works, or worked last, on which volume of all hosts."""
    return Result(
        partial(_leases_text, found),
        lambda: document("leases", leases=[_lease_fields(one) for one in found]),
    )


def _leases_text(found: Sequence[Lease]) -> str:
    if not found:
        return "No host of the fleet has given a volume to a container yet."
    headers = ("host", "volume", "container", "run", "method", "since", "ended", "state")
    rows = [
        (o.host, o.path, o.container, o.run, o.method, o.since, o.ended or "", _state(o))
        for o in found
    ]
    return table(headers, [tuple(map(line, row)) for row in rows])


def _state(lease: Lease) -> str:
    if lease.ended is None:
        return "at work, or interrupted"
    return f"{lease.outcome} by {lease.role}" if lease.outcome == "given up" else lease.outcome


def _lease_fields(lease: Lease) -> dict[str, Any]:
    return {
        "host": lease.host,
        "path": lease.path,
        "container": lease.container or None,
        "run": lease.run,
        "method": lease.method,
        "since": lease.since,
        "ended": lease.ended,
        "outcome": lease.outcome or None,
        "role": lease.role,
    }
