"""Rules about the numbers of a range: ids that are reserved for others, and the last ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.accounts import may_become
from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.claims.pool import BEHIND_INSTANCES
from usernsplan.errors import InvalidFileError
from usernsplan.formats import login_defs
from usernsplan.formats.subid import Grant
from usernsplan.ids import ID_LIMIT
from usernsplan.layout import LOGIN_DEFS, NSSWITCH
from usernsplan.mapping import KINDS
from usernsplan.model import ROOT
from usernsplan.planner import advice
from usernsplan.reserved import FOR_SNAPD, INSTANCES, TABLE
from usernsplan.strategies import SLOT, SingleUid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.claims.index import Claim
# SSSD's ldap_idmap_range_min and ldap_idmap_range_max, of sssd-ldap(5).
_SSSD = range(200000, 2000200000)
# A program that stores ids as signed 32-bit numbers reads these as negative.
_SIGNED = 2**31


@rule("USN009", "warning")
def over_reserved(facts: Facts) -> Iterator[Seen]:
    """A range contains ids that are reserved for others.

    By convention, the ids below 65536 and a few above have owners: the system, people,
    systemd-homed, DynamicUser=, nobody, systemd's foreign images. These give out ids without
    reading subuid. The ledger's reservations are ids that are used outside this host.

    Lines written by hand cause it. useradd does too if SUB_UID_MIN is low.

        web:61184:4336          DynamicUser= takes its ids from here

    Move the range to 589824 or above. Only the strategy 'shared' shares ids below 65536, and
    it does so on purpose, so this rule does not report its lines.
    """
    kept = facts.besides_lines.where(
        lambda claim: (
            claim.source == "reservation"
            or (
                claim.source == "reserved"
                and claim.start < _SIGNED
                # USN081 reports these.
                and claim.value is not FOR_SNAPD
            )
        )
    )
    for kind in KINDS:
        for span in kept.met_by(facts.given[kind], kind):
            over = kept.over(*span[:2], kind)
            found = [c for c in sorted(over, key=_rank) if not _is_expected(facts, span, c)]
            if found and not span.is_intended:
                whose = listed(map(_whose, found))
                yield Seen(
                    facts.place_of(span),
                    f"{span.owner}'s {span.ids} overlaps what is reserved for {whose}",
                    "move it: free ranges begin at 589824",
                    overlaps=facts.overlaps(found),
                )


def _rank(kept: Claim) -> bool:
    """A sort key: conventions first, then reservations of the ledger."""
    return kept.source == "reservation"


def _is_expected(facts: Facts, span: Claim, kept: Claim) -> bool:
    """Tell whether an overlap with a convention needs no report here.

    Root is the system. If the account can log in and its range overlaps the ids of the system or
    of people, USN006 reports it. A single id there is one of the host, which somebody passes on
    purpose: USN004 and USN005 report whose it is.
    """
    if kept.source == "reservation":
        return False
    is_single = span.number and span.stop - span.start == 1
    return span.owner == ROOT or (
        kept.value in TABLE[:2] and bool(is_single or may_become(facts, span))
    )


def _whose(kept: Claim) -> str:
    if kept.source == "reservation":
        return f"'{kept.holder}' ({kept.ids}) in the ledger"
    return f"{kept.holder} ({kept.ids})"


@rule("USN011", "warning")
def over_directory(facts: Facts) -> Iterator[Seen]:
    """Ranges overlap the numbers that a directory service gives to people.

    By default, SSSD maps the accounts of an Active Directory to 200000-2000200000, in slices
    of 200000. winbind and LDAP have ranges of their own. usernsplan cannot list all of these
    accounts, so a person may have, or may get, an id of a container.

        passwd: files sss               in nsswitch.conf
        containers:589824:65536         in subuid, and a user of the domain has 590436

    Compare with ldap_idmap_range_min and _max in sssd.conf (or the idmap config of smb.conf),
    and use other ranges: 'usernsplan allocate --pool FIRST-LAST'.
    """
    service = advice.directory_service(facts.state)
    if not service:
        return
    lines = [s for kind in KINDS for s in facts.granted[kind] if not s.is_intended]
    found = [s for s in lines if s.start < _SSSD.stop and _SSSD.start < s.stop]
    if found:
        first = facts.place_of(found[0])
        message = (
            f"accounts also come from {service}, and {len(found)} lines (the first is {first}) "
            "are in its default range"
        )
        hint = (
            f"compare with the ids that {service} gives out here; "
            f"its default is {_SSSD.start}-{_SSSD.stop}"
        )
        yield Seen(facts.place(NSSWITCH, facts.state.passwd_source.number), message, hint)


@rule("USN013", "warning")
def past_signed(facts: Facts) -> Iterator[Seen]:
    """A range reaches past 2147483647.

    The kernel accepts these ids. But some programs, runc and Docker among them, store an id as
    a signed 32-bit number and read these ids as negative. FreeIPA also gives out its
    subordinate ids from 2147483648 on.

        containers:2147450880:65536     Docker reads half of it as negative

    Move the range below 2147483648.
    """
    for span in _past(facts, _SIGNED):
        if span.stop <= ID_LIMIT:
            yield Seen(
                facts.place_of(span),
                f"{span.owner}'s {span.ids} reaches past {_SIGNED - 1}",
                "move it: runc and Docker read such ids as negative",
            )


@rule("USN014", "error")
def past_all_ids(facts: Facts) -> Iterator[Seen]:
    """A range reaches past 4294967294, the last possible id.

    The kernel refuses every map with such an id (EINVAL), so no container of this owner
    starts. usermod and dockerd accept the range before that.

        bob:4294901760:65536            one id too many

    Give the owner a lower range.
    """
    for span in _past(facts, ID_LIMIT):
        yield Seen(
            facts.place_of(span),
            f"{span.owner}'s {span.ids} reaches past {ID_LIMIT - 1}, the last id",
            "move the range: the kernel refuses such a map",
        )


def _is_meant_outside(span: Claim) -> bool:
    """Tell whether a line is the usual one of Incus's instances, or ours behind it or of one id.

    Incus's package writes the one, and the default pool goes on there.
    """
    if span.is_intended or (span.allocation and span.allocation.strategy == SingleUid.name):
        return True
    is_theirs = (span.holder, *span[:2]) == (ROOT, INSTANCES.start, INSTANCES.stop)
    is_ours = span.allocation and BEHIND_INSTANCES.start <= span.start
    return is_theirs or (bool(is_ours) and span.stop <= BEHIND_INSTANCES.stop)


@rule("USN015", "info")
def outside_the_pool(facts: Facts) -> Iterator[Seen]:
    """A range is outside the area that login.defs sets for subordinate ids.

    SUB_UID_MIN and SUB_UID_MAX say where useradd looks for ranges, and where other tools may
    expect them. A range outside that area works. But tools that plan ids from login.defs, such
    as a directory service, do not know about it.

        SUB_UID_MAX 600100000           in login.defs
        bob:700000000:65536             in subuid

    You do not have to do anything. To bring both into line, raise SUB_UID_MAX or move the
    range.
    """
    try:
        defs = login_defs.parse(facts.state.login_defs, facts.place(LOGIN_DEFS))
    except InvalidFileError:
        return
    for kind, area in zip(KINDS, defs.areas, strict=True):
        if area.computed:
            # All of it belongs to useradd: see USN091.
            continue
        low, high = area.first, area.last
        outside = [
            span
            for span in facts.granted[kind]
            if (span.start < low or span.stop - 1 > high)
            and isinstance(span.value, Grant)
            # USN009 and USN013 report ranges below 65536 and past 2^31.
            and not (
                span.start < SLOT
                or span.stop > _SIGNED
                or ((span.allocation or span.holder == ROOT) and _is_meant_outside(span))
            )
        ]
        if outside:
            first = outside[0]
            whose = listed([f"{first.owner}'s {first.ids}"], 1, count=len(outside))
            yield Seen(
                facts.place_of(first),
                f"{whose} outside {low}-{high} of {facts.place(LOGIN_DEFS)}",
                "raise the limit there, or leave it as it is",
            )


def _past(facts: Facts, limit: int) -> list[Claim]:
    """The ranges of lines that have an id of ``limit`` or more; other rules report odd lines."""
    return [
        span
        for kind in KINDS
        for span in facts.granted[kind]
        if span.stop > limit and isinstance(span.value, Grant)
    ]
