"""Rules about the ledger: whether the files still say what it says, and what became of what was released."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.claims.pool import POOL_START
from usernsplan.errors import InvalidValueError
from usernsplan.escape import file_line, in_words, shell
from usernsplan.formats.subid import ended
from usernsplan.layout import LEDGER
from usernsplan.mapping import KINDS
from usernsplan.model import OWN_PREFIX
from usernsplan.planner.names import check_name
from usernsplan.strategies import SLOT, PerContainer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.claims.index import Claim
    from usernsplan.formats.subid import Line
    from usernsplan.holdings import Holding
    from usernsplan.model import Allocation


@rule("USN050", "error")
def lines_missing(facts: Facts) -> Iterator[Seen]:
    """Lines of an allocation are missing.

    Engines that read subuid and subgid find no ids for the container: newuidmap refuses, dockerd does not start. And
    useradd, which knows no ledger, may give the range to a new account.

    userdel of the owner, an editor, a configuration tool that writes the whole file, or a backup that was put back.

        usernsplan-web:524288:65536     stands in the ledger, and no more in subuid

    'usernsplan check --fix' puts them back as they were granted, unless somebody else has the range by now.
    """
    for a, one, have in _drifted(facts):
        lacking = Counter(one.wanted) - Counter(_raw(have))
        if lacking and not Counter(_raw(have)) - Counter(one.wanted):
            message = f"'{a.name}' lacks {_shown(lacking)}"
            yield Seen(facts.place(one.path), message, _fix(facts, a))


@rule("USN051", "error")
def lines_reordered(facts: Facts) -> Iterator[Seen]:
    """Lines of an allocation stand in another order, which makes another map of them.

    Docker lays an owner's lines end to end in the order of the file. In another order container root is another host
    id: images and containers seem gone, and files that the containers make belong to somebody else.

    useradd sorts the file by start whenever it gives out a range.

        dockremap:2:1
        dockremap:3:65533       sorted: container id 1 is host id 3 now
        dockremap:524288:2

    'usernsplan check --fix' puts them back in order; then restart Docker. Files that were made meanwhile keep the ids
    that they got.
    """
    for a, one, have in _drifted(facts):
        if Counter(_raw(have)) == Counter(one.wanted):
            message = f"the {len(have)} lines of '{a.name}' stand in another order, which changes Docker's map"
            yield Seen(facts.place(one.path, have[0].number), message, _fix(facts, a))


@rule("USN052", "error")
def other_lines(facts: Facts) -> Iterator[Seen]:
    """An owner of an allocation has other lines than those that were granted.

    Readers join all lines of an owner: the container's map has ids that usernsplan did not give, or has them twice,
    which the kernel refuses.

    Somebody changed one of our lines, doubled it, or added a range to the owner (dockerd does for dockremap when it
    makes the user itself).

        usernsplan-web:524288:65536     as the ledger has it
        usernsplan-web:700000:65536     nobody knows why

    Take the other lines out, and run 'usernsplan check --fix' where one of ours is missing. What others wrote is never
    taken out by itself.
    """
    for a, one, have in _drifted(facts):
        others = Counter(_raw(have)) - Counter(one.wanted)
        if others:
            line = next(line for line in reversed(have) if ended(line.raw) in others)
            twice = set(others) <= set(one.wanted)
            message = f"{one.owner} has {_shown(others)}, " + (
                "twice" if twice else f"which is not of '{a.name}'"
            )
            message += f": {_shown(Counter(one.wanted))} is" if not twice else ""
            yield Seen(
                facts.place(one.path, line.number),
                message,
                "take it out: readers join an owner's lines",
            )


def _drifted(facts: Facts) -> Iterator[tuple[Allocation, Holding, list[Line]]]:
    """What does not stand as it was granted. While a run is unfinished, nothing is: it is mended first."""
    if facts.state.ledger.interrupted:
        return
    for a in facts.state.ledger.allocations:
        for one, have in facts.grants.of(a):
            if _raw(have) != one.wanted:
                yield a, one, have


def _raw(lines: list[Line]) -> list[bytes]:
    return [ended(line.raw) for line in lines]


def _shown(lines: Counter[bytes]) -> str:
    return " and ".join(f"'{file_line(raw)}'" for raw in lines)


def _fix(facts: Facts, a: Allocation) -> str:
    if a.name in facts.repair.restored:
        return f"{facts.state.layout.inline('check --fix')} puts them back as they were granted"
    release = facts.state.layout.inline(f"release {shell(a.name)}")
    return (
        f"somebody else has the range, or its owner has other lines: take these out, or {release}"
    )


@rule("USN053", "warning")
def unknown_to_the_ledger(facts: Facts) -> Iterator[Seen]:
    """A line has a name of ours, and the ledger does not know it.

    Owners that begin with 'usernsplan-' are ours. One that the ledger does not know is nobody's: 'usernsplan list' does
    not show it, and 'usernsplan release' cannot take it out.

    The ledger was lost or put back from an older backup, the line was copied from another host, or a released line was
    put back.

        usernsplan-old:589824:65536

    Adopt it ('usernsplan allocate --strategy per-container old --start 589824'), or take the line out. Where the whole
    ledger is gone, 'usernsplan ledger rebuild' adopts all that is sure.
    """
    if facts.state.ledger.interrupted or any(found.path == LEDGER for found in facts.unread):
        return
    known = {owner for a in facts.state.ledger.allocations for owner in (a.owner, *a.extra_owners)}
    for kind in KINDS:
        for owner, spans in facts.by_owner[kind].items():
            if owner.startswith(OWN_PREFIX) and owner not in known:
                name = owner.removeprefix(OWN_PREFIX)
                message = f"the ledger knows no '{name}', and {owner} has {listed([span.ids for span in spans])}"
                adopt = _adopting(facts, name, spans)
                hint = f"{adopt} adopts it; or take the line out" if adopt else "take the line out"
                yield Seen(facts.place_of(spans[0]), message, hint)


def _adopting(facts: Facts, name: str, spans: Sequence[Claim]) -> str:
    """The words that make an allocation of these lines; "" where there are none."""
    strategies = {a.strategy for a in facts.state.ledger.allocations}
    try:
        check_name(name)
    except InvalidValueError:
        return ""
    if len(spans) != 1 or not strategies <= {PerContainer.name}:
        return ""
    [span] = spans
    size = "" if span.stop - span.start == SLOT else f" --size {span.stop - span.start}"
    pool = "" if span.start >= POOL_START else f" --pool {span.for_usermod}"
    words = f"allocate --strategy per-container {shell(name)} --start {span.start}{size}{pool}"
    return facts.state.layout.inline(words)


@rule("USN054", "warning")
def run_interrupted(facts: Facts) -> Iterator[Seen]:
    """A run of usernsplan was interrupted, or is still under way.

    What it was about to do is in the ledger, and the files may be half-way. Nothing is lost: the next 'allocate' or
    'release' completes it or puts it back, and says which.

    A kill, a full disk or a power cut in the middle of a run. Where a run is at work at this very moment, the same is
    seen for a moment.

    'usernsplan check --fix' mends it.
    """
    if facts.state.ledger.interrupted:
        words = (
            f" ({in_words(facts.intent.command)})" if facts.intent and facts.intent.command else ""
        )
        hint = f"{facts.state.layout.inline('check --fix')} completes it or puts it back"
        yield Seen(
            facts.place(LEDGER), f"a run was interrupted{words}, or is still under way", hint
        )


@rule("USN055", "error")
def ledger_unreadable(facts: Facts) -> Iterator[Seen]:
    """The ledger cannot be read.

    Nothing is known of what was allocated: 'allocate' and 'release' refuse to work, and rules that compare with the
    ledger were left out here.

    A damaged disk, a file that was cut off, or a ledger that a newer usernsplan wrote.

    Put back a copy of the file from a backup, or use the newer usernsplan. Where it is lost, 'usernsplan ledger
    rebuild' shows what other files tell of it, and makes a new one.
    """
    for found in facts.unread:
        if found.path == LEDGER:
            yield Seen(facts.place(LEDGER), found.fact, found.hint)


@rule("USN056", "warning")
def still_carried(facts: Facts) -> Iterator[Seen]:
    """Files still carry ids of a range that was released (--scan).

    As long as they do the range must not be forgotten: a new container that gets it would own these files.

        usernsplan release web
        /srv/web/index.html belongs to 524321   container uid 33 of what was web

    'usernsplan find-owned NAME DIR' lists them. Give them away ('usernsplan fix-volume DIR --container NEW --from NAME'
    does, and chown) or remove them.
    """
    for found in facts.scanned or ():
        if found.entries:
            more = f", {found.example} for one" if found.example else ""
            message = f"{found.entries} files carry ids of '{found.name}' ({found.reserved_range}), which was released{more}"
            yield Seen(
                facts.place(LEDGER),
                message,
                "give them away or remove them before the range is forgotten",
            )


@rule("USN057", "info")
def can_be_forgotten(facts: Facts) -> Iterator[Seen]:
    """No file that was looked at carries a released range any more (--scan).

    The range can be given out again, if the folders that were scanned are all that there are.

    'usernsplan release --forget NAME' frees it.
    """
    carried = {found.name for found in facts.scanned or () if found.entries}
    for found in facts.scanned or ():
        if not found.entries and found.name not in carried:
            several = [q for q in facts.state.ledger.quarantined if q.name == found.name][1:]
            which = (
                f" --range {found.reserved_range.start}-{found.reserved_range.last}"
                if several
                else ""
            )
            forget = facts.state.layout.inline(f"release --forget {shell(found.name)}{which}")
            message = (
                f"no file that was scanned carries ids of '{found.name}' ({found.reserved_range})"
            )
            yield Seen(facts.place(LEDGER), message, f"{forget} frees it")
