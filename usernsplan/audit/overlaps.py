"""Rules about ids that two have: lines against lines, against the ledger, and against what was released."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from usernsplan.audit.accounts import CALLED, named
from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.claims.index import Claims, over_others
from usernsplan.claims.meant import DAEMONS_OF_ROOT, is_meant
from usernsplan.escape import shell
from usernsplan.layout import LEDGER
from usernsplan.mapping import KINDS
from usernsplan.model import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.claims.index import Claim

_ANOTHER = "give one of them another range, and shift the files of its containers"
# Thousands of lines that all overlap make millions of pairs: a rule lists so many, and so many of
# each line in any case; it counts the others.
_MOST, _FEW = 100_000, 3


@rule("USN001", "error")
def owners_overlap(facts: Facts) -> Iterator[Seen]:
    """Lines of two owners give the same ids.

    A process in a container of one owner can then read, change and signal what belongs to a container of the other, as
    if the two were one. No reader of the files and no kernel objects: the ids are simply the same.

    usermod --add-subuids takes any range without looking; so does an editor, and a file that was copied from another
    host. useradd itself looks at the lines, but at nothing else.

        alice:100000:65536
        bob:150000:65536        150000-165535 are alice's too

    Take the line of one of them out, give him a free range (usermod --del-subuids, then --add-subuids, or 'usernsplan
    allocate'), and shift the owners of his containers' files with 'usernsplan fix-volume --mode shift'.
    """
    for kind in KINDS:
        roots = {span[:2] for span in facts.by_owner[kind].get(ROOT, ())}
        daemons = {
            span[:2] for owner in DAEMONS_OF_ROOT for span in facts.by_owner[kind].get(owner, ())
        }
        others = [
            span
            for span in facts.granted[kind]
            if not (span.allocation or span.holder in facts.owners)
            # Of a range that both have, root's line is the one that counts.
            and not (span.holder in DAEMONS_OF_ROOT and span[:2] in roots)
            and not (is_meant(span) and span[:2] not in daemons)
        ]
        for span, found, left_out in _pairs(over_others(others)):
            told = listed(_lines(found), count=len(found) + left_out)
            message = f"{span.holder}'s {span.ids} overlaps with {told}"
            overlaps = facts.overlaps(found)
            yield Seen(facts.place_of(span), message, _ANOTHER, (), overlaps, left_out)


def _pairs(
    met: Iterable[tuple[Claim, int, Iterator[Claim]]],
) -> list[tuple[Claim, list[Claim], int]]:
    """Each claim with all that it meets, in file order, and how many of these are left out."""
    room, found = _MOST, []
    for claim, count, partners in met:
        some = list(islice(partners, max(room, _FEW)))
        room -= len(some)
        found.append((claim, some, count - len(some)))
    return sorted(found, key=lambda one: one[0].number)


def _lines(found: Iterable[Claim], whose: str = "") -> Iterator[str]:
    """Lines in words, for a list."""
    return (
        f"{whose or span.holder + chr(39) + 's'} {span.ids} in line {span.number}" for span in found
    )


@rule("USN002", "error")
def allocations_overlap(facts: Facts) -> Iterator[Seen]:
    """Ids that usernsplan gave to a container are somebody else's too.

    The ledger holds the range for one container, and a line gives it, or a part of it, to another owner: his containers
    reach the files and processes of ours.

    It happens when somebody writes a line without asking (usermod --add-subuids looks at nothing), or when our lines
    were taken out and useradd then found the range free.

        usernsplan-web:524288:65536     'usernsplan allocate web'
        alice:524288:65536              written by hand

    Take the other line out. Where that owner has files already, release ours instead ('usernsplan release web'),
    allocate it anew and shift its files.
    """
    held = facts.reserved_ranges
    one_kind = (claim for claim in held if claim.kind == KINDS[0])
    for claim, found, left_out in _pairs(over_others(one_kind)):
        others = (f"'{one.holder}' {one.ids}" for one in found)
        told = listed(others, count=len(found) + left_out)
        message = f"the ledger gives '{claim.holder}' {claim.ids} and {told}"
        release = facts.state.layout.inline(f"release {shell(claim.holder)}")
        hint, overlaps = f"{release}, and allocate it anew", facts.overlaps(found)
        yield Seen(facts.place(LEDGER), message, hint, (), overlaps, left_out)

    room = _MOST
    for kind in KINDS:
        for span in facts.granted[kind]:
            if span.allocation or is_meant(span):
                continue
            over = held.over(*span[:2], kind, most=max(room, _FEW))
            found = [one for one in over if one.owner != span.holder]
            left_out = held.how_many(*span[:2], kind) - len(over)
            room -= len(over)
            if found:
                others = (f"{one.ids}, which '{one.holder}' has" for one in found)
                told = listed(others, count=len(found) + left_out)
                message = f"{span.holder}'s {span.ids} overlaps with {told}"
                hint, overlaps = (
                    "take this line out: usernsplan did not give it",
                    facts.overlaps(found),
                )
                yield Seen(facts.place_of(span), message, hint, (), overlaps, left_out)


@rule("USN003", "error")
def own_lines_overlap(facts: Facts) -> Iterator[Seen]:
    """Two lines of one owner give the same ids.

    Engines lay all lines of an owner into one map, and the kernel refuses a map in which an id appears twice: the
    container does not start, with nothing but "invalid argument" (EINVAL). Docker starts, and then no container does.

    Somebody added a range that was partly there already, or put a line in twice.

        alice:100000:65536
        alice:100000:65536      twice: EINVAL

    Take one of the two out, or move it: usermod --del-subuids FIRST-LAST, --add-subuids FIRST-LAST.
    """
    for kind in KINDS:
        # Nobody joins root's lines: newuidmap takes any of them. Of ours, drift tells.
        lines = (
            span
            for span in facts.granted[kind]
            if span.holder != ROOT and span.holder not in facts.owners
        )
        for span, found, left_out in _pairs(over_others(lines, own=True)):
            told = listed(_lines(found, "its own"), count=len(found) + left_out)
            message = f"{span.holder}'s {span.ids} overlaps with {told}"
            hint, overlaps = "the kernel takes no such map: take one out", facts.overlaps(found)
            yield Seen(facts.place_of(span), message, hint, (), overlaps, left_out)


@rule("USN010", "warning")
def over_released(facts: Facts) -> Iterator[Seen]:
    """A range that was released is somebody's again, and files may still carry its ids.

    'usernsplan release' keeps a range back because the container's files still have its ids. Its lines are gone from
    subuid and subgid, so useradd, which sees nothing else, may give the ids to a new account: whose containers then own
    those files.

        usernsplan release web          524288-589823 is kept back
        useradd bob                     and SUB_UID_MIN is 524288: bob:524288:65536
        useradd --uid 524321 eve        and she owns what container uid 33 left

    See what carries the ids ('usernsplan check --scan DIR', 'usernsplan find-owned'), give it away or remove it, and
    then 'usernsplan release --forget NAME'; or move the other line.
    """
    hint = f"files may still carry these ids: {facts.state.layout.inline('check --scan DIR')} looks"
    for kind, what in CALLED.items():
        given = Claims(span for span in facts.given[kind] if not span.is_intended)
        for q in facts.state.ledger.quarantined:
            start, stop = q.reserved_range.start, q.reserved_range.stop
            released = f"{q.reserved_range}, released by '{q.name}'"
            for span in given.over(start, stop):
                message = f"{span.owner}'s {span.ids} overlaps with {released}"
                yield Seen(facts.place_of(span), message, hint)

            found = facts.people.over(start, stop, kind)
            if found:
                message = f"the {what} {listed(map(named, found))} lies in {released}"
                place, overlaps = facts.place_of(found[0]), facts.overlaps(found)
                yield Seen(place, message, hint, overlaps=overlaps)
