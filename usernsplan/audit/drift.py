"""Rules about the ledger: whether the files agree with it, and the state of quarantined ranges."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.escape import file_line, in_words, shell
from usernsplan.holdings import has_lines
from usernsplan.layout import LEDGER
from usernsplan.mapping import KINDS
from usernsplan.model import OWN_PREFIX
from usernsplan.planner import adopt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.model import Allocation


@rule("USN050", "error")
def lines_missing(facts: Facts) -> Iterator[Seen]:
    """Lines of an allocation are missing.

    Engines that read subuid and subgid find no ids for the container: newuidmap refuses, and
    dockerd does not start. useradd, which does not know the ledger, may give the range to a
    new account.

    Possible causes: userdel of the owner, an editor, a configuration tool that writes the
    whole file, or a restored backup.

        usernsplan-web:589824:65536     in the ledger, but no longer in subuid

    'usernsplan check --fix' restores the lines as they were granted, unless the range now has
    another owner.
    """
    for a, one, have in facts.drifted:
        raw = facts.grants.named(one, have)
        lacking = Counter(one.wanted) - Counter(raw)
        if lacking and not Counter(raw) - Counter(one.wanted):
            yield Seen(facts.place(one.path), f"'{a.name}' lacks {_shown(lacking)}", _fix(facts, a))


@rule("USN051", "error")
def lines_reordered(facts: Facts) -> Iterator[Seen]:
    """Lines of an allocation are in another order, which changes the map.

    Docker lays an owner's lines end to end, in the order of the file. In another order,
    container root is another host id. Images and containers seem lost, and files that the
    containers create belong to the wrong owner.

    useradd sorts the file by start whenever it grants a range.

        dockremap:2:1
        dockremap:3:65533       sorted: container id 1 is now host id 3
        dockremap:589824:2

    'usernsplan check --fix' restores the order. Then restart Docker. Files that were created
    since then keep their wrong ids.
    """
    for a, one, have in facts.drifted:
        if Counter(facts.grants.named(one, have)) == Counter(one.wanted):
            message = (
                f"the {len(have)} lines of '{a.name}' are in another order, "
                "which changes Docker's map"
            )
            yield Seen(facts.place(one.path, have[0].number), message, _fix(facts, a))


@rule("USN052", "error")
def other_lines(facts: Facts) -> Iterator[Seen]:
    """An owner of an allocation has lines that were not granted.

    Readers join all lines of an owner. The container's map then has ids that usernsplan did
    not grant, or has ids twice, which the kernel refuses.

    One of our lines was changed or duplicated, or the owner was granted another range. dockerd
    does that for dockremap when it creates the user itself.

        usernsplan-web:589824:65536     as the ledger has it
        usernsplan-web:765536:65536     from an unknown source

    Remove the other lines. If one of ours is missing, run 'usernsplan check --fix'. usernsplan
    never removes lines that others wrote.
    """
    for a, one, have in facts.drifted:
        raw = facts.grants.named(one, have)
        others = Counter(raw) - Counter(one.wanted)
        if others:
            named = zip(reversed(have), reversed(raw), strict=True)
            line = next(line for line, text in named if text in others)
            twice = set(others) <= set(one.wanted)
            message = f"{one.owner} has {_shown(others)} twice"
            if not twice:
                granted = _shown(Counter(one.wanted))
                message = f"{one.owner} has {_shown(others)}, but '{a.name}' was granted {granted}"
            yield Seen(
                facts.place(one.path, line.number),
                message,
                "remove it: readers join an owner's lines",
            )


def _shown(lines: Counter[bytes]) -> str:
    return " and ".join(f"'{file_line(raw)}'" for raw in lines)


def _fix(facts: Facts, a: Allocation) -> str:
    if a.name in facts.repair.restored:
        return f"{facts.state.layout.inline('check --fix')} restores the lines as they were granted"
    release = facts.state.layout.inline(f"release {shell(a.name)}")
    return f"the range has another owner, or its owner has other lines: remove these, or {release}"


@rule("USN053", "warning")
def unknown_to_the_ledger(facts: Facts) -> Iterator[Seen]:
    """A line has a name of ours that the ledger does not know.

    Owner names that begin with 'usernsplan-' are ours. If the ledger does not know one,
    nothing manages it: 'usernsplan list' does not show it, and 'usernsplan release' cannot
    remove it.

    The ledger was lost or restored from an older backup, the line was copied from another
    host, or a released line was restored.

        usernsplan-old:655360:65536

    Adopt it ('usernsplan adopt old'), or remove the line. If the whole ledger is lost,
    'usernsplan ledger rebuild' makes a new one of everything that is certain, and 'usernsplan
    adopt' lists the rest.
    """
    if facts.state.ledger.interrupted or any(found.path == LEDGER for found in facts.unread):
        return
    ours = facts.state.ledger.allocations
    known = {owner for a in ours if has_lines(a) for owner in (a.owner, *a.extra_owners)}
    alone = {a.owner for a in ours if not has_lines(a)}
    adopts: dict[str, str] | None = None
    for kind in KINDS:
        for owner, spans in facts.by_owner[kind].items():
            if owner.startswith(OWN_PREFIX) and owner not in known:
                name = owner.removeprefix(OWN_PREFIX)
                has = listed(span.ids for span in spans)
                message = f"{owner} has {has}, but the ledger does not know '{name}'"
                hint = "remove the line"
                if adopts is None:
                    adopts = adopt.commands(facts.state)
                if owner in adopts and owner not in alone:
                    hint = f"{facts.state.layout.inline(adopts[owner])} adopts it; or {hint}"
                if owner in alone:
                    message = f"{owner} has {has}, but '{name}' was allocated without lines"
                yield Seen(facts.place_of(spans[0]), message, hint)


@rule("USN054", "warning")
def run_interrupted(facts: Facts) -> Iterator[Seen]:
    """A run of usernsplan was interrupted, or is still in progress.

    The ledger has what the run was about to do; the files may be half changed. Nothing is
    lost: the next 'allocate' or 'release' finishes the run or puts it back, and reports which.

    A kill, a full disk or a power cut interrupted it. A run that is at work at this moment
    looks the same for a short time.

    'usernsplan check --fix' repairs it.
    """
    if facts.state.ledger.interrupted:
        command = facts.intent.command if facts.intent else ""
        which = f" ({in_words(command)})" if command else ""
        yield Seen(
            facts.place(LEDGER),
            f"a run was interrupted{which}, or is still in progress",
            f"{facts.state.layout.inline('check --fix')} finishes it or puts it back",
        )


@rule("USN055", "error")
def ledger_unreadable(facts: Facts) -> Iterator[Seen]:
    """The ledger cannot be read.

    Without the ledger, usernsplan does not know what is allocated. 'allocate' and 'release'
    refuse to work, and this check skipped the rules that compare with the ledger.

    A disk is damaged, the file was truncated, or a newer usernsplan wrote the ledger.

    Restore the file from a backup, or use the newer usernsplan. If the ledger is lost,
    'usernsplan ledger rebuild' shows what other files know about it, and makes a new one.
    """
    for found in facts.unread:
        if found.path == LEDGER:
            yield Seen(facts.place(LEDGER), found.fact, found.hint)


@rule("USN056", "warning")
def still_carried(facts: Facts) -> Iterator[Seen]:
    """Files still carry ids of a quarantined range (--scan).

    Do not forget the range before these files are changed: the next container that gets the
    range would own them.

        usernsplan release web
        /srv/web/index.html belongs to 589857   container uid 33 of the former web

    'usernsplan find-owned NAME DIR' lists the files. Give them another owner
    ('usernsplan fix-volume DIR --container NEW --from NAME', or chown), or delete them.
    """
    for found in facts.scanned or ():
        if found.entries:
            more = f", for example {found.example}" if found.example else ""
            files = "1 file carries" if found.entries == 1 else f"{found.entries} files carry"
            ids = f"the released '{found.name}' ({found.reserved_range})"
            yield Seen(
                facts.place(LEDGER),
                f"{files} ids of {ids}{more}",
                "change their owner or delete them before you forget the range",
            )


@rule("USN057", "info")
def can_be_forgotten(facts: Facts) -> Iterator[Seen]:
    """No scanned file carries ids of a quarantined range any more (--scan).

    The range can be given out again, if you scanned every folder that may have its files.

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
            yield Seen(
                facts.place(LEDGER),
                f"no scanned file carries ids of '{found.name}' ({found.reserved_range})",
                f"{forget} frees it",
            )
