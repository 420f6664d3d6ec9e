"""Rules about ids that two have: lines against lines, against the ledger, and against what was released."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.accounts import between
from usernsplan.audit.base import FILES, Facts, Index, Seen, Span, is_meant, listed, rule
from usernsplan.escape import shell
from usernsplan.layout import GROUP, LEDGER, PASSWD, SUBGID, SUBUID
from usernsplan.model import ROOT
from usernsplan.claims.meant import DAEMONS_OF_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ANOTHER = "give one of them another range, and shift the files of its containers"


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
    for path in FILES:
        roots = {(span.start, span.stop) for span in facts.by_owner[path].get(ROOT, ())}
        daemons = {
            (s.start, s.stop)
            for owner in DAEMONS_OF_ROOT
            for s in facts.by_owner[path].get(owner, ())
        }
        others = [
            span
            for span in facts.spans[path]
            if not (span.allocation or span.owner in facts.owners)
            # Of a range that both have, root's line is the one that counts.
            and not (span.owner in DAEMONS_OF_ROOT and (span.start, span.stop) in roots)
            and not (is_meant(span) and (span.start, span.stop) not in daemons)
        ]
        for span, other in sorted(overlaps(others), key=lambda pair: pair[0].number):
            message = f"{span.owner}'s {span.ids} overlaps with {other.owner}'s {other.ids} in line {other.number}"
            yield Seen(facts.place(path, span.number), message, _ANOTHER)


def overlaps(spans: Iterable[Span]) -> Iterator[tuple[Span, Span]]:
    """Each span that has ids of another owner's span before it (by start), with one such; in n log n steps."""
    # The one that reaches furthest, and of the other owners' the one that does: nobody else can matter.
    first = second = None
    for span in sorted(spans, key=lambda span: (span.start, span.number)):
        for other in (first, second):
            if other and other.owner != span.owner and other.stop > span.start:
                yield span, other
                break
        if first is None or span.stop > first.stop:
            if first and first.owner != span.owner:
                second = first
            first = span
        elif span.owner != first.owner and (second is None or span.stop > second.stop):
            second = span


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
    for after, before in overlaps(one._replace(owner=one.allocation) for one in facts.held):
        release = facts.state.layout.inline(f"release {shell(after.allocation)}")
        message = f"the ledger gives '{after.allocation}' {after.ids} and '{before.allocation}' {before.ids}"
        yield Seen(facts.place(LEDGER), message, f"{release}, and allocate it anew")
    held = Index(facts.held)
    for path in FILES:
        for span in facts.spans[path]:
            theirs = (one for one in held.over(span.start, span.stop) if one.owner != span.owner)
            if not (span.allocation or is_meant(span)) and (one := next(theirs, None)):
                message = f"{span.owner}'s {span.ids} overlaps with {one.ids}, which '{one.allocation}' has"
                yield Seen(
                    facts.place(path, span.number),
                    message,
                    "take this line out: usernsplan did not give it",
                )


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
    for path in FILES:
        for owner, spans in facts.by_owner[path].items():
            # Nobody joins root's lines: newuidmap takes any of them. Of ours, drift tells.
            if owner == ROOT or owner in facts.owners:
                continue
            furthest: Span | None = None
            for span in sorted(spans):
                if furthest and span.start < furthest.stop and span.number != furthest.number:
                    message = f"{owner}'s {span.ids} overlaps with his {furthest.ids} in line {furthest.number}"
                    yield Seen(
                        facts.place(path, span.number),
                        message,
                        "the kernel takes no such map: take one out",
                    )
                if furthest is None or span.stop > furthest.stop:
                    furthest = span


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
    accounts = {
        SUBUID: (
            PASSWD,
            "account",
            sorted({(user.uid, user.name) for user in facts.users.values()}),
        ),
        SUBGID: (
            GROUP,
            "group",
            sorted({(group.gid, group.name) for group in facts.state.accounts.groups}),
        ),
    }
    for path, (where, kind, ids) in accounts.items():
        given = Index(span for span in facts.given[path] if not span.intended)
        for q in facts.state.ledger.quarantined:
            for span in given.over(q.reserved_range.start, q.reserved_range.stop):
                message = f"{span.owner}'s {span.ids} overlaps with {q.reserved_range}, released by '{q.name}'"
                yield Seen(facts.place(span.path, span.number), message, hint)
            names = [f"{name} ({number})" for number, name in between(ids, q.reserved_range)]
            if names:
                message = (
                    f"the {kind} {listed(names)} lies in {q.reserved_range}, released by '{q.name}'"
                )
                yield Seen(facts.place(where), message, hint)
