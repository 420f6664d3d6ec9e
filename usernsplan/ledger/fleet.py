"""The ledger of a host in a fleet: its own file, and the server that all hosts share.

The file is the truth about this host. The server is the truth about who may have which ids, so a run
asks it first. The order of the steps makes every crash and every lost answer repairable:

    begin      the server notes the intent and claims the ids; then the file notes the intent
    complete   the file notes the event; then the server is told

So a claim is there before a line is, and it goes after the line is gone. What the server has not
heard yet, the next run of this host tells it (``agree``), and where the file is lost or was restored
from a backup, ``agree`` brings back what the server has.
"""

from __future__ import annotations

import json
from itertools import starmap
from typing import TYPE_CHECKING

from usernsplan.claims.of_host import Own
from usernsplan.errors import (
    DamagedLedgerError,
    LedgerError,
    MeanwhileTakenError,
    RefusedError,
    UsernsplanError,
)
from usernsplan.escape import line
from usernsplan.fleetwide import Away
from usernsplan.ledger import codec, member, open_ledger, received, schema
from usernsplan.ledger.exclusive import Hold, changed, holds
from usernsplan.ledger.fold import fold
from usernsplan.ledger.leases import Leases
from usernsplan.ledger.postgres import Server, arrays, shown
from usernsplan.model import Clash, Event, Fleet, LedgerState
from usernsplan.values import NamedTuple, replace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from usernsplan.formats.accounts import Accounts
    from usernsplan.ids import IdSet
    from usernsplan.layout import Layout
    from usernsplan.ledger.member import Member
    from usernsplan.ledger.received import Received
    from usernsplan.ledger.sqlite import SqliteLedger
    from usernsplan.model import HistoryEntry, Intent, Known, LedgerChange, Record, Wish

_WIDTH_OF_HOLD = len(Hold._fields)


class _View(NamedTuple):
    """What the server has of this host: its number, its last event, and the number of a pending run."""

    number: int
    event: int
    stamp: str
    intended: int | None
    wishes: int
    own_digest: str


class Standing(NamedTuple):
    """Whether a host's file and the server agree, and the number of the last event in each.

    ``how``: agrees; pending (a run is at work, or was interrupted); ahead or behind (the file has more
    events, or fewer); damaged (the file); other (events of another machine).
    """

    how: str
    on_server: int
    here: int


class FleetLedger:
    """The Ledger of a host in a fleet. ``asked`` are the names that a request is about."""

    def __init__(
        self,
        layout: Layout,
        local: SqliteLedger,
        who: Member,
        asked: Collection[str] = (),
        server: Server | None = None,
    ) -> None:
        self._layout, self._local, self._asked = layout, local, list(asked)
        self.member = who
        self.server = server or Server(who.url)
        self.place = local.place
        # The digest of what the server was last told of this host's own ids; "" if that is not
        # known. And hosts whose own ids count as taken, too.
        self._said = ""
        self._avoided: list[str] = []

    def away(self) -> Away | None:
        """Why the server gives no answer now; None if it does."""
        from usernsplan.ledger import reachable  # noqa: PLC0415 - only for what shows the file

        why = reachable.why_not(self.member.url)
        return (
            Away(shown(self.member.url), why, member.seconds_since(self._layout)) if why else None
        )

    def exists(self) -> bool:
        """Tell whether the host has a ledger of its own, readable or not."""
        return self._local.exists()

    def state(self) -> LedgerState:
        """What this host has; the server is not asked."""
        try:
            return self._local.state()
        except DamagedLedgerError as error:
            error.hint = f"{self._layout.inline('sync')} brings it back from the fleet's ledger"
            raise

    def deciding(self) -> LedgerState:
        """What this host has, and what others have: raises LedgerUnreachableError without the server."""
        view = self._view()
        try:
            found = self._local.state()
        except DamagedLedgerError:
            if not view.event:
                raise
            found = LedgerState()
        # A run has to bring both to one state before it decides: see agree.
        is_behind = view.event != found.number or view.intended is not None
        # A machine that was cloned has as many events as the other one.
        is_behind = is_behind or bool(found.number and not self._is_same_history(view))
        if view.event > found.number:
            found = self._received(view).state
        return replace(found, interrupted=found.interrupted or is_behind, fleet=self._fleet(view))

    def about(self, ids: IdSet) -> LedgerState:
        """The part of this host's state that concerns these host ids."""
        return self._local.about(ids)

    def published(self) -> tuple[Record, ...]:
        """The records that publish ranges of this host."""
        return self._local.published()

    def history(self, numbers: Collection[int] | None = None) -> tuple[HistoryEntry, ...]:
        """The events of this host for people."""
        return self._local.history(numbers)

    def events(self) -> tuple[Event, ...]:
        """The events of this host with their changes."""
        return self._local.events()

    def renames(self) -> tuple[Event, ...]:
        """The events of this host that gave an allocation another name."""
        return self._local.renames()

    def pending(self) -> Intent | None:
        """The intent of an interrupted run.

        One that only the server has never began here, or ``agree`` brings it back with the file.
        """
        try:
            return self._local.pending()
        except DamagedLedgerError:
            if not self._view().event:
                raise
            return None

    def agree(self) -> tuple[str, ...]:
        """Bring both places to one state, under the locks; returns what was done, for messages.

        Raises LedgerError if another machine uses the name of this host, MeanwhileTakenError if others
        have ids that this host has, and LedgerUnreachableError.
        """
        view = self._view()
        damage = self._damage()
        number = 0 if damage else self._local.stamp()[0]
        notes: tuple[str, ...] = ()
        if damage and not view.event:
            raise damage
        if not damage and not self._is_same_history(view):
            raise self._other_machine()
        if view.event > number or damage:
            had = "was damaged" if damage else f"had {number} events"
            notes = (
                f"{self.place} {had}; it has all {view.event} of the fleet's ledger again",
                *self._bring_back(view),
            )
        elif view.event < number:
            self._tell_lost(view.event)
            notes = (
                f"the fleet's ledger had {view.event} events of this host; it has all {number} now",
            )
        # The file has an intent before a run changes anything, so without one nothing was changed.
        if view.intended is not None and self._local.pending() is None:
            self.server.rows("SELECT usernsplan.drop_run(%s, %s)", self.member.host, view.intended)
            if view.intended > self._local.stamp()[0]:
                notes += ("a command was interrupted before it changed anything",)
        Leases(self._layout, self.server, self.member.host).settle()
        member.agreed(self._layout)
        return notes

    def begin(self, intent: Intent) -> None:
        """Claim the ids and note the intent, first on the server, then in the file.

        Raises MeanwhileTakenError if another host was faster.
        """
        before = self._local.state()
        number = before.number + 1
        try:
            after = fold(before, Event(number, "", intent.ledger))
        except ValueError as error:
            raise DamagedLedgerError(f"{self.place}: {error}") from error
        self.server.rows(
            "SELECT usernsplan.begin_run(%s, %s, %s, %s, %s, %s, "
            "%s::text[], %s::boolean[], %s::text[], %s::bigint[], %s::bigint[], %s::text[])",
            self.member.host,
            number,
            *codec.intent_row(intent),
            *arrays(changed(before, after), _WIDTH_OF_HOLD),
        )
        try:
            self._local.begin(intent)
        except BaseException:
            self._drop(number)
            raise

    def complete(self, entry: HistoryEntry) -> None:
        """Note the event in the file, then tell the server."""
        self._end(entry, put_back=False)

    def put_back(self, entry: HistoryEntry) -> None:
        """Note in the file that nothing changed, then tell the server."""
        self._end(entry, put_back=True)

    def salvage(self) -> LedgerState:
        """The quarantined and reserved ranges that a damaged file still shows."""
        return self._local.salvage()

    def rebuild(self, change: LedgerChange, entry: HistoryEntry) -> str | None:  # noqa: ARG002
        """Refused: the server has what the file had, and ``agree`` brings it back."""
        raise member.has_its_state(self._layout)

    def is_behind(self) -> bool:
        """Tell whether the server has events that the file lacks: for a host that joins.

        Raises LedgerError if the server has other events under this name, and DamagedLedgerError
        for a damaged file that the server does not have.
        """
        view = self._view()
        if damage := self._damage():
            if not view.event:
                raise damage
            return True
        if not self._is_same_history(view):
            raise self._other_machine()
        return view.event > self._local.stamp()[0]

    def join(self) -> None:
        """Give the fleet's ledger all that this host has."""
        self._tell_all(self._view().event)

    def clashes(self, change: LedgerChange) -> tuple[Clash, ...]:
        """What other hosts have of the ids that a change gives this host, as the server has it now."""
        before = self._local.state()
        try:
            after = fold(before, Event(before.number + 1, "", change))
        except ValueError:
            # A command was interrupted: it is repaired first, and then begin asks.
            return ()
        new = changed(before, after)
        if not any(hold.state for hold in new):
            return ()
        rows = self.server.rows(
            "SELECT * FROM usernsplan.would_clash(%s, "
            "%s::text[], %s::boolean[], %s::text[], %s::bigint[], %s::bigint[], %s::text[])",
            self.member.host,
            *arrays(new, _WIDTH_OF_HOLD),
        )
        return tuple(starmap(Clash, rows))

    def in_the_way(self, state: LedgerState) -> list[Clash]:
        """What stands in the way of a host with this state, which the server does not have yet."""
        rows = self.server.rows(
            "SELECT * FROM usernsplan.clashes(%s, "
            "%s::text[], %s::boolean[], %s::text[], %s::bigint[], %s::bigint[], %s::text[])",
            self.member.number,
            *arrays(list(dict.fromkeys(holds(state))), _WIDTH_OF_HOLD),
        )
        # What only this host has there is from a join that was interrupted.
        return [clash for clash in starmap(Clash, rows) if clash.hosts != self.member.host]

    def standing(self) -> Standing:
        """How this host's file and the server's copy of it differ."""
        view = self._view()
        if self._damage():
            return Standing("damaged", view.event, 0)
        number = self._local.stamp()[0]
        if not self._is_same_history(view):
            return Standing("other", view.event, number)
        if view.event != number:
            return Standing("behind" if view.event > number else "ahead", view.event, number)
        is_pending = view.intended is not None or self._local.pending()
        return Standing("pending" if is_pending else "agrees", view.event, number)

    def answer(self, wish: Wish, why_not: str = "") -> None:
        """Tell the server that a wish is done, or why not."""
        self.server.rows(
            "SELECT usernsplan.answer_wish(%s, %s, %s, %s)",
            self.member.host,
            wish.name,
            why_not,
            wish.exactly or None,
        )

    def publish(self, own: Sequence[Own]) -> None:
        """Tell the server which ids this host has of its own, unless that is what it said last."""
        import hashlib  # noqa: PLC0415 - only in a fleet

        digest = hashlib.sha256(repr(own).encode()).hexdigest()[:32]
        if digest != (self._said or self._view().own_digest):
            self.server.rows(
                "SELECT usernsplan.publish(%s, %s, %s::text[], %s::bigint[], %s::bigint[], %s::text[], "
                "%s::text[])",
                self.member.host,
                digest,
                *arrays(own, len(Own._fields)),
            )
        self._said = digest

    def avoid(self, hosts: Sequence[str]) -> None:
        """Let ``deciding`` count what these hosts have of their own as taken."""
        self._avoided = list(hosts)

    def _end(self, entry: HistoryEntry, *, put_back: bool) -> None:
        before = self._local.state()
        end = self._local.put_back if put_back else self._local.complete
        end(entry)
        after = self._local.state()
        self._tell(before.number, changed(before, after), _rows_changed(before, after))
        member.agreed(self._layout)

    def _view(self) -> _View:
        rows = self.server.rows("SELECT * FROM usernsplan.look(%s)", self.member.host)
        view = _View(*received.view(rows, shown(self.member.url)))
        self._said = view.own_digest
        return view

    def _fleet(self, view: _View) -> Fleet:
        """What others have, as far as it can stand in the way of a decision here."""
        taken = self.server.rows(
            "SELECT kind, ids FROM usernsplan.taken(%s, %s::text[])", self.member.host, self._asked
        )
        if self._avoided:
            taken += self.server.rows(
                "SELECT o.kind, range_agg(o.ids) FROM usernsplan.own o "
                "JOIN usernsplan.host h ON h.number = o.host WHERE h.name = ANY (%s) GROUP BY o.kind",
                self._avoided,
            )
        return Fleet(
            self.member.host,
            view.number,
            shown(self.member.url),
            received.taken(taken),
            self._known(),
            tuple(self._wishes()) if view.wishes else (),
        )

    def _known(self) -> tuple[Known, ...]:
        if not self._asked:
            return ()
        rows = self.server.rows("SELECT * FROM usernsplan.named(%s::text[])", self._asked)
        return received.known(rows, shown(self.member.url))

    def _wishes(self) -> Iterable[Wish]:
        rows = self.server.rows(
            "SELECT w.name, w.strategy, w.options, w.start, w.role::text, "
            "to_char(w.at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), w.refused, w.at::text "
            "FROM usernsplan.wish w WHERE w.host = %s ORDER BY w.at, w.name",
            self.member.number,
        )
        return map(received.wish, rows)

    def _tell(
        self,
        last: int,
        new: Iterable[Hold],
        rows: Sequence[tuple[str, str, str | None]],
        *,
        is_whole: bool = False,
    ) -> None:
        """Tell the server the events after ``last``, and what they changed."""
        events = self._local.since(last)
        number, stamp = self._local.stamp()
        self.server.rows(
            "SELECT usernsplan.tell(%s, %s, %s, %s, %s::text[], %s::text[], %s::text[], %s::text[], "
            "%s::text[], %s, %s::text[], %s::boolean[], %s::text[], %s::bigint[], %s::bigint[], "
            "%s::text[], %s::text[], %s::text[], %s::text[])",
            self.member.host,
            version(),
            last + 1,
            _stamp(number, stamp),
            *arrays([row[1:] for row in events], 5),
            is_whole,
            *arrays(list(dict.fromkeys(new)), _WIDTH_OF_HOLD),
            *arrays(rows, 3),
        )

    def _tell_all(self, last: int) -> None:
        """Tell the server everything that the file has; its events from ``last`` on are new there."""
        state = self._local.state()
        self._tell(last, holds(state), list(_rows(state)), is_whole=True)

    def _tell_lost(self, last: int) -> None:
        """Tell the server again what it lost. Raises RefusedError if others have got these ids meanwhile."""
        try:
            self._tell_all(last)
        except MeanwhileTakenError as error:
            from usernsplan.planner.in_fleet import clash_lines  # noqa: PLC0415 - seldom needed

            name = self._layout.inline
            refused = RefusedError(
                f"{shown(self.member.url)} lost events of this host, and others have got its ids since",
                hint=f"let one of the hosts give way: there, {name('release NAME')} and "
                f"{name('release --forget NAME')}; or here, {name('ledger leave --forget')}, "
                f"{name('remap NAME --start FIRST')} and {name('ledger join')}",
            )
            refused.lines = (str(refused), *clash_lines(self.in_the_way(self._local.state())))
            raise refused from error

    def _bring_back(self, view: _View) -> list[str]:
        """Make the file again from what the server has of this host; returns what it does not take."""
        found = self._received(view)
        notes = [
            f"{one} is not taken from the fleet's ledger: if it is right, make it again"
            for one in found.left_out
        ]
        intent = None
        if view.intended is not None and view.intended > view.event:
            rows = self.server.rows("SELECT * FROM usernsplan.pending(%s)", self.member.host)
            try:
                for _, *row in rows:
                    intent = received.intent(row, self._accounts(), found.state)
            except RefusedError as error:
                notes.append(f"the command that was interrupted is not taken from there: {error}")
        rows = [
            (table.name, table.row(value))
            for table in schema.TABLES
            for value in table.values(found.state)
        ]
        self._local.restore(rows, found.events, intent)
        if found.left_out:
            self._tell_all(view.event)
        return notes

    def _accounts(self) -> Accounts:
        from usernsplan.host import accounts  # noqa: PLC0415 - only where the file is lost

        return accounts.read(self._layout)

    def _received(self, view: _View) -> Received:
        """What the server has of this host, held to its rules. Raises RefusedError."""
        content = self.server.rows(
            "SELECT what, key, value FROM usernsplan.content WHERE host = %s ORDER BY what, key",
            view.number,
        )
        events = self.server.rows(
            "SELECT number, at, actor, command, changed, change FROM usernsplan.event "
            "WHERE host = %s ORDER BY number",
            view.number,
        )
        return received.ledger(
            content, events, view.event, self._accounts(), shown(self.member.url)
        )

    def _damage(self) -> DamagedLedgerError | None:
        """Why the host's file cannot be read, if it is damaged."""
        try:
            self._local.state()
            self._local.pending()
        except DamagedLedgerError as error:
            return error
        return None

    def _is_same_history(self, view: _View) -> bool:
        """Tell whether the last event that the file and the server both have is the same one."""
        number, at = self._local.stamp()
        if not (view.event and number):
            return True
        if view.event > number:
            rows = self.server.rows(
                "SELECT at FROM usernsplan.event WHERE host = %s AND number = %s",
                view.number,
                number,
            )
            return rows == [(at,)]
        if view.event < number:
            [entry] = self._local.history({view.event})
            number, at = view.event, entry.at
        return view.stamp == _stamp(number, at)

    def _drop(self, number: int) -> None:
        """Take a run back that could not begin; if that fails, the next run of this host does it."""
        try:
            self.server.rows("SELECT usernsplan.drop_run(%s, %s)", self.member.host, number)
        except UsernsplanError:
            return

    def _other_machine(self) -> LedgerError:
        return LedgerError(
            f"{shown(self.member.url)} has other events of {line(self.member.host)} than this host: "
            "another machine uses its name",
            hint="give one of them another name: usernsplan ledger leave, then ledger join --name NAME",
        )


def of_fleet(layout: Layout, so: str, asked: Collection[str] = ()) -> FleetLedger:
    """The ledger of a host that is in a fleet. Raises RefusedError for any other, which says ``so`` what."""
    ledger = open_ledger(layout, asked=asked)
    if not isinstance(ledger, FleetLedger):
        raise RefusedError(
            f"this host is in no fleet, so {so}",
            hint=f"{layout.inline('ledger join URL')} joins one",
        )
    return ledger


def version() -> str:
    """The version of usernsplan, for the server."""
    from importlib import metadata  # noqa: PLC0415 - only in a fleet

    return metadata.version("usernsplan")


def _stamp(number: int, at: str) -> str:
    return f"{number} {at}"


def _rows(state: LedgerState) -> Iterable[tuple[str, str, str]]:
    """The rows of a state's tables, packed: which table, the key, the row."""
    for table in schema.TABLES:
        for value in table.values(state):
            row = table.row(value)
            yield (
                table.name,
                _packed(row[: table.key]) if table.key > 1 else _key(row[0]),
                _packed(row),
            )


def _rows_changed(before: LedgerState, after: LedgerState) -> list[tuple[str, str, str | None]]:
    """The rows that an event changed; None for those that are gone."""
    found: dict[tuple[str, str], str | None] = {}
    for table in schema.TABLES:
        old, new = table.values(before), table.values(after)
        had, has = {*map(id, old)}, {*map(id, new)}
        for value, row in ((v, table.row(v)) for v in old if id(v) not in has):
            del value
            found[table.name, _packed(row[: table.key]) if table.key > 1 else _key(row[0])] = None
        for value in new:
            if id(value) not in had:
                row = table.row(value)
                key = _packed(row[: table.key]) if table.key > 1 else _key(row[0])
                found[table.name, key] = _packed(row)
    return [(what, key, value) for (what, key), value in found.items()]


def _key(value: object) -> str:
    """A key of one column: a name as it is, so that the server finds it; a path as JSON."""
    return value if isinstance(value, str) else _packed((value,))


def _packed(row: Iterable[object]) -> str:
    """A row of a table as JSON; bytes, which are paths, as an object with their hex digits."""
    return json.dumps([{"hex": v.hex()} if isinstance(v, bytes) else v for v in row])
