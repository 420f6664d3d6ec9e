"""Rules about published ranges: the records and accounts that let other programs see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.engines import engine_of_pool
from usernsplan.escape import operand, shell
from usernsplan.formats import userdb
from usernsplan.holdings import records, sees_records
from usernsplan.layout import LEDGER, NSSWITCH, PASSWD, USERDB
from usernsplan.model import POOL_OWNERS, Record
from usernsplan.planner.publish import again, can_be, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.model import Allocation, Published


@rule("USN075", "error")
def record_taken(facts: Facts) -> Iterator[Seen]:
    """Somebody else wrote a record where that of a published range was.

    systemd and getpwnam take the other record for the owner of the ids. Programs that look only at
    accounts may take the range, because its first id has no account, or they see an account that
    can log in.

    An editor, a configuration tool or an attacker with root's rights replaced the file.

        /etc/userdb/usernsplan-web.user         another uid than the range of 'web' has

    usernsplan never overwrites it. Look who needs it, remove it, and run 'usernsplan check --fix'.
    """
    there = facts.state.userdb
    for a in _published(facts):
        files = (userdb.in_the_way(record, there.others) for record in records(a))
        for file in filter(None, files):
            place = facts.place(f"{USERDB}/{file}")
            fix = facts.state.layout.inline("check --fix")
            yield Seen(
                place,
                f"somebody else wrote it, where the record of '{a.name}' was",
                f"rm {operand(place)}, then {fix}",
            )


@rule("USN076", "error")
def record_missing(facts: Facts) -> Iterator[Seen]:
    """The record of a published range is missing or damaged.

    systemd-nspawn, nsresourced and others look only whether the first id of a range has an account.
    They may now take a range that is a container's.

    Possible causes: somebody cleaned /etc/userdb up, a restored backup, or a power cut.

        web: published in userdb        in the ledger, without /etc/userdb/589824.user

    'usernsplan check --fix' writes the records again.
    """
    there = facts.state.userdb
    for a in _published(facts):
        missing = [
            record.name
            for record in records(a)
            if userdb.lacks(record, there.names, there.others)
            and not userdb.in_the_way(record, there.others)
        ]
        if missing:
            fix = facts.state.layout.inline("check --fix")
            yield Seen(
                facts.place(USERDB),
                f"'{a.name}' lacks the record of {listed(missing)}, or a part of it",
                f"{fix} writes it again",
            )
    have = {(user.name, user.uid) for user in facts.state.accounts.published}
    for a in _published(facts, "passwd"):
        lost = [record.name for record in records(a) if record not in have]
        if lost:
            command = facts.state.layout.inline(again(a))
            yield Seen(
                facts.place(PASSWD),
                f"'{a.name}' lacks the account {listed(lost)}, which publishes its range",
                f"{command} creates it again",
            )


@rule("USN077", "info")
def not_published(facts: Facts) -> Iterator[Seen]:
    """Other programs cannot see that a range is a container's.

    systemd-nspawn --private-users=pick and nsresourced do not read subuid: they take a range if its
    first id has no account. Programs built with libsubid of shadow 4.20 ignore a line whose owner
    has no account.

    An older usernsplan allocated the range, or --publish none was used.

        usernsplan-web:589824:65536     in subuid, without an account

    The same allocate command with --publish userdb publishes it, as a record in /etc/userdb.
    """
    have = {user.name for user in facts.state.accounts.users}
    bare = [
        a
        for a in facts.state.ledger.allocations
        if a.published == "none" and can_be(a) and (a.owner in POOL_OWNERS or a.owner not in have)
    ]
    if bare:
        yield Seen(
            facts.place(LEDGER),
            f"systemd-nspawn does not see that the range of {listed(a.name for a in bare)} is taken",
            f"{facts.state.layout.inline(f'{again(bare[0])} --publish userdb')} publishes it"
            + (", and so on for each name" if bare[1:] else ""),
        )


@rule("USN078", "warning")
def record_left(facts: Facts) -> Iterator[Seen]:
    """A record or an account of usernsplan belongs to no allocation.

    It keeps programs away from ids that are free, and it is in the way if another name gets them.

    The ledger was lost or restored from a backup, a run was killed, or userdel failed after a
    release.

        /etc/userdb/usernsplan-old.user         'old' is not allocated

    Remove it, unless 'usernsplan ledger rebuild' still has to find the allocation.
    """
    if facts.state.ledger.interrupted or any(found.path == LEDGER for found in facts.unread):
        return
    ours = {record for a in facts.state.ledger.allocations for record in records(a)}
    pools = {a.owner for a in facts.state.ledger.allocations if engine_of_pool(a)}
    layout = facts.state.layout
    for user in facts.state.accounts.published:
        record = Record(user.name, user.uid)
        if record in ours or user.name in pools:
            continue
        message = f"{user.name} stands for the ids from {user.uid}, but no allocation has them"
        if f"{user.name}.user" in facts.state.userdb.others:
            files = (layout.path(f"{USERDB}/{name}") for name in userdb.entries(record))
            remove = f"rm -f {' '.join(operand(file) for file in files)}"
            yield Seen(facts.place(f"{USERDB}/{user.name}.user"), message, f"remove it: {remove}")
        else:
            steps = userdb.removal(record)
            remove = "; ".join(shell(*layout.account_command(step)) for step in steps)
            yield Seen(facts.place(PASSWD), message, f"remove it: {remove}")


@rule("USN079", "info")
def only_systemd_sees(facts: Facts) -> Iterator[Seen]:
    """Only systemd sees the published ranges.

    Other programs ask NSS, and see the records in /etc/userdb only through nss-systemd: ls -l,
    getpwnam, systemd-nspawn of systemd 252, and programs built with libsubid of shadow 4.20,
    which ignores lines whose owner has no account.

        passwd: files                   in nsswitch.conf, without systemd

    Install libnss-systemd and add 'systemd' to the lines passwd and group. Or publish ranges as
    system accounts ('usernsplan allocate --publish passwd').
    """
    recorded = list(_published(facts))
    number = facts.state.passwd_source.number
    if recorded and number and not sees_records(facts.state):
        message, hint = unseen(facts.state, recorded)
        place = facts.place(NSSWITCH, number)
        yield Seen(place, message.removeprefix(f"{place}: "), hint)


def _published(facts: Facts, place: Published = "userdb") -> Iterator[Allocation]:
    """The allocations that are published there.

    None during an interrupted run: the run has to be finished first. None if the records cannot be
    read: they would seem to be lost.
    """
    paths = (*(one.path for one in facts.unread), *(one.path for one in facts.state.unseen))
    if not (facts.state.ledger.interrupted or (place == "userdb" and USERDB in paths)):
        yield from (a for a in facts.state.ledger.allocations if a.published == place)
