"""What an operator asks of other hosts of a fleet: to allocate names, or to release them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from usernsplan.ledger.exclusive import holds
from usernsplan.ledger.postgres import arrays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from usernsplan.ledger.postgres import Server
    from usernsplan.model import LedgerState


def hosts(server: Server) -> list[str]:
    """The names of all hosts of the fleet."""
    rows = server.rows("SELECT name FROM usernsplan.host WHERE role <> '' ORDER BY name")
    return [name for (name,) in rows]


def ask(  # noqa: PLR0913, PLR0917 - the columns of a wish
    server: Server,
    hosts: Sequence[str],
    names: Sequence[str],
    strategy: str,
    options: Mapping[str, object],
    plan: LedgerState,
) -> list[tuple[str, str]]:
    """Ask hosts to allocate these names with the ids of ``plan``; returns what is new, (host, name).

    Raises NotPermittedError for a role that is no operator, and RefusedError if a host has some of
    the ids of its own.
    """
    if not hosts:
        # Who asks nobody needs no operator's role.
        return []
    new = [hold for hold in holds(plan) if hold.name in names and not hold.local]
    rows = [(hold.name, hold.kind, hold.start, hold.stop) for hold in new]
    found = server.rows(
        "SELECT * FROM usernsplan.ask(%s, %s, %s, %s, %s::text[], %s::text[], %s::bigint[], "
        "%s::bigint[])",
        list(hosts),
        list(names),
        strategy,
        json.dumps(dict(options), sort_keys=True),
        *arrays(rows, 4),
    )
    # What is taken back may be asked the other way at once.
    return [(host, name) for host, name in dict.fromkeys(found)]


def ask_release(
    server: Server, hosts: Sequence[str], names: Sequence[str]
) -> list[tuple[str, str]]:
    """Ask hosts to release these names; returns what is new, (host, name)."""
    if not hosts:
        return []
    found = server.rows("SELECT * FROM usernsplan.ask_release(%s, %s)", list(hosts), list(names))
    # What is taken back may be asked the other way at once.
    return [(host, name) for host, name in dict.fromkeys(found)]


def unknown(server: Server, names: Sequence[str]) -> list[str]:
    """Those of the names that no host has or quarantines."""
    rows = server.rows(
        "SELECT a FROM unnest(%s::text[]) a "
        "WHERE NOT EXISTS (SELECT FROM usernsplan.claim c WHERE c.name = a) AND NOT EXISTS "
        "(SELECT FROM usernsplan.content r WHERE r.what = 'allocation' AND r.key = a)",
        list(names),
    )
    return [name for (name,) in rows]
