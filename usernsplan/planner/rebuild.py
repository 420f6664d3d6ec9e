"""Make a lost ledger again from the lines in subuid and subgid and the journals of runs. Pure.

It guesses nothing. Whatever can be read in two ways, or is nowhere else, is left out and named.
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

# How many owners a message names.
_SHOWN = 5

Ranges = tuple[IdRange, ...]


class Given(NamedTuple):
    """What the journal of a run shows: the container that its volumes were given to, and the map.

    ``paths`` are the volumes, by their names below the root. ``owner`` is the host's (uid, gid)
    that everything got; None if owners were kept apart. ``is_done``: the run was not interrupted.
    ``is_reverse``: it gave the volumes back to the host.
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
    """What cannot be known, why, and what the user can do about it."""

    what: str
    why: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The proposed ledger, as its first change, and what it lacks."""

    change: LedgerChange
    left_out: tuple[LeftOut, ...]


def make_rebuilt(
    state: HostState, given: Sequence[Given], unread: Iterable[LeftOut] = ()
) -> Rebuilt:
    """Decide what a new ledger holds.

    ``given`` is oldest first. ``unread`` are the runs whose journals cannot be read.
    """
    lines = _Lines(state)
    made: dict[str, Allocation] = {}
    quarantined: list[tuple[str, IdRange]] = []
    left = list(unread)

    # usernsplan chose the names of these owners, so their lines are ours.
    ours = dict.fromkeys(owner for owner in lines.owners() if owner.startswith(OWN_PREFIX))
    for owner in ours:
        found = _of_lines(owner.removeprefix(OWN_PREFIX), owner, lines)
        if isinstance(found, Allocation):
            made[found.name] = found
        else:
            left.append(found)

    # The last run of a container has its latest map.
    for name, one in {one.container: one for one in given if not one.is_reverse}.items():
        if f"{OWN_PREFIX}{name}" not in ours:
            match _of_run(one, lines):
                case Allocation() as found:
                    made[name] = found
                case IdRange() as ids:
                    quarantined.append((name, ids))
                case LeftOut() as why:
                    left.append(why)

    left += _without_overlaps(made)
    left += _others(lines, {a.owner for a in made.values()} | {one.what for one in left})
    left += _shared_with_root(made.values(), lines)
    quarantined += _still_quarantined(state, made.values(), quarantined)
    volumes = _volumes(made, {name for name, _ in quarantined}, given, left)
    find = state.layout.command("find-owned FIRST-LAST DIR")
    nowhere_else = "no other file has them"
    if state.ledger != LedgerState():
        nowhere_else += "; the new ledger keeps what the damaged one still shows"
    left.append(
        LeftOut(
            "quarantined ranges, reservations and the history",
            nowhere_else,
            "reserve in a plan file the ids that other programs use; before you use a new range, "
            f"look for files that carry its ids: {find}",
        )
    )

    change = LedgerChange(
        tuple(made.values()),
        quarantine=tuple(quarantined),
        volumes=volumes,
        reserve=state.ledger.reservations,
    )
    return Rebuilt(change, tuple(dict.fromkeys(left)))


class _Lines:
    """The ranges of each owner in both files, in order."""

    def __init__(self, state: HostState) -> None:
        self.layout = state.layout
        files = (state.subuid, state.subgid)
        self._uids, self._gids = map(_grants, files)
        # Some program may read an odd line as one of these owners.
        self.odd = {owner for file in files for line in file.odd_lines() for owner in line.owners}
        self.claimed = IdSet.union(file.claimed() for file in files)
        self.place = f"{self.layout.path(SUBUID)} and {self.layout.path(SUBGID)}"

    def owners(self) -> list[str]:
        return [*dict.fromkeys([*self._uids, *self._gids])]

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


def _of_lines(name: str, owner: str, lines: _Lines) -> Allocation | LeftOut:
    """The allocation that the lines of an owner show."""
    try:
        if name != DEFAULT_NAME:
            check_name(name)
    except InvalidValueError as error:
        return LeftOut(owner, f"{error}")

    uids, gids = lines.of(owner)
    if owner in lines.odd or uids != gids or not uids:
        why = f"its lines in {lines.place} differ, or not every program reads them alike"
        check = lines.layout.command("check")
        return LeftOut(owner, why, f"make the lines in both files equal, or remove them: {check}")

    adopt = lines.layout.inline(
        f"allocate {shell(name, '--owner', owner, '--start', str(uids[0].start))}"
    )
    remedy = f"run {adopt} with the options that it was made with; this adopts the lines"
    strategy, base = _strategy(uids)
    if strategy is None:
        return LeftOut(owner, "its lines do not show which container ids they map", remedy)
    ids = IdRange(base, strategy.need.count) if strategy.need and base is not None else None
    made = Allocation(name, owner, strategy.name, strategy.mapping(base), ids)
    if made.mapping.uids.host_ranges() != uids:
        return LeftOut(owner, "no strategy makes such lines", remedy)

    if owner.startswith(OWN_PREFIX):
        return made
    # Nothing proves that we wrote them, so release leaves them.
    return replace(made, found=tuple(line for one in holdings(made) for line in one.noted()))


def _strategy(ranges: Ranges) -> tuple[Strategy | None, int | None]:
    """The only strategy that makes such lines, with its base; (None, None) if none or several do.

    A single id may be any id of its container, and does not show the size of its block.
    """
    first, last = ranges[0], ranges[-1].last
    try:
        if len(ranges) == 1 and first.count > 1:
            if first.start == 0:
                return Shared(identity=True, max=first.count), None
            return PerContainer(size=first.count), first.start
        if first.count == 1 and first.start > 0 and len(ranges) in {2, 3}:
            fills = len(ranges) == 3  # noqa: PLR2004 - root, the filler, the rest
            shared = Shared(dockerroot=first.start, max=last, filler=fills)
            return shared, ranges[1].start if fills else None
    except InvalidValueError:
        pass
    return None, None


def _of_run(one: Given, lines: _Lines) -> Allocation | IdRange | LeftOut:
    """The allocation that a run used; if no owner has its lines, its range, for quarantine."""
    uids, gids = one.mapping.uids.host_ranges(), one.mapping.gids.host_ranges()
    owners = [o for o in lines.owners() if o != ROOT and lines.of(o) == (uids, gids)]
    if len(owners) == 1:
        found = _of_lines(one.container, owners[0], lines)
        if isinstance(found, Allocation) and found.mapping != one.mapping:
            why = f"run {one.run} gave volumes to '{one.container}' with another map"
            return LeftOut(owners[0], why)
        return found

    ids = uids[0]
    is_one_range = uids == gids == (ids,) and ids.count > 1 and ids.start > 0
    if not owners and is_one_range and not lines.claimed.meets(ids.start, ids.stop):
        # It was released, or lost its lines. Files carry these ids, so no other container may
        # have them.
        return ids
    why = (
        f"run {one.run} gave volumes to it, and the lines in {lines.place} "
        "do not show which owner has its ids now"
    )
    return LeftOut(one.container, why, "allocate it again with the options that it was made with")


def _without_overlaps(made: dict[str, Allocation]) -> Iterable[LeftOut]:
    """Drop allocations that overlap: usernsplan never makes two such, so neither is certain."""
    widest: tuple[IdRange, str] | None = None
    held = sorted((a.reserved_range, name) for name, a in made.items() if a.reserved_range)
    for ids, name in held:
        if widest and ids.start < widest[0].stop:
            why = f"the lines of {widest[1]} and {name} overlap"
            yield from (LeftOut(made.pop(n).owner, why) for n in (widest[1], name) if n in made)
        if not widest or ids.stop > widest[0].stop:
            widest = (ids, name)


def _still_quarantined(
    state: HostState, made: Iterable[Allocation], quarantined: Iterable[tuple[str, IdRange]]
) -> list[tuple[str, IdRange]]:
    """The ranges that the damaged ledger shows as quarantined. A wrong one only wastes its ids."""
    allocated = (a.reserved_range for a in made if a.reserved_range)
    taken = IdSet([*allocated, *(ids for _, ids in quarantined)])
    return [
        (q.name, q.reserved_range)
        for q in state.ledger.quarantined
        if not taken.meets(q.reserved_range.start, q.reserved_range.stop)
    ]


def _others(lines: _Lines, known: set[str]) -> Iterable[LeftOut]:
    """The owners whose names do not show whether usernsplan wrote their lines."""
    names = [
        owner
        for owner in lines.owners()
        if owner not in known and owner != ROOT and not owner.startswith(OWN_PREFIX)
    ]
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        adopt = lines.layout.command("allocate NAME --owner OWNER --start N")
        yield LeftOut(
            f"lines of {', '.join(names[:_SHOWN])}{more}",
            "the names do not show whether usernsplan wrote them; "
            "no other container gets their ids",
            f"if usernsplan wrote one, adopt it, with the options that it was made with: {adopt}",
        )


def _shared_with_root(made: Iterable[Allocation], lines: _Lines) -> Iterable[LeftOut]:
    """The allocations whose lines root has too, as LXC needs them."""
    uids, gids = ({*ranges} for ranges in lines.of(ROOT))
    for a in made:
        if uids.issuperset(a.mapping.uids.host_ranges()) and gids.issuperset(
            a.mapping.gids.host_ranges()
        ):
            lxc = lines.layout.inline(f"allocate {shell(a.name)} --engine lxc")
            yield LeftOut(
                f"root's lines for {a.name}",
                "nothing proves that usernsplan wrote them",
                f"if an engine such as LXC needs them, run {lxc} "
                "with the options that it was made with",
            )


def _volumes(
    made: dict[str, Allocation], quarantined: set[str], given: Iterable[Given], left: list[LeftOut]
) -> tuple[Volume, ...]:
    """The volumes that runs gave to these containers by their maps, and not away since then."""
    found: dict[str, Volume] = {}
    for run, path in ((one, path) for one in given for path in one.paths):
        found.pop(path, None)
        if run.is_reverse:
            continue
        has = made.get(run.container)
        mapping = has.mapping if has else run.mapping
        is_known = has is not None or run.container in quarantined

        if not run.is_done:
            why = (
                f"run {run.run} on it was interrupted; the ledger gets it when the run is finished"
            )
            left.append(LeftOut(path, why))
        elif is_known and mapping.uids.host_ranges() == run.mapping.uids.host_ranges():
            user = ""
            if run.owner is not None:
                uid, gid = run.owner
                user = f"{mapping.uids.to_container(uid)}:{mapping.gids.to_container(gid)}"
            found[path] = Volume(path, run.container, run.mode, user=user)
        else:
            why = (
                f"run {run.run} gave it to '{run.container}', whose ids are unknown or have changed"
            )
            remedy = "when the container is known, run fix-volume on it again"
            left.append(LeftOut(path, why, remedy))
    return tuple(sorted(found.values(), key=lambda volume: volume.path))
