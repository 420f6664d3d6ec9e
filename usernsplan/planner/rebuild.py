"""Rebuild a lost ledger from the lines of subuid and subgid, and from the journals of runs. Pure.

Nothing is guessed. What has two possible readings, or is in no other file, is left out and named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.errors import InvalidValueError
from usernsplan.escape import shell
from usernsplan.formats.subid import Grant
from usernsplan.holdings import holdings
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.model import (
    DEFAULT_NAME,
    OWN_PREFIX,
    ROOT,
    Allocation,
    LedgerChange,
    LedgerState,
    Volume,
)
from usernsplan.planner.names import check_name
from usernsplan.strategies import PerContainer, Shared

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.formats.subid import SubidFile
    from usernsplan.mapping import Mapping
    from usernsplan.model import HostState, Mode
    from usernsplan.strategies import Strategy

_SHOWN = 5

Ranges = tuple[IdRange, ...]


class Given(NamedTuple):
    """What the journal of a run says: the container that got these volumes, and its map.

    ``paths`` are below the root. ``owner`` is the host's (uid, gid) that everything got; None if
    every file kept its owner. ``is_done``: the run is complete. ``is_reverse``: it gave the volumes
    back to the host.
    """

    run: str
    container: str
    mapping: Mapping
    mode: Mode
    owner: tuple[int, int] | None
    paths: tuple[str, ...]
    is_done: bool = True
    is_reverse: bool = False


class LeftOut(NamedTuple):
    """Something that the ledger cannot regain, the reason, and the remedy."""

    what: str
    why: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The proposed ledger, and what it lacks."""

    change: LedgerChange
    left_out: tuple[LeftOut, ...]


def make_rebuilt(
    state: HostState, given: Sequence[Given], unread: Iterable[LeftOut] = ()
) -> Rebuilt:
    """Decide what the new ledger holds.

    ``given`` is oldest first; ``unread`` are runs that could not be read.
    """
    left = list(unread)
    lines = _Lines(state)
    maps = {one.container: one for one in given if not one.is_reverse}
    made: dict[str, Allocation] = {}
    for owner in lines.owners:
        if owner.startswith(OWN_PREFIX):
            found = _of_lines(owner.removeprefix(OWN_PREFIX), owner, lines, left)
            if found is not None:
                made[found.name] = found

    named = {one.owner for one in made.values()} | {one.what for one in left}
    kept: list[tuple[str, IdRange]] = []
    for name, one in maps.items():
        if name in made or f"{OWN_PREFIX}{name}" in named:
            continue
        found, reserved_range = _of_run(one, lines, left)
        if found is not None:
            made[name] = found
        elif reserved_range is not None:
            kept.append((name, reserved_range))

    _drop_overlapping(made, left)
    left += _others(lines, {one.owner for one in made.values()}, {one.what for one in left})
    left += _shared_with_root(made.values(), lines, state)
    kept += _still_quarantined(state, made.values(), kept)
    volumes = _volumes(made, {name for name, _ in kept}, given, left)

    has_some = (
        "; the damaged ledger has only those that are shown"
        if state.ledger != LedgerState()
        else ""
    )
    left.append(
        LeftOut(
            "released ranges, reservations and the history",
            f"no other file has them{has_some}",
            "reserve the ids of others in a plan file, and before you use a new range, look for files "
            f"that carry it: {state.layout.command('find-owned FIRST-LAST DIR')}",
        )
    )
    change = LedgerChange(
        tuple(made.values()),
        quarantine=tuple(kept),
        volumes=volumes,
        reserve=state.ledger.reservations,
    )
    return Rebuilt(change, tuple(dict.fromkeys(left)))


class _Lines:
    """The ranges of each owner in both files, in the order of the lines."""

    def __init__(self, state: HostState) -> None:
        self.layout = state.layout
        self.place = f"{state.layout.path(SUBUID)} and {state.layout.path(SUBGID)}"
        files = (state.subuid, state.subgid)
        self._uids, self._gids = map(_grants, files)
        self.owners = tuple(dict.fromkeys((*self._uids, *self._gids)))
        # Readers disagree on a line that may belong to one of these.
        self.odd_owners = {o for file in files for line in file.odd_lines() for o in line.owners}
        self.claimed = IdSet.union(file.claimed() for file in files)

    def of(self, owner: str) -> tuple[Ranges, Ranges]:
        return self._uids.get(owner, ()), self._gids.get(owner, ())


def _grants(file: SubidFile) -> dict[str, Ranges]:
    found: dict[str, Ranges] = {}
    for line in file.lines:
        if isinstance(line, Grant):
            try:
                ranges: Ranges = (IdRange(line.start, line.stop - line.start),)
            except InvalidValueError:
                ranges = ()
            found[line.owner] = found.get(line.owner, ()) + ranges
    return found


def _of_lines(name: str, owner: str, lines: _Lines, left: list[LeftOut]) -> Allocation | None:
    """The allocation that an owner's lines describe; if they are unclear, ``left`` gets the reason."""
    try:
        if name != DEFAULT_NAME:
            check_name(name)
    except InvalidValueError as error:
        left.append(LeftOut(owner, f"{error}"))
        return None

    uids, gids = lines.of(owner)
    start = str(uids[0].start) if uids else "N"
    adopt = lines.layout.inline(f"allocate {shell(name, '--owner', owner, '--start', start)}")
    again = f"adopt the lines with {adopt} and the other options of the original command"
    if owner in lines.odd_owners or uids != gids or not uids:
        why = f"its lines in {lines.place} differ, or readers disagree on them"
        check = lines.layout.command("check")
        left.append(LeftOut(owner, why, f"make them equal, or remove them: {check}"))
        return None

    strategy, base = _strategy(uids)
    if strategy is None:
        left.append(LeftOut(owner, "its lines do not show the container ids", again))
        return None
    held = IdRange(base, strategy.need.count) if strategy.need and base is not None else None
    made = Allocation(name, owner, strategy.name, strategy.mapping(base), held)
    if made.mapping.uids.host_ranges() != uids:
        left.append(LeftOut(owner, "its lines match no strategy", again))
        return None

    if owner.startswith(OWN_PREFIX):
        return made
    # Nothing proves that usernsplan wrote these lines, so a release must leave them.
    return replace(made, found=tuple(line for one in holdings(made) for line in one.noted()))


def _strategy(ranges: Ranges) -> tuple[Strategy | None, int | None]:
    """The one strategy that writes these lines, with its base; None if none or several do.

    A single id does not show its container id, nor the size of its block.
    """
    first, last = ranges[0], ranges[-1].last
    try:
        if len(ranges) == 1 and first.count > 1:
            if first.start == 0:
                return Shared(identity=True, max=first.count), None
            return PerContainer(size=first.count), first.start
        if first.count == 1 and first.start > 0 and len(ranges) in {2, 3}:
            fills = len(ranges) == 3  # noqa: PLR2004 - container root, the filler, the host's own
            shared = Shared(dockerroot=first.start, max=last, filler=fills)
            return shared, ranges[1].start if fills else None
    except InvalidValueError:
        pass
    return None, None


def _of_run(
    one: Given, lines: _Lines, left: list[LeftOut]
) -> tuple[Allocation | None, IdRange | None]:
    """The allocation that a run names, or the range to quarantine if nobody has its lines now."""
    ranges = one.mapping.uids.host_ranges()
    both = (ranges, one.mapping.gids.host_ranges())
    owners = [owner for owner in lines.owners if owner != ROOT and lines.of(owner) == both]
    if len(owners) == 1:
        made = _of_lines(one.container, owners[0], lines, left)
        if made is not None and made.mapping != one.mapping:
            why = f"run {one.run} gave volumes to '{one.container}' by another map"
            left.append(LeftOut(owners[0], why))
            return None, None
        return made, None

    alone = len(ranges) == 1 and both[0] == both[1] and ranges[0].count > 1 and ranges[0].start > 0
    if not owners and alone and not lines.claimed.meets(ranges[0].start, ranges[0].stop):
        # It was released or has lost its lines, and files may still carry its ids.
        return None, ranges[0]
    why = (
        f"run {one.run} gave volumes to it, and the lines in {lines.place} do not show who has its "
        "ids now"
    )
    left.append(LeftOut(one.container, why, "repeat the command that allocated it"))
    return None, None


def _drop_overlapping(made: dict[str, Allocation], left: list[LeftOut]) -> None:
    """Leave out allocations that overlap: usernsplan never gives out such ranges."""
    held = sorted((one.reserved_range, name) for name, one in made.items() if one.reserved_range)
    for (mine, name), (theirs, other) in combinations(held, 2):
        if mine.overlaps(theirs):
            left += [
                LeftOut(made[n].owner, f"the lines of {name} and {other} overlap")
                for n in (name, other)
                if n in made
            ]
            made.pop(name, None)
            made.pop(other, None)


def _still_quarantined(
    state: HostState, made: Iterable[Allocation], kept: Iterable[tuple[str, IdRange]]
) -> list[tuple[str, IdRange]]:
    """The quarantined ranges of the damaged ledger. If it is wrong, only free ids are lost."""
    taken = IdSet(
        [*(one.reserved_range for one in made if one.reserved_range), *(held for _, held in kept)]
    )
    return [
        (q.name, q.reserved_range)
        for q in state.ledger.quarantined
        if not taken.meets(q.reserved_range.start, q.reserved_range.stop)
    ]


def _others(lines: _Lines, known: set[str], told: set[str]) -> list[LeftOut]:
    """Owners whose names do not show whether usernsplan wrote their lines."""
    names = [
        o
        for o in lines.owners
        if o not in known | told and o != ROOT and not o.startswith(OWN_PREFIX)
    ]
    if not names:
        return []
    shown = ", ".join(names[:_SHOWN]) + (
        f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    )
    again = lines.layout.command("allocate NAME --owner OWNER --start N")
    return [
        LeftOut(
            f"lines of {shown}",
            "the names do not show whether usernsplan wrote them; nobody else gets these ids",
            f"adopt such a line with the command that allocated it: {again}",
        )
    ]


def _shared_with_root(made: Iterable[Allocation], lines: _Lines, state: HostState) -> list[LeftOut]:
    uids, gids = lines.of(ROOT)
    both = [
        one.name
        for one in made
        if {*one.mapping.uids.host_ranges()} <= {*uids}
        and {*one.mapping.gids.host_ranges()} <= {*gids}
    ]
    return [
        LeftOut(
            f"root's lines for {name}",
            "nothing shows whether usernsplan granted them",
            "if an engine such as LXC needs them, run "
            f"{state.layout.inline(f'allocate {shell(name)} --engine lxc')} "
            "with the other options of the original command",
        )
        for name in both
    ]


def _volumes(
    made: dict[str, Allocation], kept: set[str], given: Iterable[Given], left: list[LeftOut]
) -> tuple[Volume, ...]:
    """The volumes that runs gave to these containers by their present maps, and that they still have."""
    found: dict[str, Volume] = {}
    for one in given:
        for path in one.paths:
            found.pop(path, None)
            if one.is_reverse:
                continue
            has = made.get(one.container)
            same = (
                has is not None and has.mapping.uids.host_ranges() == one.mapping.uids.host_ranges()
            )
            if not one.is_done:
                why = f"run {one.run} on it was interrupted; once it is finished, it is recorded"
                left.append(LeftOut(path, why))
            elif same or (has is None and one.container in kept):
                mapping = has.mapping if has else one.mapping
                found[path] = Volume(path, one.container, one.mode, user=_user(mapping, one.owner))
            else:
                why = f"run {one.run} gave it to '{one.container}', whose ids are unknown or others now"
                remedy = "once the container is allocated, run fix-volume on it again"
                left.append(LeftOut(path, why, remedy))
    return tuple(sorted(found.values(), key=lambda volume: volume.path))


def _user(mapping: Mapping, owner: tuple[int, int] | None) -> str:
    if owner is None:
        return ""
    return f"{mapping.uids.to_container(owner[0])}:{mapping.gids.to_container(owner[1])}"
