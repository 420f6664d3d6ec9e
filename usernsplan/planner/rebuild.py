"""A ledger that was lost, told again from what others hold: lines in subuid and subgid, and journals of runs. Pure.

Nothing is guessed. What two readings are possible of, and what stands nowhere else, is left out and named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    """What the journal of a run tells: whose these volumes (by their names below the root) became, and by which map.

    ``owner`` is the host's (uid, gid) that everything got; None where owners were kept apart. ``is_done``: it came to
    its end. ``is_reverse``: it gave the volumes back to the host.
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
    """What cannot be known: of what, why, and what can be done."""

    what: str
    why: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The ledger that is proposed, and what it lacks."""

    change: LedgerChange
    left_out: tuple[LeftOut, ...]


def make_rebuilt(
    state: HostState, given: Sequence[Given], unread: Iterable[LeftOut] = ()
) -> Rebuilt:
    """Decide what a new ledger is to hold. ``given`` is oldest first; ``unread`` are runs that could not be read."""
    left = list(unread)
    lines = _Lines(state)
    maps = {one.container: one for one in given if not one.is_reverse}
    made: dict[str, Allocation] = {}
    for owner in lines.owners():
        if owner.startswith(OWN_PREFIX):
            found = _told(owner.removeprefix(OWN_PREFIX), owner, lines, left)
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
    kept += _still_kept(state, made.values(), kept)
    volumes = _volumes(made, {name for name, _ in kept}, given, left)
    left.append(
        LeftOut(
            "released ranges, reservations and the history",
            "no other file has them"
            + (", and the damaged one tells these alone" if state.ledger != LedgerState() else ""),
            "reserve in a plan file what others have; before a new range is used, look for files that carry it: "
            + state.layout.command("find-owned FIRST-LAST DIR"),
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
    """What each owner has in both files, in order."""

    def __init__(self, state: HostState) -> None:
        self.layout = state.layout
        self._files = {SUBUID: state.subuid, SUBGID: state.subgid}
        self._odd = {
            owner
            for file in self._files.values()
            for line in file.odd_lines()
            for owner in line.owners
        }
        self._of = {path: _grants(file) for path, file in self._files.items()}
        self.claimed = IdSet.union(file.claimed() for file in self._files.values())

    def owners(self) -> list[str]:
        return [*dict.fromkeys([*self._of[SUBUID], *self._of[SUBGID]])]

    def of(self, owner: str) -> tuple[Ranges, Ranges]:
        return self._of[SUBUID].get(owner, ()), self._of[SUBGID].get(owner, ())

    def is_odd(self, owner: str) -> bool:
        """Tell whether a line could be read as his that not all read alike."""
        return owner in self._odd

    def place(self) -> str:
        return f"{self.layout.path(SUBUID)} and {self.layout.path(SUBGID)}"


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


def _told(name: str, owner: str, lines: _Lines, left: list[LeftOut]) -> Allocation | None:
    """The allocation of an owner's lines; where they do not tell it, that is noted."""
    try:
        if name != DEFAULT_NAME:
            check_name(name)
    except InvalidValueError as error:
        left.append(LeftOut(owner, f"{error}"))
        return None
    uids, gids = lines.of(owner)
    start = str(uids[0].start) if uids else "N"
    again = lines.layout.inline(f"allocate {shell(name, '--owner', owner, '--start', start)}")
    again += " and the other words that it was made with: that takes the lines over as they stand"
    if lines.is_odd(owner) or uids != gids or not uids:
        why = f"its lines in {lines.place()} are not the same, or not all read them alike"
        left.append(
            LeftOut(
                owner, why, f"make them the same, or take them out: {lines.layout.command('check')}"
            )
        )
        return None
    strategy, base = _strategy(uids)
    if strategy is None:
        left.append(
            LeftOut(owner, "its lines do not tell which id of the container is which", again)
        )
        return None
    held = IdRange(base, strategy.need.count) if strategy.need and base is not None else None
    made = Allocation(name, owner, strategy.name, strategy.mapping(base), held)
    if made.mapping.uids.host_ranges() != uids:
        left.append(LeftOut(owner, "its lines are those of no strategy", again))
        return None
    if owner.startswith(OWN_PREFIX):
        return made
    # Nothing tells that we wrote them: they stay when it is released.
    return replace(made, found=tuple(line for one in holdings(made) for line in one.noted()))


def _strategy(ranges: Ranges) -> tuple[Strategy | None, int | None]:
    """The one strategy whose lines these are, with its base; None where none is, or several are.

    Of a single id nothing tells which id of the container it is, nor how many were set apart with it.
    """
    first, last = ranges[0], ranges[-1].last
    try:
        if len(ranges) == 1 and first.count > 1:
            if first.start == 0:
                return Shared(identity=True, max=first.count), None
            return PerContainer(size=first.count), first.start
        if first.count == 1 and first.start > 0 and len(ranges) in {2, 3}:
            fills = len(ranges) == 3  # noqa: PLR2004 - root, what fills the gap, and what is itself
            shared = Shared(dockerroot=first.start, max=last, filler=fills)
            return shared, ranges[1].start if fills else None
    except InvalidValueError:
        pass
    return None, None


def _of_run(
    one: Given, lines: _Lines, left: list[LeftOut]
) -> tuple[Allocation | None, IdRange | None]:
    """The allocation that a run names, or the range to be kept back where nobody has its lines any more."""
    ranges = one.mapping.uids.host_ranges()
    both = (ranges, one.mapping.gids.host_ranges())
    owners = [owner for owner in lines.owners() if owner != ROOT and lines.of(owner) == both]
    if len(owners) == 1:
        made = _told(one.container, owners[0], lines, left)
        if made is not None and made.mapping != one.mapping:
            left.append(
                LeftOut(
                    owners[0], f"run {one.run} gave volumes to '{one.container}' by another map"
                )
            )
            return None, None
        return made, None
    alone = len(ranges) == 1 and both[0] == both[1] and ranges[0].count > 1 and ranges[0].start > 0
    if not owners and alone and not lines.claimed.meets(ranges[0].start, ranges[0].stop):
        # It was released, or has lost its lines: files carry it, and nobody else is to get it.
        return None, ranges[0]
    why = f"run {one.run} gave volumes to it, and lines in {lines.place()} do not tell whose its ids are now"
    left.append(LeftOut(one.container, why, "allocate it by the words that it was made with"))
    return None, None


def _drop_overlapping(made: dict[str, Allocation], left: list[LeftOut]) -> None:
    """Two that hold the same ids were never given out so: neither is known."""
    held = [(one.reserved_range, name) for name, one in made.items() if one.reserved_range]
    for (mine, name), (theirs, other) in (
        (a, b) for index, a in enumerate(sorted(held)) for b in sorted(held)[index + 1 :]
    ):
        if mine.overlaps(theirs):
            left += [
                LeftOut(made[n].owner, f"the lines of {name} and {other} overlap")
                for n in (name, other)
                if n in made
            ]
            made.pop(name, None)
            made.pop(other, None)


def _still_kept(
    state: HostState, made: Iterable[Allocation], kept: Iterable[tuple[str, IdRange]]
) -> list[tuple[str, IdRange]]:
    """What the damaged ledger says is quarantined: at worst it keeps ids back that could be given out."""
    taken = IdSet(
        [*(one.reserved_range for one in made if one.reserved_range), *(held for _, held in kept)]
    )
    return [
        (q.name, q.reserved_range)
        for q in state.ledger.quarantined
        if not taken.meets(q.reserved_range.start, q.reserved_range.stop)
    ]


def _others(lines: _Lines, known: set[str], told: set[str]) -> list[LeftOut]:
    """Owners whose names do not say whether usernsplan gave them their lines."""
    names = [
        o
        for o in lines.owners()
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
            "whether usernsplan gave them is not told by their names; nobody else gets these ids",
            f"one that it did give is taken over by the words that it was made with: {again}",
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
            "whether usernsplan granted them is not told",
            f"where an engine such as LXC needs them: {state.layout.inline(f'allocate {shell(name)} --engine lxc')}"
            " and the other words that it was made with",
        )
        for name in both
    ]


def _volumes(
    made: dict[str, Allocation], kept: set[str], given: Iterable[Given], left: list[LeftOut]
) -> tuple[Volume, ...]:
    """The volumes that runs gave to these containers by the maps that they have, and have not given away since."""
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
                left.append(
                    LeftOut(
                        path, f"run {one.run} on it was interrupted: what finishes it records it"
                    )
                )
            elif same or (has is None and one.container in kept):
                mapping = has.mapping if has else one.mapping
                found[path] = Volume(path, one.container, one.mode, user=_user(mapping, one.owner))
            else:
                why = f"run {one.run} gave it to '{one.container}', whose ids are not known, or are others now"
                left.append(
                    LeftOut(path, why, "once the container is known, run fix-volume on it again")
                )
    return tuple(sorted(found.values(), key=lambda volume: volume.path))


def _user(mapping: Mapping, owner: tuple[int, int] | None) -> str:
    if owner is None:
        return ""
    return f"{mapping.uids.to_container(owner[0])}:{mapping.gids.to_container(owner[1])}"
