"""Rules about shadow from 4.20 on: ranges that useradd computes, and lines that it does not see."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.claims import computed
from usernsplan.escape import shell
from usernsplan.formats.subid import PATHS
from usernsplan.mapping import KINDS
from usernsplan.model import Unlisted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.claims.index import Claim
    from usernsplan.mapping import Kind


@rule("USN090", "warning")
def over_computed(facts: Facts) -> Iterator[Seen]:
    """Ids that useradd computes for an account belong to somebody else.

    With SUB_UID_DETERMINISTIC in login.defs, the range of an account follows from its uid:
    SUB_UID_MIN + (uid - UID_MIN) * SUB_UID_COUNT. 'usermod --add-subids' writes that line and
    does not look whether another line or the ledger has the ids. Two owners then have the same
    ids (USN001, USN002).

    The ranges were given out before the setting was made, or by a tool that does not know it.

        SUB_UID_DETERMINISTIC yes       in login.defs: uid 1001 has 165536-231071
        carla:165536:65536              carla's uid is 1007

    Give the owner of the line a range behind the computed ones and shift the files of its
    containers: release an allocation of ours and allocate it again.
    """
    for kind in KINDS if computed.read(facts.state.login_defs) else ():
        promised = facts.claims.where(partial(_is_promised, kind))
        for span in facts.given[kind]:
            if found := promised.over(*span[:2]):
                whose = listed(f"{one.holder} {one.ids}" for one in found)
                yield Seen(
                    facts.place_of(span),
                    f"{span.holder}'s {span.ids} overlaps with {whose}",
                    _hint(facts, span),
                    overlaps=facts.overlaps(found),
                )


def _is_promised(kind: Kind, claim: Claim) -> bool:
    """Tell whether useradd computes these ids for an account that does not have them yet."""
    of_useradd = isinstance(claim.value, Unlisted) and claim.value.program == computed.PROGRAM
    return claim.kind == kind and claim.source == "unlisted" and of_useradd


@rule("USN091", "warning")
def in_computed_area(facts: Facts) -> Iterator[Seen]:
    """The next accounts get ids that belong to somebody else.

    With SUB_UID_DETERMINISTIC in login.defs, useradd does not look for free ids. It computes the
    range of a new account from its uid and writes the line, even if somebody has the ids. With
    the usual values of login.defs these ranges reach from 100000 to SUB_UID_MAX.

        SUB_UID_DETERMINISTIC yes           in login.defs: uid 1007 has 558752-624287
        usernsplan-web:589824:65536         the account that gets uid 1007 has them, too

    Release the allocation and allocate it again: usernsplan then takes a range behind the
    computed ones, and 'usernsplan fix-volume' shifts the files. Move other lines there, too. Or
    lower UID_MAX or SUB_UID_MAX, so that the computed ranges end before these ids.
    """
    used = {user.uid for user in facts.state.accounts.users}
    for one in computed.read(facts.state.login_defs):
        for span in facts.given[one.kind]:
            uids = one.uids(*span[:2])
            first = next((uid for uid in uids if uid not in used), None)
            if first is not None:
                others = len(uids) - sum(uid in uids for uid in used) - 1
                more = f" (and of {others} more)" if others else ""
                yield Seen(
                    facts.place_of(span),
                    f"{span.holder}'s {span.ids} overlaps with the range of uid {first}{more}, "
                    "which useradd gives to the next account with it",
                    _hint(facts, span),
                )


def _hint(facts: Facts, span: Claim) -> str:
    if a := span.allocation:
        return f"{facts.state.layout.inline(f'release {shell(a.name)}')}, and allocate it again"
    return "give the owner of the line other ids, or lower UID_MAX in login.defs"


@rule("USN092", "info")
def owners_without_account(facts: Facts) -> Iterator[Seen]:
    """Shadow does not see lines whose owner has no account.

    shadow from 4.20 on asks for the account of every owner: getpwnam, or getpwuid for a number.
    If there is none, getsubids, and every engine that reads these files with libsubid, finds
    nothing for that owner. And every getsubids and useradd asks again, which takes long where a
    directory service answers. newuidmap is not affected: it looks for the name of the account
    that calls it.

        containers:655360:6553600       getsubids containers: "Error fetching ranges"

    This host has such a shadow. Engines that read the files on their own, as Docker does, and
    root's containers with a map of their own need no account. For others, make a system account
    of that name.
    """
    if not facts.state.owners_need_accounts:
        return
    for kind, path in PATHS.items():
        owners = facts.by_owner[kind]
        unseen = [owner for owner in owners if not facts.has_account(owner)]
        if unseen:
            useradd = ("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin")
            # useradd takes a name, not a uid. USN021 has the remedy for lines by uid.
            name = next((owner for owner in unseen if not owner.isdigit()), None)
            command = shell(*facts.state.layout.account_command((*useradd, name or "NAME")))
            yield Seen(
                facts.place(path, owners[unseen[0]][0].number),
                f"shadow does not see the lines of {listed(unseen)}, because no account has the name",
                f"if a program needs them: {command}",
            )
