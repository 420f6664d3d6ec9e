"""Rules about ids with two owners: lines that overlap lines, the ledger or quarantined ranges."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from usernsplan.audit.accounts import named
from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.claims.index import Claims, over_others
from usernsplan.claims.meant import DAEMONS_OF_ROOT, is_meant
from usernsplan.escape import shell
from usernsplan.layout import LEDGER
from usernsplan.mapping import CALLED, KINDS
from usernsplan.model import ROOT
from usernsplan.planner.publish import again

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.claims.index import Claim
    from usernsplan.model import Quarantined

_ANOTHER = "give one of them another range, and shift the files of its containers"
# Thousands of overlapping lines make millions of pairs. A rule lists at most _MOST pairs, but at
# least _FEW for each line, and only counts the rest.
_MOST, _FEW = 100_000, 3
# A claim, those that it overlaps, and how many more of these were not listed.
_Pairs = tuple["Claim", "list[Claim]", int]


@rule("USN001", "error")
def owners_overlap(facts: Facts) -> Iterator[Seen]:
    """Lines of two owners grant the same ids.

    A process in a container of one owner can read, change and signal everything that belongs
    to a container of the other owner, because the ids are the same. Neither the readers of the
    files nor the kernel object.

    usermod --add-subuids does not check for overlaps; neither does an editor, or a file copied
    from another host. useradd checks the existing lines, but nothing else.

        alice:100000:65536
        bob:150000:65536        150000-165535 are alice's too

    Remove one of the two lines and grant that owner a free range (usermod --del-subuids, then
    --add-subuids, or 'usernsplan allocate'). Then shift the files of its containers with
    'usernsplan fix-volume --mode shift'.
    """
    for kind in KINDS:
        roots = {span[:2] for span in facts.by_owner[kind].get(ROOT, ())}
        others = [
            span
            for span in facts.crowded[kind]
            if not (span.allocation or span.holder in facts.owners)
            # If root has the same range as its daemon, root's line is the one to report.
            and not (span.holder in DAEMONS_OF_ROOT and span[:2] in roots)
            and not is_meant(span)
        ]
        for pairs in _pairs(over_others(others)):
            yield _overlap(facts, pairs, "{0.holder}'s {0.ids} in line {0.number}", _ANOTHER)


def _pairs(met: Iterable[tuple[Claim, int, Iterator[Claim]]]) -> list[_Pairs]:
    """Each claim with those that it overlaps, and how many of these are left out, in file order."""
    room, found = _MOST, []
    for claim, count, partners in met:
        some = list(islice(partners, max(room, _FEW)))
        room -= len(some)
        found.append((claim, some, count - len(some)))
    return sorted(found, key=lambda one: one[0].number)


def _overlap(facts: Facts, pairs: _Pairs, each: str, hint: str) -> Seen:
    """A line and the claims that it overlaps; ``each`` is the format of one of them."""
    span, found, left_out = pairs
    listing = listed(map(each.format, found), count=len(found) + left_out)
    message = f"{span.holder}'s {span.ids} overlaps with {listing}"
    return Seen(facts.place_of(span), message, hint, (), facts.overlaps(found), left_out)


@rule("USN002", "error")
def allocations_overlap(facts: Facts) -> Iterator[Seen]:
    """Ids that usernsplan allocated also belong to another owner.

    The ledger reserves the range for one container, and a line grants all or part of it to
    another owner. The containers of that owner can reach the files and processes of ours.

    It happens if a line is written without checking (usermod --add-subuids checks nothing), or
    if our lines were removed and useradd then found the range free.

        usernsplan-web:589824:65536     'usernsplan allocate web'
        alice:589824:65536              written by hand

    Remove the other line. If its owner already has files, release ours instead
    ('usernsplan release web'), allocate it again and shift its files.
    """
    held = facts.reserved_ranges
    for claim, found, left_out in _both_given(held):
        others = (f"'{one.holder}' {one.ids}" for one in found)
        listing = listed(others, count=len(found) + left_out)
        message = f"the ledger gives '{claim.holder}' {claim.ids} and {listing}"
        hint = (
            f"{facts.state.layout.inline(f'release {shell(claim.holder)}')}, and allocate it again"
        )
        yield Seen(facts.place(LEDGER), message, hint, (), facts.overlaps(found), left_out)

    room = _MOST
    for kind in KINDS:
        of_others = (span for span in facts.granted[kind] if not span.allocation)
        for span in held.met_by(of_others, kind):
            if is_meant(span):
                continue
            over = held.over(*span[:2], kind, most=max(room, _FEW))
            found = [one for one in over if span.holder not in _owners(one)]
            left_out = held.how_many(*span[:2], kind) - len(over)
            room -= len(over)
            if found:
                hint = _unexpected(facts, span, found[0].holder)
                yield _overlap(facts, (span, found, left_out), "{0.ids} of '{0.holder}'", hint)


def _both_given(held: Claims) -> Iterator[_Pairs]:
    """The allocations that have the same ids; two have them as uids and as gids only once.

    A slice lies in what its owner has, on purpose.
    """
    seen: set[tuple[str, str]] = set()
    for kind in KINDS:
        of_kind = [claim for claim in held if claim.kind == kind]
        slices = [c for c in of_kind if c.allocation and c.allocation.within]
        whole = Claims(c for c in of_kind if not (c.allocation and c.allocation.within))
        pairs = _pairs(over_others(whole)) + _pairs(over_others(slices))
        for claim in slices:
            over = [
                one
                for one in whole.over(*claim[:2], kind, most=_MOST)
                if not (one.allocation and _owners(claim) & _owners(one))
            ]
            pairs += [(claim, over, 0)] if over else []

        for claim, found, left_out in pairs:
            new = [one for one in found if (claim.holder, one.holder) not in seen]
            if new:
                yield claim, new, left_out
            seen |= {pair for one in new for pair in _ways(claim.holder, one.holder)}


def _ways(one: str, other: str) -> set[tuple[str, str]]:
    return {(one, other), (other, one)}


def _owners(claim: Claim) -> set[str]:
    """The owners whose lines grant an allocation's ids; for a slice, whose lines hold it.

    Root's daemons have root's line.
    """
    a = claim.allocation
    if a is None or not a.within:
        return {claim.owner}
    return {a.within, *(DAEMONS_OF_ROOT if a.within == ROOT else ())}


def _unexpected(facts: Facts, span: Claim, name: str) -> str:
    """What to do about a line that the ledger does not have for the allocation of this name.

    A rebuilt ledger knows no line of root's.
    """
    allocation = next((a for a in facts.state.ledger.allocations if a.name == name), None)
    if span.holder != ROOT or allocation is None:
        return "usernsplan did not write this line; remove it"
    adopt = facts.state.layout.inline(f"{again(allocation)} --engine lxc")
    return f"if containers of LXC, LXD or Incus need it, {adopt} adopts it; otherwise remove it"


@rule("USN003", "error")
def own_lines_overlap(facts: Facts) -> Iterator[Seen]:
    """Two lines of one owner grant the same ids.

    Engines put all lines of an owner into one map. The kernel refuses a map in which an id
    appears twice: the container does not start, and the only message is "invalid argument"
    (EINVAL). Docker itself starts, but none of its containers do.

    A range was added that the owner partly had already, or a line was added twice.

        alice:100000:65536
        alice:100000:65536      twice: EINVAL

    Remove one of the two, or move it: usermod --del-subuids FIRST-LAST, --add-subuids
    FIRST-LAST.
    """
    for kind in KINDS:
        # Root's lines are not joined: newuidmap accepts each of them alone. USN052 reports ours.
        lines = (
            span
            for span in facts.crowded[kind]
            if span.holder != ROOT and span.holder not in facts.owners
        )
        hint = "remove one of them: the kernel refuses such a map"
        for pairs in _pairs(over_others(lines, own=True)):
            yield _overlap(facts, pairs, "its own {0.ids} in line {0.number}", hint)


@rule("USN010", "warning")
def over_released(facts: Facts) -> Iterator[Seen]:
    """A quarantined range has an owner again, and files may still carry its ids.

    'usernsplan release' quarantines a range because files of the container still have its ids.
    Its lines are gone from subuid and subgid. useradd reads nothing else, so it may give the
    ids to a new account, whose containers then own those files.

        usernsplan release web          589824-655359 is quarantined
        useradd bob                     SUB_UID_MIN is 589824: bob:589824:65536
        useradd --uid 589857 eve        eve owns the files of container uid 33

    Find the files with these ids ('usernsplan check --scan DIR', 'usernsplan find-owned'),
    change their owner or delete them, and then run 'usernsplan release --forget NAME'. Or move
    the other line.
    """
    scan = facts.state.layout.inline("check --scan DIR")
    hint = f"files may still carry these ids: {scan} looks for them"
    for kind, what in CALLED.items():
        given = Claims(span for span in facts.given[kind] if not span.is_intended)
        for q in facts.state.ledger.quarantined:
            start, stop = q.reserved_range.start, q.reserved_range.stop
            released = f"{q.reserved_range}, quarantined for '{q.name}'"
            for span in given.over(start, stop):
                if _has_slice(span, q):
                    continue
                message = f"{span.owner}'s {span.ids} overlaps with {released}"
                yield Seen(facts.place_of(span), message, hint)

            found = facts.people.over(start, stop, kind)
            if found:
                message = f"the {what} {listed(map(named, found))} is in {released}"
                place, overlaps = facts.place_of(found[0]), facts.overlaps(found)
                yield Seen(place, message, hint, overlaps=overlaps)


def _has_slice(span: Claim, q: Quarantined) -> bool:
    """Tell whether a line had these quarantined ids as a slice, and so keeps them on purpose."""
    owner = q.was.within if q.was else ""
    return span.holder == owner or (owner == ROOT and span.holder in DAEMONS_OF_ROOT)
