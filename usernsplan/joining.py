"""A host joins a fleet and leaves it; the ledger of a fleet is made. The hands of ``ledger``."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError
from usernsplan.host import files, locks
from usernsplan.layout import LEDGER
from usernsplan.ledger import member
from usernsplan.ledger.fleet import FleetLedger
from usernsplan.ledger.postgres import Server, shown
from usernsplan.ledger.sqlite import SqliteLedger

if TYPE_CHECKING:
    from usernsplan.layout import Layout

# Everybody who may write for a host of his own, and who may ask things of all hosts.
_ROLES = """
DO $$ BEGIN
    CREATE ROLE usernsplan_host NOLOGIN;
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN
    CREATE ROLE usernsplan_operator NOLOGIN IN ROLE usernsplan_host;
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
"""


def init(url: str) -> None:
    """Make the ledger of a fleet in a database. Nothing happens if it is there already."""
    server = Server(url)
    if server.rows("SELECT 1 FROM pg_namespace WHERE nspname = 'usernsplan'"):
        return
    sql = resources.files("usernsplan.ledger").joinpath("fleet.sql").read_text(encoding="utf-8")
    server.script(_ROLES + sql)


def join(layout: Layout, url: str, host: str) -> FleetLedger:
    """Make the host below a root one of a fleet. Raises RefusedError that lists every clash."""
    with locks.subid_locks(layout):
        server = Server(url)
        [[number]] = server.rows(
            "SELECT usernsplan.join_host(%s, %s, %s)", host, _machine(layout), "0"
        )
        ledger = FleetLedger(layout, SqliteLedger(layout, LEDGER), member.Member(url, host, number))
        if clashes := ledger.clashes():
            server.rows("SELECT usernsplan.leave(%s)", host)
            lines = tuple(
                f"{kind}s {start}-{stop - 1} of '{name}' are those of '{other}' on {hosts}"
                for name, kind, start, stop, other, hosts in clashes
            )
            error = RefusedError(f"{shown(url)}: others have ids of this host; nothing was changed")
            error.lines = lines
            raise error
        ledger.join()
        member.write(layout, host, number)
    return ledger


def _machine(layout: Layout) -> str:
    return (files.read(layout, "/etc/machine-id") or b"").decode("ascii", "replace").strip()
