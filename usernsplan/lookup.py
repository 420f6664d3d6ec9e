"""What a host knows of some ids: read no further than they need."""

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
# NSS is asked for single ids as long as they are few: a directory service answers each over the network.
FEW = 256


def facts(
    layout: Layout,
    ledger: Ledger,
    ids: Collection[int],
    *,
    ranges: IdSet = NO_IDS,
    namespaces: tuple[Namespace, ...] | None = None,
) -> tuple[IdContext, tuple[str, ...]]:
    """Everything that concerns these host ids and ranges of them, and notes on what could not be looked at.

    ``namespaces``: those that run, where they are known already. Whoever may not read the ledger is told what the files
    say.
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
            f"{error}: allocations are told by their lines only, and what is released, reserved or kept is not known"
        )
    everybody = accounts.read(layout)
    if len(ids) <= FEW:
        users, groups = (
            {user.uid for user in everybody.users},
            {group.gid for group in everybody.groups},
        )
        more = accounts.of_ids(layout, set(ids) - users, set(ids) - groups)
        everybody = Accounts(everybody.users + more.users, everybody.groups + more.groups)
    if layout.is_host:
        from usernsplan.host import namespaces as of_machine  # noqa: PLC0415 - only for the running machine

        namespaces = of_machine.running() if namespaces is None else namespaces
        if not of_machine.sees_all():
            notes.append("of running user namespaces, only those of your own processes can be seen")
    found = IdContext(
        layout=layout,
        ledger=known,
        subuid=subid.parse(files.read(layout, SUBUID)),
        subgid=subid.parse(files.read(layout, SUBGID)),
        accounts=everybody,
        namespaces=namespaces or (),
        history=history,
        complete=complete,
    )
    return found, tuple(notes)


def pool(layout: Layout) -> IdRange | None:
    """Where the host's ranges are taken from; None where its login.defs contradicts itself."""
    from usernsplan.claims.pool import default_pool  # noqa: PLC0415 - a fifth of the start-up, and seldom needed

    with suppress(UsernsplanError):
        return default_pool(
            files.read(layout, LOGIN_DEFS, follow=True) or b"", layout.path(LOGIN_DEFS)
        )
    return None
