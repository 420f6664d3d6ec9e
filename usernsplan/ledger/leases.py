"""Which host of a fleet works on which volume, so that no two work on one at once.

A lease ends when its run has come to its end, and never by time: a host that lost its connection, or
was killed, may have left a volume half-way, and only its own journal can finish or undo that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError, UsernsplanError
from usernsplan.escape import line, shell, shown_path, utf8
from usernsplan.host import runs
from usernsplan.ledger.postgres import arrays
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.layout import Layout
    from usernsplan.ledger.postgres import Server

DONE, IN_PART, UNDONE, GIVEN_UP, NOTHING = "done", "done in part", "undone", "given up", ""


class Asked(NamedTuple):
    """A run that asks for a lease: its name, and for whom it does what.

    ``work`` tells the ids that it moves. ``volumes`` are paths, each with its host.identity.Identity.
    """

    run: str
    container: str
    method: str
    work: str
    volumes: tuple[tuple[str, tuple[str, str, str]], ...]


class Lease(NamedTuple):
    """A volume that a run of a host works on, or did. ``ended`` is None while it keeps others away.

    ``outcome`` is how it ended, and ``role`` who ended it. ``changing``: it may have changed something.
    Times are UTC, ISO 8601.
    """

    host: str
    path: str
    container: str
    run: str
    method: str
    since: str
    ended: str | None
    outcome: str
    role: str
    changing: bool


class Other(NamedTuple):
    """The run of another host that moved the same ids in a volume last."""

    host: str
    run: str
    path: str
    outcome: str


class Leases:
    """The leases of one host. Every method raises LedgerUnreachableError without an answer."""

    def __init__(self, layout: Layout, server: Server, host: str) -> None:
        self._layout, self._server, self._host = layout, server, host

    def take(self, asked: Asked) -> int:
        """Keep others from these volumes, or go on to do so; returns the token.

        Raises RefusedError if a host is at work on one, or was interrupted there.
        """
        [(token, *other)] = self._server.rows(
            "SELECT * FROM usernsplan.take_lease(%s, %s, %s, %s, %s, "
            "%s::text[], %s::text[], %s::text[], %s::text[])",
            self._host,
            asked.run,
            asked.container,
            asked.method,
            asked.work,
            *_columns(asked),
            [utf8(path) for path, _ in asked.volumes],
        )
        if token is None:
            raise self._refused(*other)
        return int(token)

    def check(self, token: int) -> None:
        """Before something changes. Raises RefusedError if the lease was ended."""
        self._server.rows("SELECT usernsplan.check_lease(%s, %s)", self._host, token)

    def end(self, token: int, outcome: str) -> None:
        """Let others have the volumes of a lease."""
        self._server.rows("SELECT usernsplan.end_lease(%s, %s, %s)", self._host, token, outcome)

    def moved_by(self, asked: Asked) -> Other | None:
        """The run of another host that did the same last in these volumes."""
        found = self._server.rows(
            "SELECT * FROM usernsplan.moved_by(%s, %s, %s::text[], %s::text[], %s::text[])",
            self._host,
            asked.work,
            *_columns(asked),
        )
        return Other(*found[0]) if found else None

    def listed(self) -> list[Lease]:
        """All leases of the fleet: those that keep others away, and the last that ended."""
        return [Lease(*row) for row in self._server.rows("SELECT * FROM usernsplan.leases()")]

    def give_up(self, host: str, run: str) -> None:
        """As an operator, end the lease of a run that its host will never finish."""
        self._server.rows("SELECT usernsplan.give_up_lease(%s, %s)", host, run)

    def forget_left(self, host: str, name: str) -> None:
        """As an operator, end the quarantine of ids that a host which left had under a name."""
        self._server.rows("SELECT usernsplan.forget_left(%s, %s)", host, name)

    def settle(self) -> None:
        """End the leases of this host whose runs have come to their end, and could not say so."""
        rows = self._server.rows(
            "SELECT DISTINCT l.token, l.run, l.changing FROM usernsplan.lease l "
            "JOIN usernsplan.host o ON o.number = l.host WHERE o.name = %s AND l.ended IS NULL",
            self._host,
        )
        for token, run, is_changing in rows:
            outcome = _outcome(self._layout, run, is_changing=is_changing)
            if outcome is not None:
                self.end(token, outcome)

    def _refused(  # noqa: PLR0913, PLR0917 - the columns of a lease
        self, host: str, run: str, path: str, since: str, outcome: str, role: str
    ) -> RefusedError:
        command = self._layout.command
        if outcome == GIVEN_UP:
            return RefusedError(
                f"{line(role)} gave up the run {line(run)} of this host on {shown_path(path)}: others"
                " may have changed that since, so its journal is of no use any more",
                hint=runs.away(self._layout, run),
            )
        whose = "this host" if host == self._host else f"the host {line(host)}"
        words = f"volumes --end-lease {shell(f'{host}/{run}')}"
        return RefusedError(
            f"{whose} has been at work on {shown_path(path)} since {since} (run {line(run)}), or was"
            " interrupted there; nothing was changed",
            hint=f"wait for it, or finish or undo the run there; '{command('volumes --fleet')}' shows"
            f" it. If {line(host)} will never finish it, an operator ends its lease: {command(words)}",
        )


def outcome_of(state: str, *, whole: bool) -> str | None:
    """What the state of a run on disk says of its lease; None if that goes on. Pure."""
    if state == runs.LOOKING:
        return NOTHING
    if state == runs.DONE:
        return DONE if whole else IN_PART
    return UNDONE if state == runs.UNDONE else None


def _outcome(layout: Layout, run: str, *, is_changing: bool) -> str | None:
    """How a run that left its lease has ended; None if it has not, or nobody can know."""
    try:
        if runs.is_at_work(layout, run):
            return None
        found = runs.content(layout, run)
    except UsernsplanError:
        return None
    if found is None:
        # A journal that was lost after the first change: nobody knows what is half-way there.
        return None if is_changing else NOTHING
    return outcome_of(found["state"], whole=found.get("whole") is True)


def _columns(asked: Asked) -> Iterable[Sequence[object]]:
    return arrays([identity for _, identity in asked.volumes], 3)
