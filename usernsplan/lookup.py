"""What a host knows about some ids. Reads only what these ids need."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.errors import NotPermittedError, UsernsplanError
from usernsplan.formats import nsswitch, subid
from usernsplan.host import accounts, files, libraries, procfs, unlisted
from usernsplan.host.unlisted import lxc
from usernsplan.host.unread import Unread, homes_unseen, unseen_at
from usernsplan.ids import EVERY_ID, IdSet
from usernsplan.layout import LOGIN_DEFS, NSSWITCH, SUBGID, SUBUID
from usernsplan.model import LedgerState
from usernsplan.whose.ids import IdContext

if TYPE_CHECKING:
    from collections.abc import Collection

    from usernsplan.formats.accounts import Accounts
    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import HistoryEntry, Namespace, Record

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
    wanted = IdSet.clipped((number, number + 1) for number in ids) | ranges
    try:
        known, published, history = _of_ledger(ledger, wanted)
    except NotPermittedError as error:
        known, published, history, complete = LedgerState(), (), (), False
        notes.append(
            f"{error}: allocations are known from their lines only, and quarantined and reserved "
            "ranges are unknown"
        )

    unseen: list[str] = []

    def miss(path: str, error: UsernsplanError) -> None:
        unseen.append(unseen_at(path, error).note)

    programs = unlisted.everything(layout, miss)
    known_accounts = accounts.read(layout, miss, published)
    # Two readers may need one folder.
    notes += dict.fromkeys(unseen)
    complete = complete and not unseen

    if len(ids) <= FEW:
        known_accounts = _with_asked(layout, known_accounts, ids)
    if known_accounts.unknown:
        complete = False
        notes.append(
            f"accounts also come from {known_accounts.unknown}, which only the host of "
            f"{layout.root} can ask"
        )

    subids = nsswitch.source(files.read(layout, NSSWITCH, follow=True) or b"", "subid")
    if libraries.find(layout, subids.library):
        notes.append(
            f"{layout.path(NSSWITCH)}:{subids.number}: 'subid: {' '.join(subids.services)}': "
            "newuidmap and Podman do not read the lines of subuid and subgid"
        )

    if layout.is_host:
        from usernsplan.host import namespaces as of_machine  # noqa: PLC0415 - slow

        namespaces = of_machine.running() if namespaces is None else namespaces
        if not of_machine.sees_all():
            notes.append("only the user namespaces of your own processes can be seen")

    subuid, subgid = (subid.parse(files.read(layout, path)) for path in (SUBUID, SUBGID))
    # An account has only the ids of its lines, so no other home needs a look.
    owners = subid.owners(subuid, subgid, of=wanted)
    missed: list[Unread] = []
    in_homes = lxc.of_accounts(
        layout, known_accounts, owners, lambda *one: missed.append(Unread(*one)), local=False
    )
    notes += homes_unseen(missed)

    found = IdContext(
        layout=layout,
        ledger=known,
        subuid=subuid,
        subgid=subgid,
        accounts=known_accounts,
        namespaces=namespaces or (),
        unlisted=(*programs, *in_homes),
        exists=procfs.own_ids() if layout.is_host else (EVERY_ID, EVERY_ID),
        login_defs=_login_defs(layout) or b"",
        history=history,
        complete=complete,
    )
    return found, tuple(notes)


def _of_ledger(
    ledger: Ledger, wanted: IdSet
) -> tuple[LedgerState, tuple[Record, ...], tuple[HistoryEntry, ...]]:
    """What the ledger has of these ids, all records, and the runs that made its allocations."""
    known, published = ledger.about(wanted), ledger.published()
    made = {allocation.event for allocation in known.allocations}
    return known, published, ledger.history(made) if made else ()


def _with_asked(layout: Layout, known: Accounts, ids: Collection[int]) -> Accounts:
    """The accounts, with those that NSS knows under these ids and does not list."""
    users = {user.uid for user in known.users}
    groups = {group.gid for group in known.groups}
    more = accounts.of_ids(layout, set(ids) - users, set(ids) - groups)
    return known.and_these(more.users, more.groups)


def pool(facts: IdContext) -> IdSet | None:
    """The pool of the host's ranges; None if its login.defs contradicts itself."""
    # Imported here because it takes a fifth of the start-up time and is seldom needed.
    from usernsplan.claims.pool import default_pool  # noqa: PLC0415

    raw, (uids, gids) = _login_defs(facts.layout), facts.exists
    with suppress(UsernsplanError):
        if raw is not None:
            place = facts.layout.path(LOGIN_DEFS)
            pool = default_pool(raw, place, facts.unlisted, facts.subuid.lines)
            return pool & uids & gids
    return None


def _login_defs(layout: Layout) -> bytes | None:
    """The bytes of login.defs, which may be missing; None if it cannot be read."""
    with suppress(UsernsplanError):
        return files.read(layout, LOGIN_DEFS, follow=True) or b""
    return None
