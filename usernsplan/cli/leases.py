"""What volumes and release do for other hosts of a fleet: --fleet, --end-lease and --of."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from usernsplan.cli.emit import emit
from usernsplan.cli.options import agreed, note
from usernsplan.errors import ExitStatus, InvalidValueError, UnknownNameError
from usernsplan.escape import line
from usernsplan.host.files import layout_at
from usernsplan.ledger import member
from usernsplan.ledger.leases import Lease, Leases
from usernsplan.ledger.postgres import Server
from usernsplan.report import volumes as report

if TYPE_CHECKING:
    from collections.abc import Sequence


def volumes(root: str, *, end: str | None, as_json: bool, yes: bool, others: bool) -> None:
    """List the leases of the fleet; first end one. ``others``: there are words that do not go with it."""
    if others or (yes and end is None):
        raise InvalidValueError(
            "--fleet and --end-lease go with no name and no other option",
            hint="leave the others out",
        )
    leases = _leases(root)
    if end is not None and not _end(leases, end, yes=yes, as_json=as_json):
        sys.exit(ExitStatus.FAILED)
    emit(report.leases(leases.listed()), as_json=as_json)


def forget(root: str, names: Sequence[str], host: str, *, yes: bool) -> None:
    """Ask, and end the quarantine of ranges that a host which left the fleet had."""
    leases = _leases(root)
    question = "Does no file anywhere carry the ids that these names had on it?"
    if not yes and not agreed(
        f"{line(host)} left the fleet and cannot search its files. {question}"
    ):
        sys.exit(ExitStatus.FAILED)
    for name in names:
        leases.forget_left(host, name)
        note([f"{line(name)} is no longer quarantined for {line(host)}"])


def _leases(root: str) -> Leases:
    layout = layout_at(root, exists=True)
    who = member.read(layout)
    if who is None:
        raise UnknownNameError(
            "this host is in no fleet", hint=f"{layout.inline('volumes')} lists its own volumes"
        )
    return Leases(layout, Server(who.url), who.host)


def _end(leases: Leases, which: str, *, yes: bool, as_json: bool) -> bool:
    """Ask, and end a lease. False if the answer is no."""
    host, _, run = which.rpartition("/")
    found = [one for one in leases.listed() if (one.host, one.run) == (host, run)]
    if not any(one.ended is None for one in found):
        raise UnknownNameError(
            f"{line(which)} has no lease that could be ended",
            hint="write HOST/RUN as volumes --fleet shows them",
            option="end-lease",
        )
    if not yes:
        if as_json:
            raise InvalidValueError("--json cannot prompt", hint="use --yes")
        note(_risk(one) for one in found)
        if not agreed("Will that host never finish this run?"):
            return False
    leases.give_up(host, run)
    return True


def _risk(one: Lease) -> str:
    left = (
        "its files may have the ids of two containers, or staging ids, and only that host's journal"
        " knows which; 'find-owned' looks for them"
        if one.changing
        else "it has changed nothing yet"
    )
    return f"{line(one.path)}, run {line(one.run)} of {line(one.host)} since {one.since}: {left}"
