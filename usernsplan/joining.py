"""A host joins a fleet and leaves it; the ledger of a fleet is made. The hands of ``ledger``.

The order of the steps makes the same command mend what a kill left. To join: the key in config.yaml,
from when on this host decides nothing without the fleet; then the server, in one transaction; then
the note. To leave: the server, the note, the key.
"""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from importlib import resources
from itertools import starmap
from typing import TYPE_CHECKING

from usernsplan import apply, noting
from usernsplan.errors import (
    DamagedLedgerError,
    InvalidFileError,
    InvalidValueError,
    LedgerError,
    LedgerUnreachableError,
    NotPermittedError,
    RefusedError,
    UsernsplanError,
)
from usernsplan.escape import line, shell
from usernsplan.formats import config
from usernsplan.formats.accounts import Accounts
from usernsplan.host import files, locks, read
from usernsplan.layout import CONFIG_FILE, FLEET, LEDGER
from usernsplan.ledger import allocation_of, member, postgres
from usernsplan.ledger.durable import Durability
from usernsplan.ledger.fleet import FleetLedger, version
from usernsplan.ledger.fold import fold
from usernsplan.ledger.member import Member
from usernsplan.ledger.postgres import Server, checked, other_version, shown
from usernsplan.ledger.sqlite import SqliteLedger
from usernsplan.model import Event, LedgerChange
from usernsplan.patterns import pattern
from usernsplan.planner import changes
from usernsplan.planner.in_fleet import clash_lines
from usernsplan.planner.stories import advise
from usernsplan.report.fleet import HostRow, Init, Join, Leave, Status
from usernsplan.values import NamedTuple, replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import Clash, Finding, LedgerState

# Version -> the statements that make it out of the version before. fleet.sql makes the newest one.
STEPS: dict[int, str] = {}
# Everybody who may write for a host of his own, and who may ask things of all hosts.
_ROLES = ("usernsplan_host", "usernsplan_operator")
# Another init may make one of them at this moment, in another database.
_CREATE = """
DO $$ BEGIN
    CREATE ROLE {role} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
"""
# int8multirange and range_agg.
_OLDEST = 140000
_MACHINE_ID = "/etc/machine-id"
_HOSTNAME = "/etc/hostname"
# Commas separate names on a command line, and '*' means all of them in a plan file.
_ID = pattern("[0-9a-f]{32}")
_HOST = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
# At most so many names are in one proposed command.
_NAMED = 20
# What machines are called before they have a name.
_NAMELESS = {"", "localhost", "localhost.localdomain", "(none)"}


# The ledger of a fleet.


def init(url: str) -> Init:
    """Make the ledger of a fleet in a database, or bring one of an older version up to date."""
    server = Server(url, any_version=True)
    try:
        with server.together():
            # One at a time: the second finds what the first made.
            server.rows("SELECT pg_advisory_xact_lock(7305093, 2)")
            before = _version(server)
            if before > postgres.VERSION:
                raise other_version(url, before)
            if before:
                for step in range(before + 1, postgres.VERSION + 1):
                    server.script(STEPS[step])
                    server.rows("UPDATE usernsplan.meta SET version = %s", step)
            else:
                _make(server)
    except NotPermittedError as error:
        if error.hint == NotPermittedError.hint or "role of this host" in error.hint:
            error.hint = "use the role that owns the database, or the schema usernsplan in it"
        raise
    return Init(shown(url), before or None, postgres.VERSION)


def _version(server: Server) -> int:
    """The version of the schema; 0 without one."""
    [[there]] = server.rows("SELECT to_regclass('usernsplan.meta') IS NOT NULL")
    return int(server.rows("SELECT version FROM usernsplan.meta")[0][0]) if there else 0


def _make(server: Server) -> None:
    [[number, name]] = server.rows(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')"
    )
    if number < _OLDEST:
        raise LedgerError(
            f"{shown(server.url)} is PostgreSQL {line(name)}; the ledger needs 14 or newer"
        )
    _make_roles(server)
    server.script(
        resources.files("usernsplan.ledger").joinpath("fleet.sql").read_text(encoding="utf-8")
    )


def _make_roles(server: Server) -> None:
    """Make the groups of roles. They belong to all databases of the server, and may be there already."""
    there = server.rows("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [*_ROLES])
    missing = [role for role in _ROLES if (role,) not in there]
    if not missing:
        return
    [[user, may]] = server.rows(
        "SELECT rolname, rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
    )
    if not may:
        make = "; ".join(f"CREATE ROLE {role} NOLOGIN" for role in missing)
        raise NotPermittedError(
            f"{shown(server.url)}: the role {line(user)} may not create roles, and there is no "
            f"{' and no '.join(missing)}",
            hint=f"as a superuser of that server: psql -c {shell(make)}",
        )
    server.script("".join(_CREATE.format(role=role) for role in missing))


# A host joins.


def join(  # noqa: PLR0913 - each is an option
    layout: Layout,
    url: str = "",
    host: str = "",
    *,
    local: Sequence[str] = (),
    command: str = "",
    dry_run: bool = False,
) -> Join:
    """Make the host below a root one of a fleet, with all that it has.

    ``url`` is by default what config.yaml names, and ``host`` the name of the host. ``local`` are
    names whose ids are this host's alone. Raises RefusedError that lists every clash; then, as after
    any other error before the server has all, nothing is changed.
    """
    url = _url(layout, url)
    host = _name(layout, host)
    machine = _machine(layout)
    with nullcontext() if dry_run else locks.subid_locks(layout):
        # The server may be another one, or be restored from a backup of before.
        note, server = _note(layout), Server(url)
        is_there = note and server.rows(
            "SELECT 1 FROM usernsplan.host WHERE (name, number, machine) = (%s, %s, %s)",
            *note,
            machine,
        )
        work = _Join(layout, server, local, command, dry_run=dry_run)
        if note and is_there:
            return work.again(Member(url, *note))
        return work.enter(Member(url, host, 0), machine)


class _Join(NamedTuple):
    """One ``join``, under the locks unless it is a ``dry_run``."""

    layout: Layout
    server: Server
    local: Sequence[str]
    command: str
    dry_run: bool

    def again(self, who: Member, *, is_new: bool = False) -> Join:
        """The server knows the host: bring both to one state, and record names that are local."""
        ledger = self._ledger(who)
        findings = () if self.dry_run else apply.recover(self.layout, ledger)
        change = _as_local(ledger.state(), self.local)
        needs_key = not member.place(self.layout)
        if not self.dry_run:
            self._record(ledger, change)
            if needs_key:
                _write_key(self.layout, who.url)
            self._publish(ledger)
        is_changed = is_new or needs_key or bool(findings or change.update)
        return self._told(ledger, change, findings, is_changed=is_changed)

    def enter(self, who: Member, machine: str) -> Join:
        """The server does not know the host, or an earlier join was killed."""
        own = SqliteLedger(self.layout, LEDGER)
        findings: tuple[Finding, ...] = ()
        if not self.dry_run:
            # Of a file that is damaged, the server may have a copy: see is_behind.
            with suppress(DamagedLedgerError):
                findings = apply.recover(self.layout, own)

        with self.server.together(keep=not self.dry_run):
            [[number]] = self.server.rows(
                "SELECT usernsplan.join_host(%s, %s, %s)", who.host, machine, version()
            )
            who = who._replace(number=number)
            ledger = self._ledger(who)
            is_behind = ledger.is_behind()
            change = LedgerChange()
            if not is_behind:
                change = _as_local(own.state(), self.local)
                self._refuse_clashes(ledger.in_the_way(_after(own.state(), change)))
            if self.dry_run:
                return self._told(ledger, change, findings, is_changed=True)
            before = _write_key(self.layout, who.url)
            try:
                self._record(own, change)
                if not is_behind:
                    ledger.join()
            except BaseException:
                _put_back(self.layout, before)
                raise
        member.write(self.layout, who.host, who.number)
        told = self.again(who, is_new=True)
        return told._replace(findings=(*findings, *told.findings))

    def _ledger(self, who: Member) -> FleetLedger:
        return FleetLedger(self.layout, SqliteLedger(self.layout, LEDGER), who, server=self.server)

    def _record(self, ledger: Ledger, change: LedgerChange) -> None:
        if change.update:
            lines = changes.lines(change, ledger.state(), Accounts())
            noting.record(self.layout, ledger, change, lines, self.command)

    def _publish(self, ledger: FleetLedger) -> None:
        """Others may ask for names here at once. What cannot be read now, the next run tells."""
        with suppress(UsernsplanError):
            apply.publish(ledger, read.state(self.layout, ledger.deciding))

    def _refuse_clashes(self, clashes: Sequence[Clash]) -> None:
        if not clashes:
            return
        place = shown(self.server.url)
        error = RefusedError(
            f"{place}: others have ids of this host; nothing was changed",
            hint=f"move what is here: {self.layout.inline('remap NAME --start FIRST')}; or let a "
            f"name have other ids on each host: {self.layout.inline('ledger join --local NAME')}, "
            "there too if the names differ",
        )
        error.lines = (str(error), *clash_lines(clashes))
        raise error

    def _told(
        self,
        ledger: FleetLedger,
        change: LedgerChange,
        findings: Sequence[Finding],
        *,
        is_changed: bool,
    ) -> Join:
        state = _after(ledger.state(), change)
        return Join(
            shown(ledger.member.url),
            ledger.member.host,
            tuple(a.name for a in state.allocations),
            tuple(a.name for a in state.allocations if a.local),
            tuple(dict.fromkeys(q.name for q in state.quarantined)),
            changed=is_changed,
            dry_run=self.dry_run,
            findings=tuple(findings),
        )


def _after(state: LedgerState, change: LedgerChange) -> LedgerState:
    return fold(state, Event(state.number + 1, "", change))


def _as_local(state: LedgerState, names: Sequence[str]) -> LedgerChange:
    """The change that makes these names local. Raises UnknownNameError."""
    found = [allocation_of(state, name) for name in dict.fromkeys(names)]
    return LedgerChange(update=tuple(replace(a, local=True) for a in found if not a.local))


def _url(layout: Layout, url: str) -> str:
    """The place that is asked for and the one in config.yaml, which have to be the same."""
    if url:
        # Before anything else: it may have a password.
        checked(url)
    known = member.place(layout)
    if known and url and known != url:
        raise RefusedError(
            f"{layout.path(CONFIG_FILE)} has another ledger: {shown(checked(known))}",
            hint=f"{layout.inline('ledger leave')} leaves that one first",
        )
    if not (known or url):
        raise InvalidValueError(
            "URL is missing",
            hint=f"such as {layout.inline('ledger join postgresql://ledger.example/usernsplan')}",
        )
    return url or known


def _note(layout: Layout) -> tuple[str, int] | None:
    """The name and the number under which the host has joined. A damaged note is as none."""
    try:
        return member.noted(layout)
    except InvalidFileError:
        return None


def _name(layout: Layout, asked: str) -> str:
    """The name under which the host joins: asked for, that of before, or its own."""
    note = _note(layout)
    if note and asked not in {"", note[0]}:
        raise RefusedError(
            f"this host has joined as '{line(note[0])}'",
            hint=f"{layout.inline('ledger leave')} comes before another name",
        )
    name = asked or (note[0] if note else "")
    if not name and layout.is_host:
        name = os.uname().nodename
    elif not name:
        name = (files.read(layout, _HOSTNAME) or b"").decode("utf-8", "replace").strip()
    if (not asked and name in _NAMELESS) or not _HOST.fullmatch(name):
        raise InvalidValueError(
            f"'{line(name)}' cannot be the name of a host in a fleet",
            hint="give it one of letters, digits, dots and dashes: --name NAME",
        )
    return name


def _machine(layout: Layout) -> str:
    """What tells this machine from others. All hosts see it, so it is made of the machine-id.

    machine-id(5) asks for that: the id itself stays on the machine.
    """
    import hmac  # noqa: PLC0415 - only in a fleet

    raw = (files.read(layout, _MACHINE_ID, follow=True) or b"").strip()
    if not _ID.fullmatch(raw.decode("latin-1")):
        words = (
            "systemd-machine-id-setup",
            *(() if layout.is_host else (f"--root={layout.real}",)),
        )
        raise UsernsplanError(
            f"{layout.path(_MACHINE_ID)} has no machine-id, which tells this host from others",
            hint=f"make one: {shell(*words)}",
        )
    return hmac.new(raw, b"usernsplan fleet", "sha256").hexdigest()[:32]


def _write_key(layout: Layout, url: str) -> bytes | None:
    """Write the place into config.yaml; returns what was there before."""
    before = files.read(layout, CONFIG_FILE, follow=True)
    if not member.place(layout):
        after = config.with_ledger(before or b"", layout.path(CONFIG_FILE), url)
        files.write(layout, {CONFIG_FILE: after})
    return before


def _put_back(layout: Layout, before: bytes | None) -> None:
    if before is not None:
        files.write(layout, {CONFIG_FILE: before})
    elif files.exists(layout, CONFIG_FILE):
        files.remove(layout, CONFIG_FILE)


# A host leaves.


def leave(layout: Layout, *, forget: bool = False, dry_run: bool = False) -> Leave:
    """Make the host one of its own again, with all that it has.

    ``forget``: the server is not asked, because it does not exist any more.
    Raises RefusedError while this host works on a volume or a run is pending.
    """
    with nullcontext() if dry_run else locks.subid_locks(layout):
        note, url = _note(layout), member.place(layout)
        if note and not (url or forget):
            member.read(layout)  # raises: who knows where the server is?
        # What cannot be edited is refused before the server forgets the host.
        after = _without_key(layout) if url else None
        findings: tuple[Finding, ...] = ()
        names = [note[0]] if note else []
        if url and not forget:
            names, findings = _left(layout, url, note, dry_run=dry_run)
        if not dry_run:
            if files.exists(layout, FLEET):
                member.remove(layout)
            if after is not None:
                _put_back(layout, after or None)
        return Leave(
            shown(checked(url)) if url else None,
            names[0] if names else None,
            changed=bool(note or url),
            forgotten=forget,
            dry_run=dry_run,
            findings=findings,
        )


def _left(
    layout: Layout, url: str, note: tuple[str, int] | None, *, dry_run: bool
) -> tuple[list[str], tuple[Finding, ...]]:
    """Tell the server that the host leaves; the names that it had there, and what was repaired."""
    server = Server(url)
    if note:
        found = server.rows(
            "SELECT name, number FROM usernsplan.host "
            "WHERE name = %s AND (number = %s OR machine = %s)",
            *note,
            _machine(layout),
        )
    else:
        # A join or a leave was killed before its last step.
        found = server.rows(
            "SELECT name, number FROM usernsplan.host WHERE role = session_user AND machine = %s",
            _machine(layout),
        )
    findings: tuple[Finding, ...] = ()
    for name, number in found:
        ledger = FleetLedger(
            layout, SqliteLedger(layout, LEDGER), Member(url, name, number), server=server
        )
        if not dry_run and note:
            findings += apply.recover(layout, ledger)
        with server.together(keep=not dry_run):
            server.rows("SELECT usernsplan.leave(%s)", name)
            findings += tuple(_kept(layout, server, number))
    return [name for name, _ in found], findings


def _kept(layout: Layout, server: Server, number: int) -> Iterator[Finding]:
    """What the fleet does not give out, because files of a host that left may carry it."""
    rows = server.rows(
        "SELECT DISTINCT o.name, c.name FROM usernsplan.hold h "
        "JOIN usernsplan.claim c ON c.id = h.claim JOIN usernsplan.host o ON o.number = h.host "
        "WHERE h.host = %s ORDER BY 2",
        number,
    )
    if rows:
        names = [name for _, name in rows]
        words = shell("release", "--forget", *names[:_NAMED], "--of", rows[0][0])
        more = ", and so on" if len(names) > _NAMED else ""
        yield advise(
            "USN196",
            f"the fleet keeps the ids of {len(names)} names, because files that others see may carry"
            " them",
            f"once none does, an operator on a host of the fleet: {layout.command(words)}{more}",
        )


def _without_key(layout: Layout) -> bytes:
    raw = files.read(layout, CONFIG_FILE, follow=True) or b""
    return config.without_ledger(raw, layout.path(CONFIG_FILE))


# What the server shows.


def status(layout: Layout) -> Status:
    """What the host knows of its fleet, and what the server says if it can be reached."""
    who = member.read(layout)
    if who is None:
        return Status()
    ledger = FleetLedger(layout, SqliteLedger(layout, LEDGER), who)
    known = Status(shown(who.url), who.host, int(member.seconds_since(layout)))
    # A damaged file is shown as such.
    with suppress(DamagedLedgerError):
        state = ledger.state()
        known = known._replace(names=len(state.allocations), event=state.number)
    try:
        return known._replace(
            version=postgres.VERSION,
            hosts=tuple(starmap(HostRow, ledger.server.rows(_HOSTS))),
            standing=ledger.standing(),
            durability=_durability(ledger.server),
        )
    except LedgerUnreachableError as error:
        return known._replace(error=error)


def _durability(server: Server) -> Durability:
    [row] = server.rows(
        "SELECT current_setting('synchronous_commit'), current_setting('fsync')::boolean, "
        "current_setting('synchronous_standby_names'), "
        "ARRAY(SELECT r.sync_state FROM pg_stat_replication r "
        # The copy that a new standby begins with is none yet; only some roles see which it is.
        "WHERE r.state IS DISTINCT FROM 'backup'), pg_is_in_recovery()"
    )
    synchronous_commit, fsync, names, states, is_standby = row
    return Durability(synchronous_commit, fsync, names, tuple(states), is_standby)


_HOSTS = """
    SELECT h.name, h.role, h.version,
        to_char(h.joined AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        to_char(h.seen AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), h.event,
        (SELECT count(*) FROM usernsplan.content c WHERE c.host = h.number AND c.what = 'allocation'),
        (SELECT count(*) FROM usernsplan.wish w WHERE w.host = h.number AND w.refused = ''),
        (SELECT count(*) FROM usernsplan.wish w WHERE w.host = h.number AND w.refused <> '')
    FROM usernsplan.host h WHERE h.role <> '' ORDER BY h.name
"""
