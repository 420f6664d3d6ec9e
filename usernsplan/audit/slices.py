"""Rules about slices of an owner's lines: what grants them, and what they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, rule
from usernsplan.claims.sources import Granted
from usernsplan.escape import line as shown
from usernsplan.escape import shell
from usernsplan.formats.subid import PATHS, usermod
from usernsplan.holdings import own_ids
from usernsplan.layout import LEDGER
from usernsplan.mapping import KINDS
from usernsplan.model import ROOT
from usernsplan.planner.slices import left_of, who_else
from usernsplan.strategies import SLOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.ids import IdSet
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation


@rule("USN039", "error")
def slice_is_not_granted(facts: Facts) -> Iterator[Seen]:
    """A slice has ids that its owner's lines do not grant.

    A slice is a part of somebody's lines: containers of that account get their ids from it, and
    newuidmap writes their maps only where the account's lines grant every id. Without them the
    containers do not start, and useradd may give the ids to a new account.

    The line of the account was changed or removed, or the account was renamed.

        usernsplan allocate db --within alice       200000-265535 of alice:200000:65536
        usermod --del-subuids 200000-265535 alice

    Grant the ids to the account again: the command is shown. Or release the slice and allocate it
    anew.
    """
    if facts.state.ledger.interrupted or not facts.state.subid_source.reads_files:
        return
    granted = Granted(facts.state)
    for a in facts.state.ledger.allocations:
        if a.within:
            lacks = {kind: _lacking(granted, a, kind) for kind in KINDS}
            said = [
                f"{PATHS[kind].rpartition('/')[2]} grants {shown(a.within)} no {ids}"
                for kind, ids in lacks.items()
                if ids
            ]
            if said:
                yield Seen(
                    facts.place(LEDGER),
                    f"'{a.name}' is a slice of the lines of {shown(a.within)}, but "
                    f"{' and '.join(said)}",
                    _grant(facts, a, lacks),
                )


def _lacking(granted: Granted, a: Allocation, kind: Kind) -> IdSet:
    """The ids of a slice that the owner's lines lack; also those that pass, for an account."""
    wanted = own_ids(a, kind)
    shown = [p.extent.host_range for p in a.passes if p.kind == kind and a.within != ROOT]
    return granted.lacking(a.within, kind, ((ids.start, ids.stop) for ids in (*wanted, *shown)))


def _grant(facts: Facts, a: Allocation, lacks: dict[Kind, IdSet]) -> str:
    """The command that grants the ids, unless somebody else has them."""
    layout = facts.state.layout
    others = [
        line
        for kind, ids in lacks.items()
        for part in ids
        for line in facts.granted[kind]
        if line.start < part.stop and part.start < line.stop
    ]
    if others:
        release = layout.inline(f"release {shell(a.name)}")
        return (
            f"{others[0].ids} is {shown(others[0].owner)}'s: {release}, and allocate the slice anew"
        )
    words = usermod(a.within, ((kind, part) for kind, ids in lacks.items() for part in ids))
    return f"grant them: {shell(*layout.account_command(words))}"


@rule("USN059", "info")
def little_left(facts: Facts) -> Iterator[Seen]:
    """Slices leave their owner no piece of 65536 ids.

    The owner's containers without a map of their own still get all ids of the lines, those of the
    slices, too. But a container that has to be apart from the slices, with --userns=auto or as a
    further slice, has no room for a whole image: nobody is 65534.

        alice:100000:65536
        usernsplan allocate web --within alice --size 1000      64536 ids are left

    If the owner needs more, grant it another line (usermod --add-subuids, --add-subgids), and run
    'podman system migrate' as the owner.
    """
    owners = dict.fromkeys(a.within for a in facts.state.ledger.allocations if a.within)
    for owner in owners:
        left = left_of(facts.state, owner)
        lines = facts.by_owner["uid"].get(owner, ())
        if lines and left.pieces.largest() < SLOT:
            message = f"{who_else(facts.state, owner)}; {left.text()}"
            yield Seen(facts.place_of(lines[0]), message)
