"""What a host knows about some ids. Reads only what these ids need."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.errors import NotPermittedError, UsernsplanError
from usernsplan.formats import subid
from usernsplan.formats.accounts import Accounts
from usernsplan.host import accounts, files
from usernsplan.ids import IdSet
from usernsplan.layout import LOGIN_DEFS, SUBGID, SUBUID
from usernsplan.model import LedgerState
from usernsplan.whose.ids import IdContext

if TYPE_CHECKING:
    from collections.abc import Collection

    from usernsplan.ids import IdRange
    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import Namespace

NO_IDS = IdSet()
# At most this many ids are looked up in NSS: a directory service answers each over the network.
FEW = 256


def facts(
    layout: Layout,
    ledger: Ledger,
    ids: Collection[int],
    *,
    ranges: IdSet = NO_IDS,
    namespaces: tuple[Namespace, ...] | None = None,
) -> tuple[IdContext, tuple[str, ...]]:
    """All facts about these host ids and ranges, and notes about what could not be read.

    ``namespaces``: the running ones, if the caller has them already. If the caller may not read the
    ledger, the facts come from the files only.
    """
    notes = []
    complete = True
    try:
        known = ledger.about(IdSet.clipped((number, number + 1) for number in ids) | ranges)
        history = (
            ledger.history({allocation.event for allocation in known.allocations})
            if known.allocations
            else ()
        )
    except NotPermittedError as error:
        known, history, complete = LedgerState(), (), False
        notes.append(
            f"{error}: allocations are known from their lines only, and quarantined and reserved "
            "ranges are unknown"
        )

    known_accounts = accounts.read(layout)
    if len(ids) <= FEW:
        users, groups = (
            {user.uid for user in known_accounts.users},
            {group.gid for group in known_accounts.groups},
        )
        more = accounts.of_ids(layout, set(ids) - users, set(ids) - groups)
        known_accounts = Accounts(
            known_accounts.users + more.users, known_accounts.groups + more.groups
        )

    if layout.is_host:
        from usernsplan.host import namespaces as of_machine  # noqa: PLC0415 - slow

        namespaces = of_machine.running() if namespaces is None else namespaces
        if not of_machine.sees_all():
            notes.append("only the user namespaces of your own processes can be seen")

    found = IdContext(
        layout=layout,
        ledger=known,
        subuid=subid.parse(files.read(layout, SUBUID)),
        subgid=subid.parse(files.read(layout, SUBGID)),
        accounts=known_accounts,
        namespaces=namespaces or (),
        history=history,
        complete=complete,
    )
    return found, tuple(notes)


def pool(layout: Layout) -> IdRange | None:
    """The pool of the host's ranges; None if its login.defs contradicts itself."""
    # Imported here because it takes a fifth of the start-up time and is seldom needed.
    from usernsplan.claims.pool import default_pool  # noqa: PLC0415

    with suppress(UsernsplanError):
        return default_pool(
            files.read(layout, LOGIN_DEFS, follow=True) or b"", layout.path(LOGIN_DEFS)
        )
    return None
